"""`population show`: how far a run is, its best, and its members."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from typing import Any

from population.base.types import Checkpoint
from population.cli import arguments
from population.cli.output import (
    Exit,
    number,
    place,
    plain,
    records,
    say,
    say_json,
    seconds,
    table,
    when,
)
from population.reader.columns import RunColumns
from population.reader.recorded_run import RecordedRun
from population.reader.run_status import RunStatus

NAME = "show"
HELP = "how far a run is, its best value, its members, and warnings"
_MOST, _WARNINGS = 40, 10  # Members and warnings.
_META = "meta_params."


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    arguments.add_run(parser)
    parser.add_argument(
        "--finished",
        action="store_true",
        help="print only whether the run has finished: exit 0 if so, else 1",
    )
    parser.add_argument(
        "--all", action="store_true", help=f"all members, not only the best {_MOST}"
    )


def run(options: argparse.Namespace) -> int:
    """Print the run."""
    found = arguments.opened(options)
    if options.finished:
        return _finished(found.status, options.json)
    status, best, members = found.status, found.best(), found.workers()
    if options.json:
        say_json(as_json(found, status, best, members))
        return Exit.DONE
    say(*lines(found, status, best))
    say("", *member_lines(members, status.mode, None if options.all else _MOST))
    return Exit.DONE


def _finished(status: RunStatus, as_json: bool) -> int:
    if as_json:
        say_json({"finished": status.finished, "reason": status.reason})
    else:
        say(f"finished: {status.reason}" if status.finished else "not finished")
    return Exit.DONE if status.finished else Exit.NO


def as_json(
    found: RecordedRun, status: RunStatus, best: Checkpoint | None, members: RunColumns
) -> dict[str, Any]:
    """Return all that is shown as data."""
    shown = plain(status)
    stop = status.stop
    shown["stop"] = None if stop is None else plain(dataclasses.asdict(stop))
    return {
        "log_dir": str(found.log_dir),
        **shown,
        "best": None if best is None else checkpoint_json(best),
        "members": records(members),
    }


def checkpoint_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return a checkpoint as data, without its params."""
    return {
        "generation_id": checkpoint.generation_id,
        "step": checkpoint.step,
        "worker_id": checkpoint.worker_id,
        "value": plain(checkpoint.value),
        "metrics": plain(checkpoint.metrics),
        "meta_params": plain(checkpoint.meta_params),
    }


def lines(
    found: RecordedRun, status: RunStatus, best: Checkpoint | None
) -> Iterator[str]:
    """Yield what is known of the run as a whole."""
    state = "open" if status.is_open else "not open"
    if status.finished:
        state = f"finished: {status.reason}"
    yield f"{found.log_dir} (run {status.run}): {state}"
    mutator = status.mutator.rpartition(".")[2]
    yield (
        f"{status.size} members, mode {status.mode}, seed {status.seed}, {mutator}; "
        f"stop {_limits(status)}"
    )
    times = "once" if status.openings == 1 else f"{status.openings} times"
    yield (
        f"{status.checkpoints} checkpoints, {status.reports} values, "
        f"{status.generations} generations; opened {times}, open for "
        f"{seconds(status.open_s)}, newest report {when(status.newest)}"
    )
    if best is not None:
        yield f"best {number(best.value)} at {place(best)} ({best.generation_id})"
        yield f"     {plain(best.meta_params)}"
    for warning in status.warnings[:_WARNINGS]:
        yield f"warning: {warning}"
    if left := len(status.warnings[_WARNINGS:]):
        yield f"... and {left} more warnings; --json shows them"


def member_lines(members: RunColumns, mode: str, most: int | None) -> Iterator[str]:
    """Yield a table of the members.

    Args:
        members: All of them.
        mode: The run's mode.
        most: How many rows; None: all.
    """
    rows = list(range(members.rows))
    if most is not None and len(rows) > most:
        sign = 1.0 if mode == "min" else -1.0
        best = sign * members["best"]
        rows = sorted(best.argsort(kind="stable")[:most].tolist())  # NaN comes last.
    metas = [name for name in members if name.startswith(_META)]
    head = ["worker", "status", "step", "value", "best", "branches", "failures"]
    head += [name.removeprefix(_META) for name in metas]
    names = ["worker_id", *head[1:7], *metas]
    columns = [members[name][rows].tolist() for name in names]
    cells = [[number(cell) for cell in row] for row in zip(*columns, strict=True)]
    yield from table(head, cells)
    left = members.rows - len(rows)
    if left:
        yield f"... and {left} more members; --all shows them"


def _limits(status: RunStatus) -> str:
    """Return the limits of a run in words."""
    if status.stop is None:
        return "unknown"
    limits = dataclasses.asdict(status.stop)
    found = [f"{name} {value}" for name, value in limits.items() if value is not None]
    return ", ".join(found) or "never"
