"""Records what a program writes below a folder, and reads the record."""

from __future__ import annotations

import os
import pathlib
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
_SOURCE = pathlib.Path(__file__).with_name("recorder.c")
_HEAD = struct.Struct("<IIIIQQQ")
_TIMEOUT_S = 300

CREATE = "create"
WRITE = "write"
TRUNCATE = "truncate"
SYNC = "sync"
SYNC_ALL = "sync all"
RENAME = "rename"
UNLINK = "unlink"
MAKE_FOLDER = "make folder"
SYMLINK = "symlink"
LINK = "link"
MARK = "mark"
UNKNOWN = "unknown"
_KINDS = {
    "C": CREATE,
    "W": WRITE,
    "T": TRUNCATE,
    "S": SYNC,
    "A": SYNC_ALL,
    "R": RENAME,
    "U": UNLINK,
    "M": MAKE_FOLDER,
    "L": SYMLINK,
    "K": LINK,
    "N": MARK,
    "X": UNKNOWN,
}


class Event(NamedTuple):
    """One operation on the recorded folder, or a mark of the program.

    Attributes:
        kind: One of the constants of this module.
        file: The inode of the file, folder or link; 0 if the name says it.
        place: Where a write begins, or the new size of a truncated file.
        name: The path within the folder, "" for the folder itself; of an unknown
            operation, what it is.
        other: The new path of a rename or link.
        data: What was written, the text of a mark, or the target of a link.
    """

    kind: str
    file: int = 0
    place: int = 0
    name: str = ""
    other: str = ""
    data: bytes = b""


def compiled(folder: pathlib.Path) -> pathlib.Path | None:
    """Compile the recorder into a folder; None without Linux or a C compiler."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        return None
    library = folder / "recorder.so"
    options = ["-shared", "-fPIC", "-O1", "-U_FORTIFY_SOURCE", "-o", str(library)]
    libraries = ["-ldl", "-lpthread"]
    subprocess.run(
        [compiler, *options, str(_SOURCE), *libraries], check=True, timeout=120
    )
    return library


def recorded(
    command: Sequence[str], folder: pathlib.Path, recorder: pathlib.Path
) -> list[Event]:
    """Run a Python program, and return what it did in a folder.

    Args:
        command: The arguments of the interpreter; the program runs in the root of the
            project.
        folder: A folder that exists.
        recorder: The compiled recorder.

    Raises:
        RuntimeError: The program has failed; the message has its last words.
    """
    record = folder.with_name(f"{folder.name}.record")
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={
            **os.environ,
            "LD_PRELOAD": str(recorder),
            "POWER_CUT_FOLDER": os.path.realpath(folder),
            "POWER_CUT_RECORD": str(record),
        },
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"The recorded program has failed:\n{done.stderr[-4000:]}")
    return read(record)


def read(record: pathlib.Path) -> list[Event]:
    """Return the events of a record."""
    content, at = record.read_bytes(), 0
    events = []
    while at < len(content):
        kind, name, other, _, file, place, data = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        parts = []
        for length in (name, other, data):
            parts.append(content[at : at + length])
            at += length
        names = os.fsdecode(parts[0]), os.fsdecode(parts[1])
        events.append(Event(_KINDS[chr(kind)], file, place, *names, parts[2]))
    return events


def marks(events: Sequence[Event]) -> list[str]:
    """Return the texts of the marks among events, in their order."""
    return [event.data.decode() for event in events if event.kind == MARK]
