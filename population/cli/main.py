"""Reads the arguments, runs a command, and turns errors into one line."""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from population.base.errors import PopulationError
from population.cli import (
    collecting,
    completion,
    export,
    listing,
    page,
    pictures,
    schedule,
    show,
    stopping,
    verify,
    watch,
)
from population.cli.output import Exit, Refused

COMMANDS: tuple[ModuleType, ...] = (
    show,
    watch,
    listing,
    export,
    schedule,
    pictures,
    page,
    verify,
    collecting,
    stopping,
    completion,
)
_CODES = (
    "exit codes: 0 done, or yes; 1 no (not finished; something is wrong in the run); "
    "2 wrong arguments; 3 the run cannot be read, or a file not be written; 4 a "
    "package is missing; 130 interrupted"
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(
        prog="population",
        description="Look at recorded runs, also while they train.",
        epilog=_CODES,
        allow_abbrev=False,
    )
    top.add_argument(
        "--version",
        action="version",
        version=importlib.metadata.version("population-jax"),
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    parsers: dict[str, argparse.ArgumentParser] = {}
    for command in COMMANDS:
        own = commands.add_parser(
            command.NAME,
            help=command.HELP,
            description=command.HELP[0].upper() + command.HELP[1:] + ".",
            epilog=_CODES,
            allow_abbrev=False,
        )
        command.add(own)
        own.set_defaults(run=command.run, parsers=parsers)
        parsers[command.NAME] = own
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code.

    Args:
        arguments: What follows the program's name; None: those of the process.
    """
    options = parser().parse_args(arguments)
    if sys.stdout is None:  # The caller has closed it.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    if isinstance(sys.stdout, io.TextIOWrapper):  # A run's texts are in any language.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = int(options.run(options))
        sys.stdout.flush()
    except Refused as error:
        return _told(str(error), error.code)
    except PopulationError as error:
        return _told(str(error), Exit.UNUSABLE)
    except ImportError as error:
        return _told(str(error), Exit.MISSING)
    except (TypeError, ValueError, LookupError) as error:
        return _told(str(error), Exit.USAGE)
    except BrokenPipeError:  # Its reader, such as `head`, has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except OSError as error:
        return _told(str(error), Exit.UNUSABLE)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return code


def _told(text: str, code: Exit) -> int:
    print(f"population: {' '.join(text.split())}", file=sys.stderr)
    return int(code)
