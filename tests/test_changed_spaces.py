"""A run that is opened with another structure, and `fork(space=...)` for it."""

from __future__ import annotations

import ast
import math
import pathlib
import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import population
from population import Mutator, PopulationController, RunMismatchError, Stop
from population.engines import processes, vectorized
from population.journal import sqlite_file
from population.journal.sqlite import SqliteJournal
from population.mutators import (
    FixedSchedule,
    MultiFrequencyPBT,
    PopulationBasedTraining,
    WinnerTakeAllGenetic,
)
from population.space import (
    Categorical,
    Gaussian,
    Integer,
    LogUniform,
    Ordinal,
    Perturb,
    Uniform,
    contains,
    sample,
)
from population.space.explore import immovable
from population.space.structure import differences, refitted
from tests import probe
from tests.engines import process_children
from tests.helpers import Scripted, assert_is_a_forest, content

RATE = LogUniform(1e-4, 1e-1)
NET = {"depth": Integer(1, 8), "layers": [Uniform(0, 1), Uniform(0, 1)]}
SPACE = {"lr": RATE, "net": NET, "betas": (Uniform(0.5, 0.9), 0.999), "name": "adam"}


def policy(space: Any, **options: Any) -> PopulationBasedTraining:
    """A decision every four steps."""
    return PopulationBasedTraining(Perturb(space), 4, **options)


def begun(space: Any, folder: Any, **options: Any) -> PopulationController:
    """A run of four workers that explores its space."""
    options = {"stop": Stop(steps=40)} | options
    synchronous = policy(space, synchronous=True)
    return PopulationController.from_space(space, 4, synchronous, folder, **options)


def loss(tree: Any) -> float:
    """The sum of all numbers, so that it depends on each hyperparameter."""
    if isinstance(tree, Mapping):
        return sum(loss(inner) for inner in tree.values())
    if isinstance(tree, (list, tuple)):
        return sum(map(loss, tree))
    return float(tree) if isinstance(tree, (int, float)) else 0.0


def train(
    controller: PopulationController,
    init: Callable[[Any], Any] = lambda _: {"w": np.zeros(1)},
    value: Callable[[Any, int], float] = lambda meta, step: loss(meta),
) -> None:
    """A loop of one worker that trains all slots in turn, to the end."""
    with controller.worker() as worker:
        while worker.running:
            if worker.poll():
                worker.restore(init)
            worker.step += 1
            if worker.step % 2 == 0:
                state = {"w": np.full(1, float(worker.step))}
                worker.report(value(worker.meta_params, worker.step), state)


def advance(
    controller: PopulationController,
    steps: int,
    value: Callable[[Any, int], float | None] = lambda meta, step: loss(meta),
) -> None:
    """Raw reports of all slots in parallel."""
    for _ in range(steps):
        for worker_id, (_, meta, name, step, *_rest) in enumerate(controller.workers):
            state = {"w": np.full(1, step + 1.0)}
            given = value(meta, step + 1)
            controller.set_eval(worker_id, name, step + 1, state, given)


def metas(controller: PopulationController) -> list[Any]:
    """The hyperparameters in force."""
    return [active.meta_params for active in controller.workers]


def changed(space: Any, place: str, value: Any = None) -> Any:
    """A space with another entry at a path; None removes it."""
    head, _, rest = place.partition("/")
    parts = dict(space) if isinstance(space, dict) else dict(enumerate(space))
    key: Any = head if isinstance(space, dict) else int(head)
    if rest:
        parts[key] = changed(parts[key], rest, value)
    elif value is None:
        del parts[key]
    else:
        parts[key] = value
    return parts if isinstance(space, dict) else type(space)(parts.values())


# A space of another structure.


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (changed(SPACE, "wd", RATE), "wd is new"),
        (changed(SPACE, "lr"), "lr is missing"),
        (changed(changed(SPACE, "lr"), "rate", RATE), "lr is missing, rate is new"),
        (changed(SPACE, "net/width", Ordinal([1, 2])), r"net\.width is new"),
        (changed(SPACE, "net/depth"), r"net\.depth is missing"),
        (changed(SPACE, "net/layers/2", RATE), r"net\.layers\[2\] is new"),
        (changed(SPACE, "net/layers/1"), r"net\.layers\[1\] is missing"),
        (changed(SPACE, "betas/2", 0.1), r"betas\[2\] is new"),
        (changed(SPACE, "betas", {"b1": RATE}), "betas was a tuple of 2, is now a di"),
        (changed(SPACE, "betas", [RATE, 1]), "betas was a tuple of 2, is now a list"),
        (changed(SPACE, "betas", RATE), r"betas was a tuple of 2, is now LogUniform"),
        (changed(SPACE, "lr", {"low": RATE}), r"lr was LogUniform.* is now a dict of"),
        (changed(SPACE, "name", [RATE]), "name was 'adam', is now a list of 1"),
        (
            changed(SPACE, "betas", Categorical([(0.9, 0.999), (0.9,)])),
            "betas was a tuple of 2, is now Categorical",
        ),
        (RATE, r"meta_params was a dict of 4, is now LogUniform"),
    ],
)
def test_another_structure_is_refused_when_the_run_is_opened(
    other: Any, said: str, tmp_path: pathlib.Path
) -> None:
    """The message has the path, and nothing changes: the old space still works."""
    with closing(begun(SPACE, tmp_path / "run")) as controller:
        advance(controller, 6)
        before = content(controller)
        for explored in (other, SPACE):
            mutator = policy(explored, synchronous=True)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="mutate_fn explores")
                with pytest.raises(RunMismatchError, match=said) as refused:
                    PopulationController(
                        [None] * 4, mutator, tmp_path / "run", space=other
                    )
            assert "Pass the space that it began with" in str(refused.value)
        assert content(controller) == before
    with closing(begun(SPACE, tmp_path / "run")) as again:
        train(again)
        assert again.finished


def test_the_fork_that_the_message_names_can_be_copied(tmp_path: pathlib.Path) -> None:
    """It is a valid call, and that run trains to its end."""
    space = SPACE | {"wd": RATE}
    begun(SPACE, tmp_path / "it's").close()
    with pytest.raises(RunMismatchError) as refused:
        begun(space, tmp_path / "it's")
    found = re.search(r"population\.fork\(.*\)", str(refused.value))
    assert found is not None
    ast.parse(found[0])
    names = {"population": population, "space": space, "mutator": policy(space)}
    with closing(eval(found[0], names)) as controller:
        assert controller.log_dir == tmp_path / "it's-forked"
        assert all(contains(space, meta) for meta in metas(controller))
        advance(controller, 20)


def test_a_run_that_cannot_be_forked_names_no_fork(tmp_path: pathlib.Path) -> None:
    """A run whose journal is not in a folder must begin again."""
    journal = SqliteJournal()
    PopulationController.from_space({"lr": RATE}, 1, Scripted(), journal=journal)
    with pytest.raises(RunMismatchError, match=r"wd is new.* start a new run") as told:
        PopulationController.from_space(
            {"lr": RATE, "wd": RATE}, 1, Scripted(), journal=journal
        )
    assert "fork" not in str(told.value)


@pytest.mark.parametrize(
    "other",
    [
        changed(SPACE, "lr", LogUniform(1e-6, 1)),
        changed(SPACE, "lr", LogUniform(1e-3, 1e-2)),
        changed(SPACE, "lr", LogUniform(1e-4, 1e-1, start=(1e-3, 1e-2))),
        changed(SPACE, "lr", Uniform(1e-4, 1e-1)),
        changed(SPACE, "lr", 0.01),
        changed(SPACE, "betas/1", Uniform(0.9, 0.999)),
        changed(SPACE, "betas", Categorical([(0.9, 0.999), (0.8, 0.99)])),
        changed(SPACE, "name", Categorical(["adam", "sgd"])),
        changed(SPACE, "net/depth", Ordinal([1, 2, 4, 8])),
        dict(reversed(SPACE.items())),
    ],
)
def test_other_values_go_on_as_before(other: Any, tmp_path: pathlib.Path) -> None:
    """Ranges, priors, kinds of domains and constants cause a warning, no error."""
    with closing(begun(SPACE, tmp_path)) as controller:
        advance(controller, 6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        controller = begun(other, tmp_path)
    told = [str(warning.message) for warning in caught]
    assert len(told) == (0 if other == SPACE else 2), told
    if told:
        assert told[0].startswith("The run goes on with other arguments of its mutat")
        assert told[1].startswith("The run goes on with another space")
    with closing(controller):
        train(controller)
        assert controller.finished


def test_a_space_that_is_told_later_must_fit_the_run(tmp_path: pathlib.Path) -> None:
    """It would be recorded for ever; entries that it does not name are allowed."""
    first: list[Any] = [{"lr": 0.01, "note": "a"}, {"lr": 0.02, "note": "b"}]
    PopulationController(first, Scripted(), tmp_path).close()
    with pytest.raises(RunMismatchError, match=r"another structure than.*: wd is new"):
        PopulationController(
            first, Scripted(), tmp_path, space={"lr": RATE, "wd": RATE}
        )
    for space in ({"lr": RATE}, None):
        controller = PopulationController(first, Scripted(), tmp_path, space=space)
        assert controller.space == {"lr": RATE}
        controller.close()


# A space that only the mutator has.


@pytest.mark.parametrize("explore", [Perturb, Gaussian])
def test_a_new_run_that_its_mutate_fn_cannot_explore_is_refused(
    explore: Any, tmp_path: pathlib.Path
) -> None:
    """It would end at its first decision; nothing of it is made."""
    mutator = PopulationBasedTraining(explore({"lr": RATE, "net": NET}), 4)
    net = {"depth": 2, "layers": [0.1, 0.2]}
    good = {"lr": 0.01, "net": net, "note": "more is allowed"}
    for bad, said in (
        ({"lr": 0.01}, "must be a dict with 'net'"),
        ({"lr": 0.01, "net": {"depth": 2}}, "net must be a dict with 'layers'"),
        (good | {"net": net | {"layers": [0.1]}}, "net/layers must be a list of 2"),
        (good | {"lr": "fast"}, "lr must be a number to move in"),
        (good | {"lr": [0.1]}, "lr must be a number to move in"),
        (None, "must be a dict"),
    ):
        with pytest.raises(
            ValueError, match=r"explore initial_population\[1\]"
        ) as told:
            PopulationController([good, bad], mutator, tmp_path)
        assert said in str(told.value)
        assert not isinstance(told.value, RunMismatchError)
    PopulationController([good, good | {"lr": 5.0}], mutator, tmp_path).close()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"lr": RATE, "wd": RATE}, "wd is new"),
        ({"lr": {"of": RATE}}, "lr was 0.01, is now a dict"),
        ({"name": RATE}, "name must be a number to move"),
        ([RATE], "is now a list of 1"),
    ],
)
def test_a_mutate_fn_that_cannot_explore_the_run_is_refused(
    other: Any, said: str, tmp_path: pathlib.Path
) -> None:
    """This holds even if no space was recorded; nothing changes."""
    first = [{"lr": 0.01, "name": "adam"}] * 4
    old = PopulationController(first, policy({"lr": RATE}), tmp_path)
    advance(old, 4)
    before = content(old)
    for initial in (first, [None] * 4):
        with pytest.raises(RunMismatchError, match=said) as refused:
            PopulationController(initial, policy(other), tmp_path)
        assert "population.fork(" in str(refused.value)
    assert content(old) == before
    old.close()
    stop = Stop(steps=30)
    with closing(
        PopulationController(first, policy({"lr": RATE}), tmp_path, stop=stop)
    ) as again:
        train(again)
        assert again.finished


def test_a_mutate_fn_that_explores_less_goes_on(tmp_path: pathlib.Path) -> None:
    """Entries that its space does not name stay unchanged."""
    first = [{"lr": 0.01, "wd": 0.1}] * 4
    PopulationController(first, policy({"lr": RATE, "wd": RATE}), tmp_path).close()
    with pytest.warns(UserWarning, match=r"mutate_fn\.space\.wd: .* -> not given"):
        controller = PopulationController(
            first, policy({"lr": RATE}), tmp_path, stop=Stop(steps=20)
        )
    with closing(controller):
        train(controller)
        assert {meta["wd"] for meta in metas(controller)} == {0.1}


# An initial population of another structure.


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"lr": 1.0, "net": {"widths": (1, 2)}, "wd": 0.0}, "wd is new"),
        ({"lr": 1.0}, "net is missing"),
        ({"lr": 1.0, "net": {"widths": (1, 2, 3)}}, r"net\.widths\[2\] is new"),
        ({"rate": 1.0, "of": {"widths": (1, 2)}}, "lr is missing, net is missing"),
        ({"lr": {"w": 1}, "net": {"widths": (1, 2)}}, r"lr was 0\.01, is now a dict"),
        (
            {"lr": 1.0, "net": {"width": 3}},
            r"net\.widths is missing, net\.width is new",
        ),
    ],
)
def test_an_initial_population_of_another_structure_is_refused(
    entry: Any, said: str, tmp_path: pathlib.Path
) -> None:
    """Otherwise a loop for the new structure fails on the recorded one."""
    first = {"lr": 0.01, "net": {"widths": (8, 8)}}
    old = PopulationController([first] * 2, Scripted(), tmp_path)
    before = content(old)
    with pytest.raises(RunMismatchError, match=rf"population\[1\] .*{said}") as told:
        PopulationController([first, entry], Scripted(), tmp_path)
    assert "None for each worker" in str(told.value)
    assert content(old) == before
    old.close()
    same = {"lr": 3, "net": {"widths": (1, 0.5)}}
    of_a_file = {"lr": 3, "net": {"widths": [1, 0.5]}}
    entries: list[list[Any]] = [[0, 1]]
    entries += [[entry] * 2 for entry in (same, of_a_file, None, {})]
    for again in entries:
        PopulationController(again, Scripted(), tmp_path).close()


def test_slots_may_have_different_keys(tmp_path: pathlib.Path) -> None:
    """A loop that knows all keys may draw them each time that it begins."""
    sgd, adam = {"of": "sgd", "momentum": 0.9}, {"of": "adam", "b1": 0.9, "b2": 0.99}
    PopulationController([sgd, adam], Scripted(), tmp_path).close()
    rms = {"of": "rms", "decay": 0.9}
    for first in ([sgd, adam], [adam, sgd], [adam, adam], [sgd, None], [rms, sgd]):
        PopulationController(first, Scripted(), tmp_path).close()


def test_the_values_of_a_choice_may_have_any_structure(tmp_path: pathlib.Path) -> None:
    """They are one hyperparameter, whatever value a slot has."""
    space = {"net": Categorical([[1], [1, 2], {"a": 1}]), "lr": RATE}
    begun(space, tmp_path, seed=3).close()
    for value in ([1], [1, 2], {"a": 1}):
        first = [{"net": value, "lr": 0.01}] * 4
        for given_space in (space, None):
            PopulationController(
                first,
                policy(space, synchronous=True),
                tmp_path,
                seed=3,
                space=given_space,
            ).close()


def test_what_a_policy_has_put_in_force_is_known(tmp_path: pathlib.Path) -> None:
    """A schedule may bring other keys; the message can name both structures."""
    first, later = {"lr": 0.1}, {"lr": 0.01, "wd": 0.1}
    mutator = FixedSchedule({0: first, 2: later})
    with closing(PopulationController([first], mutator, tmp_path)) as controller:
        advance(controller, 4)
        assert metas(controller) == [later]
    for entry in (first, later):
        PopulationController([entry], mutator, tmp_path).close()


# Changes of the mutator.


def test_the_warning_names_what_has_changed_of_the_mutator(
    tmp_path: pathlib.Path,
) -> None:
    """It names each argument, and the path in the space; equal ones are left out."""
    first = [{"lr": 0.01, "net": {"depth": 2, "layers": [0.1, 0.2]}}] * 2
    space: Any = {"lr": RATE, "net": NET}
    PopulationController(first, policy(space), tmp_path).close()
    wider = changed(space, "lr", LogUniform(1e-4, 1))
    wider = changed(wider, "net/layers/1", Integer(0, 3))
    other = PopulationBasedTraining(Perturb(wider, (0.5, 1.25)), 9, burn_in=3)
    with pytest.warns(UserWarning, match="other arguments") as caught:
        PopulationController(first, other, tmp_path).close()
    assert [str(warning.message) for warning in caught] == [
        "The run goes on with other arguments of its mutator: "
        "mutate_fn.space.lr.high: 0.1 -> 1.0, "
        "mutate_fn.space.net.layers[1]: Uniform(low=0.0, high=1.0, start=None) -> "
        "Integer(low=0, high=3, start=None, logarithmic=False), "
        "mutate_fn.factors[0]: 0.8 -> 0.5, steps_per_exploit: 4 -> 9, burn_in: 0 -> 3."
    ]
    assert pathlib.Path(caught[0].filename).name == "test_changed_spaces.py"


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({"a": 1}, {"a": 1}, ""),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, "a[1].b: 2 -> 3"),
        ({"a": [1]}, {"a": [1, 2]}, "a: [1] -> [1, 2]"),
        ({"a": 1}, {}, "a: 1 -> not given"),
        ({}, {"a": None}, "a: not given -> None"),
        ({"a": math.nan}, {"a": math.nan}, ""),
        ({"a": {0: 1.0, 9: 2.0}}, {"a": {0: 1.0, 9: 3.0}}, "a[9]: 2.0 -> 3.0"),
        ({"a": "x" * 500}, {"a": 1}, "a: 'xxxxxxxxx"),
        ({str(i): 0 for i in range(50)}, {str(i): 1 for i in range(50)}, "and 40 more"),
    ],
)
def test_a_difference_is_short(before: Any, now: Any, said: str) -> None:
    """However large it is."""
    found = probe.difference(before, now)
    assert said in found if said else not found
    assert len(found) < 200


# Random spaces.

KEYS = st.sampled_from(["a", "b", "c", "d", 1])
LEAVES = st.sampled_from(
    [RATE, Uniform(-1, 1), Integer(1, 9), Ordinal([1, 2, 4]), Categorical(["x", "y"])]
)
CONSTANTS = st.sampled_from([0, "adam", None, True])


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A dict, a list or a tuple."""
    lists = st.lists(inner, min_size=1, max_size=3)
    dicts = st.dictionaries(KEYS, inner, min_size=1, max_size=3)
    return dicts | lists | lists.map(tuple)


TREES = st.recursive(LEAVES | CONSTANTS, nested, max_leaves=8)
SPACES = st.dictionaries(KEYS, TREES, min_size=1, max_size=3).map(
    lambda tree: {**tree, "lr": RATE}
)


def places(tree: Any) -> Any:
    """The structure alone: with None in place of each leaf."""
    if isinstance(tree, dict):
        return {key: places(inner) for key, inner in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(places(inner) for inner in tree)
    return None


@given(SPACES, SPACES)
def test_spaces_differ_if_and_only_if_their_structures_do(one: Any, two: Any) -> None:
    """Both directions hold, also for the meta_params that are drawn from the spaces."""
    differ = places(one) != places(two)
    assert bool(differences(one, two)) == bool(differences(two, one)) == differ
    rng = np.random.default_rng(0)
    drawn = sample(one, rng), sample(two, rng)
    assert bool(differences(*drawn)) == differ
    assert not differences(one, one)
    assert not differences(drawn[0], sample(one, rng), one)


@given(SPACES, SPACES, st.integers(0, 99))
def test_refitted_meta_params_are_of_the_new_space(
    one: Any, two: Any, seed: int
) -> None:
    """Nothing else is left, common entries stay, and equal seeds draw alike."""
    before = sample(one, np.random.default_rng(seed))
    found = refitted(two, before, one, np.random.default_rng(seed))
    assert contains(two, found)
    assert not differences(two, found, two)
    assert immovable(two, found) is None
    assert refitted(two, before, one, np.random.default_rng(seed)) == found
    assert refitted(two, found, two, np.random.default_rng(9)) == found
    assert refitted(one, before, one, np.random.default_rng(9)) == before
    assert found["lr"] == before["lr"]


@given(SPACES, SPACES)
def test_perturb_explores_what_is_not_immovable(one: Any, two: Any) -> None:
    """The check at the opening refuses exactly what the first decision would refuse."""
    meta_params = sample(one, np.random.default_rng(0))
    explore = Perturb(two, resample_probability=0.0)
    if immovable(two, meta_params) is None:
        explore(meta_params, np.random.default_rng(1))
    else:
        with pytest.raises(ValueError, match="must be a"):
            explore(meta_params, np.random.default_rng(1))


def test_entries_that_no_space_has_named_stay() -> None:
    """In a run without a space, only entries of the new one are removed."""
    rng = np.random.default_rng(0)
    meta_params = {"lr": 0.01, "wd": 0.1, "width": 8, "net": {"a": 1, "b": 2}}
    former = {"lr": RATE, "wd": RATE, "net": {"a": Integer(1, 3)}}
    space = {"lr": RATE, "net": {"c": "x"}}
    found = refitted(space, meta_params, former, rng)
    assert found == {"lr": 0.01, "width": 8, "net": {"b": 2, "c": "x"}}
    found = refitted(space, meta_params, None, rng)
    assert found == {"lr": 0.01, "net": {"c": "x"}}


# Forks with another space.

OTHER = {
    "wd": LogUniform(1e-6, 1e-3),
    "lr": RATE,
    "net": {
        "width": Ordinal([16, 32]),
        "layers": [Uniform(0, 1), Uniform(0, 1), Uniform(2, 3)],
    },
    "betas": (Uniform(0.5, 0.9),),
}


def strict(meta_params: Any) -> Any:
    """An `init` that needs each key of the other space, and no others."""
    assert places(meta_params) == places(OTHER), meta_params
    return {"w": np.zeros(1)}


def forked(
    run: Any, folder: pathlib.Path, mutator: Mutator[Any], **options: Any
) -> PopulationController:
    """A fork with the other space."""
    options = {"space": OTHER, "stop": Stop(steps=48), **options}
    return population.fork(run, folder, mutator=mutator, **options)


POLICIES: list[Callable[[], Mutator[Any]]] = [
    lambda: policy(OTHER),
    lambda: policy(OTHER, synchronous=True),
    lambda: policy(OTHER, synchronous=True, exploit=None, keep_best=False),
    lambda: PopulationBasedTraining(None, 4),
    lambda: WinnerTakeAllGenetic(Perturb(OTHER), 4),
    lambda: WinnerTakeAllGenetic(Gaussian(OTHER), 4, synchronous=True),
    lambda: MultiFrequencyPBT(Perturb(OTHER), 4, frequencies=(1,)),
]


def seldom(meta_params: Any, step: int) -> float | None:
    """Every other report has no value."""
    return loss(meta_params) if step % 4 == 0 else None


def never(meta_params: Any, step: int) -> None:
    """The state is saved, and never evaluated."""
    del meta_params, step


@pytest.mark.parametrize("make", POLICIES)
@pytest.mark.parametrize(
    ("until", "value"), [(0, seldom), (2, never), (6, seldom), (7, seldom), (8, seldom)]
)
@pytest.mark.parametrize("diverges", [False, True])
def test_a_fork_into_another_space_trains_to_the_end(
    make: Callable[[], Mutator[Any]],
    until: int,
    value: Any,
    diverges: bool,
    tmp_path: pathlib.Path,
) -> None:
    """Each slot has all that the loop needs, also if it diverged and goes back."""
    with closing(begun(SPACE, tmp_path / "old")) as old:
        advance(old, until, value)
        work, reports = old.workers, probe.reports(old)
        best = old.best()
    stop = Stop(reports=reports + 80)
    with closing(forked(tmp_path / "old", tmp_path / "new", make(), stop=stop)) as new:
        assert (new.space, new.best()) == (OTHER, best)
        assert probe.reports(new) == reports
        row, first = probe.last_row(new), new.workers
        assert len({found.meta_params["wd"] for found in first}) == 4
        for found, was in zip(first, work, strict=True):
            assert (found.step, found.params) == (was.step, was.params)
            assert_is_refitted(found.meta_params, was.meta_params)
        left = iter([math.nan] * (8 if diverges else 0))
        train(new, strict, lambda meta, step: next(left, loss(meta)))
        assert new.finished
        assert_is_a_forest(new.graph)
        later = [c for c in new.history() if c.row > row]
        assert len(later) > 40
        assert all(places(c.meta_params) == places(OTHER) for c in later)
        replayed = population.replay(new, make())
        assert replayed.first_difference is None, str(replayed)


def assert_is_refitted(found: Any, was: Any) -> None:
    """Entries of both spaces are unchanged, and the others are in the new space."""
    assert contains(OTHER, found)
    assert places(found) == places(OTHER)
    assert found["lr"] == was["lr"]
    assert found["net"]["layers"][:2] == was["net"]["layers"]
    assert found["betas"] == was["betas"][:1]


def test_equal_forks_draw_alike(tmp_path: pathlib.Path) -> None:
    """They use the run's seed; a fork of the fork draws other numbers."""
    seen = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        begun(SPACE, tmp_path / name, seed=seed).close()
        new = forked(tmp_path / name, tmp_path / f"{name}2", policy(OTHER))
        seen.append([meta["wd"] for meta in metas(new)])
        new.close()
    assert seen[0] == seen[1] != seen[2]
    space = OTHER | {"eps": OTHER["wd"]}
    options = {"space": space}
    again = forked(tmp_path / "a2", tmp_path / "a3", policy(space), **options)
    assert [meta["wd"] for meta in metas(again)] == seen[0]
    assert not {meta["eps"] for meta in metas(again)} & {*seen[0]}
    again.close()


def test_a_fork_goes_on_when_it_is_opened_again(tmp_path: pathlib.Path) -> None:
    """It has its own space and population; the old ones are refused at every point."""
    with closing(begun(SPACE, tmp_path / "old")) as old:
        advance(old, 6)
        first = metas(old)
    with closing(forked(tmp_path / "old", tmp_path / "new", policy(OTHER))) as new:
        advance(new, 20)
        now, start = metas(new), new.graph.root(new.workers[0].generation_id)
    for folder in (tmp_path / "new", tmp_path / "plain"):
        for space in (OTHER, None):
            with closing(
                PopulationController(now, policy(OTHER), folder, space=space)
            ) as again:
                assert again.space == OTHER
        with pytest.raises(RunMismatchError, match=r"population\[0\].*name is new"):
            PopulationController(first, policy(OTHER), folder)
        with pytest.raises(RunMismatchError, match="wd is missing"):
            PopulationController([None] * 4, policy(SPACE), folder, space=SPACE)
        if folder.name == "new":  # A fork of the fork knows how that one began.
            population.fork(
                folder, tmp_path / "plain", mutator=policy(OTHER), at=start
            ).close()
    back = policy(SPACE)
    earlier = population.fork(
        tmp_path / "new", tmp_path / "x", mutator=back, at=1, space=SPACE
    )
    assert metas(earlier) == [c.meta_params for c in earlier.history()][:4]
    earlier.close()


def test_a_fork_that_mutate_fn_cannot_explore_is_not_made(
    tmp_path: pathlib.Path,
) -> None:
    """The message says what to pass, and with that the fork is made."""
    with closing(begun(SPACE, tmp_path / "old")) as old:
        before = content(old)
        bad: list[Any] = [{"lr": 0.1}, {"lr": LogUniform}]
        for space in (None, SPACE):
            with pytest.raises(
                ValueError, match=r"wd is new.*fork\(\.\.\., space=space\)"
            ):
                population.fork(
                    old, tmp_path / "new", mutator=policy(OTHER), space=space
                )
        for space in bad:
            with pytest.raises(ValueError, match=r"at least one domain|class LogUn"):
                population.fork(
                    old, tmp_path / "new", mutator=policy(OTHER), space=space
                )
        assert not (tmp_path / "new" / "journal.sqlite").exists()
        assert content(old) == before
    forked(tmp_path / "old", tmp_path / "new", policy(OTHER)).close()


def test_a_fork_into_the_same_space_opens_nothing(tmp_path: pathlib.Path) -> None:
    """Wider ranges are recorded; values outside a narrower one stop at its bound."""
    space = {"lr": RATE}
    begun(space, tmp_path / "old").close()
    wider = {"lr": LogUniform(1e-5, 1)}
    options = {"space": wider}
    with closing(
        forked(tmp_path / "old", tmp_path / "1", policy(wider), **options)
    ) as c:
        assert c.space == wider
        assert len(list(c.history())) == 4
        before = metas(c)
    options = {"space": {"lr": LogUniform(1e-5, 1e-4)}}
    narrow = policy(options["space"])
    with closing(forked(tmp_path / "1", tmp_path / "2", narrow, **options)) as c:
        assert all(meta["lr"] >= 1e-4 for meta in before)
        assert [meta["lr"] for meta in metas(c)] == [1e-4] * 4


def test_entries_that_only_the_population_has_stay_in_a_fork(
    tmp_path: pathlib.Path,
) -> None:
    """Entries of the run's mutate_fn are known without a space, too."""
    first = [{"lr": 0.01, "wd": 0.1, "width": i} for i in range(4)]
    PopulationController(
        first, policy({"lr": RATE, "wd": RATE}), tmp_path / "old"
    ).close()
    space = {"lr": RATE, "eps": RATE}
    with closing(
        population.fork(
            tmp_path / "old", tmp_path / "new", mutator=policy(space), space=space
        )
    ) as new:
        assert [{*meta} for meta in metas(new)] == [{"lr", "width", "eps"}] * 4
        assert [meta["width"] for meta in metas(new)] == [0, 1, 2, 3]


# Engines and readers.


def test_processes_and_stacked_populations_are_refused_before_they_begin(
    tmp_path: pathlib.Path,
) -> None:
    """The controller of both refuses it; a fork trains in either."""
    one, two = {"h": Uniform(0, 2)}, {"h": Uniform(0, 2), "k": Uniform(0, 1)}
    begun(one, tmp_path / "old", stop=Stop(steps=8)).close()
    with pytest.raises(RunMismatchError, match="k is new"):
        begun(two, tmp_path / "old")
    for name in ("processes", "stacked"):
        with closing(
            forked(
                tmp_path / "old",
                tmp_path / name,
                policy(two, synchronous=True),
                space=two,
                stop=Stop(steps=8),
            )
        ) as new:
            if name == "processes":
                processes.run(process_children.train, new, 2, progress=False)
            else:
                vectorized.run(
                    new,
                    _init,
                    _step,
                    _evaluate,
                    4,
                    evaluation=np.zeros(1),
                    data=np.zeros(1),
                    batching="vmap",
                    progress=False,
                )
            assert new.finished
            assert [{*meta} for meta in metas(new)] == [{"h", "k"}] * 4


def _init(key: Any, meta_params: Any) -> Any:
    del key
    return {"w": jnp.zeros(()) * meta_params["k"]}


def _step(state: Any, meta_params: Any, batch: Any, key: Any) -> Any:
    del batch, key
    return {"w": state["w"] + meta_params["h"] * meta_params["k"]}


def _evaluate(state: Any, meta_params: Any, batch: Any) -> Any:
    del meta_params, batch
    return state["w"]


def test_who_only_looks_may_have_any_space(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes no decision; the recorded space is shown."""
    begun({"lr": RATE}, tmp_path).close()
    monkeypatch.setattr(sqlite_file, "is_protected", lambda path: True)
    with pytest.warns(UserWarning, match="other arguments of its mutator"):
        reader = begun({"lr": RATE, "wd": RATE}, tmp_path)
    assert reader.space == {"lr": RATE}
    reader.close()
