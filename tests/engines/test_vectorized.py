"""The stacked engine: equal to threads, resumed after any fault, with any policy."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest

import population
from population import Mutator, PopulationController, Stop
from population.base.errors import ClaimError
from population.base.types import InMemory, Saved
from population.engines import vectorized
from population.engines.stacked.placement import Placement
from population.engines.stacked.rounds import PopulationTrainer
from population.mutators import (
    REGISTRY,
    BranchingSingleMachine,
    FixedSchedule,
    PopulationBasedTraining,
    WinnerTakeAllGenetic,
)
from tests import probe
from tests.engines import regression, vectorized_child
from tests.helpers import assert_is_a_forest
from tests.mutators.factories import FACTORIES

Make = Callable[[], Mutator[Any]]


def pbt() -> Mutator[Any]:
    """Members that copy each other every ten steps."""
    return PopulationBasedTraining(regression.mutate, 10, synchronous=True)


def winner() -> Mutator[Any]:
    """All members copy the best one."""
    return WinnerTakeAllGenetic(
        regression.mutate, steps_per_exploit=10, synchronous=True
    )


def schedule() -> Mutator[Any]:
    """Another learning rate at step 15."""
    first, second = regression.metas(2)
    return FixedSchedule({0: first, 15: second})


POLICIES: dict[str, tuple[Make, int]] = {
    "pbt": (pbt, 5),
    "winner": (winner, 4),
    "schedule": (schedule, 3),
    "back": (regression.GoBack, 3),
}


@pytest.mark.parametrize("name", POLICIES)
def test_it_is_equal_to_threads(name: str) -> None:
    """Same seeds, data order and decisions: the same run within float tolerance."""
    make, size = POLICIES[name]
    ours = regression.controller(make(), size)
    theirs = regression.controller(make(), size)
    regression.stacked(ours)
    regression.by_threads(theirs)
    regression.assert_alike(ours, theirs)
    assert len(regression.decisions(ours)) > size


@pytest.mark.parametrize("batching", ["map", "loop"])
def test_each_way_of_batching_is_equal_to_threads(batching: str) -> None:
    """The way of batching changes only the last digits."""
    ours = regression.controller(pbt())
    theirs = regression.controller(pbt())
    regression.stacked(ours, batching=batching)
    regression.by_threads(theirs)
    regression.assert_alike(ours, theirs)


def test_with_one_batch_for_all_it_is_equal_to_threads() -> None:
    """All members share the batches of (seed, step)."""
    ours = regression.controller(pbt())
    theirs = regression.controller(pbt())
    regression.stacked(ours, shared_batches=regression.shared_batch)
    regression.by_threads(theirs, shared=True)
    regression.assert_alike(ours, theirs)


@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_members_that_were_set_back_see_the_batches_of_their_own_steps(
    batching: str,
) -> None:
    """With one batch for all, the others wait until they have caught up."""
    ours = regression.controller(regression.GoBack(), 3)
    theirs = regression.controller(regression.GoBack(), 3)
    regression.stacked(ours, shared_batches=regression.shared_batch, batching=batching)
    regression.by_threads(theirs, shared=True)
    regression.assert_alike(ours, theirs)


@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_members_that_begin_apart_wait_and_go_on_from_their_own_weights(
    batching: str,
) -> None:
    """With one batch for all, those ahead wait, and lose nothing."""
    metas = regression.metas(4)
    weights = np.array([1.0, 0.0, 0.0], np.float32)
    state = {"weights": weights, "opt_state": regression.optimizer.init(weights)}
    starts: list[Any] = [population.Start(metas[0], state, 10), *metas[1:]]

    def make() -> PopulationController:
        return PopulationController(starts, pbt(), stop=Stop(steps=40), seed=3)

    ours, theirs = make(), make()
    regression.stacked(
        ours,
        shared_batches=regression.shared_batch,
        batching=batching,
        save_every=1000,
    )
    regression.by_threads(theirs, shared=True)
    regression.assert_alike(ours, theirs)


def test_one_worker_that_explores_goes_back_to_snapshots() -> None:
    """Centre, down and up are tried from one checkpoint, then the best goes on."""

    def make() -> Mutator[Any]:
        return BranchingSingleMachine(direction, 10, 10)

    ours = regression.controller(make(), 1, steps=60)
    theirs = regression.controller(make(), 1, steps=60)
    regression.stacked(ours, save_every=1000)
    regression.by_threads(theirs)
    regression.assert_alike(ours, theirs)
    assert any(c.step > 0 and "neg" in c.reason for c in ours.history())


def direction(meta: Any, way: str, cycle: int) -> Any:
    """Half or twice the learning rate."""
    factor = {"neg": 0.5, "pos": 2.0}[way]
    return {**meta, "learning_rate": min(meta["learning_rate"] * factor, 0.2)}


def every_policy() -> Iterator[Any]:
    """The policies of the registry with all arguments, and one that goes far back."""
    for name in REGISTRY:
        for number, (make, size) in enumerate(FACTORIES[name]):
            fn = direction if name == "explore" else regression.mutate
            mutator = schedule() if name == "fixed" else make(fn)
            yield pytest.param(mutator, size, id=f"{name}-{number}")
    yield pytest.param(regression.GoBack(), 3, id="back")


@pytest.mark.parametrize(("mutator", "size"), list(every_policy()))
@pytest.mark.parametrize("save_every", [3, 1000])
def test_any_policy_trains_each_member_from_the_weights_that_it_was_given(
    mutator: Mutator[Any], size: int, save_every: int
) -> None:
    """With or without waiting, each lineage, trained again, has the same values."""
    ticks = itertools.count()
    clock: Any = {"clock": lambda: float(next(ticks))}
    found = regression.controller(mutator, size, **clock)
    regression.stacked(found, save_every=save_every)
    assert found.finished
    assert_is_a_forest(found.graph)
    retires = bool(probe.retired(found))  # A policy that halves opens no generation.
    assert len(found.graph) > size or retires
    best = found.best()
    assert best is not None
    for checkpoint in [best, *map(found.newest, range(size))]:
        if checkpoint.value is not None:
            again = regression.trained_again(found, checkpoint)
            np.testing.assert_allclose(checkpoint.value, again, rtol=2e-4, atol=1e-6)


def test_snapshots_are_what_may_be_needed_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`reachable()` names each; what it names is in a row or a snapshot."""
    found = regression.controller(regression.GoBack(), 3, steps=60)
    drop, seen = Placement.drop_all_but, []

    def checked(placement: Placement, keys: Any) -> None:
        drop(placement, keys)
        reachable = probe.reachable(found)
        named = {c.params for c in reachable if isinstance(c.params, InMemory)}
        newest = {checkpoint.params for checkpoint in probe.newest(found)}
        assert set(placement.snapshots) <= named
        assert named <= set(placement.snapshots) | newest
        seen.append(len(placement.snapshots))

    monkeypatch.setattr(Placement, "drop_all_but", checked)
    regression.stacked(found, save_every=1000)
    assert max(seen) >= 3
    assert min(seen[5:]) < max(seen)


def test_a_diverged_member_goes_on_from_the_last_finite_one() -> None:
    """With a save each round this is the same as in threads."""

    def make() -> PopulationController:
        starts = regression.metas(4)
        starts[3]["learning_rate"] = 1e4
        mutator = PopulationBasedTraining(regression.mutate, 10, synchronous=True)
        return PopulationController(starts, mutator, stop=Stop(steps=60), seed=3)

    ours, theirs = make(), make()
    regression.stacked(ours, save_every=1)
    regression.by_threads(theirs)
    assert sum(ours.diverged()) > 0
    assert regression.decisions(ours) == regression.decisions(theirs)
    assert all(np.isfinite(c.value or 0.0) for c in map(ours.newest, range(4)))


class Crash(BaseException):
    """Ends a process: nothing is saved on the way out."""


@pytest.mark.parametrize("name", ["pbt", "winner", "back"])
@pytest.mark.parametrize("save_every", [1, 3])
def test_a_run_that_was_cut_short_anywhere_goes_on(
    name: str, save_every: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a save each round it ends as without the fault; else it repeats rounds."""
    make, size = POLICIES[name]
    whole = regression.controller(make(), size)
    regression.stacked(whole, save_every=save_every)
    report = PopulationTrainer._report
    for cut in range(1, 8, 3):
        for done in (False, True):
            folder = tmp_path / f"{cut}-{done}"
            left = [cut]

            def cut_short(
                self: Any, *a: Any, left: list[int] = left, done: bool = done
            ) -> None:
                left[0] -= 1
                if done:
                    report(self, *a)
                if left[0] == 0:
                    raise Crash
                if not done:
                    report(self, *a)

            first = regression.controller(make(), size, folder)
            with monkeypatch.context() as patch:
                patch.setattr(PopulationTrainer, "_report", cut_short)
                with pytest.raises(Crash):
                    regression.stacked(first, save_every=save_every)
            metas = [active.meta_params for active in first.workers]
            first.close()
            again = regression.controller(make(), size, folder)
            assert [active.meta_params for active in again.workers] == metas
            if name != "back":  # There the slots are at different steps.
                rounds = cut if done else cut - 1
                saved = rounds // save_every * save_every * regression.EVERY
                points = map(again.graph.resume_point, probe.newest(again))
                assert [point.step for point in points] == [saved] * size
            regression.stacked(again, save_every=save_every)
            assert again.finished
            assert_is_a_forest(again.graph)
            if save_every == 1:
                regression.assert_alike(again, whole)
            again.close()


def test_a_run_that_is_killed_goes_on(tmp_path: pathlib.Path) -> None:
    """With a save each round nothing is lost, whether or not the reports were recorded.

    If it saves less often, it continues from the last save and reaches the end.
    """
    jobs = [(2, "saved", 1), (4, "recorded", 1), (3, "saved", 2), (5, "recorded", 2)]
    arguments = [(str(tmp_path / str(i)), *job) for i, job in enumerate(jobs)]
    code = f"from tests.engines import vectorized_child as c; c.main({arguments!r})"
    killed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=pathlib.Path(__file__).parents[2],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    ended = json.loads(killed.stdout.splitlines()[-1])
    assert ended == [-signal.SIGKILL] * len(jobs), killed.stderr
    whole = regression.controller(vectorized_child.policy())
    regression.stacked(whole)
    for i, (rounds, place, save_every) in enumerate(jobs):
        again = regression.controller(
            vectorized_child.policy(), log_dir=tmp_path / str(i)
        )
        done = rounds - (place == "saved")
        steps = [checkpoint.step for checkpoint in probe.newest(again)]
        assert steps == [done * regression.EVERY] * 5
        regression.stacked(again, save_every=save_every)
        assert again.finished
        assert_is_a_forest(again.graph)
        if save_every == 1:
            regression.assert_alike(again, whole)
            probe.settle()
            files = {
                p.name for p in (tmp_path / str(i) / "params").rglob("*.safetensors")
            }
            named = {
                pathlib.PurePath(c.params.path).name
                for c in probe.reachable(again)
                if isinstance(c.params, Saved)
            }
            assert files == named  # The leftovers of the kill are gone.
        again.close()


def test_what_was_saved_is_what_threads_go_on_from(tmp_path: pathlib.Path) -> None:
    """A run may change its engine, and change back."""
    first = regression.controller(pbt(), log_dir=tmp_path, steps=20)
    regression.stacked(first)
    first.close()
    second = regression.controller(pbt(), log_dir=tmp_path, steps=40)
    regression.by_threads(second)
    second.close()
    third = regression.controller(pbt(), log_dir=tmp_path, steps=60)
    regression.stacked(third)
    whole = regression.controller(pbt(), steps=60)
    regression.stacked(whole)
    regression.assert_alike(third, whole)


def test_everything_is_saved_at_the_end() -> None:
    """What each slot continues from, and the best, can be loaded."""
    found = regression.controller(pbt())
    regression.stacked(found, save_every=1000)
    best = found.best()
    assert best is not None
    for checkpoint in [best, *probe.newest(found)]:
        point = found.graph.resume_point(checkpoint)
        assert isinstance(point.params, Saved)
        state = found.load(point, regression.init(jax.random.key(0), {}))
        value, _ = regression.evaluate(state, {}, regression.TARGET)
        assert point.value is None or abs(float(value) / point.value - 1) < 1e-5


def test_ctrl_c_ends_after_the_round_and_saves(tmp_path: pathlib.Path) -> None:
    """The run then continues as without the interrupt."""

    def press(event: population.Event) -> None:
        if event.kind == "report" and event.checkpoint and event.checkpoint.step == 15:
            if event.worker_id == 0:
                signal.raise_signal(signal.SIGINT)

    first = regression.controller(pbt(), log_dir=tmp_path, on_event=press)
    summary = regression.stacked(first, save_every=1000)
    assert summary.interrupted
    assert summary.rounds == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    first.close()
    again = regression.controller(pbt(), log_dir=tmp_path)
    regression.stacked(again, save_every=1000)
    whole = regression.controller(pbt())
    regression.stacked(whole, save_every=1000)
    regression.assert_alike(again, whole)


def test_given_weights_are_where_members_begin() -> None:
    """`Start` with a tree of arrays, and with plain data."""
    weights = np.array([1.0, -2.0, 0.4], np.float32)
    state = {
        "weights": weights,
        "opt_state": regression.optimizer.init(weights),
    }
    mutator = FixedSchedule({0: regression.metas(3)[0]})
    starts: list[Any] = [
        population.Start(meta, state, 10) for meta in regression.metas(3)[:2]
    ]
    starts += regression.metas(3)[2:]
    found = PopulationController(starts, mutator, stop=Stop(steps=15), seed=3)
    regression.stacked(found)
    first, second, last = (
        min(
            c.value for c in found.history() if c.worker_id == w and c.value is not None
        )
        for w in range(3)
    )
    assert max(first, second) < 0.1 < last
    assert {c.step for c in found.history() if c.worker_id == 0} == {10, 15}


def test_given_plain_data_is_where_members_begin() -> None:
    """`Start` with numbers that the journal stores."""
    starts = [population.Start({"by": 1.0}, [0.5, float(w)]) for w in range(2)]
    found = PopulationController(starts, FixedSchedule({0: {"by": 1.0}}), stop=Stop(1))
    vectorized.run(
        found,
        lambda key, meta: [jax.numpy.zeros(()), jax.numpy.zeros(())],
        lambda state, meta, batch, key: [x + meta["by"] for x in state],
        lambda state, meta, batch: state[0] + 10 * state[1],
        1,
        progress=False,
        batching="vmap",
    )
    assert [found.newest(w).value for w in range(2)] == [11.5, 21.5]


def test_a_larger_stop_goes_on(tmp_path: pathlib.Path) -> None:
    """`Stop(steps=20)` and then 40 is the run with 40; at the end nothing is done."""
    whole = regression.controller(pbt(), steps=40)
    regression.stacked(whole)
    assert regression.stacked(whole).rounds == 0
    first = regression.controller(pbt(), log_dir=tmp_path, steps=20)
    regression.stacked(first)
    first.close()
    second = regression.controller(pbt(), log_dir=tmp_path, steps=40)
    assert regression.stacked(second).rounds == 4
    regression.assert_alike(second, whole)


def test_reports_are_saved_every_so_many_rounds() -> None:
    """No report between them is saved: `on_event` shows each one."""
    saved: list[tuple[int, bool]] = []

    def note(event: population.Event) -> None:
        if event.kind == "report" and event.checkpoint is not None:
            params = event.checkpoint.params
            saved.append((event.checkpoint.step, isinstance(params, Saved)))

    mutator = FixedSchedule({0: regression.metas(1)[0]})
    found = regression.controller(mutator, 2, steps=35, on_event=note)
    regression.stacked(found, save_every=3)
    assert {step for step, is_saved in saved if is_saved} == {15, 30}
    assert {step for step, _ in saved} == set(range(5, 36, 5))
    assert all(isinstance(found.newest(w).params, Saved) for w in range(2))


def test_bad_batches_lose_nothing(tmp_path: pathlib.Path) -> None:
    """What was trained until the user's function raises is saved."""

    def bad(seed: int, worker_id: int, at: int) -> Any:
        if at == 25:
            raise OSError("a bad disk")
        return regression.batch(seed, worker_id, at)

    first = regression.controller(pbt(), log_dir=tmp_path)
    with pytest.raises(OSError, match="a bad disk"):
        regression.stacked(first, batches=bad, save_every=1000)
    first.close()
    again = regression.controller(pbt(), log_dir=tmp_path)
    points = map(again.graph.resume_point, map(again.newest, range(5)))
    assert [point.step for point in points] == [25] * 5
    regression.stacked(again)
    whole = regression.controller(pbt())
    regression.stacked(whole)
    regression.assert_alike(again, whole)


def test_one_controller_trains_one_stack_at_a_time() -> None:
    """A second call from within is refused, and the first goes on."""
    refused: list[str] = []

    def again(event: population.Event) -> None:
        if event.kind == "report" and not refused:
            with pytest.raises(ClaimError) as error:
                regression.stacked(found)
            refused.append(str(error.value))

    found = regression.controller(pbt(), on_event=again)
    regression.stacked(found)
    assert found.finished
    assert "one stacked population at a time" in refused[0]


def test_a_slot_that_somebody_takes_ends_the_run_and_stays_his() -> None:
    """Nothing is reported for slots that other workers train now."""

    def take(event: population.Event) -> None:
        if event.kind == "report" and event.checkpoint and event.checkpoint.step == 15:
            if not taken:
                taken.append(found.worker(2))

    taken: list[population.Worker] = []
    found = regression.controller(pbt(), on_event=take)
    with pytest.raises(RuntimeError, match=r"Slots \[2\] were taken over"):
        regression.stacked(found)
    own = found.graph[taken[0].generation_id]
    assert all(c.value is None for c in own.values())
    taken[0].release()
    regression.by_threads(found)
    assert found.finished


def test_a_hyperparameter_without_effect_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A user who forgets to use it would search for nothing."""
    mutator = FixedSchedule({0: {"by": 1.0, "idle": 2.0}})
    found = PopulationController([{"by": 1.0, "idle": 2.0}], mutator, stop=Stop(1))
    vectorized.run(
        found,
        lambda key, meta: jax.numpy.zeros(()),
        lambda state, meta, batch, key: state + meta["by"],
        lambda state, meta, batch: state,
        1,
        progress=False,
        batching="vmap",
    )
    assert "['idle'] have no effect" in caplog.text
