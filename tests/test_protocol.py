"""Each row of the protocol's table: what a poll returns, what a report changes."""

from __future__ import annotations

import logging
import math
import pathlib
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from population import Branch, PopulationController, PopulationView, Report, Start
from population.journal.sqlite import SqliteJournal
from population.mutators import PopulationBasedTraining, WinnerTakeAllGenetic
from tests import probe
from tests.helpers import (
    Scripted,
    assert_is_a_forest,
    branch_at,
    content,
    everything,
    generation,
    poll,
    random_branch,
    work,
)


def run(mutator: Scripted | None = None, size: int = 2) -> PopulationController:
    """A run in memory."""
    starts = [{"lr": i} for i in range(size)]
    return PopulationController(starts, mutator or Scripted())


def superseded(back_to: int | None = None) -> tuple[PopulationController, str]:
    """A run whose worker 0 reported at 5 and 10 and was branched, with its old id."""
    mutator = Scripted(branch_at(10, {"lr": 9}, back_to=back_to))
    controller = run(mutator)
    first = generation(controller)
    controller.set_eval(0, first, 5, "at 5", 2.0)
    controller.set_eval(0, first, 10, "at 10", 1.0)
    mutator.seen.clear()
    return controller, first


def asked(controller: PopulationController) -> list[tuple[int, int]]:
    """The reports about which the run's mutator was asked."""
    mutator = probe.mutator(controller)
    assert isinstance(mutator, Scripted)
    return mutator.asked


# Polls.


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_worker_that_begins_is_given_its_slot(nothing: str | None) -> None:
    """None and the empty string both say that the worker trains nothing yet."""
    controller = run()
    found = poll(controller, 1, nothing)
    assert found is not None
    assert (found.params, found.meta_params, found.step) == (None, {"lr": 1}, 0)
    assert found.generation_id == generation(controller, 1)


def test_a_worker_that_comes_back_goes_on_from_its_newest_report() -> None:
    """No generation begins if nothing was trained in between."""
    controller = run()
    first = generation(controller)
    controller.set_eval(0, first, 5, "at 5", 1.0)
    before = content(controller)
    assert work(controller)[:4] == ("at 5", {"lr": 0}, first, 5)
    assert content(controller) == before


def test_a_worker_that_comes_back_after_unsaved_reports_goes_on_from_a_save() -> None:
    """Fresh or old weights are never trained as if they were at a later step."""
    controller = run()
    first = generation(controller)
    controller.set_eval(0, first, 5, "at 5", 1.0)
    controller.set_eval(0, first, 9, None, 0.5)
    found = work(controller)
    assert (found.params, found.meta_params, found.step) == ("at 5", {"lr": 0}, 5)
    assert found.generation_id != first
    assert probe.newest(controller)[0].parent == (first, 5)


def test_a_worker_that_comes_back_after_divergence_goes_on_from_before() -> None:
    """A state with NaN is not trained further."""
    controller = run()
    first = generation(controller)
    controller.set_eval(0, first, 5, "at 5", 1.0)
    controller.set_eval(0, first, 9, "at 9", math.nan)
    found = work(controller)
    assert (found.params, found.step) == ("at 5", 5)


def test_coming_back_twice_opens_one_generation() -> None:
    """A poll without a generation can be repeated."""
    controller = run()
    controller.set_eval(0, generation(controller), 5, "at 5", 1.0)
    controller.set_eval(0, generation(controller), 9, None, 0.5)
    first = work(controller)
    before = content(controller)
    assert work(controller) == first
    assert content(controller) == before


def test_coming_back_twice_to_a_branch_from_fresh_weights_opens_no_generation() -> None:
    """A branch whose donor had saved nothing begins with fresh weights, once."""
    mutator = Scripted(branch_at(5, {"lr": 9}))
    controller = run(mutator)
    controller.worker(0).release()
    controller.set_eval(0, generation(controller), 5, None, 1.0)
    before = content(controller)
    found = work(controller)
    assert (found.params, found.meta_params, found.step) == (None, {"lr": 9}, 0)
    assert work(controller) == found
    assert content(controller) == before


def test_an_unknown_generation_is_given_the_slot_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A worker of another run gets the slot's work."""
    caplog.set_level(logging.DEBUG, "population")
    controller = run()
    for _ in range(3):
        found = poll(controller, 0, "stranger", 4, "its params")
        assert found == work(controller)
    assert len(caplog.records) == 1
    assert "stranger" in caplog.text
    assert "unknown" in caplog.text


def test_a_worker_that_was_branched_is_given_its_new_work() -> None:
    """What it trained in between is dropped: no slot could continue from it."""
    controller, first = superseded()
    found = poll(controller, 0, first, 12, "at 12")
    assert found is not None
    assert (found.params, found.meta_params, found.step) == ("at 10", {"lr": 9}, 10)
    assert 12 not in controller.graph[first]
    assert asked(controller) == []


def test_coming_back_to_a_superseded_generation_follows_the_resume_point() -> None:
    """It works as for a worker that has just begun."""
    controller, first = superseded()
    second = generation(controller)
    controller.set_eval(0, second, 14, None, 0.1)
    found = poll(controller, 0, first, 12, None)
    assert found is not None
    assert (found.params, found.step) == ("at 10", 10)
    assert found.generation_id not in (first, second)


@pytest.mark.parametrize("worker_id", [0, 1])
@pytest.mark.parametrize("params", [None, "at 5", "at 12", np.arange(3.0)])
def test_a_poll_of_a_superseded_generation_records_nothing(
    worker_id: int, params: Any
) -> None:
    """The params in the poll are dropped: no slot could continue from them."""
    controller, first = superseded()
    before = content(controller)
    assert poll(controller, worker_id, first, 12, params) is not None
    assert content(controller) == before


def test_a_worker_on_its_generation_carries_on() -> None:
    """The usual result is None, and nothing is written."""
    controller = run()
    first = generation(controller)
    before = everything(controller)
    assert poll(controller, 0, first, 17, "whatever") is None
    assert everything(controller) == before


# Reports of the present generation.


def test_a_report_moves_the_slot_forward() -> None:
    """The parent is the last checkpoint, and the mutator is asked."""
    controller = run()
    first = generation(controller)
    controller.set_eval(0, first, 5, "at 5", 2.0, {"acc": (0.5,)})
    controller.set_eval(0, first, 10, "at 10", 1.0)
    five, ten = controller.graph[first][5], controller.graph[first][10]
    assert (five.parent, ten.parent) == ((first, 0), (first, 5))
    assert (five.params, five.value, five.metrics) == ("at 5", 2.0, {"acc": (0.5,)})
    assert controller.workers[0][:4] == ("at 10", {"lr": 0}, first, 10)
    assert asked(controller) == [(0, 5), (0, 10)]


def test_a_branch_is_applied_with_the_report_that_caused_it() -> None:
    """When set_eval has returned, the slot has its new work."""
    controller, first = superseded(back_to=5)
    slot = controller.workers[0]
    assert slot[:4] == ("at 5", {"lr": 9}, generation(controller), 5)
    root = probe.newest(controller)[0]
    assert root.parent == (first, 5)
    assert root.reason == "as planned"


def test_a_value_at_the_very_step_that_was_handed_out_joins_the_root() -> None:
    """The root keeps its parent, and the mutator is asked."""
    controller, first = superseded()
    second = generation(controller)
    controller.set_eval(0, second, 10, "ignored", 0.7)
    root = controller.graph[second][10]
    assert (root.value, root.params, root.parent) == (0.7, "at 10", (first, 10))
    assert asked(controller) == [(0, 10)]


def test_a_root_without_a_value_asks_nobody() -> None:
    """Nothing was added, so there is nothing to decide."""
    controller, _ = superseded()
    before = content(controller)
    controller.set_eval(0, generation(controller), 10, "at 10", None)
    assert content(controller) == before
    assert asked(controller) == []


def test_an_older_step_is_recorded_between_and_the_slot_does_not_move() -> None:
    """Its parent is the next lower step; a later checkpoint keeps its parent."""
    controller = run()
    first = generation(controller)
    controller.set_eval(0, first, 5, "at 5", 2.0)
    controller.set_eval(0, first, 10, "at 10", 1.0)
    controller.set_eval(0, first, 7, "at 7", 3.0)
    assert controller.graph[first][7].parent == (first, 5)
    assert controller.graph[first][10].parent == (first, 5)
    assert controller.workers[0].step == 10
    assert asked(controller) == [(0, 5), (0, 10), (0, 7)]


def test_an_older_step_without_a_value_asks_nobody() -> None:
    """Only a report with a value can change a decision."""
    controller = run()
    first = generation(controller)
    controller.set_eval(0, first, 10, "at 10", 1.0)
    controller.set_eval(0, first, 7, "at 7", None)
    assert controller.graph[first][7].params == "at 7"
    assert asked(controller) == [(0, 10)]


@pytest.mark.parametrize("value", [1.5, math.nan, math.inf, None])
def test_the_same_report_again_changes_nothing(value: float | None) -> None:
    """Reports may be delivered more than once."""
    controller = run()
    report = (0, generation(controller), 5, "at 5", value, {"x": math.nan})
    controller.set_eval(*report)
    before = everything(controller)
    controller.set_eval(*report)
    assert everything(controller) == before
    assert asked(controller) == [(0, 5)]


def test_the_same_report_with_arrays_again_changes_nothing() -> None:
    """Arrays cannot be compared, so the first ones stay, and no copy is left."""
    controller = run()
    first = generation(controller)
    for _ in range(3):
        controller.set_eval(0, first, 5, {"w": np.ones(2)}, 1.0)
    assert len(list(controller.history())) == 3
    assert len(asked(controller)) == 1


@pytest.mark.parametrize(
    ("params", "value"), [("other", 1.0), ("at 5", 2.0), ("other", 2.0)]
)
def test_another_report_of_the_same_step_is_ignored_and_logged_once(
    params: str, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Params and value are each recorded once."""
    caplog.set_level(logging.DEBUG, "population")
    controller = run()
    first = generation(controller)
    controller.set_eval(0, first, 5, "at 5", 1.0)
    before = everything(controller)
    for _ in range(3):
        controller.set_eval(0, first, 5, params, value)
    assert everything(controller) == before
    assert asked(controller) == [(0, 5)]
    assert len(caplog.records) == 1
    assert first in caplog.text


def test_contradictions_are_logged_once_a_generation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning a step would fill the log of a loop that repeats everything."""
    caplog.set_level(logging.DEBUG, "population")
    controller = run()
    first = generation(controller)
    for value in (1.0, 2.0):
        for step in range(1, 9):
            controller.set_eval(0, first, step, None, value)
    assert len(caplog.records) == 1


def test_a_late_value_joins_its_checkpoint_and_decides() -> None:
    """An evaluation job reports the value after the loop has saved the params."""
    controller = run(Scripted(branch_at(5, {"lr": 9})))
    first = generation(controller)
    controller.set_eval(0, first, 5, "at 5", None)
    assert generation(controller) != first  # Asked by the report with no value.
    second = generation(controller)
    controller.set_eval(0, second, 8, "at 8", None, {"from": "loop"})
    controller.set_eval(0, second, 8, None, 0.5, {"from": "judge"})
    late = controller.graph[second][8]
    assert (late.params, late.value) == ("at 8", 0.5)
    assert asked(controller) == [(0, 5), (0, 8), (0, 8)]
    mutator = probe.mutator(controller)
    assert isinstance(mutator, Scripted)
    assert mutator.seen[-1].checkpoint.value == 0.5


def test_a_round_is_closed_by_late_values() -> None:
    """Two loops save, another process evaluates; both get the better one's params."""
    mutator = WinnerTakeAllGenetic(lambda meta: meta, steps_per_exploit=5)
    controller = PopulationController([{"lr": 0}, {"lr": 1}], mutator)
    before = [generation(controller, i) for i in (0, 1)]
    for i in (0, 1):
        controller.set_eval(i, before[i], 5, f"of {i}", None)
    controller.set_eval(0, before[0], 5, None, 2.0)
    assert [generation(controller, i) for i in (0, 1)] == before
    controller.set_eval(0, before[1], 5, None, 1.0)
    assert [w.params for w in controller.workers] == ["of 1", "of 1"]


def test_late_params_are_news_if_a_decision_may_rest_on_them() -> None:
    """The save completes a value that came first; otherwise a barrier stays open."""
    controller = run()
    first = generation(controller)
    controller.set_eval(0, first, 5, None, 1.0)
    controller.set_eval(0, first, 5, "at 5", 1.0)
    assert controller.graph[first][5].params == "at 5"
    assert controller.workers[0].params == "at 5"
    assert asked(controller) == [(0, 5)], "before the first params it needed none"
    controller.set_eval(0, first, 6, None, 1.0)
    controller.set_eval(0, first, 6, "at 6", None)
    assert asked(controller)[1:] == [(0, 6), (0, 6)]
    controller.set_eval(0, first, 7, None, 1.0)
    controller.set_eval(0, first, 8, "at 8", 1.0)
    controller.set_eval(0, first, 7, "at 7", None)
    assert asked(controller)[3:] == [(0, 7), (0, 8)], "8 is there already"


def test_a_barrier_closes_when_the_last_params_arrive() -> None:
    """They come after the value, if an evaluation is quicker than a save."""
    mutator = PopulationBasedTraining(lambda h: h + 1, 1, synchronous=True)
    controller = PopulationController([1.0, 2.0], mutator)
    first, second = generation(controller, 0), generation(controller, 1)
    controller.set_eval(0, first, 1, "a", 1.0)
    controller.set_eval(1, second, 1, None, 2.0)
    assert generation(controller, 1) == second
    controller.set_eval(1, second, 1, "b", None)
    assert controller.workers[1].params == "a"


@pytest.mark.parametrize("late_metrics", [None, {"judge": 1}])
def test_metrics_of_a_save_and_of_its_late_value_are_as_the_journal_says(
    late_metrics: Any,
) -> None:
    """The slot shows now what it will show after a restart."""
    controller = run()
    first = generation(controller)
    controller.set_eval(0, first, 5, "at 5", None, {"loop": 1})
    controller.set_eval(0, first, 5, None, 1.0, late_metrics)
    assert controller.newest(0) == controller.graph[first][5]


def test_a_report_without_a_value_asks_but_closes_no_barrier() -> None:
    """It may show a mutator that a worker is alive; it is not an evaluation."""
    mutator = WinnerTakeAllGenetic(lambda meta: meta, steps_per_exploit=5)
    controller = PopulationController([{}], mutator)
    first = generation(controller)
    controller.set_eval(0, first, 5, "at 5", None)
    assert generation(controller) == first
    controller.set_eval(0, first, 6, "at 6", 1.0)
    assert generation(controller) != first
    scripted = run()
    scripted.set_eval(0, generation(scripted), 5, "at 5", None)
    assert asked(scripted) == [(0, 5)]


# Reports of superseded, foreign and unknown generations.


def test_a_superseded_generation_grows_a_side_branch_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The slot does not move, and the mutator is not asked."""
    caplog.set_level(logging.DEBUG, "population")
    controller, first = superseded()
    slot = controller.workers[0]
    for step in (11, 12):
        controller.set_eval(0, first, step, f"at {step}", 0.1)
    assert controller.graph[first][12].parent == (first, 11)
    assert controller.workers[0] == slot
    assert asked(controller) == []
    assert len(caplog.records) == 1
    assert "superseded" in caplog.text


def test_a_side_branch_may_hold_the_best() -> None:
    """A value counts, whichever generation reached it."""
    controller, first = superseded()
    controller.set_eval(0, first, 12, "at 12", 0.01)
    best = controller.best()
    assert best is not None
    assert best.ref == (first, 12)


@pytest.mark.parametrize(("step", "decides"), [(3, True), (7, False)])
def test_a_late_value_of_a_superseded_generation_decides_on_the_lineage_only(
    step: int, decides: bool
) -> None:
    """Before the branch it is on the slot's lineage, after it on a side branch."""
    controller, first = superseded(back_to=5)
    controller.set_eval(0, first, step, None, 0.1)
    assert asked(controller) == ([(0, step)] if decides else [])


def test_a_value_for_the_donor_decides() -> None:
    """A branch from a checkpoint without a value: the value comes later."""
    mutator = Scripted(branch_at(10, {"lr": 9}))
    controller = run(mutator)
    first = generation(controller)
    controller.set_eval(0, first, 10, "at 10", None)
    mutator.seen.clear()
    controller.set_eval(0, first, 10, None, 1.0)
    assert mutator.asked == [(0, 10)]


def test_another_workers_checkpoint_may_be_given_a_value(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The mutator is told about the checkpoint's own slot; params are ignored."""
    caplog.set_level(logging.DEBUG, "population")
    controller = run()
    other = generation(controller, 1)
    controller.set_eval(1, other, 5, None, None)
    controller.set_eval(0, other, 5, "a stranger's", 0.5)
    found = controller.graph[other][5]
    assert (found.params, found.value, found.worker_id) == (None, 0.5, 1)
    assert asked(controller) == [(1, 5), (1, 5)]
    assert controller.workers[0].step == 0


def test_arrays_for_another_workers_checkpoint_are_not_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A save for a report that does not use it is removed again."""
    removed: list[str] = []

    class Store:
        def save(self, name: str, tree: Any) -> str:
            return name

        def load(self, path: str, like: Any = None) -> Any:
            raise AssertionError

        def remove(self, path: str) -> None:
            removed.append(path)

    controller = PopulationController([{}, {}], Scripted(), params=Store())
    other = generation(controller, 1)
    controller.set_eval(1, other, 5, None, None)
    controller.set_eval(0, other, 5, np.ones(2), 0.5)
    assert len(removed) == 1
    assert removed[0].startswith(f"{other}/5-")


def test_another_workers_new_step_is_dropped_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A generation has one worker."""
    caplog.set_level(logging.DEBUG, "population")
    controller = run()
    other = generation(controller, 1)
    before = everything(controller)
    for step in (5, 6):
        controller.set_eval(0, other, step, "p", 0.5)
    assert everything(controller) == before
    assert asked(controller) == []
    assert len(caplog.records) == 1


def test_a_report_of_an_unknown_generation_is_dropped_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A worker of another run changes nothing, arrays included."""
    caplog.set_level(logging.DEBUG, "population")
    controller = run()
    before = everything(controller)
    for params in ("p", np.ones(3), None):
        controller.set_eval(0, "stranger", 5, params, 0.5)
    assert everything(controller) == before
    assert asked(controller) == []
    assert len(caplog.records) == 1


def test_an_empty_generation_id_is_an_unknown_one() -> None:
    """A worker that reports before it has polled changes nothing."""
    controller = run()
    before = everything(controller)
    controller.set_eval(0, "", 5, "p", 0.5)
    assert everything(controller) == before


# Errors.


@pytest.mark.parametrize("durable", [False, True])
def test_when_the_mutator_raises_everything_is_rolled_back(
    durable: bool, tmp_path: Any
) -> None:
    """The caller sees the exception; the same report can be made again."""
    fails = [True]

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        if fails[0] and report.checkpoint.step == 10:
            raise RuntimeError("mutator trouble")
        return {}

    mutator = Scripted(decide)
    log_dir = tmp_path / "run" if durable else None
    controller = PopulationController([{}, {}], mutator, log_dir)
    first = generation(controller)
    controller.set_eval(0, first, 5, {"w": np.ones(2)}, 1.0)
    files = sorted(str(p) for p in tmp_path.rglob("*.safetensors"))
    before = everything(controller), controller.best()
    with pytest.raises(RuntimeError, match="mutator trouble"):
        controller.set_eval(0, first, 10, {"w": np.ones(2)}, 0.5)
    assert (everything(controller), controller.best()) == before
    assert sorted(str(p) for p in tmp_path.rglob("*.safetensors")) == files
    fails[0] = False
    controller.set_eval(0, first, 10, {"w": np.ones(2)}, 0.5)
    assert controller.workers[0].step == 10
    assert probe.reports(controller) == 2


def test_when_mutate_fn_raises_no_branch_of_the_round_is_left() -> None:
    """This includes the slots that were already mutated."""
    calls: list[Any] = []

    def mutate(meta_params: Any) -> Any:
        calls.append(meta_params)
        if len(calls) == 2:
            raise ZeroDivisionError
        return {"lr": 9}

    mutator = WinnerTakeAllGenetic(mutate, steps_per_exploit=1)
    controller = PopulationController([{"lr": 0}, {"lr": 1}], mutator)
    ids = [generation(controller, i) for i in (0, 1)]
    controller.set_eval(0, ids[0], 1, "of 0", 1.0)
    before = everything(controller), probe.decisions(controller)
    with pytest.raises(ZeroDivisionError):
        controller.set_eval(1, ids[1], 1, "of 1", 2.0)
    assert everything(controller) == before[0]
    assert controller.workers[1].step == 0
    assert probe.decisions(controller) == before[1]
    controller.set_eval(1, ids[1], 1, "of 1", 2.0)
    assert [w.meta_params for w in controller.workers] == [{"lr": 9}] * 2


@pytest.mark.parametrize(
    ("branches", "message"),
    [
        ({0: "not a branch"}, "must decide a Branch or a Retire for worker 0, got str"),
        ({7: Branch(None, {})}, "worker_id must be below 2"),
        ({0: Branch(None, {"f": object()})}, r"meta_params for worker 0\['f'\]"),
    ],
)
def test_what_a_mutator_may_not_return_is_refused_and_rolled_back(
    branches: Any, message: str
) -> None:
    """The message says what was wrong; nothing of the report is recorded."""
    controller = run(Scripted(lambda report, view: branches))
    before = everything(controller)
    with pytest.raises((TypeError, ValueError), match=message):
        controller.set_eval(0, generation(controller), 5, "p", 1.0)
    assert everything(controller) == before


def test_divergence_is_one_warning_for_a_generation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A member that diverged and continues does not fill the log."""
    controller = run()
    first = generation(controller)
    for step in range(1, 20):
        controller.set_eval(0, first, step, None, math.nan)
    assert len(caplog.records) == 1
    assert "worker 0" in caplog.text


def test_fresh_params_are_a_branch_from_nothing() -> None:
    """A branch without a parent begins at step 0 as a root."""
    controller = run(Scripted(lambda report, view: {0: Branch(None, {"lr": 5})}))
    controller.set_eval(0, generation(controller), 5, "p", 1.0)
    assert work(controller)[:4] == (None, {"lr": 5}, generation(controller), 0)
    assert probe.newest(controller)[0].parent is None


def test_a_start_hands_out_its_params_at_its_step() -> None:
    """Trained weights continue at their step."""
    start = Start({"lr": 3}, params="trained", step=40)
    controller = PopulationController([start], Scripted())
    assert work(controller)[:4] == ("trained", {"lr": 3}, generation(controller), 40)


def test_the_order_of_late_and_repeated_reports_does_not_matter() -> None:
    """In any order, and with repetitions, the checkpoints have the same values."""
    reports: list[tuple[int, str | None, float | None]] = []
    for step in range(1, 9):
        reports += [(step, f"at {step}", None), (step, None, float(step))]
    expected = {s: (f"at {s}", float(s)) for s in range(1, 9)}
    for seed in range(10):
        choose = random.Random(seed)
        controller = run()
        first = generation(controller)
        for step, params, value in choose.sample(reports * 2, k=2 * len(reports)):
            controller.set_eval(0, first, step, params, value)
        steps = controller.graph[first]
        assert {c.step: (c.params, c.value) for c in steps.values() if c.step} == (
            expected
        )
        assert controller.newest(0) == steps[8]
        assert probe.steps(controller)[0] == 8
        assert probe.ready(controller)[0] == 8
        assert_is_a_forest(controller.graph)


def test_a_late_value_of_the_donor_does_not_hide_that_of_the_branch() -> None:
    """Of two values at one step on a lineage, the one of the later branch is newer."""
    mutator = Scripted(branch_at(5, {"lr": 9}))
    controller = run(mutator)
    first = generation(controller)
    controller.set_eval(0, first, 5, "at 5", None)
    mutator._decide = None
    controller.set_eval(0, generation(controller), 5, None, 1.0)
    controller.set_eval(0, first, 5, None, 2.0)
    assert probe.scores(controller)[0] == 1.0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("saves", [0.0, 0.2])
def test_what_is_kept_in_memory_is_what_the_journal_says(
    seed: int, saves: float
) -> None:
    """After any reports, in any order, reading the journal again changes nothing."""
    choose = random.Random(seed)
    controller = run(random_branch(choose))
    for count in range(60):
        generation_id = choose.choice(list(controller.graph))
        root = controller.graph.root(generation_id)
        step = root.step + choose.randrange(6)
        params = f"p{count}" if choose.random() < saves else None
        value = choose.choice([None, math.nan, choose.random()])
        controller.set_eval(root.worker_id, generation_id, step, params, value)
        if choose.random() < 0.1:
            poll(controller, choose.randrange(2))
        before = probe.in_memory(controller)
        probe.forget(controller)
        assert probe.in_memory(controller) == before
    controller.close()


def test_arrays_need_a_place(tmp_path: pathlib.Path) -> None:
    """Without a folder or a store only plain values are kept; the error says so."""
    journal = SqliteJournal(tmp_path / "journal.sqlite")
    controller = PopulationController([1.0], Scripted(), journal=journal)
    first = generation(controller)
    controller.set_eval(0, first, 1, {"path": ("a", 1)}, 1.0)
    with pytest.raises(ValueError, match="params="):
        controller.set_eval(0, first, 2, np.ones(2), 1.0)
    assert controller.workers[0].step == 1
    controller.close()
