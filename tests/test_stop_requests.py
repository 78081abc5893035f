"""A person stops a run from another process: its open sessions end; it can go on."""

from __future__ import annotations

import contextlib
import pathlib
import threading
from typing import Any

import numpy as np
import pytest

import population
from population import Event, JournalError, PopulationController, Stop
from population.engines import processes, threads
from population.mutators import PopulationBasedTraining
from population.offline.stopping import stop
from population.offline.verifying import verify
from population.space import LogUniform, Perturb
from tests.engines import process_children as children
from tests.engines.stacked import problems

SPACE = {"lr": LogUniform(1e-3, 1.0)}
FOREVER = 10**9


def policy() -> PopulationBasedTraining:
    """Members that wait for each other."""
    return PopulationBasedTraining(Perturb(SPACE), 5, synchronous=True)


def opened(folder: pathlib.Path, **options: Any) -> PopulationController:
    """A run of four members without an end."""
    options = {"stop": Stop(steps=FOREVER), **options}
    return PopulationController.from_space(SPACE, 4, policy(), folder, **options)


def train(worker: Any) -> None:
    """Train a member until the run has ended."""
    while worker.running:
        if worker.poll():
            worker.restore(lambda _: {"w": np.zeros(1)})
        worker.step += 1
        worker.report(worker.meta_params["lr"], {"w": np.ones(1)})


class After:
    """Stops a run after so many reports of its process, as another process would."""

    def __init__(self, folder: pathlib.Path, reports: int) -> None:
        self._folder, self._left = folder, reports
        self._lock = threading.Lock()
        self.kinds: list[str] = []

    def __call__(self, event: Event) -> None:
        """Count the event."""
        with self._lock:
            self.kinds.append(event.kind)
            self._left -= event.kind == "report"
            is_due = self._left == 0 and event.kind == "report"
        if is_due:
            stop(self._folder, "by ann@here: too hot")


def await_step(run: PopulationController, step: int) -> None:
    """Wait until the first member has reached a step."""
    while run.workers[0].step < step:
        with run.open_run.lock.lock:
            run.open_run.lock.changed.wait(1.0)


def check_stopped(folder: pathlib.Path) -> None:
    """The run says who has stopped it, and is whole."""
    status = population.read(folder).status
    assert status.finished
    assert status.reason == "stopped by ann@here: too hot"
    assert status.step < 10_000
    assert not verify(folder).problems


def test_threads_end(tmp_path: pathlib.Path) -> None:
    """Also those that wait for a decision."""
    after = After(tmp_path, 42)
    run = opened(tmp_path, on_event=after)
    threads.run(train, run, progress=False)
    assert run.finished
    run.close()
    assert after.kinds.count("finished") == 1
    check_stopped(tmp_path)


def test_a_stack_ends_and_saves(tmp_path: pathlib.Path) -> None:
    """Its states are saved as at any end: it goes on from there."""
    run = problems.controller(
        steps=FOREVER, log_dir=tmp_path, on_event=After(tmp_path, 42)
    )
    problems.run(run, problems.PLAIN)
    assert run.finished
    saved = {worker.step for worker in run.workers if worker.params is not None}
    assert saved == {population.read(tmp_path).status.step}
    run.close()
    check_stopped(tmp_path)


def test_processes_end(tmp_path: pathlib.Path) -> None:
    """No child is begun again."""
    run = children.opened(
        tmp_path, 3, steps=children.FOREVER, on_event=After(tmp_path, 20)
    )
    summary = processes.run(children.train, run, progress=False)
    assert run.finished
    assert summary.died == 0
    run.close()
    check_stopped(tmp_path)


def test_a_worker_that_waits_is_woken(tmp_path: pathlib.Path) -> None:
    """It waits for others that will never come."""
    run = opened(tmp_path)
    with run.worker(0) as worker:
        thread = threading.Thread(target=train, args=(worker,))
        thread.start()
        await_step(run, 5)
        stop(tmp_path, "by ann@here: too hot")
        thread.join(30)
        assert not thread.is_alive()
    run.close()
    check_stopped(tmp_path)


def test_a_raw_loop_sees_that_the_run_has_finished(tmp_path: pathlib.Path) -> None:
    """What it reports later is recorded as ever."""
    with contextlib.closing(opened(tmp_path)) as run:
        assert not run.finished
        stop(tmp_path, "by ann@here: too hot")
        assert run.finished
        slot = run.workers[0]
        run.set_eval(0, slot.generation_id, 1, None, 0.5)
        assert run.best() is not None
    check_stopped(tmp_path)


def test_all_open_sessions_end_and_a_later_one_goes_on(tmp_path: pathlib.Path) -> None:
    """However often it is stopped; each request ends only those before it."""
    for number in range(3):
        first, second = opened(tmp_path), opened(tmp_path)
        assert not first.finished
        stop(tmp_path, f"by ann@here: {number}")
        third = opened(tmp_path)
        assert first.finished
        assert second.finished
        assert not third.finished
        for run in (first, second, third):
            run.close()
    assert not population.read(tmp_path).status.finished


def test_hosts_whose_clocks_differ_agree_on_whether_a_run_was_stopped(
    tmp_path: pathlib.Path,
) -> None:
    """What was recorded between an opening and a request says which came first."""
    with contextlib.closing(opened(tmp_path, clock=lambda: 2000.0)) as run:
        run.set_eval(0, run.workers[0].generation_id, 1, None, 0.5)
        stop(tmp_path, "by ann@there: too hot", clock=lambda: 1000.0)
        assert run.finished
        assert population.read(tmp_path).status.finished


def test_decisions_are_those_of_a_run_that_was_never_stopped(
    tmp_path: pathlib.Path,
) -> None:
    """Replay and fork do not mind the requests between the reports."""
    runs = [tmp_path / "stopped", tmp_path / "not"]
    for folder in runs:
        run = opened(folder)
        for step in range(1, 13):
            if folder == runs[0] and step in (5, 6, 11):
                stop(folder, "why not?")
                run.close()
                run = opened(folder)
            for worker_id, slot in enumerate(run.workers):
                if slot.wait_at is not None and slot.step >= slot.wait_at:
                    continue
                place = worker_id, slot.generation_id, slot.step + 1
                run.set_eval(*place, "w", worker_id + slot.meta_params["lr"])
            if folder == runs[0] and step in (4, 5, 12):
                stop(folder, "again")
        assert [s.meta_params for s in run.workers] != [{}] * 4
        run.close()
    decided = [
        [(c.step, c.value, c.meta_params) for c in population.read(folder)]
        for folder in runs
    ]
    assert decided[0] == decided[1]
    found = population.replay(runs[0], policy())
    assert found.first_difference is None
    assert len(found.decisions) > 1
    forked = population.fork(runs[0], tmp_path / "fork", mutator=policy())
    assert not forked.finished
    forked.close()
    assert population.replay(tmp_path / "fork", policy()).first_difference is None


def test_there_is_nothing_to_stop_where_nobody_trains(tmp_path: pathlib.Path) -> None:
    """Of a run that was closed or killed: it is not finished, and it can go on."""
    opened(tmp_path).close()
    before = (tmp_path / "journal.sqlite").read_bytes()
    assert not stop(tmp_path, "by ann@here: too hot")
    assert (tmp_path / "journal.sqlite").read_bytes() == before
    assert not population.read(tmp_path).status.finished


def test_who_stopped_it_first_is_told(tmp_path: pathlib.Path) -> None:
    """A second request does not hide the first."""
    with contextlib.closing(opened(tmp_path)) as run:
        assert stop(tmp_path, "by ann@here: too hot")
        assert stop(tmp_path, "by bob@there")
        assert run.finished
    check_stopped(tmp_path)


def test_a_wrong_request_changes_nothing(tmp_path: pathlib.Path) -> None:
    """No run, no text."""
    with pytest.raises(JournalError, match="must be the log_dir of a run"):
        stop(tmp_path, "x")
    assert not list(tmp_path.iterdir())
    opened(tmp_path).close()
    with pytest.raises(TypeError, match="reason must be a text"):
        stop(tmp_path, None)  # type: ignore[arg-type]
    assert not population.read(tmp_path).status.finished
