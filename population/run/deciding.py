"""Records reports in a transaction, and shows them to the mutator."""

from __future__ import annotations

import logging
import operator
from collections.abc import Collection, Iterable, Sequence

from population.base import codec
from population.base.types import Event, Failure, Report
from population.core import branching, reports, statuses
from population.core.checked import CheckedRetirement, Decisions
from population.core.decisions import Decider
from population.core.leases import LeaseRules
from population.core.state import RunState
from population.core.statuses import StatusRules
from population.core.step import EncodedReport, Step
from population.run.guards import Guards
from population.run.transaction import Transaction

logger = logging.getLogger("population")
_SLOW_S = 1.0
_LONGEST_REASON = 500


class Deciding:
    """Records reports and applies the mutator's decisions.

    Args:
        decider: Calls the mutator.
        leases: The rules of leases.
        rules: The rules for failures of slots.
        guards: Refuse reports that can never close a barrier.
    """

    def __init__(
        self,
        decider: Decider,
        leases: LeaseRules,
        rules: StatusRules,
        guards: Guards,
    ) -> None:
        self._decider = decider
        self._leases = leases
        self._rules = rules
        self._guards = guards
        self._has_warned = self._is_slow = False

    def submit(
        self,
        tx: Transaction,
        new: Sequence[EncodedReport],
        holder: str | None,
    ) -> Collection[int]:
        """Record reports, then show each to the mutator, in worker order.

        The mutator does not see the reports of slots branched earlier in the batch.

        Args:
            tx: The transaction.
            new: The reports.
            holder: The holder that reports; None: a raw loop.

        Returns:
            The slots that were branched.
        """
        state, graph = tx.state, tx.graph
        due: list[Report] = []
        watches = self._leases.timeout is not None or state.members.lost
        if watches or holder is not None:
            for report in new:  # A report renews the lease and confirms the work.
                lease = state.leases.get(report.worker_id)
                if watches or (lease is not None and lease.handed is not None):
                    tx.do(self._leases.heard(state, holder, report, tx.at))
            tx.live = state.members.live  # Slots that were given up may be back.
        for report in new:
            step = reports.receive(state, graph, report, tx.at)
            about, ready = step.about, -1
            if about is not None and about.is_newest:
                tx.do(step)
                due.append(Report(report.worker_id, about.checkpoint))
            else:
                if about is not None:
                    ready = int(state.scores.ready[about.checkpoint.worker_id])
                tx.do(step)
                shown = reports.shown(state, about, ready)
                if shown is not None:
                    due.append(shown)
            if about is not None and state.members.statuses:
                tx.do(statuses.recovered(state, about, tx.at))
        unmet = self._guards.unmet
        unmet.found.clear()  # It may be from a transaction that was rolled back.
        for report in new:
            if (report.value is None) != (report.params is None):
                unmet.check(state, report)
        for seen in due if tx.tells else ():
            tx.events.append(Event("report", *seen))
            if seen.checkpoint.diverged:
                tx.events.append(Event("diverged", *seen))
        return self.decide(tx, due) if due else ()

    def decide(
        self,
        tx: Transaction,
        due: list[Report] | list[Failure],
        failed: Collection[int] = (),
    ) -> Collection[int]:
        """Show the mutator reports or a failure, and apply its decisions.

        It is not shown reports of retired slots.

        Args:
            tx: The transaction.
            due: The reports, or the failure.
            failed: The slots that this failure has retired: they are not branched.

        Returns:
            The slots that were branched.
        """
        state, decider, members = tx.state, self._decider, tx.state.members
        value, decisions = decider.value(state), decider.decisions(state)
        first = decisions
        branched: set[int] = set()
        refused = set(failed)
        if len(due) > 1:
            due.sort(key=operator.attrgetter("worker_id"))
        for report in due:
            is_over = type(report) is Report and report.worker_id in members.retired
            if is_over or report.worker_id in branched:
                continue
            after, found = decider.update(state, value, decisions, report, tx.at.now)
            if found or after is not value:
                value, decisions = after, decisions + 1
            if found:
                self._apply(tx, found, branched, refused)
        if decisions != first:
            tx.do(Step((decider.record(value, decisions),)))
        if branched and tx.tells:
            newest = ((w, state.slots[w].newest) for w in branched)
            tx.events += (Event("branch", *place) for place in newest)
        if branched or decider.slowest_s > _SLOW_S:
            self._warn(tx, branched)
        return branched

    def fail(self, tx: Transaction, worker_id: int, reason: str) -> None:
        """Record that a trial of a slot has failed, and show the mutator the failure.

        Without a decision about it, the slot goes back to its resume point, unless it
        is retired now or at its end. Nothing happens to a slot that was retired before.
        If it was the last one that was waited for, and now continues from one at the
        barrier, no report would follow: the mutator is shown a known one again.
        """
        state = tx.state
        if worker_id in state.members.retired:
            return
        text = codec.readable(reason)[:_LONGEST_REASON]
        place = state, tx.graph, worker_id, text, tx.at
        is_over = self._decider.is_at_end(state, worker_id)
        tx.do(self._rules.failed(*place, is_over=is_over))
        newest, count = state.slots[worker_id].newest, state.members.failures(worker_id)
        retired = worker_id in state.members.retired
        shown = Failure(worker_id, newest, text, count, retired)
        branched = self.decide(tx, [shown], (worker_id,) if retired else ())
        is_over |= worker_id in state.members.retired
        if not (is_over or worker_id in branched):
            tx.resume(worker_id, f"failed: {text}", tx.reader)
        if branched and self._all_wait(state):
            self._show(tx, state.members.lost, self._known(tx, state.members.live))

    def decide_pending(self, tx: Transaction) -> Collection[int]:
        """Show the mutator a known report if slots are no longer live, at the end.

        It sees the newest value of the lowest live slot that has one, so that it can
        decide although no report may come.

        Returns:
            The slots that were branched.
        """
        state, branched = tx.state, set[int]()
        for _ in range(len(state.slots) + 1):  # A mutator might revive what it retires.
            before, tx.live = tx.live, state.members.live
            if before is tx.live or set(before) <= set(tx.live):
                break
            shown = self._known(tx, tx.live)
            if shown is not None:
                branched.update(self._show(tx, state.members.lost, shown))
        return branched

    def _all_wait(self, state: RunState) -> bool:
        """Whether every live slot waits for a decision, and the run has not ended."""
        live, decider = state.members.live, self._decider
        if not all(decider.waits(state, worker_id) for worker_id in live):
            return False
        return not all(decider.is_at_end(state, worker_id) for worker_id in live)

    def _apply(
        self,
        tx: Transaction,
        decided: Decisions,
        branched: set[int],
        refused: set[int],
    ) -> None:
        """Apply decisions; add to `branched` and `refused`.

        Args:
            tx: The transaction.
            decided: The decisions.
            branched: The slots that were branched.
            refused: The slots that a failure has retired just now, so that no decision
                about the same report branches them.
        """
        state = tx.state
        for new in self._decider.checked(state, decided):
            worker_id = new.worker_id
            if isinstance(new, CheckedRetirement):
                tx.do(statuses.retired(state, worker_id, new.reason, tx.at))
                continue
            present = state.members.retired
            tx.do(self._rules.diverged(state, worker_id, tx.at))
            if state.members.retired is not present:
                refused.add(worker_id)
            if worker_id in refused:
                continue
            tx.do(statuses.revived(state, worker_id, tx.at))
            if tx.reader is not None and new.parent is not None:
                # Weights in the memory of others were gone before this transaction.
                found = tx.within_reach(new.parent, tx.reader, tx.before.row)
                new = new._replace(parent=found)
            tx.do(branching.branch(state, tx.graph, *new, tx.at))
            branched.add(worker_id)

    def give_up(self, tx: Transaction, lost: frozenset[int], *, ask: bool) -> None:
        """Stop waiting for these slots, and wait for all others.

        Args:
            tx: The transaction.
            lost: The slots.
            ask: Whether to show the mutator a known value again: the newest one of the
                lowest slot that decisions wait for and that has one.
        """
        state, retired = tx.state, tx.state.members.retired
        if set(lost) == set(state.members.lost):
            return
        live = [w for w in range(len(state.slots)) if w not in lost | retired]
        shown = self._known(tx, live) if ask else None
        self._show(tx, lost, shown)

    def _show(
        self, tx: Transaction, lost: frozenset[int], shown: Report | None
    ) -> Collection[int]:
        """Record which slots were given up, and show the mutator a known report.

        Returns:
            The slots that were branched.
        """
        again = None if shown is None else shown.worker_id
        tx.do(self._leases.give_up(tx.state, lost, again, tx.at))
        tx.live = tx.state.members.live
        return () if shown is None else self.decide(tx, [shown])

    def _known(self, tx: Transaction, live: Iterable[int]) -> Report | None:
        """Return a report with the newest value of the lowest slot that has one."""
        newest = ((w, tx.graph.newest_value(tx.state.slots[w].newest)) for w in live)
        return next((Report(w, found) for w, found in newest if found), None)

    def _warn(self, tx: Transaction, branched: Collection[int]) -> None:
        """Warn once of branches with fresh weights, and once of slow decisions."""
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
