"""`population plot`: pictures of a run."""

from __future__ import annotations

import argparse
import pathlib

from population.cli import arguments
from population.cli.output import Exit, not_written, say, say_json

NAME = "plot"
HELP = "pictures of a run: curves, the winner's schedule, hyperparameters, lineages"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    arguments.add_run(parser)
    arguments.add_out(parser, "the folder plots in the run folder")
    parser.add_argument(
        "--metric", default="value", metavar="NAME", help="instead of the value"
    )


def run(options: argparse.Namespace) -> int:
    """Write the pictures."""
    found = arguments.opened(options)
    try:
        from population.report.pictures.files import save
    except ImportError as error:
        raise ImportError(
            "plot needs matplotlib: pip install 'population-jax[report]'"
        ) from error
    folder = pathlib.Path(options.out or pathlib.Path(options.folder, "plots"))
    try:
        files = save(found, folder, metric=options.metric)
    except OSError as error:
        raise not_written(str(folder), error) from error
    if options.json:
        say_json([str(file) for file in files])
    else:
        say(*map(str, files))
    return Exit.DONE
