"""Measures how long a run was open: in this process, and in those before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from population.journal.base import MAX, Find, Journal
from population.journal.records import Opening


class OpenTime:
    """Counts the seconds that a run was open, without its downtime.

    Args:
        clock: Returns seconds.

    Attributes:
        seconds: The seconds until the last call of `look`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._looked = 0.0
        self.seconds = 0.0

    def begin(self, journal: Journal, openings: Sequence[Opening]) -> None:
        """Start from the sum of earlier openings, each until its last checkpoint."""
        self._looked = self._clock()
        self.seconds = 0.0
        ends = [*(opening.row for opening in openings[1:]), MAX]
        for opening, end in zip(openings, ends, strict=False):
            last = Find(upto=end, newest_first=True, limit=1)
            for found in journal.checkpoints(last):
                self.seconds += max(0.0, found.time - opening.time)

    def look(self) -> float:
        """Return the seconds until now."""
        before, self._looked = self._looked, self._clock()
        self.seconds += max(0.0, self._looked - before)  # A clock may be set back.
        return self.seconds
