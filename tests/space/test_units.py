"""Numbers from 0 to 1: the places of values in the ranges of domains and spaces."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from population.space import (
    Categorical,
    Domain,
    Integer,
    LogUniform,
    OneMinusLogUniform,
    Ordinal,
    Uniform,
    domains,
    from_unit,
    sample,
    to_unit,
)

UNITS = st.floats(0, 1)


def ranges(low: float, high: float) -> st.SearchStrategy[tuple[float, float]]:
    """Two bounds that are not next to each other."""
    numbers = st.floats(low, high)
    pairs = st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair)))
    return pairs.filter(lambda p: p[1] - p[0] > 1e-6 * max(1, abs(p[0]), abs(p[1])))


FLOATS: st.SearchStrategy[Domain] = st.one_of(
    ranges(-1e6, 1e6).map(lambda pair: Uniform(*pair)),
    ranges(-6, 6).map(lambda p: LogUniform(10 ** p[0], 10 ** p[1])),
    ranges(0.1, 6).map(lambda p: OneMinusLogUniform(1 - 10 ** -p[0], 1 - 10 ** -p[1])),
)
INTS = st.tuples(st.integers(1, 2**39), st.integers(1, 2**39), st.booleans()).map(
    lambda t: Integer(min(t[:2]), max(t[:2]) + 1, logarithmic=t[2])
)
LISTS: st.SearchStrategy[Domain] = st.tuples(
    st.sampled_from([Ordinal, Categorical]),
    st.lists(st.integers() | st.text() | st.booleans(), min_size=1, max_size=9),
).map(lambda pair: pair[0]([f"{x!r}" for x in dict.fromkeys(map(repr, pair[1]))]))
EXACT = st.one_of(INTS, LISTS)


@given(FLOATS, UNITS)
def test_a_float_comes_back_but_for_rounding(domain: Domain, unit: float) -> None:
    """From a number to a value and back, and again to the value."""
    value = domain.from_unit(unit)
    assert domain.contains(value)
    again = domain.to_unit(value)
    assert 0 <= again <= 1
    assert again == pytest.approx(unit, abs=1e-4)
    assert domain.to_unit(domain.from_unit(again)) == pytest.approx(again, abs=1e-4)
    assert domain.from_unit(again) == pytest.approx(value, rel=1e-9, abs=1e-9)


@given(FLOATS)
def test_the_bounds_of_floats_are_exactly_0_and_1(domain: Any) -> None:
    """There is no rounding at the ends, in either direction."""
    assert [domain.to_unit(domain.low), domain.to_unit(domain.high)] == [0, 1]
    assert [domain.from_unit(0), domain.from_unit(1)] == [domain.low, domain.high]


@given(EXACT, UNITS)
def test_ints_and_listed_values_come_back_exactly(domain: Domain, unit: float) -> None:
    """`to_unit` is the middle of the value's share, so rounding cannot change it."""
    value = domain.from_unit(unit)
    assert domain.contains(value)
    middle = domain.to_unit(value)
    assert 0 <= middle <= 1
    again = domain.from_unit(middle)
    assert (again, type(again)) == (value, type(value))


@given(FLOATS | INTS, UNITS, UNITS)
def test_they_ascend_with_the_value(domain: Domain, one: float, two: float) -> None:
    """A greater number is no smaller value, and a greater value no smaller number."""
    low, high = sorted([one, two])
    values = domain.from_unit(low), domain.from_unit(high)
    assert values[0] <= values[1]
    assert domain.to_unit(values[0]) <= domain.to_unit(values[1])


@pytest.mark.parametrize(
    ("domain", "value", "unit"),
    [
        (Uniform(-2, 2), 1.0, 0.75),
        (Uniform(0, 10), 4, 0.4),
        (LogUniform(1e-4, 1e-2), 1e-3, 0.5),
        (OneMinusLogUniform(0.9, 0.999), 0.99, 0.5),
        (Integer(1, 4), 1, 1 / 8),
        (Integer(1, 4), 4, 7 / 8),
        (Ordinal(["s", "m", "l"]), "m", 0.5),
        (Categorical(["a", "b"], start=["b"]), "a", 0.25),
        (Uniform(0, 1, start=(0.4, 0.6)), 0.5, 0.5),
    ],
)
def test_the_scale_is_that_of_the_domain(
    domain: Domain, value: Any, unit: float
) -> None:
    """Linear, logarithmic or shares; `start` does not count."""
    assert domain.to_unit(value) == pytest.approx(unit, abs=1e-12)
    assert domain.from_unit(unit) == pytest.approx(value)


def test_a_share_of_a_logarithmic_integer_is_as_wide_as_on_the_scale() -> None:
    """From half below to half above."""
    domain = Integer(1, 8, logarithmic=True)
    width = math.log(8.5 / 0.5)
    assert domain.to_unit(1) == pytest.approx(math.log(2) / width)
    assert domain.from_unit(math.log(1.4 / 0.5) / width) == 1
    assert domain.from_unit(math.log(1.6 / 0.5) / width) == 2


@pytest.mark.parametrize(
    ("domain", "value"),
    [
        (Uniform(0, 1), 1.5),
        (Uniform(0, 1), "0.5"),
        (Uniform(0, 1), True),
        (LogUniform(1, 2), math.nan),
        (OneMinusLogUniform(0.5, 0.9), None),
        (Integer(1, 4), 2.0),
        (Integer(1, 4), 5),
        (Ordinal([1, 2]), 3),
        (Categorical(["a"]), "b"),
    ],
)
def test_a_value_outside_is_refused(domain: Domain, value: Any) -> None:
    """The error names the domain and the value, and where the nearest one is."""
    with pytest.raises(
        ValueError, match=r"to_unit needs a value in .*\(.* got .*times"
    ):
        domain.to_unit(value)


@pytest.mark.parametrize("domain", [Uniform(0, 1), Integer(1, 4), Ordinal([1, 2])])
@pytest.mark.parametrize("unit", [-0.1, 1.1, math.nan, None])
def test_a_number_outside_0_and_1_is_refused(domain: Domain, unit: Any) -> None:
    """The error names it."""
    with pytest.raises(ValueError, match="must be from 0 to 1, got"):
        domain.from_unit(unit)


@pytest.mark.parametrize("unit", ["0.5", True, [0.5]])
def test_a_place_is_a_number(unit: Any) -> None:
    """The error names what it is."""
    with pytest.raises(TypeError, match="fraction of a range must be a real number"):
        Uniform(0, 1).from_unit(unit)


@pytest.mark.parametrize("unit", [np.float32(0.5), np.array(0.5), np.array([0.5])])
def test_a_number_may_be_one_of_numpy(unit: Any) -> None:
    """As the row of a vector is."""
    found = Integer(0, 1).from_unit(unit)
    assert (found, type(found)) == (1, int)


# Whole spaces.

SPACE = {
    "optimizer": {"lr": LogUniform(1e-4, 1e-2), "name": "adam"},
    "layers": [Integer(1, 4), Ordinal([8, 16])],
}


@given(st.integers(0, 2**32))
def test_meta_params_come_back_from_their_vector(seed: int) -> None:
    """In the order of `domains`, with the constants of the space."""
    meta_params = sample(SPACE, np.random.default_rng(seed))
    vector = to_unit(SPACE, meta_params)
    assert vector.dtype == np.float64
    assert vector.shape == (len(domains(SPACE)),)
    assert list(domains(SPACE)) == ["optimizer/lr", "layers/0", "layers/1"]
    again = from_unit(SPACE, vector)
    rate = meta_params["optimizer"].pop("lr")
    assert again["optimizer"].pop("lr") == pytest.approx(rate)
    assert again == meta_params


def test_other_entries_are_kept_if_meta_params_are_given() -> None:
    """A vector holds only what the space names; the rest is of `like`."""
    like = {"optimizer": {"lr": 1.0, "name": "sgd"}, "layers": [1, 8], "extra": 3}
    found = from_unit(SPACE, [1, 1, 1], like)
    expected = {"optimizer": {"lr": 1e-2, "name": "sgd"}, "layers": [4, 16], "extra": 3}
    assert found == expected
    assert like["layers"] == [1, 8]


def test_the_error_names_the_entry() -> None:
    """Of a nested space it is the path."""
    wrong = {"optimizer": {"lr": 1.0, "name": "adam"}, "layers": [1, 8]}
    with pytest.raises(ValueError, match=r"optimizer/lr: to_unit needs a value in Log"):
        to_unit(SPACE, wrong)
    with pytest.raises(ValueError, match="must be a dict with 'layers'"):
        to_unit(SPACE, {"optimizer": {"lr": 1e-3, "name": "adam"}})


@pytest.mark.parametrize("count", [0, 2, 4])
def test_a_vector_has_a_number_for_each_domain(count: int) -> None:
    """The error names them."""
    with pytest.raises(
        ValueError, match=rf"needs 3 .* of optimizer/lr, .* got {count}"
    ):
        from_unit(SPACE, [0.5] * count)
