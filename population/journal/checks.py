"""Checks the rows of a database, as SQLite can store any value in any column.

Damaged rows are refused here, in one place, before any other code uses them.
"""

from __future__ import annotations

import functools
import re
import sys
import typing
import zlib
from typing import Any, TypeVar

from population.base import codec
from population.base.errors import damaged
from population.base.refusals import shortly
from population.journal.base import MAX
from population.journal.records import (
    STOPPED,
    CheckpointRecord,
    CheckpointRow,
    Fact,
    Generation,
    MutatorRecord,
    Status,
)

Row = TypeVar("Row", bound=tuple[Any, ...])
_RIGHT_TYPES: set[tuple[Any, ...]] = set()  # Kinds with the types of valid rows.
_LARGEST = 2**62  # Larger rows and counts leave no room for the next ones.
_FAILS = {  # By the kinds of a `Status`: whether it counts a failure, and `retired`.
    "failed": (True, (0, 1)),
    "diverged": (True, (0, 1)),
    "recovered": (False, (0,)),
    "retired": (False, (1,)),
    "revived": (False, (0,)),
    STOPPED: (False, (0,)),
}
_ID = re.compile(r"[0-9A-Za-z_]+-([0-9]+)-[0-9]+")


def checked(kind: type[Row], row: tuple[Any, ...]) -> Row:
    """Return the record of a row, after a check.

    Raises:
        JournalError: The row has a value that no row of this kind can have.
    """
    types = kind, *map(type, row)
    if types not in _RIGHT_TYPES:
        for (name, allowed), value in zip(_columns(kind).items(), row, strict=True):
            if type(value) not in allowed:
                raise _wrong(kind, row, f"{name} is {shortly(value)}")
        _RIGHT_TYPES.add(types)
    for index, name, low, high in _bounds(kind):
        number = row[index]
        if number is not None and not low <= number <= high:
            raise _wrong(kind, row, f"{name} is {number}")
    record: Row = kind(*row)
    _check_sense(kind, record)
    return record


def checksum(state: str, decisions: int) -> int:
    """Return a checksum that detects accidental changes of a mutator's state."""
    return zlib.crc32(f"{decisions} {state}".encode())


def _check_sense(kind: type[Any], found: Any) -> None:
    """Refuse columns that contradict each other."""
    if kind is CheckpointRow:
        _check_parent(found)
    elif kind is Generation:
        own = _is_id(found.generation_id, found.worker_id)
        if not own or not found.generation_id.endswith(f"-{found.number}"):
            raise _wrong(kind, found, f"its generation_id is {found.generation_id!r}")
        if not _is_digest(found.meta_params, found.digest):
            raise _wrong(kind, found, "its meta_params are not as recorded")
    elif kind is CheckpointRecord and (found.parent or 0) >= found.row:
        raise _wrong(kind, found, f"its parent is row {found.parent}")
    elif kind is Status:
        fails, retired = _FAILS.get(found.kind, (False, ()))
        if found.retired not in retired or fails != (found.failures > 0):
            what = f"{found.kind!r}, failures {found.failures}, {found.retired}"
            raise _wrong(kind, found, f"its kind is {what}")
        if not 0 < found.number or not 0 < found.batch <= found.row + 1:
            raise _wrong(kind, found, f"its batch is {found.batch}")
    elif kind is MutatorRecord:
        if found.checksum != checksum(found.state, found.decisions):
            raise damaged("the mutator's state is not as it was recorded")


def _check_parent(found: CheckpointRow) -> None:
    """Refuse a checkpoint with an impossible generation or parent."""
    if not _is_id(found.generation_id, found.worker_id):
        raise _wrong(CheckpointRow, found, f"its generation is {found.generation_id!r}")
    if found.parent is None and found.parent_generation_id is None:
        return
    if found.parent_generation_id is None or found.parent_step is None:
        raise _wrong(CheckpointRow, found, "its parent is missing")
    is_later = found.parent is None or found.parent >= found.row
    if is_later or found.parent_step > found.step:
        raise _wrong(CheckpointRow, found, "its parent is recorded or trained after it")


@functools.cache
def _columns(kind: Any) -> dict[str, tuple[type, ...]]:
    """Return the types that the values of each column may have."""
    hints = typing.get_type_hints(kind)
    return {name: typing.get_args(hint) or (hint,) for name, hint in hints.items()}


@functools.cache
def _bounds(kind: Any) -> list[tuple[int, str, float, float]]:
    """Return index, name and bounds of each column with bounds, which exclude NaN."""
    largest = sys.float_info.max
    own: dict[str, tuple[float, float]] = {
        "step": (0, MAX),
        "parent_step": (0, MAX),
        "has_value": (0, 1),
        **dict.fromkeys(("time", "renewed", "grace"), (-largest, largest)),
    }
    return [
        (index, name, *own.get(name, (0, _LARGEST)))
        for index, (name, types) in enumerate(_columns(kind).items())
        if int in types or name in own
    ]


@functools.lru_cache(maxsize=16384)
def _is_id(generation_id: str, worker_id: int) -> bool:
    """Whether a text is the id of a generation of this worker, and so not a path."""
    found = _ID.fullmatch(generation_id)
    return found is not None and found[1] == str(worker_id)


@functools.lru_cache(maxsize=4096)
def _is_digest(meta_params: str, digest: str) -> bool:
    """Whether a digest is that of these meta_params."""
    try:
        found = codec.decode(meta_params)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return False
    try:
        return codec.digest(found) == digest
    except (TypeError, RecursionError):
        return True  # Older versions stored deeper trees than this one allows.


def _wrong(kind: type[Any], row: tuple[Any, ...], what: str) -> Exception:
    place = f" {row[0]}" if type(row[0]) is int else ""
    if kind is Fact:
        place = f" {shortly(row[0])}"
    return damaged(f"in a {kind.__name__}{place}, {what}")
