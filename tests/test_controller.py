"""Whole runs: resuming, ending, repeating decisions, removing arrays."""

from __future__ import annotations

import dataclasses
import logging
import math
import pathlib
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from population import (
    Branch,
    Mutator,
    PopulationController,
    PopulationView,
    Ref,
    Report,
    RunMismatchError,
    Start,
    Stop,
    replay,
)
from population.mutators import (
    BranchingSingleMachine,
    FixedSchedule,
    WinnerTakeAllGenetic,
)
from population.params import MemoryParams
from tests import probe
from tests.helpers import (
    Clock,
    Scripted,
    assert_is_a_forest,
    branch_at,
    content,
    everything,
    generation,
    poll,
    told,
    work,
)


def jitter(h: float, rng: np.random.Generator) -> float:
    """The seed's mutation with the run's random numbers."""
    return float(h + rng.normal() * 0.01)


class Loops:
    """Raw loops of all workers; the one with the fewest steps makes the next step."""

    def __init__(self, controller: PopulationController, saves: bool = True) -> None:
        self._controller = controller
        self._saves = saves
        self._at: dict[int, tuple[str, int, Any]] = {}

    def step(self) -> None:
        """One worker polls, trains a step and reports its hyperparameter squared."""
        workers = self._controller.workers
        worker_id = min(range(len(workers)), key=lambda w: workers[w].step)
        generation_id, step, h = self._at.get(worker_id, ("", 0, None))
        found = poll(self._controller, worker_id, generation_id, step)
        if found is not None:
            generation_id, step, h = found.generation_id, found.step, found.meta_params
        step += 1
        self._at[worker_id] = generation_id, step, h
        params = f"{generation_id}:{step}" if self._saves else None
        self._controller.set_eval(worker_id, generation_id, step, params, h * h)


MUTATORS: dict[str, tuple[int, Callable[[], Mutator[Any]]]] = {
    "winner": (3, lambda: WinnerTakeAllGenetic(jitter, 2)),
    "synchronous": (3, lambda: WinnerTakeAllGenetic(jitter, 2, synchronous=True)),
    "keeping": (3, lambda: WinnerTakeAllGenetic(jitter, 3, keep_winner=True)),
    "seconds": (3, lambda: WinnerTakeAllGenetic(jitter, None, 10.0)),
    "fixed": (2, lambda: FixedSchedule({0: 1.0, 3: 2.0, 5: 2.0, 7: 0.5})),
    "explore": (1, lambda: BranchingSingleMachine(_explore, 3, 2)),
}


def _explore(h: float, direction: str, cycle: int, rng: np.random.Generator) -> float:
    sign = -1.0 if direction == "neg" else 1.0
    return float(h + sign * 0.1 * (1 + rng.random()))


# Resuming.


@pytest.mark.parametrize("saves", [True, False])
@pytest.mark.parametrize("name", MUTATORS)
def test_a_run_that_is_restarted_at_any_point_decides_the_same(
    name: str, saves: bool, tmp_path: pathlib.Path
) -> None:
    """A restart at each point, or after every single report, gives the same history."""
    size, make = MUTATORS[name]
    reports = 20
    points: list[set[int]] = [{point} for point in range(0, reports, 3)]
    histories = []
    for number, restarts in enumerate([set[int](), set(range(reports)), *points]):
        clock = Clock()

        def opened(folder: pathlib.Path, clock: Clock = clock) -> PopulationController:
            return PopulationController([1.0] * size, make(), folder, clock=clock)

        controller = opened(tmp_path / str(number))
        loops = Loops(controller, saves)
        for count in range(reports):
            if count in restarts:
                controller.close()
                controller = opened(tmp_path / str(number))
                loops = Loops(controller, saves)
            clock.advance(2.0)
            loops.step()
        histories.append(told(controller))
        controller.close()
    branches = {c[0] for c in histories[0]}
    assert len(branches) > size + 1
    for history in histories[1:]:
        assert history == histories[0]


def test_another_seed_decides_otherwise() -> None:
    """The same seed decides the same in any process."""
    histories = []
    for seed in (0, 0, 1):
        controller = PopulationController(
            [1.0] * 3, WinnerTakeAllGenetic(jitter, 2), seed=seed
        )
        loops = Loops(controller)
        for _ in range(12):
            loops.step()
        histories.append(told(controller))
    assert histories[0] == histories[1]
    assert histories[0] != histories[2]


def test_reports_that_are_made_again_shift_no_random_number() -> None:
    """Delivering reports at least once changes no decision."""
    histories = []
    for times in (1, 3):
        controller = PopulationController([1.0] * 2, WinnerTakeAllGenetic(jitter, 2))
        for step in range(1, 9):
            for worker_id in (0, 1):
                found = work(controller, worker_id)
                for _ in range(times):
                    controller.set_eval(
                        worker_id, found.generation_id, found.step + 1, "p", step
                    )
        histories.append([meta for *_, meta, _, _, _ in told(controller)])
    assert histories[0] == histories[1]


def test_an_update_that_draws_and_decides_nothing_sees_the_same_numbers_again() -> None:
    """Random numbers count decisions, not reports."""
    drawn: list[float] = []

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        drawn.append(view.rng.random())
        branches = report.checkpoint.step % 3 == 0
        return {0: Branch(report.checkpoint, drawn[-1])} if branches else {}

    controller = PopulationController([0.0], Scripted(decide), seed=5)
    for step in range(1, 10):
        controller.set_eval(0, generation(controller), step, "p", 1.0)
    firsts = [float(np.random.default_rng([5, d]).random()) for d in (1, 2, 3)]
    assert drawn == [number for number in firsts for _ in range(3)]


def test_what_was_recorded_is_there_when_the_run_is_opened_again(
    tmp_path: pathlib.Path,
) -> None:
    """The workers and the graph are the same; the given meta_params are ignored."""
    decide = branch_at(2, {"lr": (3, math.inf)})
    controller = PopulationController(
        [Start({"lr": 1}, "w", 1), {"lr": 2}], Scripted(decide), tmp_path, mode="max"
    )
    controller.set_eval(0, generation(controller), 2, "at 2", 2.0, {"acc": math.nan})
    controller.set_eval(1, generation(controller, 1), 1, None, math.nan)
    before = repr(list(controller.history())), controller.workers, controller.best()
    controller.close()
    again = PopulationController(
        [{"lr": 9}] * 2, Scripted(decide), tmp_path, mode="max"
    )
    after = repr(list(again.history())), again.workers, again.best()
    assert after == before
    again.close()


def test_opening_a_run_records_no_report(tmp_path: pathlib.Path) -> None:
    """Ten openings add only ten sessions."""
    for _ in range(10):
        controller = PopulationController([1], Scripted(), tmp_path)
        lines = [line for line in content(controller) if "sessions" not in line]
        controller.close()
    again = PopulationController([1], Scripted(), tmp_path)
    assert [line for line in content(again) if "sessions" not in line] == lines
    again.close()


def test_a_run_folder_is_made_with_its_parents(tmp_path: pathlib.Path) -> None:
    """The name may have spaces, quotes and line breaks; a string is enough."""
    log_dir = tmp_path / "a b" / "it's" / 'q"\\uote\n' / "%23?x=1#é"
    controller = PopulationController([1], Scripted(), str(log_dir))
    controller.set_eval(0, generation(controller), 1, np.ones(2), 1.0)
    controller.close()
    assert (log_dir / "journal.sqlite").is_file()
    again = PopulationController([1], Scripted(), log_dir)
    np.testing.assert_array_equal(work(again).params, np.ones(2))
    again.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initial_population": [1.0]}, "holds a run with workers 2, got 1"),
        ({"mode": "max"}, "mode 'min', got 'max'"),
        ({"seed": 3}, "seed 0, got 3"),
        ({"mutator": FixedSchedule({0: 1})}, "WinnerTakeAllGenetic'.*FixedSchedule'"),
    ],
)
def test_a_run_goes_on_under_its_own_rules_only(
    change: Mapping[str, Any], message: str, tmp_path: pathlib.Path
) -> None:
    """The message says how the run began; with the right arguments it still opens."""
    rules: dict[str, Any] = {
        "initial_population": [1.0, 1.0],
        "mutator": WinnerTakeAllGenetic(jitter, 2),
        "log_dir": tmp_path,
    }
    PopulationController(**rules).close()
    with pytest.raises(RunMismatchError, match=message):
        PopulationController(**{**rules, **change})
    PopulationController(**rules).close()


def test_other_arguments_of_the_mutator_are_a_warning(tmp_path: pathlib.Path) -> None:
    """It names the difference, at the caller's line; equal arguments cause none."""
    PopulationController([1.0], WinnerTakeAllGenetic(jitter, 2), tmp_path).close()
    with pytest.warns(
        UserWarning, match="mutator: steps_per_exploit: 2 -> 5.$"
    ) as seen:
        PopulationController([1.0], WinnerTakeAllGenetic(jitter, 5), tmp_path).close()
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PopulationController([1.0], WinnerTakeAllGenetic(jitter, 2), tmp_path).close()


def test_an_old_generation_after_a_restart_is_given_the_slot(
    tmp_path: pathlib.Path,
) -> None:
    """A worker that outlived the controller gets its work; only reports are kept."""
    mutator = Scripted(branch_at(3, 2.0))
    controller = PopulationController([1.0], mutator, tmp_path)
    first = generation(controller)
    controller.set_eval(0, first, 3, "at 3", 1.0)
    controller.close()
    again = PopulationController([1.0], mutator, tmp_path)
    found = poll(again, 0, first, 4, "at 4")
    assert found is not None
    assert found[:4] == ("at 3", 2.0, generation(again), 3)
    assert 4 not in again.graph[first]
    again.close()


@dataclasses.dataclass
class Memory:
    """A mutator's state with everything that a state may hold."""

    donors: list[Ref]
    by_worker: dict[int, tuple[float, ...]]
    inner: Memory | None = None


class Remembering(Mutator[Memory]):
    """Changes its state at every report."""

    def init(self, view: PopulationView) -> Memory:
        """An empty memory."""
        return Memory([], {})

    def update(
        self, state: Memory, report: Report, view: PopulationView
    ) -> tuple[Memory, Mapping[int, Branch]]:
        """Remember the report and the state before."""
        ref = report.checkpoint.ref
        values: dict[int, tuple[float, ...]] = {}
        values[report.worker_id] = (report.checkpoint.value or math.nan,)
        return Memory([ref], values, state if state.inner is None else None), {}


def test_the_mutators_state_comes_back_as_it_was(tmp_path: pathlib.Path) -> None:
    """This includes nested records, int keys, tuples, NaN and refs of checkpoints."""
    controller = PopulationController([1.0], Remembering(), tmp_path)
    first = generation(controller)
    for step, value in ((1, 0.5), (2, None), (3, 2.0)):
        controller.set_eval(0, first, step, None, value)
        before = repr(probe.mutator_state(controller))
        controller.close()
        controller = PopulationController([1.0], Remembering(), tmp_path)
        assert repr(probe.mutator_state(controller)) == before
    assert probe.decisions(controller) == 3
    controller.close()


def test_two_controllers_on_one_run_see_each_others_reports(
    tmp_path: pathlib.Path,
) -> None:
    """Each decides with all reports; a poll returns what the other decided."""

    def opened() -> PopulationController:
        return PopulationController(
            [1.0] * 2, WinnerTakeAllGenetic(jitter, 2, synchronous=True), tmp_path
        )

    one, two = opened(), opened()
    ids = [generation(one, 0), generation(two, 1)]
    one.set_eval(0, ids[0], 2, "of 0", 1.0)
    assert two.workers[0].params == "of 0"
    two.set_eval(1, ids[1], 2, "of 1", 0.5)
    assert poll(one, 0, ids[0], 2) == two.workers[0]
    assert [w.params for w in one.workers] == ["of 1", "of 1"]
    one.set_eval(0, generation(one, 0), 4, "again", 0.1)
    two.set_eval(1, generation(two, 1), 4, "again", 0.2)
    assert everything(one) == everything(two)
    assert_is_a_forest(one.graph)
    assert one.best() == two.best()
    assert probe.reports(one) == probe.reports(two) == 4
    one.close()
    two.close()


def test_threads_that_report_at_once_lose_nothing() -> None:
    """Every report is recorded once, in any order."""
    controller = PopulationController([1.0] * 4, WinnerTakeAllGenetic(jitter, 3))
    made: list[Ref] = []

    def loop(worker_id: int) -> None:
        generation_id, step = "", 0
        for _ in range(40):
            found = poll(controller, worker_id, generation_id, step)
            if found is not None:
                generation_id, step = found.generation_id, found.step
            step += 1
            controller.set_eval(worker_id, generation_id, step, f"{step}", step)
            made.append(Ref(generation_id, step))

    threads = [threading.Thread(target=loop, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with_value = [c.ref for c in controller.history() if c.value is not None]
    assert sorted(with_value) == sorted(made)
    assert_is_a_forest(controller.graph)
    assert probe.reports(controller) == 160


# The beginning and the end.


def test_a_start_begins_with_trained_weights_at_their_step(
    tmp_path: pathlib.Path,
) -> None:
    """With arrays or a path; a worker without them begins with fresh weights."""
    starts = [Start({"lr": 1}, {"w": jnp.arange(3)}, 7), Start({"lr": 2}, "path"), 3]
    controller = PopulationController(starts, Scripted(), tmp_path)
    first, second, third = (work(controller, i) for i in range(3))
    np.testing.assert_array_equal(first.params["w"], np.arange(3))
    assert isinstance(first.params["w"], jax.Array)
    assert (first.step, second.params, second.step) == (7, "path", 0)
    assert (third.params, third.meta_params) == (None, 3)
    assert all(controller.newest(i).parent is None for i in range(3))
    controller.close()


def test_steps_end_training_when_every_slot_stands_there() -> None:
    """A slot that is branched to an earlier step trains again."""
    mutator = Scripted(branch_at(7, 1.0, back_to=2))
    controller = PopulationController([0.0] * 2, mutator, stop=Stop(steps=4))
    ids = [generation(controller, i) for i in (0, 1)]
    for worker_id in (0, 1):
        for step in (2, 4):
            assert not controller.finished
            controller.set_eval(worker_id, ids[worker_id], step, "p", 1.0)
    assert controller.finished
    assert [w.wait_at for w in controller.workers] == [4, 4]
    controller.set_eval(0, ids[0], 7, "p", 1.0)
    assert not controller.finished
    controller.set_eval(0, generation(controller), 4, "p", 1.0)
    assert controller.finished


@pytest.mark.parametrize(("params", "value"), [("p", None), (None, 1.0), (None, None)])
def test_a_slot_has_ended_at_its_newest_report_of_any_kind(
    params: str | None, value: float | None
) -> None:
    """With or without a value or params; the mutator still sees a late value."""
    mutator = Scripted(branch_at(4, 1.0, back_to=1))
    controller = PopulationController([0.0], mutator, stop=Stop(steps=4))
    first = generation(controller)
    controller.set_eval(0, first, 1, "p", 1.0)
    mutator._decide = None
    assert not controller.finished
    controller.set_eval(0, first, 4, params, value)
    assert controller.finished
    mutator._decide = branch_at(4, 1.0, back_to=1)
    controller.set_eval(0, first, 4, None, 2.0)
    assert controller.finished == (value is not None)


def test_twenty_steps_and_then_forty_is_the_run_with_forty(
    tmp_path: pathlib.Path,
) -> None:
    """With a larger limit it continues; the decisions at the first end were made."""
    histories = []
    for limits in ([40], [20, 40]):
        log_dir = tmp_path / str(len(limits))
        for limit in limits:
            mutator = WinnerTakeAllGenetic(jitter, 5, synchronous=True)
            controller = PopulationController(
                [1.0] * 2, mutator, log_dir, stop=Stop(steps=limit)
            )
            loops = Loops(controller)
            while not controller.finished:
                loops.step()
            histories.append(told(controller))
            controller.close()
    assert histories[2] == histories[0]
    assert histories[0][: len(histories[1])] == histories[1]


def test_reports_end_the_run(tmp_path: pathlib.Path) -> None:
    """All reports with a value count, late ones included, over restarts."""
    controller = PopulationController([0.0], Scripted(), tmp_path, stop=Stop(reports=3))
    first = generation(controller)
    controller.set_eval(0, first, 1, "p", 1.0)
    controller.set_eval(0, first, 2, "p", None)
    controller.set_eval(0, first, 3, "p", math.nan)
    controller.set_eval(0, first, 3, "p", math.nan)
    assert not controller.finished
    controller.close()
    controller = PopulationController([0.0], Scripted(), tmp_path, stop=Stop(reports=3))
    assert not controller.finished
    controller.set_eval(0, first, 2, None, 1.0)
    assert controller.finished
    controller.close()
    again = PopulationController([0.0], Scripted(), tmp_path, stop=Stop(reports=4))
    assert not again.finished
    again.close()


@pytest.mark.parametrize(
    ("mode", "reached", "short"), [("min", 0.5, 0.6), ("max", 0.5, 0.4)]
)
def test_a_good_value_ends_the_run(mode: str, reached: float, short: float) -> None:
    """The value is at least as good, in both modes; NaN is not."""
    controller = PopulationController(
        [0.0], Scripted(), mode=mode, stop=Stop(value=0.5)
    )
    first = generation(controller)
    for step, value in ((1, short), (2, math.nan)):
        controller.set_eval(0, first, step, "p", value)
        assert not controller.finished
    controller.set_eval(0, first, 3, "p", reached)
    controller.set_eval(0, first, 4, "p", short)
    assert controller.finished


@pytest.mark.parametrize("restarted", [False, True])
def test_patience_ends_the_run(restarted: bool, tmp_path: pathlib.Path) -> None:
    """Reports with a value since the last improvement count; an equal one is none."""

    def opened() -> PopulationController:
        return PopulationController([0.0], Scripted(), tmp_path, stop=Stop(patience=3))

    controller = opened()
    first = generation(controller)
    ended = []
    values = [3.0, 4.0, None, 2.0, 2.0, math.nan, 1.0, 1.0, 5.0, None, 1.0]
    for step, value in enumerate(values, start=1):
        if restarted:
            controller.close()
            controller = opened()
        controller.set_eval(0, first, step, "p", value)
        ended.append(controller.finished)
    assert ended == [False] * 10 + [True]
    controller.close()


def test_patience_ends_a_run_that_never_had_a_finite_value() -> None:
    """There was no improvement since it began."""
    controller = PopulationController([0.0], Scripted(), stop=Stop(patience=3))
    for step in (1, 2, 3):
        assert not controller.finished
        controller.set_eval(0, generation(controller), step, "p", math.nan)
    assert controller.finished


def test_seconds_end_the_run(tmp_path: pathlib.Path, clock: Clock) -> None:
    """Only the time counts in which the run is open."""

    def opened() -> PopulationController:
        return PopulationController(
            [0.0], Scripted(), tmp_path, stop=Stop(seconds=100), clock=clock
        )

    controller = opened()
    first = generation(controller)
    clock.advance(40)
    controller.set_eval(0, first, 1, "p", 1.0)
    controller.close()
    clock.advance(10_000)
    controller = opened()
    clock.advance(59)
    assert not controller.finished
    clock.advance(1)
    assert controller.finished
    controller.close()


def test_sessions_without_a_report_take_no_time_away(
    tmp_path: pathlib.Path, clock: Clock
) -> None:
    """A run that was only read does not end later."""

    def opened() -> PopulationController:
        return PopulationController(
            [0.0], Scripted(), tmp_path, stop=Stop(seconds=100), clock=clock
        )

    controller = opened()
    clock.advance(40)
    controller.set_eval(0, generation(controller), 1, "p", 1.0)
    controller.close()
    for _ in range(3):
        clock.advance(1000)
        opened().close()
    clock.advance(1000)
    controller = opened()
    clock.advance(59)
    assert not controller.finished
    clock.advance(1)
    assert controller.finished
    controller.close()


def test_recorded_time_never_goes_back(tmp_path: pathlib.Path, clock: Clock) -> None:
    """It does not depend on the clock, within a process and over restarts."""

    def opened() -> PopulationController:
        return PopulationController([0.0], Scripted(), tmp_path, clock=clock)

    controller = opened()
    first = generation(controller)
    for step, change in enumerate([5.0, -50.0, 1.0, 100.0, -3.0], start=1):
        clock.advance(change)
        controller.set_eval(0, first, step, "p", 1.0)
        if step % 2:
            controller.close()
            controller = opened()
    times = [checkpoint.time for checkpoint in controller.history()]
    assert times == sorted(times)
    controller.close()


def test_the_time_of_a_late_value_is_not_forgotten(
    tmp_path: pathlib.Path, clock: Clock
) -> None:
    """A report after a restart is not earlier than the last one before it."""
    seen: list[float] = []

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        seen.append(view.now)
        return {}

    controller = PopulationController([0.0], Scripted(decide), tmp_path, clock=clock)
    first = generation(controller)
    controller.set_eval(0, first, 1, "p", None)
    clock.advance(50)
    controller.set_eval(0, first, 1, "p", 1.0)
    controller.close()
    clock.advance(-30)
    controller = PopulationController([0.0], Scripted(decide), tmp_path, clock=clock)
    controller.set_eval(0, first, 2, "p", 1.0)
    assert seen == sorted(seen)
    controller.close()


# Reports and their content.


def test_metrics_and_reasons_are_kept(tmp_path: pathlib.Path) -> None:
    """Plain data as reported, and the mutator's reason."""
    controller = PopulationController([0.0], Scripted(branch_at(1, 1.0)), tmp_path)
    metrics = {"loss": np.float32(0.5), "by class": (1, jnp.int32(2)), 3: [math.inf]}
    controller.set_eval(0, generation(controller), 1, "p", 1.0, metrics)
    branched = probe.newest(controller)[0]
    assert branched.parent is not None
    found = controller.graph.checkpoint(branched.parent)
    assert repr(found.metrics) == "{'loss': 0.5, 'by class': (1, 2), 3: [inf]}"
    assert (branched.reason, branched.metrics) == ("as planned", None)
    assert next(iter(controller.history())).reason == "start"
    controller.close()


def test_the_receiver_of_meta_params_has_its_own_copy() -> None:
    """A loop that changes them changes no other copy."""
    controller = PopulationController([{"lr": [1]}], Scripted())
    work(controller).meta_params["lr"].append(2)
    controller.workers[0].meta_params["lr"].append(3)
    assert work(controller).meta_params == {"lr": [1]}


def test_mode_max_prefers_the_largest() -> None:
    """It is the best, has the best score in a mutator, and is copied by all."""
    mutator = WinnerTakeAllGenetic(lambda meta: meta, 1)
    controller = PopulationController([1, 2, 3], mutator, mode="max")
    ids = [generation(controller, i) for i in range(3)]
    for i, value in enumerate((0.2, 0.9, -5.0)):
        controller.set_eval(i, ids[i], 1, f"of {i}", value)
    best = controller.best()
    assert best is not None
    assert best.value == 0.9
    assert [w.meta_params for w in controller.workers] == [2, 2, 2]


def test_what_a_mutator_sees() -> None:
    """Steps and scores of the newest values, the newest checkpoints, the slots."""
    seen: list[tuple[Any, ...]] = []

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        newest = [view.newest(i).step for i in view.live]
        work = [w.meta_params for w in view.workers]
        seen.append((view.steps.tolist(), view.scores.tolist(), newest, work))
        scores = [view.score(view.newest(i)) for i in view.live]
        assert all(not math.isnan(score) for score in scores)
        return {}

    controller = PopulationController(["a", "b"], Scripted(decide), mode="max")
    ids = [generation(controller, i) for i in (0, 1)]
    controller.set_eval(1, ids[1], 3, "p", 4.0)
    controller.set_eval(1, ids[1], 5, "p", None)
    controller.set_eval(0, ids[0], 2, "p", math.nan)
    assert seen == [
        ([-1, 3], [math.inf, -4.0], [0, 3], ["a", "b"]),
        ([-1, 3], [math.inf, -4.0], [0, 5], ["a", "b"]),
        ([2, 3], [math.inf, -4.0], [2, 5], ["a", "b"]),
    ]


def test_a_batch_is_recorded_whole_before_anything_is_decided() -> None:
    """Each report is shown in worker order, and the view has all others."""
    seen: list[tuple[int, list[int]]] = []

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        seen.append((report.worker_id, view.steps.tolist()))
        return {}

    controller = PopulationController([0] * 3, Scripted(decide))
    batch = [(i, generation(controller, i), 4, "p", 1.0) for i in (2, 0, 1)]
    assert controller.set_evals(batch) == {}
    assert seen == [(0, [4, 4, 4]), (1, [4, 4, 4]), (2, [4, 4, 4])]
    sql = "SELECT DISTINCT batch FROM checkpoints WHERE step = 4"
    assert len(probe.connection(controller).execute(sql).fetchall()) == 1


@pytest.mark.parametrize(
    ("step", "batch", "params", "begins"),
    [
        (5, [("p", None), (None, math.nan)], "before", 3),
        (0, [(None, 1.0), ("p", None)], "p", 0),
    ],
    ids=["diverged", "saved"],
)
def test_a_batch_branches_from_what_is_recorded_in_the_end(
    tmp_path: pathlib.Path,
    step: int,
    batch: list[tuple[str | None, float | None]],
    params: str,
    begins: int,
) -> None:
    """The mutator decides on the first report; the second one completes it."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        if report.checkpoint.step == 3 or view.newest(1).generation_id != other:
            return {}
        return {1: Branch(report.checkpoint, "copy")}

    controller = PopulationController(["a", "b"], Scripted(decide), tmp_path)
    name, other = (generation(controller, i) for i in (0, 1))
    if begins:
        controller.set_eval(0, name, begins, params, 2.0)
    controller.set_evals([(0, name, step, *report) for report in batch])
    found = controller.workers[1]
    assert found[:2] == (params, "copy")
    assert found.step == begins
    assert replay(controller, Scripted(decide)).first_difference is None
    controller.close()


def test_slots_that_were_branched_in_a_batch_are_not_asked_about_again() -> None:
    """Their report belongs to a superseded generation; their new work is returned."""
    controller: PopulationController

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        asked.append(report.worker_id)
        if report.worker_id != 0:
            return {}
        return {0: Branch(report.checkpoint, 10), 1: Branch(report.checkpoint, 11)}

    asked: list[int] = []
    controller = PopulationController([0] * 3, Scripted(decide))
    batch = [
        (i, generation(controller, i), 4, {"w": np.full(2, i)}, 1.0, {"i": i})
        for i in range(3)
    ]
    found = controller.set_evals(batch)
    assert asked == [0, 2]
    assert sorted(found) == [0, 1]
    assert [found[i].meta_params for i in (0, 1)] == [10, 11]
    np.testing.assert_array_equal(found[1].params["w"], [0, 0])
    assert found[1].generation_id == generation(controller, 1)


def test_an_empty_batch_is_nothing() -> None:
    """There is no report and no decision."""
    controller = PopulationController([0], Scripted())
    before = everything(controller)
    assert controller.set_evals(iter(())) == {}
    assert everything(controller) == before


def test_a_batch_in_which_the_mutator_raises_is_rolled_back() -> None:
    """All of it is rolled back, also reports before the one that failed."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        if report.worker_id == 1:
            raise RuntimeError
        return {0: Branch(None, 5)}

    controller = PopulationController([0] * 2, Scripted(decide))
    batch = [(i, generation(controller, i), 4, "p", 1.0) for i in (0, 1)]
    before = everything(controller)
    with pytest.raises(RuntimeError):
        controller.set_evals(batch)
    assert everything(controller) == before


def test_a_branch_while_no_worker_ever_saved_is_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The user has probably forgotten to pass the training state."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        return {0: Branch(report.checkpoint, report.checkpoint.step)}

    controller = PopulationController([0], Scripted(decide))
    with controller.worker() as worker:
        for _ in range(3):
            worker.poll()
            worker.step += 1
            worker.report(1.0)
    levels = [record.levelno for record in caplog.records]
    assert levels.count(logging.WARNING) == 1
    assert "no worker has saved any" in caplog.text


# Arrays.


def kept(controller: PopulationController) -> int:
    """The number of trees in memory."""
    store = probe.store(controller)
    assert isinstance(store, MemoryParams)
    return len(store)


@pytest.mark.parametrize("name", ["winner", "synchronous", "keeping", "explore"])
def test_arrays_in_memory_are_dropped_when_nothing_can_reach_them(name: str) -> None:
    """Their number depends on the number of slots, not on the history."""
    size, make = MUTATORS[name]
    controller = PopulationController([1.0] * size, make())
    most = 0
    for step in range(1, 150):
        for i in range(size):
            found = work(controller, i)
            params = {"w": np.full(3, step), "b": jnp.float32(0.0)}
            controller.set_eval(i, found.generation_id, found.step + 1, params, 1.0)
        most = max(most, kept(controller))
    assert most <= 4 * size + 4
    alive = controller.reachable()
    assert controller.newest(0).ref in alive
    for ref in alive:
        checkpoint = controller.graph.checkpoint(ref)
        if checkpoint.params is not None:
            controller.load(checkpoint)


def test_what_waits_for_its_value_keeps_its_ancestors() -> None:
    """After a late NaN there must be a checkpoint to go back to."""
    controller = PopulationController([1.0], Scripted())
    first = generation(controller)
    controller.set_eval(0, first, 1, {"w": np.full(2, 1)}, 5.0)
    for step in range(2, 30):
        controller.set_eval(0, first, step, {"w": np.full(2, step)}, None)
    assert kept(controller) == 29
    for step in range(2, 30):
        controller.set_eval(0, first, step, None, math.nan)
    found = work(controller)
    assert found.step == 1
    np.testing.assert_array_equal(found.params["w"], [1, 1])


def test_arrays_are_copied_at_the_report() -> None:
    """A loop may donate its buffers to the next step, or write into them."""
    controller = PopulationController([1.0], Scripted())
    first = generation(controller)
    step = jax.jit(lambda w: w + 1, donate_argnums=0)
    on_device, on_host = jnp.zeros(3), np.zeros(3)
    controller.set_eval(0, first, 1, (on_device, on_host), 1.0)
    step(on_device).block_until_ready()
    on_host += 5
    device_copy, host_copy = work(controller).params
    np.testing.assert_array_equal(device_copy, np.zeros(3))
    np.testing.assert_array_equal(host_copy, np.zeros(3))
    step(device_copy)
    host_copy += 7
    for copy in work(controller).params:
        np.testing.assert_array_equal(copy, np.zeros(3))


def test_arrays_on_disk_outlive_the_process(tmp_path: pathlib.Path) -> None:
    """They have the kinds of containers and leaves that were reported."""
    controller = PopulationController([1.0], Scripted(), tmp_path)
    params = {"w": jnp.ones((2, 2), jnp.bfloat16), "n": (np.int64(3), [np.arange(2)])}
    controller.set_eval(0, generation(controller), 1, params, 1.0)
    controller.close()
    again = PopulationController([1.0], Scripted(), tmp_path)
    found = work(again).params
    assert str(jax.tree.structure(found)) == str(jax.tree.structure(params))
    for leaf, expected in zip(
        jax.tree.leaves(found), jax.tree.leaves(params), strict=True
    ):
        assert isinstance(leaf, type(expected)) or isinstance(leaf, jax.Array)
        assert leaf.dtype == expected.dtype
        np.testing.assert_array_equal(leaf, expected)
    again.close()


# The seed's figures.


def converge(
    controller: PopulationController, rounds: int, starts: dict[int, Any]
) -> None:
    """The seed's loop: each worker in turn polls, trains and reports h squared."""
    for _ in range(rounds):
        for worker_id in range(len(controller.workers)):
            generation_id, step, h = starts.get(worker_id, (None, 0, None))
            found = poll(controller, worker_id, generation_id, step)
            if found is not None:
                generation_id, step = found.generation_id, found.step
                h = found.meta_params
            step += 1
            controller.set_eval(worker_id, generation_id or "", step, None, h**2)
            starts[worker_id] = (generation_id, step, h)


@pytest.mark.parametrize("steps_per_exploit", [1, 2, 3])
def test_three_workers_find_the_minimum(steps_per_exploit: int) -> None:
    """600 rounds with sigma 0.01 bring |h| from 1.0 under 0.1."""
    mutator = WinnerTakeAllGenetic(jitter, steps_per_exploit)
    controller = PopulationController([1.0] * 3, mutator)
    converge(controller, 600, {})
    assert all(abs(w.meta_params) < 0.1 for w in controller.workers)


def test_two_steps_a_round_find_the_minimum_in_200() -> None:
    """The seed's test of winner-take-all: under 0.3 after 200 steps."""

    def mutate(h: float, rng: np.random.Generator) -> float:
        return float(h + rng.normal() * 0.03)

    controller = PopulationController([1.0] * 3, WinnerTakeAllGenetic(mutate, 2))
    converge(controller, 200, {})
    assert all(abs(w.meta_params) < 0.3 for w in controller.workers)


@pytest.fixture
def steps_of_03() -> Mutator[Any]:
    """The seed's mutation with sigma 0.03."""

    def mutate(h: float, rng: np.random.Generator) -> float:
        return float(h + rng.normal() * 0.03)

    return WinnerTakeAllGenetic(mutate, 1)


@pytest.mark.parametrize("forgetful", [True, False])
def test_a_run_that_is_rebuilt_ten_times_keeps_converging(
    forgetful: bool, steps_of_03: Mutator[Any], tmp_path: pathlib.Path
) -> None:
    """Workers begin again, or come with what they had, or with a wrong id."""
    starts: dict[int, Any] = {}
    for rebuilt in range(10):
        controller = PopulationController([1.0] * 3, steps_of_03, tmp_path)
        if forgetful:
            starts = {}
        else:
            starts[rebuilt % 3] = ("a bad id", 3, None)
        converge(controller, 5, starts)
        h = [w.meta_params for w in controller.workers]
        controller.close()
    assert max(map(abs, h)) < 0.5
