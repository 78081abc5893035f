"""`population list`: the runs below a folder, one in a line."""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from population.base.errors import PopulationError
from population.cli import arguments
from population.cli.output import (
    Exit,
    Refused,
    number,
    plain,
    say,
    say_json,
    table,
    when,
)
from population.journal.sqlite_file import JOURNAL_NAME
from population.reader.recorded_run import read

NAME = "list"
HELP = "the runs in a folder and the folders within it"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default=".")
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the runs."""
    top = pathlib.Path(options.folder)
    if not top.is_dir():
        raise Refused(Exit.USAGE, f"FOLDER must be a folder, got {options.folder!r}")
    found = [_line(folder) for folder in sorted(run_folders(top))]
    if options.json:
        say_json(found)
    elif not found:
        say(f"no run in {top}")
    else:
        head = ["run", "state", "members", "step", "best", "mutator", "newest report"]
        names = ["log_dir", "state", "size", "step", "best", "mutator", "newest"]
        rows = [[_cell(name, line[name]) for name in names] for line in found]
        say(*table(head, rows))
        warned = (f"warning: {line['error']}" for line in found if line["error"])
        say(*warned)
    return Exit.DONE


def run_folders(top: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield the run folders at or below a folder; a run's own folders are left out."""
    for place, folders, files in os.walk(top):
        if JOURNAL_NAME in files:
            folders.clear()
            yield pathlib.Path(place)


def _line(folder: pathlib.Path) -> dict[str, Any]:
    """Return what is shown of a run; one that cannot be read does not hide others."""
    empty = dict.fromkeys(("size", "step", "best", "newest", "mutator"))
    try:
        status = read(folder).status
    except PopulationError as error:
        fields = {"log_dir": str(folder), "state": "unreadable", "error": str(error)}
        return {**fields, **empty}
    state = "training" if status.is_open else "not open"
    return {
        "log_dir": str(folder),
        "state": "finished" if status.finished else state,
        "size": status.size,
        "step": status.step,
        "best": plain(status.best),
        "mutator": status.mutator.rpartition(".")[2],
        "newest": status.newest,
        "error": None,
    }


def _cell(name: str, value: Any) -> str:
    if name == "newest" and value is not None:
        return when(value)
    return number(value) if name == "best" else str("" if value is None else value)
