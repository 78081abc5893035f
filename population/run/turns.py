"""When a worker puts its slot aside and trains another one."""

from __future__ import annotations

from collections import Counter
from typing import Any

from population.base.types import Ref
from population.run.open_run import OpenRun


class Turns:
    """The turns of one worker.

    Args:
        run: The run.

    Attributes:
        reports: Saved reports of the present turn.
        tired: How often each slot was set back, if the present one just was; else None.
    """

    def __init__(self, run: OpenRun) -> None:
        self._run = run
        self.reports = 0
        self.tired: Counter[int] | None = None
        self._set_back: Counter[int] = Counter()

    def is_over(self, own: int, at_hand: Ref, most: int) -> bool:
        """Whether another slot is to be trained; only ever right after a report.

        Args:
            own: The slot that is trained.
            at_hand: What the loop stands at.
            most: After so many saved reports others have their turn.
        """
        run = self._run
        newest = run.state().slots[own].newest
        branched = newest.generation_id != at_hand.generation_id
        if not branched and newest.step != at_hand.step:
            return False
        if run.waits(own):
            return True
        if branched and self._has_diverged(at_hand):
            # Set back again and again, it would never come to the turn of the others.
            self._set_back[own] += 1
            self.tired = self._set_back
            return self._free(set_back=self.tired) not in (None, own)
        if branched or newest.params is None or newest.diverged:
            return False  # The next worker would train these steps again.
        return self.reports >= most and self._free(below=at_hand.step) is not None

    def begin(self) -> None:
        """Another slot is trained from now on."""
        self.reports, self.tired = 0, None

    def _has_diverged(self, at_hand: Ref) -> bool:
        found = self._run.graph.get_checkpoint(at_hand)
        return found is not None and found.diverged

    def _free(self, **options: Any) -> int | None:
        run = self._run
        return run.leases.free(run.state(), run.waits, run.clock(), **options)
