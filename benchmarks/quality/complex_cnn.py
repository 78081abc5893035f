"""Population based training against random search, on the CNN with ten hyperparameters.

    python -m benchmarks.quality.complex_cnn && python -m benchmarks.render

Other seeds, for choosing the sizes, write nothing:

    python -m benchmarks.quality.complex_cnn --first_seed 100 --steps_per_exploit 100
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import tempfile
import time
from typing import Any, NamedTuple

from benchmarks.quality.statistics import differences, interval
from benchmarks.record import RESULTS, Figure, circumstances, shown, write
from examples import datasets
from examples.complex_cnn import model
from examples.complex_cnn.space import space
from population import Mutator, PopulationController, Stop
from population.engines import threads
from population.mutators import PopulationBasedTraining
from population.mutators.exploit import Truncation
from population.space import Perturb

PBT, SEARCH = "PBT", "random search"
ABOUT = [
    "Colour digits; less is better. Both arms of a seed begin with equal weights and",
    "hyperparameters, draw minibatches alike and train for as many steps. PBT is",
    "synchronous, with truncation; in random search nobody copies anybody. The best",
    "checkpoint by validation loss counts, with its error on the test set. A figure is",
    "a mean over seeds with its 95 % interval (Student's t); differences are taken",
    "within each seed. The sizes were chosen on other seeds, by validation. While all",
    "losses are still those of chance, PBT ranks noise: it can drop the very member",
    "that would have learned first (so it lost with seed 3), and then falls behind.",
]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        first_seed: The first of the seeds, which follow one another.
        seeds: How many seeds.
        workers: Members of a population.
        steps: Training steps of each member.
        every: Steps between two reports.
        steps_per_exploit: Steps between two decisions of PBT.
        burn_in: PBT decides nothing before this step.
        width: Channels.
        max_batch: The largest batch size.
    """

    first_seed: int = 0
    seeds: int = 5
    workers: int = 8
    steps: int = 1000
    every: int = 50
    steps_per_exploit: int = 50
    burn_in: int = 0
    width: int = 8
    max_batch: int = 64


QUICK = Sizes(
    seeds=2, workers=2, steps=4, every=2, steps_per_exploit=2, width=2, max_batch=16
)


class Outcome(NamedTuple):
    """The result of one arm with one seed.

    Attributes:
        validation_loss: The loss by which the checkpoint was chosen.
        test_error: The error of that checkpoint on the test set, in per cent.
        test_loss: The loss of that checkpoint on the test set.
    """

    validation_loss: float
    test_error: float
    test_loss: float


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the result."""
    flags = _parser().parse_args(arguments)
    names = [field.name for field in dataclasses.fields(Sizes)]
    given = {n: getattr(flags, n) for n in names if getattr(flags, n) is not None}
    sizes = dataclasses.replace(QUICK if flags.quick else Sizes(), **given)
    own = not flags.quick and not given
    words = [
        *(["--quick"] if flags.quick else []),
        *(f"--{n} {given[n]}" for n in given),
    ]
    with tempfile.TemporaryDirectory() as folder:
        where = circumstances(pathlib.Path(folder), ["jax", "flax", "optax", "dm-pix"])
    start = time.perf_counter()
    outcomes = measure(sizes)
    figures = compare(outcomes)
    last = sizes.first_seed + sizes.seeds - 1
    result = {
        "title": "Ten hyperparameters of a CNN: PBT against random search",
        "about": ABOUT,
        "command": " ".join(["python -m benchmarks.quality.complex_cnn", *words]),
        **where,
        "seed": f"{sizes.first_seed} to {last}",
        "repetitions": sizes.seeds,
        "sizes": dataclasses.asdict(sizes),
        "seconds": round(time.perf_counter() - start),
        "figures": [figure.as_json() for figure in figures],
        "outcomes": {
            arm: [outcome._asdict() for outcome in found]
            for arm, found in outcomes.items()
        },
    }
    out = flags.out or (RESULTS / "complex_cnn.json" if own else None)
    if out is not None:
        write(out, result)
    for figure in figures:
        print(shown(figure), flush=True)


def measure(sizes: Sizes) -> dict[str, list[Outcome]]:
    """Both arms with each seed, one after the other."""
    dataset = datasets.colour_digits()
    outcomes: dict[str, list[Outcome]] = {PBT: [], SEARCH: []}
    for seed in range(sizes.first_seed, sizes.first_seed + sizes.seeds):
        for arm, found in outcomes.items():
            found.append(run(arm, seed, dataset, sizes))
            print(f"seed {seed}, {arm}: {found[-1]}", flush=True)
    return outcomes


def run(arm: str, seed: int, dataset: datasets.Dataset, sizes: Sizes) -> Outcome:
    """Train a population, and look at its best checkpoint."""
    functions = model.make(dataset, sizes.width, seed)
    controller = population(arm, seed, sizes)
    threads.run(
        lambda worker: model.train_worker(
            worker, functions, dataset, sizes.max_batch, sizes.every
        ),
        controller,
        num_workers=1,
        progress=False,
    )
    best = controller.best()
    if best is None or best.value is None:
        raise RuntimeError(f"No member of {arm} with seed {seed} has a finite loss.")
    state = controller.load(best, functions.init({}))
    controller.close()
    loss, accuracy = functions.evaluate(state, dataset.test)
    return Outcome(best.value, 100 * (1 - float(accuracy)), float(loss))


def population(arm: str, seed: int, sizes: Sizes) -> PopulationController:
    """The members before the first step, equal in both arms of a seed."""
    within = space(sizes.max_batch)
    return PopulationController.from_space(
        within,
        sizes.workers,
        _mutator(arm, within, sizes),
        initial="random",
        seed=seed,
        stop=Stop(steps=sizes.steps),
    )


def compare(outcomes: dict[str, list[Outcome]]) -> list[Figure]:
    """Each arm, and the difference within each seed."""
    figures = []
    for place, (section, unit) in enumerate(
        [("Validation loss", ""), ("Test error", "%"), ("Test cross entropy", "")]
    ):
        arms = {arm: [o[place] for o in found] for arm, found in outcomes.items()}
        for what, samples in arms.items():
            figures.append(Figure(section, what, unit, interval(samples)))
        gaps = differences(arms[PBT], arms[SEARCH])
        won = f"{PBT} is better in {sum(gap < 0 for gap in gaps)} of {len(gaps)}"
        what = f"{PBT} minus {SEARCH}"
        figures.append(Figure(section, what, unit, interval(gaps), note=won))
    return figures


def _mutator(arm: str, within: Any, sizes: Sizes) -> Mutator[Any]:
    if arm == SEARCH:
        return PopulationBasedTraining(None, sizes.steps_per_exploit, exploit=None)
    return PopulationBasedTraining(
        Perturb(within),
        sizes.steps_per_exploit,
        exploit=Truncation(0.2),
        synchronous=True,
        burn_in=sizes.burn_in,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for a test")
    parser.add_argument(
        "--out", type=pathlib.Path, help="by default results/complex_cnn.json"
    )
    for field in dataclasses.fields(Sizes):
        parser.add_argument(f"--{field.name}", type=int)
    return parser


if __name__ == "__main__":
    main()
