"""Full disks, folders that cannot be written, foreign locks, odd clocks, and NaN.

Each is a clear error or correct progress; no acknowledged report is lost, and
when the fault is gone the same controller continues, and so does a new one.
"""

from __future__ import annotations

import errno
import math
import pathlib
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from population import JournalError, Mutator, PopulationController, Start
from population.mutators import PopulationBasedTraining, WinnerTakeAllGenetic
from population.params import FileParams
from tests import probe
from tests.helpers import (
    Clock,
    Scripted,
    assert_is_a_forest,
    everything,
    generation,
    told,
    work,
)

ROOT = pathlib.Path(__file__).parent.parent


def mutate(h: float, rng: np.random.Generator) -> float:
    """A step in a random direction."""
    return float(h + rng.normal())


def opened(log_dir: pathlib.Path, **options: Any) -> PopulationController:
    """A run of two slots."""
    mutator = WinnerTakeAllGenetic(mutate, 3)
    return PopulationController([1.0, 2.0], mutator, log_dir, **options)


def tick(controller: PopulationController, count: int = 1) -> None:
    """Always train the slot with the fewest steps, this many times."""
    for _ in range(count):
        workers = controller.workers
        worker_id = min(range(len(workers)), key=lambda w: workers[w].step)
        at, h = workers[worker_id], workers[worker_id].meta_params
        step = at.step + 1
        params, value = f"{worker_id}/{step}", abs(h) + 1 / step
        controller.set_eval(worker_id, at.generation_id, step, params, value)


@pytest.fixture
def uninterrupted(tmp_path: pathlib.Path) -> list[tuple[Any, ...]]:
    """The history of a run of 30 ticks without a fault."""
    controller = opened(tmp_path / "whole")
    tick(controller, 30)
    return told(controller)


def check_recovery(
    controller: PopulationController,
    log_dir: pathlib.Path,
    before: tuple[Any, ...],
    uninterrupted: list[tuple[Any, ...]],
) -> None:
    """After the fault nothing is lost, and both controllers continue as without it."""
    assert everything(controller) == before
    recorded = probe.reports(controller)
    tick(controller, (30 - recorded) // 2)
    again = opened(log_dir)
    assert told(again) == told(controller)
    tick(again, 30 - probe.reports(again))
    assert told(controller) == told(again) == uninterrupted
    assert_is_a_forest(controller.graph)


def test_a_full_disk_loses_nothing_and_is_an_error_that_says_so(
    tmp_path: pathlib.Path, uninterrupted: list[tuple[Any, ...]]
) -> None:
    """It is SQLite's own error; after some space was freed the run continues."""
    controller = opened(tmp_path / "run")
    tick(controller, 7)
    pages = probe.connection(controller).execute("PRAGMA page_count").fetchone()[0]
    probe.connection(controller).execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(JournalError, match=r"is full.*Free some space and go on"):
        tick(controller, 200)
    before = everything(controller)
    for _ in range(3):
        with pytest.raises(JournalError, match="is full"):
            tick(controller)
    probe.connection(controller).execute("PRAGMA max_page_count=1000000")
    check_recovery(controller, tmp_path / "run", before, uninterrupted)


LIMITED = """
import resource, signal, sys
from population import JournalError
from tests import probe, test_faults
controller = test_faults.opened(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
test_faults.tick(controller, 5)
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, unlimited[1]))
try:
    while True:
        test_faults.tick(controller)
        print(probe.reports(controller), flush=True)
except JournalError as error:
    print(error, file=sys.stderr)
before = test_faults.everything(controller)
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
assert test_faults.everything(controller) == before
test_faults.tick(controller, 3)
print(probe.reports(controller))
"""


def test_a_write_that_fails_in_the_middle_loses_nothing(tmp_path: pathlib.Path) -> None:
    """The system lets no file grow: there is a clear error, and later progress."""
    output, said = in_a_process(LIMITED, str(tmp_path))
    counts = [int(line) for line in output.split()]
    assert counts == [*range(6, counts[-2] + 1), counts[-2] + 3]
    assert "cannot be used" in said
    controller, whole = opened(tmp_path), opened(tmp_path / "whole")
    tick(whole, counts[-1])
    assert told(controller) == told(whole)


def in_a_process(code: str, *arguments: str) -> tuple[str, str]:
    """The output of a script in a new process, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


class Full(FileParams):
    """A store on a disk that is sometimes full."""

    full = False

    def save(self, name: str, tree: Any) -> str:
        """Save, if there is room."""
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().save(name, tree)


def test_a_save_that_fails_leaves_the_run_as_it_was(tmp_path: pathlib.Path) -> None:
    """The worker gets the error; its next report succeeds."""
    store = Full(tmp_path / "run" / "params")
    controller = PopulationController([1.0], Scripted(), tmp_path / "run", params=store)
    generation_id = generation(controller)
    controller.set_eval(0, generation_id, 1, {"w": np.ones(2)}, 1.0)
    before = everything(controller)
    store.full = True
    for call in (controller.set_eval, lambda *report: controller.set_evals([report])):
        with pytest.raises(OSError, match="No space left"):
            call(0, generation_id, 2, {"w": np.ones(2)}, 0.5)
    assert everything(controller) == before
    assert len(list((tmp_path / "run" / "params").rglob("*.safetensors"))) == 1
    store.full = False
    controller.set_eval(0, generation_id, 2, {"w": np.full(2, 2.0)}, 0.5)
    again = PopulationController([1.0], Scripted(), tmp_path / "run", params=store)
    found = work(again)
    assert found.step == 2
    np.testing.assert_array_equal(found.params["w"], np.full(2, 2.0))


UNWRITABLE = """
import os, sys
from population import JournalError
from tests import test_faults
if os.getuid() == 0:  # Whom no mode of a file binds.
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for folder in ("run", "new"):
    try:
        controller = test_faults.opened(os.path.join(sys.argv[1], folder))
        test_faults.tick(controller)
    except JournalError as error:
        print(error)
"""


@pytest.fixture
def public() -> Iterator[pathlib.Path]:
    """A folder that all users may enter."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        yield folder
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_folder_that_cannot_be_written_is_a_clear_error(public: pathlib.Path) -> None:
    """A user without the right to write gets an error, and changes nothing."""
    controller = opened(public / "run")
    tick(controller, 4)
    before = told(controller)
    controller.close()
    file = public / "run" / "journal.sqlite"
    bytes_before = file.read_bytes()
    file.chmod(0o444)
    file.parent.chmod(0o555)
    public.chmod(0o555)
    output, _ = in_a_process(UNWRITABLE, str(public))
    errors = output.splitlines()
    assert len(errors) == 2
    assert "the run was opened to look" in errors[0]
    assert "log_dir must be a folder that can be written to" in errors[1]
    assert file.read_bytes() == bytes_before
    assert [path.name for path in public.rglob("*")] == ["run", "journal.sqlite"]
    file.parent.chmod(0o755)
    file.chmod(0o644)
    again = opened(public / "run")
    assert told(again) == before
    tick(again)
    again.close()


def test_a_journal_that_becomes_read_only_loses_nothing(
    tmp_path: pathlib.Path, uninterrupted: list[tuple[Any, ...]]
) -> None:
    """For example after a remount: there is a clear error, and later progress."""
    controller = opened(tmp_path / "run")
    tick(controller, 7)
    before = everything(controller)
    probe.connection(controller).execute("PRAGMA query_only=ON")
    for _ in range(3):
        with pytest.raises(JournalError, match="folder that this user may write to"):
            tick(controller)
        assert everything(controller) == before
    probe.connection(controller).execute("PRAGMA query_only=OFF")
    check_recovery(controller, tmp_path / "run", before, uninterrupted)


def foreign(log_dir: pathlib.Path) -> sqlite3.Connection:
    """Another program that writes to the journal, and holds its lock."""
    found = sqlite3.connect(
        log_dir / "journal.sqlite", isolation_level=None, check_same_thread=False
    )
    found.execute("BEGIN IMMEDIATE")
    return found


def hold_up(
    controller: PopulationController, other: sqlite3.Connection, release: Any
) -> None:
    """Tick while another program holds the lock for some time."""
    count = "SELECT count(*) FROM checkpoints"
    before = other.execute(count).fetchone()
    writer = threading.Thread(target=tick, args=[controller], daemon=True)
    writer.start()
    release()
    assert writer.is_alive()
    assert other.execute(count).fetchone() == before
    other.execute("ROLLBACK")
    other.close()
    writer.join(60)
    assert not writer.is_alive()


def test_a_report_waits_while_another_program_holds_the_lock(
    tmp_path: pathlib.Path,
    uninterrupted: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is late, but neither lost nor doubled."""

    class Watched:
        monotonic = staticmethod(time.monotonic)
        waits = threading.Semaphore(0)

        @classmethod
        def sleep(cls, seconds: float) -> None:
            """Sleep as before, and record it."""
            cls.waits.release()
            time.sleep(seconds)

    probe.wait_for_lock_by(monkeypatch, Watched)
    controller = opened(tmp_path / "run")
    tick(controller, 7)
    other = foreign(tmp_path / "run")

    def seen_to_wait() -> None:
        for _ in range(150):
            assert Watched.waits.acquire(timeout=60)

    hold_up(controller, other, seen_to_wait)
    assert probe.reports(controller) == 8
    check_recovery(controller, tmp_path / "run", everything(controller), uninterrupted)


@pytest.mark.slow
def test_a_report_waits_for_ten_seconds(
    tmp_path: pathlib.Path, uninterrupted: list[tuple[Any, ...]]
) -> None:
    """A backup may hold the lock that long."""
    controller = opened(tmp_path / "run")
    tick(controller, 7)
    other = foreign(tmp_path / "run")
    hold_up(controller, other, lambda: time.sleep(10))
    check_recovery(controller, tmp_path / "run", everything(controller), uninterrupted)


def test_a_clock_that_jumps_back_an_hour_changes_no_decision(
    tmp_path: pathlib.Path, uninterrupted: list[tuple[Any, ...]], clock: Clock
) -> None:
    """Recorded times never go back, and no slot changes its owner."""
    controller = opened(tmp_path / "run", clock=clock, worker_timeout=60.0)
    for number in range(30):
        clock.advance(-3600.0 if number == 11 else 1.0)
        tick(controller)
        if number == 20:
            controller = opened(tmp_path / "run", clock=clock, worker_timeout=60.0)
    assert told(controller) == uninterrupted
    times = [checkpoint.time for checkpoint in controller.history()]
    assert times == sorted(times)
    assert probe.lost(controller) == set()


POLICIES: dict[str, Callable[[], Mutator[Any]]] = {
    "winner": lambda: WinnerTakeAllGenetic(mutate, 3),
    "winner, synchronous": lambda: WinnerTakeAllGenetic(mutate, 3, synchronous=True),
    "pbt": lambda: PopulationBasedTraining(mutate, 3),
    "pbt, synchronous": lambda: PopulationBasedTraining(mutate, 3, synchronous=True),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_nan_from_everyone_for_a_while_is_survived(
    policy: str, tmp_path: pathlib.Path
) -> None:
    """It is never copied; when values are finite again training makes progress."""

    def go_on(controller: PopulationController, first: int, last: int) -> None:
        for number in range(first, last):
            workers = controller.workers
            worker_id = min(range(4), key=lambda w: workers[w].step)
            at = work(controller, worker_id)
            step, value = at.step + 1, abs(at.meta_params)
            value = math.nan if 40 <= number < 56 else value
            params = f"{worker_id}/{number}"
            controller.set_eval(worker_id, at.generation_id, step, params, value)

    def run(log_dir: pathlib.Path) -> PopulationController:
        return PopulationController([1.0, 2.0, 3.0, 4.0], POLICIES[policy](), log_dir)

    controller = run(tmp_path / "a")
    go_on(controller, 0, 56)
    reached = max(worker.step for worker in controller.workers)
    decided = probe.decisions(controller)
    go_on(controller, 56, 300)
    assert min(worker.step for worker in controller.workers) > reached
    assert probe.decisions(controller) > decided + 4
    by_ref = {checkpoint.ref: checkpoint for checkpoint in controller.history()}
    parents = {
        c.parent for c in by_ref.values() if c.parent and c.parent[0] != c.generation_id
    }
    assert not any(by_ref[parent].diverged for parent in parents)
    assert sum(controller.diverged()) == 16
    assert_is_a_forest(controller.graph)
    for first, last in ((0, 48), (48, 55), (55, 57), (57, 300)):
        other = run(tmp_path / "b")
        go_on(other, first, last)
        other.close()
    assert told(run(tmp_path / "b")) == told(controller)


CREATORS = """
import os, sys
from tests import test_faults
for number in range(10):
    log_dir = f"{sys.argv[1]}/{number}"
    waiting, starting = os.pipe()
    children = []
    for _ in range(8):
        children.append(os.fork())
        if children[-1] == 0:
            os.close(starting)
            os.read(waiting, 1)  # Ends for all at once.
            controller = test_faults.opened(log_dir)
            test_faults.tick(controller, 3)
            controller.close()
            os._exit(0)
    os.close(starting)
    os.close(waiting)
    print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def test_processes_that_open_a_new_run_at_the_same_moment_share_it(
    tmp_path: pathlib.Path,
) -> None:
    """One makes it, the others join; ten times, without an error or a second run."""
    output, said = in_a_process(CREATORS, str(tmp_path))
    assert output.split() == ["0"] * 80, said
    for number in range(10):
        controller = opened(tmp_path / str(number))
        sessions = probe.openings(controller)
        assert len({owner for _, owner in sessions}) == len(sessions) == 9
        roots = [c for c in controller.history() if c.parent is None]
        assert [(c.worker_id, c.meta_params) for c in roots] == [(0, 1.0), (1, 2.0)]
        assert_is_a_forest(controller.graph)
        controller.close()


def test_an_opening_that_fails_leaves_no_params_behind(tmp_path: pathlib.Path) -> None:
    """This holds if one cannot be saved, and if the run cannot be recorded."""
    store = Full(tmp_path / "run" / "params")
    saves = store.save

    def second(name: str, tree: Any) -> str:
        store.full = "-1-0" in name
        return saves(name, tree)

    starts = [Start(1.0, {"w": np.ones(2)}), Start(2.0, {"w": np.ones(2)})]
    store.save = second  # type: ignore[method-assign]
    with pytest.raises(OSError, match="No space left"):
        PopulationController(starts, Scripted(), tmp_path / "run", params=store)
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    refuses = Scripted()
    refuses.init = lambda view: object()  # type: ignore[method-assign, assignment]
    with pytest.raises(TypeError):
        PopulationController(starts, refuses, tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    controller = PopulationController(starts, Scripted(), tmp_path / "run")
    np.testing.assert_array_equal(work(controller, 1).params["w"], np.ones(2))
    controller.close()
