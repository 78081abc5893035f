"""The local folders of stores, which write and remove nothing outside of them.

A store's folder may be a symbolic link, or be below one. A link within the store may
lead to another place within it. Through a link that leads out of the store, it only
reads files.
"""

from __future__ import annotations

import io
import os
import pathlib
import stat

from population.base.errors import ParamsError


def whole_url(place: str) -> str:
    """Return the URL with two slashes after its scheme, as pathlib removes one."""
    return place if "://" in place else place.replace(":/", "://", 1)


def inside(root: pathlib.Path, folder: str) -> pathlib.Path | None:
    """Return the real path of a store's folder; None if a link leads out of the store.

    Args:
        root: The store's folder.
        folder: A relative path without `..`.
    """
    place, link = _follow(root, folder)
    return place if link is None else None


def to_write_in(root: pathlib.Path, folder: str) -> pathlib.Path:
    """Return the real path of a store's folder in which files may be written.

    Raises:
        ParamsError: A link on the way leads out of the store.
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
    """Return a folder's real path, and the link on it that leads out, or None."""
    top = place = os.path.realpath(root)
    for part in pathlib.PurePosixPath(folder).parts:
        step = os.path.join(place, part)
        if not os.path.islink(step):
            place = step
            continue
        place = os.path.realpath(step)
        # realpath resolves all links except those that lead to themselves.
        if os.path.commonpath([top, place]) != top or os.path.islink(place):
            return pathlib.Path(place), pathlib.Path(step)
    return pathlib.Path(place), None


def opened(file: str | os.PathLike[str]) -> io.FileIO:
    """Open a regular file for reading, without a buffer.

    Raises:
        OSError: It cannot be opened, or is a pipe or a device, which could block.
    """
    handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(f"it is no regular file but a {_kind(mode)}")
    except OSError:
        os.close(handle)
        raise
    return open(handle, "rb", buffering=0)


def content(file: str | os.PathLike[str]) -> bytes:
    """Return the content of a regular file; raises the errors of `opened`."""
    with opened(file) as stream:
        return stream.read()


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "folder"
    return "named pipe" if stat.S_ISFIFO(mode) else "device"
