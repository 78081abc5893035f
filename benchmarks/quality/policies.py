"""What each policy finds on cheap tasks, beside random search and the best static.

    python -m benchmarks.quality.policies --enduro enduro.npz
    python -m benchmarks.render

The table of Enduro is not part of this repository; without it, its tasks are left out.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.quality.lockstep import Outcome, found_by, searched, static
from benchmarks.quality.policy_tables import (
    OURS,
    SEARCH,
    Cell,
    Found,
    goals,
    summaries,
    tables,
)
from benchmarks.quality.tasks import Enduro, Noisy, Problem, Static, Toy, Track
from benchmarks.record import RESULTS, circumstances, shown, write
from population import Mutator
from population.mutators import (
    MultiFrequencyPBT,
    PopulationBasedTraining,
    SuccessiveHalving,
    TwoSpeedPBT,
    WinnerTakeAllGenetic,
)
from population.mutators.exploit import TopFraction, Truncation
from population.space import Perturb

FIRST_SEED = 10**6  # No rule and no setting was chosen on these.
Policy = Callable[[Problem, int], Mutator[Any] | None]


def _pbt(rule: Any, every: float = 0.0, share: float = 1.0) -> Policy:
    def make(problem: Problem, size: int) -> Mutator[Any]:
        del size
        steps = max(1, int(every * problem.rounds))
        explore = Perturb(problem.space, share=share)
        return PopulationBasedTraining(explore, steps, exploit=rule, synchronous=True)

    return make


def _two_speed(problem: Problem, size: int) -> Mutator[Any]:
    del size
    explore = Perturb(problem.space, share=0.5)
    return TwoSpeedPBT(explore, 1, horizon=problem.rounds)


def _multi(problem: Problem, size: int) -> Mutator[Any] | None:
    frequencies: Sequence[int]
    frequencies = (1, 2) if problem.rounds < 10 else (1, 10, 25, 50)
    while size % (4 * len(frequencies)):
        frequencies = frequencies[: len(frequencies) // 2]
        if not frequencies:
            return None
    return MultiFrequencyPBT(Perturb(problem.space), 1, frequencies)


def _halving(problem: Problem, size: int) -> Mutator[Any]:
    del size
    return SuccessiveHalving(Perturb(problem.space), 1)


def _winner(problem: Problem, size: int) -> Mutator[Any]:
    del size
    return WinnerTakeAllGenetic(Perturb(problem.space), 1, synchronous=True)


POLICIES: dict[str, Policy] = {
    OURS: _two_speed,
    "truncation 0.2, each round": _pbt(Truncation(0.2)),
    "truncation 0.2, each round, share 0.5": _pbt(Truncation(0.2), share=0.5),
    "truncation 0.25, ten times": _pbt(Truncation(0.25), 0.1),
    "top third, each round": _pbt(TopFraction()),
    "MultiFrequencyPBT": _multi,
    "SuccessiveHalving, handing on": _halving,
    "WinnerTakeAllGenetic": _winner,
}


Make = Callable[[int], Problem]


def _toy(seed: int, penalty: float = 0.2, exponent: float = 1.0) -> Problem:
    del seed
    return Toy(penalty, exponent)


def _noisy(seed: int, factor: float = 1.0) -> Problem:
    del seed
    return Noisy(0.25 * factor)


def _static(seed: int, factor: float = 1.0, change: float = 0.3) -> Problem:
    return Static(seed, 0.03 * factor, change)


def _varied(
    text: str, make: Any, name: str, values: Sequence[float]
) -> dict[str, Make]:
    return {f"{text} {v:g}": functools.partial(make, **{name: v}) for v in values}


TASKS: dict[str, Make] = {
    "plain": functools.partial(_toy, penalty=0.0),
    "deceptive": _toy,
    "noisy": _noisy,
    "static": _static,
    "track": Track,
}
VARIANTS: dict[str, Make] = {
    **_varied("deceptive, penalty", _toy, "penalty", (0.05, 0.1, 0.4, 0.8)),
    **_varied("deceptive, exponent", _toy, "exponent", (0.5, 2.0)),
    **_varied("noisy, noise x", _noisy, "factor", (0.0, 4.0, 10.0)),
    **_varied("static, noise x", _static, "factor", (0.0, 4.0, 10.0)),
    **_varied("static, change", _static, "change", (0.0, 1.0)),
    **_varied("track, speed", Track, "speed", (0.0, 0.01, 0.1)),
}
REMAPS = 8


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        seeds: Runs of each cell.
        members: Sizes of a population with the main tasks.
        varied: Sizes of a population with the variants.
        tasks: The main tasks.
        variants: The variants.
    """

    seeds: int = 200
    members: Sequence[int] = (8, 16, 22, 64)
    varied: Sequence[int] = (8, 16, 22)
    tasks: Sequence[str] = tuple(TASKS)
    variants: Sequence[str] = tuple(VARIANTS)


QUICK = Sizes(5, (22,), (8,), ("plain", "deceptive"), ("static, change 0",))
# Policies whose first population is drawn in two ways.
BOTH_WAYS = (SEARCH, OURS, "truncation 0.2, each round")
ABOUT = [
    "Larger is better; `quality/tasks.py` defines the tasks. The member with the best",
    "last report is chosen (in random search with noisy reports the one with the best",
    "mean of five) and scored by its true value: mean over seeds, +- half of its 95 %",
    "interval. All train for as many rounds; PBT is synchronous. Members explore by",
    "`Perturb`, those of TwoSpeedPBT with share=0.5. Its rule and settings were chosen",
    "by a search on these tasks, with other seeds: they are no held-out tasks.",
    "Replayed: the schedule that was found, trained with again from scratch by",
    "`FixedSchedule`, on Enduro with each seed of PPO; on the other tasks that gives",
    "the same value, as only reports have noise. By a mean: the member with the best",
    "mean of its last five reports is chosen. The best static is the best setting that",
    "never changes, sought for each seed. A policy is above or below random search,",
    "which begins with equal members, if the difference is over two standard errors.",
]


def cells(sizes: Sizes, *, enduro: bool) -> list[Cell]:
    """Return all cells."""
    main = [*sizes.tasks, *(_enduro_tasks() if enduro else [])]
    places = [(task, size) for task in main for size in sizes.members]
    places += [(task, size) for task in sizes.variants for size in sizes.varied]
    found = [
        (policy, initial, *place)
        for policy in (SEARCH, *POLICIES)
        for initial in ("random", "stratified")[: 1 + (policy in BOTH_WAYS)]
        for place in places
    ]
    toys = [task for task in main if task in ("plain", "deceptive")]
    found += [(SEARCH, "whole", task, size) for task in toys for size in sizes.members]
    return [Cell(*cell) for cell in found]


def _enduro_tasks() -> list[str]:
    return ["Enduro", *(f"Enduro, remap {number + 1}" for number in range(REMAPS))]


def problem(task: str, seed: int, enduro: pathlib.Path | None) -> Problem:
    """Return the problem of a task with a seed."""
    if enduro is not None and task.startswith("Enduro"):
        return Enduro(enduro, seed, int(task[len("Enduro, remap ") :] or 0))
    return (TASKS | VARIANTS)[task](seed)


def measure(cell: Cell, sizes: Sizes, enduro: pathlib.Path | None) -> list[Outcome]:
    """Return the outcome of a cell with each seed; none if the policy cannot run it."""
    found = []
    for seed in range(FIRST_SEED, FIRST_SEED + sizes.seeds):
        given = problem(cell.task, seed, enduro)
        if cell.policy == SEARCH:
            found.append(searched(given, cell.size, seed, cell.initial))
        elif (mutator := POLICIES[cell.policy](given, cell.size)) is not None:
            found.append(found_by(mutator, given, cell.size, seed, cell.initial))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few, for a test")
    parser.add_argument("--enduro", type=pathlib.Path, help="the table, an NPZ file")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "policies.json")
    options = parser.parse_args(argv)
    if options.out.parent == RESULTS and (options.quick or options.enduro is None):
        parser.error("results need --enduro and all sizes; else pass --out.")
    sizes = QUICK if options.quick else Sizes()
    where = circumstances(options.out.parent, ["numpy", "scipy"])
    start = time.perf_counter()
    rows = summaries(_measured(sizes, options.enduro))
    main_tasks = [*sizes.tasks, *(["Enduro"] if options.enduro else [])]
    seeds = range(FIRST_SEED, FIRST_SEED + sizes.seeds)
    statics = {
        task: float(np.mean([static(problem(task, s, options.enduro)) for s in seeds]))
        for task in main_tasks
    }
    result = {
        "title": "What policies find",
        "about": ABOUT,
        "command": "python -m benchmarks.quality.policies --enduro enduro.npz",
        **where,
        "seed": f"{seeds[0]} to {seeds[-1]}",
        "repetitions": sizes.seeds,
        "seconds": round(time.perf_counter() - start),
        "figures": [figure.as_json() for figure in goals(rows)],
        "tables": tables(rows, statics),
        "cells": rows,
    }
    write(options.out, result)
    for figure in goals(rows):
        print(shown(figure), flush=True)


def _measured(sizes: Sizes, enduro: pathlib.Path | None) -> Found:
    """Measure all cells, in as many processes as there are cores."""
    wanted = cells(sizes, enduro=enduro is not None)
    with concurrent.futures.ProcessPoolExecutor(
        os.cpu_count(), multiprocessing.get_context("spawn")
    ) as pool:
        one = functools.partial(measure, sizes=sizes, enduro=enduro)
        found = dict(zip(wanted, pool.map(one, wanted), strict=True))
    order = {name: place for place, name in enumerate((SEARCH, *POLICIES))}
    return dict(sorted(found.items(), key=lambda pair: order[pair[0].policy]))


if __name__ == "__main__":
    main()
