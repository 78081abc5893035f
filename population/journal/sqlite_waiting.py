"""Waits for a lock of SQLite, and logs which process holds it."""

from __future__ import annotations

import logging
import os
import pathlib
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from population.base.errors import JournalError
from population.journal.base import MAX
from population.journal.sqlite_open import OpenFile, identity

logger = logging.getLogger("population")
Result = TypeVar("Result")
_PAUSE_S = 0.001
_SAY_AFTER_S = 30.0  # Logs the holder of the lock, again after each doubled time.
_CONFUSED_S = 60.0  # Other requests of SQLite to retry are errors after this time.
_LOCKS = pathlib.Path("/proc/locks")
_PROC = pathlib.Path("/proc")
# The bytes that SQLite locks: in the shared memory, or in the file itself (in WAL mode
# only while the file is opened or closed).
_WRITE_LOCK, _RECOVERY_LOCK = 120, 122
_LONGEST_COMMAND = 100


def result(
    call: Callable[[], Result], path: pathlib.Path | None, file: OpenFile | None
) -> Result:
    """Return the result of a call of SQLite; wait for the lock that it needs.

    It waits as long as the process that holds the lock lives: when that dies, the
    kernel releases the lock. SQLite itself would retry at longer and longer intervals,
    so that with several busy processes the lock would be idle most of the time.

    Raises:
        JournalError: This thread itself holds the lock.
        sqlite3.Error: The call has failed for another reason.
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
    """Whether SQLite asks for a retry, as another connection is active."""
    busy = sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL
    return _code(error) in busy


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; 0 for an error of Python's module."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _holder(path: pathlib.Path) -> str:
    """Describe the process with a journal's write lock, if the kernel lists it."""
    file, memory = identity(path), identity(path.with_name(f"{path.name}-shm"))
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        fields = line.split()
        if len(fields) != 8 or (fields[1], fields[3]) != ("POSIX", "WRITE"):
            continue
        inode, first = int(fields[5].rpartition(":")[2]), int(fields[6])
        last = MAX if fields[7] == "EOF" else int(fields[7])
        writes = first <= _RECOVERY_LOCK and last >= _WRITE_LOCK
        in_memory = memory is not None and inode == memory[1]
        if (file is not None and inode == file[1]) or (in_memory and writes):
            return _described(int(fields[4]))
    return "another process"


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
