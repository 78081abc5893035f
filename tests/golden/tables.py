"""Reads the tables of a journal without the library, under names that never change.

Random parts of a run are named by the order in which they appear: its token, the owners
of sessions and slots, and the files of its saves. Absolute paths are cut, and the
random part of paths of `Worker.save_to` is left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import pathlib
import re
import sqlite3
import zlib
from typing import Any

Row = list[Any]
Tables = dict[str, list[Row]]

# The columns by table, and how the rows are sorted; "" if their order is random.
_TABLES = {
    "facts": ("key, value", "key"),
    "sessions": ("row, time, owner", "rowid"),
    "generations": (
        "row, generation_id, worker_id, number, step, meta_params, digest, reason, "
        "time",
        "row",
    ),
    "checkpoints": (
        "row, generation, step, parent, params, has_value, value, metrics, time, "
        "reports, batch",
        "row",
    ),
    "late": (
        "row, checkpoint, params, has_value, value, metrics, time, reports, batch",
        "row",
    ),
    "best": ("row, checkpoint, reports", "row"),
    "removals": ("params, row, reason", ""),
    "saves": ("params, row, generation, step, bytes", ""),
    "leases": ("worker_id, owner, renewed, grace, handed, change", "worker_id"),
    "losses": ("row, lost, told, time", "rowid"),
    "statuses": (
        "number, row, worker_id, kind, reason, failures, retired, step, time, batch",
        "number",
    ),
    "state": ("state, decisions, checksum", "id"),
}
_SAVE = re.compile(r"(\d+)-([0-9a-f]{8}-[0-9a-f]{8})\.safetensors")
_ENDING = ".msgpack"  # That of the saves of the version that recorded the journals.
_OWN = re.compile(r"(?<=/)(\d+)-[0-9a-f]{16}\b")  # The name of a path of `save_to`.
_HELD = re.compile(r'"([0-9a-f]{8})",(?=\d)')
_ROOM = re.compile(r"\bpopulation(?:\.[a-z_]+)+\.(?=[A-Z])")


class Names:
    """Names for what is random, in the order in which it appears.

    Args:
        folder: The folder in which the script plays.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = str(folder)
        self._run = ""
        self._owners: dict[str, str] = {}
        self._saves: dict[str, str] = {}

    def learn(self, raw: Tables) -> None:
        """Give names to what is random in the tables of a journal."""
        for key, value in raw["facts"]:
            if key == "run":
                self._run = json.loads(value)
        for *_, owner in raw["sessions"]:
            self.owner(owner)
        for _, owner, *_ in raw["leases"]:
            self.owner(owner)
        params = [row[4] for row in raw["checkpoints"]] + [r[2] for r in raw["late"]]
        for text in params:
            for found in _SAVE.finditer(text or ""):
                self._saves.setdefault(found[2], f"T{len(self._saves)}")

    def owner(self, text: str | None) -> str | None:
        """The name of an owner; None and raw loops have none."""
        if not text:
            return text
        token = json.loads(text)[-1]
        return self._owners.setdefault(token, f"owner{len(self._owners)}")

    def text(self, text: str) -> str:
        """A string with names in place of what is random in it."""
        text = text.replace(self._folder, "DIR").replace(f"{self._run}-", "RUN-")
        text = _OWN.sub(r"\1", text)
        text = _SAVE.sub(
            lambda m: f"{m[1]}-{self._saves.get(m[2], 'T?')}{_ENDING}", text
        )
        return _HELD.sub(lambda m: f'"{self._owners.get(m[1], "owner?")}",', text)

    def cell(self, value: Any) -> Any:
        """A value of a table, or of a list of such values."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, float) and not math.isfinite(value):
            return repr(value)
        return [self.cell(inner) for inner in value] if type(value) is list else value

    def fact(self, key: str, value: str) -> Row:
        """A row of `facts`."""
        if key == "run":
            return [key, "RUN"]
        if key == "forked":
            origin = json.loads(value) | {"token": "TOKEN"}
            value = json.dumps(origin, sort_keys=True)
        return [key, _ROOM.sub("", self.text(value))]


def read(file: pathlib.Path, names: Names) -> Tables:
    """The tables of a journal, without those that it lacks."""
    raw = _raw(file)
    names.learn(raw)
    found: Tables = {}
    for table, rows in raw.items():
        if table == "facts":
            # Versions of packages and limits are of a session, and decide nothing.
            rows = [row for row in rows if not row[0].startswith(("held", "session "))]
            found[table] = [names.fact(*row) for row in rows]
            continue
        if table in ("removals", "saves"):
            # Its process decides when weights in memory are gone; no policy sees it.
            rows = [row for row in rows if not row[0].startswith('{"!held"')]
        for row in rows:
            if table == "sessions":
                row[2] = names.owner(row[2])
            elif table == "leases":
                row[1] = names.owner(row[1])
            elif table == "generations":
                row[6] = row[6][:8]
            elif table == "state":
                fits = zlib.crc32(f"{row[1]} {row[0]}".encode()) == row[2]
                row[2] = "fits" if fits else "does not fit"
        found[table] = [names.cell(row) for row in rows]
        if not _TABLES[table][1]:
            found[table].sort(key=json.dumps)
    return found


def digest(tables: Tables) -> str:
    """A short text that changes if any row changes."""
    # Without empty statuses, as files of older formats have no such table.
    left_out = "losses", *(() if tables.get("statuses") else ("statuses",))
    kept = {table: rows for table, rows in tables.items() if table not in left_out}
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:6]


def _raw(file: pathlib.Path) -> Tables:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        kinds = "SELECT name FROM sqlite_master WHERE type = 'table'"
        present = {name for (name,) in connection.execute(kinds)}
        return {
            table: [
                list(row)
                for row in connection.execute(
                    f"SELECT {columns} FROM {table}"
                    + (f" ORDER BY {order}" if order else "")
                )
            ]
            for table, (columns, order) in _TABLES.items()
            if table in present
        }
