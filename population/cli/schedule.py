"""`population schedule`: the hyperparameters over steps that led to the best."""

from __future__ import annotations

import argparse

from population.cli import arguments
from population.cli.output import Exit, number, place, say, say_json, write
from population.cli.show import checkpoint_json

NAME = "schedule"
HELP = "the hyperparameters over steps that led to the best checkpoint, as JSON"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    arguments.add_run(parser)
    arguments.add_choice(parser)
    arguments.add_out(parser, "standard output")


def run(options: argparse.Namespace) -> int:
    """Print or write the schedule."""
    found = arguments.opened(options)
    checkpoint = arguments.chosen(found, options)
    entries = found.schedule(checkpoint)
    write(options.out or "-", entries.to_json())
    if options.out in (None, "-"):
        return Exit.DONE
    if options.json:
        say_json({"file": options.out, **checkpoint_json(checkpoint)})
    else:
        value = number(checkpoint.value)
        say(f"{options.out}: {len(entries)} entries, to {value} at {place(checkpoint)}")
    return Exit.DONE
