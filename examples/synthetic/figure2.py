"""The four ablations of figure 2 of the PBT paper, as a table and a picture.

    python -m examples.synthetic.figure2 --picture figure2.png

PBT exploits and explores; the ablations leave out one of the two or both. Without both
this is grid search over h = (1, 0) and (0, 1). Every other worker copies the theta of
the best, and explores from its own h.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from examples.synthetic import toy
from population import PopulationController
from population.mutators.exploit import Winner
from population.space import Perturb

STEPS = 200
SEEDS_FOR_CHOICE = range(100, 120)
STARTS = [([0.9, 0.9], [1.0, 0.0]), ([0.9, 0.9], [0.0, 1.0])]
ABLATIONS = {
    "PBT": (True, True),
    "exploit only": (True, False),
    "explore only": (False, True),
    "grid": (False, False),
}


def add_noise(meta_params: Any, rng: np.random.Generator) -> Any:
    """Each h plus a tenth of a standard normal number, without bounds."""
    return {"h": [h + 0.1 * float(rng.normal()) for h in meta_params["h"]]}


SETTINGS = {
    # Those of the public re-implementation, angusfung/population-based-training.
    "seed": toy.Settings(add_noise, 10, Winner(), copy_meta_params=False),
    # The best of `benchmarks/quality/toy.py` on SEEDS_FOR_CHOICE, h in [0, 1].
    "frozen": toy.Settings(
        Perturb(toy.SPACE, (0.2, 5.0), 0.0), 2, Winner(), copy_meta_params=False
    ),
}


def train(
    name: str, seed: int, settings: toy.Settings, every: int = 2
) -> PopulationController:
    """One of the ablations with two workers, 200 steps each."""
    exploit, explore = ABLATIONS[name]
    mutator = toy.policy(settings, exploit, explore)
    return toy.train(STARTS, mutator, STEPS, every, seed)


def scores(name: str, seeds: range, settings: toy.Settings) -> list[float]:
    """The better worker's objective at the end, a number for each seed."""
    return [toy.result(train(name, seed, settings), STEPS) for seed in seeds]


def draw(picture: pathlib.Path, seed: int, settings: toy.Settings) -> None:
    """Theta of both workers above, the objective over steps below."""
    figure = Figure(figsize=(12, 6), layout="constrained")
    axes = figure.subplots(2, len(ABLATIONS), sharex="row", sharey="row")
    for column, name in enumerate(ABLATIONS):
        history = train(name, seed, settings, every=1).history()
        reports = [c for c in history if c.value is not None]
        upper, lower = axes[0][column], axes[1][column]
        for worker_id in range(len(STARTS)):
            own = [
                c for c in reports if c.worker_id == worker_id and c.value is not None
            ]
            colour, label = f"C{worker_id}", f"worker {worker_id}"
            theta0, theta1 = zip(*(c.params for c in own), strict=True)
            upper.plot(theta0, theta1, ".", color=colour, markersize=3, label=label)
            lower.plot([c.step for c in own], [c.value for c in own], color=colour)
        lower.axhline(toy.OPTIMUM, color="grey", linestyle="--", linewidth=1)
        upper.set(title=name, xlabel="theta 0", xlim=(-0.05, 1), ylim=(-0.05, 1))
        lower.set(xlabel="training steps", ylim=(-0.5, 1.3))
    axes[0][0].set_ylabel("theta 1")
    axes[0][0].legend(fontsize="small")
    axes[1][0].set_ylabel("objective (at most 1.2)")
    figure.savefig(picture, dpi=110)


def main(argv: list[str] | None = None) -> None:
    """Print the table, and draw the picture if one is asked for."""
    parser = argparse.ArgumentParser(description="Figure 2 of the PBT paper.")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--settings", choices=SETTINGS, default="frozen")
    parser.add_argument("--picture", type=pathlib.Path, help="a PNG file to write")
    options = parser.parse_args(argv)
    settings = SETTINGS[options.settings]
    print(f"objective of the better of two workers after {STEPS} steps, optimum 1.2")
    for name in ABLATIONS:
        found = scores(name, range(options.seeds), settings)
        print(
            f"{name:13} mean {statistics.mean(found):.4f}, worst {min(found):.4f}, "
            f"best {max(found):.4f}, {len(found)} seeds"
        )
    if options.picture is not None:
        draw(options.picture, 0, settings)
        print(f"picture: {options.picture}")


if __name__ == "__main__":
    main()
