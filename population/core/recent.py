"""The newest reports of each slot, kept in memory to look back without the journal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from population.base.types import Checkpoint

_KEPT = 17  # To look back over 16 reports at the one before them.
Entries = deque[tuple[int, float]]


class Recent:
    """Steps and scores of the newest reports with a value on each slot's lineage.

    Oldest first; none is missing from the first one's step on. `(-1, inf)` stands for
    the time before any report.

    Args:
        steps: Of each slot's newest report with a value, -1 for none.
        scores: Of those reports.
    """

    def __init__(self, steps: Sequence[int], scores: Sequence[float]) -> None:
        self._entries = [
            Entries([entry], maxlen=_KEPT) for entry in zip(steps, scores, strict=True)
        ]
        self._donor: tuple[int, Entries] = (-1, deque())

    def add(self, worker_id: int, step: int, score: float) -> None:
        """The slot has come further."""
        self._entries[worker_id].append((step, score))

    def at(self, worker_id: int, step: int) -> tuple[int, float] | None:
        """The newest at or before a step; None if it is not at hand."""
        for entry in reversed(self._entries[worker_id]):
            if entry[0] <= step:
                return entry
        return None

    def begin(self, worker_id: int, step: int, score: float) -> None:
        """The slot's lineage is another one, with this newest report."""
        self._entries[worker_id] = Entries([(step, score)], maxlen=_KEPT)

    def forget_older(self, worker_ids: Iterable[int]) -> None:
        """An older report of these lineages has got its value: keep only the newest."""
        self._donor = (-1, deque())
        for worker_id in worker_ids:
            entries = self._entries[worker_id]
            for _ in range(len(entries) - 1):
                entries.popleft()

    def before(self, parent: Checkpoint, present: str) -> Entries | None:
        """The entries that lead to a checkpoint, if they are at hand.

        Args:
            parent: The checkpoint.
            present: The present generation of the slot that trained it.
        """
        if self._donor[0] != parent.row:  # Many slots may branch from one.
            if parent.generation_id != present:
                return None
            known = (e for e in self._entries[parent.worker_id] if e[0] <= parent.step)
            self._donor = (parent.row, deque(known, maxlen=_KEPT))
        return self._donor[1]

    def put(self, worker_id: int, entries: Entries) -> None:
        """The slot's lineage is that of these entries."""
        self._entries[worker_id] = entries.copy()
