"""Estimates how long something still takes from how fast it was lately."""

from __future__ import annotations

import collections

_LONGEST_S = 300.0


class Pace:
    """How fast a count grows, since the middle of the time so far.

    So the first steps, which include compilations, are soon left out. It looks back at
    most five minutes, or to the last change before.
    """

    def __init__(self) -> None:
        self._changes: collections.deque[tuple[float, float]] = collections.deque()
        self._began = 0.0

    def note(self, now: float, done: float) -> None:
        """Note the count at a time in seconds."""
        changes = self._changes
        if not changes:
            self._began = now
        if not changes or done != changes[-1][1]:
            changes.append((now, done))
        since = max((self._began + now) / 2, now - _LONGEST_S)
        while len(changes) > 2 and changes[1][0] <= since:
            changes.popleft()

    def left_s(self, now: float, remaining: float) -> float | None:
        """Return the seconds until the count has grown by so much.

        Args:
            now: The time in seconds.
            remaining: How much is left to do.

        Returns:
            The seconds, or None if the count does not grow.
        """
        if remaining <= 0:
            return 0.0
        if not self._changes:
            return None
        (began, before), (ended, after) = self._changes[0], self._changes[-1]
        if ended <= began or after <= before:
            return None
        return max(0.0, remaining * (ended - began) / (after - before) - now + ended)
