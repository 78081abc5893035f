"""Numbers from 0 to 1: the places of values in the ranges of domains and spaces."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
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
    ("domain", "value", "said"),
    [
        (Uniform(0, 1), 1.5, "got float 1.5. For the nearest one: min(max(value, 0.0)"),
        (Uniform(0, 1), 10**400, "got int 1000"),
        (Uniform(0, 1), "0.5", "got str '0.5'. It must be a float or an int."),
        (Uniform(0, 1), True, "got bool True. It must be a float or an int."),
        (Uniform(0, 1), Uniform, "got ABCMeta"),
        (LogUniform(1, 2), math.nan, "got float nan. NaN has no place in a range."),
        (LogUniform(1, 2), np.float32(4), "got float 4.0. For the nearest one"),
        (LogUniform(1, 2), np.array([1.5]), "got ndarray array([1.5]). It must be"),
        (LogUniform(1, 2), np.ma.masked, "It must be a float or an int."),
        (LogUniform(1, 2), np.datetime64(1, "s"), "got datetime64"),
        (OneMinusLogUniform(0.5, 0.9), None, "got NoneType None. It must be"),
        (Integer(1, 4), 2.0, "got float 2.0. It must be an int."),
        (Integer(1, 4), np.float32(2), "got float 2.0. It must be an int."),
        (Integer(1, 4), 5, "got int 5. For the nearest one: min(max(value, 1), 4)."),
        (Ordinal([1, 2]), 3, "got int 3. It must be one of those listed"),
        (Ordinal([1, 2]), np.float64(1), "got float 1.0. It must be one of"),
        (Categorical(["a"]), "b", "got str 'b'. It must be one of those listed"),
    ],
)
def test_a_value_outside_is_refused(domain: Domain, value: Any, said: str) -> None:
    """The error names the domain, the value and its type, and says what to do."""
    with pytest.raises(ValueError, match=r"to_unit needs a value in .*\(") as raised:
        domain.to_unit(value)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("domain", "value"),
    [
        (LogUniform(1e-3, 1.0), np.float32(0.25)),
        (LogUniform(1e-3, 1.0), np.array(0.25)),
        (LogUniform(1e-3, 1.0), jnp.float32(0.25)),
        (OneMinusLogUniform(0.5, 0.9), np.float16(0.75)),
        (Uniform(0, 1), jnp.bfloat16(0.5)),
        (Integer(1, 8), np.int64(3)),
        (Integer(1, 8, logarithmic=True), jnp.array(3)),
        (Ordinal([1, 2]), np.int8(2)),
        (Categorical(["a", True]), np.bool_(True)),
    ],
)
def test_a_scalar_of_numpy_or_jax_is_a_value(domain: Domain, value: Any) -> None:
    """It is what a run would record of it: Python's."""
    own = value.item()
    assert domain.contains(value)
    assert domain.moves(value)
    assert domain.to_unit(value) == domain.to_unit(own)
    assert type(domain.to_unit(value)) is float
    rng = np.random.default_rng(0)
    for found in (domain.times(value, 1.0, rng), domain.shifted(value, 0.0, rng)):
        assert (found, type(found)) == (own, type(own))
    assert not Uniform(0, 1).contains(np.bool_(True))


@pytest.mark.parametrize("domain", [Uniform(0, 1), Integer(1, 4), Ordinal([1, 2])])
@pytest.mark.parametrize("unit", [-0.1, 1.1, math.nan, 10**400, np.float32(-1)])
def test_a_number_outside_0_and_1_is_refused(domain: Domain, unit: Any) -> None:
    """The error names it."""
    with pytest.raises(ValueError, match="must be from 0 to 1, got"):
        domain.from_unit(unit)


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ("0.5", "a number from 0 to 1, got str '0.5'"),
        (True, "a number from 0 to 1, got bool True"),
        (None, "a number from 0 to 1, got NoneType None"),
        ([0.5], r"one number, got list \[0.5\]. For the vector of a space: popul"),
        (np.array([0.1, 0.2]), "one number, got ndarray .*from_unit"),
        (np.array([]), "one number, got ndarray .*from_unit"),
    ],
)
@pytest.mark.parametrize("domain", [Uniform(0, 1), Integer(1, 4), Ordinal([1, 2])])
def test_a_place_is_a_number(domain: Domain, unit: Any, said: str) -> None:
    """The error names what it is, and the function for a vector."""
    with pytest.raises(TypeError, match=f"A fraction of a range must be {said}"):
        domain.from_unit(unit)


@pytest.mark.parametrize("unit", [np.float32(0.5), np.array(0.5), np.array([0.5])])
def test_a_number_may_be_one_of_numpy(unit: Any) -> None:
    """As the row of a vector is."""
    found = Integer(0, 1).from_unit(unit)
    assert (found, type(found)) == (1, int)


@pytest.mark.parametrize(
    "domain",
    [
        Uniform(0, 9, start=(4, 5)),
        Integer(0, 9, start=(4, 5)),
        Categorical([*range(10)], start=[4, 5]),
    ],
)
def test_a_uniform_number_is_a_sample_with_the_same_first(domain: Domain) -> None:
    """Their defaults differ: a sample is of `start`, a number of the whole range."""
    rng = np.random.default_rng(0)
    for first in (True, False):
        samples = [domain.sample(rng, first=first) for _ in range(99)]
        values = [domain.from_unit(rng.random(), first=first) for _ in range(99)]
        for found in (samples, values):
            assert (min(found) >= 4 and max(found) <= 5) is first
    assert 4 <= domain.sample(rng) <= 5
    assert [domain.from_unit(0), domain.from_unit(1)] == [0, 9]


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


UNIT = {"a": Uniform(0, 1)}


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        (0.5, "needs a vector of 1 fractions, one for each of a, got float 0.5"),
        (np.array(0.5), "needs a vector of 1 .* got ndarray array"),
        (
            [[0.5]],
            r"needs a vector of .* got list \[\[0.5\]\]. Of a matrix pass one row",
        ),
        (np.array([[0.5]]), "needs a vector of .* got ndarray .* pass one row"),
        ("5", "needs a vector of .* got str '5'"),
        ({"a": 0.5}, "needs a vector of .* got dict"),
        (None, "needs a vector of .* got NoneType None"),
        (["0.5"], "^a: A fraction of a range must be a number from 0 to 1, got str"),
    ],
)
def test_what_is_no_vector_is_refused(vector: Any, said: str) -> None:
    """The error says what is needed, what was given, and what to do."""
    with pytest.raises(TypeError, match=said):
        from_unit(UNIT, vector)


def test_the_error_names_the_domain_of_a_number() -> None:
    """As that of `to_unit` does, with or without `like`."""
    like = {"optimizer": {"lr": 1.0, "name": "sgd"}, "layers": [1, 8]}
    for arguments in ([], [like]):
        with pytest.raises(ValueError, match=r"^layers/0: A fraction of .* got nan"):
            from_unit(SPACE, np.array([0.5, math.nan, 0.5]), *arguments)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"a": 0.5}, "A space needs at least one domain, .* got {'a': 0.5}"),
        (np.array([0.5]), r"A space needs at least one domain, .* got array\(\[0.5"),
        (3, "A space needs at least one domain, .* got 3"),
        ({"a": Uniform}, r"a must be a domain, got the class Uniform.* Uniform\(...\)"),
    ],
)
def test_what_is_no_space_has_no_vector(space: Any, said: str) -> None:
    """For example if the arguments are in the other order."""
    with pytest.raises(ValueError, match=said) as one:
        to_unit(space, UNIT)
    with pytest.raises(ValueError, match=said) as two:
        from_unit(space, UNIT)
    if "at least" in said:
        assert "space comes first: to_unit(space, meta_params)." in str(one.value)
        assert "space comes first: from_unit(space, fractions)." in str(two.value)
