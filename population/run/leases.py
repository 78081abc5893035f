"""What workers and engines hold: a slot each, or the whole population.

A lease is all that they need of an open run. Each change is a transaction, so that of
several processes that want a slot one gets it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from population.base.types import ActiveWorker, Checkpoint, Event, Ref
from population.core.leases import FIRST_STEP_S, holders, holds
from population.core.reports import check_step
from population.core.state import RunState
from population.core.step import Step
from population.journal.records import Removal
from population.run import deadlock, polls
from population.run.liveness import LeaseHolder
from population.run.open_run import OpenRun
from population.run.transaction import Transaction
from population.run.turns import Turns

logger = logging.getLogger("population")
_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 0.002, 0.1  # Another process cannot wake us.
_SAY_AFTER_S = 30.0
_LONGEST_REASON = 200


class Position(NamedTuple):
    """What a training loop trains now.

    Attributes:
        worker_id: The slot.
        generation_id: Its generation.
        step: Training steps.
    """

    worker_id: int
    generation_id: str
    step: int


class SlotLease:
    """A worker's lease of a slot, or of several in turns; one thread uses it.

    Args:
        run: The run.
        ended: Whether the worker is to stop; asked while it waits.
        worker_id: The slot to begin with, even if another worker holds it. None: the
            free slot with the fewest steps; waits until there is one.

    Attributes:
        slot: The slot that is held, or None.
        turn: After this many saved reports another slot with fewer steps is trained.
        waited_s: Seconds spent waiting for a slot.
    """

    def __init__(
        self, run: OpenRun, ended: Callable[[], bool], worker_id: int | None = None
    ) -> None:
        self._run = run
        self._ended = ended
        self._holder = LeaseHolder(run.holder)
        self._turns = Turns(run)
        self._reclaimed = False
        self.slot: int | None = None
        self.turn = 10
        self.waited_s = 0.0
        polls.claim_weights(run)
        with run.lock.lock:
            if worker_id is None:
                self.slot = self._claim_any(None)
            else:
                self._take(worker_id, only_if_free=False)
                self.slot = worker_id
        run.lock.drain()

    @property
    def is_held(self) -> bool:
        """Whether the slot is still this worker's."""
        with self._run.lock.lock:
            return self.slot is not None and self._holds(self.slot)

    def work(self) -> ActiveWorker | None:
        """What the slot works on; None without one."""
        with self._run.lock.lock:
            return None if self.slot is None else self._run.active(self.slot)

    def poll(self, at: Position | None) -> ActiveWorker | None:
        """Ask for other work than the present one; blocks while there is none.

        Args:
            at: What the loop trains now; None at the start.

        Returns:
            The work of `slot`; None to carry on, and when the run has ended.
        """
        run, found = self._run, None
        with run.lock.lock:
            if run.closed:
                self.slot = None
                return None
            state = run.state()
            if at is None or not self._carries_on(state, at):
                found = self._look(state, at)
            if found is None and self.slot is not None:
                self._holder.warm = True  # Its first step is done.
                if run.leases.timeout is not None:
                    polls.renew(run, self._holder, self.slot)
        if run.lock.pending:
            run.lock.drain()
        return found

    def report(self, at: Position, state: Any, value: Any, metrics: Any) -> float:
        """Report a checkpoint; say how long it took without saving the params."""
        took_s = self._run.report(self._holder, *at, state, value, metrics)
        if state is not None:
            self._turns.reports += 1
        return took_s

    def extend(self, seconds: float) -> None:
        """The next poll or report may be this many seconds later than usual."""
        if self.slot is not None and self._run.leases.timeout is not None:
            with self._run.lock.lock:
                polls.renew(self._run, self._holder, self.slot, seconds)
            self._run.lock.drain()

    def reject(self, checkpoint: Checkpoint, reason: str) -> None:
        """The params of a checkpoint are damaged: the slot goes on from others."""
        run, worker_id = self._run, self.slot
        if worker_id is None:
            return

        def work(tx: Transaction) -> None:
            text, why = run.graph.params_text(checkpoint), f"rejected: {reason}"
            if run.graph.at(checkpoint.row).params is not None:
                tx.do(Step((Removal(tx.state.row, text, why),)))
            present = tx.state.slots[worker_id].generation.generation_id
            own = present == checkpoint.generation_id
            tx.resume(worker_id, run.reader, why[:_LONGEST_REASON] if own else "")

        with run.lock.lock:
            run.transact(work)
        run.lock.drain()

    def release(self) -> None:
        """Give the slot back; another worker may go on with it."""
        with self._run.lock.lock:
            if self.slot is not None:
                self._give_back(self.slot)
                self.slot = None
        self._run.lock.drain()

    @property
    def text(self) -> str:
        """The holder of this lease, as a journal names it."""
        return self._holder.text

    def _holds(self, worker_id: int) -> bool:
        return holds(self._run.state(), self.text, worker_id)

    def _carries_on(self, state: RunState, at: Position) -> bool:
        """Whether the loop has trained its slot on since the last report: usual."""
        own, lease = at.worker_id, state.leases.get(at.worker_id)
        if self._reclaimed or own != self.slot or lease is None:
            return False
        slot = state.slots[own]
        generation, newest = slot.generation, slot.newest
        current = generation.generation_id == at.generation_id
        if not current or lease.owner != self._holder.text or newest.step == at.step:
            return False
        if at.step < generation.step:
            check_step(generation, at.step)
        self._run.guards.idle.note(state, slot, at.step)
        return True

    def _look(self, state: RunState, at: Position | None) -> ActiveWorker | None:
        """What to train, once it is known whether the slot is still held."""
        if self.slot is not None and not holds(state, self.text, self.slot):
            self.slot = None
        if self.slot is None or (at is not None and self._should_move(at)):
            self._move(at)
        return None if self.slot is None else self._ask(at)

    def _should_move(self, at: Position) -> bool:
        """Whether another slot is to be trained; only ever right after a report."""
        if self.slot is None:
            return False
        if self._ended():
            return True
        return self._turns.is_over(self.slot, Ref(*at[1:]), self.turn)

    def _move(self, at: Position | None) -> None:
        """Give the slot back and claim one that can be trained."""
        if self.slot is not None:
            self._give_back(self.slot)
        start = time.perf_counter()
        self.slot = None
        self.slot = self._claim_any(None if at is None else at.worker_id)
        self.waited_s += time.perf_counter() - start
        if self.slot is not None:
            self._reclaimed = True
            self._turns.begin()

    def _ask(self, at: Position | None) -> ActiveWorker | None:
        """What the slot works on, or None if the loop trains that already."""
        own, run = self.slot, self._run
        if own is None:
            return None
        if at is not None and own == at.worker_id:
            state = run.state()
            slot = state.slots[own]
            if not self._reclaimed and (
                slot.generation.generation_id == at.generation_id
            ):
                check_step(slot.generation, at.step)
                run.guards.idle.note(state, slot, at.step)
                return None
            if self._reclaimed and slot.newest.ref == at[1:]:
                self._reclaimed = False
                return None
        self._reclaimed = False
        return run.transact(lambda tx: self._hand_out(tx, own))

    def _hand_out(self, tx: Transaction, worker_id: int) -> ActiveWorker:
        """The slot at its resume point, noted as handed out until it is taken up."""
        tx.resume(worker_id, self._run.reader)
        if holds(tx.state, self.text, worker_id):
            row, grace = tx.state.slots[worker_id].newest.row, grace_of(self._holder)
            place = tx.state, self.text, worker_id, tx.at
            tx.do(self._run.leases.claim(*place, grace=grace, handed=row))
        return self._run.active(worker_id)

    def _claim_any(self, own: int | None) -> int | None:
        """Claim a slot that is free and does not wait; block until there is one.

        Args:
            own: The slot to prefer among those with equally few steps.

        Returns:
            The slot, or None if the run has ended.

        Raises:
            RuntimeError: Every slot waits, and nothing can change that.
        """
        run, pause = self._run, _SHORTEST_WAIT_S
        say_at = time.monotonic() + _SAY_AFTER_S
        while not self._ended():
            found = run.leases.free(
                run.state(),
                run.waits,
                run.clock(),
                prefer=own,
                set_back=self._turns.tired,
            )
            if found is not None and self._take(found, only_if_free=True):
                return found
            if found is None and deadlock.resolve(run):
                continue
            if time.monotonic() > say_at:
                say_at = float("inf")
                _say_why(run)
            run.lock.wait(pause)
            pause = min(2 * pause, _LONGEST_WAIT_S)
        return None

    def _take(self, worker_id: int, *, only_if_free: bool) -> bool:
        rules = self._run.leases

        def work(tx: Transaction) -> bool:
            if only_if_free and not rules.is_claimable(tx.state, worker_id):
                return False
            fence = rules.must_fence(tx.state, worker_id, self.text)
            before = rules.owner(tx.state, worker_id)
            grace = grace_of(self._holder)
            tx.do(rules.claim(tx.state, self.text, worker_id, tx.at, grace=grace))
            if fence:
                tx.resume(worker_id, self._run.reader, "takeover")
            note_claim(tx, worker_id, before, self.text)
            return True

        return self._run.transact(work)

    def _give_back(self, worker_id: int) -> None:
        run = self._run
        if not run.closed and self._holds(worker_id):
            rules = run.leases
            run.transact(
                lambda tx: tx.do(rules.release(tx.state, self.text, worker_id, tx.at))
            )


def note_claim(
    tx: Transaction, worker_id: int, before: str | None, holder: str
) -> None:
    """A slot was claimed; from another owner it was taken over."""
    kind = "takeover" if before and before != holder else "claim"
    if tx.tells:
        tx.events.append(Event(kind, worker_id, tx.state.slots[worker_id].newest))


def grace_of(holder: LeaseHolder) -> float:
    """Seconds beyond the timeout that a holder may be silent: while it compiles."""
    return 0.0 if holder.warm else FIRST_STEP_S


def _say_why(run: OpenRun) -> None:
    held = ", ".join(holders(run.state())) or "none"
    expected = ", ".join(map(str, deadlock.expected(run))) or "none"
    logger.warning(
        "A worker has waited for %d s: every slot is held or waits for a decision. "
        "Held: %s. Slots with a report at their barrier whose value or training state "
        "is missing, and may still come: %s.",
        _SAY_AFTER_S,
        held,
        expected,
    )
