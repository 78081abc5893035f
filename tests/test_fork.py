"""`population.fork`: another policy continues a run, or from one of its points."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

import population
from population import Checkpoint, PopulationController, Stop
from population.core.retention import Keep
from population.mutators import (
    FixedSchedule,
    PopulationBasedTraining,
    WinnerTakeAllGenetic,
)
from population.params import FileParams
from tests import probe
from tests.helpers import (
    Scripted,
    assert_is_a_forest,
    branch_at,
    content,
    generation,
    told,
    work,
)


def smaller(meta_params: float, rng: np.random.Generator) -> float:
    """A random number below the old one."""
    return meta_params * float(rng.random())


def winner() -> WinnerTakeAllGenetic:
    """A round every four steps."""
    return WinnerTakeAllGenetic(smaller, 4)


def train(controller: PopulationController, steps: int) -> None:
    """Raw workers; the one with the smallest number is the best."""
    for _ in range(steps):
        for worker_id in range(3):
            newest = probe.newest(controller)[worker_id]
            value = newest.meta_params + 1 / (newest.step + 1)
            params = {"w": np.full(3, newest.step + 1.0)}
            at = generation(controller, worker_id), newest.step + 1
            controller.set_eval(worker_id, *at, params, value)


def trained(folder: pathlib.Path, **options: Any) -> PopulationController:
    """A run of ten steps with two rounds."""
    controller = PopulationController([1.0, 2.0, 3.0], winner(), folder, **options)
    train(controller, 10)
    probe.settle()
    return controller


@pytest.fixture
def folders(tmp_path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The folders of the old and of the new run."""
    return tmp_path / "old", tmp_path / "new"


def test_a_fork_goes_on_where_the_run_is(
    folders: tuple[pathlib.Path, pathlib.Path],
) -> None:
    """History, weights and hyperparameters are equal; the old run does not change."""
    old = trained(folders[0], seed=3)
    before = content(old)
    new = population.fork(old, folders[1], mutator=FixedSchedule({0: 1.0, 12: 0.5}))
    assert told(new)[: len(told(old))] == told(old)
    begun = [(c.worker_id, c.step, c.meta_params) for c in new.history()][
        len(told(old)) :
    ]
    changed = [w for w in range(3) if probe.newest(old)[w].meta_params != 1.0]
    assert begun == [(w, 10, 1.0) for w in changed], "the schedule is in force at once"
    assert new.seed == 3
    for worker_id in range(3):
        arrays = work(new, worker_id).params
        assert arrays["w"].tolist() == [10.0] * 3
    train(new, 4)
    assert new.newest(0).meta_params == 0.5
    assert content(old) == before
    train(old, 4)
    assert_is_a_forest(new.graph)
    again = PopulationController(
        [None] * 3, FixedSchedule({0: 1.0, 12: 0.5}), folders[1], seed=3
    )
    assert told(again) == told(new)
    for controller in (old, new, again):
        controller.close()


def test_a_fork_from_a_point_knows_nothing_of_what_came_later(
    folders: tuple[pathlib.Path, pathlib.Path],
) -> None:
    """The transaction of the checkpoint is the last one, with its decisions."""
    old = trained(folders[0], keep=Keep(everything=True))
    opened = [c for c in old.history() if c.reason != "start"]
    at = old.graph.checkpoint(opened[0].parent or opened[0].ref)
    last = next(c for c in old.history() if c.step == 4 and c.worker_id == 2)
    points: list[Checkpoint | int] = [at, at.row, last]
    for number, point in enumerate(points):
        folder = folders[1] / str(number)
        new = population.fork(old, folder, mutator=winner(), at=point)
        kept = told(new)
        assert kept == told(old)[: len(kept)]
        assert len(kept) < len(told(old))
        row = point if isinstance(point, int) else point.row
        assert row in [checkpoint.row for checkpoint in new.history()]
        for worker_id in range(3):
            found = work(new, worker_id)
            assert found.params["w"].tolist() == [float(found.step)] * 3
        assert new.best() == min(
            (c for c in new.history() if c.value is not None), key=_value
        )
        new.close()
    old.close()


def _value(checkpoint: Checkpoint) -> float:
    assert checkpoint.value is not None
    return checkpoint.value


def test_a_fork_with_the_same_policy_decides_as_the_run_would(
    folders: tuple[pathlib.Path, pathlib.Path],
) -> None:
    """Forked at the beginning, the same reports make the same branches."""
    old = trained(folders[0])
    start = max(c.row for c in old.history() if c.step == 0 and c.reason == "start")
    new = population.fork(folders[0], folders[1], mutator=winner(), at=start)
    train(new, 10)
    assert _without_params(new) == _without_params(old)
    old.close()
    new.close()


def _without_params(controller: PopulationController) -> list[tuple[Any, ...]]:
    return [row[:2] + row[3:] for row in told(controller)]


def test_neither_run_removes_what_the_other_needs(
    folders: tuple[pathlib.Path, pathlib.Path],
) -> None:
    """Files are shared, but each run has its own name for them."""
    old = trained(folders[0])
    new = population.fork(old, folders[1], mutator=winner())
    needed = [c for c in new.history() if c.params is not None]
    assert needed
    train(old, 12)
    for checkpoint in needed:
        new.load(checkpoint)
    needed = [c for c in old.history() if c.params is not None]
    train(new, 12)
    for checkpoint in needed:
        old.load(checkpoint)
    probe.settle()
    first = folders[1] / "params"
    assert len(list(first.rglob("*.safetensors"))) <= 1.2 * len(new.reachable()) + 1
    old.close()
    new.close()


def test_what_was_removed_since_counts_as_removed(
    folders: tuple[pathlib.Path, pathlib.Path], caplog: pytest.LogCaptureFixture
) -> None:
    """The slots begin from what is left, and a warning says what would help."""
    old = trained(folders[0])
    at = next(c for c in old.history() if c.step == 3 and c.worker_id == 2)
    new = population.fork(old, folders[1], mutator=winner(), at=at)
    for worker_id in range(3):
        assert work(new, worker_id).params is None
        assert work(new, worker_id).step == 0
    assert "Keep(everything=True)" in caplog.text
    train(new, 3)
    old.close()
    new.close()


def test_params_of_the_users_own_store_are_shared_and_never_removed(
    tmp_path: pathlib.Path, folders: tuple[pathlib.Path, pathlib.Path]
) -> None:
    """Only the run that saved them may remove them."""
    store = FileParams(tmp_path / "store")
    old = trained(folders[0], params=store)
    new = population.fork(old, folders[1], mutator=winner(), params=store)
    kept = set((tmp_path / "store").rglob("*.safetensors"))
    train(new, 10)
    assert kept <= set((tmp_path / "store").rglob("*.safetensors"))
    old.close()
    new.close()


def test_options_are_those_of_the_new_controller(
    folders: tuple[pathlib.Path, pathlib.Path],
) -> None:
    """For example when the run ends."""
    old = trained(folders[0])
    new = population.fork(old, folders[1], mutator=winner(), stop=Stop(steps=10))
    assert new.finished
    old.close()
    new.close()


def test_a_fork_that_cannot_be_made_leaves_nothing(
    folders: tuple[pathlib.Path, pathlib.Path],
) -> None:
    """Each error says what is needed."""
    old, new = folders
    with pytest.raises(population.JournalError, match="must be the log_dir of a run"):
        population.fork(old, new, mutator=winner())
    run = trained(old)
    with pytest.raises(ValueError, match=r"at must be a row .*ends at \d+, got 10000"):
        population.fork(run, new, mutator=winner(), at=10_000)
    with pytest.raises(ValueError, match="at must be 1 or more"):
        population.fork(run, new, mutator=winner(), at=0)
    bad = Scripted(branch_at(1, 1.0))
    bad.init = lambda view: object()  # type: ignore[method-assign, assignment]
    with pytest.raises(TypeError):
        population.fork(run, new, mutator=bad)
    assert not (new / "journal.sqlite").exists()
    with pytest.raises(population.JournalError, match="a folder without a run"):
        population.fork(run, old, mutator=winner())
    population.fork(run, new, mutator=winner()).close()
    run.close()


def test_a_fork_can_be_replayed(folders: tuple[pathlib.Path, pathlib.Path]) -> None:
    """Its mutator is asked from its beginning on, not about what was copied."""
    old = trained(folders[0])
    new = population.fork(old, folders[1], mutator=winner())
    train(new, 10)
    found = population.replay(new, winner())
    assert found.first_difference is None, str(found)
    assert found.decisions
    assert all(decision.row > probe.last_row(old) for decision in found.decisions)
    old.close()
    new.close()


def test_bad_options_of_a_fork_are_refused_before_anything_is_written(
    folders: tuple[pathlib.Path, pathlib.Path],
) -> None:
    """Otherwise the next attempt would find half a run."""
    run = trained(folders[0])
    other = PopulationController([1.0, 2.0, 3.0], winner())
    for options in (
        {"stopp": 1},
        {"mode": "max"},
        {"worker_timeout": -1},
        {"keep": "all"},
        {"at": other.newest(0)},
    ):
        with pytest.raises((TypeError, ValueError)):
            population.fork(run, folders[1], **{"mutator": winner(), **options})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="mutator must be"):
        population.fork(run, folders[1], mutator=3)  # type: ignore[arg-type]
    assert not folders[1].exists()
    run.close()


def meanwhile(act: Any) -> Scripted:
    """A mutator whose `init` calls a function once, in the middle of a fork."""
    mutator = Scripted()
    left = [act]

    def init(view: Any) -> None:
        del view
        if left:
            left.pop()()

    mutator.init = init  # type: ignore[method-assign]
    return mutator


def test_of_two_forks_into_one_folder_the_second_is_refused(
    folders: tuple[pathlib.Path, pathlib.Path],
) -> None:
    """It does not touch the temporary file of the first one."""
    old = trained(folders[0])

    def second() -> None:
        with pytest.raises(population.JournalError, match="another fork is being"):
            population.fork(folders[0], folders[1], mutator=winner())

    new = population.fork(old, folders[1], mutator=meanwhile(second))
    assert told(new) == told(old)
    assert {path.name for path in folders[1].iterdir()} >= {"journal.sqlite", "params"}
    assert not list(folders[1].glob(".journal*"))
    old.close()
    new.close()


@pytest.mark.parametrize("can_link", [True, False])
def test_a_run_that_is_made_in_the_folder_of_a_fork_is_not_overwritten(
    can_link: bool,
    folders: tuple[pathlib.Path, pathlib.Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its acknowledged reports stay; the fork is refused and leaves nothing."""
    old = PopulationController(
        [1.0] * 3, winner(), folders[0]
    )  # Nothing is shared yet.
    made: list[PopulationController] = []

    def other() -> None:
        made.append(PopulationController([1.0] * 3, winner(), folders[1]))
        train(made[0], 2)

    if not can_link:

        def link(*paths: Any) -> None:
            raise OSError("no links here")

        monkeypatch.setattr("os.link", link)
    with pytest.raises(population.JournalError, match="a folder without a run"):
        population.fork(old, folders[1], mutator=meanwhile(other))
    before = told(made[0])
    made[0].close()
    again = PopulationController([1.0] * 3, winner(), folders[1])
    assert told(again) == before
    train(again, 1)
    files = {p.parent.name for p in folders[1].rglob("*.safetensors")}
    assert files == {generation(again, worker_id) for worker_id in range(3)}
    assert not list(folders[1].glob(".journal*"))
    again.close()
    old.close()


def rounds() -> PopulationBasedTraining:
    """All slots wait for each other at every second step."""
    return PopulationBasedTraining(smaller, steps_per_exploit=2, synchronous=True)


def advance(controller: PopulationController, *slots: int) -> None:
    """These slots train one step and report."""
    for worker_id in slots:
        step = probe.newest(controller)[worker_id].step + 1
        at = generation(controller, worker_id), step
        controller.set_eval(worker_id, *at, f"{worker_id} at {step}", float(worker_id))


def test_a_fork_does_not_wait_for_a_slot_that_was_given_up(
    folders: tuple[pathlib.Path, pathlib.Path],
) -> None:
    """Its other slots pass the barrier, until the slot reports to the fork."""
    old = PopulationController([1.0, 2.0, 3.0], rounds(), folders[0])
    advance(old, 0, 1, 2, 0, 1)
    old.give_up(2)
    new = population.fork(old, folders[1], mutator=rounds())
    assert probe.lost(old) == probe.lost(new) == {2}
    before = len(new.graph)
    for _ in range(4):
        advance(new, 0, 1)
    assert len(new.graph) > before
    assert not probe.waits(new, 0)
    again = PopulationController([None] * 3, rounds(), folders[1])
    assert probe.lost(again) == {2}
    again.close()
    advance(new, 2)
    assert probe.lost(new) == set()
    assert population.replay(new, rounds()).first_difference is None
    new.close()
    old.close()


def test_a_fork_knows_who_was_given_up_at_its_point(
    folders: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    """Not those given up later, or trained since; nor does a fork of the fork."""
    old = PopulationController([1.0, 2.0, 3.0], Scripted(), folders[0])
    advance(old, 0, 1)
    early = probe.last_row(old)
    advance(old, 0)
    old.give_up(2)
    old.give_up(1)
    given_up = probe.last_row(old)
    advance(old, 2)
    back = probe.last_row(old)
    advance(old, 1)
    lost = {early: set(), given_up: {1, 2}, back: {1}, None: set()}
    for at, expected in lost.items():
        folder = tmp_path / f"at {at}"
        new = population.fork(old, folder, mutator=Scripted(), at=at)
        other = population.fork(new, tmp_path / f"{at} again", mutator=Scripted())
        assert probe.lost(new) == probe.lost(other) == expected
        new.close()
        other.close()
    old.close()


def test_a_fork_whose_params_would_be_those_of_the_run_is_refused(
    folders: tuple[pathlib.Path, pathlib.Path],
) -> None:
    """For example by a symbolic link: nothing of the run is removed."""
    old = trained(folders[0])
    files = sorted(folders[0].rglob("*.safetensors"))
    folders[1].mkdir()
    (folders[1] / "params").symlink_to(folders[0] / "params")
    with pytest.raises(population.JournalError, match="in a folder of its own"):
        population.fork(old, folders[1], mutator=winner())
    assert sorted(folders[0].rglob("*.safetensors")) == files
    old.close()
