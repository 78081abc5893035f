"""Shared by the stores on a disk: paths, contents with a checksum, and syncing."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import secrets
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from flax import serialization

from population.base.errors import LostParamsError, ParamsError
from population.base.refusals import shortly
from population.params import trees

RUNS = ".runs"  # The folder of the marks of runs.
_MAGIC = b"POPP"


def new_path(name: str, suffix: str) -> str:
    """Return a new path for a save, unique among all processes.

    Raises:
        ValueError: The name leads out of the folder, or cannot be that of a file.
    """
    if escapes(name):
        raise ValueError(
            f"name must stay within the folder, got {name!r}. Leave out '..', a "
            f"leading '/' or {RUNS!r}, and characters that a file's name cannot have."
        )
    return f"{name}-{secrets.token_hex(4)}{suffix}"


def draft_name(name: str) -> str:
    """Return the name of a save that is still being written."""
    return f".{name}.tmp"


def loadable(path: str) -> str:
    """Return the path itself, after a check that it may be that of a save.

    Raises:
        ParamsError: The path leads out of the folder, or is that of a draft.
    """
    if escapes(path):
        raise ParamsError(
            f"The params {path!r} are not in this store, whose paths stay within its "
            "folder. Open the run with the store that saved them."
        )
    name = pathlib.PurePosixPath(path).name
    if name.startswith(".") and name.endswith(".tmp"):
        raise cut_off(path)
    return path


def is_own(path: str, suffix: str) -> bool:
    """Whether a path may be that of a save, or a draft, of a store with this suffix."""
    saved = rf".*-[0-9a-f]{{8}}{re.escape(suffix)}"
    name = pathlib.PurePosixPath(path).name
    return not escapes(path) and bool(
        re.fullmatch(rf"{saved}|\.{saved}\.tmp", name, re.DOTALL)
    )


def packed(content: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return the bytes to write: a head with the checksum, and the body."""
    body = serialization.msgpack_serialize(content)
    return _MAGIC + struct.pack(">I", zlib.crc32(body)), body


def unpacked(content: bytes, path: str, place: str) -> dict[str, Any]:
    """Return the content that was passed to `packed`.

    Args:
        content: The bytes that were read.
        path: The path of the save; its content must have been written for that path.
        place: The name of the save in error messages.

    Raises:
        ParamsError: The content is damaged, or belongs to another save.
    """
    start = len(_MAGIC) + 4
    intact = content.startswith(_MAGIC) and len(content) >= start
    if intact:
        (checksum,) = struct.unpack_from(">I", content, len(_MAGIC))
        intact = zlib.crc32(memoryview(content)[start:]) == checksum
    if not intact:
        raise damaged(place)
    found: dict[str, Any] = serialization.msgpack_restore(content[start:])
    layout, leaves = found["layout"], found["leaves"]
    if not (layout is None or type(layout) is str):
        raise TypeError(f"its layout is {shortly(layout)}")
    for leaf, array in leaves.items():
        if type(leaf) is not str or not trees.is_storable(array):
            raise TypeError(f"its leaf {shortly(leaf)} is {shortly(array)}")
    written = found.get("path", path)
    # Only names count: a folder may be moved.
    if pathlib.PurePosixPath(written).name != pathlib.PurePosixPath(path).name:
        raise ParamsError(
            f"The params {place} are not those that were saved there but those of "
            f"{written!r}. Put the right ones back, or go on from an older checkpoint."
        )
    return found


@contextlib.contextmanager
def reading(place: str, again: Callable[[], object] | None = None) -> Iterator[None]:
    """Turn every error of the block, which reads params, into a `ParamsError`.

    Args:
        place: The name of the params in error messages.
        again: Called after a failure; it may raise a better error.

    Raises:
        ParamsError: The params cannot be read; its cause is the original error.
    """
    try:
        yield
    except ParamsError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LostParamsError(f"The params {place} are missing.") from error
    # Flax, msgpack, Orbax and TensorStore document no errors: they raise any class, for
    # a file of another kind and for a full memory alike.
    except Exception as error:
        if again is not None:
            again()
        why = (str(error) or type(error).__name__)[:300]
        raise ParamsError(
            f"The params {place} cannot be read: {why}. They were left as they are. "
            "Fix the cause and try again, or go on from an older checkpoint."
        ) from error


def damaged(place: str) -> ParamsError:
    """Return the error for params that are not as they were written."""
    return LostParamsError(
        f"The params {place} are damaged: their checksum does not fit. Go on from "
        "an older checkpoint."
    )


def cut_off(place: str) -> ParamsError:
    """Return the error for a save, or a removal, that was not finished."""
    return ParamsError(
        f"The params {place} are not whole: a save, or a removal, was cut off. Go on "
        "from an older checkpoint."
    )


def write(file: pathlib.Path, *parts: bytes) -> None:
    """Write a new file, and wait until it is on the disk."""
    with file.open("xb") as stream:  # Never overwrites a file of another process.
        stream.writelines(parts)
        stream.flush()
        os.fsync(stream.fileno())


def escapes(path: str) -> bool:
    """Whether a path is outside of a store, or in its folder of marks."""
    parts = pathlib.PurePosixPath(path).parts
    if os.path.isabs(path) or ".." in parts or "\0" in path:
        return True
    try:
        path.encode()
    except UnicodeEncodeError:
        return True
    return parts[:1] == (RUNS,)
