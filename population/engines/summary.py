"""What an engine says when a run has ended."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a run of an engine took.

    Attributes:
        num_workers: Threads or processes.
        wall_s: Seconds from beginning to end.
        overhead_s: Seconds inside poll and report, summed over workers; without saving
            params and without waiting for a decision.
        interrupted: Whether Ctrl-C ended it; the run can be resumed.
        died: Processes that were killed; the others went on with their slots.
    """

    num_workers: int
    wall_s: float
    overhead_s: float
    interrupted: bool
    died: int = 0

    @property
    def overhead(self) -> float:
        """The controller's share of the workers' time."""
        return self.overhead_s / max(self.num_workers * self.wall_s, 1e-9)
