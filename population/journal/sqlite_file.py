"""Checks that a file is a journal before SQLite itself opens it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import sqlite3
import stat
import warnings

from population.base.errors import JournalError
from population.journal.sqlite_open import OpenFile
from population.journal.sqlite_schema import APPLICATION_ID, FORMAT, too_new

JOURNAL_NAME = "journal.sqlite"
_HEADER_BYTES = 100
_LOG_HEAD, _FRAME_HEAD = 32, 24
_DAMAGED = "malformed", "not a database", "Could not decode", "overflow", "no such"
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


def of_run(folder: pathlib.Path) -> pathlib.Path:
    """Return the journal's file in a run folder.

    Raises:
        JournalError: There is none, or this user has no access to the folder.
    """
    file = folder / JOURNAL_NAME
    try:
        is_file = stat.S_ISREG(file.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        is_file = False
    except OSError as error:
        raise JournalError(
            f"{file.parent} must be the log_dir of a run that this user may read, but "
            f"its {file.name} cannot be reached: {error.strerror or error}. Ask for "
            "access to the folder, or name another one."
        ) from error
    if not is_file:
        raise JournalError(
            f"{folder} must be the log_dir of a run; it holds no {JOURNAL_NAME}."
        )
    return file


def log_of(path: pathlib.Path) -> pathlib.Path:
    """Return the path of SQLite's log of a file."""
    return path.with_name(f"{path.name}-wal")


def is_protected(path: pathlib.Path) -> bool:
    """Whether a file exists, but this user cannot write to it or its folder.

    Raises:
        JournalError: The folder cannot be read.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unusable(path, error) from error
    effective = os.access in os.supports_effective_ids
    return not all(
        os.access(place, os.W_OK, effective_ids=effective)
        for place in (path, path.parent)
    )


def traits(path: pathlib.Path) -> object:
    """Return values that change with each write to a journal."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, _has_log(path)


def check(path: pathlib.Path, file: OpenFile, *, to_write: bool) -> None:
    """Refuse a foreign or damaged file, and leave it and its side files unchanged.

    Args:
        path: The file.
        file: That file, open.
        to_write: Whether the caller will write to it.

    Raises:
        JournalError: The file is not a valid journal; the message says why.
    """
    if to_write and file.names() > 1:
        raise JournalError(
            f"{path} is one file under {file.names()} names (hard links), and each "
            "would get a log of its own. Make it a file of its own: copy it, and give "
            "the copy its name."
        )
    for suffix in ("-journal", "-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists() and not beside.is_file():
            raise JournalError(
                f"{beside} must be a file that SQLite keeps beside a journal, but is "
                "not a file. Remove it."
            )
    try:
        _check(path, file)
    except JournalError:
        _check(path, file)  # Another process may have merged its log in between.


def _check(path: pathlib.Path, file: OpenFile) -> None:
    # In this order: the log has all pages until they are in the file.
    in_log = _has_log(path)
    try:
        header, size = file.read(_HEADER_BYTES)
    except OSError as error:
        raise unusable(path, error) from error
    if not header:
        return
    if not header.startswith(b"SQLite format 3\0") or len(header) < _HEADER_BYTES:
        raise JournalError(
            f"{path} is not a journal of this library, or it is damaged; it was left "
            "as it is. Choose another log_dir."
        )
    owner, version = _number(header, 68), _number(header, 60)
    if owner != APPLICATION_ID:
        raise JournalError(
            f"{path} is a database of another program; it was left as it is. Choose "
            "another log_dir."
        )
    if version > FORMAT:
        raise too_new(path, version)
    if not in_log and not _has_log(path):
        _check_size(path, header, size)


def _number(content: bytes, place: int, length: int = 4) -> int:
    """Read a number of a SQLite file."""
    return int.from_bytes(content[place : place + length], "big")


def way_to_look(path: pathlib.Path) -> str | None:
    """Return how SQLite can open a file in its place without writing to it.

    Returns:
        The parameters of its URI; None if SQLite could read its log only with a new
        file beside it.
    """
    if path.with_name(f"{path.name}-shm").exists():
        return "mode=ro"  # Another process may be writing to it.
    return None if _has_log(path) else "mode=ro&immutable=1"


def copy(
    path: pathlib.Path,
    file: OpenFile,
    raw: sqlite3.Connection | None,
    target: pathlib.Path,
) -> None:
    """Copy a journal with the content of its log.

    Args:
        path: The file.
        file: That file, open.
        raw: A connection that can read it as it is now; None: its log has no `-shm`
            file beside it, so no process has it open.
        target: The path of the copy.

    Raises:
        JournalError: The journal cannot be read.
    """
    if raw is not None:
        with contextlib.closing(sqlite3.connect(target)) as other:
            raw.backup(other)
        return
    try:
        file.copy_to(target)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(log_of(path), log_of(target))
    except OSError as error:
        raise unusable(path, error) from error


def incomplete(
    path: pathlib.Path | None, what: str, left: pathlib.Path
) -> JournalError:
    """Return the error for a run folder that lacks its journal but has other files."""
    return JournalError(
        f"{path} is {what}, but a run was recorded there: {left} is left of it. "
        "Restore the journal from a backup, its -wal included, or choose another "
        "log_dir."
    )


def unusable(path: pathlib.Path, error: OSError) -> JournalError:
    """Return the error for a file that the system does not let this process use."""
    if os.path.isdir(path):  # Unlike `pathlib`, this does not raise.
        return JournalError(f"The journal must be a file; {path} is a folder.")
    return JournalError(
        f"The journal {path} cannot be used: {error.strerror}. Give this user access "
        "to it and its folder, or choose another log_dir."
    )


def check_log(path: pathlib.Path) -> None:
    """Refuse a file without tables if its damaged log had some.

    Raises:
        JournalError: The log holds a run.
    """
    if log_has_run(path):
        raise JournalError(
            f"{log_of(path)} is damaged, and {path} holds nothing without it; both "
            "were left as they are. Restore them from a backup, or choose another "
            "log_dir."
        )


def log_has_run(path: pathlib.Path) -> bool:
    """Whether the log of a file has more than one commit.

    Each page in a log has a head of 24 bytes, which marks a commit's last page. A
    process that was killed while it made the tables leaves at most one such mark.
    """
    try:
        content = log_of(path).read_bytes()
    except FileNotFoundError:
        return False
    if len(content) < _LOG_HEAD:
        return False
    size = _FRAME_HEAD + min(_number(content, 8), 65536)
    starts = range(_LOG_HEAD, len(content) - _FRAME_HEAD, size)
    return sum(any(content[start + 4 : start + 8]) for start in starts) > 1


def explained(
    path: pathlib.Path | None, error: sqlite3.Error | UnicodeDecodeError
) -> JournalError:
    """Return the error for an exception of SQLite, with advice."""
    place = "in memory" if path is None else str(path)
    text = str(error)
    if "readonly" in text or "unable to open" in text:
        advice = "Give the run a folder that this user may write to."
    elif isinstance(error, UnicodeDecodeError) or any(w in text for w in _DAMAGED):
        advice = (
            "The file is damaged and was left as it is. Restore it from a backup, "
            "or start a new run in another log_dir."
        )
    elif "locked" in text or "locking" in text:
        advice = "Another program locks it in a way of its own; end that program first."
    elif "full" in text:
        advice = "Free some space and go on; nothing that was recorded is lost."
    else:
        advice = "Nothing of this call was recorded."
    return JournalError(f"The journal {place} cannot be used: {text}. {advice}")


def _has_log(path: pathlib.Path) -> bool:
    try:
        return log_of(path).stat().st_size > 0
    except OSError:
        return False


def _check_size(path: pathlib.Path, header: bytes, size: int) -> None:
    page_size = _number(header, 16, 2)
    needed = (65536 if page_size == 1 else page_size) * _number(header, 28)
    if size < needed:
        raise JournalError(
            f"{path} is damaged: {needed} bytes belong to it, {size} are left. It was "
            "left as it is. Restore it from a backup, or choose another log_dir."
        )


def warn_of_network(folder: pathlib.Path) -> None:
    """Warn if a folder is on a network file system, as far as that can be detected."""
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
