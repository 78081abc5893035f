"""`population watch`: follows a run until it has finished."""

from __future__ import annotations

import argparse
import collections
import math
import shutil
import sys
import threading
import time
from collections.abc import Callable

from population.cli import arguments, show
from population.cli.output import Exit, json_text, number, printable, say
from population.reader.recorded_run import RecordedRun

NAME = "watch"
HELP = "follow a run until it has finished"
_CLEAR = "\x1b[H\x1b[J"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    arguments.add_run(parser)
    parser.add_argument(
        "--every", type=_pause, default=2.0, metavar="SECONDS", help="default: 2"
    )


def run(options: argparse.Namespace) -> int:
    """Print the run again and again: a screen in a terminal, else a line a change.

    With `--json` a change is one line of JSON.
    """
    found = arguments.opened(options)
    if options.json:
        return follow(found, options.every, _json)
    return follow(found, options.every, _screen if sys.stdout.isatty() else line)


def follow(
    found: RecordedRun,
    every_s: float,
    tell: Callable[[RecordedRun], None],
    wait: Callable[[float], object] = time.sleep,
) -> int:
    """Show a run whenever it has changed, until it has finished.

    Args:
        found: The run.
        every_s: Seconds between two looks.
        tell: Shows it.
        wait: Waits for so many seconds.
    """
    before: object = None
    while True:
        status = found.status
        now = status._replace(open_s=0.0)
        if now != before:
            tell(found)
            sys.stdout.flush()
            before = now
        if status.finished:
            return Exit.DONE
        wait(max(every_s, 0.05))


def _pause(text: str) -> float:
    """Return the seconds between two looks.

    Raises:
        ArgumentTypeError: It is no time that a process can wait for.
    """
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found <= threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text!r}")
    return found


def line(found: RecordedRun) -> None:
    """Print the run in a line."""
    status = found.status
    counts = collections.Counter(found.workers()["status"].tolist())
    members = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    parts = [
        f"step {status.step}",
        f"{status.reports} values",
        f"best {number(status.best) or 'none'}",
        f"{status.generations - status.size} branches and restarts",
        members,
    ]
    if status.finished:
        parts.append(f"finished: {status.reason}")
    elif not status.is_open:
        parts.append("not open")
    say("; ".join(parts))


def _json(found: RecordedRun) -> None:
    """Print the run as JSON in a line."""
    status, best, members = found.status, found.best(), found.workers()
    print(json_text(show.as_json(found, status, best, members), indent=None))


def _screen(found: RecordedRun) -> None:
    """Clear the terminal and print what fits of the run: else the terminal scrolls."""
    status, size = found.status, shutil.get_terminal_size()
    lines = [*show.lines(found, status, found.best()), ""]
    room = size.lines - len(lines) - 3  # The table's head, its end, the cursor.
    lines += show.member_lines(found.workers(), status.mode, max(1, room))
    shown = [printable(line)[: size.columns] for line in lines[: size.lines - 1]]
    sys.stdout.write(_CLEAR + "\n".join(shown) + "\n")
