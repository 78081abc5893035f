"""Reads a recorded run, one happening after the other."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

from population.base.errors import JournalError
from population.base.run_paths import run_folder
from population.core.branching import is_restart
from population.core.facts import texts_of
from population.journal import sqlite_file
from population.journal.base import Journal
from population.journal.records import (
    STOPPED,
    Best,
    CheckpointRecord,
    Generation,
    Late,
    Loss,
    Record,
    Status,
)
from population.journal.sqlite import SqliteJournal

if TYPE_CHECKING:
    from population.controller import PopulationController


class Opened(NamedTuple):
    """A generation that was opened.

    Attributes:
        generation: The generation.
        root: Its first checkpoint.
    """

    generation: Generation
    root: CheckpointRecord


Entry = Opened | Record


@dataclasses.dataclass
class Happening:
    """Something that a run has recorded, and all that followed until the next.

    Attributes:
        row: The first row that it could write.
        reports: The checkpoints and late values that workers reported in one
            transaction, in order, with the records of which became the best, and of
            which slots recovered.
        cause: The failure, or the list of slots that were given up; else None.
        followed: The generations that were opened, each with its first checkpoint, and
            other records, in order.
    """

    row: int
    reports: list[Record] = dataclasses.field(default_factory=list)
    cause: Status | Loss | None = None
    followed: list[Entry] = dataclasses.field(default_factory=list)

    @property
    def time(self) -> float | None:
        """The time of its transaction, if a record tells."""
        for record in (self.cause, *self.reports, *self.followed):
            if isinstance(record, Opened):
                return record.root.time
            if isinstance(record, CheckpointRecord | Late | Loss | Status):
                return record.time
        return None


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


def open_journal(folder: pathlib.Path, *, look: bool = False) -> SqliteJournal:
    """Open the journal of a run folder.

    Args:
        folder: The run folder.
        look: Whether to open it read-only, which upgrades no older format.

    Raises:
        JournalError: The journal does not exist, cannot be read, or holds no run.
    """
    file = sqlite_file.of_run(folder)
    journal = SqliteJournal(file, must_exist=True, look=look)
    try:
        if not {"size", "run"} <= texts_of(journal).keys():
            raise JournalError(f"{file} holds no run yet.")
    except BaseException:
        journal.close()
        raise
    return journal


def happenings(journal: Journal, upto: int | None = None) -> Iterator[Happening]:
    """Yield all that happened in a run, oldest first; the first one created the run.

    Args:
        journal: The journal of the run.
        upto: The last row; None: the last row of the journal.
    """
    present, batch = Happening(1), 1
    generation: Generation | None = None
    for record in journal.log(upto=upto):
        if isinstance(record, Status) and record.kind == STOPPED:
            continue  # It concerns sessions, and no decision.
        if isinstance(record, Generation):
            generation = record  # Its first checkpoint comes next.
        elif isinstance(record, CheckpointRecord) and generation is not None:
            if is_restart(generation.reason) and record.batch != batch:
                yield present
                present, batch = Happening(record.batch), record.batch
            present.followed.append(Opened(generation, record))
            generation = None
        elif isinstance(record, CheckpointRecord | Late):
            if record.batch != batch or not present.reports:
                yield present
                present, batch = Happening(record.batch), record.batch
            present.reports.append(record)
        elif isinstance(record, Best) or _has_recovered(record):
            present.reports.append(record)
        elif isinstance(record, Loss) or _has_failed(record):
            yield present
            batch = record.row + 1 if record.batch is None else record.batch
            present = Happening(batch, cause=record)
        else:
            # Transactions that write no rows have the same batch; so look at the time.
            if isinstance(record, Status) and (record.batch, record.time) != (
                batch,
                present.time,
            ):
                yield present
                present, batch = Happening(record.batch), record.batch
            present.followed.append(record)
    yield present


def _has_recovered(record: Record) -> bool:
    return isinstance(record, Status) and record.kind == "recovered"


def _has_failed(record: Record) -> TypeGuard[Status]:
    return isinstance(record, Status) and record.kind == "failed"
