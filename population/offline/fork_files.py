"""The files of a fork: it locks its folder, and shares files with the old run."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import shutil
import stat
from collections.abc import Iterator

from population.base.errors import JournalError
from population.base.run_paths import OWN_FOLDER
from population.journal.sqlite_file import JOURNAL_NAME
from population.run.params_manager import PARAMS_FOLDER

_FOLDERS = PARAMS_FOLDER, OWN_FOLDER
_LEADS_NOWHERE = errno.ENOENT, errno.ENOTDIR, errno.ELOOP


@contextlib.contextmanager
def in_words(folder: pathlib.Path) -> Iterator[None]:
    """Turn an `OSError` in a new run folder into a `JournalError`.

    Raises:
        JournalError: The system has refused an operation; the message names the folder.
    """
    try:
        yield
    except OSError as error:
        raise JournalError(
            f"new_dir must be a folder that can be written to, got {folder}: "
            f"{error.strerror or error}. Choose another one."
        ) from error


def make_folder(folder: pathlib.Path) -> None:
    """Make a new run folder.

    Raises:
        OSError: The folder cannot be made, or this user cannot write to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)


@contextlib.contextmanager
def only_fork(folder: pathlib.Path) -> Iterator[bool]:
    """Refuse a second fork into a folder; the lock ends with the process.

    Yields:
        Whether the folder is locked: not every system can lock folders.

    Raises:
        JournalError: Another fork is writing there, or the folder cannot be opened.
    """
    try:
        import fcntl
    except ImportError:  # Not on this system.
        yield False
        return
    with in_words(folder):
        handle = os.open(folder, os.O_RDONLY)
    try:
        locked = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(
                f"new_dir must be a folder without a run, got {folder}, into which "
                "another fork is being written. Choose another one."
            ) from None
        except OSError:  # A file system that cannot lock folders.
            locked = False
        yield locked
    finally:
        os.close(handle)


def check_apart(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Refuse a new run whose weights would be in a folder of the old one's.

    Raises:
        JournalError: Symbolic links lead there, or one folder is in the other.
    """
    for new in (folder / name for name in _FOLDERS):
        for old in (source / name for name in _FOLDERS):
            a, b = (pathlib.Path(os.path.realpath(place)) for place in (old, new))
            nested = a.is_relative_to(b) or b.is_relative_to(a)
            if nested or _is_same_folder(old, new):
                raise _shared(new)


def remove(folder: pathlib.Path, name: str) -> None:
    """Remove drafts, and SQLite's files beside them."""
    with contextlib.suppress(OSError):  # A remaining draft does no harm.
        for file in folder.glob(f"{name}*"):
            file.unlink()


def publish(draft: pathlib.Path, folder: pathlib.Path) -> None:
    """Give the complete journal its name, unless another one has that meanwhile.

    Raises:
        JournalError: The folder holds a run, as a controller was opened there.
    """
    file = folder / JOURNAL_NAME
    try:
        os.link(draft, file)  # Unlike a rename, this never replaces a run.
    except FileExistsError:
        raise taken(folder) from None
    except OSError:  # A file system without links.
        if os.path.lexists(file):
            raise taken(folder) from None
        os.replace(draft, file)


def is_published(draft: pathlib.Path, folder: pathlib.Path) -> bool:
    """Whether `publish` has succeeded, even if an interrupt came after it."""
    file = folder / JOURNAL_NAME
    try:
        return os.path.samefile(draft, file)
    except OSError:  # The draft was renamed, or does not exist yet.
        return file.exists()


def taken(folder: pathlib.Path) -> JournalError:
    """Return the error for a fork into a folder that holds a run."""
    return JournalError(
        f"new_dir must be a folder without a run, got {folder}. Choose another one."
    )


def saved_as(path: pathlib.Path) -> list[pathlib.Path]:
    """Return the files that a loop has saved to a path; some savers add a suffix.

    Raises:
        JournalError: The folder cannot be read.
    """
    try:
        names = os.listdir(path.parent)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return []
    except OSError as error:
        raise _not_copied(path, error) from error
    found = [n for n in names if n == path.name or n.startswith(f"{path.name}.")]
    return [path.with_name(name) for name in found]


class Files:
    """The files that a fork makes for its weights; `undo` removes them if it fails.

    Args:
        folder: The folder of the new run.
        alone: Whether no other fork can be active there, so that existing files are
            those of a killed fork.
    """

    def __init__(self, folder: pathlib.Path, alone: bool) -> None:
        self._real = os.path.realpath(folder)
        self._alone = alone
        self._made: list[tuple[pathlib.Path, bool]] = []  # And whether it is a folder.

    def take(self, old: pathlib.Path, new: pathlib.Path, *, shared: bool) -> int:
        """Copy a file, or all of a folder except pipes and broken links.

        It does not copy modes, as `old` may be protected.

        Args:
            old: The file or folder to copy.
            new: The path of the copy.
            shared: Whether to make hard links if possible.

        Returns:
            The number of bytes.

        Raises:
            FileNotFoundError: `old` does not exist, or is being removed. No part of it
                was copied.
            JournalError: `old` cannot be copied, both are the same place, or another
                file has the path of the copy.
        """
        begin = len(self._made)
        try:
            if not _kind(old):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), old)
            return self._take(old, new, shared, ())
        except FileNotFoundError:
            self.undo(begin)
            raise
        except OSError as error:
            raise _not_copied(old, error) from error

    def undo(self, begin: int = 0) -> None:
        """Remove the files and folders that were made, from the `begin`-th on."""
        for place, is_folder in reversed(self._made[begin:]):
            with contextlib.suppress(OSError):  # It is gone, or not empty.
                if is_folder:
                    place.rmdir()
                else:
                    place.unlink()
        del self._made[begin:]

    def _take(
        self, old: pathlib.Path, new: pathlib.Path, shared: bool, above: tuple[str, ...]
    ) -> int:
        kind = _kind(old)
        if _is_same_place(old, new):
            raise _shared(new)
        if kind == "file":
            self._make_folder(new.parent)
            return self._take_file(os.path.realpath(old), new, shared)
        real = os.path.realpath(old)
        if not kind or real in above:  # A link to a folder that contains it.
            return 0
        self._make_folder(new)
        above = (*above, real)
        names = os.listdir(old)
        return sum(self._take(old / name, new / name, shared, above) for name in names)

    def _take_file(self, old: str, new: pathlib.Path, shared: bool) -> int:
        if os.path.lexists(new):
            self._make_room(new)
        if shared:
            try:
                os.link(old, new)
                self._made.append((new, False))
                return new.stat().st_size
            except (FileNotFoundError, FileExistsError):
                raise
            except OSError:  # Another file system, or one without links.
                pass
        new.open("xb").close()  # Fails rather than overwrite another file.
        self._made.append((new, False))
        shutil.copyfile(old, new)
        return new.stat().st_size

    def _make_room(self, new: pathlib.Path) -> None:
        """Remove a file that a killed fork has left in the new folder, or raise."""
        parent = pathlib.Path(os.path.realpath(new.parent))
        is_folder = stat.S_ISDIR(new.lstat().st_mode)
        if is_folder or not self._alone or not parent.is_relative_to(self._real):
            raise _in_the_way(new)
        new.unlink()

    def _make_folder(self, place: pathlib.Path) -> None:
        if place.is_dir():
            return
        if os.path.lexists(place):
            raise _in_the_way(place)
        self._make_folder(place.parent)
        try:
            place.mkdir()
        except FileExistsError:  # Another process was faster.
            return self._make_folder(place)
        self._made.append((place, True))


def _kind(place: pathlib.Path) -> str:
    """Return "file" or "folder", also for a link to one; "" if it is neither.

    Raises:
        FileNotFoundError: The path does not exist.
    """
    mode = place.lstat().st_mode
    if stat.S_ISLNK(mode):
        try:
            mode = place.stat().st_mode
        except OSError as error:
            if error.errno not in _LEADS_NOWHERE:
                raise
    return {stat.S_IFREG: "file", stat.S_IFDIR: "folder"}.get(stat.S_IFMT(mode), "")


def _is_same_place(old: pathlib.Path, new: pathlib.Path) -> bool:
    """Whether writing to one path would write to the other."""
    if os.path.realpath(old) == os.path.realpath(new):
        return True
    same_name = old.name == new.name
    return _is_same_folder(old, new) or (
        same_name and _is_same_folder(old.parent, new.parent)
    )


def _is_same_folder(old: pathlib.Path, new: pathlib.Path) -> bool:
    """Whether both paths are one folder, which may be mounted twice."""
    try:
        a, b = old.stat(), new.stat()
    except OSError:
        return False
    return stat.S_ISDIR(a.st_mode) and os.path.samestat(a, b)


def _shared(place: pathlib.Path) -> JournalError:
    return JournalError(
        f"new_dir must keep its params in a folder of its own, and {place} leads to "
        f"params of the run, {os.path.realpath(place)}. Choose another one."
    )


def _in_the_way(place: pathlib.Path) -> JournalError:
    return JournalError(
        f"new_dir must be a folder without params, got {place}, which is there "
        "already. Choose another one, or remove what a killed fork has left there."
    )


def _not_copied(path: pathlib.Path, error: OSError) -> JournalError:
    return JournalError(
        f"The params {path} cannot be copied: {error.strerror or error}. Give this "
        "user access to them and room for the copy, or choose another new_dir."
    )
