"""Ticks: three or more on any axis, with texts that can be told apart."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies as st

from population.report.pictures.ticks import LINEAR, LOG, NEAR_ONE, texts, ticks

WIDTHS = st.floats(1e-3, 1e9)


@hypothesis.given(st.floats(-1e9, 1e9), WIDTHS, st.sampled_from([3, 4, 7]))
def test_a_linear_axis_has_three_ticks(low: float, width: float, most: int) -> None:
    """Ascending ones within its range, and not many more than fit."""
    found = ticks(low, low + width, LINEAR, most=most)
    assert 3 <= len(found) <= most + 4
    assert found == sorted(set(found))
    assert low - 1e-6 * width <= found[0]
    assert found[-1] <= low + width * (1 + 1e-6)


@hypothesis.given(st.floats(-30, 30), st.floats(1e-3, 40))
def test_a_logarithmic_axis_has_three_ticks(power: float, decades: float) -> None:
    """Also if it shows far less than a decade, or very many."""
    low, high = 10.0**power, 10.0 ** (power + decades)
    found = ticks(low, high, LOG)
    assert 3 <= len(found) <= 11
    assert all(low * (1 - 1e-6) <= tick <= high * (1 + 1e-6) for tick in found)
    assert len(set(texts(found))) == len(found)


@hypothesis.given(st.floats(-1, 8), st.floats(1e-2, 8))
def test_an_axis_near_one_has_three_ticks(power: float, decades: float) -> None:
    """Also if it shows less than a decade of the distance from one."""
    low, high = 1 - 10.0**-power, 1 - 10.0 ** -(power + decades)
    found = ticks(low, high, NEAR_ONE)
    assert 3 <= len(found) <= 11
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)
    assert len(set(texts(found))) == len(found)


@pytest.mark.parametrize(
    ("low", "high", "kind", "expected"),
    [
        (0, 10, LINEAR, ["0", "2", "4", "6", "8", "10"]),
        (0.43121, 0.43129, LINEAR, ["0.43122", "0.43124", "0.43126", "0.43128"]),
        (0.02, 5, LOG, ["0.03", "0.1", "0.3", "1", "3"]),
        (9e-6, 1.1, LOG, ["1e-5", "1e-4", "0.001", "0.01", "0.1", "1"]),
        (0.4, 0.9995, NEAR_ONE, ["0.9", "0.99", "0.999"]),
        (0.85, 0.955, NEAR_ONE, ["0.85", "0.9", "0.93", "0.95"]),
        (0, 2.5e6, LINEAR, ["0", "5e5", "1e6", "1.5e6", "2e6", "2.5e6"]),
    ],
)
def test_ticks_are_round_numbers(
    low: float, high: float, kind: str, expected: list[str]
) -> None:
    """Powers of ten first, then a few multiples; texts are as short as they can be."""
    found = ticks(low, high, kind)
    assert texts(found) == expected


def test_steps_are_whole() -> None:
    """Unless there are fewer than three whole numbers."""
    assert ticks(0.9, 3.1, whole=True) == [1, 2, 3]
    assert len(ticks(0.9, 3.1)) > 3
    assert len(ticks(0.0, 1.0, whole=True)) > 3


def test_an_impossible_range_is_no_error() -> None:
    """A scale without its numbers is linear; a point has one tick."""
    assert len(ticks(-1, 1, LOG)) >= 3
    assert len(ticks(0.5, 1.5, NEAR_ONE)) >= 3
    assert ticks(2.0, 2.0) == [2.0]
    assert len(ticks(-1.7e308, 1.7e308)) == 3
    assert texts([]) == []
