"""Tests of the search spaces, and the spaces and moves that hypothesis draws for them.

The domains include extreme cases: the smallest and the largest floats,
ranges of one rounding step, ints up to 2**53, first samples of a single point.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import hypothesis.strategies as st
from hypothesis import assume

from population.base import codec
from population.space import (
    Categorical,
    Gaussian,
    Integer,
    LogUniform,
    OneMinusLogUniform,
    Ordinal,
    Perturb,
    Uniform,
)
from population.space.domain import Domain
from population.space.trees import map_leaves

LEAST, GREATEST = math.ulp(0.0), sys.float_info.max
MOST_EXACT = 2**53
ENDS: dict[type[Any], list[float]] = {
    Uniform: [-8e307, -1e300, -1.0, -LEAST, 0.0, LEAST, 1e-300, 1.0, 1e16, 8e307],
    LogUniform: [LEAST, 1e-300, 1e-5, 0.1, 1.0, 1e10, 1e300, GREATEST],
    OneMinusLogUniform: [-GREATEST, -1e300, 0.0, 1e-300, 0.5, 0.9, 1 - 2**-53],
}


@st.composite
def floats(draw: st.DrawFn) -> Any:
    """A domain of floats: any bounds, any first sample."""
    kind = draw(st.sampled_from(list(ENDS)))
    ends = ENDS[kind]
    bound = st.sampled_from(ends) | st.floats(ends[0], ends[-1])
    low = draw(bound)
    one_step = draw(st.integers(0, 4)) == 0
    high = math.nextafter(low, math.inf) if one_step else draw(bound)
    low, high = sorted((low, high))
    assume(low < high <= ends[-1])
    return kind(low, high, draw(starts(st.floats(low, high))))


@st.composite
def integers(draw: st.DrawFn) -> Integer:
    """A domain of ints, linear or logarithmic."""
    logarithmic = draw(st.booleans())
    least = 1 if logarithmic else -MOST_EXACT
    near = st.integers(least, 20) if logarithmic else st.integers(-20, 20)
    bound = near | st.sampled_from([least, 1, 2**52, MOST_EXACT - 1, MOST_EXACT])
    low = draw(bound)
    high = low + 1 if draw(st.booleans()) else draw(bound)
    low, high = sorted((low, high))
    assume(low < high <= MOST_EXACT)
    return Integer(low, high, draw(starts(st.integers(low, high))), logarithmic)


def starts(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """None, a part of the range, or a single point of it."""
    point = values.map(lambda value: (value, value))
    part = st.tuples(values, values).map(lambda pair: tuple(sorted(pair)))
    return st.none() | point | part


def constants() -> st.SearchStrategy[Any]:
    """Plain data that a space may hold beside its domains."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-9, 9)
        | st.floats()
        | st.text(max_size=3)
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.lists(inner, max_size=2).map(tuple)
            | st.dictionaries(st.text(max_size=3), inner, max_size=2)
        ),
        max_leaves=3,
    )


@st.composite
def choices(draw: st.DrawFn) -> Any:
    """A domain of some values of any kind."""
    kind = draw(st.sampled_from([Ordinal, Categorical]))
    values = draw(st.lists(constants(), min_size=1, max_size=5, unique_by=codec.digest))
    first = draw(st.none() | st.integers(1, len(values)))
    return kind(values, None if first is None else values[-first:])


def domains() -> st.SearchStrategy[Any]:
    """Any domain."""
    return floats() | integers() | choices()


def spaces() -> st.SearchStrategy[Any]:
    """Any space: a tree with at least one domain."""
    keys = st.text(max_size=3) | st.integers(0, 3)
    tree = st.recursive(
        domains() | constants(),
        lambda inner: (
            st.dictionaries(keys, inner, max_size=3)
            | st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
        ),
        max_leaves=4,
    )
    with_one = st.fixed_dictionaries({"rate": domains(), "further": tree})
    return domains() | with_one | st.tuples(domains(), tree)


@st.composite
def explorers(draw: st.DrawFn, space: Any) -> Any:
    """Any way to explore a space."""
    resample = draw(st.sampled_from([0, 0.0, 0.3, 1.0]))
    if draw(st.booleans()):
        return Gaussian(space, draw(st.floats(LEAST, 1e308)), resample)
    factor = st.sampled_from([LEAST, 0.8, 1.0, 1, 1.25, 1 + 1e-15, GREATEST])
    factors = draw(st.just((0.8, 1.25)) | st.lists(factor, min_size=1, max_size=3))
    return Perturb(space, factors, resample)


def types_are_kept(space: Any, meta_params: Any) -> bool:
    """Whether each number has Python's own type, the one of its domain."""
    found: list[bool] = []

    def check(place: str, leaf: Any, value: Any) -> None:
        del place
        if isinstance(leaf, Integer):
            found.append(type(value) is int)
        elif isinstance(leaf, Domain) and not isinstance(leaf, (Ordinal, Categorical)):
            found.append(type(value) is float)

    map_leaves(space, meta_params, check)
    return all(found)
