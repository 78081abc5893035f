"""Domains of numbers: how they move, what they draw, and which bounds they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings

from population.space import Integer, LogUniform, OneMinusLogUniform, Uniform
from tests.space import GREATEST, LEAST, MOST_EXACT, floats, integers

NUMBERS = floats() | integers()
FACTORS = st.sampled_from([LEAST, 0.5, 0.8, 1 - 1e-16, 1 + 1e-15, 1.25, 3, GREATEST])


def generator(seed: int = 0) -> np.random.Generator:
    """Random numbers that are always the same."""
    return np.random.default_rng(seed)


def times(domain: Any, value: Any, factor: float) -> Any:
    """A move by a factor."""
    return domain.times(value, factor, generator())


def shifted(domain: Any, value: Any, fraction: float) -> Any:
    """A move by a fraction of the range."""
    return domain.shifted(value, fraction, generator())


def drawn(data: Any, domain: Any) -> Any:
    """A value of the whole range."""
    return domain.sample(generator(data.draw(st.integers(0, 99))), first=False)


def up(factor: float) -> int:
    """1 for a factor that increases, -1 for one that decreases."""
    return (factor > 1) - (factor < 1)


# Moves.


@settings(max_examples=60)
@given(st.data())
def test_a_factor_goes_its_way_and_never_sticks(data: Any) -> None:
    """Above 1 a value increases, below 1 it decreases, until it is at the bound."""
    domain = data.draw(NUMBERS)
    value = drawn(data, domain)
    for factor in data.draw(st.lists(FACTORS, min_size=1, max_size=5)):
        moved = times(domain, value, factor)
        assert domain.contains(moved)
        assert type(moved) is type(value)
        bound = domain.high if up(factor) > 0 else domain.low
        assert (moved - value) * up(factor) > 0 or moved == value == bound
        value = moved


@settings(max_examples=60)
@given(st.data())
def test_noise_goes_its_way_and_never_sticks(data: Any) -> None:
    """A shift by a fraction of the range does so too, however small or large."""
    domain = data.draw(NUMBERS)
    value = drawn(data, domain)
    fraction = data.draw(st.sampled_from([LEAST, 1e-17, 0.1, 5.0, GREATEST, math.inf]))
    for sign in (1, -1):
        moved = shifted(domain, value, sign * fraction)
        assert domain.contains(moved)
        assert (moved - value) * sign > 0 or moved == value == (
            domain.high if sign > 0 else domain.low
        )


@settings(max_examples=60)
@given(st.data())
def test_a_factor_of_one_holds_exactly(data: Any) -> None:
    """The value is equal bit for bit, with its type; so it is after a shift by zero."""
    domain = data.draw(NUMBERS)
    values = [drawn(data, domain), domain.low, domain.high]
    for value in values:
        for one in (1, 1.0):
            assert repr(times(domain, value, one)) == repr(value)
        assert repr(shifted(domain, value, 0.0)) == repr(value)


@settings(max_examples=60)
@given(st.data())
def test_from_the_bounds_it_goes_inward(data: Any) -> None:
    """No bound holds a value; a move outward stays exactly there."""
    domain = data.draw(NUMBERS)
    low, high = domain.low, domain.high
    assert times(domain, low, 1.25) > low
    assert times(domain, high, 0.8) < high
    assert times(domain, low, 0.8) == low
    assert times(domain, high, 1.25) == high


@settings(max_examples=60)
@given(st.data())
def test_a_value_from_outside_is_clipped_and_then_moved(data: Any) -> None:
    """A known configuration outside of the range enters at the nearest bound."""
    domain = data.draw(NUMBERS)
    for outside, bound in (
        (math.inf, domain.high),
        (10**400, domain.high),
        (-math.inf, domain.low),
        (-(10**400), domain.low),
    ):
        assert domain.moves(outside)
        assert not domain.contains(outside)
        assert times(domain, outside, 1.0) == bound
        for factor in (0.8, 1.25):
            assert times(domain, outside, factor) == times(domain, bound, factor)


@pytest.mark.parametrize(
    "domain",
    [Uniform(0, 1), Uniform(-1, 1), Integer(0, 10), Integer(0, 1), Integer(-3, 3)],
    ids=repr,
)
def test_zero_is_left(domain: Any) -> None:
    """Zero times anything is zero; here it is a value like any other."""
    value: Any = 0.0 if isinstance(domain, Uniform) else 0
    assert times(domain, value, 1.25) > 0
    for _ in range(30):
        value = times(domain, value, 1.25)
    assert value == domain.high


@pytest.mark.parametrize("logarithmic", [False, True])
def test_an_int_moves_by_at_least_one(logarithmic: bool) -> None:
    """Otherwise rounding would hold small numbers for ever."""
    domain = Integer(1, 9, logarithmic=logarithmic)
    for value in range(1, 10):
        assert times(domain, value, 1.01) == min(value + 1, 9)
        assert times(domain, value, 0.99) == max(value - 1, 1)
        assert shifted(domain, value, 1e-9) == min(value + 1, 9)
        assert shifted(domain, value, -1e-9) == max(value - 1, 1)


def test_large_ints_are_exact() -> None:
    """Above 2**52 floats have no halves: rounding must not change the number."""
    domain = Integer(-MOST_EXACT, MOST_EXACT)
    for value in (2**52 + 1, MOST_EXACT - 1, -(2**52) - 1, 1 - MOST_EXACT):
        assert times(domain, value, 1.0) == value
        assert domain.contains(times(domain, value, 1.25))


@pytest.mark.parametrize(
    ("domain", "value", "moved"),
    [
        (LogUniform(1e-5, 1), 1e-3, 1.25e-3),
        (OneMinusLogUniform(0, 0.9999), 0.9, 1 - 0.1 / 1.25),
        (OneMinusLogUniform(0, 0.9999), 0.999, 1 - 0.001 / 1.25),
        (Uniform(0, 2), 1.0, 1 + math.log(1.25)),
        (Uniform(10, 12), 11.0, 11 + math.log(1.25)),
        (Integer(1, 1000, logarithmic=True), 100, 125),
        (Integer(0, 200), 100, 122),
    ],
    ids=repr,
)
def test_a_move_is_made_on_the_own_scale(domain: Any, value: Any, moved: Any) -> None:
    """A factor, a factor of the distance from one, or a share of the range."""
    assert times(domain, value, 1.25) == pytest.approx(moved, rel=1e-12)
    assert times(domain, times(domain, value, 1.25), 0.8) == pytest.approx(value)


@pytest.mark.parametrize(
    "domain", [Uniform(-2, 5), LogUniform(1e-6, 1), OneMinusLogUniform(-3, 0.999)]
)
def test_down_undoes_up(domain: Any) -> None:
    """Away from the bounds the two default factors cancel each other."""
    value = domain.points(5)[2]
    for factors in ((0.8, 1.25), (1.25, 0.8)):
        there = times(domain, value, factors[0])
        assert times(domain, there, factors[1]) == pytest.approx(value, rel=1e-12)


# Draws.


def shares(domain: Any, edges: list[float], count: int = 5000) -> npt.NDArray[Any]:
    """How often a sample falls between the edges."""
    rng = generator(7)
    found = [domain.sample(rng) for _ in range(count)]
    assert all(domain.contains(value) for value in found)
    counts: npt.NDArray[Any] = np.histogram(found, edges)[0]
    return counts


def assert_as_expected(found: npt.NDArray[Any], expected: Any) -> None:
    """A loose chi-square test: one seed in several thousand would fail it."""
    wanted = np.asarray(expected) / np.sum(expected) * found.sum()
    freedom = len(found) - 1
    assert np.sum((found - wanted) ** 2 / wanted) < freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(
    "domain",
    [
        Uniform(-3, 2),
        LogUniform(1e-6, 1e-1),
        OneMinusLogUniform(-3, 0.99999),
        Uniform(-9, 9, start=(-3, 2)),
        LogUniform(1e-9, 1, start=(1e-6, 1e-1)),
    ],
    ids=repr,
)
def test_floats_are_drawn_evenly_on_their_scale(domain: Any) -> None:
    """Each tenth of the first sample's scale gets a tenth of the draws."""
    found = shares(domain, domain.points(11))
    assert found.sum() == 5000
    assert_as_expected(found, [1] * 10)


def test_ints_are_drawn_evenly() -> None:
    """All of a range are equally likely, both bounds included."""
    edges = [value - 0.5 for value in range(-3, 9)]
    assert_as_expected(shares(Integer(-3, 7), edges), [1] * 11)
    first = shares(Integer(-100, 100, start=(-3, 7)), edges)
    assert first.sum() == 5000
    assert_as_expected(first, [1] * 11)


def test_logarithmic_ints_are_drawn_by_their_share_of_the_scale() -> None:
    """1 is as likely as all numbers together that have the same width on the scale."""
    edges = [value - 0.5 for value in range(1, 18)]
    expected = np.diff(np.log(edges))
    assert_as_expected(shares(Integer(1, 16, logarithmic=True), edges), expected)


@settings(max_examples=60)
@given(NUMBERS)
def test_the_first_sample_is_drawn_from_its_own_range(domain: Any) -> None:
    """`start=` narrows the first draws and the grid, and nothing else."""
    low, high = domain.start or (domain.low, domain.high)
    rng = generator()
    values = [domain.sample(rng) for _ in range(20)] + domain.points(4)
    assert all(low <= value <= high for value in values)
    assert all(domain.contains(domain.sample(rng, first=False)) for _ in range(20))


def test_a_later_draw_is_of_the_whole_range() -> None:
    """With `first=False` the narrow range does not count."""
    rng = generator()
    for domain in (
        Uniform(0, 1, (0, 0)),
        Integer(0, 9, (3, 3)),
        LogUniform(1, 2, (1, 1)),
    ):
        later = {domain.sample(rng, first=False) for _ in range(200)}
        assert len(later) >= 10
        assert len({domain.sample(rng) for _ in range(20)}) == 1


@settings(max_examples=100)
@given(NUMBERS, st.floats(0, 1), st.booleans())
def test_a_fraction_is_a_value_and_larger_ones_are_larger(
    domain: Any, fraction: float, first: bool
) -> None:
    """0 is the lower bound, 1 the upper one, and all between are in order."""
    low, high = (domain.start if first else None) or (domain.low, domain.high)
    ends = [domain.from_unit(end, first=first) for end in (0.0, 1.0)]
    found = domain.from_unit(fraction, first=first)
    assert ends == [low, high]
    assert low <= found <= high
    assert domain.contains(found)


def test_uniform_fractions_are_samples() -> None:
    """Each value of an integer has its share of the fractions."""
    fractions = (np.arange(9000) + 0.5) / 9000
    for logarithmic in (False, True):
        domain = Integer(1, 9, logarithmic=logarithmic)
        counts = np.bincount([domain.from_unit(f) for f in fractions.tolist()])[1:]
        edges = np.arange(0.5, 10)
        widths = np.diff(np.log(edges) if logarithmic else edges)
        assert counts == pytest.approx(9000 * widths / widths.sum(), abs=2)


# Points of a grid.


@settings(max_examples=60)
@given(NUMBERS, st.integers(1, 9))
def test_points_ascend_and_hold_both_ends(domain: Any, count: int) -> None:
    """All differ, none is outside, and there are no more than requested."""
    low, high = domain.start or (domain.low, domain.high)
    points = domain.points(count)
    assert points == sorted(set(points))
    assert 1 <= len(points) <= count
    assert all(domain.contains(point) for point in points)
    assert low <= points[0] <= points[-1] <= high
    if count > 1:
        assert (points[0], points[-1]) == (low, high)
    if isinstance(domain, Integer):
        assert len(points) == min(count, high - low + 1)


@pytest.mark.parametrize(
    ("domain", "count", "points"),
    [
        (Uniform(0, 1), 1, [0.5]),
        (Uniform(0, 1), 2, [0.0, 1.0]),
        (Uniform(0, 1), 5, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (Uniform(-9, 9, (0, 1)), 3, [0.0, 0.5, 1.0]),
        (Uniform(1e308, 1.5e308), 1, [1.25e308]),
        (LogUniform(1e-4, 1), 5, [1e-4, 1e-3, 1e-2, 1e-1, 1.0]),
        (LogUniform(1e-4, 1), 1, [1e-2]),
        (LogUniform(1e-5, 1, (1e-3, 1e-3)), 9, [1e-3]),
        (OneMinusLogUniform(0.9, 0.999), 3, [0.9, 0.99, 0.999]),
        (Integer(1, 9), 3, [1, 5, 9]),
        (Integer(1, 3), 9, [1, 2, 3]),
        (Integer(1, 1000, logarithmic=True), 4, [1, 10, 100, 1000]),
        (Integer(1, 8, logarithmic=True), 8, [1, 2, 3, 4, 5, 6, 7, 8]),
    ],
    ids=repr,
)
def test_points_are_evenly_spaced(domain: Any, count: int, points: list[Any]) -> None:
    """They are even on the domain's scale; a single one is the middle."""
    found = domain.points(count)
    assert found == pytest.approx(points, rel=1e-12)
    assert [type(value) for value in found] == [type(value) for value in points]


# Membership, and errors.


def test_a_domain_contains_its_own_type() -> None:
    """An int is a valid float; a float is not an int, and a bool is not a number."""
    assert Uniform(0, 1).contains(1)
    assert LogUniform(1, 2).contains(1.5)
    assert Integer(0, 1).contains(1)
    assert not Integer(0, 1).contains(1.0)
    for domain in (Uniform(0, 1), Integer(0, 1)):
        for value in (True, "1", None, math.nan, 2, -1, [1]):
            assert not domain.contains(value)


def test_bounds_are_kept_as_the_type_of_the_domain() -> None:
    """`Uniform(0, 1)` is `Uniform(0.0, 1.0)`, also in the journal."""
    assert repr(Uniform(0, 1, [0, 1])) == repr(Uniform(0.0, 1.0, (0.0, 1.0)))  # type: ignore[arg-type]
    beyond = Uniform(0, 2**53 + 3)
    assert beyond.contains(times(beyond, beyond.high, 2))


def test_which_axes_are_logarithmic() -> None:
    """Plots use this."""
    assert LogUniform(1, 2).log
    assert Integer(1, 2, logarithmic=True).log
    assert not Uniform(1, 2).log
    assert not Integer(1, 2).log
    assert not OneMinusLogUniform(0.5, 0.9).log


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: LogUniform(0, 1),
            "LogUniform's bounds must be above 0, got 0. .*Unif",
        ),
        (lambda: LogUniform(-1, 1), "above 0, got -1"),
        (lambda: LogUniform(1, 2, (0, 2)), "above 0, got 0"),
        (lambda: OneMinusLogUniform(0, 1), "must be below 1, got 1"),
        (lambda: OneMinusLogUniform(0, 0.9, (0, 1.5)), "below 1, got 1.5"),
        (lambda: Integer(1.0, 3), "Integer's bounds must be ints .*got 1.0"),  # type: ignore[arg-type]
        (lambda: Integer(False, 3), "must be ints .*got False"),
        (lambda: Integer(0, 2**53 + 1), r"at most 2\*\*53, got 9007199254740993"),
        (lambda: Integer(0, 9, logarithmic=True), "1 or more on a log.* got 0"),
        (lambda: Integer(0, 9, (1.0, 2)), "must be ints .*got 1.0"),  # type: ignore[arg-type]
        (lambda: Uniform(2, 1), "Uniform needs low < high, got 2.0 and 1.0"),
        (lambda: Uniform(1, 1), "low < high.*For a constant, write the value itself"),
        (lambda: Uniform(2**53, 2**53 + 1), "low < high"),
        (lambda: Integer(3, 3), "Integer needs low < high, got 3 and 3"),
        (lambda: Uniform(0, math.nan), "Uniform's bounds must be finite .*got nan"),
        (lambda: Uniform(-math.inf, 0), "finite numbers, got -inf"),
        (lambda: Uniform(0, 10**400), "finite numbers, got 1000"),
        (lambda: LogUniform(1, 10**400), "finite numbers, got 1000"),
        (lambda: Uniform("0", 1), "finite numbers, got '0'"),  # type: ignore[arg-type]
        (lambda: Uniform(None, 1), "finite numbers, got None"),  # type: ignore[arg-type]
        (lambda: Uniform(False, True), "finite numbers, got False"),
        (lambda: Uniform(-GREATEST, GREATEST), "Uniform is too wide"),
        (lambda: Uniform(0, 1, (0.5, 2)), r"within \[0.0, 1.0\], got \(0.5, 2.0\)"),
        (lambda: Uniform(0, 1, (0.7, 0.3)), "Uniform's start must be a range within"),
        (lambda: Uniform(0, 1, 0.5), r"start must be \(low, high\), got 0.5"),  # type: ignore[arg-type]
        (lambda: Uniform(0, 1, (0, 1, 2)), r"must be \(low, high\)"),  # type: ignore[arg-type]
        (lambda: Uniform(0, 1, "01"), r"Uniform's start must be \(low, high\)"),  # type: ignore[arg-type]
        (lambda: Integer(0, 5, (-1, 3)), r"Integer's start .*\[0, 5\], got \(-1, 3\)"),
    ],
)
def test_bounds_that_are_none_are_refused(
    make: Callable[[], object], said: str
) -> None:
    """Each message says what is needed and what was given."""
    with pytest.raises(ValueError, match=said):
        make()
