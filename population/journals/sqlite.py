"""The embedded journal: one SQLite file, or memory.

A file is in WAL mode with `synchronous=NORMAL`: a commit survives the death of the
process. `docs/on-disk-format.md` describes the tables.
"""

from __future__ import annotations

import os
import pathlib
import sqlite3
from typing import Any

from population.errors import JournalError
from population.journal import CheckpointRow, GenerationRow, Journal, Tail
from population.journals import sqlite_file

_BUSY_TIMEOUT_S = 60.0
_LARGEST = "1.7976931348623157e308"  # What is not finite is larger, or NULL.
_PAGE_SIZE = 1024
_PAGES_BEFORE_MERGE = 4000

_SCHEMA = """
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (row INTEGER NOT NULL, time REAL NOT NULL);
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
CREATE TABLE removals (
    params TEXT PRIMARY KEY,
    row INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE best (
    row INTEGER PRIMARY KEY,
    checkpoint INTEGER NOT NULL REFERENCES checkpoints (row),
    reports INTEGER NOT NULL
);
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    state TEXT NOT NULL,
    decisions INTEGER NOT NULL
);
CREATE VIEW history AS
SELECT c.row, c.generation, c.step,
    CASE WHEN r.row IS NULL THEN coalesce(c.params, p.params) END AS params,
    c.has_value OR v.row IS NOT NULL AS has_value,
    CASE WHEN c.has_value THEN c.value ELSE v.value END AS value,
    coalesce(c.metrics, v.metrics) AS metrics,
    c.time,
    pg.generation_id AS parent_generation_id, pc.step AS parent_step,
    g.generation_id, g.worker_id, g.meta_params, g.reason
FROM checkpoints c
JOIN generations g ON g.row = c.generation
LEFT JOIN checkpoints pc ON pc.row = c.parent
LEFT JOIN generations pg ON pg.row = pc.generation
LEFT JOIN late p ON p.checkpoint = c.row AND p.params IS NOT NULL
LEFT JOIN late v ON v.checkpoint = c.row AND v.has_value
LEFT JOIN removals r ON r.params = coalesce(c.params, p.params);
"""

_TAIL = """
SELECT max(
        coalesce((SELECT max(row) FROM checkpoints), 0),
        coalesce((SELECT max(row) FROM generations), 0),
        coalesce((SELECT max(row) FROM late), 0)),
    max(
        coalesce((SELECT time FROM checkpoints ORDER BY row DESC LIMIT 1), 0.0),
        coalesce((SELECT time FROM late ORDER BY row DESC LIMIT 1), 0.0)),
    max(
        coalesce((SELECT reports FROM checkpoints ORDER BY row DESC LIMIT 1), 0),
        coalesce((SELECT reports FROM late ORDER BY row DESC LIMIT 1), 0)),
    (SELECT checkpoint FROM best ORDER BY row DESC LIMIT 1),
    coalesce((SELECT reports FROM best ORDER BY row DESC LIMIT 1), 0)
"""

_SESSIONS = """
SELECT s.time, max(s.time, coalesce((
    SELECT c.time FROM checkpoints c
    WHERE c.row <= coalesce((
        SELECT min(n.row) FROM sessions n WHERE n.rowid > s.rowid), 9223372036854775807)
    ORDER BY c.row DESC LIMIT 1), s.time))
FROM sessions s ORDER BY s.rowid
"""


class SqliteJournal(Journal):
    """A journal in one SQLite file, or in memory when no path is given.

    Not safe for threads by itself: the controller calls it under its own lock.

    Args:
        path: The file; it is made if it does not exist. Its folder must exist.

    Raises:
        JournalError: If the file cannot be opened or written, is damaged, belongs to
            another program, or was written by a newer version of this library.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._path = None if path is None else pathlib.Path(path)
        self._version = 0
        if self._path is not None:
            sqlite_file.check(self._path)
        try:
            self._connect()
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def __enter__(self) -> object:
        self._run("BEGIN IMMEDIATE")
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            if exc[0] is None:
                self._run("COMMIT")
        finally:
            if self._connection.in_transaction:  # Also when the commit itself failed.
                self._run("ROLLBACK")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def changed(self) -> bool:
        """Whether another connection has committed since the last call."""
        if self._path is None:
            return False  # Nobody else can reach this memory.
        (version,) = self._run("PRAGMA data_version").fetchone()
        if version == self._version:
            return False
        self._version = version
        return True

    def facts(self) -> dict[str, str]:
        """What is fixed about the run, encoded; empty for a new one."""
        return dict(self._run("SELECT key, value FROM facts").fetchall())

    def add_fact(self, key: str, value: str) -> None:
        """Record a fact; a second time is ignored."""
        self._run("INSERT OR IGNORE INTO facts VALUES (?, ?)", (key, value))

    def add_generation(self, generation: GenerationRow) -> None:
        """Insert a generation."""
        self._run(
            "INSERT INTO generations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", generation
        )

    def add_checkpoint(self, *row: Any) -> None:
        """Insert a checkpoint."""
        self._run(
            "INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row
        )

    def add_late(self, *row: Any) -> None:
        """Insert what a recorded checkpoint lacked."""
        self._run("INSERT INTO late VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def add_removal(self, row: int, params: str) -> None:
        """Record, after `row`, that the store no longer keeps these params."""
        self._run("INSERT OR IGNORE INTO removals VALUES (?, ?)", (params, row))

    def add_best(self, row: int, checkpoint: int, reports: int) -> None:
        """Record that a checkpoint has become the best one."""
        self._run("INSERT INTO best VALUES (?, ?, ?)", (row, checkpoint, reports))

    def add_session(self, row: int, time: float) -> None:
        """Record that a controller has opened the run after `row`."""
        self._run("INSERT INTO sessions VALUES (?, ?)", (row, time))

    def sessions(self) -> list[tuple[float, float]]:
        """When each session began and when its last checkpoint was recorded."""
        return self._run(_SESSIONS).fetchall()

    def tail(self) -> Tail:
        """Where the journal ends."""
        return Tail(*self._run(_TAIL).fetchone())

    def state(self) -> tuple[str, int] | None:
        """The mutator's state, encoded, and how many decisions were made."""
        row: tuple[str, int] | None = self._run(
            "SELECT state, decisions FROM state"
        ).fetchone()
        return row

    def set_state(self, state: str, decisions: int) -> None:
        """Replace the mutator's state."""
        self._run("REPLACE INTO state VALUES (0, ?, ?)", (state, decisions))

    def generation(self, generation_id: str) -> GenerationRow | None:
        """The generation of that id."""
        row = self._run(
            "SELECT * FROM generations WHERE generation_id = ?", (generation_id,)
        ).fetchone()
        return row and GenerationRow(*row)

    def newest_generation(self, worker_id: int) -> GenerationRow | None:
        """The slot's present generation."""
        row = self._run(
            "SELECT * FROM generations WHERE worker_id = ? "
            "ORDER BY number DESC LIMIT 1",
            (worker_id,),
        ).fetchone()
        return row and GenerationRow(*row)

    def generation_ids(self, digest: str | None = None) -> list[str]:
        """All generations in order, or those with equal meta_params."""
        if digest is None:
            rows = self._run("SELECT generation_id FROM generations ORDER BY row")
        else:
            rows = self._run(
                "SELECT generation_id FROM generations WHERE digest = ? ORDER BY row",
                (digest,),
            )
        return [generation_id for (generation_id,) in rows]

    def checkpoint(self, row: int) -> CheckpointRow | None:
        """The checkpoint of that row."""
        found = self._run("SELECT * FROM history WHERE row = ?", (row,)).fetchone()
        return found and CheckpointRow(*found)

    def had_params(self, row: int) -> bool:
        """Whether the checkpoint ever had params, removed or not."""
        found = self._run(
            "SELECT 1 FROM checkpoints WHERE row = ? AND params IS NOT NULL UNION ALL "
            "SELECT 1 FROM late WHERE checkpoint = ? AND params IS NOT NULL",
            (row, row),
        ).fetchone()
        return found is not None

    def checkpoints(
        self,
        generation_id: str,
        low: int,
        high: int,
        *,
        descending: bool = False,
        limit: int = -1,
    ) -> list[CheckpointRow]:
        """A generation's checkpoints with `low <= step <= high`, by step."""
        order = "DESC" if descending else "ASC"
        rows = self._run(
            "SELECT * FROM history WHERE generation = "
            "(SELECT row FROM generations WHERE generation_id = ?) "
            f"AND step BETWEEN ? AND ? ORDER BY step {order} LIMIT ?",
            (generation_id, low, high, limit),
        )
        return [CheckpointRow(*row) for row in rows]

    def newest(
        self, generation_id: str, high: int, *, value: bool, params: bool, finite: bool
    ) -> CheckpointRow | None:
        """A generation's newest checkpoint with `step <= high` that fits."""
        found = self._run(
            "SELECT * FROM history WHERE generation = "
            "(SELECT row FROM generations WHERE generation_id = ?) AND step <= ?"
            + (" AND has_value" if value else "")
            + (" AND params IS NOT NULL" if params else "")
            + (f" AND (NOT has_value OR abs(value) <= {_LARGEST})" if finite else "")
            + " ORDER BY step DESC LIMIT 1",
            (generation_id, high),
        ).fetchone()
        return found and CheckpointRow(*found)

    def history(self, after: int, limit: int) -> list[CheckpointRow]:
        """The next checkpoints after a row, in the order in which they came."""
        rows = self._run(
            "SELECT * FROM history WHERE row > ? ORDER BY row LIMIT ?", (after, limit)
        )
        return [CheckpointRow(*row) for row in rows]

    def _connect(self) -> None:
        self._connection = sqlite3.connect(
            ":memory:" if self._path is None else self._path,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        execute = self._connection.execute
        if self._path is not None:
            if execute("PRAGMA user_version").fetchone() == (0,):
                # Before WAL, so that the file itself says whose it is from the start.
                # Small pages: a commit writes each page that it touched as a whole.
                execute(f"PRAGMA page_size={_PAGE_SIZE}")
                execute(f"PRAGMA application_id={sqlite_file.APPLICATION_ID}")
                execute(f"PRAGMA user_version={sqlite_file.FORMAT}")
            execute("PRAGMA journal_mode=WAL")
            execute("PRAGMA synchronous=NORMAL")
            execute(f"PRAGMA wal_autocheckpoint={_PAGES_BEFORE_MERGE}")
        execute("PRAGMA cache_size=-32000")  # 32 MB at most, whatever the history
        with self:
            if not execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                for statement in _SCHEMA.split(";\n"):
                    execute(statement)
        (self._version,) = execute("PRAGMA data_version").fetchone()

    def _run(self, sql: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(sql, values)
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _explained(self, error: sqlite3.Error) -> JournalError:
        place = "in memory" if self._path is None else str(self._path)
        text = str(error)
        if "readonly" in text or "unable to open" in text:
            advice = "Give the run a folder that this user may write to."
        elif "malformed" in text or "not a database" in text:
            advice = (
                "The file is damaged and was left as it is. Restore it from a backup, "
                "or start a new run in another log_dir."
            )
        elif "locked" in text:
            advice = "Another program holds its write lock; end that program first."
        elif "full" in text:
            advice = "Free some space and go on; nothing that was recorded is lost."
        else:
            advice = "Nothing of this call was recorded."
        return JournalError(f"The journal {place} cannot be used: {text}. {advice}")
