"""Reads a recorded run transaction by transaction."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from population.base.errors import JournalError
from population.base.run_paths import run_folder
from population.core.facts import texts_of
from population.journal.base import Journal
from population.journal.records import (
    Best,
    CheckpointRecord,
    Generation,
    Late,
    Record,
)
from population.journal.sqlite import SqliteJournal
from population.journal.sqlite_file import JOURNAL_NAME

if TYPE_CHECKING:
    from population.controller import PopulationController


@dataclasses.dataclass
class RecordedTransaction:
    """The records of one transaction.

    Attributes:
        first: Its first row.
        reports: The checkpoints and late values that workers reported, in order, and
            the records of which became the best.
        opened: The generations that it opened, each with its first checkpoint.
        after: The records after these: removals and losses.
    """

    first: int
    reports: list[CheckpointRecord | Late | Best] = dataclasses.field(
        default_factory=list
    )
    opened: list[tuple[Generation, CheckpointRecord]] = dataclasses.field(
        default_factory=list
    )
    after: list[Record] = dataclasses.field(default_factory=list)


def folder_of(run: PopulationController | str | os.PathLike[str]) -> pathlib.Path:
    """Return the run folder of a controller, or of a path.

    Raises:
        ValueError: The controller has no run folder, or the path is of a bucket.
    """
    if not hasattr(run, "log_dir"):
        return run_folder(run, "run")
    if run.log_dir is None:
        raise ValueError(
            "This needs a run that is on disk, and the controller has no log_dir. "
            "Give it one."
        )
    return run.log_dir


def open_journal(folder: pathlib.Path) -> SqliteJournal:
    """Open the journal of a run folder.

    Raises:
        JournalError: The journal does not exist, cannot be read, or holds no run.
    """
    file = folder / JOURNAL_NAME
    if not _is_file(file):
        raise JournalError(
            f"{folder} must be the log_dir of a run; it holds no {JOURNAL_NAME}."
        )
    journal = SqliteJournal(file, must_exist=True)
    try:
        if not {"size", "run"} <= texts_of(journal).keys():
            raise JournalError(f"{file} holds no run yet.")
    except BaseException:
        journal.close()
        raise
    return journal


def _is_file(file: pathlib.Path) -> bool:
    """Whether a path is a regular file.

    Raises:
        JournalError: This user has no access to the folder.
    """
    try:
        return stat.S_ISREG(file.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        raise JournalError(
            f"{file.parent} must be the log_dir of a run that this user may read, but "
            f"its {file.name} cannot be reached: {error.strerror or error}. Ask for "
            "access to the folder, or name another one."
        ) from error


def transactions(
    journal: Journal, upto: int | None = None
) -> Iterator[RecordedTransaction]:
    """Yield all transactions of a run, oldest first; the first one created the run.

    Args:
        journal: The journal of the run.
        upto: The last row of the last one; None: the last row of the journal.
    """
    present = RecordedTransaction(1)
    generation: Generation | None = None
    for record in journal.log(upto=upto):
        if isinstance(record, Generation):
            generation = record  # Its first checkpoint names the transaction.
        elif isinstance(record, CheckpointRecord | Late):
            if record.batch != present.first:
                yield present
                present = RecordedTransaction(record.batch)
            if generation is not None and isinstance(record, CheckpointRecord):
                present.opened.append((generation, record))
                generation = None
            else:
                present.reports.append(record)
        elif isinstance(record, Best):
            present.reports.append(record)
        else:
            present.after.append(record)
    yield present
