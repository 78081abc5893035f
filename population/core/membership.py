"""Which slots decisions wait for, and how often each has failed."""

from __future__ import annotations

from population.base.errors import damaged
from population.core import facts
from population.core.decoding import decode
from population.journal.records import STOPPED, Loss, Status

FAILURES = ("failed", "diverged")  # Kinds of a `Status`.


class Membership:
    """Which slots of a run are live, given up, failing or retired.

    Args:
        size: The number of slots.

    Attributes:
        lost: The slots for which decisions do not wait until they report a later step.
        retired: The slots that are finished.
        live: The worker ids of the others, ascending; another object after a change.
        statuses: The newest status of each slot that has one, by worker id.
        count: The number of statuses so far, of all slots.
        stops: The requests to stop the run, oldest first.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.lost: frozenset[int] = frozenset()
        self.retired: frozenset[int] = frozenset()
        self.live: tuple[int, ...] = tuple(range(size))
        self.statuses: dict[int, Status] = {}
        self.count = 0
        self.stops: tuple[Status, ...] = ()

    @property
    def all_retired(self) -> bool:
        """Whether no slot is left to train."""
        return len(self.retired) == self._size

    @property
    def all_failed(self) -> bool:
        """Whether all slots are retired, each because it failed too often."""
        kinds = (status.kind for status in self.statuses.values())
        return self.all_retired and all(kind in FAILURES for kind in kinds)

    def failures(self, worker_id: int) -> int:
        """Return how often a slot has failed in a row."""
        status = self.statuses.get(worker_id)
        return 0 if status is None else status.failures

    def apply_loss(self, record: Loss) -> None:
        """Apply a list of the slots that were given up."""
        self.lost = frozenset(facts.lost(decode(record.lost), self._size))
        self._find_live()

    def apply_status(self, record: Status) -> None:
        """Apply the status of a slot."""
        if record.worker_id >= self._size:
            raise damaged(f"it holds a status of worker {record.worker_id}")
        if record.kind == STOPPED:
            if record.number > self.count:  # Applied again, it changes nothing.
                self.stops += (record,)
                self.count = record.number
            return
        self.count = max(self.count, record.number)
        self.statuses[record.worker_id] = record
        own = frozenset((record.worker_id,))
        retired = self.retired | own if record.retired else self.retired - own
        if retired != self.retired:
            self.retired = retired
            self._find_live()

    def _find_live(self) -> None:
        gone = self.lost | self.retired
        live = tuple(w for w in range(self._size) if w not in gone)
        if live != self.live:
            self.live = live
