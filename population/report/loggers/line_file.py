"""A file of whole lines, to which threads and processes append."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pathlib
import threading
from collections.abc import Iterator

_BLOCK = 1 << 16


class LineFile:
    """A file of lines below a header. Each line is written at once, or not at all.

    Args:
        path: The file. A last line that a crash has cut off is removed.
        header: The first line; written if the file is new.

    Raises:
        ValueError: The file has another header.
        OSError: The file cannot be written.
    """

    def __init__(self, path: pathlib.Path, header: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._file = io.FileIO(path, "a+")
        try:
            with _locked(self._file):
                _begin(self._file, header)
        except BaseException:
            self._file.close()
            raise

    def append(self, line: bytes) -> None:
        """Append a line, unless the file is closed.

        Raises:
            OSError: The line cannot be written; the file is as it was before.
        """
        with self._lock:
            if not self._file.closed:
                with _locked(self._file):
                    _append(self._file, line)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._lock:
            self._file.close()


def _begin(file: io.FileIO, header: bytes) -> None:
    """Write the header of a new file; check that of an old one, and cut its end."""
    file.seek(0)
    first = file.readline(len(header) + 1)
    if not header.startswith(first):
        raise ValueError(
            f"{file.name!s} must be a new file, or have the columns "
            f"{header.decode().strip()}; it begins with {first[:200]!r}. Name another "
            "file, or pass the columns that it has."
        )
    if first == header:
        _cut(file)
    else:
        file.truncate(0)
        _append(file, header)


def _cut(file: io.FileIO) -> None:
    """Remove what comes after the last line break."""
    end, found = file.seek(0, os.SEEK_END), -1
    while found < 0 < end:
        begin = max(0, end - _BLOCK)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        end = begin
    file.truncate(end + found + 1)


def _append(file: io.FileIO, line: bytes) -> None:
    """Append a line, or nothing."""
    end = file.seek(0, os.SEEK_END)
    try:
        if file.write(line) != len(line):
            raise OSError(errno.ENOSPC, "A line was not written", str(file.name))
    except OSError:
        file.truncate(end)
        raise


@contextlib.contextmanager
def _locked(file: io.FileIO) -> Iterator[None]:
    """Keep other processes from writing, where the system can lock files."""
    try:
        import fcntl
    except ImportError:  # Not on this system.
        yield
        return
    with contextlib.suppress(OSError):  # Some network file systems have no locks.
        fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)
