"""The gain of a larger population, with PBT and without, at equal training steps.

    python -m examples.synthetic.population_size --picture sizes.png

The toy of figure 2, but theta and h of each worker begin anywhere in [0, 1]. Without
PBT the result is the best of N independent workers.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics

from matplotlib.figure import Figure

from examples.synthetic import toy
from population.mutators.exploit import Truncation
from population.space import Perturb

STEPS = 150
EVERY = 10
SIZES = (1, 2, 4, 8, 16, 32)
SETTINGS = toy.Settings(
    Perturb(toy.SPACE, (0.5, 2.0)), 10, Truncation(0.2), copy_meta_params=True
)


def scores(size: int, pbt: bool, seeds: range) -> list[float]:
    """The best worker's objective at the end, a number for each seed."""
    found = []
    for seed in seeds:
        starts = toy.random_starts(size, seed)
        mutator = toy.policy(SETTINGS, exploit=pbt, explore=pbt)
        controller = toy.train(starts, mutator, STEPS, EVERY, seed)
        found.append(toy.result(controller, STEPS))
    return found


def draw(
    picture: pathlib.Path, with_pbt: list[list[float]], without: list[list[float]]
) -> None:
    """Draw the gap to the optimum: a line with PBT, one without, a dot per seed."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for label, results, colour in (
        ("PBT", with_pbt, "C0"),
        ("best of N", without, "C1"),
    ):
        gaps = [[toy.OPTIMUM - value for value in row] for row in results]
        sizes = SIZES[: len(gaps)]
        axes.plot(sizes, [statistics.mean(row) for row in gaps], "-", color=colour)
        for size, row in zip(sizes, gaps, strict=True):
            axes.plot([size] * len(row), row, ".", color=colour, alpha=0.35)
        axes.plot([], [], "-o", color=colour, label=label)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="workers",
        ylabel=f"1.2 - objective after {STEPS} steps",
        xticks=SIZES,
        xticklabels=[str(size) for size in SIZES],
    )
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture, dpi=110)


def main(argv: list[str] | None = None) -> None:
    """Print the table, and draw the picture if one is asked for."""
    parser = argparse.ArgumentParser(description="The toy with 1 to 32 workers.")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--picture", type=pathlib.Path, help="a PNG file to write")
    options = parser.parse_args(argv)
    with_pbt, without = [], []
    print(f"mean objective of the best worker after {STEPS} steps, optimum 1.2")
    for size in SIZES:
        with_pbt.append(scores(size, True, range(options.seeds)))
        without.append(scores(size, False, range(options.seeds)))
        print(
            f"{size:2} workers: PBT {statistics.mean(with_pbt[-1]):.4f}, "
            f"best of {size} {statistics.mean(without[-1]):.4f}"
        )
    if options.picture is not None:
        draw(options.picture, with_pbt, without)
        print(f"picture: {options.picture}")


if __name__ == "__main__":
    main()
