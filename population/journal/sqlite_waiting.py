"""Waiting for a lock of SQLite's, and saying who holds it."""

from __future__ import annotations

import logging
import os
import pathlib
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from population.base.errors import JournalError
from population.journal.sqlite_open import OpenFile, identity

logger = logging.getLogger("population")
Result = TypeVar("Result")
_PAUSE_S = 0.001
_SAY_AFTER_S = 30.0  # Whom this process waits for; again each time it is twice as long.
_CONFUSED_S = 60.0  # SQLite asks for another try; that long, something else is wrong.
_LOCKS = pathlib.Path("/proc/locks")
_PROC = pathlib.Path("/proc")
# Where SQLite locks: bytes of the shared memory, or of the file itself (in WAL mode
# only while it is opened or closed).
_WRITE_LOCK, _RECOVERY_LOCK = 120, 122
_LONGEST_COMMAND = 100


def result(
    call: Callable[[], Result], path: pathlib.Path | None, file: OpenFile | None
) -> Result:
    """The result of a call of SQLite, once no other connection has the lock it needs.

    A process that holds it is waited for as long as it lives: when it dies, the kernel
    gives the lock back. SQLite itself would look again at longer and longer intervals:
    with several busy processes the lock is then idle most of the time.

    Raises:
        JournalError: If this very thread holds it.
        sqlite3.Error: What the call raises for another reason.
    """
    start, say_after = time.monotonic(), _SAY_AFTER_S
    while True:
        try:
            return call()
        except sqlite3.OperationalError as error:
            waited = time.monotonic() - start
            is_endless = _code(error) == sqlite3.SQLITE_BUSY
            if not is_busy(error) or not (is_endless or waited < _CONFUSED_S):
                raise
        if file is not None and file.writer == threading.get_ident():
            raise JournalError(
                f"{path} is being written by this very thread: mutate_fn, or another "
                "part of a mutator, has opened the run a second time. Use the view "
                "that the mutator is given."
            )
        if waited > say_after:
            say_after *= 2
            logger.warning(
                "this process has waited %d s for the write lock of %s. %s holds it, "
                "and is waited for as long as it lives: continue or end it.",
                waited,
                path,
                "This process" if path is None else _holder(path),
            )
        time.sleep(_PAUSE_S)


def is_busy(error: sqlite3.Error) -> bool:
    """Whether SQLite asks to try again, as another connection is at work."""
    busy = sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL
    return _code(error) in busy


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for what Python itself refuses."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


class _Lock(NamedTuple):
    """A lock that the kernel knows.

    Attributes:
        pid: Whose it is.
        inode: Of the file.
        first: The first byte that is locked.
        last: The last one.
    """

    pid: int
    inode: int
    first: int
    last: int


def _holder(path: pathlib.Path) -> str:
    """Who holds a journal's write lock, as far as the kernel tells."""
    memory = path.with_name(f"{path.name}-shm")
    inodes = {path: identity(path), memory: identity(memory)}
    for lock in _locks():
        for file, known in inodes.items():
            if known is None or known[1] != lock.inode:
                continue
            writes = lock.first <= _RECOVERY_LOCK and lock.last >= _WRITE_LOCK
            if file == path or writes:
                return _described(lock.pid)
    return "another process"


def _locks() -> list[_Lock]:
    """All write locks on files that are held, where the kernel lists them."""
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        fields = line.split()
        if len(fields) == 8 and fields[1] == "POSIX" and fields[3] == "WRITE":
            last = 2**63 - 1 if fields[7] == "EOF" else int(fields[7])
            inode = int(fields[5].rpartition(":")[2])
            found.append(_Lock(int(fields[4]), inode, int(fields[6]), last))
    return found


def _described(pid: int) -> str:
    if pid == os.getpid():
        return "this process"
    try:
        command = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ")
        state = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return f"process {pid}"
    text = command.decode(errors="replace").strip()[:_LONGEST_COMMAND]
    stopped = ", which is stopped," if state in "Tt" else ""
    return f"process {pid} ({text}){stopped}"
