"""If a process stalls inside a transaction, others wait for it and name it."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from population import JournalError, PopulationController
from population.mutators import WinnerTakeAllGenetic
from tests import probe
from tests.helpers import Scripted, poll, reporter

WITHIN: list[Callable[[], object]] = []  # Called in the middle of decisions.
CHILD = """
import os, signal, sys
from tests import test_stalls
within = test_stalls.WITHIN
within.append(lambda: within.clear() or os.kill(os.getpid(), signal.SIGSTOP))
controller = test_stalls.opened(sys.argv[1])
for worker_id in range(2):
    reporter(controller, worker_id)(1.0)
controller.close()
"""


def mutate(meta_params: float) -> float:
    """Change nothing; but the decision may take long."""
    for call in WITHIN:
        call()
    return meta_params


def opened(log_dir: str | os.PathLike[str]) -> PopulationController:
    """Two workers that compare each report."""
    return PopulationController([1.0, 2.0], WinnerTakeAllGenetic(mutate, 1), log_dir)


@pytest.fixture(autouse=True)
def only_one_test() -> Iterator[None]:
    """One test's function within decisions is not called in another test."""
    yield
    WITHIN.clear()


@contextlib.contextmanager
def stalled(log_dir: pathlib.Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has stopped itself in the middle of a decision."""
    code = f"from tests.helpers import reporter{CHILD}"
    with subprocess.Popen([sys.executable, "-c", code, str(log_dir)]) as child:
        try:
            _, status = os.waitpid(child.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            yield child
        finally:
            child.kill()


class Watch:
    """Lets the test see each look at the lock, and lets time pass at each."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = 0
        self.then: Any = None

    def monotonic(self) -> float:
        """The time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Half a minute passes, instead of the real pause."""
        del seconds
        self.now += 31.0
        self.looks += 1
        if self.looks == 40:
            self.then()


def test_a_stopped_process_is_waited_for_and_named(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However long it takes, its report and this one are both recorded."""
    opened(tmp_path).close()
    watch = Watch()
    probe.wait_for_lock_by(monkeypatch, watch)
    with stalled(tmp_path) as child:

        def go_on() -> None:
            child.send_signal(signal.SIGCONT)
            assert child.wait() == 0

        watch.then = go_on
        controller = opened(tmp_path)
    assert probe.reports(controller) == 2
    assert watch.looks >= 40
    said = [r.getMessage() for r in caplog.records if "has waited" in r.getMessage()]
    assert 3 <= len(said) <= 8  # After 30 s, 60 s, 120 s ...
    assert f"process {child.pid} (" in said[0]
    assert "stopped" in said[0]
    controller.close()


def test_a_killed_process_is_not_waited_for(tmp_path: pathlib.Path) -> None:
    """The system releases its lock; nothing of its transaction is recorded."""
    opened(tmp_path).close()
    with stalled(tmp_path) as child:
        child.kill()
        controller = opened(tmp_path)
    assert probe.reports(controller) == 1
    controller.close()


def test_polls_do_not_wait_for_a_stalled_process(tmp_path: pathlib.Path) -> None:
    """A loop without new work trains further."""
    controller = opened(tmp_path)
    at = controller.workers[0]
    with stalled(tmp_path):
        assert poll(controller, 0, at.generation_id) is None
    controller.close()


def test_a_mutator_that_writes_to_its_own_run_is_told_so(
    tmp_path: pathlib.Path,
) -> None:
    """Otherwise it would wait for itself."""
    controller, same = opened(tmp_path), opened(tmp_path)
    other = PopulationController([1.0], Scripted(), tmp_path / "other")
    reporter(controller, 0)(3.0)
    WITHIN.append(lambda: reporter(other)(1.0))  # Another run has another lock.
    WITHIN.append(lambda: reporter(same, 0)(2.0))
    with pytest.raises(JournalError, match="by this very thread"):
        reporter(controller, 1)(3.0)
    assert other.workers[0].step == 1
    WITHIN.clear()
    reporter(same, 1)(4.0)
    assert controller.workers[1].step == 1
    for run in (controller, same, other):
        run.close()


def test_another_thread_of_this_process_is_waited_for(tmp_path: pathlib.Path) -> None:
    """Two controllers of one process alternate like two processes."""
    first, second = opened(tmp_path), opened(tmp_path)
    inside, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        assert go_on.wait(60)

    WITHIN.append(wait)
    reporter(first, 0)(1.0)
    thread = threading.Thread(target=reporter(first, 1), args=[1.0])
    thread.start()
    assert inside.wait(60)
    late = threading.Thread(target=reporter(second, 0), args=[1.0])
    late.start()
    go_on.set()
    thread.join(60)
    late.join(60)
    assert probe.reports(second) == 3
    first.close()
    second.close()


def test_a_slow_decision_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It names the mutator: all others wait for the decision."""

    class Slow:
        now = 0.0

        @classmethod
        def perf_counter(cls) -> float:
            """Each look is a second and a half later."""
            cls.now += 1.5
            return cls.now

    probe.time_decisions_by(monkeypatch, Slow)
    controller = PopulationController([1.0], Scripted())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            reporter(controller)(1.0)
    assert [r.getMessage() for r in caplog.records] == [
        "Scripted took 1.5 s for a decision, during which no worker can report. "
        "Keep what is slow out of mutate_fn."
    ]
