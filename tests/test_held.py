"""Weights that the training process itself keeps in memory."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from population import (
    Branch,
    ParamsError,
    PopulationController,
    PopulationView,
    Ref,
    Report,
)
from population.base.interfaces import Mutator
from population.base.types import InMemory, Saved, Start
from population.mutators import (
    BranchingSingleMachine,
    PopulationBasedTraining,
    WinnerTakeAllGenetic,
)
from tests import probe
from tests.held_engine import (
    BACK,
    HELD,
    Engine,
    LooksBack,
    add,
    copy_from,
    held,
    leave_behind,
    opened,
)
from tests.helpers import (
    Scripted,
    branch_at,
    everything,
    random_branch,
)

# How long they count.


def test_held_params_are_the_donors_of_their_own_batch() -> None:
    """A branch copies them, as it copies a path."""
    engine = opened(copy_from(0, 1, 1, 2))
    engine.report([1.0, 2.0, 3.0])
    newest = probe.newest(engine.controller)
    assert type(newest[0].params) is InMemory
    assert len({checkpoint.params for checkpoint in newest}) == 1
    assert [checkpoint.step for checkpoint in newest] == [1, 1, 1]


def test_each_reports_are_its_own() -> None:
    """Two reports never share weights, and the journal returns the recorded ones."""
    engine = opened()
    engine.report([1.0, 2.0, 3.0])
    newest = [engine.newest(w).params for w in range(3)]
    assert len({*newest, HELD}) == 4
    assert {c.params for c in engine.controller.history()} == {None, *newest}


def test_they_count_until_they_are_said_to_be_gone() -> None:
    """The training loop has overwritten all except the best."""
    engine = opened()
    engine.report([3.0, 2.0, 1.0])
    engine.report([3.0, 2.0, 1.5])
    assert engine.held() == [(2, 1), (0, 2), (1, 2), (2, 2)]
    assert {c.params for c in engine.controller.history()} == {None, *engine.kept}


def test_reports_alone_say_nothing_of_what_is_gone() -> None:
    """A loop of the two calls that claims all slots keeps what it has reported."""
    controller = PopulationController([0.0], Scripted())
    controller.claim_all()
    for step in range(1, 4):
        name = controller.workers[0].generation_id
        controller.set_evals([(0, name, step, HELD, float(step))])
    assert held(controller) == [(0, 1), (0, 2), (0, 3)]


def test_a_copy_that_waits_outlives_the_donors_next_report() -> None:
    """The slot that has not trained yet still continues from them."""
    engine = opened(copy_from(0, 1, 1))
    engine.report({0: 5.0, 2: 0.0})
    copied = engine.newest(1).params
    for _ in range(3):
        engine.report({0: 1.0})
        assert engine.newest(1).params == copied
        assert engine.stack[1] == engine.kept[copied]
    engine.report({1: 6.0})
    engine.report({1: 6.0})
    assert copied not in {c.params for c in engine.controller.history()}


def test_a_copy_that_was_evaluated_outlives_the_donors_next_report() -> None:
    """A value at the step where the generation begins makes it independent."""
    engine = opened(copy_from(0, 1, 1))
    engine.report({0: 5.0, 2: 0.0})
    copied = engine.newest(1).params
    engine.commit([(1, *engine.newest(1).ref, None, 6.0)])
    assert copied not in engine.lease.needed()
    engine.report({0: 1.0})
    assert engine.newest(1).params == copied
    assert (1, 1) in engine.held()


def test_the_best_is_needed_while_it_is_the_best() -> None:
    """It may be overwritten once another one is better."""
    engine = opened(size=1)
    engine.report({0: 1.0})
    for _ in range(4):
        engine.report({0: 2.0})
        assert engine.needed() == [(0, 1)]
    engine.report({0: 0.5})
    engine.report({0: 0.7})
    assert engine.needed() == [(0, 6)]
    assert engine.held() == [(0, 6), (0, 7)]


def test_the_best_may_have_params_that_cannot_be_hashed() -> None:
    """A raw loop has reported plain data, which the journal itself stores."""
    controller = PopulationController([0.0], Scripted())
    controller.set_eval(0, controller.workers[0].generation_id, 1, [1.0, {}], 0.1)
    engine = Engine(controller)
    for value in (3.0, 2.0, 1.0):
        engine.report({0: value})
    assert engine.held() == [(0, 4)]
    best = controller.best()
    assert best is not None
    assert best.params == [1.0, {}]


def test_the_starts_of_a_round_are_needed() -> None:
    """Losers go back to them: the state of `WinnerTakeAllGenetic` names them."""
    engine = opened(WinnerTakeAllGenetic(lambda m: m + 1, 3, keep_winner=True))
    for step in range(1, 9):
        engine.report([3.0 - step, 4.0 - step, 5.0 - step])
        for ref in probe.named_by_mutator(engine.controller):
            found = engine.controller.graph.checkpoint(ref)
            assert found.params is None or found.params in engine.kept, ref


def test_the_trials_of_a_single_machine_are_needed() -> None:
    """The three trials begin at one checkpoint, and the end of the best continues."""
    mutator = BranchingSingleMachine(lambda meta, direction, cycle: meta + 1, 2, 2)
    engine = opened(mutator, size=1)
    begun: list[Any] = []
    for step in range(24):
        engine.report({0: float(step)})
        newest = engine.newest(0)
        if newest.parent and newest.value is None and newest.step:
            begun.append(newest.params)
            assert engine.stack[0] == engine.kept[newest.params]
        assert newest.step == 0 or type(newest.params) is InMemory
    assert len(begun) >= 6


def test_a_member_that_diverged_goes_back_to_one_set_aside() -> None:
    """The nearest with a finite value is needed until the newest has one."""
    engine = opened(size=2)
    engine.report({0: 1.0, 1: 2.0})
    engine.report({0: 2.0, 1: 2.0})
    engine.report({0: math.nan, 1: 2.0})
    engine.report({0: math.inf, 1: 0.5})  # It is not the best any more.
    engine.report({0: math.nan, 1: 2.0})
    point = engine.controller.graph.resume_point(engine.newest(0))
    assert (point.step, type(point.params)) == (1, InMemory)
    assert point.params in engine.lease.needed()
    assert point.params in engine.kept


def test_a_member_that_diverged_goes_back_to_a_saved_one() -> None:
    """If its weights in memory are gone, saved weights are found."""
    engine = opened(size=2)
    engine.report({0: 2.0, 1: 0.0}, "a path")
    engine.report({0: 2.0, 1: 0.0})
    engine.report({0: math.nan, 1: 0.0})
    engine.report({0: math.nan, 1: 0.0})
    point = engine.controller.graph.resume_point(engine.newest(0))
    assert point.params == "a path"


class Naming(Mutator[tuple[Ref, ...]]):
    """Its state names the report of slot 0 at step 2, until the one at step 6."""

    def init(self, view: PopulationView) -> tuple[Ref, ...]:
        """Name nothing."""
        del view
        return ()

    def update(
        self, state: tuple[Ref, ...], report: Report, view: PopulationView
    ) -> tuple[tuple[Ref, ...], Mapping[int, Branch]]:
        """Name it, and later stop naming it."""
        del view
        named = {2: (report.checkpoint.ref,), 6: ()}
        if report.worker_id:
            return state, {}
        return named.get(report.checkpoint.step, state), {}


def test_what_the_mutators_state_names_is_needed() -> None:
    """A later decision may go back to it, until the state no longer names it."""
    engine = opened(Naming(), size=2)
    engine.report({1: 0.0})
    for step in range(1, 7):
        engine.report({0: 5.0})
        named = {(0, 2)} if 2 <= step < 6 else set()
        assert set(engine.needed()) == {(1, 1), *named}
    engine.report({0: 5.0})
    assert engine.held() == [(1, 1), (0, 7)]


def test_what_an_undecided_round_rests_on_is_needed() -> None:
    """A slot trained past its barrier, and the others will continue from there."""
    engine = opened(WinnerTakeAllGenetic(add, 3, synchronous=True), size=2)
    engine.report({1: 0.0})
    for value in (7.0, 6.0, 5.0, 8.0, 8.0):
        engine.report({0: value})
    assert (0, 3) in engine.needed()
    donor = engine.controller.graph[engine.newest(0).generation_id][3].params
    engine.report({1: 9.0})
    engine.report({1: 9.0})
    newest = engine.newest(1)
    assert (newest.params, newest.step) == (donor, 3)
    assert type(donor) is InMemory


# Which weights are gone.


def test_an_engine_that_forgets_a_copy_pays_with_steps() -> None:
    """The slot with this copy goes back to what was saved before."""
    engine = opened(copy_from(0, 2, 1))
    engine.report([1.0, 2.0, 3.0], "a path")
    engine.report({0: 5.0})
    copied = engine.newest(1).params
    engine.report({0: 6.0}, forgets={copied})
    assert engine.newest(1).params is None
    engine.lease.resume([1])
    work = engine.controller.workers[1]
    assert (work.params, work.step, work.meta_params) == ("a path", 1, 9.0)
    assert engine.held() == [(0, 3)]


def test_a_decision_about_what_was_forgotten_goes_further_back() -> None:
    """The best was overwritten; a branch from it begins at the save before it."""

    def decide(asked: Report, view: PopulationView) -> Mapping[int, Branch]:
        best = view.graph.best()
        return {1: Branch(best, 9.0)} if asked.checkpoint.step == 4 else {}

    engine = opened(Scripted(decide), size=2)
    engine.report({0: 3.0}, "a path")
    engine.report({0: 1.0})
    best = engine.newest(0).params
    engine.report({0: 2.0}, forgets={best})
    engine.report({0: 2.0})
    newest = engine.newest(1)
    assert (newest.params, newest.step, newest.meta_params) == ("a path", 1, 9.0)


@pytest.mark.parametrize("loaded", [False, True])
def test_a_barrier_that_was_forgotten_is_another(loaded: bool) -> None:
    """Its round uses what is left, in memory and in the journal alike."""
    mutator = WinnerTakeAllGenetic(add, 2, synchronous=True)
    engine = opened(mutator, size=2)
    engine.report({0: 3.0})
    engine.report({0: 2.0})
    barrier = engine.newest(0).params
    engine.report({1: 5.0}, forgets={barrier})
    before = probe.in_memory(engine.controller)
    if loaded:
        probe.forget(engine.controller)
    assert probe.in_memory(engine.controller) == before
    assert probe.barrier(engine.controller, 0, 2) is None
    assert not probe.waits(engine.controller, 0)
    engine.lease.resume([0])
    engine.report({0: 3.0, 1: 5.0})
    engine.report({0: 2.0})
    assert {work.meta_params for work in engine.controller.workers} != {0.0, 1.0}


def test_what_is_unknown_may_be_gone() -> None:
    """Weights of a report that was dropped, or that were named before."""
    engine = opened(size=1)
    engine.report({0: 1.0})
    dropped = engine.lease.encode(0, "nothing-0-0", 5, HELD, 0.5)
    engine.lease.report([dropped])
    gone = engine.newest(0).params
    engine.report({0: 0.5})
    for _ in range(2):
        engine.lease.report([], gone=[dropped.params, gone])
    assert engine.held() == [(0, 2)]


def test_gone_names_what_this_process_has_held() -> None:
    """The lease refuses other weights, and records nothing."""
    engine = opened(size=1)
    engine.report({0: 1.0})
    place = 0, engine.newest(0).generation_id, 2
    new = engine.lease.encode(*place, HELD, 1.0)
    before = everything(engine.controller)
    odd: Any = "a path"
    with pytest.raises(TypeError, match=r"gone must name InMemory .* got 'a path'"):
        engine.lease.report([new], gone=[engine.newest(0).params, odd])
    for params in (HELD, InMemory("elsewhere", 3), new.params):
        with pytest.raises(ValueError, match=r"gone must name .*, got InMemory\("):
            engine.lease.report([new], gone=[params])
    assert everything(engine.controller) == before


def test_release_records_all_as_gone() -> None:
    """This includes weights of the best, and of a copy that was not trained yet."""
    engine = opened(copy_from(0, 3, 1))
    engine.report([1.0, 2.0, 3.0], "a path")
    for value in (0.0, 4.0, 5.0):
        engine.report([value, 2.0, 3.0])
    assert (0, 2) in engine.needed()
    engine.lease.release()
    assert engine.held() == []
    assert engine.lease.needed() == frozenset()
    again = Engine(engine.controller)
    found = [(work.params, work.step) for work in again.lease.values()]
    assert found == 3 * [("a path", 1)]
    again.report([7.0, 7.0, 7.0])
    assert again.held() == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize("released", [False, True])
def test_nothing_of_an_earlier_claim_is_handed_out(released: bool) -> None:
    """A branch from any old report uses the save before it."""
    looks = LooksBack()
    engine = opened(looks, size=1)
    engine.report({0: 5.0}, "a path")
    leave_behind(engine)
    if released:
        engine.lease.release()
    again = Engine(engine.controller)
    again.report({0: BACK})
    at = engine.controller.workers[0]
    assert (at.params, at.step, at.meta_params) == ("a path", 1, 9.0)


class Toy(Engine):
    """An engine with random rounds: some slots train, some reports are incomplete.

    Args:
        mutator: The policy.
        size: How many slots there are.
        choose: Draws the events.
    """

    def __init__(self, mutator: Mutator[Any], size: int, choose: random.Random) -> None:
        metas = [float(i) for i in range(size)]
        super().__init__(PopulationController(metas, mutator))
        probe.end_nothing(self.controller)  # The values are random.
        self._told: list[tuple[int, str, int, str]] = []
        self._choose = choose

    def round(self) -> None:
        """Some slots train and report; some reports get a late value or late params."""
        workers, choose = self.controller.workers, self._choose
        reports: list[tuple[Any, ...]] = []
        for w, at in enumerate(workers):
            newest = self.newest(w)
            if at.wait_at is not None and at.step >= at.wait_at:
                if newest.parent and (newest.value is None or newest.params is None):
                    reports.append((w, *newest.ref, f"saved {self.stack[w]}", 4.5))
                continue
            if choose.random() < 0.2:
                continue
            name = f"{at.generation_id} {at.step + 1}"
            value = choose.choice([*map(float, range(9)), math.nan, None])
            params = choose.choice([HELD] * 8 + [f"saved {name}", None])
            reports.append((w, at.generation_id, at.step + 1, params, value))
            self._told.append((w, at.generation_id, at.step + 1, name))
        forgets = self.kept if choose.random() < 0.1 else {}
        self.commit(reports, forgets=[k for k in forgets if choose.random() < 0.3])
        recent = self._told[-9:]
        for w, generation_id, step, name in choose.sample(recent, min(2, len(recent))):
            late = choose.choice([(f"saved {name}", None), (None, 4.5), (HELD, None)])
            self.commit([(w, generation_id, step, *late)])

    def check(self) -> None:
        """The weights that count are in memory, and every process knows the same."""
        history = [*self.controller.history()]
        assert {c.params for c in history if type(c.params) is InMemory} <= {*self.kept}
        before = probe.in_memory(self.controller)
        probe.forget(self.controller)
        assert probe.in_memory(self.controller) == before
        for w, newest in enumerate(probe.newest(self.controller)):
            if type(newest.params) is InMemory:
                assert self.kept[newest.params] == self.stack[w]


def policies(seed: int) -> Iterator[tuple[Mutator[Any], int]]:
    """Policies that look back in different ways, and their population sizes."""
    yield WinnerTakeAllGenetic(lambda m: m + 1, 2), 4
    yield WinnerTakeAllGenetic(lambda m: m + 1, 2, synchronous=True), 3
    yield PopulationBasedTraining(lambda m: m + 1, 2), 4
    yield PopulationBasedTraining(lambda m: m + 1, 2, synchronous=True), 4
    yield BranchingSingleMachine(lambda m, direction, cycle: m + 1, 2, 1), 1
    yield random_branch(random.Random(seed)), 3


@pytest.mark.parametrize("which", range(6))
def test_no_decision_hands_out_weights_that_are_gone(which: int) -> None:
    """An engine that keeps what is needed has all weights that it is asked for."""
    for seed in range(6):
        mutator, size = list(policies(seed))[which]
        toy = Toy(mutator, size, random.Random(seed))
        for number in range(40):
            toy.round()
            if number % 8 == 0:
                toy.check()
        toy.check()
        branched = [c for c in toy.controller.history() if c.parent and c.value is None]
        assert len(branched) > 3


# The paths that replace them.


def test_a_path_given_later_replaces_them() -> None:
    """The engine saves in the background, and reports the path later."""
    engine = opened(size=1)
    engine.report({0: 1.0})
    name = engine.newest(0).generation_id
    engine.commit([(0, name, 1, "a path", None)])
    assert engine.newest(0).params == "a path"
    assert engine.controller.graph[name][1].params == "a path"
    assert engine.held() == []
    assert engine.lease.needed() == frozenset()


def test_a_tree_given_later_replaces_them_once() -> None:
    """The params store saves it; later params are ignored."""
    engine = opened(size=1)
    engine.report({0: 1.0})
    name = engine.newest(0).generation_id
    for params in ({"w": np.ones(2)}, "another", HELD):
        engine.commit([(0, name, 1, params, None)])
    newest = engine.newest(0)
    assert type(newest.params) is Saved
    np.testing.assert_array_equal(engine.controller.load(newest)["w"], 1.0)


def test_a_path_replaces_what_is_gone() -> None:
    """The save took longer than a round."""
    engine = opened(size=1)
    engine.report({0: 1.0})
    name = engine.newest(0).generation_id
    engine.report({0: 0.5})
    engine.report({0: 0.4})
    assert engine.held() == [(0, 2), (0, 3)]
    engine.commit([(0, name, 1, "a path", None)])
    assert engine.controller.graph[name][1].params == "a path"


def test_what_was_lost_and_is_saved_after_all_counts() -> None:
    """A slot that was to repeat steps is at the saved step again, in each process."""
    engine = opened(size=1)
    engine.report({0: 1.0})
    engine.commit([], forgets={engine.newest(0).params})
    assert engine.newest(0).params is None
    engine.commit([(0, *engine.newest(0).ref, "a path", None)])
    before = probe.in_memory(engine.controller)
    probe.forget(engine.controller)
    assert probe.in_memory(engine.controller) == before
    engine.lease.resume([0])
    assert engine.controller.workers[0].params == "a path"


# What is refused.


def test_weights_in_memory_are_no_start() -> None:
    """A run must begin with params that every process has."""
    with pytest.raises(ValueError, match=r"Start\.params must be weights.*Save them"):
        Start(0.1, HELD)


def test_held_params_of_another_report_are_refused() -> None:
    """Each report needs its own `InMemory()`."""
    engine = opened()
    engine.report([1.0, 2.0, 3.0])
    before = everything(engine.controller)
    for params in (engine.newest(0).params, InMemory("elsewhere", 3)):
        with pytest.raises(ValueError, match=r"needs InMemory\(\), .*another report"):
            engine.report({0: 1.0}, params)
    assert everything(engine.controller) == before


def test_held_params_within_a_tree_are_refused() -> None:
    """A report has weights in memory or a tree, not both."""
    engine = opened()
    place = engine.newest(0).ref
    with pytest.raises(ValueError, match=r"net.*must be a value, got InMemory\(\)"):
        engine.controller.set_evals([(0, *place, {"net": HELD}, None)])


def test_loading_them_says_where_they_are() -> None:
    """It also says what can be loaded instead."""
    engine = opened(size=1)
    engine.report({0: 1.0})
    with pytest.raises(ParamsError, match="in the memory of the process that trains"):
        engine.controller.load(engine.newest(0))


def test_a_root_that_was_branched_at_stays_while_a_slot_begins_there() -> None:
    """A decision at a report's own step keeps its weights for the new generation."""
    engine = opened(Scripted(branch_at(2, 7.0)), size=1)
    engine.report({0: 1.0})
    engine.report({0: 2.0})
    newest = engine.newest(0)
    assert (newest.meta_params, newest.step, type(newest.params)) == (7.0, 2, InMemory)
