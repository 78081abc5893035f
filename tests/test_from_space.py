"""Runs that begin from a search space, and the space that they record."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from population import (
    Branch,
    JournalError,
    PopulationController,
    PopulationView,
    Report,
    RunMismatchError,
    Start,
)
from population.base import codec
from population.journal.sqlite import SqliteJournal
from population.mutators import PopulationBasedTraining, WinnerTakeAllGenetic
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
    grid,
    sample,
    stratified,
)
from tests import probe
from tests.helpers import Scripted

SPACE = {
    "rate": LogUniform(1e-5, 1e-1, start=(1e-3, 1e-2)),
    "net": {"depth": Integer(1, 8), "width": Ordinal([16, 32, 64]), "bias": True},
    "momentum": OneMinusLogUniform(0.5, 0.999),
    "kinds": [Categorical(["relu", "gelu"]), "adam"],
}
RATE = {"rate": LogUniform(1e-5, 1e-1)}


def begun(*arguments: Any, **options: Any) -> PopulationController:
    """A run of a policy that never decides."""
    space, size, *rest = arguments
    return PopulationController.from_space(space, size, Scripted(), *rest, **options)


def metas(controller: PopulationController) -> list[Any]:
    """The meta_params in force."""
    return [active.meta_params for active in controller.workers]


# The first population.


def test_the_first_population_is_drawn_from_the_space() -> None:
    """Each worker gets its own, from the range of the first sample if there is one."""
    controller = begun(SPACE, 20)
    found = metas(controller)
    assert len(found) == 20
    assert all(contains(SPACE, meta_params) for meta_params in found)
    assert all(1e-3 <= meta_params["rate"] <= 1e-2 for meta_params in found)
    assert len({codec.digest(meta_params) for meta_params in found}) == 20


def test_the_seed_decides_the_first_population() -> None:
    """A run can be repeated; another seed begins elsewhere."""
    assert metas(begun(SPACE, 5, seed=3)) == metas(begun(SPACE, 5, seed=3))
    assert metas(begun(SPACE, 5, seed=3)) != metas(begun(SPACE, 5, seed=4))
    assert metas(begun(SPACE, 5)) == metas(begun(SPACE, 5, seed=0))
    assert begun(SPACE, 5, seed=3).seed == 3


def test_the_first_population_covers_each_range() -> None:
    """By default it is stratified: each twentieth of the scale has one."""
    found = [meta_params["rate"] for meta_params in metas(begun(RATE, 20))]
    assert sorted(int(5 * (math.log10(rate) + 5)) for rate in found) == [*range(20)]
    assert found != sorted(found)
    rng = np.random.default_rng([7, 0, 1])
    assert metas(begun(SPACE, 6, seed=7)) == stratified(SPACE, 6, rng)


def test_more_workers_do_not_change_the_first_ones_if_each_is_drawn_alone() -> None:
    """The workers draw in order."""
    nine, four = (begun(SPACE, size, initial="random") for size in (9, 4))
    assert metas(nine)[:4] == metas(four)


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**40 + 1])
def test_no_decision_draws_the_numbers_of_the_first_population(seed: int) -> None:
    """Otherwise a resampled member would come again, and one seed follow another."""
    drawn: list[Any] = []

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        drawn.append([sample(SPACE, view.rng) for _ in range(3)])
        return {0: Branch(report.checkpoint, drawn[-1][0])}

    controller = PopulationController.from_space(SPACE, 3, Scripted(decide), seed=seed)
    first = metas(controller)
    for step in range(1, 6):
        generation_id = controller.workers[0].generation_id
        controller.set_eval(0, generation_id, step, "p", 1.0)
    drawn += [metas(begun(SPACE, 3, seed=seed + 1))]
    drawn += [[sample(SPACE, np.random.default_rng([seed, 0])) for _ in range(3)]]
    rates = {meta_params["rate"] for meta_params in first}
    assert len(drawn) == 7
    for others in drawn:
        assert not rates & {meta_params["rate"] for meta_params in others}


def test_the_first_population_may_be_a_grid() -> None:
    """They are evenly spaced, for each seed."""
    controller = begun(SPACE, 7, initial="grid", seed=5)
    assert metas(controller) == grid(SPACE, 7)
    rates = [meta["rate"] for meta in metas(begun(RATE, 5, initial="grid"))]
    assert rates == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 1e-1], rel=1e-12)


def test_the_points_of_a_grid_can_be_chosen() -> None:
    """The workers get evenly spaced ones of all combinations of so many values."""
    space = {**RATE, "width": Ordinal([16, 32, 64])}
    found = metas(begun(space, 4, initial="grid", points=3))
    assert found == grid(space, 4, 3) != metas(begun(space, 4, initial="grid"))
    assert metas(begun(space, 9, initial="grid", points=3)) == grid(space, points=3)


@pytest.mark.parametrize(
    ("points", "size", "said"),
    [
        (2, 9, r"points=2 gives 4 different meta_params for 9 members.* size=4"),
        (1, 2, r"points=1 gives 1 different meta_params for 2 members.* size=1"),
    ],
)
def test_a_grid_that_is_too_small_for_its_members_is_told(
    points: int, size: int, said: str
) -> None:
    """Some would begin with the same meta_params; the warning names the call."""
    space = {**RATE, "width": Ordinal([16, 32, 64])}
    with pytest.warns(UserWarning, match=said) as warned:
        controller = begun(space, size, initial="grid", points=points)
    assert {one.filename for one in warned} == {__file__}
    assert metas(controller) == grid(space, size, points)


def test_the_points_are_those_of_a_grid() -> None:
    """The same counts are valid, and the same errors are raised."""
    assert metas(begun(RATE, 3, initial="grid", points=np.int64(3))) == grid(RATE, 3)
    for points in (2.0, 0, 10**9, "2"):
        messages = []
        for call in (
            lambda points: begun(RATE, 2, initial="grid", points=points),
            lambda points: grid(RATE, 2, points),
        ):
            with pytest.raises((TypeError, ValueError)) as raised:
                call(points)
            messages.append(repr(raised.value))
        assert messages[0] == messages[1]


@pytest.mark.parametrize("initial", ["stratified", "random"])
def test_points_are_refused_where_there_is_no_grid(initial: str) -> None:
    """They would have no effect, and the message says where they have one."""
    with pytest.raises(ValueError, match=r'for initial="grid", got .*initial='):
        begun(RATE, 2, initial=initial, points=3)
    with pytest.raises(ValueError, match='for initial="grid"'):
        begun(RATE, 2, points=3)


def test_a_domain_alone_is_a_space() -> None:
    """Then the meta_params are the number itself."""
    controller = begun(Uniform(0, 1), 3)
    assert all(type(value) is float for value in metas(controller))
    assert controller.space == Uniform(0, 1)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "said"),
    [
        ((SPACE, 0), {}, ValueError, "size must be 1 or more, got 0"),
        ((SPACE, -1), {}, ValueError, "size must be 1 or more, got -1"),
        ((SPACE, 2.0), {}, TypeError, "size must be an int, got float 2.0"),
        ((SPACE, True), {}, TypeError, "size must be an int, got bool"),
        ((SPACE, [1, 2]), {}, TypeError, "size must be an int, got list"),
        (
            (SPACE, 2),
            {"initial": "sobol"},
            ValueError,
            "'stratified' or 'grid', got 'sob",
        ),
        ((SPACE, 2), {"initial": None}, ValueError, "'stratified' or 'grid', got None"),
        ((SPACE, 2), {"points": 0}, ValueError, "points"),
        ((SPACE, 2), {"points": 2.5}, (TypeError, ValueError), "points"),
        ((SPACE, 2), {"seed": -1}, ValueError, "seed must be 0 or more, got -1"),
        ((SPACE, 2), {"seed": 1.5}, TypeError, "seed must be an int"),
        (({"rate": 0.1}, 2), {}, ValueError, "at least one domain.*0.1"),
        (({"rate": Uniform}, 2), {}, ValueError, "rate must be .*class Uniform"),
        (({**RATE, "f": max}, 2), {}, TypeError, "constant of the space cannot be"),
        ((SPACE, 2), {"mode": "least"}, ValueError, "mode must be one of"),
    ],
)
@pytest.mark.parametrize("initial", ["random", "grid"])
def test_what_no_run_can_begin_from_is_refused(
    arguments: Any, options: Any, error: Any, said: str, initial: str
) -> None:
    """Nothing is made, and the message says what was given."""
    with pytest.raises(error, match=said):
        begun(*arguments, **{"initial": initial, **options})


def test_a_refused_space_leaves_no_run_folder(tmp_path: pathlib.Path) -> None:
    """The arguments are checked before any file is touched."""
    with pytest.raises(ValueError, match="at least one domain"):
        begun({"rate": 0.1}, 2, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Exploring the space.


@pytest.mark.parametrize(
    "mutate_fn",
    [Perturb(SPACE), Gaussian(SPACE), Perturb(SPACE, (0.5, 1.0, 2.0), 0.5)],
    ids=lambda explore: type(explore).__name__,
)
def test_a_policy_explores_the_space_with_the_runs_random_numbers(
    mutate_fn: Any, tmp_path: pathlib.Path
) -> None:
    """All values stay inside, equal seeds give equal runs, and a restart continues."""

    def train(folder: pathlib.Path | None, seed: int) -> list[Any]:
        found: list[Any] = []

        def opened() -> PopulationController:
            mutator = WinnerTakeAllGenetic(mutate_fn, 1)
            return PopulationController.from_space(SPACE, 3, mutator, folder, seed=seed)

        controller = opened()
        for step in range(1, 9):
            if folder is not None:
                controller.close()
                controller = opened()
            for worker_id, active in enumerate(controller.workers):
                value = -active.meta_params["rate"]
                controller.set_eval(worker_id, active.generation_id, step, "p", value)
            found.append(metas(controller))
        assert controller.space == SPACE
        controller.close()
        return found

    found = train(None, 1)
    assert all(contains(SPACE, meta) for round_ in found for meta in round_)
    assert len({codec.digest(meta) for round_ in found for meta in round_}) > 10
    assert train(tmp_path, 1) == found
    assert train(None, 2) != found


# The space in the journal.


def test_the_space_comes_back_after_reopening(tmp_path: pathlib.Path) -> None:
    """Plots need to know which axes are logarithmic, also for an old run."""
    controller = begun(SPACE, 2, tmp_path)
    first = metas(controller)
    assert controller.space == SPACE
    controller.close()
    again = begun(SPACE, 2, tmp_path)
    assert (again.space, metas(again)) == (SPACE, first)
    again.close()
    plain = PopulationController([None] * 2, Scripted(), tmp_path)
    assert repr(plain.space) == repr(SPACE)
    assert metas(plain) == first
    plain.close()


def test_a_run_without_a_space_has_none(tmp_path: pathlib.Path) -> None:
    """It may get one later, and then keeps it."""
    controller = PopulationController([{"rate": 0.01}], Scripted(), tmp_path)
    assert controller.space is None
    controller.close()
    for space in (RATE, None):
        controller = PopulationController(
            [{"rate": 0.01}], Scripted(), tmp_path, space=space
        )
        assert controller.space == RATE
        controller.close()


def test_a_space_may_be_recorded_with_a_population_of_ones_own() -> None:
    """The plain constructor takes a space, and entries with a `Start`."""
    starts = [{"rate": 0.01}, Start({"rate": 0.1, "note": "known"}, "weights", 500)]
    controller = PopulationController(starts, Scripted(), space=RATE)
    assert controller.space == RATE
    assert controller.workers[1].step == 500
    assert metas(controller)[1] == {"rate": 0.1, "note": "known"}


def test_going_on_with_another_space_is_said(tmp_path: pathlib.Path) -> None:
    """The run keeps its first space; nothing is refused."""
    begun(RATE, 2, tmp_path).close()
    wider = {"rate": LogUniform(1e-7, 1)}
    with pytest.warns(UserWarning, match="another space; the one that it began with"):
        controller = begun(wider, 2, tmp_path)
    assert controller.space == RATE
    controller.close()


def test_an_equal_space_is_no_other_one(tmp_path: pathlib.Path) -> None:
    """Ints for floats, or a list for a tuple, mean the same."""
    space: Any = {"a": Uniform(0, 2, (0, 1)), "b": Categorical((1, 2), (1,))}
    begun(space, 1, tmp_path).close()
    start: Any = [0.0, 1.0]
    same: Any = {"a": Uniform(0.0, 2.0, start), "b": Categorical([1, 2], [1])}
    controller = begun(same, 1, tmp_path)
    assert controller.space == space
    controller.close()


def test_another_size_is_another_run(tmp_path: pathlib.Path) -> None:
    """It is refused, as for any population."""
    begun(RATE, 2, tmp_path).close()
    with pytest.raises(RunMismatchError, match="workers 2, got 3"):
        begun(RATE, 3, tmp_path)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"rate": 0.5}, r"rate is 0.5, not in LogUniform\(low=1e-05, high=0.1"),
        ({"rate": "0.1"}, "rate is '0.1', not in LogUniform"),
        ({"rte": 0.1}, "meta_params must be a dict with 'rate'.*got {'rte': 0.1}"),
        (0.1, "meta_params must be a dict with 'rate'.*got 0.1"),
        (Start({"rate": 0}, "weights", 3), "rate is 0, not in LogUniform"),
    ],
)
def test_a_first_population_outside_the_space_is_refused(
    entry: Any, said: str, tmp_path: pathlib.Path
) -> None:
    """The message names the worker and the path, and says what to do."""
    with pytest.raises(ValueError, match=rf"initial_population\[1\] .*{said}.*Widen"):
        PopulationController(
            [{"rate": 0.01}, entry], Scripted(), tmp_path / "run", space=RATE
        )
    good = [{"rate": 0.01}, {"rate": 0.02}]
    with closing(
        PopulationController(good, Scripted(), tmp_path / "run", space=RATE)
    ) as controller:
        assert [work.meta_params for work in controller.workers] == good


@pytest.mark.parametrize("space", [{}, {"rate": 0.01}, {"rate": LogUniform}, 5])
def test_what_is_no_space_is_not_recorded(space: Any) -> None:
    """The plain constructor refuses it as `from_space` does."""
    with pytest.raises(ValueError, match=r"at least one domain|class LogUniform"):
        PopulationController([{"rate": 0.01}], Scripted(), space=space)


@pytest.mark.parametrize(
    "text",
    [
        "not JSON",
        "",
        "5",
        codec.encode(("domain", "Uniform")),
        codec.encode(("domain", "Beta", {})),
        codec.encode(("domain", "Uniform", {"low": 2, "high": 1})),
        codec.encode(("domain", "Uniform", {"lowest": 2})),
        codec.encode({"rate": ("domain",)}),
        codec.encode(("constant",)),
        codec.encode({"rate": 0.1}),
    ],
)
def test_a_damaged_space_is_said_to_be_one(text: str, tmp_path: pathlib.Path) -> None:
    """Reading the space raises; the run itself can continue."""
    begun(RATE, 1, tmp_path).close()
    controller = PopulationController([None], Scripted(), tmp_path)
    journal = probe.connection(controller)
    journal.execute("UPDATE facts SET value = ? WHERE key = 'space'", (text,))
    with pytest.raises(JournalError, match="The journal is damaged: "):
        _ = controller.space
    assert contains(RATE, metas(controller)[0])
    controller.close()


def test_a_journal_of_ones_own_keeps_the_space() -> None:
    """It is a fact like others, in any store."""
    journal = SqliteJournal()
    begun(SPACE, 2, journal=journal)
    assert "space" in probe.facts_of(journal)
    again = PopulationController([None] * 2, Scripted(), journal=journal)
    assert again.space == SPACE


def test_exploring_another_space_than_the_runs_warns() -> None:
    """Otherwise hyperparameters would leave their ranges without a warning."""
    wide = {"rate": LogUniform(1e-9, 1.0)}
    policy = PopulationBasedTraining(Perturb(wide), 5)
    with pytest.warns(UserWarning, match="mutate_fn explores rate in another domain"):
        PopulationController.from_space(RATE, 2, policy)


def test_exploring_some_of_the_space_is_quiet() -> None:
    """Hyperparameters that the function does not move stay equal."""
    both = RATE | {"layers": Integer(1, 4)}
    PopulationController.from_space(both, 2, PopulationBasedTraining(Perturb(RATE), 5))
