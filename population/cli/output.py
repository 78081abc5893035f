"""What all commands print: JSON for programs, lines and tables for people."""

from __future__ import annotations

import datetime
import enum
import json
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from population.base.types import Checkpoint
from population.base.whole_files import write_whole
from population.reader.columns import RunColumns


class Exit(enum.IntEnum):
    """The exit codes.

    Attributes:
        DONE: The command has done its work; the answer is yes.
        NO: The answer is no: the run has not finished, or something is wrong in it.
        USAGE: The arguments are wrong.
        UNUSABLE: The run cannot be read, or the file cannot be written.
        MISSING: A package is missing; the message says how to install it.
        INTERRUPTED: Ctrl-C.
    """

    DONE = 0
    NO = 1
    USAGE = 2
    UNUSABLE = 3
    MISSING = 4
    INTERRUPTED = 130


class Refused(Exception):
    """A command cannot do its work; the message is one line for people.

    Args:
        code: The exit code.
        text: What is needed, what was given, what to do.
    """

    def __init__(self, code: Exit, text: str) -> None:
        super().__init__(text)
        self.code = code


def say(*lines: str) -> None:
    """Print lines, with escapes for what a terminal would act on."""
    for line in lines:
        print(printable(line))


def say_json(value: Any) -> None:
    """Print a value as one JSON document."""
    print(json_text(value))


def json_text(value: Any, indent: int | None = 1) -> str:
    """Return a value as strict JSON: NaN and infinities are null."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def plain(value: Any) -> Any:
    """Return a value with only what JSON has; other values as text."""
    if value is None or isinstance(value, (str, bool, np.bool_)):
        return bool(value) if isinstance(value, np.bool_) else value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        value = dict(zip(value._fields, value, strict=True))
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        return [plain(inner) for inner in value]
    return str(value)


def records(columns: RunColumns) -> list[dict[str, Any]]:
    """Return a dict for each row of some columns."""
    names = list(columns)
    cells = [columns[name].tolist() for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; numbers are aligned to the right."""
    cells = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [all(_is_number(row[k]) for row in rows) for k in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]


def printable(text: str) -> str:
    """Return a text in one line, with escapes for what a terminal would act on."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def number(value: Any) -> str:
    """Return a number with four significant digits; "" for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def seconds(value: float) -> str:
    """Return a time in the unit that makes it a small number."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if value >= 2 * unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:.3g} s"


def when(time: float) -> str:
    """Return a time of the epoch in this machine's time zone."""
    return f"{datetime.datetime.fromtimestamp(time):%Y-%m-%d %H:%M:%S}"


def place(checkpoint: Checkpoint) -> str:
    """Return where a checkpoint is."""
    return f"step {checkpoint.step} of worker {checkpoint.worker_id}"


def write(path: str, text: str) -> None:
    """Write a file, or to standard output for "-"."""
    if path == "-":
        sys.stdout.write(text)
        return
    try:
        write_whole(pathlib.Path(path), text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise not_written(path, error) from error


def not_written(path: str, error: OSError) -> Refused:
    """Return the error for a file that cannot be written."""
    return Refused(
        Exit.UNUSABLE,
        f"{path} cannot be written: {error.strerror or error}. Name another place.",
    )


def _is_number(text: str) -> bool:
    try:
        float(text or "0")
    except ValueError:
        return False
    return True
