"""The connection to a SQLite journal: opening, waiting for others, merging the log."""

from __future__ import annotations

import collections
import logging
import pathlib
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from population.errors import JournalError
from population.journals import sqlite_file, sqlite_schema

logger = logging.getLogger("population")
Result = TypeVar("Result")
BUSY_TIMEOUT_S = 60.0
SYNCHRONOUS = {"process": "NORMAL", "power": "FULL"}
_PAUSE_S = 0.001
_PAGE_SIZE = 1024
_COMMITS_BEFORE_LOOK = 64
_BYTES_BEFORE_MERGE = 4_000_000
_MERGE_TIMEOUT_MS = 50

# Whoever opens a database beside SQLite, and closes it, takes from the whole process
# the locks that SQLite holds on it: others would delete the log under our feet.
_OPEN: collections.Counter[object] = collections.Counter()
_OPENING = threading.Lock()


def _identity(path: pathlib.Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Connection:
    """Executes SQL on a journal's file, or in memory.

    Args:
        path: The file; it is made if it does not exist. None: memory.
        durability: A key of `SYNCHRONOUS`.

    Attributes:
        path: The same.
        raw: SQLite's own connection.

    Raises:
        JournalError: Here and from any method, if SQLite refuses.
    """

    raw: sqlite3.Connection

    def __init__(self, path: pathlib.Path | None, durability: str) -> None:
        self.path = path
        self._durability = durability
        self._commits = 0
        self._closed = False
        self._log = path and path.with_name(f"{path.name}-wal")
        with _OPENING:
            if path is not None and not _OPEN.get(_identity(path)):
                sqlite_file.check(path)
            try:
                self._waiting(self._connect)
            except sqlite3.Error as error:
                raise sqlite_file.explained(path, error) from error
            self._identity = None if path is None else _identity(path)
            _OPEN[self._identity] += 1

    def run(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Execute a statement, once nobody else holds the lock that it needs.

        Returns:
            All its rows: what is damaged shows itself only when it is fetched.
        """
        try:
            return self.raw.execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise sqlite_file.explained(self.path, error) from error
        except sqlite3.Error as error:
            raise sqlite_file.explained(self.path, error) from error
        try:
            return self._waiting(lambda: self.raw.execute(sql, values).fetchall())
        except sqlite3.Error as error:
            raise sqlite_file.explained(self.path, error) from error

    def one(self, sql: str, values: tuple[Any, ...] = ()) -> Any:
        """The first row of a statement's result; None without one."""
        return next(iter(self.run(sql, values)), None)

    def end(self, *, commit: bool) -> None:
        """End a transaction."""
        try:
            if commit:
                self.run("COMMIT")
                self._commits += 1
                if self._commits % _COMMITS_BEFORE_LOOK == 0:
                    self._merge()
        finally:
            if self.raw.in_transaction:  # Also when the commit itself failed.
                self.run("ROLLBACK")

    def close(self) -> None:
        """Close the file; a second time is nothing."""
        with _OPENING:
            if self._identity in _OPEN and not self._closed:
                self._closed = True
                _OPEN[self._identity] -= 1
            self.raw.close()

    def merge_all(self) -> None:
        """Merge the whole log into the file, so that this holds everything."""
        busy, *_ = self.one("PRAGMA wal_checkpoint(TRUNCATE)")
        if busy:
            raise JournalError(f"The log of {self.path} is in use by somebody else.")

    def version(self) -> int:
        """Another number whenever another connection has committed."""
        (version,) = self.one("PRAGMA data_version")
        return int(version)

    def _merge(self) -> None:
        """Merge a log that has grown long into the file, and begin it anew.

        SQLite by itself merges at each commit from some length on, but does not begin
        anew while others read or write: with several busy processes the log only grows,
        and each commit waits for the disk.
        """
        if self._log is None:
            return
        try:
            size = self._log.stat().st_size
        except FileNotFoundError:
            raise JournalError(
                f"{self._log} was removed while the run was open. What was reported "
                "since may be lost: stop, and start the run again."
            ) from None
        if size < _BYTES_BEFORE_MERGE:
            return
        try:
            self.raw.execute(f"PRAGMA busy_timeout={_MERGE_TIMEOUT_MS}")
            self.raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) and "busy" not in str(error):
                logger.warning("the journal's log could not be merged: %s", error)
        finally:
            self.raw.execute("PRAGMA busy_timeout=0")

    def _waiting(self, call: Callable[[], Result]) -> Result:
        """The result of a call, once nobody else holds the lock that it needs.

        SQLite itself would look again at longer and longer intervals: with several busy
        processes the lock is then idle most of the time.
        """
        until = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                return call()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
            time.sleep(_PAUSE_S)

    def _connect(self) -> None:
        if hasattr(self, "raw"):
            self.raw.close()  # Of a try that failed.
        self.raw = sqlite3.connect(
            ":memory:" if self.path is None else self.path,
            timeout=0.0,
            isolation_level=None,
            check_same_thread=False,
        )
        execute = self.raw.execute
        if self.path is not None:
            if execute("PRAGMA application_id").fetchone() == (0,):
                # Before WAL, so that the file itself says whose it is from the start.
                # Small pages: a commit writes each page that it touched as a whole.
                execute(f"PRAGMA page_size={_PAGE_SIZE}")
                execute(f"PRAGMA application_id={sqlite_schema.APPLICATION_ID}")
            execute("PRAGMA journal_mode=WAL")
            execute(f"PRAGMA synchronous={SYNCHRONOUS[self._durability]}")
            if sys.platform == "darwin" and self._durability == "power":
                execute("PRAGMA fullfsync=ON")  # There an fsync may stay in the disk.
            execute("PRAGMA wal_autocheckpoint=0")  # `_merge` does it.
        execute("PRAGMA cache_size=-32000")  # 32 MB at most, whatever the history
        if execute("PRAGMA user_version").fetchone() != (sqlite_schema.FORMAT,):
            self._prepare()

    def _prepare(self) -> None:
        """Make the tables, or bring an older format up to this one."""
        self.raw.execute("BEGIN IMMEDIATE")
        try:
            sqlite_schema.prepare(self.raw)
        except BaseException:
            self.raw.execute("ROLLBACK")
            raise
        self.raw.execute("COMMIT")
