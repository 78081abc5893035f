"""Whether a population gets on, or diverges, goes back and diverges for ever."""

from __future__ import annotations

import math
from collections.abc import Sequence

from population.incoming import Incoming

_TRIES = 20  # So often each member may begin anew without anybody's finite value.


class Headway:
    """Counts how often members went back for nothing.

    Args:
        size: How many members there are.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._furthest = 0
        self._in_vain = 0

    def note(self, reports: Sequence[Incoming], num_branched: int) -> None:
        """Take in what was reported, and how many members branched then."""
        furthest = max((new.step for new in reports), default=0)
        values = (new.value for new in reports if new.value is not None)
        if furthest > self._furthest or any(map(math.isfinite, values)):
            self._furthest = max(furthest, self._furthest)
            self._in_vain = 0
        else:
            self._in_vain += num_branched

    def check(self) -> None:
        """End what would go on for ever.

        Raises:
            RuntimeError: If all have gone back too often.
        """
        if self._in_vain >= _TRIES * self._size:
            raise RuntimeError(
                f"Each member has diverged and begun anew {_TRIES} times without a "
                "finite value of anybody's: this would go on for ever. Is evaluate "
                "right, and can any member train with these hyperparameters? What was "
                "recorded stays; Stop(reports=) ends a run in any case."
            )
