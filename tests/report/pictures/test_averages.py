"""The arithmetic of curves, against sums that can be done by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from population.report.pictures import averages

NAN = math.nan


def test_the_best_is_the_first_of_equals_and_finite() -> None:
    """As `run.best()` has it; without a finite value there is none."""
    values = np.array([NAN, 2.0, 1.0, 1.0, -math.inf])
    assert averages.best_of(values, "min") == 2
    assert averages.best_of(values, "max") == 1
    assert averages.best_of(np.array([NAN]), "min") == -1


def test_smoothing_follows_a_lineage_into_its_donor() -> None:
    """A branch from report 1 has the mean of its own values and the donor's."""
    values = np.array([4.0, 2.0, 6.0, NAN, 0.0])
    before = np.array([-1, 0, 1, 1, 1])
    means, full = averages.smoothed(values, before, 3)
    assert means.tolist() == pytest.approx([4, 3, 4, NAN, 2], nan_ok=True)
    assert full.tolist() == [False, False, True, False, True]
    again, _ = averages.smoothed(values, before, 1)
    assert again.tolist() == pytest.approx(values.tolist(), nan_ok=True)


def test_a_window_longer_than_the_run_is_the_mean_of_all() -> None:
    """And takes no longer than there are values."""
    means, full = averages.smoothed(np.array([1.0, 2.0]), np.array([-1, 0]), 10**9)
    assert means.tolist() == pytest.approx([1.0, 1.5])
    assert not full.any()


def test_few_steps_stay_and_many_are_put_together() -> None:
    """The last step is always there, so that no report is lost."""
    assert averages.grid(np.array([5, 1, 5, 3]), 3).tolist() == [1, 3, 5]
    many = averages.grid(np.arange(1001), 11)
    assert many.tolist() == list(range(0, 1001, 100))


def test_a_member_counts_from_its_first_to_its_last_report() -> None:
    """With the newest value; NaN is none, and later records replace earlier ones."""
    members = np.array([7, 7, 9, 7, 9, 9])
    steps = np.array([1, 2, 1, 4, 2, 2])
    values = np.array([1.0, 2.0, 5.0, 4.0, NAN, 6.0])
    found = averages.by_member(members, steps, values, np.array([1, 2, 3, 4]))
    assert found[0].tolist() == [1, 2, 2, 4]
    assert found[1].tolist() == pytest.approx([5, 6, NAN, NAN], nan_ok=True)


def test_the_best_few_are_those_of_the_mode() -> None:
    """Of fewer numbers the mean is of those; of none there is none."""
    table = np.array([[1.0, NAN, NAN], [2.0, 8.0, NAN], [9.0, NAN, NAN]])
    low = averages.mean_of_best(table, 2, "min")
    high = averages.mean_of_best(table, 2, "max")
    assert low.tolist() == pytest.approx([1.5, 8, NAN], nan_ok=True)
    assert high.tolist() == pytest.approx([5.5, 8, NAN], nan_ok=True)


def test_a_band_is_one_standard_deviation() -> None:
    """Of the members that are known; a lone one has no width."""
    band = averages.spread(np.array([[1.0, 5.0], [3.0, NAN]]), "max")
    assert band.mean.tolist() == [2, 5]
    assert band.low.tolist() == [1, 5]
    assert band.high.tolist() == [3, 5]
    assert band.best.tolist() == [3, 5]
    assert band.known.tolist() == [2, 1]


def test_an_interval_is_that_of_student() -> None:
    """For 1, 2, 3, 4: 2.5 -+ 3.182 * 1.291 / 2, as in any table; one run has none."""
    band = averages.interval(np.array([[1.0, 7.0], [2.0, NAN], [3.0, NAN], [4.0, NAN]]))
    assert band.mean.tolist() == [2.5, 7]
    assert band.high[0] - 2.5 == pytest.approx(3.1824 * 1.29099 / 2, rel=1e-4)
    assert 2.5 - band.low[0] == pytest.approx(band.high[0] - 2.5)
    assert np.isnan([band.low[1], band.high[1]]).all()


def test_the_best_so_far_never_gets_worse() -> None:
    """Before the first value there is none; the order of the records is no matter."""
    steps, values = np.array([3.0, 1.0, 2.0, 4.0]), np.array([2.0, 5.0, NAN, 9.0])
    at = np.array([0.0, 1.0, 2.5, 3.0, 9.0])
    found = averages.best_so_far(steps, values, at, "min")
    assert found.tolist() == pytest.approx([NAN, 5, 5, 2, 2], nan_ok=True)
    found = averages.best_so_far(steps, values, at, "max")
    assert found.tolist() == pytest.approx([NAN, 5, 5, 5, 9], nan_ok=True)


def test_a_few_far_values_do_not_set_the_range() -> None:
    """One of a hundred values that exploded is outside; two ends of a line are not."""
    values = np.append(np.linspace(1, 2, 99), 1e9)
    assert averages.robust_range(values) == (1, 2)
    assert averages.robust_range(values, [5.0]) == (1, 5)
    assert averages.robust_range(np.array([0.0, 100.0])) == (0, 100)
