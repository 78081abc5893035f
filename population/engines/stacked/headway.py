"""Whether a population gets on, or diverges, goes back and diverges for ever."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from population.incoming import Incoming

_TRIES = 20  # So often a member may begin anew without anybody's finite value.


class Headway:
    """Counts how often each member went back for nothing."""

    def __init__(self) -> None:
        self._furthest = 0
        self._in_vain: Counter[int] = Counter()

    def note(self, reports: Sequence[Incoming], branched: Iterable[int]) -> None:
        """Take in what was reported, and who branched then."""
        furthest = max((new.step for new in reports), default=0)
        values = (new.value for new in reports if new.value is not None)
        if furthest > self._furthest or any(map(math.isfinite, values)):
            self._furthest = max(furthest, self._furthest)
            self._in_vain.clear()
        else:
            self._in_vain.update([*branched])

    def check(self) -> None:
        """End what would go on for ever.

        Raises:
            RuntimeError: If a member has gone back too often.
        """
        for worker_id, count in self._in_vain.items():
            if count >= _TRIES:
                raise RuntimeError(
                    f"Worker {worker_id} has diverged and begun anew {count} times, "
                    "and nobody has reported a finite value meanwhile: this would go "
                    "on for ever. Is evaluate right, and can any member train with "
                    "these hyperparameters? What was recorded stays."
                )
