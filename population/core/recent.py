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
        end = (row + 1) * self._width
        first, last = end - self._width, end - 1
        steps, scores = self._flat
        steps[first:last] = steps[first + 1 : end]
        scores[first:last] = scores[first + 1 : end]
        steps[last], scores[last] = step, score

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

    def as_of(self, step: int, look_up: LookUp) -> tuple[Ints, Floats]:
        """Return steps and scores, `[N]`, of the newest reports up to a step."""
        steps, scores = (newest.copy() for newest in self._newest)
        rows = np.flatnonzero(steps > step)
        if rows.size:
            found = self._upto(rows, np.full(len(rows), step), 1, look_up)
            steps[rows], before = found[0][:, 0], found[1][:, 0]
            scores[rows] = np.where(np.isnan(before), math.inf, before)
        return steps, scores

    def last(self, count: int, until: int | Ints | None, look_up: LookUp) -> Floats:
        """Return scores, `[N, count]`, of the last reports up to a step or to `[N]`."""
        self._widen(count)
        scores = self._scores[:, -count:].copy()
        limit = np.broadcast_to(_UNKNOWN if until is None else until, len(scores))
        is_open = (self._newest[0] > limit) | (self._steps[:, -count] == _UNKNOWN)
        rows = np.flatnonzero(is_open)
        if rows.size:
            scores[rows] = self._upto(rows, limit[rows], count, look_up)[1]
        return scores

    def _upto(
        self, rows: Ints, until: Ints, count: int, look_up: LookUp
    ) -> tuple[Ints, Floats]:
        """Return steps and scores of the last reports of some slots.

        Args:
            rows: `[M]` the slots.
            until: `[M]` the last step of each.
            count: How many reports of each slot to return.
            look_up: Yields a slot's reports.

        Returns:
            Two arrays `[M, count]`, the newest in the last column.
        """
        steps, scores, is_missing = self._known(rows, until, count)
        partly = rows[is_missing & (self._steps[rows, 0] == _UNKNOWN)].tolist()
        for row in partly:
            found = _in_columns(look_up(row, _UNKNOWN), self._width)
            self._steps[row], self._scores[row] = found
        if partly:
            steps, scores, is_missing = self._known(rows, until, count)
        for at in np.flatnonzero(is_missing).tolist():
            found = _in_columns(look_up(int(rows[at]), int(until[at])), count)
            steps[at], scores[at] = found
        return steps, scores

    def _known(
        self, rows: Ints, until: Ints, count: int
    ) -> tuple[Ints, Floats, npt.NDArray[np.bool_]]:
        """Return what `_upto` does without a look-up, and `[M]` where that is wrong."""
        ahead = np.zeros(len(rows), np.int64)
        places = np.arange(len(rows))
        for column in range(self._width - 1, -1, -1):
            places = places[self._steps[rows[places], column] > until[places]]
            if not places.size:
                break
            ahead[places] += 1
        first = self._width - count - ahead
        columns = np.maximum(first[:, None] + np.arange(count), 0)
        steps = self._steps[rows[:, None], columns]
        is_cut = (first < 0) | (steps[:, 0] == _UNKNOWN)
        is_missing = is_cut & (steps[:, 0] != _NONE)
        return steps, self._scores[rows[:, None], columns], is_missing

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
        self._steps, self._scores, self._width = steps, scores, steps.shape[1]
        # A memoryview moves a part of a row several times faster than NumPy does.
        self._flat = memoryview(steps.reshape(-1)), memoryview(scores.reshape(-1))


def _in_columns(entries: Iterator[Entry], count: int) -> tuple[Ints, Floats]:
    """Return the first entries, which are the newest, as a row of each array."""
    found = list(itertools.islice(entries, count))[::-1]
    steps, scores = np.full(count, _NONE, np.int64), np.full(count, np.nan)
    start = count - len(found)
    steps[start:] = [step for step, _ in found]
    scores[start:] = [score for _, score in found]
    return steps, scores
