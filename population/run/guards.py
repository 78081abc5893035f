"""Ends a run whose loops would never end by themselves, or warns of it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from population.base.errors import NoProgressError
from population.core.decisions import Decider
from population.core.graph import JournalGraph
from population.core.leases import LeaseRules
from population.core.state import RunState
from population.journal.base import Journal
from population.journal.records import Status
from population.run.idle import Idle
from population.run.setbacks import SetBacks
from population.run.unmet import Unmet

_NAMED = 5


class Guards:
    """The guards of an open run.

    Args:
        journal: Records the run.
        graph: All checkpoints.
        decider: Calls the mutator; decides which slots wait.
        leases: The rules of leases.

    Attributes:
        set_backs: Ends a run in which no member makes progress.
        unmet: Refuses reports if a slot never has a value and a state at one step.
        idle: Warns of loops that poll but never get new work.
    """

    def __init__(
        self,
        journal: Journal,
        graph: JournalGraph,
        decider: Decider,
        leases: LeaseRules,
    ) -> None:
        self.set_backs = SetBacks(journal, graph, decider, leases)
        self.unmet = Unmet(decider.decision_at)
        self.idle = Idle(decider.wait_at)

    def check(self, state: RunState) -> None:
        """End a run that makes no progress; called after reports and failures.

        Raises:
            NoProgressError: All slots have failed, or one was reset too often.
        """
        self.check_failures(state)
        if self.set_backs.is_counting:
            self.set_backs.check(state)

    def check_failures(self, state: RunState) -> None:
        """End a run that has no slot left because all have failed too often.

        Raises:
            NoProgressError: All slots are retired by failures.
        """
        if state.members.all_failed:
            raise NoProgressError(_all_failed(state.members.statuses))

    def end_nothing(self) -> None:
        """Switch off the guards that raise: a script or a budget ends the run."""
        self.set_backs.tries = self.set_backs.circles = self.unmet.most = math.inf


def _all_failed(statuses: Mapping[int, Status]) -> str:
    """Return the error message for a run whose slots have all failed too often."""
    by_reason: dict[str, list[int]] = {}
    for worker_id, status in sorted(statuses.items()):
        by_reason.setdefault(status.reason, []).append(worker_id)
    named = [
        f"worker {', '.join(map(str, ids[:_NAMED]))}{', ...' * (len(ids) > _NAMED)}: "
        f"{reason}"
        for reason, ids in list(by_reason.items())[:_NAMED]
    ]
    named += ["..."] if len(by_reason) > _NAMED else []
    return (
        "Every slot is retired, because it has failed too often in a row. The last "
        f"reasons: {'; '.join(named)}. What was recorded stays: mend the cause, open "
        "the run again, and call controller.revive(worker_id) for each slot to go on."
    )
