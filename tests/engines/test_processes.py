"""The processes engine: one population, whatever process dies, and no leftovers."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from population import PopulationController, Worker
from population.core.branching import is_restart
from population.engines import processes, threads
from population.engines.processes import child
from population.mutators import FixedSchedule, WinnerTakeAllGenetic
from tests import probe
from tests.engines import process_children as children

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMEOUT_S = 60


def decisions(found: PopulationController) -> list[tuple[object, ...]]:
    """Every branch of a run; restarts, which decide nothing, are left out."""
    roots = [found.graph.root(generation_id) for generation_id in found.graph]
    return sorted(
        (root.worker_id, root.step, root.meta_params["h"])
        for root in roots
        if not is_restart(root.reason)
    )


@functools.cache
def expected(size: int) -> list[tuple[object, ...]]:
    """The decisions of a run whose workers take turns in one thread."""
    with tempfile.TemporaryDirectory() as log_dir:
        whole = children.opened(log_dir, size)
        threads.run(children.train, whole, 1, progress=False)
        found = decisions(whole)
        whole.close()
        return found


@contextlib.contextmanager
def program(
    train: str, log_dir: pathlib.Path, workers: int = 2, steps: int = 40
) -> Iterator[subprocess.Popen[str]]:
    """A program in its own process group, as from a terminal; ended after the test."""
    code = f"import sys, {children.__name__} as c; c.main(*sys.argv[1:])"
    arguments = [train, str(log_dir), str(workers), str(steps)]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as started:
        try:
            yield started
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)


def await_training(started: subprocess.Popen[str], workers: int) -> None:
    """Wait until this many processes train."""
    assert started.stdout is not None
    for _ in range(workers):
        assert started.stdout.readline() == "training\n"


@pytest.mark.parametrize(("size", "workers"), [(3, 3), (5, 2), (2, 3)])
def test_the_number_of_processes_changes_no_decision(
    size: int, workers: int, tmp_path: pathlib.Path
) -> None:
    """Any number of processes trains all slots to the end, and decides like one."""
    run = children.opened(tmp_path, size)
    summary = processes.run(children.train, run, workers, progress=False)
    assert run.finished
    assert [worker.step for worker in run.workers] == [40] * size
    assert decisions(run) == expected(size)
    assert (summary.num_workers, summary.died) == (workers, 0)
    assert not summary.interrupted
    assert 0 < summary.overhead < 1


def test_the_first_error_stops_all_and_names_its_worker(tmp_path: pathlib.Path) -> None:
    """The caller gets it with the traceback of its process; no process is left."""
    run = children.opened(tmp_path, 2, steps=children.FOREVER)
    with pytest.raises(ZeroDivisionError, match="on purpose") as caught:
        processes.run(children.fail, run, 3, progress=False)
    notes = "\n".join(caught.value.__notes__)
    assert "raised by worker 0 of the population" in notes
    assert "In process population-" in notes
    assert 'raise ZeroDivisionError("on purpose")' in notes
    assert multiprocessing.active_children() == []


def test_an_error_that_cannot_travel_arrives_in_words(tmp_path: pathlib.Path) -> None:
    """If pickle cannot restore it, it is a RuntimeError with the text."""
    run = children.opened(tmp_path, 1)
    with pytest.raises(RuntimeError, match=r"Stubborn: code 7 at the door") as caught:
        processes.run(children.fail_stubbornly, run, progress=False)
    assert "in fail_stubbornly" in "\n".join(caught.value.__notes__)


def test_a_killed_process_stops_nobody(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The others take its slot over; it is named, and no decision changes."""
    heard: list[Any] = []
    run = children.opened(tmp_path, 3, on_event=heard.append)
    with caplog.at_level(logging.WARNING, "population"):
        summary = processes.run(children.train_or_be_killed, run, progress=False)
    assert summary.died == 1
    assert [worker.step for worker in run.workers] == [40] * 3
    assert decisions(run) == expected(3)
    [warning] = [text for text in caplog.messages if "killed" in text]
    assert "population-" in warning
    assert "SIGKILL" in warning
    assert {"report", "branch", "failed"} <= {event.kind for event in heard}


def test_a_run_without_survivors_is_an_error(tmp_path: pathlib.Path) -> None:
    """No process is left to train, so the error says how each of them ended."""
    run = children.opened(tmp_path, 2)
    with pytest.raises(
        RuntimeError, match=r"All processes .* died: .*SIGKILL, .*run ag"
    ):
        processes.run(children.be_killed, run, progress=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_program_leaves_nobody_and_goes_on_later(
    number: signal.Signals, tmp_path: pathlib.Path
) -> None:
    """It continues after Ctrl-C, which all receive, or `kill -9` of the parent."""
    with program("say_and_train", tmp_path, steps=children.FOREVER) as started:
        await_training(started, 2)
        if number == signal.SIGINT:
            os.killpg(started.pid, number)
        else:
            started.kill()
        shown, errors = started.communicate(timeout=TIMEOUT_S)  # After all have ended.
    again = children.opened(tmp_path)
    already = max(worker.step for worker in again.workers)
    assert probe.statuses(again) == {}  # Who is interrupted has not failed.
    again.close()
    if number == signal.SIGINT:
        assert started.returncode == 0, errors
        assert "interrupted=True, died=0" in shown
        assert "every worker stops at its next step" in errors
    assert "Traceback" not in errors
    more = children.opened(tmp_path, steps=already + 20)
    processes.run(children.train, more, 2, progress=False)
    assert more.finished
    whole = children.opened(tmp_path / "whole", steps=already + 20)
    threads.run(children.train, whole, 1, progress=False)
    assert decisions(more) == decisions(whole)


def test_a_second_interrupt_does_not_wait(tmp_path: pathlib.Path) -> None:
    """Processes that do not look at `running` are ended, and so is the program."""
    with program("say_and_hang", tmp_path) as started:
        await_training(started, 2)
        assert started.stderr is not None
        os.killpg(started.pid, signal.SIGINT)
        assert "interrupted" in started.stderr.readline()
        os.killpg(started.pid, signal.SIGINT)
        _, errors = started.communicate(timeout=TIMEOUT_S)
    assert started.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert "was killed by" not in errors
    again = children.opened(tmp_path)
    assert probe.statuses(again) == {}  # The parent has ended the others itself.


SCRIPT = """
    import os, pathlib, signal, sys
    from population import PopulationController, Stop
    from population.engines import processes
    from population.mutators import FixedSchedule

    if __name__ == "__mp_main__":
        os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C, as early as can be.

    class Policy(FixedSchedule):
        pass

    def train(worker):
        while worker.running:
            worker.poll()
            if worker.running:  # Another process may have ended the run.
                worker.step += 1
                worker.report(1.0, worker.save_to)

    def main():
        run = PopulationController(
            [{"h": 0.0}] * 2, Policy({0: {"h": 0.0}}), sys.argv[1], stop=Stop(steps=5)
        )
        print(processes.run(train, run, progress=False))
        assert "jax" not in sys.modules
"""


def script(folder: pathlib.Path, end: str) -> subprocess.CompletedProcess[str]:
    """Run the script with this last line."""
    file = folder / "script.py"
    file.write_text(f"{textwrap.dedent(SCRIPT)}\n{end}\n")
    return subprocess.run(
        [sys.executable, file, folder / "run"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_a_script_trains_with_what_it_defines(tmp_path: pathlib.Path) -> None:
    """Its policy and loop are sent, an early Ctrl-C is ignored, JAX is not loaded."""
    done = script(tmp_path, 'if __name__ == "__main__": main()')
    assert "died=0" in done.stdout, done.stderr
    assert done.stderr == ""


def test_a_script_without_its_guard_is_told(tmp_path: pathlib.Path) -> None:
    """Each process imports the script; if that starts processes, it is refused."""
    done = script(tmp_path, "main()")
    assert "All processes of the population died" in done.stderr
    assert 'under `if __name__ == "__main__":`' in done.stderr


def test_what_is_typed_in_is_refused(tmp_path: pathlib.Path) -> None:
    """No process can import a notebook; the message advises a file."""
    code = textwrap.dedent(SCRIPT) + "\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert "TypeError: What travels to a process must be defined in a module" in (
        done.stderr
    )


class Locked:
    """A training function that holds an object which pickle refuses."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, worker: Worker) -> None:
        """Train."""


@pytest.mark.parametrize(
    ("train", "mutate", "named"),
    [
        (lambda worker: None, children.mutate, r"train must .* got <function <lambda>"),
        (children.train, lambda meta, rng: meta, r"mutator\.mutate_fn must .*<lambda>"),
        (Locked(), children.mutate, r"train\.lock must .*'_thread.lock'"),
    ],
)
def test_what_cannot_travel_is_named_before_anything_starts(
    train: Callable[[Worker], None],
    mutate: Any,
    named: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For a lambda or a lock, a TypeError names it and says what to do."""
    monkeypatch.setattr(processes, "ChildProcess", None)
    run = PopulationController(
        [{"h": 1.0}], WinnerTakeAllGenetic(mutate, steps_per_exploit=5), tmp_path
    )
    with pytest.raises(TypeError, match=named) as caught:
        processes.run(train, run)
    assert "Define functions and classes at the top of a module" in str(caught.value)


def test_a_run_in_memory_is_refused() -> None:
    """Processes need a run folder to share."""
    run = PopulationController([{"h": 0.0}], FixedSchedule({0: {"h": 0.0}}))
    with pytest.raises(ValueError, match=r"need a run folder .* Give it log_dir="):
        processes.run(children.train, run)


@pytest.mark.parametrize("number", [0, -1, 1.5, True])
def test_a_bad_number_of_processes_is_refused(
    number: Any, tmp_path: pathlib.Path
) -> None:
    """The message says what is needed and what was given."""
    run = children.opened(tmp_path)
    with pytest.raises(ValueError, match=f"positive int, got {number}"):
        processes.run(children.train, run, number)


def test_the_environment_is_right_before_anything_is_imported(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process has its GPU before it imports the user's module."""
    traces = tmp_path / "traces"
    traces.mkdir()
    monkeypatch.setenv(children.TRACES, str(traces))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.delenv("XLA_CLIENT_MEM_FRACTION", raising=False)
    before = dict(os.environ)
    run = children.opened(tmp_path / "run", 2)
    processes.run(
        children.train, run, gpus_per_worker=1, memory_fraction=0.5, progress=False
    )
    assert dict(os.environ) == before
    found = [json.loads(file.read_text()) for file in traces.iterdir()]
    assert {trace["CUDA_VISIBLE_DEVICES"] for trace in found} == {"4", "7"}
    assert {trace["XLA_PYTHON_CLIENT_MEM_FRACTION"] for trace in found} == {"0.5"}
    assert {trace["had jax"] for trace in found} == {"False"}


def test_a_process_notices_that_it_is_an_orphan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even if another process holds its parent's end of the pipe, it is stopped."""
    monkeypatch.setattr(child, "_LOOK_AGAIN_S", 0.001)
    (orders, held), (_, news) = multiprocessing.Pipe(False), multiprocessing.Pipe(False)
    process = child._Child(orders, news)
    process.listen(parent=os.getpid())  # A process that is not the parent of this one.
    assert process._stopped.is_set()
    assert not held.closed
    process.tell("nobody reads this")


def test_events_of_the_processes_reach_the_caller(tmp_path: pathlib.Path) -> None:
    """`on_event` is called here with what is reported and decided there."""
    heard: list[Any] = []
    run = children.opened(tmp_path, 2, steps=20, on_event=heard.append)
    processes.run(children.train, run, progress=False)
    kinds = [event.kind for event in heard]
    assert kinds.count("report") == 2 * 4
    assert kinds.count("branch") == 2 * 2
    assert kinds.count("finished") == 1


def test_bars_are_shown(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user sees how far all are, although other processes train them."""
    processes.run(children.train, children.opened(tmp_path, 2), 1, progress=True)
    assert "2 workers  40/40 steps" in capsys.readouterr().out
