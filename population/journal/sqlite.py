"""The embedded journal: one SQLite file, or memory.

A file is in WAL mode. With `synchronous=NORMAL` a commit survives the death of the
process, with FULL a power cut too. `docs/on-disk-format.md` describes the tables.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from population.base.codec import HELD
from population.base.errors import damaged
from population.base.run_paths import run_folder
from population.journal import sqlite_queries as queries
from population.journal import sqlite_rows, sqlite_schema
from population.journal.base import Journal
from population.journal.records import (
    NUMBERED,
    UNREACHABLE,
    CheckpointRow,
    GenerationRow,
    LeaseRow,
    Pulse,
    Record,
    SaveRow,
    Tail,
)
from population.journal.sqlite_connection import Connection
from population.journal.sqlite_rows import checked
from population.journal.sqlite_schema import SYNCHRONOUS

_LARGEST = "1.7976931348623157e308"  # What is not finite is larger, or NULL.
_PAGE = 1000
_AT_ONCE = 300  # Rows of three columns: SQLite may allow no more than 999 values.


class SqliteJournal(Journal):
    """A journal in one SQLite file, or in memory when no path is given.

    Not safe for threads by itself: the controller calls it under its own lock.

    Args:
        path: The file; it is made if it does not exist. Its folder must exist.
        durability: What a commit survives: "process", the death of the process, or
            "power", a power cut too, at the price of a sync.
        must_exist: Whether a file without a run is refused, and left as it is.
        left: What is left of a run that was recorded in a file which is gone: a new run
            is then not begun.
        look: Whether the file is only looked at, as if it could not be written.

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
        must_exist: bool = False,
        left: pathlib.Path | None = None,
        look: bool = False,
    ) -> None:
        if durability not in SYNCHRONOUS:
            raise ValueError(
                f"durability must be one of {tuple(SYNCHRONOUS)}, got {durability!r}."
            )
        folder = None if path is None else run_folder(os.path.dirname(path), "path")
        self._path = folder and folder / os.path.basename(path or "")
        self._link = Connection(self._path, durability, must_exist, left, look)
        self.read_only = self._link.read_only
        self._connection = self._link.raw
        self._run, self._one = self._link.run, self._link.one
        self._version = self._link.version()

    def __enter__(self) -> object:
        self._link.begin()
        return self

    def __exit__(self, *exc: object) -> None:
        self._link.end(commit=exc[0] is None)

    def abandon(self) -> bool:
        """Roll back what an interrupted call has left open; whether there was any."""
        return self._link.abandon()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """All that is read within sees the same; nothing inside a transaction."""
        if self._path is None or self._connection.in_transaction:
            yield  # Nobody else writes.
            return
        try:
            self._run("BEGIN")
            yield
        finally:
            if self._connection.in_transaction:
                self._run("ROLLBACK")  # It has only read.

    def check_writable(self) -> None:
        """Refuse to write to what was opened to look."""
        self._link.check_writable()

    def close(self) -> None:
        """Close the file."""
        self._link.close()

    def merge(self) -> None:
        """Put all into the one file, so that it can be moved once this is closed."""
        self._link.merge_all()

    def changed(self) -> bool:
        """Whether another connection has committed since the last call."""
        if self._path is None:
            return False  # Nobody else can reach this memory.
        version = self._link.version()
        if version == self._version:
            return False
        self._version = version
        return True

    def facts(self) -> dict[str, str]:
        """What is fixed about the run, encoded; empty for a new one."""
        rows = self._run("SELECT key, value FROM facts")
        return {
            sqlite_rows.text(key, "a fact"): sqlite_rows.text(value, f"the fact {key}")
            for key, value in rows
        }

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

    def rejected(self) -> list[str]:
        """The params, encoded, that workers have rejected."""
        sql = "SELECT params FROM removals WHERE reason <> ?"
        return self._texts(sql, (UNREACHABLE,))

    def count_saves(self) -> tuple[int, int]:
        """How many saves there are, and their bytes."""
        sql = (
            "SELECT count(*), coalesce(sum(bytes), 0) FROM saves WHERE generation > ''"
        )
        count, size = sqlite_rows.numbers(self._one(sql), "the sizes of the saves")
        return count, size

    def trained_since(self, row: int) -> list[str]:
        """The generations that slots were at after a row, present ones included."""
        rows = self._run(queries.TRAINED, (row, row))
        return [sqlite_rows.generation_id(name) for (name,) in rows]

    def remove(
        self, removals: Sequence[tuple[int, str, str]], *, saved: bool = True
    ) -> None:
        """Record removals; such saves are kept no more."""
        for start in range(0, len(removals), _AT_ONCE):
            some = removals[start : start + _AT_ONCE]
            places = ", ".join(["(?, ?, ?)"] * len(some))
            values = [x for row, params, reason in some for x in (params, row, reason)]
            self._run(f"INSERT OR IGNORE INTO removals VALUES {places}", tuple(values))
        if saved:
            for _, params, _ in removals:
                self._run("DELETE FROM saves WHERE params = ?", (params,))

    def add_loss(self, row: int, lost: str, told: int | None, time: float) -> None:
        """Record, after `row`, which slots are lost."""
        self._run("INSERT INTO losses VALUES (?, ?, ?, ?)", (row, lost, told, time))

    def lost(self) -> tuple[str | None, int]:
        """Which slots are lost, encoded, and how often that has changed."""
        found = self._one("SELECT lost, rowid FROM losses ORDER BY rowid DESC LIMIT 1")
        if found is None:
            return None, 0
        return sqlite_rows.text(found[0], "which slots are lost"), found[1]

    def records(self, after: int = 0, upto: int | None = None) -> Iterator[Record]:
        """All that was recorded after a row, in its order."""
        last = self.tail().row if upto is None else upto
        while after < last:
            page = min(after + _PAGE, last)
            tables = [
                [checked(kind, row) for row in self._run(sql, (after, page))]
                for kind, sql in queries.RECORDS
            ]
            for record in heapq.merge(*tables, key=lambda record: record.row):
                if isinstance(record, NUMBERED):
                    after += 1
                    if record.row != after:
                        raise damaged(f"row {after} is missing or there twice")
                yield record
            if after != page:
                raise damaged(f"row {after + 1} is missing")

    def pulse(self, after: int) -> Pulse:
        """What has changed beside checkpoints, at or after a row."""
        return checked(Pulse, self._one(queries.PULSE, (after, UNREACHABLE)))

    def touched(self, after: int) -> list[tuple[int, int]]:
        """Slots and generations (their rows) with checkpoints recorded after a row."""
        rows = self._run(queries.TOUCHED, (after,))
        return [(w, g) for w, g in (sqlite_rows.numbers(r, "slots") for r in rows)]

    def late_since(self, after: int) -> list[int]:
        """Rows of the checkpoints that came late, in part or whole, after a row."""
        rows = self._run(queries.LATE, (after, after))
        return [row for r in rows for row in sqlite_rows.numbers(r, "late rows")]

    def removed_since(self, after: int) -> list[str]:
        """The params, encoded, that were found unreachable at or after a row."""
        sql = "SELECT params FROM removals WHERE row >= ? AND reason = ?"
        return self._texts(sql, (after, UNREACHABLE))

    def diverged(self) -> list[tuple[int, int]]:
        """Slots with how many values were NaN or infinite, where there are any."""
        rows = self._run(queries.DIVERGED)
        return [(w, n) for w, n in (sqlite_rows.numbers(r, "slots") for r in rows)]

    def progress(self, after: int) -> tuple[bool, bool, bool]:
        """What has come after a row: a finite value, another one, a higher step."""
        found = self._one(queries.PROGRESS, (after,)) or (0, 0, 0)
        return bool(found[0]), bool(found[1]), bool(found[2])

    def leases(self, after: int = -1) -> list[LeaseRow]:
        """The leases that have changed since a change, in the order of changes."""
        sql = "SELECT * FROM leases WHERE change > ? ORDER BY change"
        rows = self._run(sql, (after,))
        return [checked(LeaseRow, row) for row in rows]

    def set_lease(self, lease: LeaseRow) -> None:
        """Replace the lease of a slot."""
        self._run("REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?)", lease)

    def saves(self) -> list[SaveRow]:
        """The params that the store keeps, oldest first."""
        rows = self._run("SELECT * FROM saves ORDER BY row")
        return [checked(SaveRow, row) for row in rows]

    def add_save(self, save: SaveRow) -> None:
        """Note that the store keeps these params."""
        self._run("REPLACE INTO saves VALUES (?, ?, ?, ?, ?)", save)

    def add_best(self, row: int, checkpoint: int, reports: int) -> None:
        """Record that a checkpoint has become the best one."""
        self._run("INSERT INTO best VALUES (?, ?, ?)", (row, checkpoint, reports))

    def add_session(self, row: int, time: float, owner: str) -> None:
        """Record that a controller has opened the run after `row`."""
        self._run("INSERT INTO sessions VALUES (?, ?, ?)", (row, time, owner))

    def owners(self) -> list[tuple[int, str]]:
        """The row and the owner of each session, oldest first."""
        sql = "SELECT row, owner FROM sessions WHERE owner NOTNULL ORDER BY rowid"
        rows = self._run(sql)
        places = sqlite_rows.numbers((row for row, _ in rows), "rows of sessions")
        texts = [sqlite_rows.text(owner, "an owner") for _, owner in rows]
        return list(zip(places, texts, strict=True))

    def sessions(self) -> list[tuple[float, float]]:
        """When each session began and when its last checkpoint was recorded."""
        rows = self._run(queries.SESSIONS)
        times = (sqlite_rows.seconds(row, "times of sessions") for row in rows)
        return [(begin, end) for begin, end in times]

    def tail(self) -> Tail:
        """Where the journal ends."""
        return checked(Tail, self._one(queries.TAIL))

    def state(self) -> tuple[str, int] | None:
        """The mutator's state, encoded, and how many decisions were made."""
        row = self._one("SELECT state, decisions, checksum FROM state")
        if row is None:
            return None
        decisions, checksum = sqlite_rows.numbers(row[1:], "the decisions")
        state = sqlite_rows.text(row[0], "the mutator's state")
        if checksum != sqlite_schema.checksum(state, decisions):
            raise damaged("the mutator's state is not as it was recorded")
        return state, decisions

    def set_state(self, state: str, decisions: int) -> None:
        """Replace the mutator's state."""
        row = state, decisions, sqlite_schema.checksum(state, decisions)
        self._run("REPLACE INTO state VALUES (0, ?, ?, ?)", row)

    def generation(self, generation_id: str) -> GenerationRow | None:
        """The generation of that id."""
        row = self._one(
            "SELECT * FROM generations WHERE generation_id = ?", (generation_id,)
        )
        return row and checked(GenerationRow, row)

    def newest_generation(self, worker_id: int) -> GenerationRow | None:
        """The slot's present generation."""
        row = self._one(
            "SELECT * FROM generations WHERE worker_id = ? "
            "ORDER BY number DESC LIMIT 1",
            (worker_id,),
        )
        return row and checked(GenerationRow, row)

    def generation_ids(self, digest: str | None = None) -> list[str]:
        """All generations in order, or those with equal meta_params."""
        if digest is None:
            rows = self._run("SELECT generation_id FROM generations ORDER BY row")
        else:
            rows = self._run(
                "SELECT generation_id FROM generations WHERE digest = ? ORDER BY row",
                (digest,),
            )
        return [sqlite_rows.generation_id(name) for (name,) in rows]

    def checkpoint(self, row: int) -> CheckpointRow | None:
        """The checkpoint of that row."""
        found = self._one("SELECT * FROM history WHERE row = ?", (row,))
        return found and sqlite_rows.checkpoint(found)

    def had_params(self, row: int) -> bool:
        """Whether the checkpoint ever had params but held ones, removed or not."""
        values = (row, len(HELD), HELD, row)
        return self._one(queries.HAD_PARAMS, values) is not None

    def was_held(self, row: int) -> bool:
        """Whether the checkpoint was reported with params that a process held."""
        return self._one(queries.WAS_HELD, (row, len(HELD), HELD)) is not None

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
        return [sqlite_rows.checkpoint(row) for row in rows]

    def newest(
        self,
        generation_id: str,
        high: int,
        *,
        value: bool,
        params: bool,
        finite: bool,
        decides: bool = False,
    ) -> CheckpointRow | None:
        """A generation's newest checkpoint with `step <= high` that fits."""
        found = self._one(
            "SELECT * FROM history WHERE generation = "
            "(SELECT row FROM generations WHERE generation_id = ?) AND step <= ?"
            + (" AND has_value" if value else "")
            + (" AND params IS NOT NULL" if params else "")
            + (f" AND (NOT has_value OR abs(value) <= {_LARGEST})" if finite else "")
            + (f" AND has_value AND {queries.SAVED_OR_DIVERGED}" if decides else "")
            + " ORDER BY step DESC LIMIT 1",
            (generation_id, high),
        )
        return found and sqlite_rows.checkpoint(found)

    def history(self, after: int, limit: int) -> list[CheckpointRow]:
        """The next checkpoints after a row, in the order in which they came."""
        rows = self._run(
            "SELECT * FROM history WHERE row > ? ORDER BY row LIMIT ?", (after, limit)
        )
        return [sqlite_rows.checkpoint(row) for row in rows]

    def _texts(self, sql: str, values: tuple[Any, ...]) -> list[str]:
        """The only column of the rows that a statement finds."""
        rows = self._run(sql, values)
        return [sqlite_rows.text(value, "the name of params") for (value,) in rows]
