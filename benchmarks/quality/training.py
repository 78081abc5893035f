"""Policies on real training: chosen by validation, reported on the test set.

    python -m benchmarks.quality.training && python -m benchmarks.render

Other seeds, for choosing the settings, write nothing:

    python -m benchmarks.quality.training --first_seed 100 --seeds 12
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.quality import stacks
from benchmarks.quality.stacks import SPACE, Problem
from benchmarks.quality.statistics import differences, interval
from benchmarks.record import RESULTS, circumstances, write
from examples.datasets import Dataset
from population import Mutator, PopulationController, Schedule, Stop
from population.engines import vectorized
from population.mutators import FixedSchedule, PopulationBasedTraining, TwoSpeedPBT
from population.mutators.exploit import Truncation
from population.space import Perturb

TWO_SPEED, PBT, SEARCH = "TwoSpeedPBT", "PBT, truncation", "random search"
COSINE, SCHEDULE_FREE = "cosine schedules", "schedule-free AdamW"
ARMS = (TWO_SPEED, PBT, SEARCH, COSINE, SCHEDULE_FREE)
RULES = {COSINE: stacks.cosine_adamw, SCHEDULE_FREE: stacks.schedule_free_adamw}
AGAIN = 1000  # Added to a seed: the seed with which its schedule is trained again.
ABOUT = [
    "Less is better. Digits of 8 x 8 pixels, for each seed in another order: 600 to",
    "train on, 400 (or 100) to choose by, 797 for the test. 16 members train as one",
    "program: an MLP of 64-64 for 1,000 steps, or a CNN for 600. They tune learning",
    "rate, weight decay, the noise added to the images, and label smoothing. All arms",
    "of a seed begin with equal hyperparameters (a Latin hypercube over the whole",
    "ranges), weights and batches, and train for as many steps. The checkpoint with",
    "the least cross entropy on the validation set is chosen, among all of the run;",
    "random search chooses so among 16 runs with constant hyperparameters. Cosine",
    "schedules: the same, but the learning rate falls to zero along a cosine;",
    "schedule-free: the same with AdamW of optax.contrib. PBT is synchronous; its",
    "worst fifth copies each tenth of the run. Trained again: one member, from other",
    "weights and with other batches, follows the schedule of the chosen checkpoint up",
    "to its step. A figure is a mean over seeds, +- half of its 95 % interval",
    "(Student's t); differences are taken within each seed. No setting of any arm was",
    "chosen on these seeds.",
]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        problems: The models and their populations.
        first_seed: The first of the seeds, which follow one another.
        seeds: How many seeds.
    """

    problems: tuple[Problem, ...] = (stacks.MLPS, stacks.FEW, stacks.CNNS)
    first_seed: int = 0
    seeds: int = 20


QUICK = Sizes(
    (
        dataclasses.replace(
            stacks.MLPS, members=4, steps=12, every=2, steps_per_exploit=4, batch_size=8
        ),
    ),
    seeds=2,
)


class Outcome(NamedTuple):
    """The result of one arm with one seed.

    Attributes:
        validation_loss: The cross entropy by which the checkpoint was chosen.
        test_loss: The cross entropy of that checkpoint on the test set.
        test_error: Its error on the test set, in per cent.
        step: Its step.
        again_loss: The cross entropy on the test set of one member that was trained
            from scratch with the schedule of that checkpoint, and with another seed.
        again_error: The error of that member, in per cent.
    """

    validation_loss: float
    test_loss: float
    test_error: float
    step: int
    again_loss: float
    again_error: float


Outcomes = dict[str, list[Outcome]]  # By arm, one a seed.
# By column of the tables: what it shows of an outcome, and with how many digits.
MEASURES: dict[str, tuple[Callable[[Outcome], float], int]] = {
    "validation": (lambda o: o.validation_loss, 4),
    "test": (lambda o: o.test_loss, 4),
    "test minus validation": (lambda o: o.test_loss - o.validation_loss, 4),
    "error on test, %": (lambda o: o.test_error, 2),
    "schedule trained again, test": (lambda o: o.again_loss, 4),
    "its error on test, %": (lambda o: o.again_error, 2),
}


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the result."""
    flags = _parser().parse_args(arguments)
    names = ("first_seed", "seeds")
    given = {n: getattr(flags, n) for n in names if getattr(flags, n) is not None}
    sizes = dataclasses.replace(QUICK if flags.quick else Sizes(), **given)
    own = not flags.quick and not given
    words = [
        *(["--quick"] if flags.quick else []),
        *(f"--{n} {given[n]}" for n in given),
    ]
    where = circumstances(RESULTS, ["jax", "flax", "optax", "numpy", "scikit-learn"])
    start = time.perf_counter()
    found = {problem.name: measure(problem, sizes) for problem in sizes.problems}
    result = {
        "title": "Policies on real training, chosen by validation",
        "about": ABOUT,
        "command": " ".join(["python -m benchmarks.quality.training", *words]),
        **where,
        "seed": f"{sizes.first_seed} to {sizes.first_seed + sizes.seeds - 1}",
        "repetitions": sizes.seeds,
        "sizes": {p.name: _described(p) for p in sizes.problems},
        "seconds": round(time.perf_counter() - start),
        "figures": [],
        "tables": [table for name in found for table in tables(name, found[name])],
        "outcomes": {
            name: {arm: [o._asdict() for o in all_] for arm, all_ in outcomes.items()}
            for name, outcomes in found.items()
        },
    }
    out = flags.out or (RESULTS / "training.json" if own else None)
    if out is not None:
        write(out, result)
    for table in result["tables"]:
        print(table["title"], *table["rows"], sep="\n", flush=True)


def measure(problem: Problem, sizes: Sizes) -> Outcomes:
    """All arms with each seed, one after the other."""
    outcomes: Outcomes = {arm: [] for arm in ARMS}
    for seed in range(sizes.first_seed, sizes.first_seed + sizes.seeds):
        dataset = stacks.cut(seed, problem.validation)
        for arm, found in outcomes.items():
            found.append(run(arm, problem, seed, dataset))
            print(f"{problem.name}, seed {seed}, {arm}: {found[-1]}", flush=True)
    return outcomes


def run(arm: str, problem: Problem, seed: int, dataset: Dataset) -> Outcome:
    """Train a population, choose its best checkpoint, and train its schedule again."""
    functions = stacks.functions(problem, RULES.get(arm, stacks.adamw))
    controller = population(arm, problem, seed)
    train(controller, functions, problem, dataset)
    best = controller.best()
    if best is None or best.value is None:
        raise RuntimeError(f"No member of {arm} with seed {seed} has a finite loss.")
    found = functions.judge(controller.load(best), dataset.test)
    replay = again(controller.schedule(best), best.step, seed)
    controller.close()
    train(replay, functions, problem, dataset)
    last = functions.judge(replay.load(replay.newest(0)), dataset.test)
    replay.close()
    losses, errors = zip(found, last, strict=True)
    return Outcome(
        validation_loss=best.value,
        test_loss=float(losses[0]),
        test_error=float(errors[0]),
        step=best.step,
        again_loss=float(losses[1]),
        again_error=float(errors[1]),
    )


def population(arm: str, problem: Problem, seed: int) -> PopulationController:
    """The members before the first step, equal in all arms of a seed."""
    return PopulationController.from_space(
        SPACE,
        problem.members,
        _mutator(arm, problem),
        seed=seed,
        stop=Stop(steps=problem.steps),
    )


def again(schedule: Schedule, steps: int, seed: int) -> PopulationController:
    """One member with a schedule, and with other weights and batches, to this step."""
    return PopulationController(
        [schedule.at(0)],
        FixedSchedule(schedule),
        seed=seed + AGAIN,
        space=SPACE,
        stop=Stop(steps=steps),
    )


def train(
    controller: PopulationController,
    functions: stacks.Functions,
    problem: Problem,
    dataset: Dataset,
) -> None:
    """Train all members as one program."""
    vectorized.run(
        controller,
        functions.init,
        functions.step,
        functions.evaluate,
        problem.every,
        data=dataset.train,
        evaluation=dataset.validation,
        batching=problem.batching,
        progress=False,
    )


def tables(problem: str, outcomes: Outcomes) -> list[dict[str, Any]]:
    """Each arm, and what `TwoSpeedPBT` has less than the others within each seed."""
    columns: dict[str, list[str]] = {}
    gaps: dict[str, list[str]] = {}
    for column, (of, digits) in MEASURES.items():
        samples = {arm: [of(o) for o in found] for arm, found in outcomes.items()}
        columns[column] = [_shown(samples[arm], digits) for arm in ARMS]
        own = samples[TWO_SPEED]
        gaps[column] = [
            _shown(differences(own, samples[arm]), digits) for arm in ARMS[1:]
        ]
    return [
        _table(problem, ARMS, columns),
        _table(f"{problem}, {TWO_SPEED} minus", ARMS[1:], gaps),
    ]


def _table(
    title: str, names: Sequence[str], columns: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    rows = [list(row) for row in zip(names, *columns.values(), strict=True)]
    return {"title": title, "columns": ["", *columns], "rows": rows}


def _shown(samples: Sequence[float], digits: int) -> str:
    mean, low, _ = interval(samples)
    return f"{mean:.{digits}f} +- {mean - low:.{digits}f}"


def _mutator(arm: str, problem: Problem) -> Mutator[Any]:
    if arm == TWO_SPEED:
        return TwoSpeedPBT(
            Perturb(SPACE, share=0.5), problem.every, horizon=problem.steps
        )
    if arm == PBT:
        return PopulationBasedTraining(
            Perturb(SPACE),
            problem.steps_per_exploit,
            exploit=Truncation(0.2),
            synchronous=True,
        )
    return PopulationBasedTraining(None, problem.steps_per_exploit, exploit=None)


def _described(problem: Problem) -> dict[str, Any]:
    fields = dataclasses.asdict(problem)
    return {**fields, "model": repr(problem.model)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for a test")
    parser.add_argument(
        "--out", type=pathlib.Path, help="by default results/training.json"
    )
    parser.add_argument("--first_seed", type=int)
    parser.add_argument("--seeds", type=int)
    return parser


if __name__ == "__main__":
    main()
