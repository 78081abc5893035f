"""The population as of a step, and the slots that are live."""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from population import Branch, Checkpoint, PopulationController, PopulationView, Report
from tests import probe
from tests.helpers import Decide, Scripted, generation
from tests.journey import Journey


@pytest.mark.parametrize("branching", [0.05, 0.2, 0.4])
def test_a_view_keeps_to_its_definition_whatever_happens(branching: float) -> None:
    """After reports, late values, branches to anywhere, batches, and rollbacks."""
    for seed in range(10):
        journey = Journey(seed, None, branching)
        for _ in range(30):
            journey.go()


def test_a_view_keeps_to_its_definition_after_reopening(tmp_path: pathlib.Path) -> None:
    """The memory is filled again from the journal, and is the same."""
    for seed in range(6):
        journey = Journey(seed, tmp_path / str(seed), 0.2)
        for _ in range(5):
            for _ in range(8):
                journey.go()
            journey.reopen()
            journey.check(probe.view(journey.controller))
        journey.controller.close()


def test_a_view_shows_what_another_process_has_written(tmp_path: pathlib.Path) -> None:
    """Two controllers take turns on one journal."""
    for seed in range(4):
        journey = Journey(seed, tmp_path / str(seed), 0.2)
        both = [journey.controller, journey.open()]
        for turn in range(30):
            journey.controller = both[turn % 2]
            journey.go()
        for controller in both:
            controller.close()


# The cost.


def run(decide: Decide | None = None, size: int = 2) -> PopulationController:
    """A run in memory whose policy has looked back once."""
    controller = PopulationController([{"h": 0}] * size, Scripted(decide))
    probe.as_of(controller, 0)
    return controller


def test_reports_are_only_remembered_for_a_policy_that_looks_back() -> None:
    """Other policies do not pay for it; the first call reads the journal."""
    controller = PopulationController([{"h": 0}] * 2, Scripted())
    report(controller, 0, *range(10, 60, 10))
    found, steps = reads(controller, 39)
    assert found
    assert steps == [30, -1]
    report(controller, 0, 60, 70)
    assert reads(controller, 65) == ([], [60, -1])


def report(controller: PopulationController, worker_id: int, *steps: int) -> None:
    """Report values of a slot; at step s the value is s."""
    for step in steps:
        present = generation(controller, worker_id)
        controller.set_eval(worker_id, present, step, "p", float(step))


def reads(controller: PopulationController, step: int) -> tuple[list[str], list[int]]:
    """The SQL of a look back, and the steps that it found."""
    found: list[str] = []
    probe.connection(controller).set_trace_callback(found.append)
    steps, scores = probe.as_of(controller, step)
    probe.connection(controller).set_trace_callback(None)
    assert [s for s in scores.tolist() if s < math.inf] == [
        s for s in steps.tolist() if s >= 0
    ]
    return found, steps.tolist()


def test_looking_back_over_sixteen_reports_reads_nothing() -> None:
    """Reports of slots that are a little ahead are in memory; the next one is read."""
    controller = run()
    report(controller, 0, *range(10, 270, 10))
    for ahead in range(17):
        step = 260 - 10 * ahead
        assert reads(controller, step) == ([], [step, -1])
        assert reads(controller, step + 9) == ([], [step, -1])
    found, steps = reads(controller, 99)
    assert found
    assert steps == [90, -1]


@pytest.mark.parametrize("back_to", [None, 200])
def test_looking_back_right_after_a_branch_reads_nothing(back_to: int | None) -> None:
    """The reports of its donor are in memory, and are its own too."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        if report.checkpoint.step != 260:
            return {}
        parent = report.checkpoint
        if back_to is not None:
            parent = view.graph[parent.generation_id][back_to]
        branches = {w: Branch(parent, {"h": w}) for w in (1, 2)}
        return branches if back_to is None else branches | {0: Branch(parent, {"h": 3})}

    controller = run(decide, 3)
    report(controller, 1, 5)
    report(controller, 0, *range(10, 270, 10))
    last = back_to or 260
    for step in range(last, 99, -10):
        assert reads(controller, step) == ([], [step] * 3)
    report(controller, 1, last + 10)
    report(controller, 2, last + 5, last + 7)
    assert reads(controller, last)[0] == []
    assert reads(controller, last + 6) == ([], [last, last, last + 5])


def test_looking_back_in_a_decision_reads_nothing() -> None:
    """The view of a mutator uses the same memory."""
    found: list[str] = []
    seen: list[Any] = []

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        if report.worker_id == 1:
            probe.connection(controller).set_trace_callback(found.append)
            seen.extend(array.tolist() for array in view.as_of(report.checkpoint.step))
            probe.connection(controller).set_trace_callback(None)
        return {}

    controller = run(decide)
    report(controller, 0, 10, 20, 30)
    report(controller, 1, 15)
    assert found == []
    assert seen == [[10, 15], [10.0, 15.0]]


def test_looking_back_changes_nothing() -> None:
    """The arrays belong to the caller."""
    controller = run()
    report(controller, 0, 10, 20)
    for step in (15, 99):
        steps, scores = probe.as_of(controller, step)
        steps.fill(7)
        scores.fill(7)
    assert probe.steps(controller).tolist() == [20, -1]
    assert probe.as_of(controller, 15)[0].tolist() == [10, -1]
    assert probe.as_of(controller, -1)[0].tolist() == [-1, -1]
    assert np.isinf(probe.as_of(controller, -1)[1]).all()


def test_a_late_value_is_seen_by_all_who_came_that_way() -> None:
    """A value for the donor of several branches counts for all of them."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        if report.checkpoint.step != 30:
            return {}
        return {w: Branch(report.checkpoint, {"h": w}) for w in (0, 1, 2)}

    controller = run(decide, 4)
    first = generation(controller)
    controller.set_eval(0, first, 10, "p", 1.0)
    controller.set_eval(0, first, 20, "p", None)
    controller.set_eval(0, first, 30, "p", 3.0)
    as_of = functools.partial(probe.as_of, controller)
    assert as_of(25)[0].tolist() == [10, 10, 10, -1]
    controller.set_eval(0, first, 20, None, 2.0)
    assert as_of(25)[0].tolist() == [20, 20, 20, -1]
    assert as_of(25)[1].tolist() == [2.0, 2.0, 2.0, math.inf]
    controller.set_eval(0, first, 15, "p", 1.5)
    assert as_of(19)[0].tolist() == [15, 15, 15, -1]


def test_a_late_value_of_the_very_donor_is_seen_by_its_copies() -> None:
    """A generation begins at the step of its donor, and that step counts too."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        if report.checkpoint.step != 20 or report.checkpoint.value is not None:
            return {}
        return {w: Branch(report.checkpoint, {"h": w}) for w in (1, 2)}

    controller = run(decide, 3)
    first = generation(controller)
    controller.set_eval(0, first, 10, "p", 1.0)
    controller.set_eval(0, first, 20, "p", None)
    for worker_id in (0, 1, 2):
        report(controller, worker_id, 30, 40)
    as_of = functools.partial(probe.as_of, controller)
    assert as_of(25)[0].tolist() == [10, 10, 10]
    controller.set_eval(0, first, 20, None, 2.0)
    assert as_of(25)[0].tolist() == [20, 20, 20]
    assert as_of(15)[0].tolist() == [10, 10, 10]


@pytest.mark.parametrize("late", [20, 30])
def test_a_late_value_is_seen_by_who_comes_that_way_later(late: int) -> None:
    """Between two branches from one checkpoint, an ancestor gets its value."""
    donors: list[Checkpoint] = []

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        if report.worker_id == 0:
            return {}
        return {report.worker_id: Branch(donors[0], {"h": 1})}

    controller = run(decide, 3)
    first = generation(controller)
    for step in (10, 20, 30, 40):
        value = None if step == late else float(step)
        controller.set_eval(0, first, step, "p", value)
    donors.append(controller.graph[first][30])
    as_of = functools.partial(probe.as_of, controller)
    report(controller, 1, 1)
    controller.set_eval(0, first, late, None, float(late))
    report(controller, 2, 1)
    for step in (10, 20, 30):
        assert as_of(step)[0].tolist() == [step] * 3
        assert as_of(step)[1].tolist() == [float(step)] * 3


# Which slots are live.


def test_a_lost_slot_is_not_live_but_is_still_a_worker(tmp_path: pathlib.Path) -> None:
    """A policy compares the live ones, and may still branch the others."""
    views: list[tuple[list[int], int]] = []

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        views.append((list(view.live), len(view.workers)))
        return {}

    def opened() -> PopulationController:
        return PopulationController([1.0] * 3, Scripted(decide), tmp_path)

    controller, other = opened(), opened()

    def report(controller: PopulationController, worker_id: int) -> list[int]:
        present = generation(controller, worker_id)
        step = controller.newest(worker_id).step + 1
        controller.set_eval(worker_id, present, step, None, 1.0)
        return views[-1][0]

    for lost, live in (({1}, [0, 2]), ({1, 2}, [0]), (set(), [0, 1, 2]), ({1}, [0, 2])):
        probe.give_up(controller, lost)
        assert report(controller, 0) == live
    assert report(other, 0) == [0, 2], "every process knows"
    assert report(other, 1) == [0, 1, 2], "whoever reports is back"
    probe.give_up(controller, {2})
    assert len(controller.workers) == 3
    controller.close()
    other.close()
    again = opened()
    assert report(again, 0) == [0, 1], "after a restart too"
    again.close()
