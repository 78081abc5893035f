"""Checks that a recorded run is whole: its rows, its saves, its decisions."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from population.base import codec
from population.base.errors import JournalError, PopulationError
from population.base.interfaces import Mutator, ParamsStore
from population.base.run_paths import run_folder
from population.core.facts import read_all
from population.journal import sqlite_file
from population.journal.records import Opening, Save, Status
from population.journal.sqlite import SqliteJournal
from population.offline.replay import replay
from population.reader.member_columns import saves
from population.reader.recorded_run import RecordedRun, read
from population.run import mutator_settings
from population.run.params_manager import PARAMS_FOLDER


class Verified(NamedTuple):
    """What was found in a run.

    Attributes:
        checkpoints: The number of checkpoints that were read.
        saves: The number of saves that were read.
        decisions: The number of decisions that were derived again; None: no mutator.
        problems: What is wrong, a sentence each; empty for a run that is whole.
        notes: What could not be checked, a sentence each.
    """

    checkpoints: int
    saves: int
    decisions: int | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def verify(
    log_dir: str | os.PathLike[str],
    mutator: Mutator[Any] | None = None,
    *,
    params: ParamsStore | None = None,
) -> Verified:
    """Check a run: SQLite's own checks, every row, every save, every decision.

    Nothing is written. While the run trains, a save may be removed as it is read: what
    seems to be missing is looked up again.

    Args:
        log_dir: The run folder.
        mutator: The run's mutator, to derive its decisions again; None: they are not.
        params: The params store of the run, if its controller was given one.

    Raises:
        JournalError: The folder holds no run, or it cannot be opened.
    """
    folder = run_folder(log_dir)
    run = read(folder, params=params)
    problems = list(_damage(folder))
    checkpoints = 0
    if not problems:
        try:
            checkpoints = sum(1 for _ in run)
            run.branches(), run.workers(), run.saves()
        except JournalError as error:
            problems.append(str(error))
    store, notes = _store(folder, params)
    saves = 0
    if store is not None and not problems:
        saves, bad = _saves(folder, store)
        problems += bad
    decisions = None
    if mutator is not None and not problems:
        decisions, bad = _decisions(run, folder, mutator)
        problems += bad
        notes += _other_arguments(run, mutator)
    return Verified(checkpoints, saves, decisions, tuple(problems), tuple(notes))


def _damage(folder: pathlib.Path) -> Iterator[str]:
    """Yield what SQLite, and a look at each record, find wrong."""
    with contextlib.closing(_opened(folder)) as journal, journal.reading():
        for (problem,) in journal.run("PRAGMA integrity_check(10)"):
            if problem != "ok":
                yield f"the journal is damaged: {problem}"
        try:
            read_all(journal)
            for _ in journal.log():
                pass
            for kind in (Opening, Save, Status):
                journal.all(kind)
        except JournalError as error:
            yield str(error)


def _store(folder: pathlib.Path, params: ParamsStore | None) -> tuple[Any, list[str]]:
    """Return the store whose saves can be checked, and what cannot."""
    with contextlib.closing(_opened(folder)) as journal:
        is_given = bool(read_all(journal).get("given"))
    if params is None and is_given:
        return None, ["the saves are in a store of the run's own, and were not read"]
    if params is None:
        from population.params import FileParams

        return FileParams(folder / PARAMS_FOLDER), []
    if not hasattr(params, "is_intact"):
        name = type(params).__name__
        return None, [f"{name} cannot check its saves, so they were not read"]
    return params, []


def _saves(folder: pathlib.Path, store: Any) -> tuple[int, list[str]]:
    """Return how many saves were read, and what is wrong with them."""
    problems = []
    known = _known(folder)
    for path in known:
        try:
            if store.is_intact(path):
                continue
            why = "is missing or damaged"
        except (OSError, PopulationError) as error:
            why = f"cannot be read: {error}"
        if path in _known(folder):  # Else it was removed since.
            problems.append(f"the save {path} {why}")
    return len(known), problems


def _known(folder: pathlib.Path) -> dict[str, None]:
    """Return the paths of the saves that a run has now."""
    with contextlib.closing(_opened(folder)) as journal:
        return dict.fromkeys(saves(journal)["path"].tolist())


def _decisions(
    run: RecordedRun, folder: pathlib.Path, mutator: Mutator[Any]
) -> tuple[int, list[str]]:
    """Return how many decisions were derived again, and what differs."""
    recorded = run.status.mutator
    name = f"{type(mutator).__module__}.{type(mutator).__qualname__}"
    if name != recorded:
        return 0, [f"the run's mutator is {recorded}, and --mutator gave {name}"]
    found = replay(folder, mutator)
    first = found.first_difference
    problems = [] if first is None else [f"a decision differs: {first}"]
    return len(found.decisions), problems


def _other_arguments(run: RecordedRun, mutator: Mutator[Any]) -> list[str]:
    """Return a note if a mutator has other arguments than were recorded."""
    given = codec.normalized(mutator_settings.settings(mutator), "settings")
    changed = mutator_settings.changed(run.status.settings, given)
    return [f"the mutator given has other arguments: {changed}"] if changed else []


def _opened(folder: pathlib.Path) -> SqliteJournal:
    return SqliteJournal(sqlite_file.of_run(folder), must_exist=True, look=True)
