"""Copies a recorded run, or its beginning, and continues it with another mutator."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import pathlib
import secrets
import threading
from collections.abc import Callable
from typing import Any

from population.base import codec, durable, run_paths
from population.base.errors import ParamsError, damaged
from population.base.interfaces import Mutator
from population.base.run_paths import OWN_FOLDER, run_folder
from population.base.types import Checkpoint, Saved
from population.controller import PopulationController
from population.core import loading
from population.core.decisions import Decider
from population.core.decoding import decode, decode_params
from population.core.facts import lost, read_all, texts_of
from population.core.graph import JournalGraph
from population.core.reports import SAVED
from population.core.state import RunState
from population.journal.base import Find, Journal
from population.journal.records import (
    UNREACHABLE,
    CheckpointRecord,
    CheckpointRow,
    Fact,
    Late,
    Loss,
    Removal,
    Save,
    Status,
)
from population.journal.sqlite import SqliteJournal
from population.journal.sqlite_file import JOURNAL_NAME
from population.offline import refit, transactions
from population.offline.fork_files import (
    Files,
    check_apart,
    in_words,
    is_published,
    make_folder,
    only_fork,
    publish,
    remove,
    saved_as,
    taken,
)
from population.run import structures
from population.run.arguments import Options
from population.run.facts import new_token
from population.run.mutator_settings import name_of, settings
from population.run.params_manager import PARAMS_FOLDER
from population.run.session import is_of_session
from population.space import to_data

logger = logging.getLogger("population")
_DRAFT = f".{JOURNAL_NAME}.fork"
_Folders = tuple[pathlib.Path, pathlib.Path]  # Those of the old and the new run.


def fork(
    run: PopulationController | str | os.PathLike[str],
    new_dir: str | os.PathLike[str],
    *,
    mutator: Mutator[Any],
    at: int | Checkpoint | None = None,
    space: Any = None,
    **options: Any,
) -> PopulationController:
    """Copy a run, or its beginning, into a new folder, and continue it there.

    The new mutator begins with its `init` on the population as it was then. Both runs
    share saved arrays in the run folder by hard links if the file system has them, so
    that neither can remove arrays of the other; both use those of a store elsewhere
    (`params=`), where the old run may remove them. Arrays that the old run has removed
    since are missing: to fork from long ago, train with `Keep(everything=True)`.

    Args:
        run: The run folder, or a controller that has one. It is not changed.
        new_dir: The new run folder; it must not hold a run.
        mutator: The policy from then on.
        at: A checkpoint, or a row of the journal: all of its transaction is copied, and
            nothing later. None: everything.
        space: The space of valid meta_params from then on; None: the run's. Each slot
            keeps its meta_params that are in this space. Missing ones are drawn as for
            a first population, by the run's seed; those that only the run's space has
            are dropped; a number out of its range is set to the bound.
        **options: Further arguments of the new controller, such as `stop`. The mode
            and the seed are those of the run.

    Returns:
        The controller of the new run.

    Raises:
        ValueError: The row does not exist, the space has no domain, or `mutate_fn`
            cannot explore the meta_params with its own space.
        JournalError: `run` holds no run, or `new_dir` holds one, cannot be written to,
            or would have its params in the same place as the run.
    """
    _check_options(options, mutator, space)
    folders = transactions.folder_of(run), run_folder(new_dir, "new_dir")
    source = transactions.open_journal(folders[0])
    with contextlib.closing(source), source.reading():
        facts = read_all(source)
        end = _last_row(source, at)

        def write(journal: Journal, files: Files) -> None:
            copy = _Copy(source, journal, folders, files, end)
            copy.records()
            copy.params(options.get("params") is None)
            copy.give_up(facts["size"])
            _begin(source, journal, folders, mutator, space)

        _make(folders, write)
    given = {"mode": facts["mode"], "seed": facts["seed"], "space": space, **options}
    starts = [None] * int(facts["size"])
    controller = PopulationController(starts, mutator, folders[1], **given)
    _warn(controller)
    return controller


def _check_options(options: dict[str, Any], mutator: Any, space: Any) -> None:
    """Refuse invalid options of the new controller before anything is written."""
    fixed = {"seed", "mode", "log_dir", "initial_population", "journal"} & {*options}
    if fixed:
        raise TypeError(
            f"fork takes {', '.join(sorted(fixed))} from the run. Leave them out."
        )
    known = inspect.signature(PopulationController).parameters
    unknown = {*options} - {*known}
    if unknown:
        raise TypeError(
            f"{', '.join(sorted(unknown))} is no argument of PopulationController, to "
            f"which fork passes its options. There are {', '.join(known)}."
        )
    Options(mutator, space=space, **options)


def _warn(controller: PopulationController) -> None:
    """Warn if a slot must continue from an earlier step, as its params are removed."""
    graph = controller.graph
    run = controller.open_run
    with run.lock.lock:
        present = [slot.newest for slot in run.state().slots]
    for worker_id, newest in enumerate(present):
        point = graph.resume_point(newest)
        if (
            point.params is None
            and point.step < newest.step
            and "saved" in texts_of(controller.open_run.journal)
        ):
            logger.warning(
                "worker %d was at step %d, but its params have been removed since: it "
                "begins at step %d. Runs that are to be forked from long ago need "
                "keep=Keep(everything=True).",
                worker_id,
                newest.step,
                point.step,
            )


def _last_row(source: Journal, at: int | Checkpoint | None) -> int:
    """Return the last row to copy: all of a transaction, and nothing later."""
    end = source.tail().row
    if at is None:
        return end
    if not isinstance(at, Checkpoint | int) or isinstance(at, bool):
        raise TypeError(
            "at must be a checkpoint or an int, a row of the journal, got "
            f"{type(at).__name__}."
        )
    row = at.row if isinstance(at, Checkpoint) else codec.integer(at, "at", low=1)
    if isinstance(at, Checkpoint):
        found = source.checkpoints(Find(after=row - 1, upto=row))
        if not found or (found[0].generation_id, found[0].step) != at.ref:
            raise ValueError(
                f"at must be a checkpoint of this run, got {at.ref}, which is not."
            )
    if row > end:
        raise ValueError(
            f"at must be a row of the journal, which ends at {end}, got {row}. A "
            "checkpoint's row is checkpoint.row."
        )
    for record in source.log(row):
        if isinstance(record, CheckpointRecord | Late) and record.batch > row:
            return min(record.batch, record.row) - 1
    return end


def _make(folders: _Folders, write: Callable[[Journal, Files], None]) -> None:
    """Write the whole new run in one transaction, or leave no journal there.

    Args:
        folders: The folders of the old and the new run.
        write: Writes to the new journal, and makes the files that belong to it.
    """
    folder = folders[1]
    with in_words(folder):
        if folder.is_file() or os.path.lexists(folder / JOURNAL_NAME):
            raise taken(folder)
        check_apart(*folders)
        make_folder(folder)
    with only_fork(folder) as alone:
        if alone:
            remove(folder, _DRAFT)  # Drafts of forks that were killed.
        draft = folder / f"{_DRAFT}-{secrets.token_hex(8)}"
        files = Files(folder, alone)
        try:
            with contextlib.closing(SqliteJournal(draft)) as journal:
                with journal.transaction():
                    write(journal, files)
                journal.merge()
            with in_words(folder):
                publish(draft, folder)
        except BaseException:
            if not is_published(draft, folder):
                files.undo()
            raise
        finally:
            remove(folder, draft.name)
        with in_words(folder):
            durable.sync(folder)


def _begin(
    source: Journal,
    journal: Journal,
    folders: _Folders,
    mutator: Mutator[Any],
    space: Any,
) -> None:
    """Write the facts of the new run, and the mutator's first state."""
    facts = read_all(source)
    facts |= {"mutator": name_of(type(mutator)), "settings": settings(mutator)}
    if int(facts.get("claimed", 0)) > journal.tail().row:
        del facts["claimed"]
    for key in ("saved", "keep", "store", "given"):
        facts.pop(key, None)
    origin = facts.pop("forked", {})
    facts = {k: v for k, v in facts.items() if not is_of_session(k)}
    if space is not None:
        facts = {k: v for k, v in facts.items() if not k.startswith("categories")}
        facts["space"] = to_data(space)
    journal.write([Fact(key, codec.encode(value)) for key, value in facts.items()])
    state = _state(journal, facts, folders[1])
    decider = Decider(mutator, state.graph, facts["seed"], None)
    begun = origin.get("begun", [])
    if space is not None:
        former = structures.former_space(read_all(source))
        begun = refit.refit(journal, state, decider, space, former, facts["seed"])
    refit.begin(journal, state, decider)
    structures.check_forked(mutator, state)
    now = {"from": str(folders[0]), "row": state.row, "token": new_token()}
    if refit.is_complete(journal, state, begun):
        now["begun"] = begun
    journal.write([Fact("forked", codec.encode(now)), decider.init(state)])


def _state(journal: Journal, facts: dict[str, Any], folder: pathlib.Path) -> RunState:
    """Return the state of the new run, after a check of all its checkpoints."""
    graph = JournalGraph(journal, threading.RLock(), folder)
    state = loading.load(journal, graph, facts["mode"])
    for _ in graph.history():
        pass  # Raises at a damaged row before the new run is published.
    return state


class _Copy:
    """Copies a run's records into a new journal, and shares the params they name.

    Args:
        source: The run's journal.
        journal: The new journal, with an open transaction.
        folders: The folders of the old and the new run.
        files: Makes the files of the new run.
        end: The last row to copy.
    """

    def __init__(
        self,
        source: Journal,
        journal: Journal,
        folders: _Folders,
        files: Files,
        end: int,
    ) -> None:
        self._source, self._journal = source, journal
        self._old, self._new = folders
        self._files = files
        self._end = end
        self._losses: list[Loss] = []
        self._statuses = 0
        self._named: dict[str, int] = {}  # By params: the first row that names them.
        self._removals = source.all(Removal)

    def records(self) -> None:
        """Copy the records, with all removals until now."""
        is_part = self._end < self._source.tail().row
        for record in self._source.log(upto=self._end):
            if isinstance(record, CheckpointRecord | Late):
                text = record.params
                if text is not None and text.startswith(codec.HELD):
                    record = record._replace(params=None)  # Weights only in memory.
                elif text is not None:
                    row = record.checkpoint if isinstance(record, Late) else record.row
                    self._named.setdefault(text, row)
            if isinstance(record, Status):
                if is_part and record.batch > self._end:
                    continue  # It is of the next transaction.
                self._statuses = record.number
                # The new run decides about what comes after its first rows.
                record = record._replace(batch=min(record.batch, self._end))
            if isinstance(record, Loss):
                self._losses.append(record)
            elif not isinstance(record, Removal):
                self._journal.write([record])
        for removal in self._removals:
            if not removal.params.startswith(codec.HELD):
                row = min(removal.row, self._end)
                self._journal.write([removal._replace(row=row)])

    def params(self, own_store: bool) -> None:
        """Share the params that the old run has not removed.

        Args:
            own_store: Whether the new run keeps its params in its folder.
        """
        if self._named:
            self._journal.write([SAVED])
        gone = {removal.params for removal in self._removals}
        for text, row in self._named.items():
            params = decode_params(text)
            if text in gone:
                continue
            if not isinstance(params, Saved):
                self._copy_own(params)
            elif own_store:
                for named in self._journal.checkpoints(Find(after=row - 1, upto=row)):
                    self._share(text, params.path, named)

    def give_up(self, size: int) -> None:
        """Record the slots that were given up at the end.

        Args:
            size: The number of slots.
        """
        given_up: set[int] = set()
        is_part = self._end < self._source.tail().row
        for loss in self._losses:
            now = set(lost(decode(loss.lost), size))
            if is_part and loss.row >= self._end:
                now |= given_up  # A report after the end has shortened this list.
            given_up = now
        if given_up:
            text = codec.encode(sorted(given_up))
            time = self._losses[-1].time
            place = self._statuses, self._end
            self._journal.write([Loss(self._end, text, None, time, *place)])

    def _copy_own(self, params: Any) -> None:
        """Copy files that the loop has saved itself, as it may overwrite them."""
        for path in run_paths.paths_of(params):
            old, new = (place / OWN_FOLDER / path for place in (self._old, self._new))
            for entry in saved_as(old):
                with contextlib.suppress(FileNotFoundError):  # The loop removed it.
                    self._files.take(entry, new.with_name(entry.name), shared=False)

    def _share(self, text: str, path: str, named: CheckpointRow) -> None:
        """Link or copy a file; record a removal if it was removed meanwhile."""
        parts = pathlib.PurePath(path)
        if parts.is_absolute() or ".." in parts.parts or "\0" in path:
            raise damaged(f"the params {path[:60]!r} are not in its folder")
        store = self._old / PARAMS_FOLDER
        try:
            size = self._files.take(
                store / path, self._new / PARAMS_FOLDER / path, shared=True
            )
        except FileNotFoundError:
            if not store.is_dir():
                raise ParamsError(
                    f"The params of this run are not in {store}. It was made with "
                    "a store elsewhere: pass the same one, params=."
                ) from None
            self._journal.write([Removal(self._end, text, UNREACHABLE)])
            return
        save = Save(text, self._end, named.generation_id, named.step, size)
        self._journal.write([save])
