"""The connection to a SQLite journal: opening, waiting for others, merging the log."""

from __future__ import annotations

import logging
import os
import pathlib
import sqlite3
import tempfile
import threading
import time
import urllib.parse
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from population.base import codec
from population.base.errors import JournalError, closed
from population.journal import sqlite_file, sqlite_open, sqlite_schema, sqlite_waiting
from population.journal.sqlite_handles import REFUSALS, Handles
from population.journal.sqlite_waiting import is_busy

logger = logging.getLogger("population")
Result = TypeVar("Result")
_COMMITS_BEFORE_MERGE = _ASKED_BEFORE_LOOK = 64
_BYTES_BEFORE_MERGE = 4_000_000
_MERGE_TIMEOUT_MS = 50
_MERGE_EVERY_S = 1.0  # While a reader is in the way: each try costs a sync.


class Connection:
    """Executes SQL on a journal's file, or in memory.

    A file that this user may not write to is opened to look, in a private copy if it
    cannot be read where it lies: then nothing is written to it or beside it.

    Args:
        path: The file; it is made if it does not exist. None: memory.
        durability: "process" or "power": what a commit survives.
        must_exist: Whether a file without tables is refused.
        left: What is left of a run that was recorded there; then it is refused, too.
        look: Whether it is only looked at in any case.

    Attributes:
        path: The file itself, where a link leads; None: memory.
        read_only: Whether the file is only looked at.
        raw: SQLite's own connection.

    Raises:
        JournalError: Here and from any method, if SQLite refuses, or this is closed.
    """

    raw: sqlite3.Connection

    def __init__(
        self,
        path: pathlib.Path | None,
        durability: str,
        must_exist: bool = False,
        left: pathlib.Path | None = None,
        look: bool = False,
    ) -> None:
        self.path = None if path is None else pathlib.Path(os.path.realpath(path))
        self.read_only = self.path is not None and (
            look or sqlite_file.is_protected(self.path)
        )
        self._place = str(path)  # As it was given: a link may be turned elsewhere.
        self._must_exist = must_exist or self.read_only
        self._left = left
        self._durability = durability
        self._commits = self._asked = 0
        self._version: object = None
        self._closed = False
        self._frozen: object = None  # What a file was like that must not change.
        self._merge_after = 0.0
        self._held = Handles(self.path)
        # What is dropped without `close` is closed all the same.
        self._closing = weakref.finalize(self, self._held.close)
        try:
            self._open()
            self.changed()
        except BaseException as error:
            self._closing()
            if isinstance(error, REFUSALS):
                raise sqlite_file.explained(self.path, error) from error
            raise

    def run(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Execute a statement, once no other connection has the lock it needs.

        Returns:
            All its rows: what is damaged shows itself only when it is fetched.
        """
        if self._frozen is not None:
            self._check_frozen()
        try:
            try:
                return self.raw.execute(sql, values).fetchall()
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
            except UnicodeEncodeError:  # An id, say, that none of this journal can be.
                values = tuple(
                    codec.readable(value) if isinstance(value, str) else value
                    for value in values
                )
            return self._waiting(lambda: self.raw.execute(sql, values).fetchall())
        except REFUSALS as error:
            raise self._explained(error) from error

    def run_many(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Execute a statement for each of the rows, within a transaction."""
        try:
            self.raw.executemany(sql, rows)
        except REFUSALS as error:
            raise self._explained(error) from error

    def is_in_transaction(self) -> bool:
        """Whether a transaction is open, to read or to write."""
        return not self._closed and self.raw.in_transaction

    def check_open(self) -> None:
        """Raise a JournalError if this is closed."""
        if self._closed:
            raise closed(self.path)

    def check_writable(self) -> None:
        """Refuse to write to what was opened to look.

        Raises:
            JournalError: Saying what to do.
        """
        if self.read_only:
            raise JournalError(
                f"{self.path} cannot be written by this user: the run was opened to "
                "look. To train, give this user write access to its folder, or go on "
                "in a folder of your own: population.fork(run, new_dir, mutator=...)."
            )

    def transaction(self) -> AbstractContextManager[object]:
        """What is written within is committed at the end, or nothing of it."""
        return self

    def __enter__(self) -> None:
        """Begin a transaction that may write; waits for the write lock."""
        if self.read_only:
            self.check_writable()
        if not self._closed and self.raw.in_transaction:
            self.abandon()  # An interrupt has cut it short.
        try:
            self.run("BEGIN IMMEDIATE")
            if self._held.file is not None:
                self._held.file.writer = threading.get_ident()
        except BaseException:
            if self.is_in_transaction():  # A Ctrl-C: others would wait for the lock.
                self.abandon()
            raise

    def __exit__(self, *exc: object) -> None:
        """End a transaction: commit, or roll back if there was an exception."""
        try:
            if exc[0] is not None:
                return self.abandon()
            self.check_is_there()
            self.run("COMMIT")
            self._commits += 1
            self._held.has_written = True
            if self._held.file is not None:
                self._held.file.writer = None
        except BaseException:
            self.abandon()  # The commit has failed, or a Ctrl-C came before it.
            raise
        if self._commits % _COMMITS_BEFORE_MERGE == 0:
            self._merge()
        return None

    def changed(self) -> bool:
        """Whether another connection has committed since the last call."""
        if self.path is None:
            self.check_open()
            return False  # No other one can reach this memory.
        self._asked += 1
        if self._asked % _ASKED_BEFORE_LOOK == 0:
            self.check_is_there()  # A worker that waits does not write.
        before, ((self._version,),) = self._version, self.run("PRAGMA data_version")
        return bool(before != self._version)

    def abandon(self) -> None:
        """Roll back a transaction if one is still open."""
        try:
            if self.is_in_transaction():
                self.run("ROLLBACK")
        finally:
            if self._held.file is not None:
                self._held.file.writer = None

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._closed = True
        self._held.close()
        self._closing.detach()

    def merge(self) -> None:
        """Merge the whole log into the file, so that this holds everything."""
        ((busy, *_),) = self.run("PRAGMA wal_checkpoint(TRUNCATE)")
        if busy:
            raise JournalError(f"The log of {self.path} is in use by another program.")

    def _check_frozen(self) -> None:
        """Refuse to read a file that SQLite was told would not change, if it has.

        Raises:
            JournalError: If so.
        """
        if self.path is not None and sqlite_file.traits(self.path) != self._frozen:
            raise JournalError(
                f"The run in {self.path} has gone on since it was opened to look. Open "
                "it again to see what is there now."
            )

    def check_is_there(self) -> None:
        """Refuse to go on if the run was removed, moved or replaced meanwhile.

        What is written to the open file would be lost, or parted from its params.

        Raises:
            JournalError: Saying what has become of it.
        """
        file = self._held.file
        if file is None or self._held.copy is not None:
            return
        try:
            found = os.stat(self._place)
        except FileNotFoundError:
            what = "removed or moved"
        except OSError as error:
            raise sqlite_file.unusable(pathlib.Path(self._place), error) from error
        else:
            if (found.st_dev, found.st_ino) == file.identity:
                return
            what = "replaced by another file"
        raise JournalError(
            f"{self.path} was {what} while the run was open, so nothing more is "
            "recorded. Stop this process; start the run again where its journal is "
            "now."
        )

    def _explained(self, error: sqlite3.Error | UnicodeDecodeError) -> JournalError:
        if self._closed:
            return closed(self.path)
        return sqlite_file.explained(self.path, error)

    def _merge(self) -> None:
        """Merge a log that has grown long into the file, and begin it anew.

        SQLite by itself merges at each commit from some length on, but does not begin
        anew while others read or write: with several busy processes the log only grows,
        and each commit waits for the disk. While a program reads in one long
        transaction the log cannot begin anew at all.
        """
        if self.path is None:
            return
        log = sqlite_file.log_of(self.path)
        try:
            size = log.stat().st_size
        except FileNotFoundError:
            raise JournalError(
                f"{log} was removed while the run was open. What was reported "
                "since may be lost: stop, and start the run again."
            ) from None
        if size < _BYTES_BEFORE_MERGE or time.monotonic() < self._merge_after:
            return
        if self._held.file is not None:
            sqlite_file.check(self.path, self._held.file, to_write=False)
        busy = True
        try:
            # PASSIVE never waits; TRUNCATE holds the write lock while it waits.
            checkpoint = "PRAGMA wal_checkpoint"
            _, frames, merged = self.raw.execute(f"{checkpoint}(PASSIVE)").fetchone()
            if merged >= frames:
                self.raw.execute(f"PRAGMA busy_timeout={_MERGE_TIMEOUT_MS}")
                busy, *_ = self.raw.execute(f"{checkpoint}(TRUNCATE)").fetchone()
        except sqlite3.Error as error:  # The commit itself is done.
            if not is_busy(error):
                logger.warning("the journal's log could not be merged: %s", error)
        finally:
            self.raw.execute("PRAGMA busy_timeout=0")
        if busy:
            self._merge_after = time.monotonic() + _MERGE_EVERY_S

    def _waiting(self, call: Callable[[], Result]) -> Result:
        """The result of a call, once no other connection has the lock it needs."""
        return sqlite_waiting.result(call, self.path, self._held.file)

    def _open(self) -> None:
        """Check the file and connect to it."""
        if self.path is None:
            return self._connect(":memory:")
        try:
            create = not self.read_only
            file = sqlite_open.take(self.path, self._held, create=create)
        except OSError as error:
            raise sqlite_file.unusable(self.path, error) from error
        sqlite_file.check(self.path, file, to_write=not self.read_only)
        if not self.read_only:
            return self._waiting(lambda: self._connect(str(self.path)))
        if self._looks_in_place(self.path):
            return None
        self._held.copy = tempfile.mkdtemp(prefix="population-")
        target = pathlib.Path(self._held.copy, self.path.name)
        sqlite_file.copy(self.path, file, self._held.raw, target)
        return self._waiting(lambda: self._connect(str(target)))

    def _looks_in_place(self, path: pathlib.Path) -> bool:
        """Whether a file that must not be written can be read where it lies.

        If its log cannot be read without a file beside it, or if its format is an older
        one, it takes a copy.
        """
        way = sqlite_file.way_to_look(path)
        if way is None:
            return False
        place = f"file:{urllib.parse.quote(str(path))}?{way}"
        try:
            self._waiting(lambda: self._link(place))
            (version,) = self.raw.execute("PRAGMA user_version").fetchone()
            empty = not sqlite_schema.has_tables(self.raw)
        except sqlite3.OperationalError:
            if self._held.raw is not None:
                self._held.raw.close()
                self._held.raw = None
            return False
        if "immutable" in way:
            self._frozen = sqlite_file.traits(path)
        if empty:
            raise self._no_run()
        if version != sqlite_schema.FORMAT:
            return False
        sqlite_schema.check(self.raw, path)
        return True

    def _link(self, place: str) -> None:
        if self._held.raw is not None:
            self._held.raw.close()  # Of a try that failed.
        self.raw = self._held.raw = sqlite3.connect(
            place,
            timeout=0.0,
            isolation_level=None,
            check_same_thread=False,
            uri=place.startswith("file:"),
        )
        self.raw.execute("PRAGMA trusted_schema=OFF")
        self.raw.execute("PRAGMA cache_size=-32000")  # 32 MB, whatever the history

    def _connect(self, place: str) -> None:
        """Connect to a file that may be written, and bring it up to this format."""
        self._link(place)
        if self.path is not None:
            if self._must_exist or self._left is not None:
                self._check_tables()  # Before it is written to.
            sqlite_schema.choose_settings(self.raw, self._durability)
        version = self.raw.execute("PRAGMA user_version").fetchone()
        if version != (sqlite_schema.FORMAT,):
            self._prepare()
        elif self.path is not None:
            sqlite_schema.check(self.raw, self.path)

    def _check_tables(self) -> None:
        """Refuse a file without tables, unless another process is just making them."""
        if not sqlite_schema.has_tables(self.raw):
            self.raw.execute("BEGIN IMMEDIATE")  # Then their maker has committed.
            self.raw.execute("ROLLBACK")
            if not sqlite_schema.has_tables(self.raw):
                raise self._no_run()

    def _no_run(self) -> JournalError:
        """The error of a file without tables that must have some."""
        if self._left is not None:
            return sqlite_file.incomplete(self.path, "empty", self._left)
        return JournalError(
            f"{self.path} holds no run yet. Name the log_dir of a run that was begun."
        )

    def _prepare(self) -> None:
        """Make the tables, or bring an older format up to this one."""
        self.raw.execute("BEGIN IMMEDIATE")
        try:
            if self.path is not None and not sqlite_schema.has_tables(self.raw):
                sqlite_file.check_log(self.path)
            sqlite_schema.prepare(self.raw, self.path)
            if self.path is not None:
                sqlite_schema.check(self.raw, self.path)
        except BaseException:
            self.raw.execute("ROLLBACK")
            raise
        self.raw.execute("COMMIT")
        self._held.has_written = True
