"""A clock for tests, which moves only when it is advanced."""

from __future__ import annotations


class Clock:
    """A simulated clock, for the argument `clock` of a controller.

    Args:
        now: The time at the beginning, in seconds.

    Attributes:
        now: The time.
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time in seconds; reading it does not change it."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let some seconds pass.

        Raises:
            ValueError: `seconds` is negative.
        """
        if not seconds >= 0:
            raise ValueError(f"seconds must be 0 or more, got {seconds!r}.")
        self.now += seconds
