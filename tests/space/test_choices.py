"""Domains of given values: which are equal, how they move, which are refused."""

from __future__ import annotations

import copy
import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from population.space import Categorical, Ordinal
from tests.space import choices

KINDS = pytest.mark.parametrize("kind", [Ordinal, Categorical])


def generator() -> np.random.Generator:
    """Random numbers that are always the same."""
    return np.random.default_rng(0)


@KINDS
def test_1_and_1_0_and_true_are_different(kind: Any) -> None:
    """A program may treat them differently, and each comes back unchanged."""
    domain = kind([1, 1.0, True, "1"])
    assert [domain._index(value) for value in (1, 1.0, True, "1")] == [0, 1, 2, 3]
    assert not kind([1]).contains(1.0)
    assert not kind([1]).contains(True)
    assert not kind([True]).contains(1)


@KINDS
def test_values_need_not_be_hashable(kind: Any) -> None:
    """Lists and dicts are plain data like others; other objects are not contained."""
    domain = kind([[64, 64], [128], {"a": 1}, None])
    assert domain.contains([64, 64])
    assert domain.contains({"a": 1})
    assert domain.contains(None)
    assert not domain.contains((64, 64))
    assert not domain.contains(max)
    assert not domain.contains([64])


@KINDS
def test_what_is_handed_out_is_the_callers_own(kind: Any) -> None:
    """A caller that changes a drawn list does not change the domain."""
    values = [[1], [2]]
    domain = kind(values)
    rng = generator()
    handed = [domain.sample(rng), *domain.points(2), values[0]]
    handed += [domain.times([1], factor, rng) for factor in (0.8, 1.25)]
    handed += [domain.shifted([1], fraction, rng) for fraction in (-0.5, 0.5)]
    for value in handed:
        value.append("changed")
    assert domain.values == ([1], [2])


@settings(max_examples=50)
@given(choices(), st.sampled_from([0.8, 1.0, 1.25]), st.floats(-1e308, 1e308))
def test_moves_stay_among_the_values(domain: Any, factor: float, far: float) -> None:
    """This holds from each of the values, and from an unknown value."""
    rng = generator()
    for value in (*domain.values, object(), "none of them"):
        for moved in (
            domain.times(value, factor, rng),
            domain.shifted(value, far, rng),
            domain.shifted(value, math.inf, rng),
        ):
            assert domain.contains(moved)


@settings(max_examples=50)
@given(choices())
def test_a_factor_of_one_holds_a_value(domain: Any) -> None:
    """It is the middle one of decrease, hold, increase."""
    rng = generator()
    for value in domain.values:
        for held in (domain.times(value, 1.0, rng), domain.shifted(value, 0.0, rng)):
            assert repr(held) == repr(value)


@KINDS
def test_an_unknown_value_is_drawn_anew(kind: Any) -> None:
    """It is drawn from all values, also by a factor of one."""
    domain = kind([1, 2, 4, 8], start=[1])
    rng = generator()
    for factor in (0.8, 1.0, 1.25):
        found = {domain.times(3, factor, rng) for _ in range(100)}
        assert found == {1, 2, 4, 8}
    assert {domain.shifted(3, 0.0, rng) for _ in range(100)} == {1, 2, 4, 8}


def test_an_ordinal_goes_to_its_neighbour_and_stops_at_the_ends() -> None:
    """One position per move, in the direction of the factor, whatever its size."""
    domain = Ordinal([16, 2, 64])
    rng = generator()
    assert [domain.times(value, 1.25, rng) for value in domain.values] == [2, 64, 64]
    assert [domain.times(value, 0.01, rng) for value in domain.values] == [16, 16, 2]


def test_an_ordinal_is_shifted_by_at_least_a_place() -> None:
    """It moves by a fraction of the positions, rounded, but never by none."""
    domain = Ordinal(list(range(11)))
    rng = generator()
    for fraction, places in ((1e-9, 1), (0.2, 2), (0.26, 3), (5.0, 10)):
        for value in domain.values:
            assert domain.shifted(value, fraction, rng) == min(value + places, 10)
            assert domain.shifted(value, -fraction, rng) == max(value - places, 0)


def test_a_single_value_is_a_domain_of_its_own() -> None:
    """It cannot move, and that is not an error."""
    for domain in (Ordinal(["only"]), Categorical(["only"])):
        rng = generator()
        assert domain.sample(rng) == "only"
        assert domain.times("only", 1.25, rng) == "only"
        assert domain.shifted("only", math.inf, rng) == "only"
        assert domain.points(5) == ["only"]


def test_a_categorical_is_drawn_from_all_its_values() -> None:
    """Each is equally likely, the present one too."""
    domain = Categorical(list("abcd"))
    rng = generator()
    found = [domain.times("a", 1.25, rng) for _ in range(4000)]
    assert all(900 < found.count(value) < 1100 for value in "abcd")


@KINDS
def test_the_first_sample_may_be_of_some_values_only(kind: Any) -> None:
    """`start=` limits the first draws and the grid; later draws are from all values."""
    domain = kind(["a", "b", "c", "d"], start=["b", "c"])
    rng = generator()
    assert {domain.sample(rng) for _ in range(100)} == {"b", "c"}
    assert {domain.sample(rng, first=False) for _ in range(100)} == set("abcd")
    assert domain.points(9) == ["b", "c"]
    assert domain.contains("a")


@pytest.mark.parametrize(
    ("count", "points"),
    [(1, [3]), (2, [1, 5]), (3, [1, 3, 5]), (5, [1, 2, 3, 4, 5]), (9, [1, 2, 3, 4, 5])],
)
@KINDS
def test_points_are_evenly_spread(kind: Any, count: int, points: list[int]) -> None:
    """Both ends come first; one point is the middle; there are no more than values."""
    assert kind([1, 2, 3, 4, 5]).points(count) == points


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([],), "needs a list of values, got \\[\\]"),
        (("abc",), "needs a list of values, got 'abc'"),
        ((None,), "needs a list of values, got None"),
        ((3,), "needs a list of values, got 3"),
        (([1, 2, 1],), "values must differ, got \\[1, 2, 1\\]"),
        (([math.nan, math.nan],), "values must differ"),
        (([1, 2], []), "needs a list of start, got \\[\\]"),
        (([1, 2], 1), "needs a list of start, got 1"),
        (([1, 2], [1, 3]), "start must be among its values: \\[3\\]"),
        (([1, 2], [1.0]), "start must be among its values: \\[1.0\\]"),
        (([1, 2], [1, 1]), "start must differ"),
    ],
)
@KINDS
def test_values_that_are_none_are_refused(kind: Any, arguments: Any, said: str) -> None:
    """Each message names the domain, what is needed and what was given."""
    with pytest.raises(ValueError, match=f"^{kind.__name__}.*{said}"):
        kind(*copy.deepcopy(arguments))


@KINDS
def test_values_that_cannot_be_stored_are_refused(kind: Any) -> None:
    """A function cannot be in a journal; its name can."""
    with pytest.raises(TypeError, match=rf"{kind.__name__}'s values\[1\] cannot be"):
        kind(["relu", max])


@pytest.mark.parametrize("kind", [Ordinal, Categorical])
def test_each_value_has_its_share_of_the_fractions(kind: Any) -> None:
    """Equally wide ones, in the order of the list; 1.0 is the last."""
    domain = kind([1, "b", None], ["b", 1])
    found = [domain.from_unit(place / 6) for place in range(7)]
    assert found == [1, 1, "b", "b", None, None, None]
    assert [domain.from_unit(f, first=True) for f in (0, 0.49, 0.5, 1)] == [
        "b",
        "b",
        1,
        1,
    ]
