"""The files and connections that a SQLite journal has open, and how to close them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import sqlite3
import urllib.parse

from population.base.errors import JournalError
from population.journal import sqlite_file
from population.journal.sqlite_merging import Merger
from population.journal.sqlite_open import OpenFile

# For a damaged file even SQLite's own message may not be valid text.
REFUSALS = (sqlite3.Error, UnicodeDecodeError)


@dataclasses.dataclass(eq=False)
class Handles:
    """The open handles of a `Connection`; they can be closed without that object.

    Attributes:
        path: The path of the file, or None.
        raw: The connection of Python's `sqlite3`.
        file: The open file, which connections of this process share.
        copy: The folder of a private copy, or None.
        merger: Merges the log; None: the file is only read.
        has_written: Whether the connection has committed anything.
        pid: The process that has opened the handles.
    """

    path: pathlib.Path | None
    raw: sqlite3.Connection | None = None
    file: OpenFile | None = None
    copy: str | None = None
    merger: Merger | None = None
    has_written: bool = False
    pid: int = dataclasses.field(default_factory=os.getpid)

    def close(self) -> None:
        """Close all handles; leave a file that was only read unchanged."""
        if os.getpid() != self.pid:
            return  # The handles belong to the parent process.
        try:
            if self.merger is not None:
                self.merger.wait()
            reader = None if self._may_merge() else self._reader()
            try:
                if self.raw is not None:
                    self.raw.close()
            finally:
                if reader is not None:
                    reader.close()
        finally:  # Also if a Ctrl-C comes: a second call closes the rest.
            file, self.file = self.file, None
            if file is not None:
                file.release(self)
            if self.copy is not None:
                shutil.rmtree(self.copy, ignore_errors=True)

    def _may_merge(self) -> bool:
        """Whether this has written to the file, and it is still a valid journal."""
        if not self.has_written or self.path is None or self.file is None:
            return self.has_written
        try:
            sqlite_file.check(self.path, self.file, to_write=False)
        except JournalError:
            return False
        return True

    def _reader(self) -> sqlite3.Connection | None:
        """Open a read-only connection to close last, as that close merges no log."""
        if self.path is None or self.copy is not None:
            return None
        with contextlib.suppress(OSError, *REFUSALS):
            if sqlite_file.log_of(self.path).stat().st_size:
                place = f"file:{urllib.parse.quote(os.fsencode(self.path))}?mode=ro"
                with contextlib.ExitStack() as stack:
                    reader = sqlite3.connect(place, uri=True, timeout=0.0)
                    stack.callback(reader.close)
                    reader.execute("PRAGMA user_version").fetchone()
                    stack.pop_all()
                return reader
        return None
