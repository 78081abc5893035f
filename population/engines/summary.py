"""The result of an engine when a run has ended."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Summary:
    """The costs of a call of an engine, and how it ended.

    Attributes:
        num_workers: Training loops: threads or processes; 1 for a stacked population.
        wall_s: Seconds from beginning to end; for a stacked population, with compiling.
        overhead_s: Seconds for polls, reports and decisions, and for copies between the
            rows of a stack, summed over workers; without saving params and without
            waiting for a decision.
        interrupted: Whether Ctrl-C ended it; the run can be resumed.
        died: Processes that were killed.
        failures: Failures of trials that were recorded meanwhile: those that ended with
            an error or a kill, and divergences.
        num_members: The size of a stacked population.
        rounds: Rounds that a stacked population trained.
        batching: How its members were batched at the end: "vmap", "map" or "loop"; ""
            if nothing was trained.
    """

    num_workers: int
    wall_s: float
    overhead_s: float
    interrupted: bool
    died: int = 0
    failures: int = 0
    num_members: int = 0
    rounds: int = 0
    batching: str = ""

    @property
    def overhead(self) -> float:
        """The controller's share of the workers' time."""
        return self.overhead_s / max(self.num_workers * self.wall_s, 1e-9)
