"""When a worker puts its slot aside and trains another one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from population.base.types import Ref

if TYPE_CHECKING:
    from population.run.open_run import Session


class Turns:
    """The turns of one worker.

    Args:
        session: The run.

    Attributes:
        reports: Saved reports of the present turn.
        tired: How often each slot was set back, if the present one just was; else None.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
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
        session = self._session
        newest = session.newest(own)
        branched = newest.generation_id != at_hand.generation_id
        if not branched and newest.step != at_hand.step:
            return False
        if session.waits(own):
            return True
        free = session.leases.free
        if branched and self._has_diverged(at_hand):
            # Set back again and again, it would never come to the turn of the others.
            self._set_back[own] += 1
            self.tired = self._set_back
            return free(tired=self.tired) not in (None, own)
        if branched or newest.params is None or newest.diverged:
            return False  # The next worker would train these steps again.
        return self.reports >= most and free(below=at_hand.step) is not None

    def begin(self) -> None:
        """Another slot is trained from now on."""
        self.reports, self.tired = 0, None

    def _has_diverged(self, at_hand: Ref) -> bool:
        found = self._session.graph.get_checkpoint(at_hand)
        return found is not None and found.diverged
