"""The embedded journal: one SQLite file, or memory.

A file is in WAL mode. With `synchronous=NORMAL` a commit survives the death of the
process, with FULL a power cut too. With NORMAL a power cut costs the newest commits,
but none before the last `sync`. `docs/on-disk-format.md` describes the tables.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from contextlib import AbstractContextManager

from population.base.run_paths import run_folder
from population.journal.sql import SqlJournal
from population.journal.sqlite_connection import Connection
from population.journal.sqlite_schema import SYNCHRONOUS


class SqliteJournal(Connection, SqlJournal):
    """A journal in one SQLite file, or in memory when no path is given.

    Args:
        path: The file; it is made if it does not exist. Its folder must exist.
        durability: What a commit survives: "process", the death of the process, or
            "power", a power cut too, at the price of a sync.
        must_exist: Whether to refuse a file without a run, and leave it unchanged.
        left: A remaining file or folder of a run whose journal is missing: then this
            refuses to begin a new run.
        look: Whether to open the file read-only even if it could be written.

    Raises:
        ValueError: `durability` is not one of the two.
        JournalError: The file cannot be opened or written, is damaged, belongs to
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
        file = folder and folder / os.path.basename(path or "")
        super().__init__(file, durability, must_exist, left, look)

    def reading(self) -> AbstractContextManager[object]:
        """Return a context in which all reads see the same snapshot."""
        self.check_open()
        # No other connection can write to a journal in memory.
        return contextlib.nullcontext() if self.path is None else _Reading(self)


class _Reading:
    """Keeps one snapshot of the file until the outermost of these contexts ends."""

    def __init__(self, link: Connection) -> None:
        self._link = link
        self._began = False

    def __enter__(self) -> None:
        self._began = not self._link.is_in_transaction()
        if self._began:
            try:
                self._link.run("BEGIN")
            except BaseException:
                self.__exit__()
                raise

    def __exit__(self, *exc: object) -> None:
        if self._began and self._link.is_in_transaction():
            self._link.run("ROLLBACK")  # It has written nothing.
