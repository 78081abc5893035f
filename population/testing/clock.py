"""A clock that only moves when told."""

from __future__ import annotations


class Clock:
    """Seconds that pass when somebody says so; what `clock=` of a controller takes.

    Args:
        now: The time at the beginning, in seconds.

    Attributes:
        now: The time.
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time; reading it changes nothing."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass.

        Raises:
            ValueError: If they are negative.
        """
        if not seconds >= 0:
            raise ValueError(f"seconds must be 0 or more, got {seconds!r}.")
        self.now += seconds
