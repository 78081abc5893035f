"""SQL in the file of a journal is never executed."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import sqlite3

import pytest

import population
from population import JournalError, PopulationController
from population.mutators import FixedSchedule
from tests.data import make
from tests.helpers import reporter

DATA = pathlib.Path(__file__).parent / "data"
FORMATS = ["format-1", "format-2", "format-3", "format-4"]
ERASE = "DELETE FROM checkpoints"
CHANGES = {
    "a trigger": f"CREATE TRIGGER t AFTER INSERT ON sessions BEGIN {ERASE}; END",
    "a trigger on facts": f"CREATE TRIGGER t BEFORE INSERT ON facts BEGIN {ERASE}; END",
    "a view": "CREATE VIEW mine AS SELECT 1",
    "another view": "DROP VIEW history; CREATE VIEW history AS SELECT 1 AS row",
    "a trigger on the view": (
        f"CREATE TRIGGER t INSTEAD OF INSERT ON history BEGIN {ERASE}; END"
    ),
    "an index by an expression": "CREATE INDEX i ON checkpoints (abs(step))",
    "a table": "CREATE TABLE mine (x)",
    "a column": "ALTER TABLE facts ADD COLUMN more TEXT DEFAULT 5",
    "a table that was made anew": (
        "DROP TABLE losses; CREATE TABLE losses (row INTEGER NOT NULL CHECK (row > 5), "
        "lost TEXT NOT NULL, told INTEGER, time REAL NOT NULL, statuses INTEGER, "
        "batch INTEGER); "
        "CREATE INDEX losses_by_row ON losses (row)"
    ),
    "a default value": (
        "DROP TABLE statuses; CREATE TABLE statuses (number INTEGER PRIMARY KEY, "
        "row INTEGER NOT NULL, worker_id INTEGER NOT NULL, kind TEXT NOT NULL, "
        "reason TEXT NOT NULL DEFAULT (hex(zeroblob(9))), failures INTEGER NOT NULL, "
        "retired INTEGER NOT NULL, step INTEGER NOT NULL, time REAL NOT NULL, "
        "batch INTEGER NOT NULL); CREATE INDEX statuses_by_row ON statuses (row)"
    ),
    "a trigger on statuses": (
        f"CREATE TRIGGER t AFTER INSERT ON statuses BEGIN {ERASE}; END"
    ),
    "no index": "DROP INDEX late_by_checkpoint",
}


def opened(log_dir: pathlib.Path) -> PopulationController:
    """A run of one worker."""
    return PopulationController([1.0], FixedSchedule({0: 1.0}), log_dir)


def trained(log_dir: pathlib.Path) -> pathlib.Path:
    """The journal of a run."""
    controller = opened(log_dir)
    reporter(controller)(1.0)
    controller.close()
    return log_dir / "journal.sqlite"


def change(file: pathlib.Path, sql: str) -> bytes:
    """Let another program change a journal; returns what the file then holds."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript(sql)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file.read_bytes()


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_schema_is_refused_and_runs_nothing(
    what: str, tmp_path: pathlib.Path
) -> None:
    """Training, replay and fork refuse it; the file does not change."""
    file = trained(tmp_path / "run")
    content = change(file, CHANGES[what])
    mutator = FixedSchedule({0: 1.0})
    for call in (
        lambda: opened(tmp_path / "run"),
        lambda: population.replay(tmp_path / "run", mutator),
        lambda: population.fork(tmp_path / "run", tmp_path / "new", mutator=mutator),
    ):
        with pytest.raises(JournalError, match="changed by another program"):
            call()
    assert file.read_bytes() == content


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("what", ["a trigger", "a view", "a trigger on facts"])
def test_an_older_format_is_looked_at_before_it_is_brought_up(
    name: str, what: str, tmp_path: pathlib.Path
) -> None:
    """Its SQL does not run during the upgrade, either."""
    shutil.copytree(DATA / name, tmp_path / name)
    file = tmp_path / name / "journal.sqlite"
    content = change(file, CHANGES[what])
    with pytest.raises(JournalError, match="changed by another program"):
        make.opened(tmp_path / name)
    assert file.read_bytes() == content


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("what", ["no index", "a column", "a table"])
def test_what_is_refused_is_not_brought_up_to_this_format(
    name: str, what: str, tmp_path: pathlib.Path
) -> None:
    """It does not change, whatever is found and when."""
    shutil.copytree(DATA / name, tmp_path / name)
    file = tmp_path / name / "journal.sqlite"
    content = change(file, CHANGES[what])
    with pytest.raises(JournalError, match="changed by another program"):
        make.opened(tmp_path / name)
    assert file.read_bytes() == content


def test_statistics_for_the_query_planner_are_no_change(
    tmp_path: pathlib.Path,
) -> None:
    """A person may have run ANALYZE; the result is only numbers."""
    change(trained(tmp_path), "ANALYZE")
    controller = opened(tmp_path)
    assert controller.workers[0].step == 1
    controller.close()
