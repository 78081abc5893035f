"""What a fork does to folders: one at a time, sharing files with the old run."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

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


def each_file(
    old: pathlib.Path,
    new: pathlib.Path,
    share: Callable[[pathlib.Path, pathlib.Path], object],
) -> None:
    """Share a file, or all in a folder; modes are not copied, as old may be protected.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if old.is_dir():
        new.mkdir(parents=True, exist_ok=True)
        for entry in old.iterdir():
            each_file(entry, new / entry.name, share)
    else:
        new.parent.mkdir(parents=True, exist_ok=True)
        share(old, new)


def link(old: pathlib.Path, new: pathlib.Path) -> None:
    """Share a file by a hard link, or copy it where that is not possible."""
    new.unlink(missing_ok=True)  # Of a fork that was killed.
    try:
        os.link(old, new)
    except FileNotFoundError:
        raise
    except OSError:  # Another file system, or one without links.
        shutil.copyfile(old, new)
