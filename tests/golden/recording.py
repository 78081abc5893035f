"""The recorded journals: one file for all scripts, and the comparison with a replay.

The file holds JSON, `{seed: {table: [row, ...]}}`, as `scripts.play` returns it. A
replay must have every table that was recorded, row by row; further tables are
ignored. `losses` is not compared: it was empty in every script, and a later
format may omit this table. Nor are the bytes of a fork's saves: they are those of its
files, whose format has changed.
"""

from __future__ import annotations

import itertools
import json
import lzma
import pathlib

from tests.golden.tables import Row, Tables

FILE = pathlib.Path(__file__).with_name("journals.json.xz")
SCRIPTS = 300
NOT_COMPARED = ("losses", "fork losses")
_SHOWN = 3
_ABSENT = "no such row"


def save(scripts: dict[int, Tables], file: pathlib.Path = FILE) -> None:
    """Write what was played; the same scripts make the same bytes."""
    keyed = {str(seed): tables for seed, tables in scripts.items()}
    text = json.dumps(keyed, separators=(",", ":"), sort_keys=True, allow_nan=False)
    file.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def load(file: pathlib.Path = FILE) -> dict[int, Tables]:
    """What was recorded, by seed."""
    scripts = json.loads(lzma.decompress(file.read_bytes()))
    return {int(seed): tables for seed, tables in scripts.items()}


def difference(recorded: Tables, now: Tables) -> str:
    """Where a replay differs: the first call, then the first rows of each table.

    Returns:
        A readable text; empty if nothing differs.
    """
    found = []
    for table in sorted(recorded, key=lambda table: (table != "calls", table)):
        if table in NOT_COMPARED:
            continue
        if table not in now:
            found.append(f"  {table}: the table is missing")
            continue
        both = recorded[table], now[table]
        if table == "fork saves":
            both = _without_bytes(both[0]), _without_bytes(both[1])
        different = _differing(*both)
        shown = 1 if table == "calls" else _SHOWN
        for number, old, new in different[:shown]:
            found.append(f"  {table} {number}:\n    was {old}\n    is  {new}")
        if len(different) > shown:
            found.append(f"  {table}: {len(different) - shown} further rows")
    return "\n".join(found)


def _without_bytes(rows: list[Row]) -> list[Row]:
    return [row[:-1] for row in rows]


def _differing(old: list[Row], new: list[Row]) -> list[tuple[int, str, str]]:
    """The rows that differ, by their number; 1 is not 1.0 here."""
    pairs = itertools.zip_longest(map(json.dumps, old), map(json.dumps, new))
    return [
        (number, before or _ABSENT, after or _ABSENT)
        for number, (before, after) in enumerate(pairs)
        if before != after
    ]
