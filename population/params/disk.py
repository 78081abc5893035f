"""What the stores on a disk share: paths, contents with a checksum, and syncing."""

from __future__ import annotations

import os
import pathlib
import re
import secrets
import struct
import zlib
from typing import Any

from flax import serialization

from population.errors import ParamsError

_MAGIC = b"POPP"


def new_path(name: str, suffix: str) -> str:
    """A path of its own for a save: no two share one, not even of two processes.

    Raises:
        ValueError: If the name leads out of the folder.
    """
    if _escapes(name):
        raise ValueError(
            f"name must stay within the folder, got {name!r}. Leave out '..' and a "
            "leading '/'."
        )
    return f"{name}-{secrets.token_hex(4)}{suffix}"


def draft_name(name: str) -> str:
    """The name of a save that is still being written."""
    return f".{name}.tmp"


def loadable(path: str) -> str:
    """The path, if a save may have it.

    Raises:
        ParamsError: If it leads out of the folder, or is a draft's.
    """
    if _escapes(path):
        raise ParamsError(
            f"The params {path!r} are not of this store: its paths stay within its "
            "folder. Open the run with the store that saved them."
        )
    if _is_draft(pathlib.PurePosixPath(path).name):
        raise cut_off(path)
    return path


def is_own(path: str, suffix: str) -> bool:
    """Whether a store with this suffix may have written there: a save or a draft."""
    saved = rf".*-[0-9a-f]{{8}}{re.escape(suffix)}"
    name = pathlib.PurePosixPath(path).name
    return not _escapes(path) and bool(
        re.fullmatch(rf"{saved}|\.{saved}\.tmp", name, re.DOTALL)
    )


def names(root: Any, folder: str, suffix: str) -> list[str]:
    """The paths of the saves and drafts right under `root / folder`.

    Args:
        root: The store's folder, a path of `pathlib` or of `epath`.
        folder: A folder within it.
        suffix: How the store's saves end.
    """
    try:
        found = [entry.name for entry in (root / folder).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    paths = (str(pathlib.PurePosixPath(folder, name)) for name in sorted(found))
    return [path for path in paths if is_own(path, suffix)]


def packed(content: dict[str, Any]) -> tuple[bytes, bytes]:
    """A head with the checksum, and the body."""
    body = serialization.msgpack_serialize(content)
    return _MAGIC + struct.pack(">I", zlib.crc32(body)), body


def unpacked(content: bytes, place: str) -> dict[str, Any]:
    """What `packed` was given.

    Raises:
        ParamsError: If it is not as it was written.
    """
    start = len(_MAGIC) + 4
    intact = content.startswith(_MAGIC) and len(content) >= start
    if intact:
        (checksum,) = struct.unpack_from(">I", content, len(_MAGIC))
        intact = zlib.crc32(memoryview(content)[start:]) == checksum
    if not intact:
        raise damaged(place)
    found: dict[str, Any] = serialization.msgpack_restore(content[start:])
    return found


def damaged(place: str) -> ParamsError:
    """The error for params that are not as they were written."""
    return ParamsError(
        f"The params {place} are damaged: their checksum does not fit. Go on from "
        "an older checkpoint."
    )


def cut_off(place: str) -> ParamsError:
    """The error for what a kill has left of a save."""
    return ParamsError(
        f"The params {place} are not whole: a save, or a removal, was cut off. Go on "
        "from an older checkpoint."
    )


def write(file: pathlib.Path, *parts: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with file.open("wb") as stream:
        stream.writelines(parts)
        stream.flush()
        os.fsync(stream.fileno())


def _is_draft(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def _escapes(path: str) -> bool:
    return os.path.isabs(path) or ".." in pathlib.PurePath(path).parts
