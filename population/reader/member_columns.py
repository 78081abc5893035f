"""The members of a run, and its saves, as columns."""

from __future__ import annotations

import numpy as np

from population.base.codec import HELD
from population.core.retention import path_of
from population.core.state import RunState
from population.journal.base import Journal
from population.journal.records import Save
from population.reader.columns import RunColumns, flat, objects
from population.run.member_statuses import Progress, member_statuses


def workers(
    checkpoints: RunColumns, journal: Journal, state: RunState, progress: Progress
) -> RunColumns:
    """Return the members of a run, by worker id.

    Args:
        checkpoints: All checkpoints of the same moment.
        journal: The journal, within that snapshot.
        state: The state of the run then.
        progress: How far it is.
    """
    members = member_statuses(journal, state, progress)
    size = len(members)
    trained = checkpoints["worker_id"]
    evaluated = np.flatnonzero(checkpoints["has_value"])
    newest = np.full(size, np.nan)
    newest[trained[evaluated]] = checkpoints["value"][evaluated]  # The last one stays.
    best = np.full(size, np.inf)
    finite = evaluated[~checkpoints["diverged"][evaluated]]
    np.minimum.at(best, trained[finite], state.sign * checkpoints["value"][finite])
    best[np.isinf(best)] = np.nan
    arrays = {
        "worker_id": np.arange(size),
        "status": objects([member.status for member in members]),
        "step": np.array([slot.newest.step for slot in state.slots]),
        "value": newest,
        "best": state.sign * best,
        "failures": np.array([member.failures for member in members]),
        "branches": np.array([member.branches for member in members]),
        "restarts": np.array([member.restarts for member in members]),
        "steps_trained": np.array([member.steps_trained for member in members]),
        "wall_s": np.array([member.wall_s for member in members]),
        "reason": objects([member.reason for member in members]),
        "generation_id": objects([s.generation.generation_id for s in state.slots]),
        **flat("meta_params", [slot.meta_params for slot in state.slots]),
    }
    return RunColumns(size, arrays)


def saves(journal: Journal) -> RunColumns:
    """Return the saves that the params store keeps, oldest first."""
    # Earlier versions have listed here what a process held in memory, too.
    found = [s for s in journal.all(Save) if not s.params.startswith(HELD)]
    arrays = {
        "path": objects([path_of(save.params) for save in found]),
        "generation_id": objects([save.generation for save in found]),
        "step": np.array([save.step for save in found], np.int64),
        "bytes": np.array([save.bytes for save in found], np.int64),
        "row": np.array([save.row for save in found], np.int64),
    }
    return RunColumns(len(found), arrays)
