"""The tables of what policies find, and their gains over random search."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.quality.lockstep import Outcome
from benchmarks.quality.statistics import differences, interval
from benchmarks.record import Figure, Interval, Spread

SEARCH, BEST = "random search", "the best static"
OURS = "TwoSpeedPBT"
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
_WHAT = {"value": "", "steadier": ", by a mean", "again": ", replayed"}


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


Found = Mapping[Cell, Sequence[Outcome]]
Rows = Sequence[Mapping[str, Any]]


def summaries(found: Found) -> list[dict[str, Any]]:
    """Return each cell as plain data, with its gains over random search and start."""
    rows = []
    for cell, outcomes in found.items():
        if outcomes:
            start = "stratified" if cell.initial == "stratified" else "random"
            search = found[Cell(SEARCH, start, cell.task, cell.size)]
            drawn = found.get(dataclasses.replace(cell, initial="random"), outcomes)
            apart = [abs(outcome.value - outcome.again) for outcome in outcomes]
            rows.append(
                {
                    **dataclasses.asdict(cell),
                    "value": interval([o.value for o in outcomes])._asdict(),
                    "again": interval([o.again for o in outcomes])._asdict(),
                    "again_differs_by": max(apart),
                    "steadier": interval([o.steadier for o in outcomes])._asdict(),
                    "gain": _gain(outcomes, search),
                    "gain_by_start": _gain(outcomes, drawn),
                }
            )
    return rows


def _gain(outcomes: Sequence[Outcome], others: Sequence[Outcome]) -> list[float]:
    """Return the mean gain within each seed, and its standard error."""
    gains = differences([o.value for o in outcomes], [o.value for o in others])
    return [float(np.mean(gains)), float(np.std(gains, ddof=1)) / len(gains) ** 0.5]


def tables(rows: Rows, statics: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a table for each number of members, and those of gains."""
    names = list(dict.fromkeys(_name(row) for row in rows))
    found = []
    for size in sorted({row["size"] for row in rows if row["task"] in statics}):
        own = {(_name(r), r["task"]): r for r in rows if r["size"] == size}
        lines = []
        for name in names:
            line = [_cell(own.get((name, t)), what) for t, what in _columns(statics)]
            if any(line):
                lines.append([name, *line])
        best = [
            "" if what == "again" else f"{statics[task]:.4g}"
            for task, what in _columns(statics)
        ]
        columns = [task + _WHAT[what] for task, what in _columns(statics)]
        found.append(
            {
                "title": f"{size} members",
                "columns": ["", *columns],
                "rows": [*lines, [BEST, *best]],
            }
        )
    return [*found, _gains(rows, names), _by_start(rows, list(statics))]


def _columns(tasks: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the task of each column, and what it shows."""
    for task in tasks:
        yield task, "value"
        if task in ("noisy", "static"):
            yield task, "steadier"
        elif task == "Enduro":
            yield task, "again"


def _by_start(rows: Rows, tasks: Sequence[str]) -> dict[str, Any]:
    """Return what a stratified start is better than a random one."""
    own = [r for r in rows if r["initial"] == "stratified" and r["task"] in tasks]
    found = {(row["policy"], row["size"], row["task"]): row for row in own}
    lines = []
    for policy, size in dict.fromkeys((row["policy"], row["size"]) for row in own):
        gains = [found[policy, size, t]["gain_by_start"] for t in tasks]
        cells = [f"{gain:.3g} +- {error:.2g}" for gain, error in gains]
        lines.append([f"{policy}, {size} members", *cells])
    title = "A stratified start minus a random one, with the standard error"
    return {"title": title, "columns": ["", *tasks], "rows": lines}


def _gains(rows: Rows, names: Sequence[str]) -> dict[str, Any]:
    """Return how often each policy is above, even with and below random search."""
    sizes = sorted({row["size"] for row in rows})
    lines = []
    for name in names:
        own = [row for row in rows if _name(row) == name and row["policy"] != SEARCH]
        if own:
            worst = min(own, key=_certainty)
            counts = [_sides([row for row in own if row["size"] == n]) for n in sizes]
            gain = "{:.3g} +- {:.2g}".format(*worst["gain"])
            place = f"{worst['task']}, {worst['size']} members"
            lines.append([name, *counts, f"{gain} ({place})"])
    columns = ["", *(f"{size} members" for size in sizes), "the least sure gain"]
    title = "Tasks and variants above / even with / below random search"
    return {"title": title, "columns": columns, "rows": lines}


def _certainty(row: Mapping[str, Any]) -> float:
    """Return the gain in standard errors."""
    gain, error = row["gain"]
    return float(gain / max(error, 1e-12))


def _sides(rows: Rows) -> str:
    sure = [_certainty(row) for row in rows]
    above, below = sum(t > 2 for t in sure), sum(t < -2 for t in sure)
    return f"{above} / {len(sure) - above - below} / {below}" if sure else ""


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['policy']}{_INITIAL[row['initial']]}"


def _cell(row: Mapping[str, Any] | None, what: str) -> str:
    return "" if row is None else _mean(row[what])


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
