"""The embedded journal: one SQLite file, or memory.

A file is in WAL mode. With `synchronous=NORMAL` a commit survives the death of the
process, with FULL a power cut too. `docs/on-disk-format.md` describes the tables.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import pathlib
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from population.journal import Journal
from population.journals import sqlite_file, sqlite_schema
from population.journals import sqlite_queries as queries
from population.rows import (
    UNREACHABLE,
    CheckpointRow,
    GenerationRow,
    LeaseRow,
    Pulse,
    Record,
    SaveRow,
    Tail,
)

logger = logging.getLogger("population")
Result = TypeVar("Result")
_BUSY_TIMEOUT_S = 60.0
_PAUSE_S = 0.001
_LARGEST = "1.7976931348623157e308"  # What is not finite is larger, or NULL.
_PAGE_SIZE = 1024
_SYNCHRONOUS = {"process": "NORMAL", "power": "FULL"}
_COMMITS_BEFORE_LOOK = 64
_BYTES_BEFORE_MERGE = 4_000_000
_MERGE_TIMEOUT_MS = 50
_PAGE = 1000


class SqliteJournal(Journal):
    """A journal in one SQLite file, or in memory when no path is given.

    Not safe for threads by itself: the controller calls it under its own lock.

    Args:
        path: The file; it is made if it does not exist. Its folder must exist.
        durability: What a commit survives: "process", the death of the process, or
            "power", a power cut too, at the price of a sync.

    Raises:
        ValueError: If the durability is none of these.
        JournalError: If the file cannot be opened or written, is damaged, belongs to
            another program, or was written by a newer version of this library.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        durability: str = "process",
    ) -> None:
        if durability not in _SYNCHRONOUS:
            raise ValueError(
                f"durability must be one of {tuple(_SYNCHRONOUS)}, got {durability!r}."
            )
        self._path = None if path is None else pathlib.Path(path)
        self._durability = durability
        self._version = 0
        self._commits = 0
        self._log = self._path and self._path.with_name(f"{self._path.name}-wal")
        if self._path is not None:
            sqlite_file.check(self._path)
        self._open()

    def __enter__(self) -> object:
        self._run("BEGIN IMMEDIATE")
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            if exc[0] is None:
                self._run("COMMIT")
                self._commits += 1
                if self._commits % _COMMITS_BEFORE_LOOK == 0:
                    self._merge()
        finally:
            if self._connection.in_transaction:  # Also when the commit itself failed.
                self._run("ROLLBACK")

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """All that is read within sees the same; nothing inside a transaction."""
        if self._path is None or self._connection.in_transaction:
            yield  # Nobody else writes.
            return
        self._run("BEGIN")
        try:
            yield
        finally:
            self._run("COMMIT")

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

    def add_removal(self, row: int, params: str, reason: str) -> None:
        """Record, after `row`, that checkpoints so far have these params no more."""
        values = (params, row, reason)
        self._run("INSERT OR IGNORE INTO removals VALUES (?, ?, ?)", values)

    def add_loss(self, row: int, lost: str, told: int | None, time: float) -> None:
        """Record, after `row`, which slots are lost."""
        self._run("INSERT INTO losses VALUES (?, ?, ?, ?)", (row, lost, told, time))

    def lost(self) -> tuple[str | None, int]:
        """Which slots are lost, encoded, and how often that has changed."""
        found = self._run(
            "SELECT lost, rowid FROM losses ORDER BY rowid DESC LIMIT 1"
        ).fetchone()
        return found or (None, 0)

    def records(self, after: int = 0, upto: int | None = None) -> Iterator[Record]:
        """All that was recorded after a row, in its order."""
        last = self.tail().row if upto is None else upto
        while after < last:
            page = min(after + _PAGE, last)
            tables = [
                [kind(*row) for row in self._run(sql, (after, page))]
                for kind, sql in queries.RECORDS
            ]
            yield from heapq.merge(*tables, key=lambda record: record.row)
            after = page

    def pulse(self, after: int) -> Pulse:
        """What has changed beside checkpoints, at or after a row."""
        return Pulse(*self._run(queries.PULSE, (after, UNREACHABLE)).fetchone())

    def touched(self, after: int) -> list[tuple[int, int]]:
        """Slots and generations (their rows) with checkpoints recorded after a row."""
        return self._run(queries.TOUCHED, (after,)).fetchall()

    def late_since(self, after: int) -> list[int]:
        """Rows of the checkpoints that came late, in part or whole, after a row."""
        return [row for (row,) in self._run(queries.LATE, (after, after))]

    def removed_since(self, after: int) -> list[str]:
        """The params, encoded, that were found unreachable at or after a row."""
        sql = "SELECT params FROM removals WHERE row >= ? AND reason = ?"
        return [params for (params,) in self._run(sql, (after, UNREACHABLE))]

    def diverged(self) -> list[tuple[int, int]]:
        """Slots with how many values were NaN or infinite, where there are any."""
        return self._run(queries.DIVERGED).fetchall()

    def leases(self, after: int = -1) -> list[LeaseRow]:
        """The leases that have changed since a change, in the order of changes."""
        sql = "SELECT * FROM leases WHERE change > ? ORDER BY change"
        rows = self._run(sql, (after,))
        return [LeaseRow(*row) for row in rows]

    def set_lease(self, lease: LeaseRow) -> None:
        """Replace the lease of a slot."""
        self._run("REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?)", lease)

    def saves(self) -> list[SaveRow]:
        """The params that the store keeps, oldest first."""
        return [SaveRow(*row) for row in self._run("SELECT * FROM saves ORDER BY row")]

    def count_saves(self) -> tuple[int, int]:
        """How many saves there are, and their bytes."""
        sql = "SELECT count(*), coalesce(sum(bytes), 0) FROM saves"
        found: tuple[int, int] = self._run(sql).fetchone()
        return found

    def add_save(self, save: SaveRow) -> None:
        """Note that the store keeps these params."""
        self._run("REPLACE INTO saves VALUES (?, ?, ?, ?, ?)", save)

    def drop_save(self, params: str) -> None:
        """Note that the store keeps them no more."""
        self._run("DELETE FROM saves WHERE params = ?", (params,))

    def add_best(self, row: int, checkpoint: int, reports: int) -> None:
        """Record that a checkpoint has become the best one."""
        self._run("INSERT INTO best VALUES (?, ?, ?)", (row, checkpoint, reports))

    def add_session(self, row: int, time: float, owner: str) -> None:
        """Record that a controller has opened the run after `row`."""
        self._run("INSERT INTO sessions VALUES (?, ?, ?)", (row, time, owner))

    def owners(self) -> list[tuple[int, str]]:
        """The row and the owner of each session, oldest first."""
        sql = "SELECT row, owner FROM sessions WHERE owner NOTNULL ORDER BY rowid"
        return self._run(sql).fetchall()

    def sessions(self) -> list[tuple[float, float]]:
        """When each session began and when its last checkpoint was recorded."""
        return self._run(queries.SESSIONS).fetchall()

    def tail(self) -> Tail:
        """Where the journal ends."""
        return Tail(*self._run(queries.TAIL).fetchone())

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

    def _merge(self) -> None:
        """Merge a log that has grown long into the file, and begin it anew.

        SQLite by itself merges at each commit from some length on, but does not begin
        anew while others read or write: with several busy processes the log only grows,
        and each commit waits for the disk.
        """
        try:
            if self._log is None or self._log.stat().st_size < _BYTES_BEFORE_MERGE:
                return
        except OSError:
            return
        try:
            self._connection.execute(f"PRAGMA busy_timeout={_MERGE_TIMEOUT_MS}")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) and "busy" not in str(error):
                logger.warning("the journal's log could not be merged: %s", error)
        finally:
            self._connection.execute("PRAGMA busy_timeout=0")

    def _open(self) -> None:
        """Connect; while others make or recover the file, look again."""
        try:
            self._waiting(self._connect)
        except sqlite3.Error as error:
            raise sqlite_file.explained(self._path, error) from error

    def _waiting(self, call: Callable[[], Result]) -> Result:
        """The result of a call, once nobody else holds the lock that it needs.

        SQLite itself would look again at longer and longer intervals: with several busy
        processes the lock is then idle most of the time.
        """
        until = time.monotonic() + _BUSY_TIMEOUT_S
        while True:
            try:
                return call()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
            time.sleep(_PAUSE_S)

    def _connect(self) -> None:
        self._connection = sqlite3.connect(
            ":memory:" if self._path is None else self._path,
            timeout=0.0,
            isolation_level=None,
            check_same_thread=False,
        )
        execute = self._connection.execute
        if self._path is not None:
            if execute("PRAGMA application_id").fetchone() == (0,):
                # Before WAL, so that the file itself says whose it is from the start.
                # Small pages: a commit writes each page that it touched as a whole.
                execute(f"PRAGMA page_size={_PAGE_SIZE}")
                execute(f"PRAGMA application_id={sqlite_schema.APPLICATION_ID}")
            execute("PRAGMA journal_mode=WAL")
            execute(f"PRAGMA synchronous={_SYNCHRONOUS[self._durability]}")
            if sys.platform == "darwin" and self._durability == "power":
                execute("PRAGMA fullfsync=ON")  # There an fsync may stay in the disk.
            execute("PRAGMA wal_autocheckpoint=0")  # `_merge` does it.
        execute("PRAGMA cache_size=-32000")  # 32 MB at most, whatever the history
        if execute("PRAGMA user_version").fetchone() != (sqlite_schema.FORMAT,):
            with self:
                sqlite_schema.prepare(self._connection)
        (self._version,) = execute("PRAGMA data_version").fetchone()

    def _run(self, sql: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(sql, values)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise sqlite_file.explained(self._path, error) from error
        except sqlite3.Error as error:
            raise sqlite_file.explained(self._path, error) from error
        try:
            return self._waiting(lambda: self._connection.execute(sql, values))
        except sqlite3.Error as error:
            raise sqlite_file.explained(self._path, error) from error
