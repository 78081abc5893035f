"""`population verify`: whether a run is whole."""

from __future__ import annotations

import argparse

from population.cli import arguments
from population.cli.output import Exit, say, say_json
from population.offline.verifying import verify

NAME = "verify"
HELP = "check the rows, the saves and, with --mutator, the decisions of a run"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    arguments.add_run(parser)
    parser.add_argument(
        "--mutator",
        metavar="MODULE:FACTORY",
        help="a function that returns the run's mutator, to derive its decisions again",
    )


def run(options: argparse.Namespace) -> int:
    """Print what is wrong."""
    mutator = options.mutator and arguments.mutator_of(options.mutator)
    found = verify(options.folder, mutator)
    if options.json:
        say_json(found)
    else:
        say(f"{found.checkpoints} checkpoints and {found.saves} saves were read")
        if found.decisions is not None:
            say(f"{found.decisions} decisions were derived again")
        say(*(f"note: {note}" for note in found.notes))
        say(*(f"problem: {problem}" for problem in found.problems))
        say("something is wrong" if found.problems else "all is well")
    return Exit.NO if found.problems else Exit.DONE
