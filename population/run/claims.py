"""What workers do about slots: claim them, give them back, say that they are alive.

Each is a transaction, so that of several processes that want a slot one gets it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from population.base.errors import ClaimError
from population.base.types import ActiveWorker, Checkpoint
from population.core.incoming import Incoming
from population.core.leases import FIRST_STEP_S, RAW
from population.run import deadlock
from population.run.liveness import Holder

if TYPE_CHECKING:
    from population.run.open_run import Session

logger = logging.getLogger("population")
_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 0.002, 0.1  # Another process cannot wake us.
_SAY_AFTER_S = 30.0
_LONGEST_REASON = 200


class Claims:
    """The claims of a session's workers.

    Args:
        session: The run.

    Attributes:
        of_all: Who has claimed all slots in this process; None: nobody.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._leases = session.leases
        self.of_all: Holder | None = None

    def claim_all(self) -> dict[int, ActiveWorker]:
        """Claim every slot, each at its resume point.

        Raises:
            ClaimError: If somebody who may be alive holds one; nothing has changed.
        """
        session, leases = self._session, self._leases
        holder = self.of_all or Holder(session.holder)

        def work() -> dict[int, ActiveWorker]:
            slots = range(len(session.slots))
            free = (leases.holds(holder, w) or leases.is_claimable(w) for w in slots)
            if not all(free):
                raise ClaimError(
                    "claim_all needs every slot, and some are held: "
                    f"{', '.join(leases.holders())}. End these workers first, or give "
                    "this run another log_dir."
                )
            session.note_claim()
            session.held.lapse_everybodys()
            return {w: self._take_over(holder, w) for w in slots}

        with session.news.lock:
            session.refresh()
            found = session.transact([], work)
            self.of_all = holder
        session.news.drain()
        return found

    def renew_all(self) -> None:
        """Renew what `claim_all` has claimed, where that is due."""
        leases, holder = self._leases, self.of_all
        if holder is None or leases.timeout is None:
            return
        due = [w for w in range(len(self._session.slots)) if leases.due(w)]

        def work() -> None:
            for worker_id in due:
                if leases.holds(holder, worker_id):
                    handed = leases.handed(worker_id)
                    leases.write(worker_id, holder.text, handed=handed)

        if due:
            self._session.transact([], work)

    def lost(self) -> list[int]:
        """The slots that `claim_all` has claimed and somebody else has taken since."""
        holder, slots = self.of_all, range(len(self._session.slots))
        if holder is None:
            return list(slots)
        return [w for w in slots if not self._leases.holds(holder, w)]

    def release_all(self) -> None:
        """End what `claim_all` began; what only this process had is none any more."""
        session, holder = self._session, self.of_all
        if holder is None or session.closed:
            return

        def work() -> None:
            session.held.lapse_all()
            for worker_id in range(len(session.slots)):
                if self._leases.holds(holder, worker_id):
                    self._leases.write(worker_id, None)

        with session.news.lock:
            session.transact([], work)
            self.of_all, holder.closed = None, True
        session.news.drain()

    def claim_any(
        self,
        holder: Holder,
        own: int | None,
        ended: Callable[[], bool],
        tired: Mapping[int, int] | None = None,
    ) -> int | None:
        """Claim a slot that is free and does not wait; block until there is one.

        Args:
            holder: Who claims it.
            own: The slot to prefer among those with equally few steps.
            ended: Asked whenever something may have changed.
            tired: How often slots were set back; those that were less often come first.

        Returns:
            The slot, or None if the run has ended.

        Raises:
            RuntimeError: If every slot waits, and nothing can change that.
        """
        session, pause = self._session, _SHORTEST_WAIT_S
        say_at = time.monotonic() + _SAY_AFTER_S
        while not ended():
            session.refresh()
            found = self._leases.free(own, tired=tired)
            if found is not None and self._take(holder, found, only_if_free=True):
                return found
            if found is None and deadlock.resolve(session):
                continue
            if time.monotonic() > say_at:
                say_at = float("inf")
                self._say_why()
            session.news.wait(pause)
            pause = min(2 * pause, _LONGEST_WAIT_S)
        return None

    def claim(self, holder: Holder, worker_id: int) -> None:
        """Claim this slot, whoever has it."""
        self._take(holder, worker_id, only_if_free=False)

    def give_back(self, holder: Holder, worker_id: int) -> None:
        """End a claim; nothing if it was lost."""
        session = self._session

        def work() -> None:
            if self._leases.holds(holder, worker_id):
                self._leases.write(worker_id, None)

        if not session.closed and self._leases.holds(holder, worker_id):
            session.transact([], work)

    def end_foreign(self) -> None:
        """Take back what another host holds, which was found silent for long enough.

        Called within the transaction that opens the run.
        """
        for worker_id in self._leases.foreign():
            self._leases.write(worker_id, None)
            self._session.go_back(worker_id, reason="takeover")

    def hand_out(self, holder: Holder, worker_id: int) -> ActiveWorker:
        """The slot at its resume point, noted as handed out until it is taken up."""
        session = self._session

        def work() -> ActiveWorker:
            session.go_back(worker_id)
            if self._leases.holds(holder, worker_id):
                newest = session.slots[worker_id].newest
                self._leases.write(worker_id, holder.text, _grace(holder), newest.row)
            return session.active(worker_id)

        return session.transact([], work)

    def alive(self, holder: Holder | None, worker_id: int, grace: float = 0.0) -> None:
        """Renew a lease if that is due; of a raw loop if there is no holder.

        A slot that nobody trains any more may be found lost then.
        """
        session = self._session
        owner = self._leases.owner(worker_id)
        mine = owner == (holder.text if holder else RAW) or (not holder and not owner)
        if not mine or not (grace or self._leases.due(worker_id)):
            return

        def work() -> None:
            if self._leases.owner(worker_id) != owner:
                return  # Somebody was quicker.
            handed = self._leases.handed(worker_id)
            text = holder.text if holder else RAW
            self._leases.write(worker_id, text, grace, handed)
            self._judge(told=worker_id)

        session.transact([], work)

    def heard_of(self, incoming: Sequence[Incoming], holder: Holder | None) -> None:
        """Who reports is there, and has taken up what it was given.

        Called within the transaction of the reports.
        """
        slots, leases = self._session.slots, self._leases
        if holder is None and leases.timeout is None and not slots.lost:
            return
        heard = set()
        for new in incoming:
            slot = slots[new.worker_id]
            current = new.generation_id == slot.generation.generation_id
            if current and new.step >= slot.newest.step:
                heard.add(new.worker_id)
                leases.reported(new.worker_id, holder)
        if leases.timeout is not None or slots.lost:
            self._judge(None, heard)

    def reject(self, worker_id: int, rejected: Checkpoint, reason: str) -> None:
        """Mark params as damaged; the slot goes on from where it still can."""
        session = self._session

        def work() -> None:
            session.reject(rejected, reason)
            present = session.slots[worker_id].generation.generation_id
            why = f"rejected: {reason}"[:_LONGEST_REASON]
            own = present == rejected.generation_id
            session.go_back(worker_id, reason=why if own else "")

        session.transact([], work)

    def _take(self, holder: Holder, worker_id: int, *, only_if_free: bool) -> bool:
        session, leases = self._session, self._leases

        def work() -> bool:
            if only_if_free and not leases.is_claimable(worker_id):
                return False
            fence = leases.must_fence(worker_id, holder)
            before = leases.owner(worker_id)
            leases.write(worker_id, holder.text, _grace(holder))
            if fence:
                session.go_back(worker_id, reason="takeover")
            taken_over = bool(before) and before != holder.text
            session.events.claimed(session.slots[worker_id], taken_over=taken_over)
            return True

        return session.transact([], work)

    def _take_over(self, holder: Holder, worker_id: int) -> ActiveWorker:
        """Give a slot to a holder, at its resume point."""
        session, leases = self._session, self._leases
        fence = leases.must_fence(worker_id, holder)
        before = leases.owner(worker_id)
        session.go_back(worker_id, reason="takeover" if fence else "")
        newest = session.slots[worker_id].newest
        leases.write(worker_id, holder.text, _grace(holder), newest.row)
        taken_over = bool(before) and before != holder.text
        session.events.claimed(session.slots[worker_id], taken_over=taken_over)
        return session.active(worker_id)

    def _judge(self, told: int | None, reporting: Collection[int] = ()) -> None:
        """Record which slots are lost, if others are.

        Args:
            told: If the set has changed, the mutator is shown this worker's newest
                value again, as nobody may ever report again.
            reporting: Slots that are heard of just now.
        """
        slots = self._session.slots
        newly = self._leases.newly_lost() or set()
        lost = (slots.lost | newly) - set(reporting)
        if lost == slots.lost:
            return
        self._record_losses(lost, told)

    def lose(self, lost: Collection[int], *, remind: bool) -> None:
        """Record which slots are lost; called within a transaction.

        Args:
            lost: The slots.
            remind: Whether the mutator is shown the lowest live slot's newest value
                again.
        """
        live = (w for w in range(len(self._session.slots)) if w not in lost)
        self._record_losses(lost, next(live, None) if remind else None)

    def _record_losses(self, lost: Collection[int], told: int | None) -> None:
        session, slots = self._session, self._session.slots
        value = None
        if told is not None:
            value = session.graph.newest_value(slots[told].newest)
        slots.record_losses(lost, None if value is None else told)
        if value is not None and told is not None:
            branched = session.decisions.remind(told, value)
            session.events.branched(slots[worker_id] for worker_id in branched)

    def _say_why(self) -> None:
        held = ", ".join(self._leases.holders()) or "none"
        expected = ", ".join(map(str, deadlock.expected(self._session))) or "none"
        logger.warning(
            "A worker has waited for %d s: every slot is held or waits for a decision. "
            "Held: %s. Slots with a report at their barrier whose value or training "
            "state is missing, and may still come: %s.",
            _SAY_AFTER_S,
            held,
            expected,
        )


def _grace(holder: Holder) -> float:
    return 0.0 if holder.warm else FIRST_STEP_S
