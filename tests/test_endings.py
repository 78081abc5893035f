"""Every run ends, or says why not, for all kinds of loops and engines."""

from __future__ import annotations

import math
import pathlib
import threading
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import pytest

from population import (
    Branch,
    Event,
    Mutator,
    PopulationController,
    PopulationView,
    Start,
    Stop,
    Worker,
)
from population.base import NoProgressError
from population.engines import processes, threads, vectorized
from population.mutators import FixedSchedule, PopulationBasedTraining
from tests import probe
from tests.helpers import Scripted, generation, poll

MOST = 3000  # Iterations of a loop: a loop without an end must fail.
Report = Callable[[Worker, Any], None]


def same(meta_params: Any) -> Any:
    """An explore function without effect."""
    return meta_params


def together(steps: int = 10) -> PopulationBasedTraining:
    """A policy whose workers wait for each other."""
    return PopulationBasedTraining(same, steps, synchronous=True)


class Stuck(Mutator[None]):
    """All slots wait at a step, and no decision comes."""

    def __init__(self, *steps: int) -> None:
        self._steps = steps

    def init(self, view: PopulationView) -> None:
        """Remember nothing."""
        del view

    def update(self, state: None, report: Any, view: PopulationView) -> Any:
        """No branch."""
        return state, {}

    def wait_at(self, state: None, worker_id: int, view: PopulationView) -> int:
        """The slot's step."""
        return self._steps[worker_id]


def run(
    mutator: Mutator[Any], *starts: Any, log_dir: Any = None, **stop: Any
) -> PopulationController:
    """A population; a minute limits a run that would never end."""
    return PopulationController(
        starts, mutator, log_dir, stop=Stop(**{"seconds": 60.0, **stop})
    )


def loop(worker: Worker, report: Report) -> None:
    """A training loop that is right except for its reports."""
    state: Any = None
    for _ in range(MOST):
        if not worker.running:
            return
        if worker.poll():
            state = worker.restore(lambda _: {"x": 1.0})
        if worker.running:
            worker.step += 1
            report(worker, state)
    pytest.fail("It goes on and on.")


def by_one_worker(controller: PopulationController, report: Report) -> None:
    """One worker trains the slots in turns."""
    with controller.worker() as worker:
        loop(worker, report)


def by_two_threads(controller: PopulationController, report: Report) -> None:
    """Two threads train the slots in turns."""
    train = lambda worker: loop(worker, report)  # noqa: E731
    threads.run(train, controller, 2, progress=False)


def by_threads(controller: PopulationController, report: Report) -> None:
    """One thread trains each slot."""
    train = lambda worker: loop(worker, report)  # noqa: E731
    threads.run(train, controller, progress=False)


DRIVES = [by_one_worker, by_two_threads, by_threads]
driven = pytest.mark.parametrize("drive", DRIVES)


def stacked(controller: PopulationController, value: Callable[[Any], Any]) -> None:
    """One program, with a report at every step."""
    vectorized.run(
        controller,
        lambda key, meta: jnp.zeros(()),
        lambda state, meta, batch, key: state + 1.0,
        lambda state, meta, batch: value(state),
        1,
        batching="vmap",
        progress=False,
    )


def complete(worker: Worker, state: Any) -> None:
    """A value and the state, at every step."""
    worker.report(1.0 + worker.worker_id, state)


def said(caplog: pytest.LogCaptureFixture, what: str) -> int:
    """How often a warning was logged."""
    return sum(what in record.getMessage() for record in caplog.records)


# All wait, and no worker trains.


@driven
def test_who_all_wait_are_told(drive: Any) -> None:
    """The error names the slots, their steps, and what finds the cause."""
    controller = run(Stuck(3, 5), 1.0, 2.0, steps=100)
    with pytest.raises(
        RuntimeError, match=r"slot 0 at step 3; slot 1 at step 5\."
    ) as e:
        drive(controller, complete)
    assert "check_mutator" in str(e.value)
    assert [controller.newest(w).step for w in (0, 1)] == [3, 5]


def test_who_all_wait_in_a_stack_are_told_in_the_same_words() -> None:
    """The stacked engine calls the same function."""
    with pytest.raises(RuntimeError, match=r"slot 0 at step 3; slot 1 at step 5\."):
        stacked(run(Stuck(3, 5), 1.0, 2.0, steps=100), lambda state: state)


@driven
def test_a_run_that_ends_before_a_decision_is_trained_to_its_end(
    drive: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """One slot began later; the others stop waiting for it, with one warning."""
    controller = run(together(), Start(1.0, step=5), 2.0, 3.0, steps=22)
    drive(controller, complete)
    assert [controller.newest(w).step for w in range(3)] == [22, 22, 22]
    assert said(caplog, "trained on to the end without it") == 1


def test_a_stack_is_trained_to_the_end_of_its_run_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It logs the same warning."""
    controller = run(together(), Start(1.0, step=5), 2.0, 3.0, steps=22)
    stacked(controller, lambda state: state)
    assert [controller.newest(w).step for w in range(3)] == [22, 22, 22]
    assert said(caplog, "trained on to the end without it") == 1


def test_a_longer_run_decides_what_a_shorter_one_did_not(
    tmp_path: pathlib.Path,
) -> None:
    """The decision that came after the end uses the same checkpoints."""
    for steps in (22, 40):
        starts = [Start(1.0, step=5), 2.0]
        controller = run(together(), *starts, log_dir=tmp_path / "run", steps=steps)
        by_one_worker(controller, complete)
        assert [controller.newest(w).step for w in (0, 1)] == [steps, steps]
        decisions = probe.decisions(controller)
        controller.close()
    assert decisions == 3


def test_who_may_still_be_evaluated_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A saved state at the barrier gets its value late; the warning names the slot."""
    probe.explain_waits_at_once(monkeypatch)
    controller = run(together(), Start(1.0, step=5), 2.0, steps=15)
    with controller.worker(0) as worker:
        worker.poll()
        worker.step = 15
        worker.report(None, {"x": 1.0})  # It has ended, and waits for its value.
    late = generation(controller, 0)

    def evaluated() -> None:
        assert said(caplog, "may still come: 0") == 1
        controller.set_eval(0, late, 15, None, 1.0)

    with controller.worker(1) as worker:
        worker.poll()
        worker.step = 10
        worker.report(2.0, {"x": 2.0})
        probe.when_waiting(controller, evaluated)
        worker.poll()
        assert worker.step == 15 or worker.worker_id == 1
    assert probe.decisions(controller) == 1


def in_a_process(worker: Worker) -> None:
    """A loop without a mistake."""
    loop(worker, complete)


def test_processes_are_told_too(tmp_path: pathlib.Path) -> None:
    """Each process decides by the journal and the leases."""
    controller = run(Stuck(3, 5), 1.0, 2.0, log_dir=tmp_path / "run", steps=100)
    with pytest.raises(RuntimeError, match="Every slot waits and no worker trains"):
        processes.run(in_a_process, controller, progress=False)
    controller.close()


def test_what_another_process_trains_is_waited_for(tmp_path: pathlib.Path) -> None:
    """Another process may have another `Stop`, and train a slot that has ended here."""
    here = run(Stuck(3, 50), 1.0, 2.0, log_dir=tmp_path / "run", steps=5)
    there = run(Stuck(3, 50), 1.0, 2.0, log_dir=tmp_path / "run", steps=100)
    with here.worker(0) as worker:
        worker.poll()
        worker.step = 3
        worker.report(1.0, {"x": 1.0})
        with there.worker(1) as other:
            other.poll()
            other.step = 5
            other.report(1.0, {"x": 1.0})
            seen: list[int] = []

            def looked() -> None:
                seen.append(here.newest(1).step)
                other.release()

            probe.when_waiting(here, looked)
            assert worker.poll() is False  # Released, slot 0 trains to the end.
    assert seen == [5]
    here.close()
    there.close()


# Runs without a reported state.


@driven
@pytest.mark.parametrize("waits", [True, False])
def test_a_loop_that_reports_no_state_is_told_so(drive: Any, waits: bool) -> None:
    """Each decision resets members to fresh weights; waiting or not, the run ends."""
    mutator = PopulationBasedTraining(same, 4, synchronous=waits)
    controller = run(mutator, 1.0, 2.0, 3.0, 4.0, steps=16)
    with pytest.raises(RuntimeError, match="No training state was ever reported"):
        drive(controller, lambda worker, _: worker.report(1.0 + worker.worker_id))


def test_who_begins_afresh_on_purpose_may_do_so() -> None:
    """A search that tries one setting after the other needs no saves."""
    tries: list[int] = []

    def decide(report: Any, view: PopulationView) -> Any:
        tries.append(report.checkpoint.step)
        return {0: Branch(None, len(tries))} if tries[-1] == 3 else {}

    controller = run(Scripted(decide), 1.0, reports=200)
    by_one_worker(controller, lambda worker, _: worker.report(1.0))
    assert len(tries) == 200


# All members diverge after every reset.


def diverging(worker: Worker, state: Any) -> None:
    """Every value is NaN."""
    worker.report(math.nan, state)


@driven
@pytest.mark.parametrize("saves", [True, False])
@pytest.mark.parametrize("waits", [True, False])
def test_a_population_that_only_diverges_ends(
    drive: Any, saves: bool, waits: bool
) -> None:
    """Each slot is retired after three resets in a row; the error says why."""
    mutator = PopulationBasedTraining(same, 2, synchronous=waits)
    controller = run(mutator, 1.0, 2.0, 3.0, steps=100)
    with pytest.raises(NoProgressError, match=r"worker 0, 1, 2: diverged: nan at step"):
        drive(controller, lambda w, state: w.report(math.nan, state if saves else None))
    assert probe.retired(controller) == {0, 1, 2}
    assert probe.failures(controller) == [3, 3, 3]
    assert controller.finished


def test_a_population_that_only_diverges_ends_by_two_calls() -> None:
    """`set_eval` raises, after the report is recorded; `revive` allows a new try."""
    controller = run(PopulationBasedTraining(same, 2), 1.0)

    def advance() -> None:
        newest = probe.newest(controller)[0]
        step = newest.step + 1
        controller.set_eval(0, newest.generation_id, step, None, math.inf)

    for _ in range(5):
        advance()
    with pytest.raises(NoProgressError, match="worker 0: diverged: inf at step 2") as e:
        advance()
    assert "controller.revive(worker_id)" in str(e.value)
    assert controller.diverged() == [6]
    controller.revive(0)
    for _ in range(5):
        advance()
    with pytest.raises(NoProgressError):
        advance()


def test_each_opening_of_a_run_without_a_slot_left_says_so(
    tmp_path: pathlib.Path,
) -> None:
    """A worker that asks for a slot gets the reasons, in the next process too."""
    for _ in range(2):
        controller = run(Scripted(), 1.0, log_dir=tmp_path / "run")
        if not probe.retired(controller):
            for _ in range(2):
                controller.fail(0, "no memory")
            with pytest.raises(NoProgressError, match="worker 0: no memory"):
                controller.fail(0, "no memory")
        with controller.worker() as worker:
            assert not worker.running
            with pytest.raises(NoProgressError, match="worker 0: no memory"):
                worker.poll()
        controller.close()


@driven
@pytest.mark.parametrize("waits", [True, False])
def test_a_member_that_only_diverges_does_not_end_the_run(
    drive: Any, waits: bool
) -> None:
    """It is retired after three resets, if there are so many before the end."""
    mutator = PopulationBasedTraining(same, 2, synchronous=waits)
    controller = run(mutator, 1.0, 2.0, 3.0, steps=30)

    def report(worker: Worker, state: Any) -> None:
        worker.report(math.nan if worker.worker_id == 1 else 1.0, state)

    drive(controller, report)
    assert controller.finished
    assert probe.retired(controller) in ([{1}] if waits else [{1}, set()])
    assert [probe.newest(controller)[w].step for w in (0, 2)] == [30, 30]


@driven
def test_a_member_that_diverges_for_good_keeps_its_worker(drive: Any) -> None:
    """With another worker it would begin again, in turns, for ever."""
    controller = run(FixedSchedule({0: 1.0}), 1.0, 1.0, 1.0, steps=40)

    def report(worker: Worker, state: Any) -> None:
        worker.turn = 2
        worker.report(math.nan if worker.worker_id == 0 else 1.0, state)

    drive(controller, report)
    assert min(controller.newest(w).step for w in range(3)) == 40


# Values and states that never meet.


def alternating(worker: Worker, state: Any) -> None:
    """A value at even steps, the state at odd steps."""
    if worker.step % 2:
        worker.report(None, state)
    else:
        worker.report(1.0)


@driven
def test_values_and_states_that_never_meet_are_refused(drive: Any) -> None:
    """The third report says what is wrong and what to do; it is not recorded."""
    controller = run(together(4), 1.0, 2.0, steps=100)
    with pytest.raises(
        RuntimeError,
        match=r"values at steps 2, 4, 6 and states at steps 1, 3, 5, never both",
    ):
        drive(controller, alternating)
    assert max(controller.newest(w).step for w in (0, 1)) == 5


def test_they_are_refused_by_two_calls_too() -> None:
    """A refused report may be repeated, and completed."""
    controller = run(together(4), 1.0, 2.0)
    name = generation(controller)
    controller.set_eval(0, name, 4, "saved", None)
    controller.set_eval(0, name, 5, None, 1.0)
    controller.set_eval(0, name, 6, "saved", None)  # Evaluated every five steps?
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"worker.report\(value, state\)"):
            controller.set_eval(0, name, 7, None, 1.0)
    assert controller.newest(0).step == 6
    controller.set_eval(0, name, 4, None, 1.0)
    controller.set_eval(0, name, 8, "saved", None)
    assert controller.newest(0).step == 8


def rare_saves(worker: Worker, state: Any) -> None:
    """A value at every step; the state at every third step."""
    worker.report(1.0, None if worker.step % 3 else state)


def two_reports(worker: Worker, state: Any) -> None:
    """A value at every step, and at every third step an earlier report of the state."""
    if not worker.step % 3:
        worker.report(None, state)
    worker.report(1.0)


@driven
@pytest.mark.parametrize("report", [rare_saves, two_reports])
def test_values_that_meet_a_state_now_and_then_are_fine(
    drive: Any, report: Report
) -> None:
    """Two reports of one step complete each other."""
    controller = run(together(4), 1.0, 2.0, steps=30)
    drive(controller, report)
    assert probe.decisions(controller) >= 4


def test_saves_whose_values_come_late_are_fine() -> None:
    """The loop only saves; another process evaluates the saves, in any order."""
    controller = run(together(4), 1.0, 2.0)
    for worker_id in (0, 1):
        for step in range(1, 12):
            name = generation(controller, worker_id)
            controller.set_eval(worker_id, name, step, f"{step}", None)
    for worker_id in (0, 1):
        controller.set_eval(worker_id, generation(controller, worker_id), 9, None, 1.0)
    assert probe.decisions(controller) == 1


# Loops without progress.


def test_a_step_that_is_never_counted_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After a thousand polls of a worker."""
    controller = run(Scripted(), 1.0, 2.0)
    with controller.worker() as worker:
        worker.poll()
        for _ in range(999):
            worker.poll()
        assert said(caplog, "worker.step += 1") == 0
        for _ in range(4000):
            worker.poll()
    assert said(caplog, "worker.step += 1") == 1


def test_a_step_that_is_never_counted_is_told_by_two_calls(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While the slot waits there is no warning: then a loop must poll."""
    controller = run(together(2), 1.0, 2.0)
    name = generation(controller)
    controller.set_eval(0, name, 2, "p", 1.0)
    for _ in range(3000):
        assert poll(controller, 0, name, 2) is None
    assert said(caplog, "worker.step += 1") == 0
    for _ in range(1000):
        assert poll(controller, 1, generation(controller, 1), 1) is None
    assert said(caplog, "at step 1 of worker 1") == 1


@pytest.mark.parametrize("reports", [True, False])
def test_a_loop_that_never_reports_is_told_once(
    reports: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """After ten thousand polls, unless it has reported."""
    controller = run(Scripted(), 1.0)
    with controller.worker() as worker:
        for _ in range(30_000):
            worker.poll()
            worker.step += 1
            if reports and worker.step == 9000:
                worker.report(1.0)
    assert said(caplog, "reported nothing for worker 0") == (not reports)


@driven
@pytest.mark.parametrize(("valued", "saved"), [(4, 10), (6, 10), (3, 5)])
def test_values_and_saves_of_other_periods_meet_in_the_end(
    drive: Any, valued: int, saved: int
) -> None:
    """Evaluated every four steps and saved every ten, they meet at step 20."""

    def report(worker: Worker, state: Any) -> None:
        value = None if worker.step % valued else 1.0
        kept = None if worker.step % saved else state
        if value is not None or kept is not None:
            worker.report(value, kept)

    controller = run(together(8), 1.0, 2.0, steps=120)
    drive(controller, report)
    assert controller.finished


def test_a_policy_that_waits_for_nobody_says_so_of_values_that_never_meet(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Otherwise it would decide nothing, without a warning."""
    controller = run(PopulationBasedTraining(lambda m: m, 4), 1.0, 2.0, steps=60)
    by_one_worker(controller, alternating)
    (text,) = [m for m in caplog.messages if "never both at one" in m]
    assert "worker.report(value, state)" in text


def test_reports_past_a_barrier_cost_the_same_however_many_there_are() -> None:
    """A bounded number of them is remembered."""
    controller = run(together(4), 1.0, 2.0)
    name = generation(controller)
    controller.set_eval(0, name, 3, "saved", None)
    for step in range(4, 200):
        controller.set_eval(0, name, step, None, 1.0)
    assert len(probe.unmet(controller)) < 500


class Raises(PopulationBasedTraining):
    """All slots wait for each other at every tenth step; raises when told to."""

    fails = False

    def update(self, state: Any, report: Any, view: Any) -> Any:
        """Fail, or decide."""
        if self.fails:
            raise ZeroDivisionError
        return super().update(state, report, view)


def test_a_report_that_was_rolled_back_is_not_remembered() -> None:
    """This holds for an exception of the mutator, and for a refused report."""
    policy = Raises(lambda m: m, 10, synchronous=True)
    controller = run(policy, 1.0, 2.0)
    name = generation(controller)
    controller.set_eval(0, name, 2, "saved", None)
    before = probe.unmet(controller)
    policy.fails = True
    for step, value in ((4, 1.0), (5, math.nan)):
        with pytest.raises(ZeroDivisionError):
            controller.set_eval(0, name, step, None, value)
        assert probe.unmet(controller) == before
    policy.fails = False
    controller.set_eval(1, generation(controller, 1), 1, "saved", 1.0)
    assert probe.unmet(controller) == before
    for step in range(10, 30):
        remembered = probe.unmet(controller)
        try:
            if step % 2:
                controller.set_eval(0, name, step, None, 1.0)
            else:
                controller.set_eval(0, name, step, "saved", None)
        except RuntimeError:
            break
    assert step == 13
    assert probe.unmet(controller) == remembered
    with pytest.raises(RuntimeError, match=r"steps 11, 13 and states at .* 10, 12"):
        controller.set_eval(0, name, step, None, 1.0)
    controller.set_eval(0, name, step, "saved", 1.0)  # One complete report.
    assert controller.newest(0).step == step


def test_who_diverges_quickly_does_not_end_a_run_that_others_train_slowly() -> None:
    """It is retired while another thread still evaluates its first report."""
    late = threading.Event()

    def happened(event: Event) -> None:
        if event.kind == "retired":
            late.set()

    controller = PopulationController(
        [1.0, 2.0],
        PopulationBasedTraining(lambda m: m, 1),
        stop=Stop(steps=3, seconds=60),
        on_event=happened,
    )

    def train(worker: Worker) -> None:
        while worker.running:
            if worker.poll():
                worker.restore(lambda _: {"x": 1.0})
            if not worker.running:
                break
            if worker.worker_id == 1:
                assert late.wait(30)
            worker.step += 1
            worker.report(1.0 if worker.worker_id else math.nan, {"x": 1.0})

    threads.run(train, controller, progress=False)
    assert controller.finished
    assert probe.retired(controller) == {0}
    assert probe.newest(controller)[1].step == 3


@driven
def test_members_that_diverge_before_each_save_end_the_run(drive: Any) -> None:
    """They are finite at first and never at a save, as in most divergences."""

    def report(worker: Worker, state: Any) -> None:
        if worker.step % 4 == 3:
            worker.report(1.0)
        elif worker.step % 4 == 0:
            worker.report(math.nan, state)

    controller = run(PopulationBasedTraining(lambda m: m, 4), 1.0, 2.0, steps=60)
    with pytest.raises(RuntimeError, match=r"beyond step 4 was saved .*Save more"):
        drive(controller, report)
