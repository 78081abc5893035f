"""The data of the page: plain dicts and lists, all that `page.js` draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from population.report.page import facts, lines, tree
from population.report.page.lines import Columns, Indices
from population.report.page.values import (
    Texts,
    column,
    guessed_scale,
    numbers,
    scales,
    text,
    when,
    with_none,
)

if TYPE_CHECKING:
    from population.reader.recorded_run import RecordedRun

POINTS = 12_000  # Checkpoints that the lines of the workers may have.
LINES = 1_500  # Workers whose lines are drawn.
BEST_POINTS = 1_500  # Of the best's lineage.
LINEAGES = 200  # That can be chosen, beside the best's.
LINEAGE_POINTS = 6_000  # Of all of these.
TREE = 1_000  # Generations in the tree.
LISTED = 3_000  # Generations in the table; those of the tree may be some more.
MEMBERS = 3_000
METRICS = 8
_LEAST = 8  # Points of a line.


def of(run: RecordedRun) -> dict[str, Any]:
    """Return all that the page shows of a run, as JSON holds it.

    Numbers have seven digits; NaN, infinities and what is missing are None. Checkpoints
    and generations are thinned out to the limits of this module; "notes" counts them.
    """
    found = run.best()  # Read before the checkpoints, which then have it.
    checkpoints = run.checkpoints()
    best = None if found is None else _index(checkpoints, found.row)
    # A run that trains may have opened more by now, after newer checkpoints.
    opened = slice(0, int(checkpoints["generation"].max(initial=-1)) + 1)
    branches = {name: column[opened] for name, column in run.branches().items()}
    workers, status = run.workers(), run.status
    drawn = _worker_lines(checkpoints, workers, status.mode)
    lineages = _lineages(checkpoints, workers, best, status.mode)
    points = _union([*drawn, *lineages])
    parents = _parent_generations(checkpoints, branches)
    ends = [int(checkpoints["generation"][line["points"][-1]]) for line in lineages]
    in_tree = tree.chosen(parents.tolist(), ends, TREE)
    listed = in_tree + _without(tree.chosen(parents.tolist(), ends, LISTED), in_tree)
    used = np.unique(checkpoints["generation"][points]).tolist()
    order = np.array(listed + _without(used, listed), np.int64)
    texts, space = Texts(), run.space
    return {
        "overview": facts.overview(run),
        "warnings": [text(warning) for warning in status.warnings],
        "environment": facts.environment(status.environment),
        "mode": status.mode,
        "best": None if best is None else int(np.searchsorted(points, best)),
        "points": _points(checkpoints, points, order),
        "metrics": _metrics(checkpoints, points),
        "value_scale": guessed_scale(checkpoints["value"]),
        "lines": [_renumbered(line, points) for line in drawn],
        "lineages": [_renumbered(line, points) for line in lineages],
        "generations": _generations(checkpoints, branches, parents, order, texts)
        | {
            "row": _rows(
                checkpoints, branches, parents, order[: len(in_tree)], lineages
            )
        },
        "hyperparameters": _prefixed(branches, order, space),
        "members": _members(workers, space),
        "texts": texts.listed,
        "notes": {
            "checkpoints": int((~lines.copies(checkpoints)).sum()),
            "points": len(points),
            "workers": len(workers["worker_id"]),
            "lines": len(drawn),
            "generations": len(parents),
            "listed": len(listed),
            "tree": len(in_tree),
            "lineages": len(lineages) - (best is not None),
            "metrics": len(_numeric_metrics(checkpoints)),
            "members": min(MEMBERS, len(workers["worker_id"])),
        },
    }


def _index(checkpoints: Columns, row: int) -> int:
    """Return the index of the checkpoint that has a row of the journal."""
    return int(np.searchsorted(checkpoints["row"], row))


def _ranked(workers: Columns, mode: str) -> Indices:
    """Return the indices of the slots, that with the best value first."""
    values = workers["best"].astype(float)
    worst = np.where(np.isfinite(values), values if mode == "min" else -values, np.inf)
    return np.argsort(worst, kind="stable")


def _worker_lines(
    checkpoints: Columns, workers: Columns, mode: str
) -> list[dict[str, Any]]:
    """Return the line of each worker, as indices of checkpoints with gaps."""
    shown = np.flatnonzero(~lines.copies(checkpoints))
    by_worker = shown[np.argsort(checkpoints["worker_id"][shown], kind="stable")]
    ids, begins = np.unique(checkpoints["worker_id"][by_worker], return_index=True)
    parts = dict(
        zip(ids.tolist(), np.split(by_worker, begins[1:].tolist()), strict=True)
    )
    ranked = workers["worker_id"][_ranked(workers, mode)].tolist()
    drawn = [worker_id for worker_id in ranked if worker_id in parts][:LINES]
    most = max(_LEAST, POINTS // max(1, len(drawn)))
    sources = lines.originals(checkpoints)
    forks = len(np.unique(checkpoints["generation"])) <= POINTS // 4
    found = []
    for worker_id in sorted(drawn):
        part = parts[worker_id]
        values = checkpoints["value"][part]
        diverged = checkpoints["diverged"][part].astype(bool)
        kept = part[lines.thinned(values, most, diverged)]
        line = lines.of_worker(kept, checkpoints, sources, forks)
        found.append({"worker": worker_id, "points": line})
    return found


def _lineages(
    checkpoints: Columns, workers: Columns, best: int | None, mode: str
) -> list[dict[str, Any]]:
    """Return the lineage of the best checkpoint, and of the newest of each slot."""
    repeats = lines.copies(checkpoints).tolist()
    parents = checkpoints["parent"].tolist()
    ends = [] if best is None else [("the best", best, BEST_POINTS)]
    slots = checkpoints["worker_id"]
    newest = np.full(int(slots.max(initial=-1)) + 1, -1)
    newest[slots] = np.arange(len(slots))  # The last write stays.
    ranked = workers["worker_id"][_ranked(workers, mode)].tolist()
    chosen = [slot for slot in ranked if slot < len(newest) and newest[slot] >= 0]
    chosen = sorted(chosen[:LINEAGES])
    most = max(_LEAST, LINEAGE_POINTS // max(1, len(chosen)))
    ends += [(f"worker {slot}, now", int(newest[slot]), most) for slot in chosen]
    found = []
    for label, end, limit in ends:
        whole = lines.lineage(end, parents, repeats)
        generation = checkpoints["generation"][whole]
        turns = np.append(generation[1:] != generation[:-1], True)
        kept = lines.thinned(checkpoints["value"][whole], limit, turns)
        found.append({"label": label, "points": whole[kept].tolist()})
    return found


def _union(drawn: Sequence[dict[str, Any]]) -> Indices:
    """Return all checkpoints of some lines, ascending."""
    found = [np.array(line["points"], np.int64) for line in drawn]
    every = np.unique(np.concatenate([np.zeros(0, np.int64), *found]))
    return np.asarray(every[every != lines.GAP], np.int64)


def _renumbered(line: dict[str, Any], points: Indices) -> dict[str, Any]:
    """Return a line whose numbers count the points of the page."""
    indices = np.array(line["points"], np.int64)
    places = np.where(indices == lines.GAP, -1, np.searchsorted(points, indices))
    return line | {"points": places.tolist()}


def _parent_generations(checkpoints: Columns, branches: Columns) -> Indices:
    """Return the generation that each generation branched off from, -1 for none."""
    parent = branches["parent"]
    if len(checkpoints["row"]) == 0:
        return np.full(len(parent), -1)
    return np.where(parent >= 0, checkpoints["generation"][np.maximum(parent, 0)], -1)


def _without(indices: Sequence[int], others: Sequence[int]) -> list[int]:
    return sorted(set(indices) - set(others))


def _rows(
    checkpoints: Columns,
    branches: Columns,
    parents: Indices,
    shown: Indices,
    lineages: Sequence[dict[str, Any]],
) -> list[int]:
    """Return the row of each generation of the tree."""
    above = _within(parents[shown], shown)
    best = [line["points"] for line in lineages if line["label"] == "the best"]
    winner = checkpoints["generation"][[index for line in best for index in line]]
    first = np.flatnonzero(np.isin(shown, winner)).tolist()
    begins, ends = branches["step"][shown], branches["last_step"][shown]
    return tree.rows(above.tolist(), begins, np.maximum(begins, ends), first)


def _within(indices: Indices, order: Indices) -> Indices:
    """Return the places of indices in an order; -1 for those that it has not."""
    places = np.full(int(max(order.max(initial=0), indices.max(initial=0))) + 1, -1)
    places[order] = np.arange(len(order))
    return np.where(indices >= 0, places[np.maximum(indices, 0)], -1)


def _points(checkpoints: Columns, points: Indices, order: Indices) -> dict[str, Any]:
    """Return the drawn checkpoints, a column for each thing known of them."""
    diverged = checkpoints["diverged"][points].astype(bool)
    return {
        "worker": checkpoints["worker_id"][points].tolist(),
        "generation": _within(checkpoints["generation"][points], order).tolist(),
        "step": checkpoints["step"][points].tolist(),
        "value": numbers(checkpoints["value"][points]),
        "diverged": np.flatnonzero(diverged).tolist(),
    }


def _generations(
    checkpoints: Columns,
    branches: Columns,
    parents: Indices,
    order: Indices,
    texts: Texts,
) -> dict[str, Any]:
    """Return the generations: those of the tree, more for the table, all others."""
    value = np.full(len(parents), np.nan)
    finite = np.flatnonzero(np.isfinite(checkpoints["value"]))
    value[checkpoints["generation"][finite]] = checkpoints["value"][finite]
    return {
        "id": [text(one) for one in branches["generation_id"][order].tolist()],
        "worker": branches["worker_id"][order].tolist(),
        "step": branches["step"][order].tolist(),
        "last_step": branches["last_step"][order].tolist(),
        "checkpoints": branches["checkpoints"][order].tolist(),
        "parent": _within(parents[order], order).tolist(),
        "parent_step": branches["parent_step"][order].tolist(),
        "kind": texts.indices(branches["kind"][order].tolist()),
        "reason": texts.indices(branches["reason"][order].tolist()),
        "time": [when(one) for one in branches["time"][order].tolist()],
        "value": numbers(value[order]),
    }


def _prefixed(columns: Columns, rows: Any, space: Any) -> list[dict[str, Any]]:
    """Return the columns of hyperparameters of some rows."""
    prefix, scale, may_be_none = "meta_params.", scales(space), with_none(space)
    return [
        column(
            name,
            columns[f"{prefix}{name}"][rows],
            scale.get(name, ""),
            has_none=name in may_be_none,
        )
        for name in (one[len(prefix) :] for one in columns if one.startswith(prefix))
    ]


def _metrics(checkpoints: Columns, points: Indices) -> list[dict[str, Any]]:
    """Return the first numeric metrics of the drawn checkpoints."""
    return [
        column(name.removeprefix("metrics."), checkpoints[name][points])
        for name in _numeric_metrics(checkpoints)[:METRICS]
    ]


def _numeric_metrics(checkpoints: Columns) -> list[str]:
    return [
        name
        for name in checkpoints
        if name.startswith("metrics.") and checkpoints[name].dtype != object
    ]


def _members(workers: Columns, space: Any) -> list[dict[str, Any]]:
    """Return the columns of the table of members."""
    shown = slice(0, MEMBERS)
    named = {
        "worker": "worker_id",
        "status": "status",
        "step": "step",
        "newest value": "value",
        "best value": "best",
        "branches": "branches",
        "restarts": "restarts",
        "failures": "failures",
        "trained for (s)": "wall_s",
    }
    reason = column("reason", workers["reason"][shown])
    return [
        *(column(name, workers[key][shown]) for name, key in named.items()),
        *_prefixed(workers, shown, space),
        *([reason] if any(reason["levels"]) else []),
    ]
