"""Promises about weights that the process which trains them keeps itself."""

from __future__ import annotations

import math
import pathlib
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import population
from population import (
    Branch,
    ParamsError,
    PopulationController,
    PopulationView,
    Ref,
    Report,
)
from population.base.codec import HELD as MARK
from population.base.interfaces import Mutator
from population.base.types import Held, Saved, Start
from population.mutators import (
    BranchingSingleMachine,
    PopulationBasedTraining,
    WinnerTakeAllGenetic,
)
from tests import probe
from tests.helpers import (
    Clock,
    Scripted,
    branch_at,
    everything,
    random_branch,
    told,
    work,
)

HELD = Held()


def opened(
    mutator: Mutator[Any] | None = None,
    folder: pathlib.Path | None = None,
    size: int = 3,
    **options: Any,
) -> PopulationController:
    """A run whose slots one loop has claimed."""
    metas = [float(i) for i in range(size)]
    controller = PopulationController(metas, mutator or Scripted(), folder, **options)
    controller.claim_all()
    return controller


def report(controller: PopulationController, values: Any, params: Any = HELD) -> None:
    """The slots that are named report, each a step further."""
    controller.set_evals(
        [
            (w, at.generation_id, at.step + 1, params, values[w])
            for w, at in enumerate(controller.workers)
            if w in values
        ]
    )


def held(controller: PopulationController) -> list[tuple[int, int]]:
    """Worker id and step of what counts, as every process sees it."""
    found = [c for c in controller.history() if type(c.params) is Held]
    return [(c.worker_id, c.step) for c in found]


def noted(controller: PopulationController) -> int:
    """How many pins a restart would find."""
    saves = probe.saves(controller)
    return sum(save.params.startswith(MARK) for save in saves)


def pinned(controller: PopulationController) -> list[tuple[int, int]]:
    """Worker id and step of the reports whose weights are to be kept."""
    of = {c.params: (c.worker_id, c.step) for c in reversed([*controller.history()])}
    return sorted(of[params] for params in probe.needed_in_memory(controller))


def none_at(*values: float) -> dict[int, float]:
    """Values by worker id."""
    return dict(enumerate(values))


def copy_from(donor: int, step: int, *receivers: int) -> Scripted:
    """The donor's report at a step sends others on from there."""

    def decide(asked: Report, view: PopulationView) -> Mapping[int, Branch]:
        del view
        checkpoint = asked.checkpoint
        if (asked.worker_id, checkpoint.step) != (donor, step):
            return {}
        return {w: Branch(checkpoint, 9.0, "copied") for w in receivers}

    return Scripted(decide)


# How long they count.


def test_held_params_are_the_donors_of_their_own_batch() -> None:
    """A branch copies them, as it copies a path."""
    controller = opened(copy_from(0, 1, 1, 2))
    report(controller, none_at(1.0, 2.0, 3.0))
    newest = probe.newest(controller)
    assert type(newest[0].params) is Held
    assert len({checkpoint.params for checkpoint in newest}) == 1
    assert [checkpoint.step for checkpoint in newest] == [1, 1, 1]


def test_each_reports_are_its_own() -> None:
    """Two reports never share weights, and the journal gives back what it was told."""
    controller = opened()
    report(controller, none_at(1.0, 2.0, 3.0))
    newest = [controller.newest(w).params for w in range(3)]
    assert len({*newest, HELD}) == 4
    assert {c.params for c in controller.history()} == {None, *newest}


def test_they_lapse_when_their_slot_reports_again() -> None:
    """The training loop has overwritten them by then."""
    controller = opened()
    report(controller, none_at(3.0, 2.0, 1.0))
    report(controller, none_at(3.0, 2.0, 1.5))
    assert held(controller) == [(2, 1), (0, 2), (1, 2), (2, 2)]  # One is the best.


def test_a_copy_that_waits_outlives_the_donors_next_report() -> None:
    """The slot that has not trained yet still goes on from them."""
    controller = opened(copy_from(0, 1, 1))
    report(controller, {0: 5.0, 2: 0.0})
    copied = controller.newest(1).params
    for _ in range(3):
        report(controller, {0: 1.0})
        assert controller.newest(1).params == copied
    report(controller, {1: 6.0})
    assert copied not in {c.params for c in controller.history()}


def test_a_copy_that_was_evaluated_outlives_the_donors_next_report() -> None:
    """A value at the step that was handed out makes it stand by itself."""
    controller = opened(copy_from(0, 1, 1))
    report(controller, {0: 5.0, 2: 0.0})
    copied = controller.newest(1).params
    controller.set_eval(1, *controller.newest(1).ref, None, 6.0)
    assert copied not in probe.needed_in_memory(controller)
    report(controller, {0: 1.0})
    assert controller.newest(1).params == copied
    assert (1, 1) in held(controller)


def test_the_best_is_pinned_while_it_is_the_best() -> None:
    """It lapses with the report that beats it."""
    controller = opened(size=1)
    report(controller, {0: 1.0})
    for _ in range(4):
        report(controller, {0: 2.0})
        assert pinned(controller) == [(0, 1)]
        assert noted(controller) == 1
    report(controller, {0: 0.5})
    report(controller, {0: 0.7})
    assert pinned(controller) == [(0, 6)]
    assert held(controller) == [(0, 6), (0, 7)]
    assert noted(controller) == 1


def test_the_best_may_have_params_that_cannot_be_hashed() -> None:
    """A raw loop has reported it: plain data, which the journal itself keeps."""
    controller = PopulationController([0.0], Scripted())
    controller.set_eval(0, controller.workers[0].generation_id, 1, [1.0, {}], 0.1)
    controller.claim_all()
    for value in (3.0, 2.0, 1.0):
        report(controller, {0: value})
    assert held(controller) == [(0, 4)]
    best = controller.best()
    assert best is not None
    assert best.params == [1.0, {}]


def test_the_starts_of_a_round_are_pinned() -> None:
    """Losers go back to them: `WinnerTakeAllGenetic` names them in its state."""
    controller = opened(WinnerTakeAllGenetic(lambda m: m + 1, 3, keep_winner=True))
    for step in range(1, 9):
        report(controller, none_at(3.0 - step, 4.0 - step, 5.0 - step))
        refs = probe.named_by_mutator(controller)
        for ref in refs:
            found = controller.graph.checkpoint(ref)
            assert found.params is None or found.params in pins(controller), ref


def pins(controller: PopulationController) -> set[Any]:
    """What is kept: pinned, or the newest of a slot."""
    newest = {checkpoint.params for checkpoint in probe.newest(controller)}
    return newest | probe.needed_in_memory(controller)


def test_the_trials_of_a_single_machine_are_pinned() -> None:
    """The three trials begin at one checkpoint, and the best one's end goes on."""
    mutator = BranchingSingleMachine(lambda meta, direction, cycle: meta + 1, 2, 2)
    controller = opened(mutator, size=1)
    begun: list[Any] = []
    for step in range(24):
        before = probe.needed_in_memory(controller)
        report(controller, {0: float(step)})
        newest = controller.newest(0)
        if newest.parent and newest.value is None:
            begun.append(newest.params)
            assert newest.params in before | pins(controller)
        assert newest.step == 0 or type(newest.params) is Held
    assert len(begun) >= 6


def test_a_member_that_diverged_goes_back_to_a_pinned_one() -> None:
    """The nearest with a finite value stays as long as the newest has none."""
    controller = opened(size=2)
    report(controller, {0: 1.0, 1: 2.0})
    report(controller, {0: 2.0, 1: 2.0})
    report(controller, {0: math.nan, 1: 2.0})
    report(controller, {0: math.inf, 1: 0.5})  # It is the best one no more.
    report(controller, {0: math.nan, 1: 2.0})
    newest = controller.newest(0)
    point = controller.graph.resume_point(newest)
    assert (point.step, type(point.params)) == (1, Held)
    assert point.params in probe.needed_in_memory(controller)


def test_a_member_that_diverged_goes_back_to_a_saved_one() -> None:
    """Where what it held has lapsed, weights that were saved are found."""
    controller = opened(size=2)
    report(controller, {0: 2.0, 1: 0.0}, "a path")
    report(controller, {0: 2.0, 1: 0.0})
    report(controller, {0: math.nan, 1: 0.0})
    report(controller, {0: math.nan, 1: 0.0})
    point = controller.graph.resume_point(controller.newest(0))
    assert point.params == "a path"


class Naming(Mutator[tuple[Ref, ...]]):
    """Its state names the report of slot 0 at step 2, up to the one at step 6."""

    def init(self, view: PopulationView) -> tuple[Ref, ...]:
        """Nothing is named."""
        del view
        return ()

    def update(
        self, state: tuple[Ref, ...], report: Report, view: PopulationView
    ) -> tuple[tuple[Ref, ...], Mapping[int, Branch]]:
        """Name it, and forget it."""
        del view
        named = {2: (report.checkpoint.ref,), 6: ()}
        if report.worker_id:
            return state, {}
        return named.get(report.checkpoint.step, state), {}


def test_what_the_mutators_state_names_is_pinned() -> None:
    """A later decision may go back to it, until the state names it no more."""
    controller = opened(Naming(), size=2)
    report(controller, {1: 0.0})
    for step in range(1, 7):
        report(controller, {0: 5.0})
        named = {(0, 2)} if 2 <= step < 6 else set()
        assert set(pinned(controller)) == {(1, 1), *named}
    assert held(controller) == [(1, 1), (0, 6)]


def test_what_an_undecided_round_rests_on_is_pinned() -> None:
    """A slot ran on beyond its barrier; that is where the others are sent to."""
    controller = opened(WinnerTakeAllGenetic(add, 3, synchronous=True), size=2)
    report(controller, {1: 0.0})
    for value in (7.0, 6.0, 5.0, 8.0, 8.0):
        report(controller, {0: value})
    assert (0, 3) in pinned(controller)
    donor = controller.graph[controller.workers[0].generation_id][3].params
    report(controller, {1: 9.0})
    report(controller, {1: 9.0})
    newest = controller.newest(1)
    assert (newest.params, newest.step) == (donor, 3)
    assert type(donor) is Held


class Toy:
    """A loop that keeps only what it must: a weight is the name of its report.

    Args:
        mutator: The policy.
        size: How many slots there are.
        choose: What happens.
    """

    def __init__(self, mutator: Mutator[Any], size: int, choose: random.Random) -> None:
        self.controller = opened(mutator, size=size)
        probe.end_nothing(self.controller)  # What is reported is random.
        self.kept: dict[Held, str] = {}
        self.stack: list[Any] = [None] * size
        self._told: list[tuple[int, str, int, str]] = []
        self._choose = choose

    def round(self) -> None:
        """Some slots train and report; some reports lack something that comes later."""
        workers, choose = self.controller.workers, self._choose
        reports: list[tuple[Any, ...]] = []
        for w, at in enumerate(workers):
            newest = self.controller.newest(w)
            if at.wait_at is not None and at.step >= at.wait_at:
                if newest.parent and (newest.value is None or newest.params is None):
                    reports.append((w, *newest.ref, "saved " + self.stack[w], 4.5))
                continue
            if choose.random() < 0.2:
                continue
            name = self.stack[w] = f"{at.generation_id} {at.step + 1}"
            value = choose.choice([*map(float, range(9)), math.nan, None])
            params = choose.choice([HELD] * 8 + [f"saved {name}", None])
            reports.append((w, at.generation_id, at.step + 1, params, value))
            self._told.append((w, at.generation_id, at.step + 1, name))
        self._commit(reports)
        recent = self._told[-9:]
        for w, generation_id, step, name in choose.sample(recent, min(2, len(recent))):
            late = choose.choice([(f"saved {name}", None), (None, 4.5), (HELD, None)])
            self._commit([(w, generation_id, step, *late)])

    def _commit(self, reports: list[tuple[Any, ...]]) -> None:
        """Nothing that is asked for then is gone."""
        branched, there = self.controller.set_evals(reports), dict(self.kept)
        for _, generation_id, step, _, _ in reports:
            params = self.controller.graph[generation_id][step].params
            if type(params) is Held:
                there.setdefault(params, f"{generation_id} {step}")
        for w, at in branched.items():
            if type(at.params) is Held:
                self.stack[w] = there[at.params]
            else:
                self.stack[w] = at.params and at.params.removeprefix("saved ")
        kept = [params for params in pins(self.controller) if type(params) is Held]
        self.kept = {params: there[params] for params in kept}

    def check(self) -> None:
        """Every process sees as held what is kept, and each slot has its weights."""
        seen = {c.params for c in self.controller.history() if type(c.params) is Held}
        assert seen == set(self.kept)
        before = probe.in_memory(self.controller)
        probe.forget(self.controller)
        assert probe.in_memory(self.controller) == before
        for w, newest in enumerate(probe.newest(self.controller)):
            params = newest.params
            if type(params) is Held:
                assert self.kept[params] == self.stack[w]


def policies(seed: int) -> Iterator[tuple[Mutator[Any], int]]:
    """Those that look back in different ways, and the size of their population."""
    yield WinnerTakeAllGenetic(lambda m: m + 1, 2), 4
    yield WinnerTakeAllGenetic(lambda m: m + 1, 2, synchronous=True), 3
    yield PopulationBasedTraining(lambda m: m + 1, 2), 4
    yield PopulationBasedTraining(lambda m: m + 1, 2, synchronous=True), 4
    yield BranchingSingleMachine(lambda m, direction, cycle: m + 1, 2, 1), 1
    yield random_branch(random.Random(seed)), 3


@pytest.mark.parametrize("which", range(6))
def test_no_decision_hands_out_weights_that_are_gone(which: int) -> None:
    """Who keeps the pinned ones and the newest has all that is ever asked for."""
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


# What is saved in their place.


def test_a_path_given_later_replaces_them() -> None:
    """The engine saves in the background, and tells when it is done."""
    controller = opened(size=1)
    report(controller, {0: 1.0})
    name = controller.workers[0].generation_id
    controller.set_eval(0, name, 1, "a path", None)
    assert controller.newest(0).params == "a path"
    assert controller.graph[name][1].params == "a path"
    assert held(controller) == []
    assert probe.needed_in_memory(controller) == frozenset()


def test_a_tree_given_later_replaces_them_once() -> None:
    """It goes through the params store; what comes after that is ignored."""
    controller = opened(size=1)
    report(controller, {0: 1.0})
    name = controller.workers[0].generation_id
    controller.set_eval(0, name, 1, {"w": np.ones(2)}, None)
    controller.set_eval(0, name, 1, "another", None)
    controller.set_eval(0, name, 1, HELD, None)
    assert type(controller.newest(0).params) is Saved
    np.testing.assert_array_equal(controller.load(controller.newest(0))["w"], 1.0)


def test_a_path_replaces_what_has_lapsed() -> None:
    """The save took longer than a round."""
    controller = opened(size=1)
    report(controller, {0: 1.0})
    name = controller.workers[0].generation_id
    report(controller, {0: 0.5})
    assert held(controller) == [(0, 2)]
    controller.set_eval(0, name, 1, "a path", None)
    assert controller.graph[name][1].params == "a path"


def test_a_copy_finds_what_its_donor_saved(tmp_path: pathlib.Path) -> None:
    """After a restart the branch goes on from the path that came later."""
    controller = opened(copy_from(0, 1, 1), tmp_path)
    report(controller, {0: 1.0})
    name = controller.workers[0].generation_id
    controller.set_eval(0, name, 1, "a path", None)
    controller.close()
    again = opened(folder=tmp_path)
    work = again.workers[1]
    assert (work.params, work.step, work.meta_params) == ("a path", 1, 9.0)


# Restarts and other processes.


def test_a_restart_goes_back_to_what_was_saved(tmp_path: pathlib.Path) -> None:
    """What was in memory is none: newest, pinned and copied alike."""
    controller = opened(copy_from(0, 2, 1), tmp_path)
    report(controller, none_at(1.0, 2.0, 3.0), "a path")
    for value in (0.0, 4.0, 5.0):
        report(controller, none_at(value, 2.0, 3.0))
    assert noted(controller)
    controller.close()
    again = PopulationController([0.0, 1.0, 2.0], Scripted(), tmp_path)
    assert held(again) == []
    assert noted(again) == 0
    assert [(w.params, w.step) for w in again.claim_all().values()] == (
        3 * [("a path", 1)]
    )


def test_what_a_host_held_that_is_gone_is_none(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """A run may move to another machine: nobody there can ask the first one."""
    with monkeypatch.context() as there:
        probe.pretend_host(there, "a-host", "/")
        controller = PopulationController([0.0], Scripted(), tmp_path, clock=clock)
        report(controller, {0: 1.0}, "a path")
        report(controller, {0: 0.0})
        report(controller, {0: 1.0})
        assert held(controller) == [(0, 2), (0, 3)]
        controller.close()
    clock.advance(1e6)
    again = PopulationController([0.0], Scripted(), tmp_path, clock=clock)
    assert held(again) == []
    assert noted(again) == 0


def child(folder: str) -> None:
    """A process that is killed with weights in its memory."""
    controller = opened(WinnerTakeAllGenetic(add, 2), pathlib.Path(folder))
    for step in range(1, 8):
        params = {"w": np.full(2, step)} if step == 3 else HELD
        report(controller, none_at(*(float(w) - step for w in range(3))), params)
    import os

    os.kill(os.getpid(), signal.SIGKILL)


def add(meta: float) -> float:
    """Other hyperparameters."""
    return meta + 1


def test_a_killed_process_goes_on_from_its_last_save(tmp_path: pathlib.Path) -> None:
    """Whatever it had in memory; what was saved is all there."""
    code = f"from tests import test_held; test_held.child({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    again = opened(WinnerTakeAllGenetic(add, 2), tmp_path)
    assert held(again) == []
    assert noted(again) == 0
    for w, at in enumerate(again.workers):
        assert type(at.params) is Saved
        assert at.step == 3
        np.testing.assert_array_equal(again.load(again.newest(w))["w"], 3)
    for _ in range(6):
        report(again, none_at(1.0, 2.0, 3.0))
    report(again, none_at(1.0, 2.0, 3.0), {"w": np.full(2, 9.0)})  # It tidies up.
    mutator = WinnerTakeAllGenetic(add, 2)
    assert population.replay(tmp_path, mutator).first_difference is None


def test_others_see_them_as_held_while_their_process_lives(
    tmp_path: pathlib.Path,
) -> None:
    """Opening a run takes nothing away from who trains it."""
    controller = opened(folder=tmp_path)
    report(controller, none_at(1.0, 2.0, 3.0))
    other = PopulationController([0.0, 1.0, 2.0], Scripted(), tmp_path)
    assert held(other) == held(controller) == [(0, 1), (1, 1), (2, 1)]
    assert probe.needed_in_memory(other) == frozenset()  # They are not there.


def test_who_takes_all_over_is_never_sent_to_the_memory_of_another(
    tmp_path: pathlib.Path,
) -> None:
    """A decision about the best, or a donor, finds what is saved or nothing."""
    first = opened(copy_from(1, 3, 0), tmp_path)
    report(first, none_at(1.0, 2.0, 3.0), "a path")
    report(first, none_at(-9.0, 2.0, 3.0))
    report(first, none_at(1.0, 2.0, 3.0))
    assert (0, 2) in pinned(first)  # The best, off every way.

    def from_the_best(asked: Report, view: PopulationView) -> Mapping[int, Branch]:
        return {asked.worker_id: Branch(view.graph.best(), 9.0)}

    probe.abandon_claim(first)  # As if that process had died, not only this loop.
    second = opened(Scripted(from_the_best), tmp_path)
    assert held(second) == []
    report(second, none_at(5.0, 5.0, 5.0), "another")
    found = [work(second, w).params for w in range(3)]
    assert found == 3 * ["a path"]
    probe.refresh(first)
    assert probe.taken_slots(first) == [0, 1, 2]


def test_who_takes_a_slot_knows_that_its_donor_has_nothing_more(
    tmp_path: pathlib.Path,
) -> None:
    """Two slots went on from the same weights; a worker elsewhere takes one of them."""
    first = opened(copy_from(0, 2, 1), tmp_path)
    report(first, none_at(1.0, 2.0, 3.0), "a path")
    report(first, none_at(2.0, 2.0, 3.0))
    second = PopulationController([0.0, 1.0, 2.0], Scripted(), tmp_path)
    with second.worker(1) as worker:
        assert worker.poll()
        assert (worker.load_from, worker.step) == ("a path", 1)
        before = probe.in_memory(second)
        probe.forget(second)
        assert probe.in_memory(second) == before


def test_the_last_save_below_what_is_held_is_kept(tmp_path: pathlib.Path) -> None:
    """A restart needs it, however much is saved elsewhere in between."""
    controller = opened(folder=tmp_path, size=2)
    report(controller, {0: 1.0}, {"w": np.ones(2)})
    for step in range(80):
        report(controller, {0: 1.0 - step})
        report(controller, {1: 200.0 - step}, {"w": np.full(2, step)})
    saves = probe.saves(controller)
    assert 2 < len(saves) < 45
    assert noted(controller) == len(probe.needed_in_memory(controller))
    controller.close()
    again = opened(folder=tmp_path, size=2)
    assert again.newest(0).step == 1
    np.testing.assert_array_equal(again.load(again.newest(0))["w"], 1.0)


# All or nothing, again and elsewhere.


def test_a_mutator_that_raises_changes_nothing(tmp_path: pathlib.Path) -> None:
    """What had lapsed within the report counts again."""
    fails: list[bool] = []

    def decide(asked: Report, view: PopulationView) -> Mapping[int, Branch]:
        del view
        if fails and asked.worker_id == 2:
            raise ZeroDivisionError("on purpose")
        return {}

    controller = opened(Scripted(decide), tmp_path)
    for value in (1.0, 0.0, 2.0):
        report(controller, none_at(value, 2.0, 3.0))
    before = everything(controller), held(controller), pinned(controller)
    fails.append(True)
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        report(controller, none_at(-1.0, 2.0, 3.0))
    assert (everything(controller), held(controller), pinned(controller)) == before
    fails.clear()
    report(controller, none_at(-1.0, 2.0, 3.0))
    report(controller, none_at(0.0, 2.0, 3.0))
    assert pinned(controller) == [(0, 4)]
    assert held(controller) == [(0, 4), (0, 5), (1, 5), (2, 5)]


@pytest.mark.parametrize("synchronous", [False, True])
def test_replay_agrees_with_a_run_that_held_its_weights(
    tmp_path: pathlib.Path, synchronous: bool
) -> None:
    """Other than those that were there then, no weights are seen."""
    choose = random.Random(1)

    def mutator() -> WinnerTakeAllGenetic:
        return WinnerTakeAllGenetic(add, 2, synchronous=synchronous)

    controller = opened(mutator(), tmp_path, size=4)
    for number in range(40):
        values = none_at(*(choose.choice([1.0, 2.0, 3.0, math.nan]) for _ in range(4)))
        report(controller, values, HELD if number % 5 else "a path")
    found = population.replay(controller, mutator())
    assert found.first_difference is None


def test_a_fork_begins_at_what_was_saved(tmp_path: pathlib.Path) -> None:
    """Weights in a memory do not travel."""
    controller = opened(copy_from(0, 2, 1), tmp_path / "run")
    report(controller, none_at(1.0, 2.0, 3.0), "a path")
    report(controller, none_at(0.0, 2.0, 3.0))
    other = population.fork(controller, tmp_path / "fork", mutator=Scripted())
    assert held(other) == []
    assert noted(other) == 0
    assert {work.params for work in other.claim_all().values()} == {"a path"}
    assert sorted(held(controller)) == [(0, 2), (1, 2), (2, 2)]


# What it costs.


def statements(controller: PopulationController, **said: Any) -> int:
    """How many one round takes."""
    seen: list[str] = []
    probe.connection(controller).set_trace_callback(seen.append)
    report(controller, none_at(*(10.0 + w for w in range(8))), **said)
    probe.connection(controller).set_trace_callback(None)
    return len(seen)


def test_a_round_takes_as_many_statements_after_long() -> None:
    """Nothing looks through the history, and a report needs two or three."""
    controller = opened(size=8)
    report(controller, none_at(*(float(w) for w in range(8))))
    early = [statements(controller) for _ in range(5)][-1]
    for _ in range(300):
        report(controller, none_at(*(10.0 + w for w in range(8))))
    assert statements(controller) == early <= 8 * 3 + 12


def test_a_run_that_holds_nothing_takes_no_statement_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who saves files pays nothing for those who do not."""

    def counts() -> list[int]:
        controller = opened(size=8)
        return [statements(controller, params=f"at {n}") for n in range(10)]

    found = counts()
    probe.ignore_held(monkeypatch)
    assert found == counts()


# What is refused.


def test_weights_in_memory_are_no_start() -> None:
    """A run begins with what anybody can go on from."""
    with pytest.raises(ValueError, match=r"Start\.params must be weights.*Save them"):
        Start(0.1, HELD)


def test_held_params_of_another_report_are_refused() -> None:
    """What was handed out is no report's own."""
    controller = opened()
    report(controller, none_at(1.0, 2.0, 3.0))
    before = everything(controller)
    for params in (controller.newest(0).params, Held("elsewhere", 3)):
        with pytest.raises(ValueError, match=r"needs Held\(\), got .*another report"):
            report(controller, {0: 1.0}, params)
    assert everything(controller) == before


def test_held_params_within_a_tree_are_refused() -> None:
    """A report has weights in memory or a tree, not both."""
    controller = opened()
    with pytest.raises(ValueError, match=r"net.*must be a value, got Held\(\)"):
        report(controller, {0: 1.0}, {"net": HELD})


def test_loading_them_says_where_they_are() -> None:
    """And what can be loaded instead."""
    controller = opened(size=1)
    report(controller, {0: 1.0})
    with pytest.raises(ParamsError, match="in the memory of the process that trains"):
        controller.load(controller.newest(0))


def test_two_runs_with_the_same_reports_hold_the_same() -> None:
    """Names of sessions aside, everything is a function of what was reported."""
    first, second = (opened(copy_from(0, 2, 1)) for _ in range(2))
    for controller in (first, second):
        for value in (1.0, 0.0, 2.0):
            report(controller, none_at(value, 2.0, 3.0))
    assert held(first) == held(second)
    assert [c[:2] for c in told(first)] == [c[:2] for c in told(second)]
    assert pinned(first) == pinned(second)


def test_a_root_that_was_branched_at_stays_while_a_slot_begins_there() -> None:
    """A decision at a report's own step keeps its weights for the new generation."""
    controller = opened(Scripted(branch_at(2, 7.0)), size=1)
    report(controller, {0: 1.0})
    report(controller, {0: 2.0})
    newest = controller.newest(0)
    assert (newest.meta_params, newest.step, type(newest.params)) == (7.0, 2, Held)
