"""A run as a table: a row for each member, or a column if rows would not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from population.base.types import Checkpoint
from population.controller import PopulationController
from population.report.hyperparameters import flattened, short
from population.run.member_statuses import MemberStatus

_GAP = 2  # Spaces between two columns.
_UNITS = {3600: "h", 60: "min", 1: "s"}
_LEAST = 2  # Of a unit: shorter times are in a smaller one.
Column = list[str]  # Its name, and a cell for each row.


def print_workers(
    controller: PopulationController,
    extra: Mapping[str, Sequence[Any]] | None = None,
    value: str = "value",
    title: str = "",
    console: Console | None = None,
) -> None:
    """Print what each member has trained, with which result, and its status.

    Steps, value and hyperparameters are those of the newest checkpoint that the slot
    itself reported. If the rows of the members are too wide for the console, each
    member has a column, or the table is in parts; nothing is cut. Below it are the
    reasons of failures and retirements.

    Args:
        controller: The run.
        extra: Further columns by name, one entry for each worker; None: an empty cell.
        value: The name of the reported value.
        title: The title above the table.
        console: The console to print on; by default standard output.
    """
    console = console or Console()
    members = controller.members()
    columns = _columns(controller, members, extra or {}, value)
    turned = [list(row) for row in zip(*columns, strict=True)]
    by_row = [[_broken(column[0], column[1:]), *column[1:]] for column in columns]
    parts = _parts(by_row, console.width)
    parts_turned = _parts(turned, console.width)
    if title:
        _print_line(console, title)
    if len(parts_turned) < len(parts):
        _print_tables(console, parts_turned, "left")
    else:
        _print_tables(console, parts, "right")
    notes = [_note(member) for member in members if member.reason]
    for line in ["", *notes] if notes else []:
        _print_line(console, line)


def _columns(
    controller: PopulationController,
    members: Sequence[MemberStatus],
    extra: Mapping[str, Sequence[Any]],
    value: str,
) -> list[Column]:
    """Return the columns of the table, with a row for each member."""
    newest = [controller.newest(member.worker_id) for member in members]
    metas = [flattened(checkpoint.meta_params) for checkpoint in newest]
    names = dict.fromkeys(name for meta_params in metas for name in meta_params)
    diverged = controller.diverged()
    columns = [
        ["worker", *(str(member.worker_id) for member in members)],
        ["steps", *(str(checkpoint.step) for checkpoint in newest)],
        [value, *(_value(controller, checkpoint) for checkpoint in newest)],
        *([name, *map(_further, cells)] for name, cells in extra.items()),
        *([name, *(short(meta.get(name, "")) for meta in metas)] for name in names),
        ["status", *map(_status, members)],
        ["branches", *(str(member.branches) for member in members)],
        ["restarts", *(str(member.restarts) for member in members)],
        ["wall time", *_durations([member.wall_s for member in members])],
        ["steps trained", *(str(member.steps_trained) for member in members)],
    ]
    if any(diverged):
        columns.append(["diverged", *map(str, diverged)])
    return columns


def _value(controller: PopulationController, newest: Checkpoint) -> str:
    """Return the newest value of a checkpoint's generation up to it; "" for none."""
    found: Checkpoint | None = newest
    if newest.value is None:
        found = controller.graph.newest_value(newest)
    if found is None or found.generation_id != newest.generation_id:
        return ""
    return short(found.value)


def _further(cell: Any) -> str:
    return "" if cell is None else short(cell)


def _status(member: MemberStatus) -> str:
    """Return a member's status, with the number of its failures."""
    if not member.failures:
        return member.status
    times = "once" if member.failures == 1 else f"{member.failures} times"
    failed = f"failed {times}"
    if member.status == "failed":
        return failed
    if member.status == "retired":
        return f"{failed}, retired"
    return f"{member.status}, {failed}"


def _note(member: MemberStatus) -> str:
    """Return a line with the reason of a member's status."""
    reason = member.reason
    if member.status == "diverged":
        reason = reason.removeprefix("diverged: ")
    return f"worker {member.worker_id}, {_status(member)}: {_printable(reason)}"


def _printable(text: str) -> str:
    """Return a text in one line, with escapes for what a terminal would act on."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _durations(seconds: Sequence[float]) -> list[str]:
    """Return times in the unit that makes the longest one a small number."""
    longest = max(seconds)
    unit = next(unit for unit in _UNITS if longest >= _LEAST * unit or unit == 1)
    return [f"{short(time / unit)} {_UNITS[unit]}" for time in seconds]


def _broken(name: str, cells: Sequence[str]) -> str:
    """Return a name, in several lines if it is wider than the cells below it."""
    if cell_len(name) <= max(map(cell_len, cells), default=0):
        return name
    return name.replace(" ", "\n").replace("/", "/\n")


def _parts(columns: Sequence[Column], limit: int) -> list[list[Column]]:
    """Divide a table into as few parts as fit, of about the same width.

    Args:
        columns: The columns; the first one is repeated in each part.
        limit: The greatest width. A part may be wider if it has only one more column.
    """
    widths = [_width(column) for column in columns]
    ends = _ends(widths, limit)
    for narrower in range(limit - 1, 0, -1):
        found = _ends(widths, narrower)
        if len(found) > len(ends):
            break
        ends = found
    begins = [1, *ends[:-1]]
    return [
        [columns[0], *columns[begin:end]]
        for begin, end in zip(begins, ends, strict=True)
    ]


def _ends(widths: Sequence[int], limit: int) -> list[int]:
    """Return where each part ends if each is as wide as the limit allows."""
    ends: list[int] = []
    total = widths[0]
    for place, width in enumerate(widths[1:], start=1):
        total += _GAP + width
        if total > limit and place > (ends[-1] if ends else 1):
            ends.append(place)
            total = widths[0] + _GAP + width
    return [*ends, len(widths)]


def _width(column: Column) -> int:
    return max(cell_len(line) for cell in column for line in cell.split("\n"))


def _print_tables(
    console: Console, parts: Sequence[Sequence[Column]], first: JustifyMethod
) -> None:
    """Print the parts of a table; `first` says how the first columns are justified."""
    for place, columns in enumerate(parts):
        if place:
            _print_line(console, "")
        table = Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            collapse_padding=True,
            width=sum(map(_width, columns)) + _GAP * (len(columns) - 1),
        )
        for column in columns:
            justify: JustifyMethod = "right" if table.columns else first
            header = Text(column[0])
            table.add_column(header, justify=justify, vertical="bottom", no_wrap=True)
        for row in list(zip(*columns, strict=True))[1:]:
            table.add_row(*map(Text, row))
        console.print(table, crop=False)


def _print_line(console: Console, line: str) -> None:
    console.print(Text(line), soft_wrap=True)
