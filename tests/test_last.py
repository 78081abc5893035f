"""The last scores of each slot, `view.last`: what they are, and what they cost."""

from __future__ import annotations

import functools
import math
import pathlib
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import numpy as np
import pytest

import population
from population import Branch, Mutator, PopulationController, PopulationView, Report
from population.testing import check_mutator
from tests import probe
from tests.helpers import Scripted, generation
from tests.journey import COUNTS, check_last

NONE = math.nan


def run(
    size: int = 2, folder: pathlib.Path | None = None, mode: str = "min"
) -> PopulationController:
    """A run whose policy decides nothing."""
    return PopulationController([{"h": 0}] * size, Scripted(), folder, mode=mode)


def report(controller: PopulationController, worker_id: int, *steps: int) -> None:
    """Report values of a slot; at step s the value is s."""
    for step in steps:
        present = generation(controller, worker_id)
        controller.set_eval(worker_id, present, step, "p", float(step))


def last(controller: PopulationController, k: Any, until: Any = None) -> list[Any]:
    """The last scores."""
    found: list[Any] = probe.view(controller).last(k, until).tolist()
    return found


def check(found: Any, expected: Any) -> None:
    """Scores are as expected, NaN where NaN is expected."""
    np.testing.assert_array_equal(found, expected)


def test_the_last_scores_are_oldest_first_with_nan_on_the_left() -> None:
    """A slot with fewer reports than are asked for has NaN in the first columns."""
    controller = run(3)
    report(controller, 0, 10, 20, 30)
    report(controller, 1, 15)
    check(last(controller, 1), [[30], [15], [NONE]])
    expected = [[20, 30], [NONE, 15], [NONE, NONE]]
    check(last(controller, 2), expected)
    expected = [[NONE, 10, 20, 30], [NONE] * 3 + [15], [NONE] * 4]
    check(last(controller, 4), expected)


def test_lower_is_better_and_a_divergence_is_infinite() -> None:
    """They are scores, not values; a report without a value is left out."""
    controller = run(1, mode="max")
    first = generation(controller)
    for step, value in enumerate([1.0, None, math.nan, 2.0], start=1):
        controller.set_eval(0, first, step, "p", value)
    assert last(controller, 3) == [[-1.0, math.inf, -2.0]]


def test_reports_after_a_step_can_be_left_out() -> None:
    """A loop that does not wait may be beyond a barrier, by its own number of steps."""
    controller = run(2)
    report(controller, 0, 10, 20, 30)
    report(controller, 1, 15, 25)
    assert last(controller, 1, 20) == [[20], [15]]
    assert last(controller, 2, np.array([30, 25])) == [[20, 30], [15, 25]]
    check(last(controller, 1, [9, 24]), [[NONE], [15]])


@pytest.mark.parametrize("k", [0, -1, 1.0, True, None, "2"])
def test_a_number_of_reports_is_a_positive_int(k: Any) -> None:
    """The error says so."""
    with pytest.raises(ValueError, match="k must be a positive int, got"):
        last(run(), k)


@pytest.mark.parametrize("until", [[1], [1, 2, 3], [[1, 2]]])
def test_a_limit_is_one_step_or_one_for_each_slot(until: Any) -> None:
    """The error says how many there are."""
    with pytest.raises(ValueError, match="until must be a step, or 2 steps"):
        last(run(), 1, until)


def test_both_reports_of_a_step_at_which_a_copy_begins_count() -> None:
    """A copy may be evaluated before it is trained, and be copied itself."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        checkpoint = report.checkpoint
        if (report.worker_id, checkpoint.step) == (0, 20):
            return {1: Branch(checkpoint, {"h": 1})}
        if (report.worker_id, checkpoint.step) == (1, 30):
            root = view.graph.root(checkpoint.generation_id)
            return {2: Branch(root, {"h": 2})}
        return {}

    controller = PopulationController([{"h": 0}] * 3, Scripted(decide))
    report(controller, 0, 10, 20)
    controller.set_eval(1, generation(controller, 1), 20, None, 5.0)
    assert last(controller, 3)[1] == [10, 20, 5]
    report(controller, 1, 30)
    assert last(controller, 3)[1:] == [[20, 5, 30], [10, 20, 5]]
    check_last(probe.view(controller), 3, 4)


def test_a_late_value_at_the_oldest_step_in_memory_counts() -> None:
    """It may come after the report of the same step that is in memory."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        copies = {(0, 20): 1, (1, 36): 2}
        copy = copies.get((report.worker_id, report.checkpoint.step))
        return {} if copy is None else {copy: Branch(report.checkpoint, {"h": 1})}

    controller = PopulationController([{"h": 0}] * 3, Scripted(decide))
    last(controller, 1)
    report(controller, 0, 10, 20)
    first_copy = generation(controller, 1)
    report(controller, 1, *range(21, 37))
    assert last(controller, 1, 20) == [[20], [20], [20]]
    controller.set_eval(1, first_copy, 20, None, 5.0)
    assert last(controller, 1, 20) == [[20], [5], [5]]


# It does not depend on what is in memory.


@pytest.mark.parametrize("count", [18, 40])
def test_more_scores_than_before_are_looked_up(count: int) -> None:
    """A policy may ask for more at any time."""
    controller = run()
    last(controller, 1)
    report(controller, 0, *range(18))
    assert last(controller, count)[0][-18:] == [float(step) for step in range(18)]
    check_last(probe.view(controller), 2, count)


class Hashing(Mutator[None]):
    """Copies with hyperparameters that depend on all that `last` returns."""

    def init(self, view: PopulationView) -> None:
        """Remember nothing."""
        del view

    def update(
        self, state: None, report: Report, view: PopulationView
    ) -> tuple[None, Mapping[int, Branch]]:
        """Every third report of a slot copies it to the next one."""
        checkpoint, next_one = report.checkpoint, (report.worker_id + 1) % 3
        if checkpoint.step % 3:
            return state, {}
        seen = [view.last(k, limit).tolist() for k in COUNTS for limit in (None, 9)]
        return state, {next_one: Branch(checkpoint, {"seen": repr(seen)}, "copied")}


def test_a_replay_sees_the_same_scores(tmp_path: pathlib.Path) -> None:
    """Decisions that depend on all of them are the same, after restarts and forks."""
    controller = PopulationController([{"seen": ""}] * 3, Hashing(), tmp_path / "run")
    for number in range(60):
        worker_id = (number * number) % 3
        present = controller.workers[worker_id]
        late = worker_id, present.generation_id, present.step + 1, "p"
        controller.set_eval(*late, None if number % 4 == 0 else number / 7)
        if number % 5 == 0:
            controller.set_eval(*late, 0.5)
        if number == 30:
            controller.close()
            population.fork(tmp_path / "run", tmp_path / "fork", mutator=Hashing())
        if number % 10 == 0:
            controller.close()
            folder = tmp_path / ("run" if number < 30 else "fork")
            controller = PopulationController([None] * 3, Hashing(), folder)
    found = population.replay(controller, Hashing())
    controller.close()
    assert found.first_difference is None, str(found)
    assert len(found.decisions) > 5


# What it costs.


def reads(controller: PopulationController, call: Callable[[], object]) -> list[str]:
    """The SQL of a call."""
    found: list[str] = []
    probe.connection(controller).set_trace_callback(found.append)
    call()
    probe.connection(controller).set_trace_callback(None)
    return found


def lines(call: Callable[[], object]) -> int:
    """How many lines of Python a call executes."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        del frame, argument
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_a_policy_that_never_looks_back_keeps_no_reports() -> None:
    """Others do, from their first look on."""
    controller = run()
    report(controller, 0, *range(10))
    assert not probe.keeps_reports(controller)
    last(controller, 1)
    assert probe.keeps_reports(controller)


@pytest.mark.parametrize("count", [1, 5, 40])
def test_reports_are_looked_up_once(tmp_path: pathlib.Path, count: int) -> None:
    """The first look after a restart reads the journal; later ones need no SQL."""
    controller = run(4, tmp_path)
    for worker_id, number in enumerate([0, 3, 30, 90]):
        report(controller, worker_id, *range(number))
    controller.close()
    controller = run(4, tmp_path)
    probe.refresh(controller)
    look = functools.partial(last, controller, count)
    assert bool(reads(controller, look)) == (count > 1)
    assert reads(controller, look) == []
    report(controller, 3, 95)
    report(controller, 0, 5)
    assert reads(controller, look) == []
    check_last(probe.view(controller), 4, count)
    controller.close()


def test_a_slot_may_be_sixteen_reports_beyond_a_barrier() -> None:
    """Its scores at the barrier are in memory; further back they are read."""
    controller = run()
    last(controller, 5)
    report(controller, 0, *range(100))
    for ahead in range(17):
        look = functools.partial(last, controller, 5, 99 - ahead)
        assert reads(controller, look) == []
    assert reads(controller, functools.partial(last, controller, 5, 20))
    assert last(controller, 5, 20)[0] == [16, 17, 18, 19, 20]


def test_a_branch_needs_no_look_up() -> None:
    """The reports of its donor are in memory, and are its own, too."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        if report.checkpoint.step != 30:
            return {}
        return {w: Branch(report.checkpoint, {"h": w}) for w in range(2)}

    controller = PopulationController([{"h": 0}] * 2, Scripted(decide))
    last(controller, 5)
    report(controller, 0, *range(31))
    look = functools.partial(last, controller, 5)
    assert reads(controller, look) == []
    assert look() == [[26, 27, 28, 29, 30]] * 2
    report(controller, 1, 31)
    assert reads(controller, look) == []


def test_the_last_scores_cost_the_same_however_many_slots_there_are() -> None:
    """It is array arithmetic: as many lines for 4 slots as for 400."""
    found = []
    for size in (4, 400):
        controller = run(size)
        for step in range(1, 4):
            ids = [w.generation_id for w in controller.workers]
            each = [(w, ids[w], step + w % 2, None, 1.0) for w in range(size)]
            controller.set_evals(each)
        view = probe.view(controller)
        for call in (
            functools.partial(view.last, 2),
            functools.partial(view.last, 2, 3),
            functools.partial(view.as_of, 3),
        ):
            call()
            found.append(lines(call))
        controller.close()
    assert found[:3] == found[3:]
    assert max(found) < 1000


def test_a_report_costs_the_same_for_a_policy_that_looks_back() -> None:
    """It moves one row, whatever the number of slots and of reports."""
    found = []
    for size, count in ((4, 1), (400, 1), (4, 200)):
        controller = run(size)
        report(controller, 0, 1, 2, 3)
        last(controller, count)
        present = generation(controller)
        call = functools.partial(controller.set_eval, 0, present, 4, "p", 1.0)
        found.append(lines(call))
    assert max(found) - min(found) <= 2 < 100 < found[0], found


class Smooth(Mutator[int]):
    """At barriers, the worst by the mean of three scores copies the best."""

    def __init__(self, mutate_fn: Any) -> None:
        self._mutate = mutate_fn

    def init(self, view: PopulationView) -> int:
        """The first barrier."""
        return 6

    def update(
        self, state: int, report: Report, view: PopulationView
    ) -> tuple[int, Mapping[int, Branch]]:
        """Decide once all have arrived."""
        means = view.last(3, until=state).mean(axis=1)
        live = list(view.live)
        if not live or view.ready[live].min() < state:
            return state, {}
        order = sorted((means[w], w) for w in live if math.isfinite(means[w]))
        if len(order) < 2:
            return state + 6, {}
        best, worst = order[0][1], order[-1][1]
        point = view.graph.resume_point(view.newest(best))
        changed = self._mutate(point.meta_params, rng=view.rng)
        return state + 6, {worst: Branch(point, changed, "worst")}


def test_a_policy_that_looks_at_three_scores_keeps_all_promises() -> None:
    """Nor does the cost of a report depend on the number of slots."""
    check_mutator(Smooth, size=3)
