"""Who trains which slot, as the journal says, and who has been silent for too long.

A lease is renewed by its owner's polls and reports. How long it has not been is judged
by each process for itself, from when it saw the last change: clocks that jump, or a
machine that slept, take no slot away from anybody who is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from population.base.errors import damaged
from population.core.slots import Slots
from population.journal.base import Journal
from population.journal.records import LeaseRow
from population.run import liveness
from population.run.liveness import Holder

FIRST_STEP_S = 1800.0  # A worker's first step may be a long compilation.
RAW = ""  # The owner of a slot that is polled without a claim.
_PARTS = 4  # A lease is renewed when a quarter of the time-out has passed.


class Leases:
    """The leases of a run.

    Args:
        journal: Where they are kept.
        slots: What is known of each slot.
        waits: Whether a slot waits for a decision.
        clock: Gives seconds.
        timeout: Seconds of silence after which a lease has expired; None: never.

    Attributes:
        timeout: The same.
        change: Number of the newest change.
    """

    def __init__(
        self,
        journal: Journal,
        slots: Slots,
        waits: Callable[[int], bool],
        clock: Callable[[], float],
        timeout: float | None,
    ) -> None:
        self.timeout = timeout
        self._journal = journal
        self._slots = slots
        self._waits = waits
        self._clock = clock
        self._rows: dict[int, LeaseRow] = {}
        self._seen: dict[int, float] = {}
        self.change = -1
        self._looked = clock()
        self._elapsed = 0.0
        self._judged = 0.0

    def load(self) -> None:
        """Read all leases anew."""
        before, self._rows = self._rows, {}
        self.change = -1
        self._read(before)

    def catch_up(self) -> None:
        """Read those that others have changed."""
        self._read(self._rows)

    def _read(self, before: dict[int, LeaseRow]) -> None:
        self.look()  # What passed before this is not the silence of who was heard of.
        for row in self._journal.leases(self.change):
            if row.worker_id >= len(self._slots) or row.change <= self.change:
                raise damaged(f"it holds a lease of worker {row.worker_id}")
            if row.owner:
                liveness.owner_of(row.owner)
            known = before.get(row.worker_id)
            if known is None or known.change != row.change:
                self._seen[row.worker_id] = self._elapsed
            self._rows[row.worker_id] = row
            self.change = row.change

    def look(self) -> float:
        """Let time pass; seconds that this process has watched the run.

        Not more at a look than half the time-out: whoever has slept himself cannot tell
        how long others were silent.
        """
        now = self._clock()
        passed, self._looked = now - self._looked, now
        if self.timeout is not None:
            self._elapsed += min(max(passed, 0.0), self.timeout / 2)
        return self._elapsed

    def holds(self, holder: Holder, worker_id: int) -> bool:
        """Whether the slot is this holder's."""
        row = self._rows.get(worker_id)
        return row is not None and row.owner == holder.text

    def handed(self, worker_id: int) -> int | None:
        """Row of the checkpoint that the owner was given and has not taken up."""
        row = self._rows.get(worker_id)
        return None if row is None else row.handed

    def handed_out(self) -> list[int]:
        """Rows of all checkpoints that were given and not taken up yet."""
        return [row.handed for row in self._rows.values() if row.handed is not None]

    def owner(self, worker_id: int) -> str | None:
        """The owner of a slot as text; None if it was given back or never claimed."""
        row = self._rows.get(worker_id)
        return None if row is None else row.owner

    def foreign(self) -> list[int]:
        """The slots that workers of another host hold."""
        held = [
            (w, liveness.owner_of(r.owner)) for w, r in self._rows.items() if r.owner
        ]
        return [worker_id for worker_id, owner in held if liveness.is_foreign(owner)]

    def is_free(self, worker_id: int) -> bool:
        """Whether a slot may be claimed: nobody's, or of somebody dead or silent."""
        return not self.owner(worker_id) or not self._is_there(worker_id)

    def held_elsewhere(self, holder: Holder) -> bool:
        """Whether a live worker outside of this session has a slot.

        What those may train, by the `stop` of their own, cannot be told here.
        """
        for worker_id, row in self._rows.items():
            raw = row.owner == RAW and self.timeout is not None
            inner = not raw and (
                not row.owner
                or liveness.is_within(liveness.owner_of(row.owner), holder)
            )
            if not inner and self._is_there(worker_id):
                return True
        return False

    def must_fence(self, worker_id: int, holder: Holder) -> bool:
        """Whether the owner, another than the holder, may still be at work."""
        text = self.owner(worker_id)
        if text is None or text == holder.text:
            return False
        return text == RAW or not liveness.is_gone(liveness.owner_of(text))

    def due(self, worker_id: int) -> bool:
        """Whether the slot's lease is to be renewed."""
        if self.timeout is None:
            return False
        silent = self.look() - self._seen.get(worker_id, 0.0)
        row = self._rows.get(worker_id)
        if row is None or row.owner is None or row.grace > 0:
            return True
        # Others may have watched the run for longer than this process has.
        silent = max(silent, abs(self._clock() - row.renewed))
        return silent >= self.timeout / _PARTS

    def write(
        self,
        worker_id: int,
        owner: str | None,
        grace: float = 0.0,
        handed: int | None = None,
    ) -> None:
        """Replace the lease of a slot. Called inside a transaction."""
        self.look()
        self.change += 1
        row = LeaseRow(worker_id, owner, self._clock(), grace, handed, self.change)
        self._journal.set_lease(row)
        self._rows[worker_id] = row
        self._seen[worker_id] = self._elapsed

    def reported(self, worker_id: int, holder: Holder | None) -> None:
        """A slot was heard of; whoever reports has taken up what it was handed."""
        row = self._rows.get(worker_id)
        owner = RAW if holder is None else holder.text
        known = None if row is None else row.owner
        if known != owner and not (row is None and holder is None):
            return  # Somebody else's, or given back: whoever evaluates does not train.
        if self.due(worker_id) or (row is not None and row.handed is not None):
            self.write(worker_id, owner)

    def free(
        self,
        own: int | None = None,
        below: int | None = None,
        tired: Mapping[int, int] | None = None,
    ) -> int | None:
        """The free slot that does not wait and has the fewest steps, or None.

        Args:
            own: The slot to prefer among those with equally few steps; else the lowest.
            below: Only slots with fewer steps than this.
            tired: How often slots were set back; those that were less often come first.
        """
        self.look()
        steps = np.array([slot.newest.step for slot in self._slots])
        order = np.argsort(steps, kind="stable").tolist()
        if own is not None:
            order.sort(key=lambda worker_id: (steps[worker_id], worker_id != own))
        if tired:
            order.sort(key=lambda worker_id: tired.get(worker_id, 0))
        for worker_id in order:
            if below is not None and steps[worker_id] >= below:
                return None
            if self.is_claimable(worker_id) and not self._waits(worker_id):
                return int(worker_id)
        return None

    def is_claimable(self, worker_id: int) -> bool:
        """Whether a worker that asks for any slot may have this one.

        Not one that a raw loop polls: nothing tells that loop from a second worker.
        """
        if self.owner(worker_id) == RAW and self.timeout is not None:
            return self._silence(worker_id) > 1.0
        return self.is_free(worker_id)

    def newly_lost(self) -> set[int] | None:
        """The slots that nobody has taken over for as long again; None: not judged yet.

        Only where no worker is about that could take one: in raw loops.
        """
        if self.timeout is None:
            return None
        if self.look() - self._judged < self.timeout / _PARTS:
            return None
        self._judged = self._elapsed
        slots = range(len(self._slots))
        if any(self.owner(w) and self._is_there(w) for w in slots):
            return set()
        return {w for w in slots if self._may_be_lost(w) and self._silence(w) > 2.0}

    def holders(self) -> Iterable[str]:
        """Who holds slots, for people."""
        for worker_id, row in sorted(self._rows.items()):
            if row.owner:
                yield f"{worker_id} by {liveness.owner_of(row.owner)}"
            elif row.owner == RAW:
                yield f"{worker_id} by a loop that polls it"

    def _may_be_lost(self, worker_id: int) -> bool:
        """Not if it was given back: then it waits for whoever claims it."""
        row = self._rows.get(worker_id)
        return row is None or row.owner is not None

    def _is_there(self, worker_id: int) -> bool:
        """Whether the owner of a slot is neither dead nor silent for too long."""
        row = self._rows[worker_id]
        gone = bool(row.owner) and liveness.is_gone(liveness.owner_of(str(row.owner)))
        return not gone and self._silence(worker_id) <= 1.0

    def _silence(self, worker_id: int) -> float:
        """How long the slot was silent, in time-outs, beyond its period of grace."""
        if self.timeout is None:
            return 0.0
        row = self._rows.get(worker_id)
        grace = 0.0 if row is None else row.grace
        return (self._elapsed - self._seen.get(worker_id, 0.0) - grace) / self.timeout
