"""The generations of a run as columns: why and from where each slot went on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from population.core.branching import is_restart
from population.journal.base import Journal
from population.journal.records import Generation
from population.reader.checkpoint_columns import meta_params
from population.reader.columns import RunColumns, flat, objects


def branches(checkpoints: RunColumns, journal: Journal) -> RunColumns:
    """Return all generations of a run, in the order in which they were opened.

    Args:
        checkpoints: All checkpoints of the same moment.
        journal: The journal, within that snapshot.
    """
    opened = journal.generations()
    count = len(opened)
    at, step, parent = (checkpoints[n] for n in ("generation", "step", "parent"))
    # A generation's first checkpoint has its smallest row.
    first = np.zeros(count, np.int64)
    first[at[::-1]] = np.arange(len(at))[::-1]
    last_step = np.zeros(count, np.int64)
    np.maximum.at(last_step, at, step)
    origin = parent[first] if len(at) else first
    has = origin >= 0
    ids = objects([None] * count)
    steps = np.full(count, -1, np.int64)
    ids[has] = checkpoints["generation_id"][origin[has]]
    steps[has] = step[origin[has]]
    arrays = {
        "row": _ints(g.row for g in opened),
        "generation_id": objects([g.generation_id for g in opened]),
        "worker_id": _ints(g.worker_id for g in opened),
        "number": _ints(g.number for g in opened),
        "kind": objects([_kind(g) for g in opened]),
        "step": _ints(g.step for g in opened),
        "last_step": last_step,
        "checkpoints": np.bincount(at, minlength=count),
        "parent": origin,
        "parent_generation_id": ids,
        "parent_step": steps,
        "reason": objects([g.reason for g in opened]),
        "time": np.array([g.time for g in opened], float),
        **flat("meta_params", meta_params(opened)),
    }
    return RunColumns(count, arrays)


def _ints(values: Iterable[int]) -> NDArray[Any]:
    return np.fromiter(values, np.int64)


def _kind(generation: Generation) -> str:
    """Return who has opened a generation."""
    if not generation.number:
        return "start"
    return "restart" if is_restart(generation.reason) else "branch"
