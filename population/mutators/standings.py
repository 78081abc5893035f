"""The members that a decision compares, and their scores."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from population.base.interfaces import PopulationView
from population.base.types import Checkpoint

_LAST = 10  # At least so many reports of each lineage are looked at.
_ROUNDING = 1e-9  # 0.07 * 100 is 7.000000000000001, and should count as 7.
Positions = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Standings:
    """The members that are compared at one decision, at the positions `0..M-1`.

    Attributes:
        scores: `[M]`; lower is better whatever the mode, inf for a diverged member.
        samples: `samples(position, window)` returns the scores of a member's newest
            reports up to the step of the comparison, at most `window`, in any order.
        for_all: Whether every member is asked about: then the ranks of all are found
            at once, and else only those that are needed.
    """

    scores: npt.NDArray[np.float64]
    samples: Callable[[int, int], Sequence[float]] = lambda position, window: ()
    for_all: bool = False

    def __len__(self) -> int:
        return len(self.scores)

    def rank(self, me: int) -> int:
        """Count the better members; of equal ones the one at the lower position is."""
        if self.for_all:
            return self._ranks[me]
        own = self.scores[me]
        better = np.count_nonzero(self.scores < own)
        return int(better + np.count_nonzero(self.scores[:me] == own))

    def best(self, fraction: float) -> Positions:
        """Return the best fraction, rounded up, with all as good as its last one."""
        found = self._known.get(fraction)
        if found is None:
            count = portion(fraction, len(self))
            if not count:
                return np.zeros(0, np.int64)
            limit = np.partition(self.scores, count - 1)[count - 1]
            is_best = (self.scores <= limit) & np.isfinite(self.scores)
            found = self._known[fraction] = np.flatnonzero(is_best)
            found.flags.writeable = False
        return found

    @functools.cached_property
    def _ranks(self) -> list[int]:
        order = np.argsort(self.scores, kind="stable")
        ranks = np.empty_like(order)
        ranks[order] = np.arange(len(order))
        found: list[int] = ranks.tolist()
        return found

    @functools.cached_property
    def _known(self) -> dict[float, Positions]:
        """What `best` has returned, by fraction."""
        return {}


class Curves:
    """The members at the end of a round, and their last scores.

    Args:
        reached: The checkpoint of each live slot there, by worker id in order.
        view: The view.
        window: The most scores that `means` will average.

    Attributes:
        reached, view: The first arguments.
        diverged: The members whose score there is not finite.
        noise: The standard deviation of the noise of a report.
    """

    def __init__(
        self, reached: Mapping[int, Checkpoint], view: PopulationView, window: int
    ) -> None:
        self.reached = reached
        self.view = view
        self.diverged = {w for w, c in reached.items() if math.isinf(view.score(c))}
        until = view.steps.copy()
        until[list(reached)] = [checkpoint.step for checkpoint in reached.values()]
        self._history = view.last(max(_LAST, window), until)
        self.noise = noise(self._history[list(reached)])

    def means(self, window: int) -> Sequence[float]:
        """Return the mean of the last scores on each lineage, by worker id.

        Args:
            window: How many scores are averaged.
        """
        found: list[float] = tail_means(self._history, window).tolist()
        return found


def at_equal_step(
    worker_id: int, step: int, view: PopulationView
) -> tuple[Positions, npt.NDArray[np.float64]]:
    """Return the worker ids that can be compared at a step, with their scores.

    A member that has diverged since then scores inf, so that it is no donor. A copy is
    compared only once it has been trained, evaluated and saved: until then its scores
    are its donor's, and members could go back to copies of each other without end.
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
    """Return the scores of a lineage's newest reports up to a step, newest first."""
    newest = view.graph.newest_value(checkpoint, until=step)
    if newest is None:
        return []
    reports = (c for c in view.graph.walk(newest) if c.value is not None)
    return [view.score(c) for c in itertools.islice(reports, window)]


def sign(checkpoint: Checkpoint, view: PopulationView) -> float:
    """Return 1.0 or -1.0: a score times this is the reported value."""
    return math.copysign(1.0, view.score(checkpoint._replace(value=1.0)))


def noise(history: npt.NDArray[np.float64]) -> float:
    """Return the standard deviation of the noise of reports, or 0 if it is unknown.

    A second difference of three reports in a row has the variance of six, whatever the
    trend; the median of the squares is 0.455 times that for normal noise, and is hardly
    changed by the few where a lineage continues from another member.

    Args:
        history: `[N, k]` the last scores of lineages, as of `view.last`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.diff(history, 2, axis=1) ** 2
    known = squares[np.isfinite(squares)]
    return math.sqrt(float(np.median(known)) / 6 / 0.455) if len(known) else 0.0


def tail_means(
    history: npt.NDArray[np.float64], window: int
) -> npt.NDArray[np.float64]:
    """Return `[N]` the means of at most `window` last scores; inf where there is none.

    Args:
        history: `[N, k]` the last scores of lineages, as of `view.last`.
        window: How many scores, at most k.
    """
    last = history[:, -window:]
    known = ~np.isnan(last)
    count = np.count_nonzero(known, axis=1)
    shares = np.where(known, last, 0.0) / np.maximum(count, 1)[:, None]
    return np.where(count, shares.sum(axis=1), np.inf)


def portion(fraction: float, size: int) -> int:
    """Return a fraction of `size`, rounded up to a number of members."""
    return min(max(math.ceil(fraction * size - _ROUNDING), 1), size)


def check_number(
    value: Any, name: str, low: float = -math.inf, high: float = math.inf
) -> float:
    """Return an argument of a policy or rule, after a check.

    Raises:
        ValueError: It is not a number, or not in the range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number, got {value!r}.")
    if not (math.isinf(low) or low <= value <= high):
        raise ValueError(f"{name} must be from {low} to {high}, got {value!r}.")
    return value


def check_share(value: Any, name: str, *, or_zero: bool = False) -> float:
    """Return an argument that is a share of the members, after a check.

    Raises:
        ValueError: It is not a number up to 1, above 0, or 0 if `or_zero`.
    """
    share = check_number(value, name)
    if not (0 < share <= 1 or (or_zero and share == 0)):
        least = "from 0 to 1" if or_zero else "above 0 and at most 1"
        raise ValueError(f"{name} must be {least}, got {value!r}.")
    return share
