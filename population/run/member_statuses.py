"""The status of each member of a run, and what it has trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from population.core.branching import is_restart
from population.core.membership import FAILURES
from population.core.state import RunState
from population.journal.base import Find, Journal
from population.journal.records import Opening, Status


class MemberStatus(NamedTuple):
    """The status of a member, and what it has trained in its own generations.

    Attributes:
        worker_id: The slot.
        status: "training": it has more to train; "waiting": for a decision; "idle": it
            has more to train, but no process that is known to be alive holds it; "at
            its end": it has reached `Stop.steps`, or the run has ended; "retired": it
            is finished; "diverged": its newest value is not finite, or it was set back
            from one and has not recovered; "failed": it has not recovered from its last
            failure.
        failures: The number of its failures, with divergences, in the whole run.
        reason: Why it is retired, or else why it failed the last time; "" if never.
        branches: The number of generations that decisions have opened for it.
        restarts: The number of generations that the library has opened for it: to
            resume, to replace a worker, after damaged params, and after a failure.
        wall_s: Seconds from the beginning of each generation to its newest checkpoint,
            with the time that it waited for a worker or a decision, but without those
            in which the run was not open.
        steps_trained: The steps of all its generations; those that it has trained
            twice count twice.
    """

    worker_id: int
    status: str
    failures: int
    reason: str
    branches: int
    restarts: int
    wall_s: float
    steps_trained: int


class Progress(NamedTuple):
    """How far a run is, for those who tell what its members do.

    Attributes:
        end: The step at which it ends, or None.
        has_ended: Whether it has ended.
        doing: Returns what a member does that has more to train.
    """

    end: int | None
    has_ended: bool
    doing: Callable[[int], str]


def member_statuses(
    journal: Journal, state: RunState, progress: Progress
) -> list[MemberStatus]:
    """Return the status of each slot, by worker id.

    It reads each generation and its newest checkpoint, and no others.

    Args:
        journal: The journal, within a snapshot.
        state: The state of the run.
        progress: How far the run is.
    """
    size = len(state.slots)
    failures, reasons = [0] * size, [""] * size
    for record in journal.all(Status):
        if record.kind in FAILURES:
            failures[record.worker_id] += 1
            reasons[record.worker_id] = record.reason
    for worker_id in state.members.retired:
        reasons[worker_id] = state.members.statuses[worker_id].reason
    branches, restarts, steps = [0] * size, [0] * size, [0] * size
    wall_s = [0.0] * size
    pauses = _pauses(journal)
    for generation in journal.generations():
        worker_id, newest = generation.worker_id, state.graph.newest_of(generation)
        closed_s = sum(s for row, s in pauses if generation.row <= row < newest.row)
        wall_s[worker_id] += newest.time - generation.time - closed_s
        steps[worker_id] += newest.step - generation.step
        if generation.number > 0:
            counts = restarts if is_restart(generation.reason) else branches
            counts[worker_id] += 1
    return [
        MemberStatus(
            worker_id,
            _status(state, worker_id, progress),
            failures[worker_id],
            reasons[worker_id],
            branches[worker_id],
            restarts[worker_id],
            wall_s[worker_id],
            steps[worker_id],
        )
        for worker_id in range(size)
    ]


def _pauses(journal: Journal) -> list[tuple[int, float]]:
    """Return the last row before each later opening, and the seconds until that.

    They are those since the newest checkpoint: when the run was closed is not recorded.
    """
    found = []
    for opening in journal.all(Opening)[1:]:
        find = Find(upto=opening.row, newest_first=True, limit=1)
        for last in journal.checkpoints(find):
            found.append((opening.row, max(0.0, opening.time - last.time)))
    return found


def _status(state: RunState, worker_id: int, progress: Progress) -> str:
    """Return the status of a slot in a word."""
    members, end = state.members, progress.end
    kind = ""
    if members.failures(worker_id):
        kind = members.statuses[worker_id].kind
    if worker_id in members.retired:
        return "retired"
    if state.slots[worker_id].newest.diverged or kind == "diverged":
        return "diverged"
    if end is not None and state.scores.reached[worker_id] >= end:
        return "at its end"
    if kind:
        return "failed"
    return "at its end" if progress.has_ended else progress.doing(worker_id)
