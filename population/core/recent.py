"""The newest reports on each slot's lineage, in arrays."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

_AHEAD = 16  # How many reports a slot may be ahead of a step without a look-up.
_NONE = -1  # The step of a place before a lineage's first report; its score is NaN.
_UNKNOWN = 2**63 - 1  # The step of a place whose report must be looked up.
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Entry = tuple[int, float]
# Yields the step and score of a slot's reports up to a step, newest first.
LookUp = Callable[[int, int], Iterator[Entry]]


class Recent:
    """The steps and scores of the newest reports with a value on each slot's lineage.

    Each slot has a row, with its newest report in the last column. The first columns of
    a row may be unknown; they are looked up when they are needed.

    Args:
        steps: `[N]` step of the newest report on each lineage, or -1; kept up to date
            by the caller.
        scores: `[N]` the scores of those reports, likewise.
    """

    def __init__(self, steps: Ints, scores: Floats) -> None:
        self._newest = steps, scores
        self._set(steps[:, None], np.where(steps < 0, np.nan, scores)[:, None])
        self._widen(1)

    def push(self, row: int, step: int, score: float) -> None:
        """Add a slot's new report."""
        bits, scores = self._rows[row]
        bits[:-1] = bits[1:]
        bits[self._width - 1], scores[-1] = step, score

    def reset(self, row: int, step: int, score: float) -> None:
        """Forget all of a row but its newest report; step -1: there is no report."""
        self._steps[row] = _UNKNOWN if step >= 0 else _NONE
        self._scores[row] = np.nan
        if step >= 0:
            self._steps[row, -1], self._scores[row, -1] = step, score

    def branch(self, row: int, donor: int, step: int, score: float) -> None:
        """Set a row to a donor's reports before a step, and one at that step."""
        older = np.flatnonzero(self._steps[donor] < step)[1 - self._width :]
        entries = self._steps[donor, older], self._scores[donor, older]
        is_whole = self._steps[donor, 0] == _NONE
        self.reset(row, step, score)
        first, last = self._width - 1 - len(older), self._width - 1
        self._steps[row, first:last], self._scores[row, first:last] = entries
        if is_whole:
            self._steps[row, :first] = _NONE

    def reach(self, step: int) -> npt.NDArray[np.bool_]:
        """Return `[N]`: whether what is known of each slot reaches back to a step."""
        is_back: npt.NDArray[np.bool_] = self._steps.min(axis=1) <= step
        return is_back

    def as_of(self, step: int, look_up: LookUp) -> tuple[Ints, Floats]:
        """Return steps and scores, `[N]`, of the newest reports up to a step."""
        steps, scores = self._newest
        if not (steps > step).any():
            return steps.copy(), scores.copy()
        limit = np.full(len(steps), step, np.int64)
        steps, found = self._upto(limit, 1, look_up)
        return steps, np.where(steps < 0, math.inf, found[:, 0])

    def last(self, count: int, until: int | Ints | None, look_up: LookUp) -> Floats:
        """Return scores, `[N, count]`, of the last reports up to a step or steps."""
        self._widen(count)
        limit = np.broadcast_to(_UNKNOWN if until is None else until, len(self._steps))
        return self._upto(limit, count, look_up)[1]

    def _upto(self, limit: Ints, count: int, look_up: LookUp) -> tuple[Ints, Floats]:
        """Return the last reports of each slot up to its limit.

        Args:
            limit: `[N]` the last step of each slot.
            count: How many reports of each slot to return.
            look_up: Yields a slot's reports.

        Returns:
            `[N]` the step of the first of them, and `[N, count]` the scores of all.
        """
        ahead = self._ahead(limit)
        steps, scores = self._before(ahead, count)
        rows = np.flatnonzero((steps == _UNKNOWN) | (ahead > _AHEAD))
        partly = rows[self._steps[rows, 0] == _UNKNOWN].tolist()
        for row in partly:
            found = _in_columns(look_up(row, _UNKNOWN), self._width)
            self._steps[row], self._scores[row] = found
        if partly:
            return self._upto(limit, count, look_up)
        for row in rows.tolist():
            found = _in_columns(look_up(row, int(limit[row])), count)
            steps[row], scores[row] = found[0][0], found[1]
        return steps, scores

    def _ahead(self, limit: Ints) -> Ints:
        """Return `[N]`: how many reports are after each slot's limit; 17: or more."""
        ahead = np.zeros(len(limit), np.int64)
        for column in range(1, _AHEAD + 2):
            is_ahead = self._steps[:, -column] > limit
            if not is_ahead.any():
                break
            ahead += is_ahead
        return ahead

    def _before(self, ahead: Ints, count: int) -> tuple[Ints, Floats]:
        """Return what `_upto` does, without each slot's `ahead` newest reports."""
        first = self._width - count
        if not ahead.any():
            return self._steps[:, first].copy(), self._scores[:, first:].copy()
        rows = 2 * self._width * np.arange(len(ahead))
        places = rows + first - np.minimum(ahead, _AHEAD)
        steps = self._both.take(places)
        places = places + self._width + np.arange(count)[:, None]
        return steps, self._both.view(np.float64).take(places).T

    def _widen(self, count: int) -> None:
        """Have columns for so many reports; more than these, so that this is rare."""
        if self._width >= count + _AHEAD:
            return
        extra = max(count + _AHEAD, 2 * self._width) - self._width
        is_whole = self._steps[:, :1] == _NONE
        steps = np.repeat(np.where(is_whole, _NONE, _UNKNOWN), extra, axis=1)
        scores = np.full(steps.shape, np.nan)
        self._set(np.hstack([steps, self._steps]), np.hstack([scores, self._scores]))

    def _set(self, steps: Ints, scores: Floats) -> None:
        """Set all; a row in memory has its steps, and then the bits of its scores."""
        both = np.hstack([steps, scores.view(np.int64)])
        self._width = width = steps.shape[1]
        self._steps, self._scores = both[:, :width], both.view(np.float64)[:, width:]
        self._both = both.reshape(-1)
        # A memoryview moves a row in a fraction of the time that NumPy needs.
        rows = [memoryview(row) for row in both]
        self._rows = [(row, row.cast("B").cast("d")) for row in rows]


def _in_columns(found: Iterator[Entry], count: int) -> tuple[Ints, Floats]:
    """Return the first of what was found, newest first, as a row of each array."""
    entries = list(itertools.islice(found, count))[::-1]
    steps, scores = np.full(count, _NONE, np.int64), np.full(count, np.nan)
    start = count - len(entries)
    steps[start:] = [step for step, _ in entries]
    scores[start:] = [score for _, score in entries]
    return steps, scores
