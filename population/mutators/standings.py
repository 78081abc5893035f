"""Who is compared with whom, and by which scores."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from population.base.interfaces import PopulationView
from population.base.types import Checkpoint

_ROUNDING = 1e-9  # 0.07 * 100 is 7.000000000000001, whose ceiling is not meant.
Positions = npt.NDArray[np.int64]


def _no_samples(position: int, window: int) -> Sequence[float]:
    del position, window
    return ()


@dataclasses.dataclass(frozen=True)
class Standings:
    """The members that are compared at one decision, by their positions `0..M-1`.

    Attributes:
        scores: `[M]`; lower is better whatever the mode, inf for a diverged member.
        samples: `samples(position, window)`: the scores of a member's newest reports
            up to the step of the comparison, at most `window` of them, in any order.
    """

    scores: npt.NDArray[np.float64]
    samples: Callable[[int, int], Sequence[float]] = _no_samples

    def __len__(self) -> int:
        return len(self.scores)

    def rank(self, me: int) -> int:
        """How many are before a member; of equal ones the lower position is."""
        mine = self.scores[me]
        before = np.count_nonzero(self.scores < mine)
        return int(before + np.count_nonzero(self.scores[:me] == mine))

    def best(self, fraction: float) -> Positions:
        """The best members: the fraction, rounded up, and all as good as its last."""
        count = portion(fraction, len(self))
        if not count:
            return np.zeros(0, np.int64)
        limit = np.partition(self.scores, count - 1)[count - 1]
        return np.flatnonzero((self.scores <= limit) & np.isfinite(self.scores))


def at_equal_step(
    worker_id: int, step: int, view: PopulationView
) -> tuple[Positions, npt.NDArray[np.float64]]:
    """The members that can be compared at a step, with their scores there.

    They are in order of their ids. One that has diverged since is no donor any more. A
    copy is compared when it has been trained, reported and saved itself: until then its
    scores are its donor's. Else members would go back to each other's copies for ever.
    """
    steps, scores = view.as_of(step)
    scores[~np.isfinite(view.scores)] = np.inf
    compared = (steps >= 0) & (view.ready > view.begins)
    if len(view.live) < len(steps):
        is_live = np.zeros(len(steps), bool)
        is_live[list(view.live)] = True
        compared &= is_live
    compared[worker_id] = steps[worker_id] >= 0
    members = np.flatnonzero(compared)
    scores = scores[members]
    scores.flags.writeable = False
    return members, scores


def samples(
    checkpoint: Checkpoint, step: int, window: int, view: PopulationView
) -> Sequence[float]:
    """The scores of a lineage's newest reports at or before a step."""
    newest = view.graph.newest_value(checkpoint, until=step)
    if newest is None:
        return []
    reports = (c for c in view.graph.walk(newest) if c.value is not None)
    return [view.score(c) for c in itertools.islice(reports, window)]


def sign(checkpoint: Checkpoint, view: PopulationView) -> float:
    """1 or -1: what turns scores into values, as people know them."""
    return math.copysign(1.0, view.score(checkpoint._replace(value=1.0)))


def portion(fraction: float, size: int) -> int:
    """A fraction above 0 of so many members, rounded up."""
    return min(max(math.ceil(fraction * size - _ROUNDING), 1), size)
