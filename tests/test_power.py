"""What `durability="power"` promises: an acknowledged report is on the disk.

A shim between SQLite and the system counts the syncs of the journal's files.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import pytest

from tests.helpers import missing

ROOT = pathlib.Path(__file__).parent.parent
REPORTS = 40
CHILD = """
import ctypes, json, sys
import numpy as np
from population import PopulationController
from population.mutators import WinnerTakeAllGenetic
from tests import probe
from tests.test_faults import mutate
from tests.test_power import REPORTS

shim = ctypes.CDLL(sys.argv[3])
controller = PopulationController(
    [1.0, 2.0], WinnerTakeAllGenetic(mutate, 3), sys.argv[1], durability=sys.argv[2]
)
counts, branches = [], 0
for number in range(REPORTS):
    worker_id = number % 2
    at = controller.maybe_get_worker_data(worker_id, None, 0, None, None)
    before = shim.syncs_of_wal(), shim.syncs_of_journal()
    report = (worker_id, at.generation_id, at.step + 1, "path", abs(at.meta_params))
    controller.set_evals([report]) if number % 5 == 4 else controller.set_eval(*report)
    after = shim.syncs_of_wal(), shim.syncs_of_journal()
    counts.append([after[0] - before[0], after[1] - before[1]])
print(json.dumps([counts, probe.decisions(controller)]))
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The compiled counter."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        missing("Linux with a C compiler (cc)")
    library = tmp_path_factory.mktemp("shim") / "sync_counter.so"
    source = ROOT / "tests" / "sync_counter.c"
    options = ["-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run([compiler, *options], check=True, timeout=120)
    return library


def syncs(
    log_dir: pathlib.Path, durability: str, shim: pathlib.Path
) -> tuple[list[list[int]], int]:
    """The syncs of the log and of the database for each report; and the decisions."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, log_dir, durability, shim],
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    counts, decisions = json.loads(done.stdout)
    return counts, decisions


def test_a_report_is_on_the_disk_before_it_is_acknowledged(
    tmp_path: pathlib.Path, shim: pathlib.Path
) -> None:
    """With durability="power" each commit, with its decisions, is synced first."""
    counts, decisions = syncs(tmp_path, "power", shim)
    assert len(counts) == REPORTS
    assert decisions > 3
    assert all(of_wal >= 1 for of_wal, _ in counts)


def test_a_report_waits_for_no_disk_unless_that_is_wanted(
    tmp_path: pathlib.Path, shim: pathlib.Path
) -> None:
    """With "process" there is no sync: so the other test sees a difference."""
    counts, decisions = syncs(tmp_path, "process", shim)
    assert decisions > 3
    assert counts == [[0, 0]] * REPORTS


@pytest.mark.parametrize(("ci", "outcome"), [("true", "Failed"), ("", "Skipped")])
def test_what_is_missing_fails_in_ci(
    ci: str, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In CI a test that cannot run fails instead of being skipped."""
    monkeypatch.setenv("CI", ci)
    found: Any = pytest.fail.Exception if ci else pytest.skip.Exception
    with pytest.raises(found, match="a compiler") as caught:
        missing("a compiler")
    assert type(caught.value).__name__ == outcome
