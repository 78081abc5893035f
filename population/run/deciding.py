"""What happens to reports within a transaction: recorded, shown to the mutator."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from population.base.types import Branch, Event, Report
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
        before: Callable[[Transaction], object] | None = None,
    ) -> Collection[int]:
        """Record reports, then show each to the mutator, in worker order.

        Reports of slots that were branched earlier in the batch are left out.

        Args:
            tx: The transaction.
            new: The reports.
            holder: Who reports; None: a loop of the two calls.
            before: Records what comes first.

        Returns:
            The slots that were branched.
        """
        state, graph, due = tx.state, tx.graph, []
        if before is not None:
            before(tx)
        if holder is not None or self._leases.timeout is not None or state.lost:
            for report in new:
                self._hear(tx, report, holder)
        for report in new:
            step = reports.receive(state, graph, report, tx.at)
            about = step.about
            if about is not None and about.is_newest:
                tx.do(step)
                due.append(Report(report.worker_id, about.checkpoint))
                continue
            ready = -1
            if about is not None:
                ready = int(state.scores.ready[about.checkpoint.worker_id])
            tx.do(step)
            told = reports.news(state, about, ready)
            if told is not None:
                due.append(told)
        unmet = self._guards.unmet
        unmet.found.clear()  # Of what was rolled back.
        for report in new:
            if (report.value is None) != (report.params is None):
                unmet.check(state, report)
        if tx.tells:
            self._tell(tx, due)
        return self.decide(tx, due) if due else ()

    def _hear(self, tx: Transaction, report: EncodedReport, holder: str | None) -> None:
        """Who reports is there, and has taken up what it was handed."""
        state, rules = tx.state, self._leases
        if rules.timeout is None and not state.lost:
            lease = state.leases.get(report.worker_id)
            if lease is None or lease.handed is None:
                return
        tx.do(rules.heard(state, holder, report, tx.at))

    def _tell(self, tx: Transaction, due: Iterable[Report]) -> None:
        for report in due:
            tx.events.append(Event("report", *report))
            if report.checkpoint.diverged:
                tx.events.append(Event("diverged", *report))

    def decide(self, tx: Transaction, due: list[Report]) -> Collection[int]:
        """Show the mutator reports, and put its branches in force.

        Returns:
            The slots that were branched.
        """
        state, decider = tx.state, self._decider
        value, decisions = decider.value(state), decider.decisions(state)
        first = decisions
        branched: set[int] = set()
        if len(due) > 1:
            due.sort(key=_worker)
        for report in due:
            if report.worker_id in branched:
                continue
            after, branches = decider.update(state, value, decisions, report, tx.at.now)
            if branches or after is not value:
                value, decisions = after, decisions + 1
            if branches:
                self._branch(tx, branches, branched)
        if decisions != first:
            tx.do(Step((decider.record(value, decisions),)))
        if branched or decider.slowest_s > _SLOW_S:
            self._after(tx, branched)
        return branched

    def _branch(
        self, tx: Transaction, branches: Mapping[int, Branch], branched: set[int]
    ) -> None:
        """Put branches in force, and note their slots."""
        for new in self._decider.checked(tx.state, branches):
            if tx.reader is not None and new.parent is not None:
                # What others held was gone before all this.
                found = tx.within_reach(new.parent, tx.reader, tx.before.row)
                new = new._replace(parent=found)
            tx.do(branching.branch(tx.state, tx.graph, *new, tx.at))
            branched.add(new.worker_id)

    def give_up(self, tx: Transaction, lost: Collection[int], *, ask: bool) -> None:
        """Wait for exactly these slots no longer.

        Args:
            tx: The transaction.
            lost: The slots.
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
            self.decide(tx, [shown])

    def _valued(self, tx: Transaction, slots: Iterable[int]) -> Report | None:
        """The newest value of the first of these slots that has one."""
        for worker_id in slots:
            found = tx.graph.newest_value(tx.state.slots[worker_id].newest)
            if found is not None:
                return Report(worker_id, found)
        return None

    def _after(self, tx: Transaction, branched: Collection[int]) -> None:
        """Tell of branches, and warn of what is likely not meant."""
        for worker_id in branched if tx.tells else ():
            newest = tx.state.slots[worker_id].newest
            tx.events.append(Event("branch", worker_id, newest))
        self._warn(tx, branched)

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
