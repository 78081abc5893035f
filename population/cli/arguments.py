"""Arguments that several commands have."""

from __future__ import annotations

import argparse
import importlib
import pathlib
import re
import sys
from typing import Any

from population.base.interfaces import Mutator
from population.base.types import Checkpoint, Ref
from population.cli.output import Exit, Refused
from population.reader.recorded_run import RecordedRun, read

_STEP = re.compile("[0-9]{1,18}")  # A journal's integers have 64 bits.


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the run folder, and `--json`."""
    parser.add_argument("folder", metavar="RUN", help="the run folder (log_dir)")
    add_json(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_out(parser: argparse.ArgumentParser, default: str) -> None:
    """Add `--out`."""
    parser.add_argument("--out", "-o", metavar="PATH", help=f"default: {default}")


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add what names a checkpoint other than the best one."""
    parser.add_argument(
        "--window",
        type=int,
        default=1,
        metavar="N",
        help="the best mean of N values in a row of a lineage, not the best value",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="GENERATION:STEP",
        help="this checkpoint instead of the best one, for example 3fa2c1-0-4:120",
    )


def opened(options: argparse.Namespace) -> RecordedRun:
    """Return the run that the arguments name."""
    return read(options.folder)


def chosen(run: RecordedRun, options: argparse.Namespace) -> Checkpoint:
    """Return the checkpoint that the arguments name, by default the best one."""
    if options.checkpoint is None:
        best = run.best(options.window)
        if best is None:
            raise Refused(
                Exit.NO,
                "the run has no finite value yet, or no lineage as long as --window; "
                "name a checkpoint with --checkpoint GENERATION:STEP",
            )
        return best
    if options.window != 1:
        raise Refused(
            Exit.USAGE,
            "--window chooses the best checkpoint, --checkpoint names one: give one of "
            "the two",
        )
    generation_id, _, step = options.checkpoint.rpartition(":")
    if not generation_id or not _STEP.fullmatch(step):
        raise Refused(
            Exit.USAGE,
            f"--checkpoint must be GENERATION:STEP, got {options.checkpoint!r}",
        )
    found = run.get(Ref(generation_id, int(step)))
    if found is None:
        raise Refused(
            Exit.USAGE,
            f"the run has no step {step} of the generation {generation_id!r}; "
            "`population export RUN` lists all checkpoints",
        )
    return found


def mutator_of(name: str) -> Mutator[Any]:
    """Return the mutator that `module:factory` makes, or is.

    Modules of the present folder are found, as with `python -m`.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise Refused(
            Exit.USAGE,
            f"--mutator must be MODULE:FACTORY, a function that returns the run's "
            f"mutator, got {name!r}",
        )
    here = str(pathlib.Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
        made = found() if callable(found) and not isinstance(found, Mutator) else found
    except Exception as error:  # Of the user's module.
        text = f"--mutator {name}: {type(error).__name__}: {error}"
        raise Refused(Exit.USAGE, text) from error
    if not isinstance(made, Mutator):
        raise Refused(
            Exit.USAGE,
            f"--mutator {name} must return a mutator, got {type(made).__name__}",
        )
    return made
