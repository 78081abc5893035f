"""A hyperparameter's scale follows from its domain, and without one from its values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from population.report.pictures import scales
from population.report.pictures.scales import Scale, scale_of
from population.report.pictures.ticks import LINEAR, LOG, NEAR_ONE, ticks
from population.space import (
    Categorical,
    Integer,
    LogUniform,
    OneMinusLogUniform,
    Ordinal,
    Uniform,
)
from population.space.domain import Domain


def column(*values: Any) -> Any:
    """An array of objects, or of floats if all are numbers."""
    if all(type(value) in (int, float) for value in values):
        return np.array(values, np.float64)
    found = np.empty(len(values), object)
    found[:] = values
    return found


@pytest.mark.parametrize(
    ("domain", "values", "kind"),
    [
        (Uniform(0, 1), [1e-4, 1.0], LINEAR),
        (LogUniform(1e-4, 1), [0.5, 0.6], LOG),
        (LogUniform(1e-4, 1), [0.5, 0.0], LINEAR),  # Zero has no place on it.
        (OneMinusLogUniform(0.5, 0.99), [0.6], NEAR_ONE),
        (OneMinusLogUniform(0.5, 0.99), [0.6, 1.0], LINEAR),
        (Integer(1, 512, logarithmic=True), [3, 5], LOG),
        (Ordinal([32, 64]), [32, 64], "categories"),
        (Ordinal([32, 64]), [32, 100], LINEAR),  # One is not listed.
        (Categorical(["a", None]), ["a", None], "categories"),
        (None, [1e-4, 1.0], LOG),
        (None, [0.1, 1.0], LINEAR),
        (None, ["adam", "sgd"], "categories"),
        (None, [], LINEAR),
        (None, [math.nan], LINEAR),
    ],
)
def test_the_scale_is_that_of_the_domain(
    domain: Domain | None, values: list[Any], kind: str
) -> None:
    """If all values are on it; else numbers are on a plain one."""
    assert scale_of(column(*values), domain).kind == kind


def test_categories_have_the_order_of_their_domain() -> None:
    """And the numbers of a column are those of its list, also booleans."""
    scale = scale_of(column(64.0, 16.0), Ordinal([16, 32, 64]))
    assert scale.categories == ("16", "32", "64")
    assert scale.numbers(column(64.0, 16.0, math.nan)).tolist()[:2] == [2, 0]
    flags = scale_of(column(True, False), Categorical([False, True]))
    assert flags.categories == ("False", "True")
    assert flags.numbers(column(True, False)).tolist() == [1, 0]


def test_different_categories_have_different_texts() -> None:
    """Three digits cannot tell these apart; a list is a category, too."""
    scale = scale_of(column("a", 0.10001, 0.10002, (1, 2)))
    assert scale.categories == ("'a'", "0.10001", "0.10002", "(1, 2)")
    assert scale.numbers(column((1, 2), "b")).tolist() == pytest.approx(
        [3, math.nan], nan_ok=True
    )


@pytest.mark.parametrize("kind", [LINEAR, LOG, NEAR_ONE])
def test_a_scale_goes_forward_and_back(kind: str) -> None:
    """Evenly spaced places are factors, or factors of the distance from one."""
    numbers = [0.9, 0.99, 0.999]
    places = scales.forward(numbers, kind)
    assert scales.backward(places, kind) == pytest.approx(numbers)
    if kind == NEAR_ONE:
        assert np.diff(places, 2) == pytest.approx([0], abs=1e-9)


@pytest.mark.parametrize("kind", [LINEAR, LOG, NEAR_ONE])
@pytest.mark.parametrize("values", [[0.5], [0.25, 0.5], [0.5, 0.5 + 1e-14], []])
def test_every_range_has_three_ticks(kind: str, values: list[float]) -> None:
    """Also that of a constant, of no value, and of values that are nearly equal."""
    low, high = scales.full_range(np.array(values), Scale(kind))
    assert all(low < value < high for value in values)
    assert len(ticks(low, high, kind)) >= 3


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-30, 1e30, 1e300])
def test_the_range_of_a_constant_holds_it(value: float) -> None:
    """Whatever its size is."""
    low, high = scales.value_range(np.array([value]), LINEAR)
    assert low <= value <= high
    assert low < high


def test_numbers_that_a_scale_cannot_show_do_not_count() -> None:
    """Zero on a logarithmic axis; if there is nothing else, the axis is linear."""
    values = np.array([0.0, 1.0, 100.0, math.nan])
    low, high = scales.value_range(values, LOG)
    assert 0 < low < 1
    assert 100 < high < 200
    assert scales.fitting(LOG, values) == LOG
    assert scales.fitting(LOG, values[:1]) == LINEAR
    with pytest.raises(ValueError, match="must be among"):
        scales.fitting("cubic", values)


@pytest.mark.parametrize("steps", [[], [0], [7], [0, 1], [0, 1, 2], [0, 10**9]])
def test_steps_have_three_whole_ticks(steps: list[int]) -> None:
    """Also in a run of one step."""
    low, high = scales.step_range(np.array(steps, np.int64))
    found = ticks(low, high, whole=True)
    assert len(found) >= 3
    assert all(tick == int(tick) for tick in found)
