"""A trial that fails: what is recorded, what the mutator sees, and how it goes on."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

import population
from population import (
    Branch,
    Event,
    JournalError,
    Mutator,
    PopulationController,
    PopulationView,
    Report,
    Retire,
    Stop,
    Worker,
)
from population.base import Failure, NoProgressError, ParamsError
from population.base.errors import is_failure, mark_of_the_run
from population.mutators import FixedSchedule, PopulationBasedTraining
from tests import probe
from tests.helpers import Scripted, content, generation, poll, reporter

Answer = Callable[[Failure, PopulationView], Mapping[int, Branch | Retire]]
Fail = Callable[[PopulationController, int, str], object]


class Answers(Scripted):
    """Answers failures as a function decides, and remembers them."""

    def __init__(self, answer: Answer | None = None, decide: Any = None) -> None:
        super().__init__(decide)
        self._answer = answer
        self.failures: list[Failure] = []

    def failed(
        self, state: None, failure: Failure, view: PopulationView
    ) -> tuple[None, Mapping[int, Branch | Retire]]:
        """Return the decisions of the function."""
        self.failures.append(failure)
        return state, {} if self._answer is None else self._answer(failure, view)


class Counts(Mutator[int]):
    """Its state is the number of failures that it was shown."""

    def init(self, view: PopulationView) -> int:
        """Begin with none."""
        del view
        return 0

    def update(self, state: int, report: Report, view: PopulationView) -> Any:
        """Decide nothing."""
        del report, view
        return state, {}

    def failed(self, state: int, failure: Failure, view: PopulationView) -> Any:
        """Count."""
        del failure, view
        return state + 1, {}


Open = Callable[..., PopulationController]


@pytest.fixture
def opened(tmp_path: pathlib.Path) -> Iterator[Open]:
    """Opens a run of three slots in one folder, as often as asked."""
    found: list[PopulationController] = []

    def open_run(mutator: Mutator[Any] | None = None, **options: Any) -> Any:
        starts = [{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3}]
        policy = Answers() if mutator is None else mutator
        run = PopulationController(starts, policy, tmp_path / "run", **options)
        found.append(run)
        return run

    yield open_run
    for run in found:
        run.close()


def by_controller(run: PopulationController, worker_id: int, reason: str) -> None:
    """A raw loop says that its trial has failed."""
    run.fail(worker_id, reason)


def by_worker(run: PopulationController, worker_id: int, reason: str) -> None:
    """A worker says that its trial has failed."""
    with run.worker(worker_id) as worker:
        worker.poll()
        worker.fail(reason)


by_both = pytest.mark.parametrize("fail", [by_controller, by_worker])


def trained(run: PopulationController, worker_id: int = 0) -> None:
    """A slot has saved step 1, and reported a value of step 2."""
    report = reporter(run, worker_id)
    report(5.0, f"{worker_id} at 1")
    report(4.0, None)


def back(report: Report, view: PopulationView) -> Mapping[int, Branch]:
    """A slot that diverges begins again."""
    if not report.checkpoint.diverged:
        return {}
    *_, root = view.graph.walk(view.newest(report.worker_id))
    return {report.worker_id: Branch(root, {"lr": 9.0}, "again")}


def diverge(run: PopulationController, worker_id: int = 0) -> None:
    """A slot reports NaN."""
    reporter(run, worker_id)(math.nan, None)


# What happens to a slot.


@by_both
def test_a_slot_that_fails_goes_on_from_its_last_save(opened: Open, fail: Fail) -> None:
    """With the same hyperparameters, in a generation that says why."""
    run = opened()
    trained(run)
    first = generation(run)
    fail(run, 0, "no memory")
    work = run.workers[0]
    assert (work.params, work.step, work.meta_params) == ("0 at 1", 1, {"lr": 0.1})
    assert work.generation_id != first
    assert probe.newest(run)[0].reason == "failed: no memory"
    assert [generation(run, w)[-2:] for w in (1, 2)] == ["-0", "-0"]
    status = probe.statuses(run)[0]
    assert status.kind == "failed"
    assert (status.reason, status.failures, status.retired) == ("no memory", 1, 0)


@by_both
def test_a_slot_that_fails_before_a_save_begins_afresh(
    opened: Open, fail: Fail
) -> None:
    """Its new generation begins at step 0."""
    run = opened()
    fail(run, 2, "no device")
    assert run.workers[2][:2] == (None, {"lr": 0.3})
    assert run.workers[2].step == 0
    assert generation(run, 2).endswith("-1")


def test_a_raw_loop_is_given_the_new_generation(opened: Open) -> None:
    """Its next poll returns the work; reports of the old one are a side branch."""
    run = opened()
    trained(run)
    first = generation(run)
    run.fail(0, "no memory")
    work = poll(run, 0, first, 2)
    assert work is not None
    assert (work.generation_id, work.step) == (generation(run), 1)
    run.set_eval(0, first, 3, "late", 3.0)
    assert probe.newest(run)[0].step == 1
    assert probe.failures(run) == [1, 0, 0]


@by_both
def test_the_mutator_is_shown_a_failure(opened: Open, fail: Fail) -> None:
    """It sees the slot, its newest checkpoint, the reason and the count."""
    policy = Answers()
    run = opened(policy)
    reporter(run, 1)(5.0, "saved")
    newest = probe.newest(run)[1]
    fail(run, 1, "first")
    fail(run, 1, "second")
    one, two = policy.failures
    assert one == Failure(1, newest, "first", 1, retired=False)
    assert (two.failures, two.reason, two.retired) == (2, "second", False)
    assert two.checkpoint.step == 1


@by_both
def test_the_mutator_may_branch_the_slot_that_failed(opened: Open, fail: Fail) -> None:
    """Then it goes on there, in one new generation, and not at its resume point."""

    def answer(failure: Failure, view: PopulationView) -> Mapping[int, Branch]:
        return {failure.worker_id: Branch(view.newest(1), {"lr": 7.0}, "copied")}

    run = opened(Answers(answer))
    reporter(run, 0)(5.0, "0 at 1")
    trained(run, 1)
    fail(run, 0, "no memory")
    work = run.workers[0]
    assert (work.params, work.meta_params) == ("1 at 1", {"lr": 7.0})
    assert work.generation_id.endswith("-1")
    assert probe.newest(run)[0].reason == "copied"
    assert probe.failures(run) == [1, 0, 0]


def test_the_mutator_may_decide_for_other_slots_only(opened: Open) -> None:
    """The slot that failed goes to its resume point all the same."""

    def answer(failure: Failure, view: PopulationView) -> Mapping[int, Branch]:
        del failure
        return {2: Branch(view.newest(1), {"lr": 7.0}, "copied")}

    run = opened(Answers(answer))
    trained(run, 1)
    run.fail(0, "no memory")
    assert run.workers[2].params == "1 at 1"
    assert probe.newest(run)[0].reason == "failed: no memory"


def test_the_state_that_a_failure_changes_is_kept(opened: Open) -> None:
    """It is recorded in the failure's transaction."""
    run = opened(Counts())
    run.fail(0, "a")
    run.fail(1, "b")
    assert probe.mutator_state(run) == 2
    run.close()
    assert probe.mutator_state(opened(Counts())) == 2


class Broken(Scripted):
    """Raises at a failure, or returns no decisions."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self._result = result

    def failed(self, state: Any, failure: Failure, view: PopulationView) -> Any:
        """Raise, or return the result."""
        del state, failure, view
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


@pytest.mark.parametrize(
    ("result", "error"),
    [
        (ZeroDivisionError("oh"), "oh"),
        (None, r"Broken.failed must return its next state and a mapping"),
        ((None, {0: "stop"}), "must decide a Branch or a Retire for worker 0, got str"),
        ((None, {3: Retire()}), "worker_id must be below 3"),
    ],
)
def test_a_mistake_of_the_mutator_leaves_the_failure_unrecorded(
    opened: Open, result: Any, error: str
) -> None:
    """What it raises reaches the caller, and nothing has changed."""
    told: list[Event] = []
    run = opened(Broken(result), on_event=told.append)
    trained(run)
    before, told[:] = content(run), []
    with pytest.raises((ZeroDivisionError, TypeError, ValueError), match=error):
        run.fail(0, "no memory")
    assert content(run) == before
    assert not told
    assert probe.failures(run) == [0, 0, 0]


def test_a_decision_cannot_pass_for_a_failure(opened: Open) -> None:
    """A reason that only the library gives is marked as a decision's."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        return {0: Branch(report.checkpoint, {"lr": 1.0}, "failed: by hand")}

    run = opened(Answers(decide=decide))
    reporter(run)(1.0)
    assert probe.newest(run)[0].reason == "decision: failed: by hand"
    assert probe.failures(run) == [0, 0, 0]


# A worker that fails.


def test_a_worker_that_fails_gives_its_slot_back(
    opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """A report after that is dropped; its next poll claims a slot again."""
    run = opened()
    worker = run.worker(0)
    worker.poll()
    worker.step = 1
    worker.fail("no memory")
    assert not probe.lease_holders(run)
    worker.report(1.0, "dropped")
    assert "was not recorded" in caplog.text
    worker.fail("again")  # It has no slot.
    assert probe.failures(run) == [1, 0, 0]
    assert worker.poll()
    assert worker.worker_id == 1
    worker.release()


def test_a_worker_whose_slot_was_taken_has_not_failed(opened: Open) -> None:
    """The trial is another worker's now."""
    run = opened()
    slow, quick = run.worker(0), run.worker(0)
    quick.poll()
    slow.fail("too late")
    assert probe.failures(run) == [0, 0, 0]
    assert generation(run) == quick.generation_id
    quick.release()


def test_a_worker_of_a_closed_run_fails_quietly(opened: Open) -> None:
    """What ends a process must not raise another error."""
    run = opened()
    worker = run.worker(0)
    worker.poll()
    run.close()
    worker.fail("closed")
    assert probe.failures(opened()) == [0, 0, 0]


def test_free_slots_are_handed_out_by_failures_then_steps(opened: Open) -> None:
    """A slot that fails never keeps others from training."""
    run = opened()
    for worker_id in (0, 0, 2):
        run.fail(worker_id, "no memory")
    reporter(run, 1)(1.0)
    order: list[int | None] = []
    held: list[Worker] = []
    for _ in range(3):
        order.append(probe.free_slot(run))
        held.append(run.worker())
    assert order == [worker.worker_id for worker in held] == [1, 2, 0]
    assert probe.free_slot(run) is None
    for worker in held:
        worker.release()


# Failures in a row.


def test_a_finite_report_ends_the_count(opened: Open) -> None:
    """The slot is not retired by failures that are not in a row."""
    run = opened()
    for step in range(1, 10):
        run.fail(0, "no memory")
        run.fail(0, "no memory")
        assert probe.failures(run)[0] == 2
        run.set_eval(0, generation(run), step, f"{step}", 1.0)
        assert probe.failures(run)[0] == 0
        assert probe.statuses(run)[0].kind == "recovered"
    assert not probe.retired(run)


def test_a_step_that_was_reached_before_proves_nothing(opened: Open) -> None:
    """A trial that always fails at one place would be repeated for ever."""
    run = opened()
    report = reporter(run)
    report(5.0, "saved")
    for _ in range(3):
        report(4.0, None)
    for count in (1, 2):
        run.fail(0, "no memory")
        assert run.workers[0].step == 1
        for _ in range(3):
            report(3.0, None)
        assert probe.failures(run)[0] == count
    report(3.0, None)
    assert probe.failures(run)[0] == 0


def test_a_restart_does_not_make_an_old_step_a_proof(opened: Open) -> None:
    """Only a decision does; a takeover goes on with the same trial."""
    run = opened()
    for _ in range(4):
        reporter(run)(4.0, None)
    run.fail(0, "no memory")
    slow, quick = run.worker(0), run.worker(0)
    assert quick.poll()
    quick.step = 2
    quick.report(1.0)
    assert probe.newest(run)[0].reason in ("takeover", "failed: no memory")
    assert probe.failures(run)[0] == 1
    quick.step = 5
    quick.report(1.0)
    assert probe.failures(run)[0] == 0
    quick.release()
    slow.release()


def test_a_branched_slot_recovers_by_any_finite_report(opened: Open) -> None:
    """It is another trial: the steps of the old one do not count."""

    def answer(failure: Failure, view: PopulationView) -> Mapping[int, Branch]:
        return {failure.worker_id: Branch(None, {"lr": 7.0}, "anew")}

    run = opened(Answers(answer))
    for _ in range(4):
        reporter(run)(4.0, None)
    run.fail(0, "no memory")
    assert probe.failures(run)[0] == 1
    reporter(run)(9.0, None)
    assert probe.failures(run)[0] == 0


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_a_report_without_a_finite_value_proves_nothing(
    opened: Open, value: float | None
) -> None:
    """Neither a save alone nor a divergence ends the count."""
    run = opened()
    run.fail(0, "no memory")
    reporter(run)(value, "saved")
    assert probe.failures(run)[0] == 1


def test_a_late_value_counts_if_its_step_was_trained_since(opened: Open) -> None:
    """The value of a step from before the failure says nothing about the slot now."""
    run = opened()
    reporter(run)(None, "saved")
    before = probe.newest(run)[0]
    run.fail(0, "no memory")
    run.set_eval(0, *before.ref, None, 1.0)
    assert probe.failures(run)[0] == 1
    reporter(run)(None, "saved too")
    since = probe.newest(run)[0]
    run.set_eval(0, *since.ref, None, 1.0)
    assert probe.failures(run)[0] == 0


def test_the_count_outlives_the_process(opened: Open) -> None:
    """It is in the journal."""
    for count in (1, 2, 3):
        run = opened()
        run.fail(1, f"number {count}")
        assert probe.failures(run) == [0, count, 0]
        assert probe.retired(run) == ({1} if count == 3 else set())
        run.close()
    run = opened()
    assert probe.retired(run) == {1}
    assert probe.statuses(run)[1].reason == "number 3"


@by_both
def test_two_processes_count_together(opened: Open, fail: Fail) -> None:
    """Each sees what the other has recorded, and a third that opens the run, too."""
    one, two = opened(), opened()
    for count, run in enumerate((one, two, one), 1):
        fail(run, 0, "no memory")
        probe.refresh(one)
        probe.refresh(two)
        three = opened()
        assert probe.failures(one) == probe.failures(two) == [count, 0, 0]
        assert probe.in_memory(one) == probe.in_memory(two) == probe.in_memory(three)
    assert probe.retired(two) == {0}


def test_a_finite_value_of_another_process_ends_the_count(opened: Open) -> None:
    """For example one that evaluates what the slot has saved."""
    mine, other = opened(Answers(decide=back)), opened(Answers(decide=back))
    for _ in range(5):
        diverge(mine)
        diverge(mine)
        mine.set_eval(0, generation(mine), 1, "saved", None)
        other.set_eval(0, generation(other), 1, None, 1.0)
        probe.refresh(mine)
        assert probe.failures(mine)[0] == 0
    for _ in range(3):
        diverge(mine)
    assert probe.retired(mine) == {0}


@pytest.mark.parametrize("most", [1, 2, 7, None])
def test_max_failures_is_how_many_retire_a_slot(opened: Open, most: int | None) -> None:
    """None: never."""
    run = opened(max_failures=most)
    for count in range(1, most or 50):
        run.fail(0, "no memory")
        assert probe.failures(run)[0] == count
    assert not probe.retired(run)
    if most is not None:
        run.fail(0, "no memory")
        assert probe.retired(run) == {0}


# Divergences.


def test_a_divergence_counts_when_its_slot_is_set_back(opened: Open) -> None:
    """Once, however many values of its generation were not finite."""
    run = opened()
    for _ in range(5):
        diverge(run)
        assert probe.failures(run)[0] == 0
    run.close()
    run = opened(Answers(decide=back))
    diverge(run)
    status = probe.statuses(run)[0]
    assert status.kind == "diverged"
    assert status.reason == "diverged: nan at step 6"
    assert probe.failures(run) == [1, 0, 0]


def test_a_divergence_counts_when_its_slot_is_resumed(opened: Open) -> None:
    """For example because the process was preempted after it."""
    run = opened()
    for count in (1, 2):
        diverge(run)
        assert poll(run) is not None
        assert probe.failures(run)[0] == count
        assert poll(run) is not None  # A second time sets nothing back.
        assert probe.failures(run)[0] == count


def test_a_diverged_trial_that_fails_counts_once(opened: Open) -> None:
    """The error is often the loop's way to say that it has diverged."""
    run = opened()
    diverge(run)
    run.fail(0, "not finite")
    assert probe.failures(run)[0] == 1
    assert probe.statuses(run)[0].reason == "not finite"


def test_a_finite_value_after_a_divergence_ends_the_count(opened: Open) -> None:
    """At any step: what had diverged was no proof either."""
    run = opened()
    reporter(run)(1.0, "saved")
    diverge(run)
    poll(run)
    assert probe.failures(run)[0] == 1
    reporter(run)(1.0, "saved again")
    assert probe.failures(run)[0] == 0


def test_a_divergence_counts_again_once_it_has_recovered(opened: Open) -> None:
    """Its generation has failed once more then."""
    run = opened()
    for _ in range(4):
        diverge(run)
        poll(run)
        assert probe.failures(run)[0] == 1
        reporter(run)(1.0, None)
        assert probe.failures(run)[0] == 0


def test_the_last_divergence_retires_a_slot_and_branches_nothing(opened: Open) -> None:
    """It stays where it is, with the hyperparameters that it had."""
    run = opened(Answers(decide=back))
    for count in (1, 2):
        diverge(run)
        assert generation(run).endswith(f"-{count}")
    diverge(run)
    assert probe.retired(run) == {0}
    assert generation(run).endswith("-2")
    assert run.newest(0).diverged


def test_under_a_fixed_schedule_a_divergence_is_no_failure(opened: Open) -> None:
    """Members of such a run may train on after a NaN."""
    run = opened(FixedSchedule({0: {"lr": 1.0}}))
    for _ in range(5):
        diverge(run)
        poll(run)
    assert probe.failures(run) == [0, 0, 0]
    run.fail(0, "an error is one")
    assert probe.failures(run) == [1, 0, 0]


def test_what_was_revived_may_fail_by_a_divergence_again(opened: Open) -> None:
    """Also in the generation in which it was retired."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch | Retire]:
        if report.checkpoint.value == 1.0:
            return {0: Retire("enough")}
        return back(report, view)

    run = opened(Answers(decide=decide))
    reporter(run)(1.0, "saved")
    run.revive(0)
    assert generation(run).endswith("-0")
    diverge(run)
    assert probe.failures(run) == [1, 0, 0]


class CopiesAtTheEnd(PopulationBasedTraining):
    """A slot that has failed copies the best one, which may wait at the barrier."""

    def failed(self, state: Any, failure: Failure, view: PopulationView) -> Any:
        """Return a branch to it, unless it is the slot itself."""
        best = view.graph.best()
        if best is None or failure.retired or best.worker_id == failure.worker_id:
            return state, {}
        meta_params = failure.checkpoint.meta_params
        return state, {failure.worker_id: Branch(best, meta_params, "from the best")}


def test_a_branch_to_the_barrier_after_a_failure_closes_the_round(
    tmp_path: pathlib.Path,
) -> None:
    """All would wait for the slot that has failed, and nobody would report again."""

    def policy() -> CopiesAtTheEnd:
        return CopiesAtTheEnd(lambda meta: meta + 1, 3, synchronous=True)

    run = PopulationController([1.0, 2.0, 3.0], policy(), tmp_path / "run")
    for worker_id in (0, 2):
        run.set_eval(worker_id, generation(run, worker_id), 3, "p", float(worker_id))
    assert [work.wait_at for work in run.workers] == [3, 3, 3]
    run.fail(1, "an error")
    reasons = [run.graph.root(name).reason for name in run.graph]
    assert reasons[3] == "from the best"
    assert "copied worker 0" in reasons[-1]
    assert [work.wait_at for work in run.workers] == [6, 6, 6]
    again = PopulationController([None] * 3, policy(), tmp_path / "run")
    assert [work.wait_at for work in again.workers] == [6, 6, 6]
    found = population.replay(tmp_path / "run", policy())
    assert found.decisions
    assert found.first_difference is None
    again.close()
    run.close()


def test_at_the_end_of_the_run_nothing_is_shown_again(opened: Open) -> None:
    """All wait there for ever, and the run is over."""
    shown: list[int] = []

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch | Retire]:
        shown.append(report.worker_id)
        return {}

    def answer(failure: Failure, view: PopulationView) -> Mapping[int, Branch | Retire]:
        best = view.graph.best()
        assert best is not None
        return {failure.worker_id: Branch(best, 2.0)}

    run = opened(Answers(answer, decide), stop=Stop(steps=3))
    for worker_id in (0, 2):
        run.set_eval(worker_id, generation(run, worker_id), 3, "p", float(worker_id))
    run.fail(1, "an error")
    assert shown == [0, 2]
    assert run.finished


# Events.


def test_events_of_a_failure_follow_its_record(tmp_path: pathlib.Path) -> None:
    """They come in order, once another process can read what has happened."""
    seen: list[tuple[str, int, str]] = []

    def happened(event: Event) -> None:
        other = PopulationController([1.0], Answers(), tmp_path / "run")
        kind = probe.statuses(other)[0].kind if probe.statuses(other) else ""
        other.close()
        seen.append((event.kind, event.worker_id, kind))

    options: Any = {"on_event": happened, "max_failures": 2}
    run = PopulationController([1.0], Answers(), tmp_path / "run", **options)
    run.fail(0, "a")
    with pytest.raises(RuntimeError):
        run.fail(0, "b")
    assert seen == [
        ("failed", 0, "failed"),
        ("failed", 0, "failed"),
        ("retired", 0, "failed"),
    ]
    run.close()


def test_a_divergence_is_told_as_a_failure_when_it_is_set_back(opened: Open) -> None:
    """After the report, and before the branch."""
    told: list[Event] = []
    run = opened(Answers(decide=back), on_event=told.append)
    diverge(run)
    assert [event.kind for event in told] == ["report", "diverged", "failed", "branch"]
    assert {event.worker_id for event in told} == {0}
    failed = told[2].checkpoint
    assert failed is not None
    assert failed.diverged


def test_damaged_params_are_told(opened: Open) -> None:
    """With the checkpoint whose params were rejected."""
    told: list[Event] = []
    run = opened(on_event=told.append)
    reporter(run)(1.0, "torn")
    with run.worker(0) as worker:
        worker.poll()
        worker.reject("it is torn")
        assert worker.poll()
        assert worker.params is None
    (event,) = (event for event in told if event.kind == "damaged")
    assert event.checkpoint is not None
    assert (event.worker_id, event.checkpoint.step) == (0, 1)
    assert probe.failures(run) == [0, 0, 0]


# Bad input.


@pytest.mark.parametrize("call", ["fail", "revive"])
@pytest.mark.parametrize("worker_id", [-1, 3, True, 1.0, "0", None])
def test_only_a_slot_can_fail_or_be_revived(
    opened: Open, call: str, worker_id: Any
) -> None:
    """Anything else is refused, and nothing changes."""
    run = opened()
    before = content(run)
    arguments = (worker_id, "no memory") if call == "fail" else (worker_id,)
    with pytest.raises((TypeError, ValueError), match="worker_id must be"):
        getattr(run, call)(*arguments)
    assert content(run) == before


@pytest.mark.parametrize("reason", [None, b"bytes", 3, ValueError("no")])
def test_a_reason_must_be_text(opened: Open, reason: Any) -> None:
    """The error names the type; the trial goes on."""
    run = opened()
    with run.worker(0) as worker:
        worker.poll()
        before = content(run)
        name = type(reason).__name__
        with pytest.raises(TypeError, match=f"reason must be a str, got {name}"):
            run.fail(0, reason)
        with pytest.raises(TypeError, match=f"reason must be a str, got {name}"):
            worker.fail(reason)
        assert content(run) == before
        worker.step += 1
        worker.report(1.0, "kept")
    assert run.newest(0).params == "kept"


@pytest.mark.parametrize(
    "reason",
    ["", "two\nlines", "\x00", "\ud800", "é🙂", "x" * 100_000, "🙂" * 100_000, "'; --"],
)
@by_both
def test_any_text_is_a_reason(opened: Open, fail: Fail, reason: str) -> None:
    """A long one is cut; another process reads what was recorded."""
    run = opened()
    trained(run)
    fail(run, 0, reason)
    kept = probe.statuses(run)[0].reason
    assert len(kept) <= 500
    if len(reason) < 500 and reason != "\ud800":
        assert kept == reason
    assert probe.newest(run)[0].reason == f"failed: {kept}"
    other = opened()
    assert probe.statuses(other)[0].reason == kept
    assert probe.newest(other)[0].reason == f"failed: {kept}"
    assert generation(other) == generation(run)


def test_a_closed_run_refuses_failures(opened: Open) -> None:
    """The error says that it is closed."""
    run = opened()
    run.close()
    with pytest.raises(JournalError, match="closed"):
        run.fail(0, "no memory")
    with pytest.raises(JournalError, match="closed"):
        run.revive(0)


@pytest.mark.parametrize("most", [0, -1, True, 1.5, "3", math.nan])
def test_max_failures_must_be_a_positive_int(opened: Open, most: Any) -> None:
    """The error names it."""
    with pytest.raises((TypeError, ValueError), match="max_failures must be"):
        opened(max_failures=most)


def test_a_failure_at_the_end_retires_nobody(opened: Open) -> None:
    """The slot had all its training: the run has ended well."""
    run = opened(stop=Stop(steps=1), max_failures=1)
    for worker_id in range(3):
        reporter(run, worker_id)(1.0, "saved")
        run.fail(worker_id, "the logger raised")
    assert run.finished
    assert probe.retired(run) == set()
    assert [member.status for member in run.members()] == ["at its end"] * 3


def test_a_policy_that_answers_each_failure_with_a_branch_ends(opened: Open) -> None:
    """Each trial reports a value before it fails, so that no failures are in a row."""

    def anew(failure: Failure, view: PopulationView) -> Mapping[int, Branch]:
        best = view.graph.best()
        return {failure.worker_id: Branch(best, {"lr": float(failure.checkpoint.row)})}

    run = opened(Answers(anew))
    reporter(run, 0)(0.5, "best")

    def fail_often() -> None:
        for _ in range(120):
            reporter(run, 0)(1.0, "as before")
            run.fail(0, "again")

    with pytest.raises(NoProgressError, match="diverged or failed 100 times"):
        fail_often()


def test_an_event_says_why(opened: Open) -> None:
    """A logger needs no second look."""
    told: list[Event] = []
    run = opened(max_failures=1, on_event=told.append)
    run.fail(2, "no memory")
    assert [(e.kind, e.worker_id, e.reason) for e in told] == [
        ("failed", 2, "no memory"),
        ("retired", 2, "no memory"),
    ]


def test_what_was_raised_from_another_error_is_judged_by_both() -> None:
    """A loop may wrap what a call of the library has raised."""
    marked = ValueError("of the mutator")
    mark_of_the_run(marked)
    for cause, is_one in (
        (marked, False),
        (ParamsError("damaged"), False),
        (OSError("a data set"), True),
    ):
        error = RuntimeError("wrapped")
        error.__cause__ = cause
        assert is_failure(error) is is_one
