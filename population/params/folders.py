"""The local folders of stores: nothing outside of them is written or removed.

A store's folder may itself be a link, or lie below one. A link below it may lead to
another place within; one that leads out is read through, and nothing else.
"""

from __future__ import annotations

import logging
import os
import pathlib
import stat
from typing import BinaryIO

from population.base.errors import ParamsError

logger = logging.getLogger("population")


def whole_url(place: str) -> str:
    """A URL with two slashes after its scheme, of which pathlib leaves one."""
    return place if "://" in place else place.replace(":/", "://", 1)


class Watch:
    """Says once when the folder of a store is no longer the one that it was."""

    def __init__(self) -> None:
        self._known: tuple[int, int] | None = None

    def look(self, root: pathlib.Path) -> None:
        """Compare a folder, which exists, with what was there at the last save."""
        found = os.stat(root)
        present = found.st_dev, found.st_ino
        if self._known not in (None, present):
            logger.warning(
                "the params folder %s was removed, moved or replaced while a run was "
                "saving there: what was saved before is not there any more. Stop, and "
                "put it back, if it is still needed.",
                root,
            )
        self._known = present


def inside(root: pathlib.Path, folder: str) -> pathlib.Path | None:
    """Where a folder of a store really is; None if a link to it leads out of the store.

    Args:
        root: The store's folder.
        folder: A relative path without `..`.
    """
    place, link = _follow(root, folder)
    return place if link is None else None


def to_write_in(root: pathlib.Path, folder: str) -> pathlib.Path:
    """Where a folder of a store really is, for what is to be written there.

    Raises:
        ParamsError: If a link on the way leads out of the store.
    """
    place, link = _follow(root, folder)
    if link is not None:
        raise ParamsError(
            f"The folder {root / folder} must lie within the store, but {link} is a "
            f"link to {place}. Make it a real folder, or make a store in {place}."
        )
    return place


def _follow(
    root: pathlib.Path, folder: str
) -> tuple[pathlib.Path, pathlib.Path | None]:
    """Where a folder is, or where the first link that leads out of the root does."""
    top = place = os.path.realpath(root)
    for part in pathlib.PurePosixPath(folder).parts:
        step = os.path.join(place, part)
        place = os.path.realpath(step)
        # A link that is left by realpath leads to itself.
        if os.path.commonpath([top, place]) != top or os.path.islink(place):
            return pathlib.Path(place), pathlib.Path(step)
    return pathlib.Path(place), None


def opened(file: str | os.PathLike[str]) -> BinaryIO:
    """A regular file, open for reading.

    Raises:
        OSError: If it cannot be opened, or is a pipe or a device: those could block.
    """
    handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(f"it is no regular file but a {_kind(mode)}")
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "folder"
    return "named pipe" if stat.S_ISFIFO(mode) else "device"
