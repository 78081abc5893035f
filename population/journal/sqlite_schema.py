"""The tables of a SQLite journal, and the upgrade of older formats.

`docs/on-disk-format.md` describes the tables for readers without this library.
"""

from __future__ import annotations

import functools
import json
import pathlib
import re
import sqlite3
import sys
from typing import Any

from population.base.errors import JournalError
from population.base.refusals import leads_out
from population.journal.checks import checksum
from population.journal.sql import HISTORY

APPLICATION_ID = 0x504F504A  # "POPJ"
FORMAT = 5
SYNCHRONOUS = {"process": "NORMAL", "power": "FULL"}
PAGE_SIZE = 1024  # Small: a commit writes each changed page as a whole.

_KEPT_SINCE_1 = """
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (row INTEGER NOT NULL, time REAL NOT NULL, owner TEXT);
CREATE TABLE generations (
    row INTEGER PRIMARY KEY,
    generation_id TEXT NOT NULL UNIQUE,
    worker_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    step INTEGER NOT NULL,
    meta_params TEXT NOT NULL,
    digest TEXT NOT NULL,
    reason TEXT NOT NULL,
    time REAL NOT NULL,
    UNIQUE (worker_id, number)
);
CREATE INDEX generations_by_digest ON generations (digest);
CREATE TABLE checkpoints (
    row INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL REFERENCES generations (row),
    step INTEGER NOT NULL,
    parent INTEGER REFERENCES checkpoints (row),
    params TEXT,
    has_value INTEGER NOT NULL,
    value REAL,
    metrics TEXT,
    time REAL NOT NULL,
    reports INTEGER NOT NULL,
    batch INTEGER NOT NULL
);
CREATE UNIQUE INDEX checkpoints_by_step ON checkpoints (generation, step);
CREATE TABLE late (
    row INTEGER PRIMARY KEY,
    checkpoint INTEGER NOT NULL REFERENCES checkpoints (row),
    params TEXT,
    has_value INTEGER NOT NULL,
    value REAL,
    metrics TEXT,
    time REAL NOT NULL,
    reports INTEGER NOT NULL,
    batch INTEGER NOT NULL
);
CREATE INDEX late_by_checkpoint ON late (checkpoint);
CREATE UNIQUE INDEX late_by_params ON late (checkpoint) WHERE params IS NOT NULL;
CREATE UNIQUE INDEX late_by_value ON late (checkpoint) WHERE has_value;
CREATE TABLE best (
    row INTEGER PRIMARY KEY,
    checkpoint INTEGER NOT NULL REFERENCES checkpoints (row),
    reports INTEGER NOT NULL
);
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    state TEXT NOT NULL,
    decisions INTEGER NOT NULL,
    checksum INTEGER NOT NULL
)"""

_SINCE_2 = """
CREATE TABLE removals (
    params TEXT NOT NULL,
    row INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (params, row)
) WITHOUT ROWID;
CREATE INDEX removals_by_row ON removals (row);
CREATE TABLE saves (
    params TEXT PRIMARY KEY,
    row INTEGER NOT NULL,
    generation TEXT NOT NULL,
    step INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE leases (
    worker_id INTEGER PRIMARY KEY,
    owner TEXT,
    renewed REAL NOT NULL,
    grace REAL NOT NULL,
    handed INTEGER,
    change INTEGER NOT NULL
);
CREATE INDEX leases_by_change ON leases (change);
CREATE TABLE losses (
    row INTEGER NOT NULL,
    lost TEXT NOT NULL,
    told INTEGER,
    time REAL NOT NULL
);
CREATE INDEX losses_by_row ON losses (row);
CREATE INDEX diverged ON checkpoints (generation)
    WHERE has_value AND (value IS NULL OR abs(value) > 1.7976931348623157e308);
CREATE INDEX late_diverged ON late (checkpoint)
    WHERE has_value AND (value IS NULL OR abs(value) > 1.7976931348623157e308);"""

_SINCE_5 = """
CREATE UNIQUE INDEX late_by_metrics ON late (checkpoint) WHERE metrics IS NOT NULL;
ALTER TABLE losses ADD COLUMN statuses INTEGER;
ALTER TABLE losses ADD COLUMN batch INTEGER;
CREATE TABLE statuses (
    number INTEGER PRIMARY KEY,
    row INTEGER NOT NULL,
    worker_id INTEGER NOT NULL,
    kind TEXT NOT NULL,
    reason TEXT NOT NULL,
    failures INTEGER NOT NULL,
    retired INTEGER NOT NULL,
    step INTEGER NOT NULL,
    time REAL NOT NULL,
    batch INTEGER NOT NULL
);
CREATE INDEX statuses_by_row ON statuses (row);"""

_VIEW = f"""
CREATE VIEW history AS{HISTORY.format(had_params="")}"""

_TABLES = f"{_KEPT_SINCE_1};{_SINCE_2}{_SINCE_5}{_VIEW}"

# Format 1 kept all params on disk, and recorded removals only of params in memory.
_FROM_1_TO_2 = """
DROP TABLE removals;
ALTER TABLE sessions ADD COLUMN owner TEXT;"""
_WITHOUT_VIEW = "DROP VIEW history;"
_WITH_PARAMS = ("checkpoints", "row"), ("late", "row"), ("removals", "params, row")


def has_tables(connection: sqlite3.Connection) -> bool:
    """Whether a file has any table, of any program."""
    return bool(connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall())


def choose_settings(connection: sqlite3.Connection, durability: str) -> None:
    """Choose SQLite's settings for writing a file.

    Args:
        connection: A connection to the file, which may have no tables yet.
        durability: A key of `SYNCHRONOUS`.
    """
    execute = connection.execute
    if execute("PRAGMA application_id").fetchone() == (0,):
        # Before WAL, so that the file itself identifies this library from the start.
        execute(f"PRAGMA page_size={PAGE_SIZE}")
        execute(f"PRAGMA application_id={APPLICATION_ID}")
    execute("PRAGMA journal_mode=WAL")
    execute(f"PRAGMA synchronous={SYNCHRONOUS[durability]}")
    if sys.platform == "darwin" and durability == "power":
        execute("PRAGMA fullfsync=ON")  # On macOS, fsync may only reach a disk's cache.
    execute("PRAGMA wal_autocheckpoint=0")  # `Connection` merges its log itself.


def prepare(connection: sqlite3.Connection, path: pathlib.Path | None) -> None:
    """Create the missing tables, or upgrade old ones. Called inside a transaction.

    Raises:
        JournalError: The file has an object that no format has; nothing is executed.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > FORMAT:
        raise too_new(path, version)
    present = _schema(connection)
    unknown = {name: sql for name, sql in present.items() if name not in _expected()}
    if unknown:
        raise _foreign(path, next(iter(unknown)))
    if not present:
        _run(connection, _TABLES)
    elif version == 1:
        _run(connection, f"{_WITHOUT_VIEW}{_FROM_1_TO_2}{_SINCE_2}{_SINCE_5}{_VIEW}")
    elif version < FORMAT:
        _run(connection, f"{_WITHOUT_VIEW}{_SINCE_5}{_VIEW}")
    if present and version < 4:
        _make_own_paths_relative(connection)
        _add_checksum(connection)
    if version != FORMAT:
        connection.execute(f"PRAGMA user_version={FORMAT}")


def check(connection: sqlite3.Connection, path: pathlib.Path | None) -> None:
    """Refuse a file whose tables, indexes and views are not exactly this format's.

    A trigger, a view or a default value is SQL in the file that SQLite would execute.

    Raises:
        JournalError: An object differs; the message names it.
    """
    present = _schema(connection)
    for name in (*present, *_expected()):
        if present.get(name) != _expected().get(name):
            raise _foreign(path, name)


Name = tuple[str, str]


def _schema(connection: sqlite3.Connection) -> dict[Name, str]:
    """Return the SQL of all objects in a file, by kind and name; without statistics."""
    rows = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql NOTNULL"
    ).fetchall()
    return {
        (str(kind), str(name)): f"{table}: {' '.join(str(sql).split())}"
        for kind, name, table, sql in rows
        if not (kind == "table" and str(name).startswith("sqlite_stat"))
    }


@functools.cache
def _expected() -> dict[Name, str]:
    """Return the schema of this format."""
    connection = sqlite3.connect(":memory:")
    try:
        _run(connection, _TABLES)
        return _schema(connection)
    finally:
        connection.close()


def _foreign(path: pathlib.Path | None, name: Name) -> JournalError:
    return JournalError(
        f"{path} was changed by another program: its {' '.join(name)!r} is not what "
        "this library makes, and might be executed. It was left as it is. Restore the "
        "file from a backup, or undo the change with a SQLite shell."
    )


def too_new(path: pathlib.Path | None, version: int) -> JournalError:
    """Return the error for a journal that a newer version of the library wrote."""
    return JournalError(
        f"{path} has the format {version}; this version of the library reads up to "
        f"{FORMAT}. Install a newer version."
    )


def _add_checksum(connection: sqlite3.Connection) -> None:
    """Add a checksum to the mutator's state."""
    rows = connection.execute("SELECT state, decisions FROM state").fetchall()
    connection.execute("DROP TABLE state")
    connection.execute(_KEPT_SINCE_1.rpartition(";")[2])
    for state, decisions in rows:
        connection.execute(
            "INSERT INTO state VALUES (0, ?, ?, ?)",
            (state, decisions, checksum(str(state), decisions)),
        )


def _make_own_paths_relative(connection: sqlite3.Connection) -> None:
    """Make the paths of `Worker.save_to` relative to the run folder.

    Until format 3 the journal kept them as the loop got them: absolute, in the folder
    where the run was then, or relative to the process's working folder.
    """
    found = connection.execute("SELECT value FROM facts WHERE key = 'run'").fetchone()
    if found is None:
        return
    run = re.escape(str(found[0]).strip('"'))
    own = re.compile(rf"(?:.*/)?own/({run}-\d+-\d+/.+)", re.DOTALL)
    for table, key in _WITH_PARAMS:
        rows = connection.execute(
            f"SELECT {key}, params FROM {table} WHERE params LIKE '%own/%'"
        ).fetchall()
        where = " AND ".join(f"{column} = ?" for column in key.split(", "))
        for *place, text in rows:
            try:
                new = _relative(json.loads(text), own)
            except (ValueError, RecursionError, TypeError):
                continue  # A later read of this row reports the damage.
            changed = json.dumps(new, separators=(",", ":"))
            if changed != text:
                connection.execute(
                    f"UPDATE {table} SET params = ? WHERE {where}", (changed, *place)
                )


def _relative(tree: Any, own: re.Pattern[str]) -> Any:
    """Return an encoded tree with relative paths for those in the folder `own`."""
    if isinstance(tree, str):
        path = _own_path(tree, own)
        return tree if path is None else {"!own": [path, "text"]}
    if isinstance(tree, list):
        return [_relative(inner, own) for inner in tree]
    if not isinstance(tree, dict):
        return tree
    path = _own_path(str(tree.get("!path")), own)
    if path is not None:
        return {"!own": [path, "path"]}
    return {key: _relative(inner, own) for key, inner in tree.items()}


def _own_path(text: str, own: re.Pattern[str]) -> str | None:
    found = own.fullmatch(text)
    return None if found is None or leads_out(found[1]) else found[1]


def _run(connection: sqlite3.Connection, script: str) -> None:
    """Run a script statement by statement, within the transaction."""
    for statement in script.split(";"):
        connection.execute(statement)
