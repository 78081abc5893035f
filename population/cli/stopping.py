"""`population stop`: the open sessions of a run end at their next poll."""

from __future__ import annotations

import argparse
import getpass
import socket

from population.cli import arguments
from population.cli.output import Exit, say, say_json
from population.offline.stopping import stop

NAME = "stop"
HELP = "ask all processes that train a run to end; a later start goes on"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    arguments.add_run(parser)
    parser.add_argument("--reason", default="", metavar="TEXT", help="why, for people")


def run(options: argparse.Namespace) -> int:
    """Record the request."""
    who = f"by {_user()}@{socket.gethostname()}"
    reason = f"{who}: {options.reason}" if options.reason else who
    was_open = stop(options.folder, reason)
    if options.json:
        say_json({"stopped": was_open, "reason": reason})
    elif was_open:
        say(f"asked to stop {who}; its processes end at their next poll")
    else:
        say("no process has the run open: there is nothing to stop")
    return Exit.DONE


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container's user without a name.
        return "unknown"
