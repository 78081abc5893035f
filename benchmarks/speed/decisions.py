"""The cost of a report with 4,096 workers, including the decisions of policies.

Every worker polls and reports once in a pass, in a new random order each time. A policy
decides for a worker every pass, or every tenth; the figure is the time of all polls and
reports over their number, so that a decision is spread over the reports that led to it.

    python -m benchmarks.speed.decisions && python -m benchmarks.render
"""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.record import RESULTS, Figure, circumstances, spread, write
from population import Mutator, PopulationController
from population.mutators import (
    REGISTRY,
    BranchingSingleMachine,
    FixedSchedule,
    MultiFrequencyPBT,
    PopulationBasedTraining,
    SuccessiveHalving,
    TwoSpeedPBT,
    WinnerTakeAllGenetic,
)
from population.mutators.exploit import (
    BinaryTournament,
    Threshold,
    TopFraction,
    WelchTTest,
)
from population.space import Perturb, Uniform

STEPS = 10  # Training steps between two reports.
SPACE = {"a": Uniform(0, 1), "b": Uniform(0, 1)}
GOAL_US = 1000.0
ABOUT = [
    "Microseconds of a poll and a report in memory, all decisions included. Goal: less",
    "than a millisecond, whatever the policy. The values are random, so that nearly",
    "each asynchronous decision copies: new ones are worse than the selected.",
]
MUTATE = Perturb(SPACE)
Make = Callable[[int], Mutator[Any]]
POLICIES: dict[str, Make] = {
    "PopulationBasedTraining, truncation, asynchronous": lambda steps: (
        PopulationBasedTraining(MUTATE, steps)
    ),
    "PopulationBasedTraining, truncation, synchronous": lambda steps: (
        PopulationBasedTraining(MUTATE, steps, synchronous=True)
    ),
    "PopulationBasedTraining, tournament, asynchronous": lambda steps: (
        PopulationBasedTraining(MUTATE, steps, exploit=BinaryTournament())
    ),
    "PopulationBasedTraining, t-test, asynchronous": lambda steps: (
        PopulationBasedTraining(MUTATE, steps, exploit=WelchTTest())
    ),
    "PopulationBasedTraining, top third, asynchronous": lambda steps: (
        PopulationBasedTraining(MUTATE, steps, exploit=TopFraction())
    ),
    "PopulationBasedTraining, threshold, asynchronous": lambda steps: (
        PopulationBasedTraining(MUTATE, steps, exploit=Threshold())
    ),
    "PopulationBasedTraining, explore only": lambda steps: PopulationBasedTraining(
        MUTATE, steps, exploit=None
    ),
    "MultiFrequencyPBT": lambda steps: MultiFrequencyPBT(MUTATE, steps, (1, 2, 4, 8)),
    "TwoSpeedPBT, slow ones each 8th time": lambda steps: TwoSpeedPBT(
        Perturb(SPACE, share=0.5), steps, slow=8
    ),
    "TwoSpeedPBT, a council each time": lambda steps: TwoSpeedPBT(
        Perturb(SPACE, share=0.5), steps, slow=1
    ),
    "SuccessiveHalving, losers retire": lambda steps: SuccessiveHalving(None, steps),
    "SuccessiveHalving, weights handed on": lambda steps: SuccessiveHalving(
        MUTATE, steps
    ),
    "WinnerTakeAllGenetic": lambda steps: WinnerTakeAllGenetic(MUTATE, steps),
    "FixedSchedule": lambda steps: FixedSchedule(
        {k * steps: {"a": 1 / (k + 1), "b": 0.5} for k in range(99)}
    ),
    "BranchingSingleMachine, its one worker": lambda steps: BranchingSingleMachine(
        lambda meta, direction, cycle: meta, steps, steps
    ),
}


def microseconds(mutator: Mutator[Any], size: int, passes: int, seed: int) -> float:
    """A poll and a report, averaged over all workers and passes."""
    controller = PopulationController.from_space(SPACE, size, mutator, seed=seed)
    rng = np.random.default_rng(seed)
    work = controller.workers
    steps = [0] * size
    spent = 0.0
    for _ in range(passes):
        order, values = rng.permutation(size).tolist(), rng.random(size).tolist()
        start = time.perf_counter()
        for worker_id in order:
            generation_id = work[worker_id].generation_id
            news = controller.maybe_get_worker_data(
                worker_id, generation_id, steps[worker_id], None, None
            )
            if news is not None:
                work[worker_id], steps[worker_id] = news, news.step
                generation_id = news.generation_id
            steps[worker_id] += STEPS
            controller.set_eval(
                worker_id, generation_id, steps[worker_id], None, values[worker_id]
            )
        spent += time.perf_counter() - start
    controller.close()
    return spent / (passes * size) * 1e6


def figures(size: int, repetitions: int) -> list[Figure]:
    """Each policy, deciding at every report and at every tenth."""
    found = []
    for every, passes in ((1, 3), (10, 11)):
        section = f"{size} workers, a decision every {every} report{'s' * (every > 1)}"
        for name, make in POLICIES.items():
            alone = name.startswith("BranchingSingleMachine")
            workers, turns = (1, passes * 500) if alone else (size, passes)
            samples = [
                microseconds(make(STEPS * every), workers, turns, seed)
                for seed in range(repetitions)
            ]
            found.append(Figure(section, name, "us", spread(samples), at_most=GOAL_US))
    return found


def main(argv: list[str] | None = None) -> None:
    """Write `results/decisions.json`."""
    parser = argparse.ArgumentParser(description="What a decision costs.")
    parser.add_argument("--quick", action="store_true", help="small sizes, for tests")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "decisions.json")
    options = parser.parse_args(argv)
    if options.quick and options.out.parent == RESULTS:
        parser.error("--quick figures are no results: pass --out with another folder.")
    size, repetitions = (64, 1) if options.quick else (4096, 3)
    for kind in REGISTRY.values():
        if not any(kind.__name__ in name for name in POLICIES):
            raise SystemExit(f"{kind.__name__} has no figure here.")
    command = "python -m benchmarks.speed.decisions"
    write(
        options.out,
        {
            "title": "What a decision costs",
            "about": ABOUT,
            "command": command + " --quick" * options.quick,
            **circumstances(options.out.parent, ["numpy"]),
            "seed": f"0 to {repetitions - 1}",
            "repetitions": repetitions,
            "figures": [figure.as_json() for figure in figures(size, repetitions)],
        },
    )


if __name__ == "__main__":
    main()
