"""The embedded journal: one SQLite file, or memory.

A file is in WAL mode. With `synchronous=NORMAL` a commit survives the death of the
process, with FULL a power cut too. `docs/on-disk-format.md` describes the tables.
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
        must_exist: Whether a file without a run is refused, and left as it is.
        left: What is left of a run that was recorded in a file which is gone: a new run
            is then not begun.
        look: Whether the file is only looked at, as if it could not be written.

    Raises:
        ValueError: `durability` is not one of the two.
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
        file = folder and folder / os.path.basename(path or "")
        super().__init__(file, durability, must_exist, left, look)

    def reading(self) -> AbstractContextManager[object]:
        """All that is read within sees the same; nothing new within a transaction."""
        self.check_open()
        # No other connection writes to a memory.
        return contextlib.nullcontext() if self.path is None else _Reading(self)


class _Reading:
    """Sees one state of the file, until the end of the outermost one."""

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
            self._link.run("ROLLBACK")  # It has only read.
