"""Slots that are retired: nothing waits for them, and what brings them back."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from population import (
    Branch,
    Event,
    Mutator,
    PopulationController,
    PopulationView,
    Report,
    Retire,
    Stop,
)
from population.base import NoProgressError
from population.mutators import PopulationBasedTraining
from tests import probe
from tests.helpers import Scripted, content, generation, reporter

Open = Callable[..., PopulationController]
Decisions = Mapping[int, Branch | Retire]


class Judge(Scripted):
    """Decides by the newest value of a slot, and may let all slots wait at a step."""

    def __init__(self, decide: Any = None, wait_at: int | None = None) -> None:
        super().__init__(decide)
        self._wait_at = wait_at
        self.live: list[list[int]] = []  # The live slots at each update.

    def update(self, state: None, report: Report, view: PopulationView) -> Any:
        """Note who is live."""
        self.live.append(list(view.live))
        return super().update(state, report, view)

    def wait_at(self, state: None, worker_id: int, view: PopulationView) -> int | None:
        """The same step for all."""
        return self._wait_at


@pytest.fixture
def opened(tmp_path: pathlib.Path) -> Iterator[Open]:
    """Opens a run of three slots in one folder, as often as asked."""
    found: list[PopulationController] = []

    def open_run(mutator: Mutator[Any] | None = None, **options: Any) -> Any:
        policy = Judge() if mutator is None else mutator
        run = PopulationController([1.0, 2.0, 3.0], policy, tmp_path / "run", **options)
        found.append(run)
        return run

    yield open_run
    for run in found:
        run.close()


def together(step: int = 2) -> PopulationBasedTraining:
    """A policy whose slots wait for each other."""
    return PopulationBasedTraining(lambda meta: meta, step, synchronous=True)


def fail(run: PopulationController, worker_id: int, times: int = 3) -> None:
    """A slot fails until it is retired."""
    for _ in range(times):
        run.fail(worker_id, f"no memory for {worker_id}")


def saved(run: PopulationController, worker_id: int, value: float = 1.0) -> None:
    """A slot reports its next step, with weights."""
    step = run.workers[worker_id].step + 1
    reporter(run, worker_id)(value, f"{worker_id} at {step}")


def at_value(value: float, decisions: Callable[[PopulationView], Decisions]) -> Any:
    """Decide as a function says when a slot reports this value."""

    def decide(report: Report, view: PopulationView) -> Decisions:
        return decisions(view) if report.checkpoint.value == value else {}

    return decide


# What retires a slot.


def test_a_slot_that_fails_too_often_is_retired(opened: Open) -> None:
    """It stays in its generation, and its worker is to wait there."""
    run = opened()
    saved(run, 1)
    fail(run, 1)
    assert probe.retired(run) == {1}
    assert probe.live(run) == [0, 2]
    assert generation(run, 1).endswith("-2")
    assert run.workers[1].wait_at == run.workers[1].step == 1
    assert probe.waits(run, 1)
    status = probe.statuses(run)[1]
    assert (status.kind, status.failures, status.retired) == ("failed", 3, 1)


def test_a_failure_of_a_retired_slot_is_nothing(opened: Open) -> None:
    """Its worker may say so late."""
    run = opened()
    fail(run, 1)
    before = content(run)
    run.fail(1, "late")
    assert content(run) == before


def test_a_policy_retires_a_slot(opened: Open) -> None:
    """With its reason; the mutator no longer finds it among the live ones."""
    policy = Judge(at_value(9.0, lambda view: {1: Retire("the worst")}))
    run = opened(policy)
    saved(run, 1)
    saved(run, 0, 9.0)
    assert probe.retired(run) == {1}
    status = probe.statuses(run)[1]
    assert (status.kind, status.reason, status.failures) == ("retired", "the worst", 0)
    saved(run, 2)
    assert policy.live[0] == [0, 1, 2]
    assert policy.live[-1] == [0, 2]
    assert generation(run, 1).endswith("-0")


def test_a_policy_may_retire_the_slot_that_reports(opened: Open) -> None:
    """As an early stop does."""
    run = opened(Judge(at_value(9.0, lambda view: {2: Retire()})))
    saved(run, 2, 9.0)
    assert probe.retired(run) == {2}


def test_retiring_twice_is_once(opened: Open) -> None:
    """The first reason stays."""
    reasons = ["first"]
    run = opened(Judge(at_value(9.0, lambda view: {2: Retire(reasons[-1])})))
    saved(run, 0, 9.0)
    reasons.append("second")
    saved(run, 0, 9.0)
    assert probe.statuses(run)[2].reason == "first"


def test_one_decision_retires_a_slot_and_branches_another(opened: Open) -> None:
    """The weights of the one that is retired may go on in the other."""

    def swap(view: PopulationView) -> Decisions:
        return {
            0: Retire("its weights go on"),
            1: Branch(view.newest(0), 7.0, "from the retired one"),
        }

    run = opened(Judge(at_value(9.0, swap)))
    saved(run, 0, 9.0)
    assert probe.retired(run) == {0}
    assert (run.workers[1].params, run.workers[1].meta_params) == ("0 at 1", 7.0)
    assert probe.newest(run)[1].reason == "from the retired one"


@pytest.mark.parametrize("reason", [None, 3, b"bytes"])
def test_the_reason_of_a_retirement_is_text(opened: Open, reason: Any) -> None:
    """The error names the decision; nothing is recorded."""
    run = opened(Judge(at_value(9.0, lambda view: {1: Retire(reason)})))
    before = content(run)
    with pytest.raises(TypeError, match=r"Retire\.reason must be a str"):
        saved(run, 0, 9.0)
    assert content(run) == before


# Barriers.


def test_a_barrier_closes_when_the_last_one_out_is_retired(opened: Open) -> None:
    """The others need not report again: they may all be waiting."""
    run = opened(together())
    for worker_id in (0, 0, 1, 1, 2):
        saved(run, worker_id, 1.0 + worker_id)
    run.fail(2, "no memory")
    run.fail(2, "no memory")
    assert probe.decisions(run) == 0
    run.fail(2, "no memory")
    assert probe.decisions(run) == 1
    assert probe.retired(run) == {2}


def test_a_barrier_closes_when_the_last_one_out_diverges_for_good(
    opened: Open,
) -> None:
    """A divergence that retires shrinks the population as an error does."""

    def back(report: Report, view: PopulationView) -> Decisions:
        if not report.checkpoint.diverged:
            return {}
        return {report.worker_id: Branch(None, 1.0)}

    policy = Judge(back)
    run = opened(policy)
    saved(run, 0)
    for _ in range(3):
        reporter(run, 2)(math.nan, None)
    assert policy.asked == [(0, 1), (2, 1), (2, 1), (2, 1), (0, 1)]
    assert policy.live[-1] == [0, 1]


def test_who_shrinks_the_population_asks_the_mutator(opened: Open) -> None:
    """It sees the newest value of the lowest live slot that has one, once."""
    policy = Judge(at_value(9.0, lambda view: {0: Retire()}))
    run = opened(policy)
    saved(run, 0)
    saved(run, 1)
    reporter(run, 1)(None, "a save")
    saved(run, 2, 9.0)
    assert policy.asked == [(0, 1), (1, 1), (1, 2), (2, 1), (1, 1)]
    assert policy.live[-1] == [1, 2]
    fail(run, 1)
    assert policy.asked[5:] == [(2, 1)]
    assert policy.live[-1] == [2]


def test_nobody_is_asked_if_no_live_slot_has_a_value(opened: Open) -> None:
    """There is nothing to decide about yet."""
    policy = Judge()
    run = opened(policy)
    saved(run, 0)
    fail(run, 0)
    assert policy.asked == [(0, 1)]


def test_a_policy_may_retire_one_after_the_other(opened: Open) -> None:
    """Each time it is asked again, until none is left: then the run has ended."""

    def decide(report: Report, view: PopulationView) -> Decisions:
        return {report.worker_id: Retire("one")} if len(policy.seen) > 2 else {}

    policy = Judge(decide)
    run = opened(policy)
    for worker_id in (0, 1, 2):
        saved(run, worker_id)
    assert policy.asked == [(0, 1), (1, 1), (2, 1), (0, 1), (1, 1)]
    assert policy.live == [[0, 1, 2]] * 3 + [[0, 1], [1]]
    assert probe.retired(run) == {0, 1, 2}
    assert run.finished


def test_a_policy_that_revives_what_it_retires_ends(opened: Open) -> None:
    """A mistake of a policy must not keep a transaction open for ever."""

    def decide(report: Report, view: PopulationView) -> Decisions:
        other = 1 - report.worker_id
        return {report.worker_id: Retire(), other: Branch(view.newest(other), 1.0)}

    run = opened(Judge(decide))
    saved(run, 0)
    saved(run, 1)
    assert len(probe.retired(run)) == 1


def test_retiring_and_giving_up_go_together(opened: Open) -> None:
    """Decisions wait for neither, and `give_up` may name a retired slot."""
    policy = Judge()
    run = opened(policy)
    for worker_id in (0, 1, 2):
        saved(run, worker_id)
    fail(run, 0)
    run.give_up(1)
    assert policy.asked[3:] == [(1, 1), (2, 1)]
    assert probe.live(run) == [2]
    run.give_up(0)
    assert probe.live(run) == [2]
    saved(run, 1)
    assert probe.live(run) == [1, 2]
    run.revive(0)
    assert probe.live(run) == [1, 2]
    saved(run, 0)
    assert probe.live(run) == [0, 1, 2]


# What brings a slot back.


def test_a_branch_brings_a_slot_back(opened: Open) -> None:
    """It is live again, and has failed never."""
    run = opened(Judge(at_value(9.0, lambda view: {1: Branch(view.newest(0), 7.0)})))
    fail(run, 1)
    saved(run, 0, 9.0)
    assert probe.retired(run) == set()
    assert probe.live(run) == [0, 1, 2]
    assert probe.failures(run) == [0, 0, 0]
    assert probe.statuses(run)[1].kind == "revived"
    assert (run.workers[1].params, run.workers[1].wait_at) == ("0 at 1", None)


def test_revive_brings_a_slot_back(opened: Open) -> None:
    """It goes on from its resume point, with all its tries."""
    run = opened()
    saved(run, 1)
    reporter(run, 1)(2.0, None)
    fail(run, 1)
    run.revive(1)
    assert probe.live(run) == [0, 1, 2]
    work = run.workers[1]
    assert (work.params, work.step, work.wait_at) == ("1 at 1", 1, None)
    fail(run, 1, 2)
    assert not probe.retired(run)
    fail(run, 1, 1)
    assert probe.retired(run) == {1}


def test_reviving_a_slot_that_trains_changes_nothing(opened: Open) -> None:
    """It must not be set back to its last save."""
    run = opened()
    saved(run, 1)
    reporter(run, 1)(2.0, None)
    run.fail(0, "no memory")
    before = content(run)
    run.revive(0)
    run.revive(1)
    assert content(run) == before
    assert probe.failures(run) == [1, 0, 0]


def test_a_report_does_not_bring_a_slot_back(opened: Open) -> None:
    """It is recorded: a worker may have been at it when the slot was retired."""
    policy = Judge()
    run = opened(policy)
    saved(run, 1)
    fail(run, 1)
    saved(run, 1, 0.5)
    assert probe.retired(run) == {1}
    assert policy.asked[-1] == (1, 1)  # It is not shown.
    best = run.best()
    assert best is not None
    assert best.value == 0.5


def test_a_barrier_waits_for_a_slot_that_was_revived(opened: Open) -> None:
    """It counts like any other again."""
    run = opened(together())
    fail(run, 2)
    run.revive(2)
    for worker_id in (0, 0, 1, 1):
        saved(run, worker_id)
    assert probe.decisions(run) == 0
    saved(run, 2)
    saved(run, 2)
    assert probe.decisions(run) == 1


def test_a_retirement_outlives_the_process(opened: Open) -> None:
    """Every process knows it: one that was open, and one that opens the run."""

    def policy() -> Judge:
        return Judge(at_value(9.0, lambda view: {1: Retire("why")}))

    one, two = opened(policy()), opened(policy())
    saved(one, 0, 9.0)
    fail(two, 2)
    probe.refresh(one)
    three = opened(policy())
    assert probe.in_memory(one) == probe.in_memory(two) == probe.in_memory(three)
    assert probe.retired(three) == {1, 2}
    three.revive(1)
    probe.refresh(one)
    assert probe.retired(one) == {2}


# The end of a run.


def test_a_run_does_not_wait_for_the_end_of_a_retired_slot(opened: Open) -> None:
    """`Stop(steps=)` ends it when all others have reached the step."""
    run = opened(stop=Stop(steps=2))
    fail(run, 1)
    for worker_id in (0, 0, 2):
        saved(run, worker_id)
    assert not run.finished
    saved(run, 2)
    assert run.finished
    run.revive(1)
    assert not run.finished


def test_slots_that_were_given_up_count_if_no_other_is_left(opened: Open) -> None:
    """Retired ones never do."""
    run = opened(stop=Stop(steps=2))
    run.give_up(0)
    fail(run, 1)
    fail(run, 2)
    assert not run.finished
    saved(run, 0)
    saved(run, 0)
    assert run.finished


def test_a_run_whose_slots_a_policy_has_retired_has_ended(opened: Open) -> None:
    """That is no error; the event comes once."""
    everybody = {w: Retire("done") for w in range(3)}
    told: list[Event] = []
    policy = Judge(at_value(9.0, lambda view: everybody))
    run = opened(policy, on_event=told.append)
    with run.worker(0) as worker:
        worker.poll()
        worker.step += 1
        worker.report(9.0, "saved")
        assert not worker.running
        assert worker.poll() is False
    kinds = [event.kind for event in told if event.kind != "claim"]
    assert kinds == ["report", "retired", "retired", "retired", "finished"]
    assert run.workers[0].wait_at == 1


def test_a_run_that_failures_have_ended_names_the_reasons(opened: Open) -> None:
    """Equal reasons once, with their slots."""
    run = opened()
    for worker_id in (0, 2):
        for _ in range(3):
            run.fail(worker_id, "no memory")
    for _ in range(2):
        run.fail(1, "no device")
    with pytest.raises(NoProgressError) as e:
        run.fail(1, "no disk")
    assert isinstance(e.value, RuntimeError)
    assert "worker 0, 2: no memory; worker 1: no disk" in str(e.value)
    assert "controller.revive(worker_id)" in str(e.value)
    assert run.finished
    run.revive(2)
    assert not run.finished
    saved(run, 2)


def test_a_run_that_failures_have_not_ended_alone_ends_without_an_error(
    opened: Open,
) -> None:
    """If the policy was done with a slot, not all has failed."""
    run = opened(Judge(at_value(9.0, lambda view: {1: Retire("done")})))
    saved(run, 1, 9.0)
    fail(run, 0)
    fail(run, 2)
    assert run.finished


# Workers.


def test_a_worker_leaves_a_slot_that_is_retired(opened: Open) -> None:
    """Its next poll returns the work of another one."""
    run = opened(Judge(at_value(9.0, lambda view: {0: Retire("done")})))
    with run.worker(0) as worker:
        worker.poll()
        worker.step += 1
        worker.report(9.0, "saved")
        assert worker.running
        assert worker.poll()
        assert worker.worker_id == 1
    assert probe.free_slot(run) == 1


def test_a_worker_in_the_middle_of_its_steps_leaves_too(opened: Open) -> None:
    """The decision may come from another slot's report."""
    run = opened(Judge(at_value(9.0, lambda view: {0: Retire("done")})))
    with run.worker(0) as worker:
        worker.poll()
        worker.step += 1
        saved(run, 2, 9.0)
        assert worker.poll()
        assert worker.worker_id == 1
        assert "0 by" not in " ".join(probe.lease_holders(run))


def test_a_worker_that_asks_for_a_retired_slot_is_given_another(opened: Open) -> None:
    """`worker(worker_id)` names the slot to begin with."""
    run = opened()
    fail(run, 2)
    with run.worker(2) as worker:
        assert worker.poll()
        assert worker.worker_id == 0
    with run.worker() as worker:
        assert worker.worker_id == 0


def test_a_worker_leaves_a_slot_that_is_retired_at_its_hand_out(opened: Open) -> None:
    """What it resumes has diverged once more: that was its last try."""
    run = opened(max_failures=1)
    reporter(run, 1)(math.nan, None)
    with run.worker(1) as worker:
        assert worker.poll()
        assert worker.worker_id == 0
    assert probe.retired(run) == {1}


def test_a_worker_that_resumes_the_last_slot_in_vain_is_told(opened: Open) -> None:
    """The run has ended then, and it says why."""
    run = opened(max_failures=1)
    fail(run, 0, 1)
    fail(run, 2, 1)
    reporter(run, 1)(math.nan, None)
    with run.worker(1) as worker:
        with pytest.raises(NoProgressError, match="worker 1: diverged: nan at step 1"):
            worker.poll()
        assert not worker.running


def test_who_waits_is_told_which_slots_are_retired(
    opened: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning of a long wait names them."""
    probe.explain_waits_at_once(monkeypatch)
    run = opened(stop=Stop(steps=2))
    fail(run, 2)
    with run.worker(0) as held, run.worker(1) as worker:
        held.poll()
        worker.poll()
        worker.step = 2
        worker.report(1.0, "saved")
        probe.when_waiting(run, lambda: run.set_eval(0, generation(run), 2, "p", 1.0))
        assert worker.poll() is False
    (text,) = (text for text in caplog.messages if "has waited" in text)
    assert "Retired: 2." in text


def test_who_all_wait_are_told_which_slots_are_retired(opened: Open) -> None:
    """A decision will never come, and it is not for want of the retired slot."""
    run = opened(Judge(wait_at=1), stop=Stop(steps=5))
    fail(run, 1)
    saved(run, 0)
    saved(run, 2)
    with pytest.raises(NoProgressError, match="slot 0 at step 1; slot 2 at step") as e:
        run.worker()
    assert "slot 1, retired" in str(e.value)


# Events.


def test_a_retirement_is_told_once(opened: Open) -> None:
    """In order with the failures that led to it; a revived slot may retire again."""
    told: list[Event] = []
    run = opened(on_event=told.append, max_failures=2)
    fail(run, 1, 2)
    run.fail(1, "late")
    run.revive(1)
    fail(run, 1, 2)
    once = ["failed", "failed", "retired"]
    assert [event.kind for event in told] == 2 * once
    assert {event.worker_id for event in told} == {1}
    assert all(event.checkpoint is not None for event in told)


def test_a_retirement_is_told_after_the_report_that_led_to_it(opened: Open) -> None:
    """As a branch is."""
    told: list[Event] = []
    policy = Judge(at_value(9.0, lambda view: {1: Retire("worst")}))
    run = opened(policy, on_event=told.append)
    saved(run, 0, 9.0)
    found = [(event.kind, event.worker_id) for event in told]
    assert found == [("report", 0), ("retired", 1)]
