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
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.quality.lockstep import Outcome, found_by, searched, static
from benchmarks.quality.statistics import differences, interval
from benchmarks.quality.tasks import Enduro, Noisy, Problem, Static, Toy, Track
from benchmarks.record import (
    RESULTS,
    Figure,
    Interval,
    Spread,
    circumstances,
    shown,
    write,
)
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
SEARCH, BEST = "random search", "the best static"
OURS = "TwoSpeedPBT"
Policy = Callable[[Problem, int], Mutator[Any] | None]


def _pbt(rule: Any, every: float = 0.0) -> Policy:
    def make(problem: Problem, size: int) -> Mutator[Any]:
        del size
        steps = max(1, int(every * problem.rounds))
        return PopulationBasedTraining(
            Perturb(problem.space), steps, exploit=rule, synchronous=True
        )

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
        seeds: Runs of each cell with a main task.
        large_seeds: Those of a population of more than 32 members.
        varied_seeds: Runs of each cell with a variant.
        members: Sizes of a population with the main tasks.
        varied: Sizes of a population with the variants.
        tasks: The main tasks.
        variants: The variants.
    """

    seeds: int = 200
    large_seeds: int = 50
    varied_seeds: int = 100
    members: Sequence[int] = (8, 16, 22, 64)
    varied: Sequence[int] = (8, 16, 22)
    tasks: Sequence[str] = tuple(TASKS)
    variants: Sequence[str] = tuple(VARIANTS)

    def seeds_of(self, cell: Cell) -> range:
        """Return the seeds of a cell."""
        count = self.large_seeds if cell.size > 32 else self.seeds
        count = self.varied_seeds if cell.task in VARIANTS else count
        return range(FIRST_SEED, FIRST_SEED + count)


QUICK = Sizes(5, 2, 2, (22,), (8,), ("plain", "deceptive"), ("static, change 0",))
# Policies with the variants; and those whose first population is drawn in two ways.
VARIED = (SEARCH, OURS, "truncation 0.2, each round")
BOTH_WAYS = (SEARCH, OURS, "truncation 0.2, each round")
GOALS = {
    ("Enduro", 8, "random"): 390.0,
    ("Enduro", 8, "stratified"): 410.0,
    ("Enduro", 16, "random"): 415.0,
    ("deceptive", 22, "random"): 1.19,
    ("plain", 22, "random"): 1.199,
}
_INITIAL = {
    "random": "",
    "stratified": ", stratified start",
    "whole": ", from the whole range",
}
ABOUT = [
    "Larger is better; `quality/tasks.py` defines the tasks. The member with the best",
    "last report is chosen (in random search with noisy reports the one with the best",
    "mean of five) and scored by its true value: mean over seeds, +- half of its 95 %",
    "interval. All train for as many rounds; PBT is synchronous. Members explore by",
    "`Perturb`, those of TwoSpeedPBT with share=0.5. Its rule and settings were chosen",
    "by a search on these tasks, with other seeds: they are no held-out tasks. In",
    "brackets: the schedule that was found, trained with again from scratch by",
    "`FixedSchedule`, with each seed of PPO; on the other tasks that gives the same",
    "value, as only reports have noise. The best static is the best setting that never",
    "changes, sought for each seed. A policy is above or below random search, which",
    "begins with equal members, if the difference is over two standard errors. With 64",
    "members 50 seeds, with the variants 100.",
]
Found = Mapping["Cell", Sequence[Outcome]]
Rows = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One policy on one task, with so many members.

    Attributes:
        policy: The name of the policy, or SEARCH.
        initial: How the first population is drawn.
        task: The name of the task.
        size: The number of members.
    """

    policy: str
    initial: str
    task: str
    size: int


def cells(sizes: Sizes, *, enduro: bool) -> list[Cell]:
    """Return all cells."""
    main = [*sizes.tasks, *(_enduro_tasks() if enduro else [])]
    found = []
    for policy in (SEARCH, *POLICIES):
        ways = ("random", "stratified") if policy in BOTH_WAYS else ("random",)
        found += [
            (policy, initial, task, size)
            for initial in ways
            for task in main
            for size in sizes.members
        ]
        if policy in VARIED:
            found += [
                (policy, "random", task, size)
                for task in sizes.variants
                for size in sizes.varied
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
    for seed in sizes.seeds_of(cell):
        given = problem(cell.task, seed, enduro)
        if cell.policy == SEARCH:
            found.append(searched(given, cell.size, seed, cell.initial))
        elif (mutator := POLICIES[cell.policy](given, cell.size)) is not None:
            found.append(found_by(mutator, given, cell.size, seed, cell.initial))
    return found


def summaries(found: Found) -> list[dict[str, Any]]:
    """Return each cell as plain data, with its gain over random search."""
    rows = []
    for cell, outcomes in found.items():
        if outcomes:
            start = "stratified" if cell.initial == "stratified" else "random"
            reference = found[Cell(SEARCH, start, cell.task, cell.size)]
            values = [outcome.value for outcome in outcomes]
            gains = differences(values, [outcome.value for outcome in reference])
            error = float(np.std(gains, ddof=1)) / len(gains) ** 0.5
            apart = [abs(outcome.value - outcome.again) for outcome in outcomes]
            rows.append(
                {
                    **dataclasses.asdict(cell),
                    "value": interval(values)._asdict(),
                    "again": interval([o.again for o in outcomes])._asdict(),
                    "gain": float(np.mean(gains)),
                    "gain_error": error,
                    "again_differs_by": max(apart),
                    "steadier": interval([o.steadier for o in outcomes])._asdict(),
                }
            )
    return rows


def tables(rows: Rows, statics: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a table for each number of members, and one of gains over search."""
    names = list(dict.fromkeys(_name(row) for row in rows))
    found = []
    for size in sorted({row["size"] for row in rows if row["task"] in statics}):
        own = {(_name(r), r["task"]): r for r in rows if r["size"] == size}
        lines = [
            [name, *(_cell(own.get((name, task)), task) for task in statics)]
            for name in names
        ]
        found.append(
            {
                "title": f"{size} members",
                "columns": ["", *statics],
                "rows": [
                    *(line for line in lines if any(line[1:])),
                    [BEST, *(f"{value:.4g}" for value in statics.values())],
                ],
            }
        )
    return [*found, _gains(rows, names)]


def _gains(rows: Rows, names: Sequence[str]) -> dict[str, Any]:
    """Return how often each policy is above, even with and below random search."""
    sizes = sorted({row["size"] for row in rows})
    lines = []
    for name in names:
        own = [row for row in rows if _name(row) == name and row["policy"] != SEARCH]
        if own:
            worst = min(own, key=_certainty)
            counts = [_sides([row for row in own if row["size"] == n]) for n in sizes]
            gain = f"{worst['gain']:.3g} +- {worst['gain_error']:.2g}"
            place = f"{worst['task']}, {worst['size']} members"
            lines.append([name, *counts, f"{gain} ({place})"])
    columns = ["", *(f"{size} members" for size in sizes), "the least sure gain"]
    title = "Tasks and variants above / even with / below random search"
    return {"title": title, "columns": columns, "rows": lines}


def _certainty(row: Mapping[str, Any]) -> float:
    """Return the gain in standard errors."""
    return float(row["gain"] / max(row["gain_error"], 1e-12))


def _sides(rows: Rows) -> str:
    sure = [_certainty(row) for row in rows]
    above, below = sum(t > 2 for t in sure), sum(t < -2 for t in sure)
    return f"{above} / {len(sure) - above - below} / {below}" if sure else ""


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['policy']}{_INITIAL[row['initial']]}"


def _cell(row: Mapping[str, Any] | None, task: str) -> str:
    if row is None:
        return ""
    text = _mean(row["value"])
    return f"{text} ({_mean(row['again'])})" if task == "Enduro" else text


def _mean(found: Mapping[str, float]) -> str:
    mean, margin = found["mean"], found["high"] - found["mean"]
    digits = 1 if abs(mean) >= 100 else 4
    return f"{mean:.{digits}f} +- {margin:.{digits}f}"


def goals(rows: Rows) -> list[Figure]:
    """Return the figures that have a goal."""
    figures = []
    for (task, size, initial), least in GOALS.items():
        for row in rows:
            own = row["policy"], row["task"], row["size"], row["initial"]
            if own == (OURS, task, size, initial):
                what = f"{task}, {size} members{_INITIAL[initial]}"
                mean = Interval(**row["value"])
                figures.append(Figure(OURS, what, value=mean, at_least=least, digits=5))
    few = [r for r in rows if r["policy"] == OURS and r["size"] in (8, 16, 22)]
    below = [row for row in few if _certainty(row) < -2]
    note = "; ".join(
        f"{r['task']}, {r['size']} members{_INITIAL[r['initial']]}" for r in below
    )
    what = f"below random search with 8, 16 or 22 members, of {len(few)}"
    count = Spread(len(below), len(below), len(below))
    return [*figures, Figure(OURS, what, value=count, at_most=0, note=note)]


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
