"""What a connection to a SQLite journal has open, and how it is closed."""

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
from population.journal.sqlite_open import OpenFile

# Of what is damaged even SQLite's own message may be no text.
REFUSALS = (sqlite3.Error, UnicodeDecodeError)


@dataclasses.dataclass(eq=False)
class Handles:
    """What a connection has open, so that it can be closed without the connection.

    Attributes:
        path: The file, or None.
        raw: SQLite's own connection.
        file: The file, as this process has it open.
        copy: The folder of a private copy.
        has_written: Whether anything was committed.
        pid: The process that has opened all this.
    """

    path: pathlib.Path | None
    raw: sqlite3.Connection | None = None
    file: OpenFile | None = None
    copy: str | None = None
    has_written: bool = False
    pid: int = dataclasses.field(default_factory=os.getpid)

    def close(self) -> None:
        """Close all; what was only read, as it is damaged say, is left as it is."""
        if os.getpid() != self.pid:
            return  # All this is the parent's.
        try:
            reader = None if self._may_merge() else self._reader()
            try:
                if self.raw is not None:
                    self.raw.close()
            finally:
                if reader is not None:
                    reader.close()
        finally:  # Also if a Ctrl-C comes: a second call closes what is left.
            file, self.file = self.file, None
            if file is not None:
                file.release(self)
            if self.copy is not None:
                shutil.rmtree(self.copy, ignore_errors=True)

    def _may_merge(self) -> bool:
        """Whether this has written to the file, and the file is still a journal."""
        if not self.has_written or self.path is None or self.file is None:
            return self.has_written
        try:
            sqlite_file.check(self.path, self.file, to_write=False)
        except JournalError:
            return False
        return True

    def _reader(self) -> sqlite3.Connection | None:
        """A connection that cannot write: the last to close a file merges its log."""
        if self.path is None or self.copy is not None:
            return None
        with contextlib.suppress(OSError, *REFUSALS):
            if sqlite_file.log_of(self.path).stat().st_size:
                place = f"file:{urllib.parse.quote(str(self.path))}?mode=ro"
                with contextlib.ExitStack() as stack:
                    reader = sqlite3.connect(place, uri=True, timeout=0.0)
                    stack.callback(reader.close)
                    reader.execute("PRAGMA user_version").fetchone()
                    stack.pop_all()
                return reader
        return None
