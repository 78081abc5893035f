"""Perturb and Gaussian: moves stay inside the space, and nothing drifts."""

from __future__ import annotations

import copy
import itertools
import math
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from population import Branch, PopulationController, PopulationView, Report
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
    contains,
    misfit,
    sample,
)
from tests.helpers import Scripted, work
from tests.space import explorers, spaces, types_are_kept

Explorer = Callable[[Any, np.random.Generator], Any]
RATE = LogUniform(1e-5, 1e-1)
SPACE = {
    "rate": RATE,
    "optimiser": {"momentum": OneMinusLogUniform(0.5, 0.999), "nesterov": True},
    "sizes": [Integer(1, 8), 10, Categorical(["relu", "gelu"])],
}


def generator(seed: int = 0) -> np.random.Generator:
    """Random numbers that are always the same."""
    return np.random.default_rng(seed)


# Any space and any moves.


@settings(max_examples=80)
@given(st.data())
def test_any_sequence_of_moves_stays_inside_and_keeps_types(data: Any) -> None:
    """For each space and each way to explore, the results are in the space."""
    space = data.draw(spaces())
    rng = generator(data.draw(st.integers(0, 99)))
    present = sample(space, rng, first=data.draw(st.booleans()))
    for _ in range(3):
        explore = data.draw(explorers(space))
        for _ in range(data.draw(st.integers(1, 6))):
            present = explore(present, rng)
            assert misfit(space, present) is None
            assert types_are_kept(space, present)
            assert repr(codec.decode(codec.encode(present))) == repr(present)


@settings(max_examples=25)
@given(st.data())
def test_equal_seeds_give_equal_moves_and_the_input_stays(data: Any) -> None:
    """A decision can be repeated: it does not depend on earlier calls."""
    space = data.draw(spaces())
    explore = data.draw(explorers(space))
    given_ = sample(space, generator(1))
    before = copy.deepcopy(given_)
    first = [explore(given_, generator(seed)) for seed in range(3)]
    again = [explore(copy.deepcopy(before), generator(seed)) for seed in range(3)]
    assert repr(first) == repr(again)
    assert repr(given_) == repr(before)


@settings(max_examples=30)
@given(st.data())
def test_what_a_worker_is_handed_after_reopening_is_what_was_decided(data: Any) -> None:
    """A journal on disk changes neither a value nor its type."""
    space = data.draw(spaces())
    explore = data.draw(explorers(space))
    decided: list[Any] = []

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        parent = report.checkpoint
        decided.append(explore(parent.meta_params, view.rng))
        return {report.worker_id: Branch(parent, decided[-1])}

    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            controller = PopulationController.from_space(
                space, 1, Scripted(decide), folder
            )
            if decided:
                assert repr(work(controller).meta_params) == repr(decided[-1])
            for _ in range(2):
                present = controller.workers[0]
                step = present.step + 1
                controller.set_eval(0, present.generation_id, step, "p", 1.0)
            assert repr(work(controller).meta_params) == repr(decided[-1])
            assert contains(controller.space, decided[-1])
            assert repr(controller.space) == repr(space)
            controller.close()


# Which values move, and which do not.


@pytest.mark.parametrize(
    "explore", [Perturb(SPACE, resample_probability=0.5), Gaussian(SPACE, 0.3)]
)
def test_constants_and_unnamed_entries_stay(explore: Explorer) -> None:
    """Only the domains in the space move, at any depth."""
    given_ = {
        "note": ["mine"],
        "rate": 0.01,
        "optimiser": {"momentum": 0.9, "nesterov": False, "eps": 1e-8},
        "sizes": [3, 11, "relu"],
    }
    before = copy.deepcopy(given_)
    rng = generator()
    for _ in range(20):
        found = explore(given_, rng)
        assert given_ == before
        assert list(found) == list(given_)
        assert found["note"] == ["mine"]
        assert found["sizes"][1] == 11
        kept = {k: v for k, v in found["optimiser"].items() if k != "momentum"}
        assert kept == {"nesterov": False, "eps": 1e-8}
        assert 0.5 <= found["optimiser"]["momentum"] <= 0.999
        assert found["rate"] != 0.01


def test_increase_decrease_or_hold() -> None:
    """With a factor of 1.0 a third of the values stay equal, bit for bit."""
    explore = Perturb({"rate": RATE}, (0.8, 1.0, 1.25), resample_probability=0)
    rng = generator()
    found = [explore({"rate": 0.0123}, rng)["rate"] for _ in range(3000)]
    counts = [
        found.count(0.0123),
        sum(value < 0.0123 for value in found),
        sum(value > 0.0123 for value in found),
    ]
    assert sum(counts) == 3000
    assert all(900 < count < 1100 for count in counts)
    assert sorted(set(found)) == pytest.approx([0.0123 * 0.8, 0.0123, 0.0123 * 1.25])


def test_each_hyperparameter_is_moved_on_its_own() -> None:
    """One may increase while the other decreases, and one alone may be drawn again."""
    space = {"a": RATE, "b": RATE}
    rng = generator()
    explore = Perturb(space, resample_probability=0.25)
    ways = {0.8: 0, 1.25: 0, 0.0: 0}
    pairs = set()
    for _ in range(2000):
        found = explore({"a": 1e-3, "b": 1e-3}, rng)
        pair = []
        for value in found.values():
            factor = next(
                (f for f in (0.8, 1.25) if math.isclose(value, f * 1e-3)), 0.0
            )
            ways[factor] += 1
            pair.append(factor)
        pairs.add(tuple(pair))
    assert len(pairs) == 9
    assert 0.2 < ways[0.0] / 4000 < 0.3
    assert 0.8 < ways[0.8] / ways[1.25] < 1.25


@pytest.mark.parametrize("kind", [Perturb, Gaussian])
@pytest.mark.parametrize("share", [0.5, 0.05, 1e-9])
def test_a_share_of_the_hyperparameters_changes_but_at_least_one(
    kind: Any, share: float
) -> None:
    """Each set of them is as likely as among independent draws with a success."""
    space = {"a": RATE, "b": [RATE, 7, RATE]}
    before: dict[str, Any] = {"a": 1e-3, "b": [1e-3, 7, 1e-3]}
    rng, explore = generator(), kind(space, share=share)
    counts: dict[tuple[bool, ...], int] = {}
    for _ in range(4000):
        after = explore(before, rng)
        changed = after["a"] != 1e-3, *(v != 1e-3 for v in after["b"][::2])
        counts[changed] = counts.get(changed, 0) + 1
    assert (False, False, False) not in counts
    some = -math.expm1(3 * math.log1p(-share))
    for changed in itertools.product([True, False], repeat=3):
        likely = share ** sum(changed) * (1 - share) ** (3 - sum(changed)) / some
        if any(changed):
            count = counts.get(changed, 0)
            deviation = math.sqrt(4000 * likely * (1 - likely))
            assert abs(count - 4000 * likely) <= 5 * deviation + 1


def test_a_single_hyperparameter_always_changes() -> None:
    """A share of one domain is that domain."""
    explore = Perturb({"rate": RATE}, share=0.01)
    rng = generator()
    assert all(explore({"rate": 1e-3}, rng)["rate"] != 1e-3 for _ in range(50))


def test_what_does_not_change_still_comes_inside() -> None:
    """A value from outside of the space is moved to its bound."""
    space = {"a": RATE, "b": RATE, "c": Ordinal([1, 2])}
    rng, explore = generator(), Perturb(space, share=0.3)
    for _ in range(100):
        assert contains(space, explore({"a": 1e3, "b": 1e-9, "c": 5}, rng))


def test_a_share_of_one_draws_the_numbers_of_always() -> None:
    """Seeds of earlier runs stay valid."""
    pairs = [Perturb(SPACE)(sample(SPACE, generator(1)), generator(2)) for _ in "ab"]
    given = Perturb(SPACE, share=1)(sample(SPACE, generator(1)), generator(2))
    assert pairs == [given, given]


def test_a_resampled_value_comes_from_the_whole_range() -> None:
    """The range for exploration may be wider than that of the first sample."""
    space = {"rate": LogUniform(1e-5, 1e-1, start=(1e-3, 1e-2))}
    rng = generator()
    explore = Perturb(space, resample_probability=1)
    found = [explore({"rate": 1e-3}, rng)["rate"] for _ in range(500)]
    assert min(found) < 2e-5
    assert max(found) > 5e-2
    first = [sample(space, rng)["rate"] for _ in range(500)]
    assert min(first) >= 1e-3
    assert max(first) <= 1e-2


def test_gaussian_noise_is_normal_on_the_own_scale() -> None:
    """Sigma is a fraction of the range's width there, whatever the units."""
    explore = Gaussian({"rate": RATE}, sigma=0.05)
    rng = generator()
    found = [explore({"rate": 1e-3}, rng)["rate"] for _ in range(4000)]
    places = (np.log10(found) + 3) / 4
    assert abs(places.mean()) < 0.003
    assert places.std() == pytest.approx(0.05, rel=0.05)
    assert np.mean(np.abs(places) < 0.05) == pytest.approx(0.683, abs=0.03)


def test_ordinals_go_to_a_neighbour_and_categoricals_anywhere() -> None:
    """A value with an order moves to a neighbour; one without is drawn again."""
    space = {"depth": Ordinal([1, 2, 4, 8, 16]), "kind": Categorical("a b c d".split())}
    rng = generator()
    explore = Perturb(space, resample_probability=0)
    found = [explore({"depth": 4, "kind": "a"}, rng) for _ in range(400)]
    assert {meta["depth"] for meta in found} == {2, 8}
    assert {meta["kind"] for meta in found} == {"a", "b", "c", "d"}


def test_a_configuration_from_outside_comes_in() -> None:
    """A known configuration may be outside of the space: it is clipped, then moved."""
    rng = generator()
    explore = Perturb(SPACE, resample_probability=0)
    given_ = {
        "rate": 10,
        "optimiser": {"momentum": -3, "nesterov": True},
        "sizes": [99.5, 10, "tanh"],
    }
    for _ in range(20):
        assert contains(SPACE, explore(given_, rng))


# No drift.


DOMAINS: list[Any] = [
    Uniform(0, 1),
    Uniform(-5, 100),
    RATE,
    OneMinusLogUniform(0, 0.9999),
    Integer(1, 100),
    Integer(0, 8),
    Integer(1, 1024, logarithmic=True),
    Ordinal([1, 2, 4, 8, 16, 32, 64]),
]


def place(domain: Any, value: Any) -> float:
    """Where a value is on its domain's scale: 0 is the low end, 1 the high one."""
    if isinstance(domain, Ordinal):
        return domain.values.index(value) / (len(domain.values) - 1)
    low, high = domain._scaled(domain.low), domain._scaled(domain.high)
    return float((domain._scaled(value) - low) / (high - low))


def drifts(
    domain: Any, explore: Explorer, walkers: int = 100, moves: int = 300
) -> bool:
    """Whether many walks leave the middle, or collect at one end."""
    rng = generator()
    values = [domain.sample(rng) for _ in range(walkers)]
    places: list[float] = []
    for move in range(moves):
        values = [explore(value, rng) for value in values]
        if move >= moves // 3:
            places += [place(domain, value) for value in values]
    found = np.array(places)
    middle = 1 / 3 < found.mean() < 2 / 3
    halves = np.mean(found < 0.5), np.mean(found > 0.5)
    low, high = np.mean(found < 0.02), np.mean(found > 0.98)
    return not (middle and min(halves) > 0.4 and abs(low - high) < 0.1)


@pytest.mark.parametrize("domain", DOMAINS, ids=repr)
def test_nothing_drifts_by_factors(domain: Any) -> None:
    """A factor moves as far up as the other one down, and both bounds are alike."""
    assert not drifts(domain, Perturb(domain, resample_probability=0))


@pytest.mark.parametrize("domain", DOMAINS, ids=repr)
def test_nothing_drifts_by_noise(domain: Any) -> None:
    """Noise is symmetric on the scale, also after clipping and rounding."""
    assert not drifts(domain, Gaussian(domain))


@pytest.mark.parametrize("domain", [RATE, Uniform(0, 1), Integer(1, 100)], ids=repr)
def test_the_factors_of_1_2_and_0_8_would_drift(domain: Any) -> None:
    """The tests above can fail: multiplication with truncation drifts downward."""

    def seed(value: Any, rng: np.random.Generator) -> Any:
        moved = value * float(rng.choice([0.8, 1.2]))
        kept = int(moved) if isinstance(value, int) else moved
        return min(max(kept, domain.low), domain.high)

    assert drifts(domain, seed)


# Errors.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"factors": (0.8, -1)}, "factors must be positive numbers, got .*-1"),
        ({"factors": (0.8, 0)}, "factors must be positive"),
        ({"factors": ()}, "factors must be positive"),
        ({"factors": "0.8"}, "factors must be positive.*'0.8'"),
        ({"factors": 0.8}, "factors must be positive.*0.8"),
        ({"factors": (True,)}, "factors must be positive"),
        ({"factors": (math.nan,)}, "factors must be positive"),
        ({"factors": (math.inf,)}, "factors must be positive"),
        ({"factors": (10**400,)}, "factors must be positive"),
        ({"resample_probability": True}, "resample_probability must be from 0 to 1"),
        ({"resample_probability": 2}, "resample_probability must be from 0 to 1.*2"),
        ({"resample_probability": -0.1}, "from 0 to 1"),
        ({"resample_probability": math.nan}, "from 0 to 1.*nan"),
        ({"resample_probability": "0.5"}, "from 0 to 1.*'0.5'"),
        ({"share": 0}, "share must be above 0 and at most 1, got 0"),
        ({"share": 1.5}, "share must be above 0 and at most 1, got 1.5"),
        ({"share": math.nan}, "share must be above 0"),
        ({"share": True}, "share must be above 0"),
        ({"share": None}, "share must be above 0"),
        ({"space": {}}, "at least one domain"),
        ({"space": {"rate": 0.1}}, "at least one domain.*0.1"),
        ({"space": None}, "at least one domain"),
        ({"space": {"rate": LogUniform}}, "rate must be .*class LogUniform"),
        ({"space": [{"rate": LogUniform}, RATE]}, "0/rate must be .*class LogUniform"),
    ],
)
def test_perturb_refuses_at_the_door(arguments: dict[str, Any], said: str) -> None:
    """Each message says what is needed and what was given."""
    with pytest.raises(ValueError, match=said):
        Perturb(**{"space": {"rate": RATE}, **arguments})


@pytest.mark.parametrize("sigma", [0, -1, math.nan, math.inf, True, "0.1", None])
def test_gaussian_refuses_a_sigma_that_is_none(sigma: Any) -> None:
    """A spread must be a positive number."""
    with pytest.raises(ValueError, match="sigma must be a positive number, got"):
        Gaussian({"rate": RATE}, sigma)


def test_gaussian_refuses_what_perturb_refuses() -> None:
    """The space and the probability are checked by both."""
    with pytest.raises(ValueError, match="at least one domain"):
        Gaussian({"rate": 0.1})
    with pytest.raises(ValueError, match="resample_probability"):
        Gaussian({"rate": RATE}, resample_probability=2)
    with pytest.raises(ValueError, match="share must be"):
        Gaussian({"rate": RATE}, share=2)


def test_a_constant_that_cannot_be_stored_is_refused() -> None:
    """The space goes into the journal; a function does not."""
    with pytest.raises(TypeError, match="a constant of the space cannot be stored"):
        Perturb({"rate": RATE, "function": max})


@pytest.mark.parametrize(
    ("meta_params", "said"),
    [
        ({"optimiser": {}, "sizes": []}, "meta_params must be a dict with 'rate'"),
        (
            {"rate": 1, "optimiser": {"momentum": 0.9}, "sizes": []},
            "optimiser must be a dict with 'nesterov'",
        ),
        ({"rate": 1, "optimiser": 0.9, "sizes": []}, "optimiser must be a dict.* 0.9"),
        (0.1, "meta_params must be a dict with 'rate', 'optimiser', 'sizes'.* 0.1"),
    ],
)
def test_meta_params_of_another_structure_are_refused(
    meta_params: Any, said: str
) -> None:
    """The message names the path and what is missing there."""
    with pytest.raises(ValueError, match=said):
        Perturb(SPACE)(meta_params, generator())


def test_sequences_of_another_length_are_refused() -> None:
    """A list of the space needs a list with as many entries."""
    explore = Perturb({"sizes": [RATE, RATE]})
    for wrong in ([0.1], (0.1, 0.1), 0.1):
        with pytest.raises(ValueError, match="sizes must be a list of 2"):
            explore({"sizes": wrong}, generator())


@pytest.mark.parametrize("value", ["0.1", None, True, math.nan, [0.1]])
@pytest.mark.parametrize("explore", [Perturb, Gaussian])
def test_what_is_no_number_is_not_moved(explore: Any, value: Any) -> None:
    """The message names the path, the domain and the value."""
    move = explore({"a": {"rate": RATE}}, resample_probability=0)
    with pytest.raises(
        ValueError, match=r"a/rate must be a number .*LogUniform\("
    ) as e:
        move({"a": {"rate": value}}, generator())
    assert repr(value) in str(e.value)
