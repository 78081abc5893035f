"""The base of stores in a folder: paths, drafts, removal, and marks of runs.

A mark names the journal that records the run whose params are there: if a run folder is
copied without its store, two journals refer to the same saves, and the mark of the run
names the one that uses the store.
"""

from __future__ import annotations

import abc
import contextlib
import json
import logging
import os
import pathlib
import re
import secrets
from collections.abc import Sequence
from typing import Any

from population.base import durable
from population.params import checks, disk, folders

logger = logging.getLogger("population")
_TOKEN = re.compile(r"[0-9A-Za-z_-]+")


class FolderStore(abc.ABC):
    """Keeps each tree in a separate file, or folder, below one folder.

    On a disk a save is written under another name in the same folder and then renamed:
    a file with the name of a save is complete, even after a kill during a save. After a
    power cut it is complete if `sync` was called before; else it may be damaged, which
    `load` finds. A bucket cannot rename: there a save has its name from the start.

    Args:
        root: The folder: a `pathlib` path, or an `epath` one.

    Attributes:
        in_bucket: Whether the folder is the URL of a bucket.
    """

    in_bucket: bool = False
    checks_trees: bool = True  # `save` makes the check of `checks.check`.
    _suffix: str  # The end of the names of saves.
    _old_suffixes: tuple[str, ...] = ()  # Those of saves of earlier versions.
    _saves_are_files: bool  # Else each of them is a folder.

    def __init__(self, root: Any) -> None:
        self._root = root
        self._saved_in: Any = None  # The identity of the folder at the last save.
        self._named: set[pathlib.Path] = set()  # Folders whose names are on the disk.
        self._made: set[pathlib.Path] = set()  # New ones whose names may not be.

    @property
    def _folder(self) -> pathlib.Path:
        return pathlib.Path(self._root)

    @abc.abstractmethod
    def _write(self, place: Any, path: str, tree: Any) -> None:
        """Write a tree, without a sync.

        Args:
            place: The path to write: a `pathlib` path, or an `epath` one in a bucket.
            path: The path of the save, as it will be passed to `load`.
            tree: Any pytree; `checks.check` has accepted it.
        """

    @abc.abstractmethod
    def _sync(self, place: pathlib.Path) -> None:
        """Wait until a save is on the disk, but for its own name."""

    @abc.abstractmethod
    def _erase(self, place: Any) -> None:
        """Remove a save or a draft; do nothing if it does not exist."""

    def save(self, name: str, tree: Any) -> str:
        """Write any pytree, and return when all of it is written, but not synced.

        Returns:
            The path of the save within the folder; each save has a different one.

        Raises:
            TypeError: A leaf is neither an array, a scalar, a string nor a function, or
                is on the devices of other processes.
            ParamsError: The place of the save is behind a link out of the folder.
            OSError: The tree cannot be written; no partial save is left.
        """
        checks.check(tree, plain=False)
        path = disk.new_path(name, self._suffix)
        place = draft = self._root / path
        if not self.in_bucket:
            folder = folders.to_write_in(self._folder, os.path.dirname(path))
            self._make(folder)
            self._warn_if_replaced()
            place = folder / os.path.basename(path)
            draft = folder / disk.draft_name(place.name)
        try:
            self._write(draft, path, tree)
            if not self.in_bucket:
                os.replace(draft, place)
        except BaseException:
            self._erase(draft)
            self._erase(place)  # No other save has this name.
            raise
        return path

    def sync(self, paths: Sequence[str]) -> None:
        """Wait until saves are on the disk, so that they survive a power cut.

        A save that does not exist any more is skipped. In a bucket this does nothing.

        Args:
            paths: The paths that `save` has returned, in this process or another one.

        Raises:
            OSError: A save cannot be synced.
        """
        if self.in_bucket:
            return
        within = set()
        for path in paths:
            parts = pathlib.PurePosixPath(path)
            folder = self._within(str(parts.parent))
            if folder is not None:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    self._sync(folder / parts.name)
                    within.add(folder)
        self._sync_names(within)

    def remove(self, path: str) -> None:
        """Remove a save of this store; do nothing if it does not exist.

        If its path is a link, or has a link in it, this removes the link, not its
        target.
        """
        if not self._is_own(path):
            return
        parts = pathlib.PurePosixPath(path)
        folder = self._within(str(parts.parent))
        if folder is not None:
            self._erase(folder / parts.name)

    def names(self, folder: str) -> list[str]:
        """Return the paths of the saves in a folder, incomplete ones included.

        You can pass each of them to `remove`. Empty if the folder does not exist, or if
        a link to it leads out of the store.
        """
        place = self._within(folder)
        try:
            found = [] if place is None else self._entries(place)
        except (FileNotFoundError, NotADirectoryError):
            return []
        paths = (str(pathlib.PurePosixPath(folder, name)) for name in sorted(found))
        return [path for path in paths if self._is_own(path)]

    def claim(self, run: str, text: str) -> None:
        """Note in which journal a run is recorded; this replaces an earlier note.

        Args:
            run: The run's token.
            text: A description of the journal, stored as it is.

        Raises:
            ValueError: `run` is not a token.
            ParamsError: The place of the note is behind a link out of the store.
            OSError: The note cannot be written.
        """
        name = _mark_name(run)
        if self.in_bucket:
            place = self._root / disk.RUNS
            place.mkdir(parents=True, exist_ok=True)
        else:
            place = folders.to_write_in(self._folder, disk.RUNS)
            durable.make_folder(place)
        content = json.dumps({"text": text, "root": self._identity()}).encode()
        if self.in_bucket:  # It replaces whole files.
            (place / name).write_bytes(content)
            return
        draft = place / f".{name}.{secrets.token_hex(4)}.tmp"
        try:
            disk.write(draft, content)
            durable.sync(draft)
            os.replace(draft, place / name)
            durable.sync(place)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def claimed(self, run: str) -> str | None:
        """Return the text that `claim` last noted for a run, or None.

        None if no readable note exists, or if the folder is a copy of the one in which
        it was made.

        Raises:
            ValueError: `run` is not a token.
        """
        name = _mark_name(run)
        try:
            if self.in_bucket:
                content = (self._root / disk.RUNS / name).read_bytes()
            else:
                place = folders.to_write_in(self._folder, disk.RUNS)
                content = folders.content(place / name)
            found = json.loads(content)
            text, is_here = found["text"], found["root"] == self._identity()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError, LookupError, RecursionError):  # Not a mark.
            return None
        return text if is_here and type(text) is str else None

    def _is_own(self, path: str) -> bool:
        return disk.is_own(path, self._suffix, *self._old_suffixes)

    def _make(self, folder: pathlib.Path) -> None:
        """Create a folder; its name is synced with the next save."""
        made = durable.new_folders(folder)
        self._named.difference_update(made)
        self._made.update(made)

    def _sync_names(self, within: set[pathlib.Path]) -> None:
        """Sync the names in these folders, and those of the folders themselves.

        The name of a folder is synced once; another process may have made it.
        """
        made = set(self._made)
        top = pathlib.Path(os.path.realpath(self._root))
        named: set[pathlib.Path] = set()
        for folder in within:
            while folder not in self._named | named and folder.is_relative_to(top):
                named.add(folder)
                folder = folder.parent
        for place in within | {folder.parent for folder in made | named}:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                durable.sync(place)
        self._named |= named | made
        self._made -= made

    def _identity(self) -> Any:
        """Return an identity that the folder does not share with a copy of it."""
        if self.in_bucket:
            return os.fspath(self._root)
        found = os.stat(self._root)
        return [found.st_dev, found.st_ino]

    def _within(self, folder: str) -> Any:
        """Return the real path of a folder of the store; None if it is outside."""
        if self.in_bucket:
            return self._root / folder
        return None if disk.escapes(folder) else folders.inside(self._folder, folder)

    def _entries(self, place: Any) -> list[str]:
        """Return the names in a folder, without folders if saves are files."""
        if self.in_bucket:
            return [entry.name for entry in place.iterdir()]
        with os.scandir(place) as entries:
            return [
                entry.name
                for entry in entries
                if not (self._saves_are_files and entry.is_dir(follow_symlinks=False))
            ]

    def _warn_if_replaced(self) -> None:
        """Log a warning if another folder is now where the last save was written."""
        present = self._identity()
        if self._saved_in not in (None, present):
            self._named.clear()
            logger.warning(
                "the params folder %s was removed, moved or replaced while a run was "
                "saving there: what was saved before is not there any more. If it is "
                "still needed, stop the run and put the folder back.",
                self._root,
            )
        self._saved_in = present


def _mark_name(run: str) -> str:
    if type(run) is not str or not _TOKEN.fullmatch(run):
        raise ValueError(
            f"run must be a token of letters, digits, '_' and '-', got {run!r}. Pass "
            "the token with which the run's generation ids begin."
        )
    return f"{run}.json"
