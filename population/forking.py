"""Lets one fork at a time be written into a folder."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

from population.errors import JournalError


@contextlib.contextmanager
def only_fork(folder: pathlib.Path) -> Iterator[None]:
    """Refuse a second fork into a folder; the lock ends with the process.

    Raises:
        JournalError: If another fork is being written there.
    """
    try:
        import fcntl
    except ImportError:  # Not on this system.
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(
                f"new_dir must be a folder without a run, got {folder}, into which "
                "another fork is being written. Choose another one."
            ) from None
        except OSError:
            pass  # A file system that cannot lock folders.
        yield
    finally:
        os.close(handle)
