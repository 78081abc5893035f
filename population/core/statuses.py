"""Decides which failures, recoveries and retirements of slots to record."""

from __future__ import annotations

import math

from population.base.types import Checkpoint
from population.core.branching import is_restart
from population.core.graph import JournalGraph
from population.core.known import Subject
from population.core.state import RunState
from population.core.step import Moment, Step
from population.journal.records import Status


class StatusRules:
    """The rules for failures of slots.

    Args:
        most: After this many failures in a row a slot is retired; None: never.
        divergence_fails: Whether a slot fails if it is set back because it diverged.
    """

    def __init__(self, most: int | None, divergence_fails: bool) -> None:
        self._most = math.inf if most is None else most
        self._divergence_fails = divergence_fails

    def failed(
        self,
        state: RunState,
        graph: JournalGraph,
        worker_id: int,
        reason: str,
        at: Moment,
        *,
        is_over: bool = False,
    ) -> Step:
        """Record that a trial of a slot has failed.

        With `is_over` it had all its training: the slot is not retired.
        """
        slot, before = state.slots[worker_id], state.members.statuses.get(worker_id)
        finite = _newest_finite(graph, slot.newest)
        step = 0 if finite is None else finite.step
        if before is not None and is_restart(slot.generation.reason):
            step = max(step, before.step)  # It had been further, and was set back.
        return self._fail(state, worker_id, "failed", reason, step, at, is_over=is_over)

    def diverged(self, state: RunState, worker_id: int, at: Moment) -> Step:
        """Record that a slot is set back because it diverged.

        That is once a generation, as the slot then begins another one or is retired. A
        divergence before the slot's last failure or revival counts no more.
        """
        newest, members = state.slots[worker_id].newest, state.members
        if not (newest.diverged and self._divergence_fails):
            return Step()
        status = members.statuses.get(worker_id)
        if status is not None and status.kind != "recovered":
            if status.retired or status.row >= newest.row:
                return Step()
        reason = f"diverged: {newest.value} at step {newest.step}"
        return self._fail(state, worker_id, "diverged", reason, 0, at)

    def _fail(
        self,
        state: RunState,
        worker_id: int,
        kind: str,
        reason: str,
        step: int,
        at: Moment,
        *,
        is_over: bool = False,
    ) -> Step:
        count = state.members.failures(worker_id) + 1
        retired = int(count >= self._most and not is_over)
        what = kind, reason, count, retired, step
        return Step((_status(state, worker_id, *what, at),))


def recovered(state: RunState, about: Subject, at: Moment) -> Step:
    """Record that a slot that has failed has reported a finite value since.

    A step that the slot had reached before it failed proves nothing, unless it was
    branched since: else a trial that always fails at one place would be repeated for
    ever.
    """
    found = about.checkpoint
    status = state.members.statuses.get(found.worker_id)
    if status is None or not status.failures or status.retired:
        return Step()
    generation = state.slots[found.worker_id].generation
    is_own = found.generation_id == generation.generation_id
    if not (is_own and found.row > status.row and _is_finite(found)):
        return Step()
    if found.step <= status.step and is_restart(generation.reason):
        return Step()
    return Step((_status(state, found.worker_id, "recovered", "", 0, 0, 0, at),))


def retired(state: RunState, worker_id: int, reason: str, at: Moment) -> Step:
    """Record that a slot is finished by a decision."""
    if worker_id in state.members.retired:
        return Step()
    return Step((_status(state, worker_id, "retired", reason, 0, 1, 0, at),))


def revived(state: RunState, worker_id: int, at: Moment) -> Step:
    """Record that a retired slot is trained again."""
    if worker_id not in state.members.retired:
        return Step()
    return Step((_status(state, worker_id, "revived", "", 0, 0, 0, at),))


def _status(
    state: RunState,
    worker_id: int,
    kind: str,
    reason: str,
    failures: int,
    retired: int,
    step: int,
    at: Moment,
) -> Status:
    return Status(
        state.members.count + 1,
        state.row,
        worker_id,
        kind,
        reason,
        failures,
        retired,
        step,
        at.now,
        at.batch,
    )


def _newest_finite(graph: JournalGraph, newest: Checkpoint) -> Checkpoint | None:
    """Return the newest checkpoint of a lineage with a finite value, or None."""
    found = graph.newest_value(newest)
    while found is not None and found.diverged:
        before = graph.parent(found)
        found = None if before is None else graph.newest_value(before)
    return found


def _is_finite(checkpoint: Checkpoint) -> bool:
    return checkpoint.value is not None and not checkpoint.diverged
