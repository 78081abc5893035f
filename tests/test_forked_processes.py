"""A process that was forked while a run was open never uses its file."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

RUN = """
import gc, os, sys
from population import JournalError, PopulationController
from population.mutators import FixedSchedule

def opened():
    return PopulationController([1.0], FixedSchedule({0: 1.0}), sys.argv[1])

def report(controller, count=1):
    for _ in range(count):
        at = controller.workers[0]
        controller.set_eval(0, at.generation_id, at.step + 1, "x", 1.0)

def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except (JournalError, RuntimeError) as error:
            sys.stdout.write(f"{type(error).__name__} {error}\\n")
            sys.stdout.flush()
            os._exit(3)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
REOPENS = """
run = opened()
report(run)
assert child(lambda: report(opened(), 5)) == 3
assert child(lambda: report(run)) == 3
report(run)
run.close()
assert child(lambda: report(opened(), 5)) == 0  # Nobody has it open now.
again = opened()
assert again.workers[0].step == 7, again.workers[0].step
again.close()
"""
ENDS = """
run = opened()
report(run)
def forget():
    global run
    del run
    gc.collect()
assert child(forget) == 0
assert child(sys.exit) in (0, 1)
log = os.path.getsize(sys.argv[1] + "/journal.sqlite-wal")
assert log > 0
report(run, 3)
run.close()
again = opened()
assert again.workers[0].step == 4
again.close()
"""


@pytest.mark.parametrize("what", [REOPENS, ENDS])
def test_what_is_acknowledged_is_there_whatever_a_forked_child_does(
    what: str, tmp_path: pathlib.Path
) -> None:
    """It gets an error: SQLite believes that it holds the locks of its parent."""
    done = subprocess.run(
        [sys.executable, "-c", RUN + what, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if what is REOPENS:
        first, second = done.stdout.splitlines()
        assert first.startswith("JournalError")
        assert "was forked" in first
        assert "spawn" in first
        assert second.startswith("RuntimeError")
