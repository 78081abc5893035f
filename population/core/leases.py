"""The rules of leases: which worker trains which slot, and when a lease expires.

The polls and reports of its owner renew a lease. Each process measures the silence
itself, from when it saw the lease change last: so no worker that is alive loses its
slot because a clock jumps or a machine was suspended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from population.base import codec
from population.core.owners import UNCLAIMED, Owner, owner_of
from population.core.state import RunState
from population.core.step import EncodedReport, Moment, Step
from population.journal.records import Lease, Loss

FIRST_STEP_S = 1800.0  # A worker's first step may be a long compilation.
_PARTS = 4  # A lease is renewed when a quarter of the timeout has passed.
IsGone = Callable[[Owner], bool]


class Silence:
    """Measures for how long this process has seen no change of each slot's lease.

    Args:
        timeout: Seconds of silence after which a lease has expired; None: never.
        now: The present time of the clock.
    """

    def __init__(self, timeout: float | None, now: float) -> None:
        self.timeout = timeout
        self._seen: dict[int, tuple[int, float]] = {}
        self._looked = now
        self._elapsed = 0.0

    def look(self, now: float) -> float:
        """Add the time since the last look; return the seconds watched so far.

        A look adds at most half the timeout: a process that was suspended cannot know
        how long others were silent.
        """
        passed, self._looked = now - self._looked, now
        if self.timeout is not None:
            self._elapsed += min(max(passed, 0.0), self.timeout / 2)
        return self._elapsed

    def see(self, leases: Iterable[Lease]) -> None:
        """Note which of these leases have changed: their owners are alive now."""
        for lease in leases:
            known = self._seen.get(lease.worker_id)
            if known is None or known[0] != lease.change:
                self._seen[lease.worker_id] = (lease.change, self._elapsed)

    def of(self, worker_id: int) -> float:
        """Return the seconds since this process saw the slot's lease change."""
        seen = self._seen.get(worker_id)
        return self._elapsed - (0.0 if seen is None else seen[1])


class LeaseRules:
    """Decides which leases to record, and which slots are free.

    Args:
        silence: Measures how long the owners of leases were silent.
        is_gone: Returns whether an owner, or its process, is certainly dead.
    """

    def __init__(self, silence: Silence, is_gone: IsGone) -> None:
        self.timeout = silence.timeout
        self.silence = silence
        self._is_gone = is_gone

    def claim(
        self,
        state: RunState,
        holder: str,
        worker_id: int,
        at: Moment,
        *,
        grace: float = 0.0,
        handed: int | None = None,
    ) -> Step:
        """Record that this holder has the lease of a slot from now on.

        Args:
            state: The state of the run.
            holder: The holder.
            worker_id: The slot.
            at: The time of the transaction.
            grace: Seconds beyond the timeout that the holder may be silent.
            handed: Row of the checkpoint that the holder gets as work and has not
                reported on; None: of none.
        """
        self.silence.look(at.clock)
        change = state.change + 1
        return Step((Lease(worker_id, holder, at.clock, grace, handed, change),))

    def end(self, state: RunState, worker_id: int, at: Moment) -> Step:
        """Record that a slot has no holder from now on."""
        self.silence.look(at.clock)
        return Step((Lease(worker_id, None, at.clock, 0.0, None, state.change + 1),))

    def release(self, state: RunState, holder: str, worker_id: int, at: Moment) -> Step:
        """Record that a holder gives a slot back, unless it has lost the lease."""
        if not holds(state, holder, worker_id):
            return Step()
        return self.end(state, worker_id, at)

    def renew(
        self,
        state: RunState,
        holder: str | None,
        worker_id: int,
        at: Moment,
        grace: float = 0.0,
    ) -> Step:
        """Renew a holder's lease, and keep the row of the work that it got."""
        lease = state.leases.get(worker_id)
        handed = None if lease is None else lease.handed
        owner = UNCLAIMED if holder is None else holder
        return self.claim(state, owner, worker_id, at, grace=grace, handed=handed)

    def heard(
        self, state: RunState, holder: str | None, new: EncodedReport, at: Moment
    ) -> Step:
        """Renew the reporting holder's lease, and confirm the work that it got.

        If decisions stopped waiting for the slot, a later step makes them wait again.
        """
        slot, worker_id = state.slots[new.worker_id], new.worker_id
        current = new.generation_id == slot.generation.generation_id
        if not current or new.step < slot.newest.step:
            return Step()
        step = Step()
        if worker_id in state.members.lost and new.step > slot.newest.step:
            step = self.give_up(state, state.members.lost - {worker_id}, None, at)
        lease = state.leases.get(worker_id)
        owner = UNCLAIMED if holder is None else holder
        known = None if lease is None else lease.owner
        if known != owner and not (lease is None and holder is None):
            return step  # A process that only evaluates does not train the slot.
        if self.due(state, worker_id, at.clock) or (lease and lease.handed is not None):
            claimed = self.claim(state, owner, worker_id, at)
            return Step(step.records + claimed.records)
        return step

    def give_up(
        self, state: RunState, worker_ids: Iterable[int], again: int | None, at: Moment
    ) -> Step:
        """Record that decisions do not wait for slots until they are trained further.

        Args:
            state: The state of the run.
            worker_ids: All slots for which decisions do not wait from now on.
            again: The slot whose newest value the mutator sees again, or None.
            at: The time of the transaction.
        """
        lost, count = codec.encode(sorted(worker_ids)), state.members.count
        return Step((Loss(state.row, lost, again, at.now, count, at.batch),))

    def owner(self, state: RunState, worker_id: int) -> str | None:
        """Return a slot's owner as text; None: given back, or never claimed."""
        lease = state.leases.get(worker_id)
        return None if lease is None else lease.owner

    def due(self, state: RunState, worker_id: int, now: float) -> bool:
        """Whether it is time to renew a slot's lease."""
        if self.timeout is None:
            return False
        self.silence.look(now)
        lease = state.leases.get(worker_id)
        if lease is None or lease.owner is None or lease.grace > 0:
            return True
        # Others may have watched the run for longer than this process has.
        silent = max(self.silence.of(worker_id), abs(now - lease.renewed))
        return silent >= self.timeout / _PARTS

    def is_free(self, state: RunState, worker_id: int) -> bool:
        """Whether a slot has no owner, or one that is dead or was silent too long."""
        return not self.owner(state, worker_id) or not self._is_there(state, worker_id)

    def is_claimable(self, state: RunState, worker_id: int) -> bool:
        """Whether a worker that accepts any slot may claim this one.

        A slot that a loop polls without a claim is claimable only after too long a
        silence, as nothing distinguishes that loop from a second worker.
        """
        if self.owner(state, worker_id) == UNCLAIMED and self.timeout is not None:
            return not self._is_there(state, worker_id)
        return self.is_free(state, worker_id)

    def must_fence(self, state: RunState, worker_id: int, holder: str) -> bool:
        """Whether the owner is another than this holder and may still be training."""
        text = self.owner(state, worker_id)
        if text is None or text == holder:
            return False
        return text == UNCLAIMED or not self._is_gone(owner_of(text))

    def free(
        self,
        state: RunState,
        waits: Callable[[int], bool],
        now: float,
        *,
        prefer: int | None = None,
        below: int | None = None,
    ) -> int | None:
        """Return the free slot that does not wait, with the fewest failures and steps.

        Args:
            state: The state of the run.
            waits: Returns whether a slot waits.
            now: The present time of the clock.
            prefer: The slot to prefer among those with equally few of both; else the
                lowest.
            below: Only slots that have not failed since their last finite value, with
                fewer steps than this.
        """
        self.silence.look(now)
        steps = [slot.newest.step for slot in state.slots]
        others = [worker_id != prefer for worker_id in range(len(steps))]
        count = state.members.failures
        failures = [count(worker_id) for worker_id in range(len(steps))]
        for worker_id in np.lexsort((others, steps, failures)).tolist():
            if below is not None and (failures[worker_id] or steps[worker_id] >= below):
                return None
            if self.is_claimable(state, worker_id) and not waits(worker_id):
                return int(worker_id)
        return None

    def held_by_others(
        self, state: RunState, is_within: Callable[[Owner], bool]
    ) -> bool:
        """Whether a live worker outside of this open run holds a slot.

        This process does not know the `stop` of that worker's controller.
        """
        for worker_id, lease in state.leases.items():
            if lease.owner:
                other = not is_within(owner_of(lease.owner))
            else:
                other = lease.owner == UNCLAIMED and self.timeout is not None
            if other and self._is_there(state, worker_id):
                return True
        return False

    def _is_there(self, state: RunState, worker_id: int) -> bool:
        """Whether a slot's owner is neither dead nor silent for too long."""
        lease = state.leases[worker_id]
        if lease.owner and self._is_gone(owner_of(lease.owner)):
            return False
        silent = self.silence.of(worker_id) - lease.grace
        return self.timeout is None or silent <= self.timeout


def holds(state: RunState, holder: str, worker_id: int) -> bool:
    """Whether this holder has the lease of a slot."""
    lease = state.leases.get(worker_id)
    return lease is not None and lease.owner == holder


def holders(state: RunState) -> Iterator[str]:
    """Yield readable texts: each slot that is held, and its holder."""
    for worker_id, lease in sorted(state.leases.items()):
        if lease.owner:
            yield f"{worker_id} by {owner_of(lease.owner)}"
        elif lease.owner == UNCLAIMED:
            yield f"{worker_id} by a loop that polls it"


def handed_out(state: RunState) -> list[int]:
    """Return the rows of checkpoints returned as work and not yet reported on."""
    leases = state.leases.values()
    return [lease.handed for lease in leases if lease.handed is not None]
