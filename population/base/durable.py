"""Syncs files and folders to the disk, so that they survive a power cut."""

from __future__ import annotations

import os
import pathlib
import sys

if sys.platform == "darwin":
    import fcntl


def make_folder(folder: pathlib.Path) -> None:
    """Create a folder and its parents, and sync their names to the disk."""
    for made in new_folders(folder):
        sync(made.parent)


def new_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """Create a folder and its parents, without a sync; return those that are new."""
    if folder.is_dir():
        return []
    made = new_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    return [*made, folder]


def sync(place: pathlib.Path) -> None:
    """Sync the contents of a file, or the names in a folder, to the disk."""
    handle = os.open(place, os.O_RDONLY)
    try:
        sync_open(handle)
    finally:
        os.close(handle)


def sync_open(handle: int) -> None:
    """Sync the contents of an open file to the disk."""
    if sys.platform == "darwin":  # There fsync may only reach the disk's cache.
        fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
    else:
        os.fsync(handle)
