"""Whole spaces: samples, grids, membership, and storage as data."""

from __future__ import annotations

import collections
import itertools
import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from population.base import codec
from population.space import (
    Categorical,
    Integer,
    LogUniform,
    OneMinusLogUniform,
    Ordinal,
    Uniform,
    contains,
    domains,
    from_data,
    grid,
    misfit,
    sample,
    stratified,
    to_data,
    to_unit,
)
from population.space.domain import Domain
from tests.space import spaces, types_are_kept

SPACE = {
    "rate": LogUniform(1e-4, 1e-1, start=(1e-3, 1e-2)),
    "net": {"depth": Integer(1, 4), "width": 64},
    "betas": (OneMinusLogUniform(0.5, 0.99), 0.999),
}


def generator(seed: int = 0) -> np.random.Generator:
    """Random numbers that are always the same."""
    return np.random.default_rng(seed)


# Samples.


@settings(max_examples=40)
@given(spaces(), st.booleans())
def test_a_sample_is_of_its_space(space: Any, first: bool) -> None:
    """It has the space's structure and Python's own types, also after the journal."""
    found = sample(space, generator(), first=first)
    assert misfit(space, found) is None
    assert types_are_kept(space, found)
    back = codec.decode(codec.encode(found))
    assert repr(back) == repr(found)
    assert contains(space, back)


def test_equal_seeds_give_equal_samples() -> None:
    """Other seeds give other samples."""
    assert sample(SPACE, generator(1)) == sample(SPACE, generator(1))
    assert sample(SPACE, generator(1)) != sample(SPACE, generator(2))


def test_a_sample_copies_the_constants() -> None:
    """A caller that changes a sample does not change the space."""
    space = {"rate": Uniform(0, 1), "sizes": [[1, 2]]}
    sample(space, generator())["sizes"][0].append(3)
    grid(space, 1)[0]["sizes"][0].append(3)
    assert space["sizes"] == [[1, 2]]


@settings(max_examples=40)
@given(spaces(), st.integers(1, 9))
def test_stratified_members_are_of_the_space(space: Any, size: int) -> None:
    """They have the space's structure and Python's own types."""
    found = stratified(space, size, generator())
    assert len(found) == size
    for member in found:
        assert misfit(space, member) is None
        assert types_are_kept(space, member)


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_each_part_of_each_range_has_one_stratified_member(size: int) -> None:
    """The parts are equally wide on each domain's scale, in a random order."""
    space = [Uniform(-2, 3), LogUniform(1e-6, 1, start=(1e-4, 1e-1))]
    rng = generator()
    found = stratified(space, size, rng)
    linear = [int((a + 2) / 5 * size) for a, _ in found]
    logarithmic = [int((math.log10(b) + 4) / 3 * size) for _, b in found]
    assert sorted(linear) == sorted(logarithmic) == list(range(size))
    if size == 64:
        assert linear != logarithmic
        assert abs(np.corrcoef(linear, logarithmic)[0, 1]) < 0.4
    again = stratified(space, size, rng)
    assert again != found


def test_values_of_a_list_are_stratified_equally_often() -> None:
    """Each of three comes three or four times in ten; few members have different."""
    space = {"a": Categorical(["x", "y", "z"]), "b": Integer(1, 3)}
    found = stratified(space, 10, generator())
    for name in space:
        counts = collections.Counter(member[name] for member in found)
        assert len(counts) == 3
        assert set(counts.values()) <= {3, 4}
    few = stratified(space, 3, generator(1))
    assert {member["b"] for member in few} == {1, 2, 3}


def test_the_first_sample_is_narrow_in_every_place() -> None:
    """`first=False` asks for the whole range instead."""
    rng = generator()
    assert all(1e-3 <= sample(SPACE, rng)["rate"] <= 1e-2 for _ in range(50))
    wide = [sample(SPACE, rng, first=False)["rate"] for _ in range(50)]
    assert min(wide) < 1e-3
    assert max(wide) > 1e-2


# Grids.


@settings(max_examples=40)
@given(spaces(), st.integers(1, 12))
def test_a_grid_has_k_members_of_the_space(space: Any, k: int) -> None:
    """All differ if possible, otherwise each combination comes about equally often."""
    found = grid(space, k)
    assert len(found) == k
    assert all(misfit(space, meta_params) is None for meta_params in found)
    assert all(types_are_kept(space, meta_params) for meta_params in found)
    counts = collections.Counter(map(codec.digest, found)).values()
    assert max(counts) - min(counts) <= 1


def test_a_grid_of_one_domain_is_evenly_spaced() -> None:
    """The scale is the domain's, and both ends are included."""
    rates = [meta["rate"] for meta in grid({"rate": LogUniform(1e-4, 1)}, 5)]
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1], rel=1e-12)
    assert grid(Integer(0, 8), 3) == [0, 4, 8]
    assert grid(Ordinal("a b c".split()), 2) == ["a", "c"]


def test_a_grid_of_one_member_is_the_middle() -> None:
    """The middle of every domain, or of the first sample's range if there is one."""
    assert grid({"a": Uniform(0, 2), "b": [Integer(1, 9)], "c": "x"}, 1) == [
        {"a": 1.0, "b": [5], "c": "x"}
    ]
    assert grid(SPACE["rate"], 1) == pytest.approx([10**-2.5])


def test_points_give_the_whole_grid() -> None:
    """Four values of each of two domains, as pbt-keras spaces its 16 members."""
    space = {"rate": LogUniform(1e-4, 1e-1), "decay": Uniform(0, 3)}
    found = grid(space, points=4)
    assert len(found) == 16
    rates, decays = (1e-4, 1e-3, 1e-2, 1e-1), (0.0, 1.0, 2.0, 3.0)
    expected = [
        pytest.approx({"rate": rate, "decay": decay}, rel=1e-12)
        for rate, decay in itertools.product(rates, decays)
    ]
    assert found == expected
    assert grid(space, 16) == found
    assert grid(space, 16, points=4) == found


def test_k_members_are_evenly_spaced_among_all_combinations() -> None:
    """The first and the last combination are among them."""
    space = [Integer(1, 3), Categorical(["x", "y", "z"])]
    everything = grid(space, points=3)
    assert len(everything) == 9
    assert grid(space, 5) == everything[::2]
    assert grid(space, 3, points=3) == [everything[i] for i in (0, 4, 8)]
    assert grid(space, 9) == everything


def test_as_few_points_as_will_do() -> None:
    """Four members of two domains are the four corners."""
    found = grid({"a": Uniform(0, 1), "b": Uniform(0, 1)}, 4)
    corners = itertools.product((0.0, 1.0), repeat=2)
    assert [(meta["a"], meta["b"]) for meta in found] == list(corners)
    few = grid([Categorical([1, 2]), Uniform(0, 1)], 6)
    assert {tuple(member) for member in few} == {
        (choice, share) for choice in (1, 2) for share in (0.0, 0.5, 1.0)
    }


@pytest.mark.parametrize("k", [2, 7, 10])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_the_ints_of_a_grid_differ_as_long_as_there_are_some(
    logarithmic: bool, k: int
) -> None:
    """Rounding must not make two members equal."""
    domain = Integer(1, 10, logarithmic=logarithmic)
    found = grid(domain, k)
    assert len(set(found)) == k
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1, 10)


@pytest.mark.parametrize("k", [4, 10, 99, 100])
def test_more_members_than_combinations_repeat_evenly(k: int) -> None:
    """No combination comes two times more often than another."""
    counts = collections.Counter(grid(Categorical([1, 2, 3, 4]), k))
    assert len(counts) == 4
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many points each uniform domain was asked for, by call."""
    found: list[int] = []
    points = Uniform.points

    def counted(domain: Uniform, count: int) -> list[Any]:
        found.append(count)
        return points(domain, count)

    monkeypatch.setattr(Uniform, "points", counted)
    return found


def test_few_members_of_many_domains_are_few(asked: list[int]) -> None:
    """The combinations are counted, not made: there may be too many to make."""
    found = grid({f"h{i}": Uniform(0, 1) for i in range(10)}, 5)
    assert len({codec.digest(meta_params) for meta_params in found}) == 5
    assert sum(asked) <= 10 * 8
    many = grid({f"h{i}": Uniform(0, 1) for i in range(300)}, 7, points=50)
    assert set(many[0].values()) == {0.0}
    assert set(many[-1].values()) == {1.0}
    assert len({codec.digest(meta_params) for meta_params in many}) == 7


def test_the_number_of_points_is_searched_for_and_not_counted_up(
    asked: list[int],
) -> None:
    """A grid of thousands of members is made at once."""
    found = grid({"a": Uniform(0, 1), "b": True}, 2000)
    assert len({meta["a"] for meta in found}) == 2000
    assert len(asked) < 30


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({}, ValueError, "grid needs k, the number of meta_params, or points"),
        ({"k": 0}, ValueError, "k must be 1 or more, got 0"),
        ({"k": 2.0}, TypeError, "k must be an int, got float 2.0"),
        ({"k": True}, TypeError, "k must be an int, got bool True"),
        ({"points": -1}, ValueError, "points must be 1 or more, got -1"),
        ({"k": 3, "points": "2"}, TypeError, "points must be an int, got str '2'"),
        ({"points": 10**9}, ValueError, "points must be at most 1000000, got 10000"),
        ({"k": 2, "points": 10**9}, ValueError, "points must be at most 1000000"),
        ({"k": 10**9}, ValueError, "k must be at most 1000000, got 1000000000"),
    ],
)
def test_a_grid_needs_a_size(
    arguments: dict[str, Any], error: type[Exception], said: str
) -> None:
    """Each message says what is needed and what was given."""
    with pytest.raises(error, match=said):
        grid(SPACE, **arguments)


def test_a_grid_beyond_all_memory_is_refused() -> None:
    """As many points as are allowed may still be too many combinations."""
    space = [Uniform(0, 1)] * 3
    with pytest.raises(
        ValueError, match="most 1000000 combinations, got 1030301 of po"
    ):
        grid(space, points=101)
    assert len(grid(space, 5, points=101)) == 5


def test_the_size_of_a_grid_may_be_an_int_of_numpy() -> None:
    """As every other count."""
    count: Any = np.int64(3)
    assert grid(SPACE, count) == grid(SPACE, 3)
    assert grid(SPACE, points=count) == grid(SPACE, points=3)
    assert stratified(SPACE, count, generator()) == stratified(SPACE, 3, generator())


# Membership.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rate": 1.0}, r"^rate is 1.0, not in LogUniform\(low=0.0001, high=0.1"),
        ({"rate": "0.01"}, "^rate is '0.01', not in LogUniform"),
        ({"net": {"depth": 2.0, "width": 64}}, "^net/depth is 2.0, not in Integer"),
        ({"net": {"depth": 2, "width": 65}}, "^net/width is 65, not 64$"),
        ({"net": {"depth": 2, "width": 64.0}}, "^net/width is 64.0, not 64$"),
        ({"net": {"depth": 2, "width": max}}, "cannot be stored"),
        ({"net": {"width": 64}}, "^net must be a dict with 'depth', as the space"),
        ({"net": None}, "^net must be a dict with 'depth', 'width'.* got None"),
        ({"betas": (0.2, 0.999)}, "^betas/0 is 0.2, not in OneMinusLogUniform"),
        ({"betas": [0.9, 0.999]}, "^betas must be a tuple of 2.*got \\[0.9, 0.999\\]"),
        ({"betas": (0.9,)}, "^betas must be a tuple of 2"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], said: str) -> None:
    """The message names the path, the value, and what it should be."""
    good = {"rate": 1e-3, "net": {"depth": 2, "width": 64}, "betas": (0.9, 0.999)}
    assert misfit(SPACE, good) is None
    with pytest.raises(ValueError, match=said):
        raise ValueError(misfit(SPACE, good | change))
    assert not contains(SPACE, good | change)


def test_further_entries_are_allowed() -> None:
    """A space may name only the hyperparameters to explore."""
    assert contains({"rate": Uniform(0, 1)}, {"rate": 0.5, "note": "mine"})
    assert contains({"a": {}, "b": Uniform(0, 1)}, {"a": {"c": 1}, "b": 0.5})
    assert not contains({"a": {}, "b": Uniform(0, 1)}, {"a": 1, "b": 0.5})


def test_a_domain_alone_is_a_space() -> None:
    """Then the meta_params are the number itself."""
    assert contains(Uniform(0, 1), 0.5)
    assert misfit(Uniform(0, 1), 2.0) is not None
    assert str(misfit(Uniform(0, 1), 2.0)).startswith("meta_params is 2.0")
    assert list(domains(Uniform(0, 1))) == ["meta_params"]


def test_domains_are_named_by_their_places() -> None:
    """A table's columns and a plot's axes have these names."""
    assert list(domains(SPACE)) == ["rate", "net/depth", "betas/0"]
    assert domains({1: Uniform(0, 1), "a": {2: Integer(0, 1)}}) == {
        "1": Uniform(0, 1),
        "a/2": Integer(0, 1),
    }


def test_two_places_of_one_name_are_both_explored() -> None:
    """A slash in a key can make names equal, but not domains."""
    space = {"a/b": Integer(0, 1), "a": {"b": Integer(5, 6)}}
    assert len({codec.digest(meta_params) for meta_params in grid(space, 4)}) == 4
    assert contains(space, sample(space, generator()))
    assert domains(space) == {"a/b": Integer(0, 1), "a/b (2)": Integer(5, 6)}
    assert len(to_unit(space, {"a/b": 0, "a": {"b": 5}})) == 2


def test_domains_of_one_name_are_numbered() -> None:
    """Also if a number is the name of another one."""
    space = {1: Uniform(0, 1), "1": Uniform(0, 2), "1 (2)": Uniform(0, 3)}
    assert list(domains(space)) == ["1", "1 (2)", "1 (2) (2)"]
    assert [domain.points(2)[1] for domain in domains(space).values()] == [1, 2, 3]


# Storage as data.


@settings(max_examples=40)
@given(spaces())
def test_a_space_round_trips_through_the_journal(space: Any) -> None:
    """All its domains and constants come back, and the kinds of its containers."""
    text = codec.encode(to_data(space), "space")
    back = from_data(codec.decode(text))
    assert repr(back) == repr(space)
    assert codec.encode(to_data(back)) == text
    assert repr(sample(back, generator())) == repr(sample(space, generator()))


@pytest.mark.parametrize(
    "data",
    [
        ("domain", "Beta", {}),
        ("domain", "Uniform"),
        ("domain",),
        ("domain", "Uniform", 5),
        ("domain", ["Uniform"], {}),
        ("domain", "Uniform", {"low": 2, "high": 1}),
        ("constant",),
        ("constant", 1, 2),
        ("set", []),
        ("list", 5),
        (),
        "",
        None,
        5,
        {"rate": None},
    ],
)
def test_data_that_is_no_space_is_refused(data: Any) -> None:
    """Whatever a journal holds, there is one kind of error."""
    with pytest.raises(
        ValueError, match=r"Unknown domain 'Beta'|Not the data|low < high"
    ):
        from_data(data)


def test_a_domain_with_other_arguments_is_refused() -> None:
    """A later version may have more arguments."""
    with pytest.raises(TypeError, match="shape"):
        from_data(("domain", "Uniform", {"low": 0, "high": 1, "shape": 3}))


def test_a_domain_of_ones_own_cannot_be_recorded() -> None:
    """A reader of the run would not know it."""

    class Mine(Categorical):
        pass

    for domain in (Mine([1, 2]), type("Uniform", (Categorical,), {})([1, 2])):
        assert isinstance(domain, Domain)
        with pytest.raises(TypeError, match="A space's domains must be among"):
            to_data({"mine": domain})
