"""Decides when a worker gives its slot back and trains another one."""

from __future__ import annotations

from typing import Any

from population.base.types import Ref
from population.run.open_run import OpenRun


class Turns:
    """The turns of one worker; in each it trains one slot.

    Args:
        run: The run.

    Attributes:
        reports: The number of saved reports in the present turn.
    """

    def __init__(self, run: OpenRun) -> None:
        self._run = run
        self.reports = 0

    def is_over(self, own: int, at_hand: Ref, most: int) -> bool:
        """Whether the worker is to train another slot, after a report or a branch.

        Args:
            own: The slot that it trains.
            at_hand: The generation and step of the training loop.
            most: The number of saved reports after which another slot has its turn.
        """
        run = self._run
        newest = run.state().slots[own].newest
        branched = newest.generation_id != at_hand.generation_id
        if run.waits(own):
            return True
        if branched and run.state().members.failures(own):
            # A slot that fails again and again must not keep others from training.
            found, count = self._free(), run.state().members.failures
            return found is not None and count(found) < count(own)
        if branched or newest.params is None or newest.diverged:
            return False  # The next worker would train these steps again.
        return self.reports >= most and self._free(below=at_hand.step) is not None

    def begin(self) -> None:
        """Start the turn of another slot."""
        self.reports = 0

    def _free(self, **options: Any) -> int | None:
        run = self._run
        return run.leases.free(run.state(), run.waits, run.clock(), **options)
