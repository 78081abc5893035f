"""`population gc`: removes what killed processes have left."""

from __future__ import annotations

import argparse

from population.cli import arguments
from population.cli.output import Exit, say, say_json
from population.offline.collecting import leftover_saves

NAME = "gc"
HELP = "remove saves of killed processes that no checkpoint names"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    arguments.add_run(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="print them, and remove nothing"
    )


def run(options: argparse.Namespace) -> int:
    """Remove them, and print their paths."""
    found = leftover_saves(options.folder, remove=not options.dry_run)
    if options.json:
        say_json({"saves": found, "removed": not options.dry_run})
        return Exit.DONE
    say(*found)
    what = "would be removed" if options.dry_run else "removed"
    say(f"{len(found)} saves {what}")
    return Exit.DONE
