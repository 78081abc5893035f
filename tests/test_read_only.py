"""A run that a user can only read can be opened, replayed and forked."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from population import JournalError, PopulationController, Stop
from population.journal import sqlite_file
from population.journal.sqlite import SqliteJournal
from population.mutators import PopulationBasedTraining
from tests import probe

DATA = pathlib.Path(__file__).parent / "data"
LOOK = """
import os, sys
import population, population.hyperparams, population.params  # As long as it may.
from tests import test_read_only
from tests.data import make
folder, to, kind = sys.argv[1:]
if os.getuid() == 0:  # Whom no mode of a file binds.
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
run = test_read_only.opened(folder) if kind == "run" else make.opened(folder)
print("best", run.best().value)
print("steps", sum(worker.step for worker in run.workers))
print("weights", run.load(run.best())["w"].tolist() if kind == "run" else None)
print("lineage", len(run.lineage(run.best())), "history", len(list(run.history())))
print("reachable", len(run.reachable()) > 0, "finished", run.finished)
name = run.workers[0].generation_id
for call in (
    lambda: run.maybe_get_worker_data(0, None, 0, None, None),
    lambda: run.maybe_get_worker_data(0, name, 10**6, None, None),
    lambda: run.set_eval(0, name, 10**6, "x", 1.0),
    lambda: run.set_evals([(0, name, 10**6, "x", 1.0)]),
    lambda: run.worker(),
    lambda: run.worker(0),
    lambda: run.claim_all(),
    lambda: run.fail(0, "no memory"),
    lambda: run.revive(0),
):
    try:
        call()
    except population.JournalError as error:
        print("refused", "opened to look" in str(error))
run.close()
if kind == "run":
    found = population.replay(folder, test_read_only.policy())
    print("replay", found.first_difference, len(found.decisions) > 0)
    new = population.fork(folder, to, mutator=test_read_only.policy())
    print("fork", new.load(new.best())["w"].tolist(), new.best().value)
    with new.worker() as worker:
        test_read_only.train(worker, 60)
    print("fork", sum(worker.step for worker in new.workers))
    new.close()
"""


def shrink(meta_params: float) -> float:
    """Make the number a little smaller."""
    return 0.9 * meta_params


def policy() -> PopulationBasedTraining:
    """Two workers that wait for each other."""
    return PopulationBasedTraining(shrink, 20, synchronous=True)


def opened(log_dir: Any, steps: int = 60) -> PopulationController:
    """A run of two workers."""
    return PopulationController([1.0, 2.0], policy(), log_dir, stop=Stop(steps=steps))


def train(worker: Any, steps: int) -> None:
    """Train up to a step."""
    weights = np.zeros(1)
    while worker.running and worker.step < steps:
        if worker.poll():
            weights = worker.restore(lambda _: {"w": np.zeros(1)})["w"]
        worker.step += 1
        weights = weights + worker.meta_params
        if worker.step % 10 == 0:
            worker.report(worker.meta_params, {"w": weights})


@pytest.fixture
def public() -> Iterator[pathlib.Path]:
    """A folder that all users can reach."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        (folder / "theirs").mkdir()
        (folder / "theirs").chmod(0o777)
        yield folder
        for place in (folder, *folder.rglob("*")):
            place.chmod(0o777)


def protect(folder: pathlib.Path) -> None:
    """Let all users read it, and none write."""
    for place in (folder, *folder.rglob("*")):
        place.chmod(0o555 if place.is_dir() else 0o444)


def content(folder: pathlib.Path) -> dict[str, bytes]:
    """All files, as a digest of their content."""
    return {
        str(file): hashlib.sha256(file.read_bytes()).digest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def look(folder: pathlib.Path, kind: str = "run") -> str:
    """The run as a user without write access sees it; nothing there has changed."""
    probe.settle()
    protect(folder)
    before = content(folder)
    scratch = folder.parent / "theirs"
    done = subprocess.run(
        [sys.executable, "-c", LOOK, folder, folder.parent / "theirs" / "new", kind],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    assert done.returncode == 0, done.stderr
    assert content(folder) == before
    assert not list(scratch.glob("population-*"))
    return done.stdout


def trained(folder: pathlib.Path) -> PopulationController:
    """A run that is still open."""
    controller = opened(folder)
    with controller.worker() as worker:
        train(worker, 40)
    return controller


def seen(controller: PopulationController) -> str:
    """The parts of a run that the other user should see."""
    best = controller.best()
    assert best is not None
    weights = controller.load(best)["w"].tolist()
    steps = sum(worker.step for worker in controller.workers)
    history = len(list(controller.history()))
    lines = [
        f"best {best.value}",
        f"steps {steps}",
        f"weights {weights}",
        f"lineage {len(controller.lineage(best))} history {history}",
        "reachable True finished False",
        *["refused True"] * 9,
        "replay None True",
        f"fork {weights} {best.value}",
        "fork 120",
    ]
    return "\n".join(lines) + "\n"


def test_a_finished_run_of_another_user(public: pathlib.Path) -> None:
    """It is read in place; to train it raises, and says what to do."""
    controller = trained(public / "run")
    expected = seen(controller)
    controller.close()
    assert look(public / "run") == expected


def test_a_run_of_another_user_that_goes_on(public: pathlib.Path) -> None:
    """The content of its log is visible."""
    controller = trained(public / "run")
    expected = seen(controller)
    assert (public / "run" / "journal.sqlite-wal").stat().st_size
    assert look(public / "run") == expected
    controller.close()


def test_whoever_looks_sees_what_is_reported_meanwhile(tmp_path: pathlib.Path) -> None:
    """This holds also for a new run that is only in the log."""
    controller = opened(tmp_path)
    journal = SqliteJournal(tmp_path / "journal.sqlite", look=True)
    assert journal.read_only
    for step in (10, 20):
        with controller.worker() as worker:
            train(worker, step)
        assert probe.tail_of(journal) == probe.tail(controller)
    with pytest.raises(JournalError, match="opened to look"), journal.transaction():
        pass
    journal.close()
    controller.close()


def test_a_run_that_goes_on_after_it_was_opened_to_look_says_so(
    tmp_path: pathlib.Path,
) -> None:
    """A finished run is read as a file that does not change; then it changes."""
    trained(tmp_path).close()
    journal = SqliteJournal(tmp_path / "journal.sqlite", look=True)
    assert probe.tail_of(journal).row > 0
    controller = opened(tmp_path, 80)
    with controller.worker() as worker:
        train(worker, 80)
    controller.close()
    with pytest.raises(JournalError, match=r"has gone on.*Open it again"):
        probe.tail_of(journal)
    journal.close()


@pytest.mark.parametrize("with_shared_memory", [True, False])
def test_an_archived_run_that_was_killed(
    with_shared_memory: bool, public: pathlib.Path
) -> None:
    """Its log is part of it, with or without the `-shm` file."""
    controller = trained(public / "open")
    expected = seen(controller)
    shutil.copytree(public / "open", public / "run")
    if not with_shared_memory:
        (public / "run" / "journal.sqlite-shm").unlink()
    controller.close()
    shutil.rmtree(public / "open")
    assert look(public / "run") == expected


@pytest.mark.parametrize("name", ["format-1", "format-2", "format-3", "format-4"])
def test_a_run_of_an_older_format_that_must_not_be_changed(
    name: str, public: pathlib.Path
) -> None:
    """A temporary copy is upgraded to the present format."""
    shutil.copytree(DATA / name, public / "run")
    lines = look(public / "run", "older").splitlines()
    assert lines[0].startswith("best ")
    assert lines.count("refused True") == 9


def test_a_folder_without_a_run_is_refused(public: pathlib.Path) -> None:
    """A user without write access cannot begin one."""
    (public / "run").mkdir()
    (public / "run" / "journal.sqlite").touch()
    protect(public / "run")
    code = LOOK.replace("run = ", "population.params; run = ")
    done = subprocess.run(
        [sys.executable, "-c", code, public / "run", public / "theirs", "run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "JournalError" in done.stderr
    assert "holds no run yet" in done.stderr


def test_a_writable_run_is_not_opened_to_look(tmp_path: pathlib.Path) -> None:
    """Only what the system forbids is refused."""
    trained(tmp_path).close()
    assert not sqlite_file.is_protected(tmp_path / "journal.sqlite")
    assert not sqlite_file.is_protected(tmp_path / "nothing")
    assert os.access(tmp_path, os.W_OK)
