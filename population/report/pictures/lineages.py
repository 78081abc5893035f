"""The lineages of a run as arrays of indices: ancestors, lines, and what lives on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from population.reader.ancestors import known_ancestors

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Table = Mapping[str, npt.NDArray[Any]]


class Spans(NamedTuple):
    """The generations that were trained, in the order in which they were opened.

    Those that began with a branch or a restart and were never trained are left out.

    Attributes:
        generation: `[S]` which generation of the run it is.
        worker_id: `[S]` the slot that trained it.
        begin: `[S]` its first step.
        end: `[S]` the step of its newest checkpoint.
        parent: `[S]` the span that it continues, or -1. A generation between the two
            that was never trained is skipped.
        branched: `[S]` whether a decision opened it, or one before it of the same slot
            that was never trained.
        retired: `[S]` whether it is the last one of a retired slot.
    """

    generation: Ints
    worker_id: Ints
    begin: Ints
    end: Ints
    parent: Ints
    branched: Bools
    retired: Bools


def lines(checkpoints: Table, known: Bools, before: Ints) -> list[Ints]:
    """Return the indices of each generation's known checkpoints by step.

    A line begins with the known checkpoint from which its generation continues, if
    there is one; so lines that fork have a point in common.

    Args:
        checkpoints: The columns `generation`, `step` and `row`.
        known: `[N]` which checkpoints count.
        before: `[N]` the known ancestors.
    """
    chosen = np.flatnonzero(known)
    if not chosen.size:
        return []
    names = ("row", "step", "generation")
    order = chosen[np.lexsort([checkpoints[name][chosen] for name in names])]
    ends = np.flatnonzero(np.diff(checkpoints["generation"][order])) + 1
    found = []
    for part in np.split(order, ends):
        begin = before[part[0]]
        found.append(part if begin < 0 else np.concatenate([[begin], part]))
    return found


def lineage(parent: Ints, index: int) -> Ints:
    """Return the indices of a checkpoint and its ancestors, oldest first."""
    found = []
    while index >= 0:
        found.append(index)
        index = int(parent[index])
    return np.array(found[::-1], np.int64)


def living(parent: Ints, tips: Iterable[int]) -> Bools:
    """Return which checkpoints are among the tips or their ancestors, `[N]`."""
    alive = np.zeros(len(parent), bool)
    for tip in tips:
        at = int(tip)
        while at >= 0 and not alive[at]:
            alive[at] = True
            at = int(parent[at])
    return alive


def spans(checkpoints: Table, branches: Table, retired: Iterable[int]) -> Spans:
    """Return the generations that were trained.

    Args:
        checkpoints: The columns of the run's checkpoints.
        branches: The columns of its generations.
        retired: The worker ids of the retired slots.
    """
    reported = checkpoints["generation"][checkpoints["has_value"].astype(bool)]
    evaluated = np.bincount(reported, minlength=len(branches["parent"])) > 0
    parent = branches["parent"]
    trained = (parent < 0) | (branches["checkpoints"] > 1) | evaluated
    generation = np.flatnonzero(trained)
    worker_id = branches["worker_id"][generation]
    last = {int(worker): place for place, worker in enumerate(worker_id)}
    is_retired = np.zeros(len(generation), bool)
    is_retired[[last[worker] for worker in set(retired) & last.keys()]] = True
    return Spans(
        generation,
        worker_id,
        branches["step"][generation],
        branches["last_step"][generation],
        _trained_parents(checkpoints["generation"], parent, trained)[generation],
        _branched(branches, trained)[generation],
        is_retired,
    )


def newest(checkpoints: Table, generations: Ints) -> Ints:
    """Return the index of the newest checkpoint of each of these generations."""
    names = ("row", "step", "generation")
    order = np.lexsort([checkpoints[name] for name in names])
    sorted_generations = checkpoints["generation"][order]
    places = np.searchsorted(sorted_generations, generations, side="right") - 1
    found: Ints = order[places]
    return found


def tips(checkpoints: Table, found: Spans) -> Ints:
    """Return the newest checkpoint of each slot that is not retired."""
    last = {int(worker): place for place, worker in enumerate(found.worker_id)}
    places = [place for place in last.values() if not found.retired[place]]
    return newest(checkpoints, found.generation[np.array(places, np.int64)])


def _trained_parents(owner: Ints, parent: Ints, trained: Bools) -> Ints:
    """Return for each generation the place of the trained one that it continues."""
    place = np.cumsum(trained) - 1
    above = np.where(parent < 0, -1, owner[parent]) if len(owner) else parent
    found = known_ancestors(above, trained)
    return np.where(found < 0, -1, place[found])


def _branched(branches: Table, trained: Bools) -> Bools:
    """Return which generations a decision opened, or an untrained one before them."""
    found = np.zeros(len(trained), bool)
    decided: set[int] = set()
    rows = zip(branches["worker_id"].tolist(), branches["kind"].tolist(), strict=True)
    for place, (worker_id, kind) in enumerate(rows):
        if kind == "branch":
            decided.add(worker_id)
        if trained[place]:
            found[place] = worker_id in decided
            decided.discard(worker_id)
    return found
