"""`population report`: a run as one HTML file."""

from __future__ import annotations

import argparse
import pathlib

from population.cli import arguments
from population.cli.output import Exit, not_written, say, say_json

NAME = "report"
HELP = "a run as one HTML file that opens without a network"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    arguments.add_run(parser)
    arguments.add_out(parser, "report.html in the run folder")


def run(options: argparse.Namespace) -> int:
    """Write the file."""
    found = arguments.opened(options)
    from population.report.page.writing import write

    file = pathlib.Path(options.out or pathlib.Path(options.folder, "report.html"))
    try:
        write(found, file)
    except OSError as error:
        raise not_written(str(file), error) from error
    if options.json:
        say_json({"file": str(file)})
    else:
        say(str(file))
    return Exit.DONE
