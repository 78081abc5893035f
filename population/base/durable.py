"""Makes files and folders outlive a power cut."""

from __future__ import annotations

import os
import pathlib


def make_folder(folder: pathlib.Path) -> None:
    """Make a folder and those above it, and make their names durable."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync(place: pathlib.Path) -> None:
    """Make a file durable, or the names in a folder."""
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
