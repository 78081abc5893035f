"""Ctrl-C anywhere, and stores that fail: nothing is lost, and no lock stays."""

from __future__ import annotations

import gc
import pathlib
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

import population
from population import PopulationController
from population.core.retention import Keep
from population.mutators import FixedSchedule
from population.params import FileParams
from tests import probe
from tests.helpers import Scripted, generation

ROOT = pathlib.Path(__file__).parent.parent


def test_ctrl_c_leaves_no_lock_and_no_transaction_behind(
    tmp_path: pathlib.Path,
) -> None:
    """Hundreds of Ctrl-C in reports and polls; acknowledged reports are recorded."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.interrupt_child", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("400 interrupts")


_OPEN_AND_CLOSE = """
import sys
from population import PopulationController
from population.mutators import FixedSchedule
run = PopulationController([None], FixedSchedule({0: 1.0}), sys.argv[1])
print(run.newest(0).step)
run.close()
"""


@pytest.mark.parametrize("beside", ["replay", "fork", "another controller"])
def test_looking_at_an_open_run_takes_no_lock_from_it(
    tmp_path: pathlib.Path, beside: str
) -> None:
    """Otherwise the next process that closes the run would delete the log in use."""
    folder = tmp_path / "run"
    policy = FixedSchedule({0: 1.0})
    controller = PopulationController([1.0], policy, folder)
    first = generation(controller)
    controller.set_eval(0, first, 1, "p1", 1.0)
    if beside == "replay":
        population.replay(folder, policy)
    elif beside == "fork":
        population.fork(controller, tmp_path / "forked", mutator=policy).close()
    else:
        PopulationController([1.0], policy, folder).close()

    def another_process() -> int:
        done = subprocess.run(
            [sys.executable, "-c", _OPEN_AND_CLOSE, str(folder)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout)

    assert another_process() == 1
    for step in range(2, 20):
        controller.set_eval(0, first, step, None, 1.0)
    assert another_process() == 19
    controller.close()


def test_a_log_that_somebody_removed_is_noticed(tmp_path: pathlib.Path) -> None:
    """Records that are written to it would be lost."""
    controller = PopulationController([1.0], Scripted(), tmp_path)
    first = generation(controller)
    controller.set_eval(0, first, 1, None, 1.0)
    (tmp_path / "journal.sqlite-wal").unlink()

    def go_on() -> None:
        for step in range(2, 200):
            controller.set_eval(0, first, step, None, 1.0)

    with pytest.raises(population.JournalError, match="was removed while the run was"):
        go_on()


class Failing:
    """A store that cannot remove."""

    def __init__(self) -> None:
        self.trees: dict[str, Any] = {}

    def save(self, name: str, tree: Any) -> str:
        """Keep the tree."""
        path = f"{name}-{len(self.trees)}"
        self.trees[path] = tree
        return path

    def load(self, path: str, like: Any = None) -> Any:
        """Return the tree."""
        del like
        return self.trees[path]

    def remove(self, path: str) -> None:
        """Fail like a bucket that is unavailable."""
        raise RuntimeError(path)


def test_a_store_that_cannot_remove_does_not_stop_the_training(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All its exceptions are logged; the reports are recorded."""
    controller = PopulationController([1.0], Scripted(), tmp_path, params=Failing())
    first = generation(controller)
    for step in range(1, 30):
        controller.set_eval(0, first, step, {"w": np.ones(2)}, 1.0 / step)
    probe.settle()
    assert "params could not be removed" in caplog.text
    assert controller.newest(0).step == 29
    controller.close()


def test_a_dropped_controller_leaves_no_thread(tmp_path: pathlib.Path) -> None:
    """Its thread that removes files ends with it."""
    before = threading.active_count()
    for number in range(3):
        run = PopulationController([1.0], Scripted(), tmp_path / str(number))
        first = generation(run)
        for step in range(1, 5):
            run.set_eval(0, first, step, {"w": np.ones(2)}, 1.0 / step)
        del run
    gc.collect()
    assert threading.active_count() <= before


_FORK = """
import os, sys
from population import PopulationController
from population.mutators import FixedSchedule
run = PopulationController([1.0], FixedSchedule({0: 1.0}), sys.argv[1])
if os.fork() == 0:
    try:
        run.set_eval(0, run.workers[0].generation_id, 1, None, 1.0)
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
print(run.newest(0).step)
"""


def test_a_controller_is_refused_in_a_forked_process(tmp_path: pathlib.Path) -> None:
    """SQLite's handles must not cross a fork, and the remover's thread is missing."""
    done = subprocess.run(
        [sys.executable, "-c", _FORK, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    refused, step = done.stdout.splitlines()
    assert "must not be used in a process that was forked" in refused
    assert step == "0"


def test_what_a_run_keeps_is_remembered(tmp_path: pathlib.Path) -> None:
    """A user who opens the run again without `keep=` loses nothing."""
    for number in range(3):
        keep = Keep(everything=True) if number == 0 else None
        run = PopulationController([1.0], Scripted(), tmp_path, keep=keep)
        for _ in range(4):
            at = generation(run), run.newest(0).step + 1
            run.set_eval(0, *at, {"w": np.ones(2)}, 1.0)
        run.close()
    assert len(list((tmp_path / "params").rglob("*.safetensors"))) == 12
    with pytest.warns(UserWarning, match="goes on with Keep.*began with Keep"):
        PopulationController([1.0], Scripted(), tmp_path, keep=Keep()).close()


def test_a_run_with_a_journal_of_its_own_is_nobody_elses(
    tmp_path: pathlib.Path,
) -> None:
    """Another process would make its own run beside it."""
    from population.journal.sqlite import SqliteJournal

    own = SqliteJournal(tmp_path / "own.sqlite")
    run = PopulationController([1.0], Scripted(), tmp_path, journal=own)
    with pytest.raises(ValueError, match="journal= of its own"):
        run.arguments()


def test_another_store_than_before_is_a_warning(tmp_path: pathlib.Path) -> None:
    """Its files would be missing, and a loop that rejects them loses a good run."""
    PopulationController([1.0], Scripted(), tmp_path, params=Failing()).close()
    with pytest.warns(UserWarning, match=r"saved by .*Failing, .* by .*FileParams"):
        PopulationController([1.0], Scripted(), tmp_path).close()
    PopulationController([1.0], Scripted(), tmp_path / "files").close()
    same = FileParams(tmp_path / "files" / "params")
    PopulationController([1.0], Scripted(), tmp_path / "files", params=same).close()
