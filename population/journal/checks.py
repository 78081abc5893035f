"""Checks what comes out of a database: SQLite keeps any value in any column.

Damaged rows are refused here, in one place, before anything is made of them.
"""

from __future__ import annotations

import functools
import math
import re
import typing
import zlib
from typing import Any, TypeVar

from population.base import codec
from population.base.errors import damaged
from population.journal.records import (
    CheckpointRecord,
    CheckpointRow,
    Fact,
    Generation,
    MutatorRecord,
)

Row = TypeVar("Row", bound=tuple[Any, ...])
_LARGEST = 2**62  # A row or a count that is larger leaves no room for the next ones.
_ID = re.compile(r"[0-9A-Za-z_]+-([0-9]+)-[0-9]+")


def checked(kind: type[Row], row: tuple[Any, ...]) -> Row:
    """The record of a row.

    Raises:
        JournalError: If it has a value that no row of this kind can have.
    """
    types, known = tuple(map(type, row)), _known(kind)
    if types not in known:
        _check_types(kind, row)
        known.add(types)
    record: Row = kind(*row)
    for index, name, largest in _whole_numbers(kind):
        number = row[index]
        if number is not None and not 0 <= number <= largest:
            raise _wrong(kind, row, f"{name} is {number}")
    if isinstance(record, CheckpointRow):
        _check_parent(record)
    else:
        _check_sense(kind, row)
    for index in _times(kind):
        if not math.isfinite(row[index]):
            raise _wrong(kind, row, f"its time is {row[index]}")
    return record


def checksum(state: str, decisions: int) -> int:
    """What tells a mutator's state from one that was changed by accident."""
    return zlib.crc32(f"{decisions} {state}".encode())


def _check_sense(kind: type[Row], row: tuple[Any, ...]) -> None:
    """Refuse columns that contradict each other."""
    if kind is Generation:
        if not (_is_id(row[1], row[2]) and row[1].endswith(f"-{row[3]}")):
            raise _wrong(kind, row, f"its generation_id is {row[1]!r}")
        if not _is_digest(row[5], row[6]):
            raise _wrong(kind, row, "its meta_params are not as recorded")
    elif kind is CheckpointRecord and (row[3] or 0) >= row[0]:
        raise _wrong(kind, row, f"its parent is row {row[3]}")
    elif kind is MutatorRecord and row[3] != checksum(row[1], row[2]):
        raise damaged("the mutator's state is not as it was recorded")


def _check_parent(found: CheckpointRow) -> None:
    """Refuse a checkpoint whose generation or parent cannot be its own."""
    if not _is_id(found.generation_id, found.worker_id):
        raise _wrong(CheckpointRow, found, f"its generation is {found.generation_id!r}")
    if found.parent is None and found.parent_generation_id is None:
        return
    if found.parent_generation_id is None or found.parent_step is None:
        raise _wrong(CheckpointRow, found, "its parent is missing")
    if (
        found.parent is None
        or found.parent >= found.row
        or (found.parent_step > found.step)
    ):
        raise _wrong(CheckpointRow, found, "its parent is recorded or trained after it")


def _check_types(kind: type[Row], row: tuple[Any, ...]) -> None:
    for (name, types), value in zip(_columns(kind).items(), row, strict=True):
        if type(value) not in types:
            raise _wrong(kind, row, f"{name} is {_shortly(value)}")


@functools.cache
def _known(kind: Any) -> set[tuple[type, ...]]:
    """The types of rows that were found to be right; filled by `checked`."""
    del kind
    return set()


@functools.cache
def _columns(kind: Any) -> dict[str, tuple[type, ...]]:
    """The types that the values of each column may have."""
    hints = typing.get_type_hints(kind)
    return {name: typing.get_args(hint) or (hint,) for name, hint in hints.items()}


@functools.cache
def _whole_numbers(kind: Any) -> list[tuple[int, str, int]]:
    limits = {"step": 2**63 - 1, "parent_step": 2**63 - 1, "has_value": 1}
    return [
        (index, name, limits.get(name, _LARGEST))
        for index, (name, types) in enumerate(_columns(kind).items())
        if int in types
    ]


@functools.cache
def _times(kind: Any) -> list[int]:
    names = list(_columns(kind))
    return [names.index(n) for n in ("time", "renewed", "grace") if n in names]


@functools.lru_cache(maxsize=16384)
def _is_id(generation_id: str, worker_id: int) -> bool:
    """Whether it is the id of a generation of this worker, and so no path either."""
    found = _ID.fullmatch(generation_id)
    return found is not None and found[1] == str(worker_id)


@functools.lru_cache(maxsize=4096)
def _is_digest(meta_params: str, digest: str) -> bool:
    """Whether meta_params are those that a digest was made of."""
    try:
        found = codec.decode(meta_params)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return False
    try:
        return codec.digest(found) == digest
    except (TypeError, RecursionError):
        return True  # An older version has kept what is too deep for this one.


def _wrong(kind: type[Any], row: tuple[Any, ...], what: str) -> Exception:
    place = f" {row[0]}" if type(row[0]) is int else ""
    if kind is Fact:
        place = f" {_shortly(row[0])}"
    return damaged(f"in a {kind.__name__}{place}, {what}")


def _shortly(value: Any) -> str:
    return repr(value)[:60]
