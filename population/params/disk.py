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
from population.params import kinds

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
        ParamsError: The path leads out of the folder.
        LostParamsError: It is the path of a draft.
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


def is_own(path: str, *suffixes: str) -> bool:
    """Whether a path may be that of a save, or a draft, with one of these suffixes."""
    saved = rf".*-[0-9a-f]{{8}}(?:{'|'.join(map(re.escape, suffixes))})"
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
        LostParamsError: The content is damaged, or belongs to another save.
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
        if type(leaf) is not str or not kinds.is_storable(array):
            raise TypeError(f"its leaf {shortly(leaf)} is {shortly(array)}")
    refuse_others(found.get("path", path), path, place)
    return found


def refuse_others(written: str, path: str, place: str) -> None:
    """Refuse the content of another save.

    Args:
        written: The path for which the content was written.
        path: The path at which it was found.
        place: The name of the save in error messages.

    Raises:
        LostParamsError: They differ in more than the folder, which may be moved.
    """
    if pathlib.PurePosixPath(written).name != pathlib.PurePosixPath(path).name:
        raise LostParamsError(
            f"The params {place} are not those that were saved there but those of "
            f"{written!r:.200}. Put the right ones back, or go on from an older "
            "checkpoint."
        )


@contextlib.contextmanager
def reading(place: str, again: Callable[[], object] | None = None) -> Iterator[None]:
    """Turn every error of the block, which reads params, into a `ParamsError`.

    Args:
        place: The name of the params in error messages.
        again: Called after a failure; it may raise a better error.

    Raises:
        LostParamsError: The params are missing.
        ParamsError: They cannot be read; its cause is the original error.
    """
    try:
        yield
    except ParamsError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.islink(place):  # To a disk that may not be mounted.
            raise ParamsError(f"The params {place} are a link to nothing.") from error
        raise LostParamsError(f"The params {place} are missing.") from error
    # NumPy, Flax, msgpack, Orbax and TensorStore document no errors: they raise any
    # class, for a file of another kind and for a full memory alike.
    except Exception as error:
        if again is not None:
            again()
        why = (str(error) or type(error).__name__)[:300]
        raise ParamsError(
            f"The params {place} cannot be read: {why}. They were left as they are. "
            "Fix the cause and try again, or go on from an older checkpoint."
        ) from error


def damaged(place: str, why: str = "their checksum does not fit") -> LostParamsError:
    """Return the error for params that are not as they were written."""
    return LostParamsError(
        f"The params {place} are damaged: {why}. Go on from an older checkpoint."
    )


def cut_off(place: str) -> LostParamsError:
    """Return the error for a save, or a removal, that was not finished."""
    return LostParamsError(
        f"The params {place} are not whole: a save, or a removal, was cut off. Go on "
        "from an older checkpoint."
    )


def write(file: pathlib.Path, *parts: bytes) -> None:
    """Write a new file."""
    with created(file) as handle:
        for part in parts:
            put(handle, part)


@contextlib.contextmanager
def created(file: pathlib.Path) -> Iterator[int]:
    """Open a new file, never one of another process, and close it after the block."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    handle = os.open(file, flags, 0o666)
    try:
        yield handle
    finally:
        os.close(handle)


def put(handle: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of the data to an open file."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


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
