"""The leases through which workers and engines use an open run.

A worker has a lease of one slot. Each change of a lease is a transaction, so that only
one of several processes that claim a slot gets it.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from population.base.errors import LostParamsError
from population.base.types import ActiveWorker, Checkpoint, Event, Ref, Saved
from population.core.leases import FIRST_STEP_S, holders, holds
from population.core.reports import check_step
from population.run import deadlock, polls, rejecting
from population.run.liveness import LeaseHolder
from population.run.open_run import OpenRun
from population.run.transaction import Transaction
from population.run.turns import Turns

logger = logging.getLogger("population")
_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 0.002, 0.1  # Other processes cannot notify this.
_SAY_AFTER_S = 30.0


class Position(NamedTuple):
    """The slot, generation and step that a training loop is at.

    Attributes:
        worker_id: The slot.
        generation_id: Its generation.
        step: Training steps.
    """

    worker_id: int
    generation_id: str
    step: int


class HeldSlots:
    """The slots of a run that one holder claims; the base of the two leases.

    Args:
        run: The run.
        holder: The part of this process that claims them.

    Attributes:
        text: The holder, as the journal stores it.
    """

    def __init__(self, run: OpenRun, holder: LeaseHolder) -> None:
        self._run = run
        self._holder = holder
        self.text = holder.text

    def _take(self, tx: Transaction, worker_id: int, *, hand_out: bool) -> None:
        """Claim a slot, in a new generation if another worker may still train it.

        Args:
            tx: The transaction.
            worker_id: The slot.
            hand_out: Whether to return the slot as work too, at its resume point.
        """
        state, rules = tx.state, self._run.leases
        before = rules.owner(state, worker_id)
        fence = rules.must_fence(state, worker_id, self.text)
        if fence or hand_out:
            tx.resume(worker_id, "takeover" if fence else "")
        self._write(tx, worker_id, hand_out=hand_out)
        if tx.tells:
            kind = "takeover" if before and before != self.text else "claim"
            tx.events.append(Event(kind, worker_id, state.slots[worker_id].newest))

    def _write(self, tx: Transaction, worker_id: int, *, hand_out: bool) -> None:
        """Record the lease; the params of work are kept until the holder reports."""
        row = tx.state.slots[worker_id].newest.row if hand_out else None
        # A holder may be silent for long while JAX compiles its first step.
        grace = 0.0 if self._holder.warm else FIRST_STEP_S
        place = tx.state, self.text, worker_id, tx.at
        tx.do(self._run.leases.claim(*place, grace=grace, handed=row))


class SlotLease(HeldSlots):
    """A worker's lease of a slot, or of several in turn; for one thread only.

    Args:
        run: The run.
        ended: Returns whether the worker must stop; called while it waits.
        worker_id: The slot to begin with, even if another worker holds it. None: the
            free slot with the fewest failures, then steps; waits until there is one.

    Attributes:
        slot: The slot that this worker holds, or None.
        waited_s: Seconds spent waiting for a slot.
    """

    def __init__(
        self, run: OpenRun, ended: Callable[[], bool], worker_id: int | None = None
    ) -> None:
        super().__init__(run, LeaseHolder(run.holder))
        self._ended = ended
        self._turns = Turns(run)
        self._is_new = False  # Whether `poll` has yet to return the claimed slot.
        self._has_failed = False  # Whether `fail` gave the last slot back.
        self.slot: int | None = None
        self.waited_s = 0.0
        run.check_open(to_train=True)
        with run.lock.lock:
            if worker_id is None:
                self.slot = self._claim_any(None)
            else:
                self._claim(worker_id, only_if_free=False)
        run.lock.drain()

    @property
    def is_held(self) -> bool:
        """Whether this worker still has the lease of its slot."""
        with self._run.lock.lock:
            own = self.slot
            return own is not None and holds(self._run.state(), self.text, own)

    def work(self) -> ActiveWorker | None:
        """Return the work of the slot; None if the worker holds no slot."""
        with self._run.lock.lock:
            return None if self.slot is None else self._run.active(self.slot)

    def poll(self, at: Position | None, turn: int) -> ActiveWorker | None:
        """Return new work, or None to continue; block while all slots wait.

        Args:
            at: What the loop trains now; None at the start.
            turn: After this many saved reports the worker changes to a free slot with
                fewer steps.

        Returns:
            The new work of `slot`; None to continue, and when the run has ended.

        Raises:
            NoProgressError: No slot can be trained any more.
        """
        run = self._run
        with run.lock.lock:
            if run.closed:
                self.slot = None
                return None
            found = self._look(at, turn)
            if self.slot is None:
                run.check_progress()  # It may have ended because all slots failed.
            elif found is None:
                self._holder.warm = True  # Its first step is done.
                if run.leases.timeout is not None:
                    polls.renew(run, self._holder, (self.slot,))
        if run.lock.pending:
            run.lock.drain()
        if found is None and self.slot is None:
            run.check_progress()  # The last slot may have been retired at a hand-out.
        return found

    def report(
        self, at: Position, state: Any, value: Any, metrics: Any
    ) -> tuple[float, Saved | None]:
        """Report a checkpoint.

        Returns:
            The seconds it took without saving params, and what the params store has
            saved, if anything.
        """
        run = self._run
        new = run.encode(*at, state, value, metrics, plain=False)
        start = time.perf_counter()
        run.submit((new,), self._holder)
        run.check_progress()
        took_s = time.perf_counter() - start
        if state is not None:
            self._turns.reports += 1
        return took_s, None if new.bytes is None else new.params

    def extend(self, seconds: float) -> None:
        """Allow the next poll or report to be this many seconds later than usual."""
        if self.slot is not None:
            polls.renew(self._run, self._holder, (self.slot,), seconds)

    def reject(self, checkpoint: Checkpoint, reason: str) -> None:
        """Record damaged params, and have the slot continue from other ones."""
        if self.slot is not None:
            rejecting.reject(self._run, self.slot, checkpoint, reason)

    def replace(self, checkpoint: Checkpoint, error: LostParamsError) -> None:
        """Reject lost params, and have the slot continue from other ones.

        Raises:
            ParamsError: They may not be lost; see `rejecting.replace`.
        """
        if self.slot is not None:
            rejecting.replace(self._run, self.slot, checkpoint, error)

    def fail(self, reason: str) -> bool:
        """Record a failure of the slot's trial, and give the slot back.

        Nothing is recorded if another worker has taken the slot over.

        Returns:
            Whether the last slot that it held was given back by a failure.

        Raises:
            NoProgressError: All slots are retired, because they failed too often.
        """
        own = self.slot
        if own is not None and not self._run.closed:
            was_held = self.is_held
            try:
                polls.fail(self._run, own, reason, self.text)
            finally:
                if not self.is_held:  # An error may have left the lease as it was.
                    self.slot, self._has_failed = None, was_held
        return self._has_failed

    def release(self) -> None:
        """Give the slot back, so that another worker can continue it."""
        run, own = self._run, self.slot
        with run.lock.lock:
            # Nothing to release if another worker has taken the slot.
            if own is not None and not run.closed and self.is_held:
                place = self.text, own
                run.transact(
                    lambda tx: tx.do(run.leases.release(tx.state, *place, tx.at))
                )
            self.slot = None
        run.lock.drain()

    def _look(self, at: Position | None, turn: int) -> ActiveWorker | None:
        """Return new work; None to continue, and when the run has ended."""
        run, state = self._run, self._run.state()
        if self.slot is None or not holds(state, self.text, self.slot):
            self.slot = None
            self._move(at)
        elif self.slot in state.members.retired:
            self._move(at)
        elif at is not None:
            slot = state.slots[self.slot]
            is_current = slot.generation.generation_id == at.generation_id
            if not (is_current and slot.newest.step != at.step) and (
                self._ended() or self._turns.is_over(self.slot, Ref(*at[1:]), turn)
            ):
                self._move(at)  # Only right after a report or a branch.
            elif is_current and not self._is_new:
                check_step(slot.generation, at.step)
                run.guards.idle.note(state, slot, at.step)
                return None
        found = None
        while (own := self.slot) is not None:
            if self._is_new and at and run.state().slots[own].newest.ref == at[1:]:
                break
            found = run.transact(functools.partial(self._hand_out, worker_id=own))
            if found is not None:
                break
            self._move(at)  # Set back from a divergence once more, it was retired.
        self._is_new = False
        return found

    def _move(self, at: Position | None) -> None:
        """Give the slot back and claim one that can be trained."""
        self.release()
        start = time.perf_counter()
        self.slot = self._claim_any(None if at is None else at.worker_id)
        self.waited_s += time.perf_counter() - start
        if self.slot is not None:
            self._is_new = True
            self._turns.begin()

    def _hand_out(self, tx: Transaction, worker_id: int) -> ActiveWorker | None:
        """Return the slot's work; its params are kept until the worker reports.

        None if the slot is retired.
        """
        tx.resume(worker_id)
        if tx.live is not tx.state.members.live:
            self._run.deciding.decide_pending(tx)  # It may give this slot other work.
        if worker_id in tx.state.members.retired:
            return None
        if holds(tx.state, self.text, worker_id):
            self._write(tx, worker_id, hand_out=True)
        return self._run.active(worker_id)

    def _claim_any(self, own: int | None) -> int | None:
        """Claim a slot that is free and does not wait; block until there is one.

        Args:
            own: The slot to prefer among those with equally few steps.

        Returns:
            The slot, or None if the run has ended.

        Raises:
            NoProgressError: Every slot waits, and nothing can change that.
        """
        run, pause = self._run, _SHORTEST_WAIT_S
        say_at = time.monotonic() + _SAY_AFTER_S
        while not self._ended():
            found = run.leases.free(
                run.state(),
                run.waits,
                run.clock(),
                prefer=own,
            )
            if found is not None and self._claim(found, only_if_free=True):
                return found
            if found is None and deadlock.resolve(run):
                continue
            if time.monotonic() > say_at:
                say_at = float("inf")
                _say_why(run)
            run.lock.changed.wait(pause)
            pause = min(2 * pause, _LONGEST_WAIT_S)
        return None

    def _claim(self, worker_id: int, *, only_if_free: bool) -> bool:
        """Claim a slot; return whether that was possible."""
        run = self._run

        def work(tx: Transaction) -> bool:
            is_free = run.leases.is_claimable(tx.state, worker_id)
            # Again: another worker may have trained it meanwhile, to where it waits.
            if only_if_free and not (is_free and not run.waits(worker_id)):
                return False
            tx.claim_weights()
            self._take(tx, worker_id, hand_out=False)
            return True

        self._has_failed = False
        self.slot = worker_id  # Before the record: `release` checks the lease itself.
        if not run.transact(work):
            self.slot = None
        return self.slot is not None


def _say_why(run: OpenRun) -> None:
    state = run.state()
    held = ", ".join(holders(state)) or "none"
    retired = ", ".join(map(str, sorted(state.members.retired))) or "none"
    expected = ", ".join(map(str, deadlock.expected(run))) or "none"
    logger.warning(
        "A worker has waited for %d s: every slot is held, retired or waits for a "
        "decision. Held: %s. Retired: %s. Slots with a report at their barrier whose "
        "value or training state is missing, and may still come: %s.",
        _SAY_AFTER_S,
        held,
        retired,
        expected,
    )
