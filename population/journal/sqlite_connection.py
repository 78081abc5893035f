"""The connection to a SQLite journal: it opens the file and waits for locks."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import sqlite3
import tempfile
import threading
import urllib.parse
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from population.base import codec, durable
from population.base.errors import JournalError, closed
from population.journal import sqlite_file, sqlite_open, sqlite_schema, sqlite_waiting
from population.journal.sqlite_handles import REFUSALS, Handles
from population.journal.sqlite_merging import Merger
from population.journal.sqlite_waiting import is_busy

logger = logging.getLogger("population")
Result = TypeVar("Result")
_COMMITS_BEFORE_MERGE = _ASKED_BEFORE_LOOK = 64


class Connection:
    """Executes SQL on a journal's file, or in memory.

    It opens a file that this user cannot write to as read-only, in a private copy if it
    cannot be read in its place: then it writes neither to the file nor beside it.

    Args:
        path: The file; it is made if it does not exist. None: memory.
        durability: "process" or "power": what a commit survives.
        must_exist: Whether to refuse a file without tables.
        left: A remaining file or folder of a run; then it refuses such a file, too.
        look: Whether to open the file read-only in any case.

    Attributes:
        path: The file, with links resolved; None: memory.
        read_only: Whether the file is open only for reading.
        raw: The connection of Python's `sqlite3`.

    Raises:
        JournalError: Here and from any method: SQLite has failed, or this is closed.
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
        self._place = str(path)  # As given: a link may later have another target.
        self._must_exist = must_exist or self.read_only
        self._left = left
        self.durability = durability
        self._commits = self._asked = 0
        self._version: object = None
        self._closed = self._is_named = False  # Whether the log's name is synced.
        self._frozen: object = None  # The traits of a file that must not change.
        self._held = Handles(self.path)
        # Closes the handles even if the object is deleted without `close`.
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
        """Execute a statement; wait for the lock that it needs.

        Returns:
            All its rows, as SQLite notices damage only when it fetches them.
        """
        if self._frozen is not None:
            self._check_frozen()
        try:
            try:
                return self.raw.execute(sql, values).fetchall()
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
            except UnicodeEncodeError:  # Such an id cannot be in this journal.
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
        """Refuse to write to a journal that is read-only.

        Raises:
            JournalError: The journal is read-only; the message says what to do.
        """
        if self.read_only:
            raise JournalError(
                f"{self.path} cannot be written by this user: the run was opened to "
                "look. To train, give this user write access to its folder, or go on "
                "in a folder of your own: population.fork(run, new_dir, mutator=...)."
            )

    def transaction(self) -> AbstractContextManager[object]:
        """Return a context that commits all that is written in it, or nothing."""
        return self

    def __enter__(self) -> None:
        """Begin a transaction that may write; waits for the write lock."""
        if self.read_only:
            self.check_writable()
        if not self._closed and self.raw.in_transaction:
            self.abandon()  # An interrupt has left it open.
        try:
            self.run("BEGIN IMMEDIATE")
            if self._held.file is not None:
                self._held.file.writer = threading.get_ident()
        except BaseException:
            if self.is_in_transaction():  # After a Ctrl-C: release the lock.
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
            self._merge_if_long()
        return None

    def changed(self) -> bool:
        """Whether another connection has committed since the last call."""
        if self.path is None:
            self.check_open()
            return False  # No other connection can reach this memory.
        self._asked += 1
        if self._asked % _ASKED_BEFORE_LOOK == 0:
            self.check_is_there()  # A waiting worker writes nothing that would check.
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

    def sync(self) -> None:
        """Wait until all that was committed would survive a power cut.

        Any thread may call it, beside calls of another one: it syncs the log alone, as
        SQLite syncs the file itself whenever it writes to it.
        """
        if self.path is None or self.read_only:
            return
        try:
            with contextlib.suppress(FileNotFoundError):  # A close has merged it.
                durable.sync(sqlite_file.log_of(self.path))
            if not self._is_named:
                durable.sync(self.path.parent)
                self._is_named = True
        except OSError as error:
            raise sqlite_file.unusable(self.path, error) from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._closed = True
        self._held.close()
        self._closing.detach()

    def merge(self) -> None:
        """Merge the whole log into the file, so that the file alone is complete."""
        ((busy, *_),) = self.run("PRAGMA wal_checkpoint(TRUNCATE)")
        if busy:
            raise JournalError(f"The log of {self.path} is in use by another program.")

    def _check_frozen(self) -> None:
        """Refuse to read a file that was opened as immutable and has changed.

        Raises:
            JournalError: The file has changed.
        """
        if self.path is not None and sqlite_file.traits(self.path) != self._frozen:
            raise JournalError(
                f"The run in {self.path} has gone on since it was opened to look. Open "
                "it again to see what is there now."
            )

    def check_is_there(self) -> None:
        """Refuse to continue if the file was removed, moved or replaced meanwhile.

        Later writes to the open file would be lost, or separated from their params.

        Raises:
            JournalError: The path has no file, or another one; the message says which.
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

    def _merge_if_long(self) -> None:
        """Start to merge a long log into the file."""
        path, file, merger = self.path, self._held.file, self._held.merger
        if path is not None and file is not None and merger is not None:
            merger.merge_if_long(lambda: sqlite_file.check(path, file, to_write=False))

    def _waiting(self, call: Callable[[], Result]) -> Result:
        """Return the result of a call; wait for the lock that it needs."""
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
        """Try to open a file in its place without writing; return whether that works.

        It needs a copy if its log cannot be read without a new file beside it, or if
        its format is an older one.
        """
        way = sqlite_file.way_to_look(path)
        if way is None:
            return False
        place = f"file:{urllib.parse.quote(os.fsencode(path))}?{way}"
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
            self._held.raw.close()  # From a failed try.
        self.raw = self._held.raw = sqlite3.connect(
            place,
            timeout=0.0,
            isolation_level=None,
            check_same_thread=False,
            uri=place.startswith("file:"),
        )
        self.raw.execute("PRAGMA trusted_schema=OFF")
        self.raw.execute("PRAGMA cache_size=-32000")  # 32 MB, for any length of history

    def _connect(self, place: str) -> None:
        """Connect to a writable file, and upgrade it to this format."""
        self._link(place)
        if self.path is not None:
            self._held.merger = Merger(self.path, self.durability)
            if self._must_exist or self._left is not None:
                self._check_tables()  # Before the first write.
            sqlite_schema.choose_settings(self.raw, self.durability)
        version = self.raw.execute("PRAGMA user_version").fetchone()
        if version != (sqlite_schema.FORMAT,):
            self._prepare()
        elif self.path is not None:
            sqlite_schema.check(self.raw, self.path)

    def _check_tables(self) -> None:
        """Refuse a file without tables, unless another process is just making them."""
        if not sqlite_schema.has_tables(self.raw):
            self.raw.execute("BEGIN IMMEDIATE")  # Waits for the commit of that process.
            self.raw.execute("ROLLBACK")
            if not sqlite_schema.has_tables(self.raw):
                raise self._no_run()

    def _no_run(self) -> JournalError:
        """Return the error for a file without tables that must have some."""
        if self._left is not None:
            return sqlite_file.incomplete(self.path, "empty", self._left)
        return JournalError(
            f"{self.path} holds no run yet. Name the log_dir of a run that was begun."
        )

    def _prepare(self) -> None:
        """Create the tables, or upgrade an older format to this one."""
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
        self.sync()  # A power cut must not leave a file without tables.
