"""A CSV file with a row for each event."""

from __future__ import annotations

import csv as csv_module
import io
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from population.base.types import Event
from population.report.loggers.base import EventLogger, named, why
from population.report.loggers.line_file import LineFile

_FIRST = ("time", "event", "worker_id", "row", "generation_id", "step", "value")
_FIXED = (*_FIRST, "reason", "meta_params", "metrics")
_ONE_LINE = str.maketrans({"\n": " ", "\r": " ", "\0": " "})


def csv(
    path: str | os.PathLike[str],
    columns: Sequence[str] = (),
    *,
    clock: Callable[[], float] = time.time,
) -> EventLogger:
    r"""Return a logger that appends a row for each event to a CSV file.

    The columns are `time` (seconds since the epoch at which the row was written),
    `event` (its kind), `worker_id`, `row` (of the checkpoint in the journal),
    `generation_id`, `step` (training steps), `value` (also `nan` and `inf`; empty if
    not evaluated), `reason`, `meta_params` and `metrics`. The last two are JSON objects
    by name (nested ones `a/b`; NaN and infinities are null), so that a name that
    appears late changes no column.
    Line breaks in other texts become spaces: each event is one line.

    An existing file is continued, without a second header. Each row is written at once;
    a row that a crash has cut off is removed when the file is opened again. Several
    processes of one machine may write to one file.

    Args:
        path: The file; its folder is made if it does not exist.
        columns: Further columns, such as `meta_params/learning_rate`, `metrics/loss`.
        clock: Returns seconds since the epoch.

    Raises:
        ValueError: `columns` are not distinct texts of that form, or the file has other
            columns.
        OSError: The file cannot be written.
    """
    for name in columns:
        form = isinstance(name, str) and name.split("/")[0] in (
            "meta_params",
            "metrics",
        )
        if not form or name in _FIXED or list(columns).count(name) > 1:
            raise ValueError(
                "columns must be distinct names such as 'meta_params/learning_rate' or "
                f"'metrics/loss', got {name!r}."
            )
    return CsvLogger(pathlib.Path(path), tuple(columns), clock)


class CsvLogger(EventLogger):
    """Appends a row for each event to a file.

    Args:
        path: The file.
        columns: The names of further columns.
        clock: Returns seconds since the epoch.
    """

    def __init__(
        self, path: pathlib.Path, columns: Sequence[str], clock: Callable[[], float]
    ) -> None:
        self._columns, self._clock = columns, clock
        self._file = LineFile(path, _line((*_FIXED, *columns)))

    def __call__(self, event: Event) -> None:
        """Append a row."""
        self._file.append(_line(_cells(event, self._clock(), self._columns)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _cells(event: Event, now: float, columns: Sequence[str]) -> list[Any]:
    """Return the cells of an event's row."""
    found = event.checkpoint
    head = [now, event.kind, event.worker_id]
    if found is None:
        return [*head, *[""] * 4, why(event), *[""] * (2 + len(columns))]
    place = found.row, found.generation_id, found.step, found.value
    leaves = named("meta_params", found.meta_params) | named("metrics", found.metrics)
    trees = _json(found.meta_params), _json(found.metrics)
    return [*head, *place, why(event), *trees, *(leaves.get(n) for n in columns)]


def _json(tree: Any) -> str:
    """Return meta_params or metrics as a JSON object by name, or as one value."""
    leaves = named("", tree)
    plain = {name: _strict(leaf) for name, leaf in leaves.items()}
    found = plain[""] if "" in plain else {n[1:]: leaf for n, leaf in plain.items()}
    return json.dumps(found, default=str, allow_nan=False) if leaves else ""


def _strict(leaf: Any) -> Any:
    """Return a leaf, or None for a number that JSON does not have."""
    is_odd = isinstance(leaf, Real) and not math.isfinite(leaf)
    return None if is_odd else leaf


def _line(cells: Sequence[Any]) -> bytes:
    """Return a row of CSV, which is always one line."""
    text = io.StringIO()
    plain = (c.translate(_ONE_LINE) if isinstance(c, str) else c for c in cells)
    csv_module.writer(text, lineterminator="\n").writerow(plain)
    return text.getvalue().encode("utf-8", "backslashreplace")
