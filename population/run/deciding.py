"""What happens to reports within a transaction: recorded, shown to the mutator."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence

from population.base.types import Event, Report
from population.core import branching, reports
from population.core.decisions import Decider
from population.core.leases import LeaseRules
from population.core.step import EncodedReport, Step
from population.run.guards import Guards
from population.run.transaction import Transaction

logger = logging.getLogger("population")
_SLOW_S = 1.0


class Deciding:
    """Records reports and puts decisions in force.

    Args:
        decider: The mutator at work.
        leases: The rules of leases.
        guards: Refuse reports that can never close a barrier.
    """

    def __init__(self, decider: Decider, leases: LeaseRules, guards: Guards) -> None:
        self._decider = decider
        self._leases = leases
        self._guards = guards
        self._has_warned = self._is_slow = False

    def submit(
        self,
        tx: Transaction,
        new: Sequence[EncodedReport],
        holder: str | None,
        reader: str | None,
    ) -> Collection[int]:
        """Record reports, then show each to the mutator, in worker order.

        Reports of slots that were branched earlier in the batch are left out.

        Args:
            tx: The transaction.
            new: The reports.
            holder: Who reports; None: a loop of the two calls.
            reader: The session that trains all slots, if it is this one: weights in the
                memory of others are none for it.

        Returns:
            The slots that were branched.
        """
        for report in new:
            tx.do(self._leases.heard(tx.state, holder, report, tx.at))
        due = [found for report in new if (found := self._record(tx, report))]
        self._guards.unmet.check(tx.state, new)
        for told in due:
            tx.events.append(Event("report", *told))
            if told.checkpoint.diverged:
                tx.events.append(Event("diverged", *told))
        return self.decide(tx, due, reader) if due else ()

    def decide(
        self, tx: Transaction, due: Iterable[Report], reader: str | None
    ) -> Collection[int]:
        """Show the mutator reports, and put its branches in force.

        Returns:
            The slots that were branched.
        """
        state, decider = tx.state, self._decider
        value = decider.value(state)
        first = decisions = decider.decisions(state)
        branched: set[int] = set()
        for report in sorted(due, key=_worker):
            if report.worker_id in branched:
                continue
            after, branches = decider.update(state, value, decisions, report, tx.at.now)
            if branches or after is not value:
                value, decisions = after, decisions + 1
            for new in decider.checked(state, branches) if branches else ():
                if reader is not None and new.parent is not None:
                    before = tx.at.batch - 1  # They were gone before all this.
                    found = tx.within_reach(new.parent, reader, before)
                    new = new._replace(parent=found)
                tx.do(branching.branch(state, tx.graph, *new, tx.at))
                branched.add(new.worker_id)
        if decisions != first:
            tx.do(Step((decider.record(value, decisions),)))
        for worker_id in branched:
            newest = state.slots[worker_id].newest
            tx.events.append(Event("branch", worker_id, newest))
        self._warn(tx, branched)
        return branched

    def give_up(
        self, tx: Transaction, lost: Collection[int], reader: str | None, *, ask: bool
    ) -> None:
        """Wait for exactly these slots no longer.

        Args:
            tx: The transaction.
            lost: The slots.
            reader: As in `submit`.
            ask: Whether the mutator is shown the newest value of the lowest slot that
                is waited for and has one.
        """
        state = tx.state
        if set(lost) == set(state.lost):
            return
        live = (w for w in range(len(state.slots)) if w not in lost)
        shown = self._valued(tx, live) if ask else None
        told = None if shown is None else shown.worker_id
        tx.do(self._leases.give_up(state, lost, told, tx.at))
        if shown is not None:
            self.decide(tx, [shown], reader)

    def _valued(self, tx: Transaction, slots: Iterable[int]) -> Report | None:
        """The newest value of the first of these slots that has one."""
        for worker_id in slots:
            found = tx.graph.newest_value(tx.state.slots[worker_id].newest)
            if found is not None:
                return Report(worker_id, found)
        return None

    def _record(self, tx: Transaction, report: EncodedReport) -> Report | None:
        """Record a report; what the mutator is to be told, or None."""
        state = tx.state
        step = reports.receive(state, tx.graph, report, tx.at)
        about, ready = step.about, -1
        if about is not None and not about.is_newest:
            ready = int(state.scores.ready[about.checkpoint.worker_id])
        tx.do(step)
        return reports.news(state, about, ready)

    def _warn(self, tx: Transaction, branched: Collection[int]) -> None:
        """Say once that branches begin with fresh weights, or that they take long."""
        unsaved = branched and not tx.state.has_params
        if unsaved and not self._has_warned and tx.graph.keeps_weights:
            self._has_warned = True
            logger.warning(
                "A branch begins with fresh weights: no worker has saved any. Pass the "
                "training state to worker.report(value, state)."
            )
        if self._decider.slowest_s > _SLOW_S and not self._is_slow:
            self._is_slow = True
            logger.warning(
                "%s took %.1f s for a decision, during which no worker can report. "
                "Keep what is slow out of mutate_fn.",
                type(self._decider.mutator).__name__,
                self._decider.slowest_s,
            )


def _worker(report: Report) -> int:
    return report.worker_id
