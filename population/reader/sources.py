"""Where a run is read from: the journal in a folder, or that of a controller."""

from __future__ import annotations

import abc
import contextlib
import pathlib
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from population.base.errors import JournalError, ParamsError
from population.base.interfaces import ParamsStore
from population.base.types import InMemory, Saved
from population.core.facts import read_all, texts_of
from population.core.graph import JournalGraph
from population.journal import sqlite_file
from population.journal.base import Journal
from population.journal.sqlite import SqliteJournal
from population.run import loads
from population.run.loads import Loads
from population.run.open_run import OpenRun
from population.run.params_manager import PARAMS_FOLDER


class Reading(NamedTuple):
    """A journal for the time of one call, and what is found by it.

    Attributes:
        journal: The journal, within a snapshot.
        graph: Its checkpoints.
        loads: Loads their params.
    """

    journal: Journal
    graph: JournalGraph
    loads: Loads


class RunSource(abc.ABC):
    """A run that is read call by call.

    Attributes:
        log_dir: The run folder, or None.
    """

    log_dir: pathlib.Path | None

    @abc.abstractmethod
    def reading(self) -> contextlib.AbstractContextManager[Reading]:
        """Return a context in which all that is read is of one moment."""


class InFolder(RunSource):
    """A run in a folder. Its journal is open during a call only, and not written to.

    Args:
        log_dir: The run folder.
        store: The params store that the run was given, or None.
    """

    def __init__(self, log_dir: pathlib.Path, store: ParamsStore | None) -> None:
        self.log_dir = self._folder = log_dir
        self._store = store

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reading]:
        """Open the journal.

        Raises:
            JournalError: The folder holds no run, or it cannot be read.
        """
        file = sqlite_file.of_run(self._folder)
        journal = SqliteJournal(file, must_exist=True, look=True)
        with contextlib.closing(journal), journal.reading():
            if not texts_of(journal):  # A controller has made its tables just now.
                raise JournalError(
                    f"{file} holds no run yet. Name the log_dir of a run that was "
                    "begun."
                )
            recorded = read_all(journal)
            lock = threading.RLock()
            graph = JournalGraph(journal, lock, self._folder)

            def content(params: Any, like: Any) -> Any:
                return self._content(params, like, bool(recorded.get("given")))

            yield Reading(journal, graph, Loads(journal, graph, lock, content))

    def _content(self, params: Any, like: Any, is_given: bool) -> Any:
        """Return the content of params."""
        if type(params) is InMemory:
            raise ParamsError(
                "These params are only in the memory of the process that trains them. "
                "Load what is saved: run.resume_point(checkpoint) is the nearest."
            )
        if type(params) is not Saved:
            return params
        store: Any = self._store
        if store is None and is_given:
            raise ParamsError(
                "This run keeps its params in a store of its own, which the loop has "
                "given to its controller. Pass it: population.read(log_dir, params=...)"
            )
        if store is None:
            from population.params import FileParams

            store = FileParams(self._folder / PARAMS_FOLDER)
        return store.load(params.path, like)


class OfController(RunSource):
    """The run of a controller, which holds its journal.

    Args:
        run: The run.
    """

    def __init__(self, run: OpenRun) -> None:
        self.log_dir = run.log_dir
        self._run = run

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reading]:
        """Hold the run's lock."""
        run = self._run
        run.check_open()
        with run.lock.lock, run.journal.reading():
            yield Reading(run.journal, run.graph, loads.of(run))
