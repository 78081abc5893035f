"""Merges the log of a SQLite file, in a thread, as that waits for the disk."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import sqlite3
import threading
import time
import urllib.parse
from collections.abc import Callable

from population.base.errors import JournalError
from population.journal import sqlite_file, sqlite_schema
from population.journal.sqlite_waiting import is_busy

logger = logging.getLogger("population")
THREAD = "population-merger"
_BYTES_BEFORE_MERGE = 4_000_000
_PASSES = 8
_BUSY_MS = 50
# While a reader blocks the merge: a short look soon ends, but each try costs a sync.
_SOON_S, _EVERY_S = 0.05, 1.0


class Merger:
    """Merges a long log into its file, and truncates it.

    SQLite by itself merges at each commit from some length on, but does not restart the
    log while others read or write: with several busy processes it only grows, and each
    commit waits for the disk. While a program reads in one long transaction the log
    cannot be truncated at all.

    Args:
        path: The file.
        durability: A key of `sqlite_schema.SYNCHRONOUS`.
    """

    def __init__(self, path: pathlib.Path, durability: str) -> None:
        self._path = path
        self._durability = durability
        self._after, self._pause_s = 0.0, _SOON_S
        self._thread: threading.Thread | None = None

    def merge_if_long(self, check: Callable[[], object]) -> None:
        """Start to merge the log if it is long, and was not just tried.

        Args:
            check: Called before; it raises if the file must not be written.

        Raises:
            JournalError: The log was removed.
        """
        log = sqlite_file.log_of(self._path)
        try:
            size = log.stat().st_size
        except FileNotFoundError:
            raise JournalError(
                f"{log} was removed while the run was open. What was reported "
                "since may be lost: stop, and start the run again."
            ) from None
        is_merging = self._thread is not None and self._thread.is_alive()
        if size < _BYTES_BEFORE_MERGE or is_merging or time.monotonic() < self._after:
            return
        check()
        self._thread = threading.Thread(target=self._merge, name=THREAD, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # No further thread: the commit itself is done.
            logger.warning("the journal's log could not be merged: %s", error)
            self._thread, self._after = None, time.monotonic() + _EVERY_S

    def wait(self) -> None:
        """Wait for the merge that is going on."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        if thread.is_alive():
            thread.join()

    def _merge(self) -> None:
        """Merge the log through a connection of its own."""
        is_merged = False
        try:
            with contextlib.closing(self._connection()) as link:
                is_merged = _merged(link)
        except sqlite3.Error as error:  # The commits themselves are done.
            if not is_busy(error):
                logger.warning("the journal's log could not be merged: %s", error)
        if is_merged:
            self._pause_s = _SOON_S
        else:
            self._after = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _EVERY_S)

    def _connection(self) -> sqlite3.Connection:
        place = f"file:{urllib.parse.quote(os.fsencode(self._path))}?mode=rw"
        link = sqlite3.connect(place, uri=True, timeout=0.0, isolation_level=None)
        try:
            sqlite_schema.choose_settings(link, self._durability)
        except BaseException:
            link.close()
            raise
        return link


def _merged(link: sqlite3.Connection) -> bool:
    """Merge the log and truncate it; return whether that was possible."""
    for _ in range(_PASSES):
        # PASSIVE never waits; TRUNCATE holds the write lock while it waits.
        _, frames, done = link.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if 2 * done < frames:
            return False  # A reader needs the rest.
        if 8 * (frames - done) <= frames:
            break  # Writers have added only a little since.
    link.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    busy, *_ = link.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy
