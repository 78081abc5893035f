"""The parts of a policy whose workers wait for each other."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from population import (
    Branch,
    Mutator,
    PopulationController,
    PopulationView,
    Report,
    Retire,
)
from population.mutators.rounds import (
    Latecomer,
    end_after,
    is_live,
    ranked,
    starts_after,
    step_after,
)
from tests import probe
from tests.helpers import Scripted


def run(size: int = 4, mode: str = "min") -> PopulationController:
    """A run whose policy decides nothing."""
    return PopulationController([{"h": 0}] * size, Scripted(), mode=mode)


def report(
    controller: PopulationController, worker_id: int, step: int, value: float
) -> None:
    """Report a value of a slot."""
    present = controller.workers[worker_id].generation_id
    controller.set_eval(worker_id, present, step, "p", value)


def view(controller: PopulationController) -> PopulationView:
    """The view of the run."""
    found: PopulationView = probe.view(controller)
    return found


def test_a_round_is_over_once_all_live_slots_are_there() -> None:
    """Retired slots and those that were given up are not waited for."""
    controller, latecomer, state = run(), Latecomer(), object()
    for worker_id, step in enumerate([5, 7, 4, 1]):
        report(controller, worker_id, step, 1.0)
    assert latecomer.reached(state, view(controller), lambda w: 5) == {}
    probe.give_up(controller, {3})
    assert latecomer.reached(state, view(controller), lambda w: 5) == {}
    report(controller, 2, 6, 1.0)
    found = latecomer.reached(state, view(controller), lambda w: 5)
    assert {w: c.step for w, c in found.items()} == {0: 5, 1: 7, 2: 6}


def test_only_one_latecomer_is_looked_at() -> None:
    """Until that one has arrived; so a report costs the same in a large population."""
    asked: list[int] = []
    here = {0, 1, 3}

    def has_arrived(worker_id: int) -> bool:
        asked.append(worker_id)
        return worker_id in here

    latecomer, state, live = Latecomer(), object(), range(5)
    assert latecomer.is_late(state, live, has_arrived)
    assert asked == [0, 1, 2]
    for _ in range(3):
        asked.clear()
        assert latecomer.is_late(state, live, has_arrived)
        assert asked == [2]
    here.add(2)
    assert latecomer.is_late(state, live, has_arrived)
    assert asked == [2, 2, 3, 4]
    asked.clear()
    assert latecomer.is_late(object(), live, has_arrived)
    assert asked == [0, 1, 2, 3, 4], "another state is another round"
    assert latecomer.is_late(state, [], has_arrived), "with no slot no round is over"


@pytest.mark.parametrize(("mode", "order"), [("min", [2, 0, 3]), ("max", [0, 3, 2])])
def test_those_with_a_finite_score_are_ranked(mode: str, order: list[int]) -> None:
    """The best first, in each mode; of equal ones the one with the lower id."""
    controller = run(mode=mode)
    for worker_id, value in enumerate([2.0, math.nan, 1.0, 2.0]):
        report(controller, worker_id, 3, value)
    reached = Latecomer().reached(object(), view(controller), lambda w: 3)
    assert list(reached) == [0, 1, 2, 3]
    assert ranked(reached, view(controller)) == order


def test_the_next_end_is_beyond_the_furthest_slot() -> None:
    """A slot that copies it has to train a whole round."""
    controller = run(3)
    for worker_id, step in enumerate([5, 9, 6]):
        report(controller, worker_id, step, 1.0)
    reached = Latecomer().reached(object(), view(controller), lambda w: 5)
    assert end_after(reached, 4) == 13
    assert Latecomer().reached(object(), view(controller), 5) == reached
    with pytest.raises(ValueError, match="got none: return state"):
        end_after({}, 4)
    for steps in (0, -5, 2.5):
        with pytest.raises(ValueError, match="steps must be a positive int"):
            end_after(reached, steps)  # type: ignore[arg-type]


def test_the_next_start_of_each_slot_is_where_it_goes_on() -> None:
    """At its branch, or where it stood; that of others stays."""
    controller = run(4)
    for worker_id, step in enumerate([5, 9, 6]):
        report(controller, worker_id, step, 1.0)
    probe.give_up(controller, {3})
    reached = Latecomer().reached(object(), view(controller), lambda w: 5)
    branches = {0: Branch(reached[1], {}), 2: Branch(None, {})}
    seen = view(controller)
    assert [step_after(branch, seen) for branch in branches.values()] == [9, 0]
    assert starts_after([1, 2, 3, 4], reached, branches, seen) == [9, 9, 0, 4]
    assert starts_after([1, 2, 3, 4], reached, {0: Retire("")}, seen) == [5, 9, 6, 4]


def test_a_copy_of_what_was_not_saved_begins_where_the_params_are() -> None:
    """A loop may report more often than it saves."""
    controller = run(2)
    report(controller, 0, 4, 1.0)
    present = controller.workers[0].generation_id
    controller.set_eval(0, present, 7, None, 0.5)
    seen = view(controller)
    branch = Branch(seen.newest(0), {})
    assert step_after(branch, seen) == 4
    assert starts_after([0, 0], {1: seen.newest(1)}, {1: branch}, seen) == [0, 4]


def test_whether_a_slot_is_live() -> None:
    """In a run of any size, without a walk over all."""
    controller = run(5)
    probe.give_up(controller, {1, 4})
    found = [is_live(view(controller), worker_id) for worker_id in range(5)]
    assert found == [True, False, True, True, False]


class Rounds(Mutator[int]):
    """Copies the best at the end of each round; the state is the end."""

    def __init__(self) -> None:
        self.latecomer = Latecomer()

    def init(self, view: PopulationView) -> int:
        """The first round ends at step 3."""
        return 3

    def update(
        self, state: int, report: Report, view: PopulationView
    ) -> tuple[int, Mapping[int, Branch]]:
        """Close the round."""
        reached = self.latecomer.reached(state, view, lambda worker_id: state)
        if not reached:
            return state, {}
        best, *others = ranked(reached, view)
        branches = {w: Branch(reached[best], {"h": state}) for w in others}
        return end_after(reached, 3), branches


def test_loops_that_do_not_wait_are_compared_where_they_should_have_waited() -> None:
    """By their first report there; the copies begin there, and train a whole round."""
    controller = PopulationController([{"h": 0}] * 2, Rounds())
    for step in range(1, 9):
        report(controller, 0, step, 10.0 + step)
    report(controller, 1, 2, 5.0)
    report(controller, 1, 4, 6.0)
    (work, donor) = controller.workers
    assert (work.step, work.meta_params, donor.meta_params) == (4, {"h": 3}, {"h": 0})
    root = controller.graph.root(work.generation_id)
    assert root.parent == controller.newest(1).ref
    report(controller, 0, 6, 1.0)
    report(controller, 1, 7, 2.0)
    assert controller.workers[1].meta_params == {"h": 0}, "the end is at step 7"
    report(controller, 0, 7, 1.0)
    assert controller.workers[1].meta_params == {"h": 7}
