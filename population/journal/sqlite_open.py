"""The journals' files that this process has open, and which thread writes to them.

When any code closes a handle of a file, the whole process loses the locks that SQLite
holds on that file: another process would then delete the log while it is in use. So
this reads a file through one handle, which stays open as long as any connection to it;
while it is open no other file can have its device and inode.
"""

from __future__ import annotations

import collections
import os
import pathlib
import stat
import threading
from typing import Any, Protocol

from population.base.errors import JournalError

Identity = tuple[int, int]
_CHUNK = 1 << 20


class OpenFile:
    """A file that connections of this process share.

    Attributes:
        identity: Its device and inode.
        writer: The thread whose transaction has its write lock; None: no thread of
            this process.
    """

    def __init__(self, identity: Identity, handle: int) -> None:
        self.identity = identity
        self.writer: int | None = None
        self._handles = [handle]
        self._users: set[User] = set()

    def read(self, count: int) -> tuple[bytes, int]:
        """Return the first bytes of the file, and its size."""
        handle = self._handles[0]
        return os.pread(handle, count, 0), os.fstat(handle).st_size

    def names(self) -> int:
        """Return how many names (hard links) the file has."""
        return os.fstat(self._handles[0]).st_nlink

    def copy_to(self, target: pathlib.Path) -> None:
        """Copy the content of the file."""
        with target.open("wb") as stream:
            place = 0
            while chunk := os.pread(self._handles[0], _CHUNK, place):
                stream.write(chunk)
                place += len(chunk)

    def release(self, user: User) -> None:
        """End a use; safe in a finalizer, which may interrupt any line."""
        _RELEASED.append((self, user))
        if not _GUARD._is_owned():  # Else it has interrupted `take`, which closes it.
            with _GUARD:
                _close_released()


_FILES: dict[Identity, OpenFile] = {}
_RELEASED: collections.deque[tuple[OpenFile, User]] = collections.deque()
_GUARD: Any = threading.RLock()
_INHERITED: set[Identity] = set()


def identity(path: str | os.PathLike[str]) -> Identity | None:
    """Return the device and inode of a path; None if it does not exist."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class User(Protocol):
    """An object that uses a file, and releases it.

    Attributes:
        file: The file; set before the use is counted, so that no interrupt leaks it.
    """

    file: OpenFile | None


def take(path: pathlib.Path, user: User, *, create: bool) -> OpenFile:
    """Open a file, or share it if it is open; the user must release it.

    Args:
        path: The file.
        user: The object whose `file` is set.
        create: Whether to open it for writing, and make it if it does not exist.

    Raises:
        OSError: The file cannot be opened.
        JournalError: The file is not a regular file, or this process was forked.
    """
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    with _GUARD:
        _close_released()
        try:
            place = identity(path) or (0, 0)
            if place in _INHERITED:
                raise JournalError(
                    f"{path} was open in the process from which this one was forked, "
                    "so SQLite's locks do not hold here: what is reported could be "
                    "lost. Begin the process with spawn, or fork it before the run is "
                    "opened."
                )
            known = _FILES.get(place)
            if known is None:
                known = _opened(path, flags)
            user.file = known
            known._users.add(user)
            return known
        finally:
            _close_released()


def _opened(path: pathlib.Path, flags: int) -> OpenFile:
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise JournalError(
                f"The journal must be a regular file, which {path} is not."
            )
        place = found.st_dev, found.st_ino
        known = _FILES.get(place)
        if known is None:
            known = _FILES[place] = OpenFile(place, handle)
        else:  # It was just renamed to this path: keep this handle open as well.
            known._handles.append(handle)
    except BaseException:
        if not any(handle in file._handles for file in _FILES.values()):
            os.close(handle)
        raise
    return known


def _begin_anew() -> None:
    """Note in a forked child which files its parent had open, with SQLite's locks."""
    global _GUARD
    _GUARD = threading.RLock()  # The thread that held it does not exist here.
    _INHERITED.update(_FILES)


os.register_at_fork(after_in_child=_begin_anew)


def _close_released() -> None:
    """Close the files without users; called with the guard held."""
    while _RELEASED:  # After a Ctrl-C the next call repeats the interrupted close.
        file, user = _RELEASED[0]
        file._users.discard(user)
        if not file._users:
            _FILES.pop(file.identity, None)
            while file._handles:
                os.close(file._handles.pop())
        _RELEASED.popleft()
