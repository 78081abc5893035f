"""What the stacked engine says when a run has ended."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a run of a stacked population took.

    Attributes:
        num_members: The size of the population.
        rounds: Rounds that were trained.
        batching: How the members were batched: "vmap", "map" or "loop"; "" if the run
            had ended before.
        wall_s: Seconds from beginning to end, with compiling.
        overhead_s: Seconds for reports, decisions and copies between rows, without
            saving.
        interrupted: Whether Ctrl-C ended it; the run can be resumed.
    """

    num_members: int
    rounds: int
    batching: str
    wall_s: float
    overhead_s: float
    interrupted: bool

    @property
    def overhead(self) -> float:
        """The controller's share of the time."""
        return self.overhead_s / max(self.wall_s, 1e-9)
