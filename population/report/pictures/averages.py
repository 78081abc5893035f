"""Arithmetic of curves: smoothing, members over steps, means, bands and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from population.report.pictures.lineages import Bools, Floats, Ints

CONFIDENCE = 0.95


class Band(NamedTuple):
    """A mean and what lies around it, `[X]` each; NaN where too few numbers are known.

    Attributes:
        mean: The mean.
        low: The lower end of the band.
        high: The upper end.
        best: The best number.
        known: How many numbers are known.
    """

    mean: Floats
    low: Floats
    high: Floats
    best: Floats
    known: Ints


def best_of(values: Floats, mode: str) -> int:
    """Return the index of the best finite value, the first one of equals; -1: none."""
    known = np.isfinite(values)
    if not known.any():
        return -1
    if mode == "max":
        return int(np.argmax(np.where(known, values, -np.inf)))
    return int(np.argmin(np.where(known, values, np.inf)))


def smoothed(values: Floats, before: Ints, window: int) -> tuple[Floats, Bools]:
    """Return the mean of the last `window` values of each lineage, `[N]`.

    It follows a lineage across its branches: the first values of a copied member are
    averaged with the last ones of its donor. At the start the mean is of fewer values.

    Args:
        values: `[N]`, finite where they are known.
        before: `[N]` the index of the value before each one in its lineage, or -1.
        window: The number of values.

    Returns:
        The means, NaN where the value is not known, and which have a full window.
    """
    known = np.isfinite(values)
    total, count = np.zeros(len(values)), np.zeros(len(values), np.int64)
    at = np.where(known, np.arange(len(values)), -1)
    for _ in range(window):
        there = at >= 0
        if not there.any():
            break
        total[there] += values[at[there]] / window
        count[there] += 1
        at[there] = before[at[there]]
    means = np.full(len(values), np.nan)
    means[known] = total[known] * (window / count[known])
    return means, count == window


def grid(steps: Ints, most: int) -> Ints:
    """Return the steps in order, each once; evenly spaced ones if they are too many."""
    found: Ints = np.unique(steps)
    if len(found) > most:
        spaced = np.linspace(found[0], found[-1], most)
        found = np.unique(spaced.round().astype(np.int64))
    return found


def by_member(members: Ints, steps: Ints, values: Floats, at: Ints) -> Floats:
    """Return the newest value of each member at each of the steps `at`, `[M, X]`.

    The rows are in the order of the member's numbers. A value counts from its step to
    the last one that the member has reported; before and after there is NaN.

    Args:
        members: `[N]` the slot of each report, in recorded order.
        steps: `[N]` its step.
        values: `[N]` its value; not finite: it does not count.
        at: `[X]` ascending steps; the last is at least the largest of `steps`.
    """
    known = np.isfinite(values)
    numbers, rows = np.unique(members[known], return_inverse=True)
    columns = np.searchsorted(at, steps[known])
    found = np.full((len(numbers), len(at)), np.nan)
    found[rows, columns] = values[known]  # Of equal places the last one counts.
    last = np.zeros(len(numbers), np.int64)
    np.maximum.at(last, rows, columns)
    places = np.arange(len(at))
    newest = np.maximum.accumulate(np.where(np.isnan(found), 0, places), axis=1)
    filled = np.take_along_axis(found, newest, axis=1)
    return np.where(places > last[:, None], np.nan, filled)


def mean_of_best(table: Floats, count: int, mode: str) -> Floats:
    """Return the mean of the best `count` numbers of each column, of fewer if need be.

    Args:
        table: `[M, X]`; NaN is no number.
        count: How many.
        mode: "min" or "max": which are the best.
    """
    signed = table if mode == "min" else -table
    top = np.sort(signed, axis=0)[:count]  # NaN comes last.
    found = _mean(top)
    return found if mode == "min" else -found


def spread(table: Floats, mode: str) -> Band:
    """Return mean, mean -+ one standard deviation, and best of each column.

    Args:
        table: `[M, X]`; NaN is no number.
        mode: "min" or "max": which is the best.
    """
    mean, deviation, count = _moments(table, 0)
    deviation = np.where(count > 0, deviation, np.nan)
    best = mean_of_best(table, 1, mode)
    return Band(mean, mean - deviation, mean + deviation, best, count)


def interval(table: Floats, mode: str = "min") -> Band:
    """Return the mean of each column and its 95 % interval by Student's t.

    It assumes independent rows that are roughly normal. With one row there is no
    interval.

    Args:
        table: `[R, X]`, a row for each run; NaN is no number.
        mode: "min" or "max": which is the best.
    """
    mean, deviation, count = _moments(table, 1)
    freedom = np.maximum(count - 1, 1)
    margin = stdtrit(freedom, (1 + CONFIDENCE) / 2) * deviation
    margin = np.where(count > 1, margin / np.sqrt(np.maximum(count, 1)), np.nan)
    best = mean_of_best(table, 1, mode)
    return Band(mean, mean - margin, mean + margin, best, count)


def best_so_far(places: Floats, values: Floats, at: Floats, mode: str) -> Floats:
    """Return the best of the values at or before each of the places `at`, `[X]`.

    Args:
        places: `[N]` the step, or the number, of each report.
        values: `[N]`; not finite: the report does not count.
        at: `[X]` ascending places.
        mode: "min" or "max": which value is better.
    """
    known = np.isfinite(values)
    order = np.argsort(places[known], kind="stable")
    better = np.minimum if mode == "min" else np.maximum
    best = np.append(better.accumulate(values[known][order]), np.nan)
    found = np.searchsorted(places[known][order], at, side="right") - 1
    values_at: Floats = best[found]  # The NaN at the end is what -1 finds.
    return values_at


def robust_range(values: Floats, always: Sequence[float] = ()) -> tuple[float, float]:
    """Return a range that holds all values but a few that are far from the others.

    Left out is what is further beyond the inner 96 % than these are wide.

    Args:
        values: Finite numbers, at least one.
        always: Numbers that the range must hold.
    """
    low, high = np.quantile(values, [0.02, 0.98]).tolist()
    width = high - low
    near = values[(values >= low - width) & (values <= high + width)]
    ends = [float(near.min()), float(near.max()), *always]
    return min(ends), max(ends)


def _mean(table: Floats) -> Floats:
    """Return the mean of what is known in each column; NaN if nothing is."""
    known = ~np.isnan(table)
    count = known.sum(axis=0)
    total = np.where(known, table, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _moments(table: Floats, lost: int) -> tuple[Floats, Floats, Ints]:
    """Return mean, standard deviation and count; `lost` are degrees of freedom."""
    mean, known = _mean(table), ~np.isnan(table)
    count = known.sum(axis=0)
    squares = np.where(known, table - mean, 0.0) ** 2
    variance = squares.sum(axis=0) / np.maximum(count - lost, 1)
    return mean, np.sqrt(variance), count
