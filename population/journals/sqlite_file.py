"""Tells a journal's SQLite file from others before SQLite itself touches it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
import struct
import time
import warnings

from population.errors import JournalError
from population.journals.sqlite_schema import APPLICATION_ID, FORMAT

JOURNAL_NAME = "journal.sqlite"
_HEADER_BYTES = 100
_LOOKS, _PAUSE_S = 2, 0.02
_MOUNTS = pathlib.Path("/proc/mounts")
_NETWORK = {
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "fuse.glusterfs",
    "fuse.sshfs",
    "gpfs",
    "lustre",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
}


def check(path: pathlib.Path) -> None:
    """Refuse a foreign or damaged file, and leave it and its side files as they are.

    Never to be called while this process has the file open.

    Raises:
        JournalError: Saying what is wrong with it.
    """
    for _ in range(_LOOKS):
        try:
            return _check(path)
        except JournalError:
            time.sleep(_PAUSE_S)  # Another process may be merging its log just now.
    _check(path)


def _check(path: pathlib.Path) -> None:
    try:
        if path.is_dir():
            raise JournalError(f"The journal must be a file; {path} is a folder.")
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
            size = file.seek(0, os.SEEK_END)
    except FileNotFoundError:
        return
    except OSError as error:
        raise JournalError(
            f"The journal {path} cannot be read: {error.strerror}. Give this user "
            "access to it."
        ) from error
    if not header:
        return
    if not header.startswith(b"SQLite format 3\0") or len(header) < _HEADER_BYTES:
        raise JournalError(
            f"{path} is not a journal of this library, or it is damaged; it was left "
            "as it is. Choose another log_dir."
        )
    (owner,) = struct.unpack_from(">I", header, 68)
    (version,) = struct.unpack_from(">I", header, 60)
    if owner != APPLICATION_ID:
        raise JournalError(
            f"{path} is a database of another program; it was left as it is. Choose "
            "another log_dir."
        )
    if version > FORMAT:
        raise JournalError(
            f"{path} has the format {version}; this version of the library reads up to "
            f"{FORMAT}. Install a newer version."
        )
    _check_size(path, header, size)


def explained(path: pathlib.Path | None, error: sqlite3.Error) -> JournalError:
    """What SQLite has refused, and what to do about it."""
    place = "in memory" if path is None else str(path)
    text = str(error)
    if "readonly" in text or "unable to open" in text:
        advice = "Give the run a folder that this user may write to."
    elif "malformed" in text or "not a database" in text:
        advice = (
            "The file is damaged and was left as it is. Restore it from a backup, "
            "or start a new run in another log_dir."
        )
    elif "locked" in text:
        advice = "Another program holds its write lock; end that program first."
    elif "full" in text:
        advice = "Free some space and go on; nothing that was recorded is lost."
    else:
        advice = "Nothing of this call was recorded."
    return JournalError(f"The journal {place} cannot be used: {text}. {advice}")


def _check_size(path: pathlib.Path, header: bytes, size: int) -> None:
    wal = path.with_name(path.name + "-wal")
    with contextlib.suppress(FileNotFoundError):
        if wal.stat().st_size:
            return  # Pages may still be on their way into the file.
    page_size, pages = (
        struct.unpack_from(">H", header, 16)[0],
        struct.unpack_from(">I", header, 28)[0],
    )
    needed = (65536 if page_size == 1 else page_size) * pages
    if size < needed:
        raise JournalError(
            f"{path} is damaged: {needed} bytes belong to it, {size} are left. It was "
            "left as it is. Restore it from a backup, or choose another log_dir."
        )


def warn_of_network(folder: pathlib.Path) -> None:
    """Warn if a folder is on a network file system, as far as that can be told."""
    try:
        lines = _MOUNTS.read_text().splitlines()
    except OSError:
        return
    place, longest, kind = folder.resolve(), -1, ""
    for line in lines:
        _, mount, found, *_ = line.split()
        mount = mount.replace("\\040", " ")
        if place.is_relative_to(mount) and len(mount) >= longest:
            longest, kind = len(mount), found
    if kind in _NETWORK:
        warnings.warn(
            f"{folder} is on a network file system ({kind}), where the locks of SQLite "
            "may not hold: let one host alone use it, or choose a local log_dir.",
            stacklevel=5,
        )
