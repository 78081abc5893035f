"""How each kind of decision goes on, and how a run with it ends under `Stop`.

As the table on the page for authors of mutators says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from population import (
    Branch,
    Mutator,
    PopulationController,
    PopulationView,
    Ref,
    Report,
    Retire,
    Stop,
)
from tests import probe

END = 6
Choose = Callable[[Report, PopulationView], Mapping[int, Branch | Retire]]


class Once(Mutator[bool]):
    """Decides once, at the first report for which a function decides something."""

    def __init__(self, choose: Choose, wait: int | None = None) -> None:
        self.choose = choose
        self.wait = wait

    def init(self, view: PopulationView) -> bool:
        """Nothing is decided yet."""
        return False

    def update(
        self, state: bool, report: Report, view: PopulationView
    ) -> tuple[bool, Mapping[int, Branch | Retire]]:
        """Decide what the function says."""
        decisions = {} if state else self.choose(report, view)
        return bool(state or decisions), decisions

    def wait_at(self, state: bool, worker_id: int, view: PopulationView) -> int | None:
        """Where the slots wait."""
        return self.wait


def train(
    choose: Choose,
    stop: Stop | None = None,
    wait: int | None = None,
) -> PopulationController:
    """Two loops train in turns until the run is finished; the second one is better.

    A loop waits where its work says so.
    """
    mutator = Once(choose, wait)
    first = [{"h": 0}, {"h": 1}]
    controller = PopulationController(first, mutator, stop=stop or Stop(steps=END))
    for number in range(60):
        worker_id = number % 2
        if controller.finished:
            break
        work = controller.maybe_get_worker_data(worker_id, None, 0, None, None)
        assert work is not None
        if work.wait_at is None or work.step < work.wait_at:
            step = work.step + 1
            place = worker_id, work.generation_id, step
            controller.set_eval(*place, f"{step}", 10.0 - step - worker_id)
    return controller


def at(worker_id: int, step: int, decide: Choose) -> Choose:
    """Decide at a worker's report of a step."""

    def choose(report: Report, view: PopulationView) -> Mapping[int, Branch | Retire]:
        here = report.worker_id, report.checkpoint.step
        return decide(report, view) if here == (worker_id, step) else {}

    return choose


def reports(controller: PopulationController, worker_id: int) -> list[tuple[Any, int]]:
    """The hyperparameter and step of each report of a slot with a value, in order."""
    return [
        (c.meta_params["h"], c.step)
        for c in controller.history()
        if c.worker_id == worker_id and c.value is not None
    ]


def test_a_copy_goes_on_at_the_step_of_its_donor() -> None:
    """And trains to the end with the others."""
    controller = train(
        at(1, 3, lambda r, v: {0: Branch(v.newest(1), {"h": 2}, "copied")})
    )
    assert controller.finished
    steps = [*range(1, 4)], [*range(4, END + 1)]
    assert reports(controller, 0) == [(0, s) for s in steps[0]] + [
        (2, s) for s in steps[1]
    ]


def test_a_copy_of_a_member_at_the_end_is_not_trained() -> None:
    """Its hyperparameters are never tried, and are not those of the best."""
    controller = train(
        at(1, END, lambda r, v: {0: Branch(r.checkpoint, {"h": 2}, "copied")})
    )
    assert controller.finished
    assert controller.workers[0].meta_params == {"h": 2}
    assert (2, END) not in reports(controller, 0)
    best = controller.best()
    assert best is not None
    assert best.meta_params == {"h": 1}


@pytest.mark.parametrize("parent", ["fresh", "old"])
def test_a_run_waits_for_a_slot_that_goes_back(parent: str) -> None:
    """It is trained to the end again, from step 0 or from that of a `Ref`."""

    def back(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        old = view.graph.checkpoint(Ref(report.checkpoint.generation_id, 2))
        return {1: Branch(None if parent == "fresh" else old, {"h": 5})}

    controller = train(at(1, END, back))
    assert controller.finished
    first = 1 if parent == "fresh" else 3
    again = [(5, step) for step in range(first, END + 1)]
    assert reports(controller, 1) == [(1, s) for s in range(1, END + 1)] + again


def test_a_policy_that_always_goes_back_ends_by_another_limit() -> None:
    """`Stop(steps=)` alone would never end it."""

    class Always(Once):
        def update(
            self, state: bool, report: Report, view: PopulationView
        ) -> tuple[bool, Mapping[int, Branch | Retire]]:
            if report.checkpoint.step < END:
                return state, {}
            return state, {report.worker_id: Branch(None, {"h": 3})}

    stop = Stop(steps=END, reports=40)
    controller = PopulationController([{"h": 0}], Always(lambda r, v: {}), stop=stop)
    while not controller.finished:
        work = controller.workers[0]
        controller.set_eval(0, work.generation_id, work.step + 1, "p", 1.0)
    assert probe.reports(controller) == 40


@pytest.mark.parametrize("wait", [4, END, 100])
def test_slots_that_wait_wait_at_most_at_the_end(wait: int) -> None:
    """The decision at the end is made; one that would come after it never is."""

    def together(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        found = [view.barrier(worker_id, wait) for worker_id in view.live]
        if None in found:
            return {}
        return {0: Branch(found[1], {"h": 7}, "together")}

    class Round(Once):
        def wait_at(
            self, state: bool, worker_id: int, view: PopulationView
        ) -> int | None:
            return None if state else wait

    mutator = Round(together)
    stop = Stop(steps=END)
    controller = PopulationController([{"h": 0}, {"h": 1}], mutator, stop=stop)
    for number in range(40):
        worker_id = number % 2
        work = controller.maybe_get_worker_data(worker_id, None, 0, None, None)
        assert work is not None
        assert work.wait_at == (min(wait, END) if not decided(controller) else END)
        if work.step < work.wait_at:
            place = worker_id, work.generation_id, work.step + 1
            controller.set_eval(*place, "p", 10.0 - work.step - worker_id)
    assert controller.finished
    assert decided(controller) == (wait <= END)
    assert {work.step for work in controller.workers} == {END}


def decided(controller: PopulationController) -> bool:
    """Whether slot 0 was branched."""
    return bool(controller.workers[0].meta_params == {"h": 7})


def test_a_retired_slot_is_not_waited_for() -> None:
    """The others train to the end; with none left, the run ends at once."""
    controller = train(at(0, 2, lambda r, v: {0: Retire("too slow")}))
    assert controller.finished
    assert [work.step for work in controller.workers] == [2, END]
    controller = train(at(0, 2, lambda r, v: {0: Retire(), 1: Retire()}))
    assert controller.finished
    assert max(work.step for work in controller.workers) <= 2


def test_another_limit_ends_a_run_at_once() -> None:
    """The last decision is recorded, and is not trained any more."""
    stop = Stop(reports=6)
    branch = at(1, 3, lambda r, v: {0: Branch(r.checkpoint, {"h": 2}, "copied")})
    controller = train(branch, stop)
    assert controller.finished
    assert probe.reports(controller) == 6
    assert controller.workers[0].meta_params == {"h": 2}
    assert (2, 4) not in reports(controller, 0)


@pytest.mark.parametrize("value", [1.0, math.nan])
def test_the_resume_point_says_where_a_branch_begins(value: float) -> None:
    """At the nearest save, or before a divergence, and so at an earlier step."""
    predicted: list[int] = []

    def copy(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        point = view.graph.resume_point(report.checkpoint)
        predicted.append(point.step)
        return {0: Branch(point, {"h": 2})}

    controller = PopulationController(
        [{"h": 0}, {"h": 1}], Once(at(1, 5, copy)), stop=Stop(steps=END)
    )
    first = controller.workers[1].generation_id
    for step in range(1, 6):
        params = f"{step}" if step in (2, 5) and step < 5 + math.isnan(value) else None
        controller.set_eval(1, first, step, params, value if step == 5 else 1.0)
    assert predicted == [2]
    work = controller.workers[0]
    assert (work.step, work.params) == (2, "2")
    root = controller.graph.root(work.generation_id)
    assert (root.step, root.parent) == (2, Ref(first, 2))
    assert probe.view(controller).begins[0] == 2
