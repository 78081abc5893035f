"""Writes files that are complete or not there."""

from __future__ import annotations

import os
import pathlib


def write_whole(place: pathlib.Path, content: bytes) -> None:
    """Write a file beside its place, then rename it.

    A link stays, and the file that it leads to is replaced. A pipe or a device, such as
    `/dev/null`, is written to: a rename would put a file in its place.

    Args:
        place: The file; its folder must exist.
        content: What it is to hold.

    Raises:
        OSError: It cannot be written, and is as it was.
    """
    if place.exists() and not place.is_file():
        place.write_bytes(content)
        return
    real = pathlib.Path(os.path.realpath(place))
    draft = real.with_name(f".{real.name}.{os.getpid()}.draft")
    try:
        draft.write_bytes(content)
        draft.replace(real)
    finally:
        draft.unlink(missing_ok=True)
