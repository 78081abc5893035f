"""Trials that fail, by threads and by processes: they end alone, and are counted."""

from __future__ import annotations

import logging
import math
import multiprocessing
import pathlib
from collections.abc import Mapping
from typing import Any

import pytest

import population
from population import (
    Branch,
    ParamsError,
    PopulationController,
    PopulationView,
    Report,
    Retire,
    Stop,
    Worker,
)
from population.base import Failure, NoProgressError
from population.engines import processes, threads
from population.engines.summary import Summary
from tests import probe
from tests.engines import failing
from tests.engines.failing import Unreliable
from tests.helpers import Scripted

ENGINES = {"threads": threads.run, "processes": processes.run}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Any:
    """The engine of threads, then that of processes."""
    return ENGINES[request.param]


def statuses(run: PopulationController) -> dict[int, tuple[str, str, int, bool]]:
    """Kind, reason, failures in a row and whether it is retired, by slot."""
    return {
        w: (s.kind, s.reason, s.failures, bool(s.retired))
        for w, s in sorted(probe.statuses(run).items())
    }


def retired(run: PopulationController) -> set[int]:
    """The slots that are retired."""
    return {w for w, (*_, is_retired) in statuses(run).items() if is_retired}


def check_ends(
    run: PopulationController, summary: Summary, train: Unreliable, most: int
) -> None:
    """Check the end of a run of unreliable trials against what must happen."""
    size = len(run.workers)
    expected, trained = train.expected(size, most), train.trained()
    assert run.finished
    assert retired(run) == expected.retired
    others = set(range(size)) - expected.retired
    assert {w for w in range(size) if run.newest(w).step == failing.STEPS} == others
    assert summary.failures == expected.failures
    once = {place: n for place, n in trained.items() if place not in expected.repeated}
    assert set(once.values()) == {1}
    assert trained == expected.trained


def check_replays(log_dir: pathlib.Path) -> None:
    """Check that the decisions of a run can be made again."""
    found = population.replay(log_dir, failing.policy())
    assert found.first_difference is None, found


@pytest.mark.parametrize("workers", [1, 4])
def test_failing_threads_neither_stop_nor_starve_others(
    workers: int, tmp_path: pathlib.Path
) -> None:
    """With 12 failures allowed, those slots alone are retired that always fail."""
    train = Unreliable(tmp_path / "trained")
    run = failing.opened(tmp_path / "run", 100, 12)
    summary = threads.run(train, run, workers, on_error="fail", progress=False)
    check_ends(run, summary, train, 12)
    assert retired(run) == {0, 20, 40, 60, 80}
    assert statuses(run)[20] == (
        "failed",
        "FloatingPointError: slot 20 fails",
        12,
        True,
    )
    run.close()
    check_replays(tmp_path / "run")


def killed(tmp_path: pathlib.Path, size: int, most: int, workers: int) -> None:
    """Train with processes that are killed in each failure, and check the end."""
    train = Unreliable(tmp_path / "trained", kills=True)
    run = failing.opened(tmp_path / "run", size, most)
    summary = processes.run(train, run, workers, on_error="fail", progress=False)
    check_ends(run, summary, train, most)
    assert summary.died == summary.failures
    assert multiprocessing.active_children() == []
    assert {s[1] for w, s in statuses(run).items() if w in retired(run)} == {
        "its process was killed by SIGKILL"
    }
    run.close()
    check_replays(tmp_path / "run")


def test_processes_that_are_killed_neither_stop_nor_starve_others(
    tmp_path: pathlib.Path,
) -> None:
    """Others replace them, and the slot that always kills is retired."""
    killed(tmp_path, 10, 3, 2)


@pytest.mark.slow
def test_a_hundred_processes_that_are_killed(tmp_path: pathlib.Path) -> None:
    """The same at length: a hundred slots, of which five always kill."""
    killed(tmp_path, 100, 12, 4)


def test_the_expected_share_is_retired(tmp_path: pathlib.Path) -> None:
    """A slot is retired if three starts in a row fail: with a probability of 0.3 ** 3.

    Slots that always fail are left out.
    """
    size = 600
    train = Unreliable(tmp_path / "trained", longest=1)
    run = failing.opened(None, size, 3, steps=1)
    threads.run(train, run, 4, on_error="fail", progress=False)
    assert run.finished
    always = set(range(0, size, failing.ALWAYS))
    assert always <= retired(run)
    found, share = len(retired(run) - always), 0.3**3
    mean = (size - len(always)) * share
    assert abs(found - mean) < 3 * math.sqrt(mean * (1 - share))


def test_free_slots_are_handed_out_by_failures_then_by_steps() -> None:
    """A slot that has failed is tried again after the others, not at once."""
    run, order = failing.opened(None, 4, 3), []

    def train(worker: Worker) -> None:
        while worker.running:
            if worker.poll():
                order.append(worker.worker_id)
                if worker.worker_id in (0, 2) and worker.generation_id.endswith("-0"):
                    raise ValueError("on purpose")
            if worker.running:
                worker.step += 1
                worker.report(1.0, "weights")

    threads.run(train, run, 1, on_error="fail", progress=False)
    assert order == [0, 1, 2, 3, 0, 2]
    assert [w.step for w in run.workers] == [failing.STEPS] * 4


def test_a_loop_may_fail_its_trials_itself(tmp_path: pathlib.Path) -> None:
    """After `worker.fail` the next poll returns another slot, or the same one again."""
    run, order = failing.opened(tmp_path, 3, 2), []

    def train(worker: Worker) -> None:
        while worker.running:
            if worker.poll():
                order.append((worker.worker_id, worker.step))
            if not worker.running:
                break
            worker.step += 1
            if worker.worker_id == 1:
                worker.fail("the loss is 1e30")
                continue
            worker.report(1.0, worker.save_to)

    summary = threads.run(train, run, 1, progress=False)
    assert order == [(0, 0), (1, 0), (2, 0), (1, 0)]
    assert statuses(run) == {1: ("failed", "the loss is 1e30", 2, True)}
    assert summary.failures == 2
    assert [w.step for w in run.workers] == [failing.STEPS, 0, failing.STEPS]
    run.close()
    check_replays(tmp_path)


def test_a_loop_may_fail_its_trial_and_raise() -> None:
    """That is one failure, not two."""
    run = failing.opened(None, 1, 2)

    def train(worker: Worker) -> None:
        if worker.generation_id.endswith("-0"):
            worker.fail("known")
            raise ValueError("on purpose")
        failing.train(worker)

    summary = threads.run(train, run, on_error="fail", progress=False)
    assert summary.failures == 1
    assert run.newest(0).step == failing.STEPS


def test_an_exception_without_a_trial_is_raised() -> None:
    """After the loop has given its slot back, there is no trial that could fail."""
    run = failing.opened(None, 1, None)

    def train(worker: Worker) -> None:
        with worker:
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        threads.run(train, run, on_error="fail", progress=False)
    assert statuses(run) == {}


def test_an_exception_of_the_user_is_a_failure_only_if_the_caller_says_so(
    engine: Any, tmp_path: pathlib.Path
) -> None:
    """By default it ends the run, and nothing has failed."""
    run = failing.opened(tmp_path, 2, 3)
    with pytest.raises(ZeroDivisionError):
        engine(failing.raise_always, run, 1, progress=False)
    assert statuses(run) == {}


def test_a_run_whose_slots_have_all_failed_ends_with_the_reasons(
    engine: Any, tmp_path: pathlib.Path
) -> None:
    """Also if it is opened again; and once the cause is mended, it goes on."""
    run = failing.opened(tmp_path, 2, 2)
    with pytest.raises(NoProgressError, match="ZeroDivisionError: no number 0") as one:
        engine(failing.raise_always, run, 2, on_error="fail", progress=False)
    assert "no number 1" in str(one.value)
    assert statuses(run) == {
        w: ("failed", f"ZeroDivisionError: no number {w}", 2, True) for w in (0, 1)
    }
    run.close()
    again = failing.opened(tmp_path, 2, 2)
    for on_error in ("raise", "fail"):
        with pytest.raises(NoProgressError, match="ZeroDivisionError: no number 0"):
            engine(failing.train, again, 1, on_error=on_error, progress=False)
    again.revive(1)
    engine(failing.train, again, 1, progress=False)
    assert [w.step for w in again.workers] == [0, failing.STEPS]


def test_the_traceback_of_each_kind_is_logged_once(
    engine: Any, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of six failures at one place, one warning with the place."""
    run = failing.opened(tmp_path, 2, 3)
    with (
        caplog.at_level(logging.WARNING, "population"),
        pytest.raises(NoProgressError),
    ):
        engine(failing.raise_always, run, 2, on_error="fail", progress=False)
    [warning] = [text for text in caplog.messages if "Traceback" in text]
    assert "has failed: ZeroDivisionError: no number" in warning
    assert "in raise_always" in warning


@pytest.mark.parametrize("on_error", ["raise", "fail"])
def test_errors_of_the_library_are_raised(
    engine: Any, on_error: str, tmp_path: pathlib.Path
) -> None:
    """They say nothing of a trial."""
    run = failing.opened(tmp_path, 2, 3)
    with pytest.raises(ParamsError, match="on purpose"):
        engine(failing.raise_params_error, run, 2, on_error=on_error, progress=False)
    assert statuses(run) == {}


class FullDisk:
    """A params store on a disk that is full."""

    def save(self, name: str, tree: Any) -> str:
        """Fail."""
        raise OSError(28, "No space left on device")

    def load(self, path: str, like: Any = None) -> Any:
        """Nothing was saved."""

    def remove(self, path: str) -> None:
        """Nothing was saved."""


@pytest.mark.parametrize("on_error", ["raise", "fail"])
def test_errors_of_the_store_are_raised(on_error: str, tmp_path: pathlib.Path) -> None:
    """A full disk would make all members fail."""
    run = failing.opened(tmp_path, 2, 3, params=FullDisk())

    def train(worker: Worker) -> None:
        worker.poll()
        worker.step += 1
        worker.report(1.0, {"w": 1.0})

    with pytest.raises(OSError, match="No space"):
        threads.run(train, run, on_error=on_error, progress=False)
    assert statuses(run) == {}


def test_an_os_error_of_the_user_is_a_failure() -> None:
    """For example one of a data loader."""
    run = failing.opened(None, 2, 3)

    def train(worker: Worker) -> None:
        if worker.generation_id.endswith("-0-0"):
            raise OSError("no data")
        failing.train(worker)

    threads.run(train, run, 1, on_error="fail", progress=False)
    assert statuses(run)[0][0] == "recovered"


@pytest.mark.parametrize("on_error", ["raise", "fail"])
def test_errors_of_the_mutator_are_raised(on_error: str) -> None:
    """Each further report would raise them again."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        raise ArithmeticError("on purpose")

    run = PopulationController([1.0], Scripted(decide), stop=Stop(steps=3))
    with pytest.raises(ArithmeticError, match="on purpose"):
        threads.run(failing.train, run, on_error=on_error, progress=False)
    assert statuses(run) == {}


class OfFailures(Scripted):
    """Decides after failures."""

    def __init__(self, worker_id: int | None) -> None:
        super().__init__()
        self.worker_id = worker_id

    def failed(
        self, state: None, failure: Failure, view: PopulationView
    ) -> tuple[None, Mapping[int, Branch | Retire]]:
        """Retire a slot, or fail too."""
        if self.worker_id is None:
            raise ArithmeticError("on purpose")
        return state, {self.worker_id: Retire("beaten")}


def test_errors_of_the_mutator_about_a_failure_are_raised() -> None:
    """The failure is not recorded then."""
    run = PopulationController([1.0], OfFailures(None), stop=Stop(steps=3))
    with pytest.raises(ArithmeticError, match="on purpose"):
        threads.run(failing.raise_always, run, on_error="fail", progress=False)
    assert statuses(run) == {}


def test_a_worker_whose_slot_is_retired_moves_on_at_its_next_poll() -> None:
    """Here to a slot that is free: no step of the retired one is trained any more."""
    run = PopulationController([1.0] * 3, OfFailures(0), stop=Stop(steps=4))
    with run.worker() as worker:
        assert worker.poll()
        assert worker.worker_id == 0
        run.fail(1, "on purpose")
        assert worker.poll()
        assert worker.worker_id == 2
    assert retired(run) == {0}


def test_threads_end_once_every_slot_is_retired() -> None:
    """Those that train, and those that wait for a slot, need no more steps."""
    run = PopulationController(
        [1.0] * 2, OfFailures(0), stop=Stop(steps=10**9), max_failures=1
    )

    def train(worker: Worker) -> None:
        if worker.worker_id == 1:
            raise ValueError("on purpose")
        while worker.running:
            worker.poll()

    summary = threads.run(train, run, 3, on_error="fail", progress=False)
    assert retired(run) == {0, 1}  # One of them by a decision: this is no error.
    assert summary.failures == 1


def test_an_interrupt_of_a_trial_is_no_failure() -> None:
    """`KeyboardInterrupt` and `SystemExit` end the run, as without the argument."""
    run = failing.opened(None, 1, 3)

    def train(worker: Worker) -> None:
        raise SystemExit(2)

    with pytest.raises(SystemExit):
        threads.run(train, run, on_error="fail", progress=False)
    assert statuses(run) == {}


@pytest.mark.parametrize("on_error", ["raise", "fail"])
def test_a_loop_that_returns_early_is_not_called_again(on_error: str) -> None:
    """With either argument its thread ends, although the run has not."""
    calls = 0

    def train(worker: Worker) -> None:
        nonlocal calls
        calls += 1

    run = failing.opened(None, 1, 3)
    threads.run(train, run, on_error=on_error, progress=False)
    assert calls == 1
    assert not run.finished


@pytest.mark.parametrize("on_error", ["ignore", None, True])
def test_an_unknown_answer_to_errors_is_refused(
    engine: Any, on_error: Any, tmp_path: pathlib.Path
) -> None:
    """The message says what is needed and what was given."""
    run = failing.opened(tmp_path, 1, 3)
    with pytest.raises(ValueError, match=f'"raise" or "fail", got {on_error!r}'):
        engine(failing.train, run, on_error=on_error)


@pytest.mark.parametrize("on_error", ["raise", "fail"])
def test_the_death_of_a_process_is_a_failure_of_its_slot(
    on_error: str, tmp_path: pathlib.Path
) -> None:
    """In each mode; then the slot is trained to the end, and has recovered."""
    heard: list[Any] = []
    run = failing.opened(tmp_path, 3, 3, on_event=heard.append)
    summary = processes.run(
        failing.be_killed, run, 2, on_error=on_error, progress=False
    )
    assert (summary.died, summary.failures) == (1, 1)
    assert statuses(run) == {0: ("recovered", "", 0, False)}
    assert [event.worker_id for event in heard if event.kind == "failed"] == [0]
    assert [w.step for w in run.workers] == [failing.STEPS] * 3
    reasons = {run.graph.root(generation).reason for generation in run.graph}
    assert "failed: its process was killed by SIGKILL" in reasons


def test_deaths_retire_a_slot_and_end_a_run(tmp_path: pathlib.Path) -> None:
    """With one failure allowed, a population of one has then failed."""
    run = failing.opened(tmp_path, 1, 1)
    with pytest.raises(NoProgressError, match="worker 0: its process was killed by"):
        processes.run(failing.be_killed, run, progress=False)
    assert retired(run) == {0}


def test_a_process_that_dies_without_a_slot_is_no_failure(
    tmp_path: pathlib.Path,
) -> None:
    """It is replaced nevertheless, as it had trained."""
    run = failing.opened(tmp_path, 1, 1)
    summary = processes.run(
        failing.give_back_and_die, run, on_error="fail", progress=False
    )
    assert (summary.died, summary.failures) == (1, 0)
    assert run.newest(0).step == failing.STEPS


@pytest.mark.parametrize("on_error", ["raise", "fail"])
def test_processes_that_die_before_they_have_a_slot_are_not_replaced(
    on_error: str, tmp_path: pathlib.Path
) -> None:
    """Else a program that cannot be imported would be started for ever."""
    run = failing.opened(tmp_path, 2, None)
    with pytest.raises(RuntimeError, match=r"All processes .* died: .*exit code 3"):
        processes.run(failing.DiesOnArrival(), run, on_error=on_error, progress=False)
    assert statuses(run) == {}
    assert multiprocessing.active_children() == []
