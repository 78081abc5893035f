"""Goes on from a recorded run, or from a point of it, under other rules."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import pathlib
import secrets
import threading
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
from population.core.facts import lost, texts_of
from population.core.graph import JournalGraph
from population.core.reports import SAVED
from population.core.state import RunState
from population.journal.base import Find, Journal
from population.journal.records import (
    UNREACHABLE,
    Best,
    CheckpointRecord,
    CheckpointRow,
    Fact,
    Loss,
    Removal,
    Save,
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
from population.offline.transactions import RecordedTransaction
from population.run import resuming, structures
from population.run.mutator_settings import name_of, settings
from population.run.params_manager import PARAMS_FOLDER
from population.space import to_data

logger = logging.getLogger("population")
_DRAFT = f".{JOURNAL_NAME}.fork"
_Rules = tuple[Mutator[Any], Any, int]  # The policy, the space, the last row to copy.


def fork(
    run: PopulationController | str | os.PathLike[str],
    new_dir: str | os.PathLike[str],
    *,
    mutator: Mutator[Any],
    at: int | Checkpoint | None = None,
    space: Any = None,
    **options: Any,
) -> PopulationController:
    """Copy a run, or its beginning, into a new folder, and go on there.

    The new mutator begins with its `init` on the population as it was then. Saved
    arrays in the run folder are shared by hard links where the file system can, so that
    neither run can remove what the other needs; those of a store elsewhere (`params=`)
    are used by both, and the old run may remove them. What was removed from the old run
    since counts as removed: to fork from long ago, train with `Keep(everything=True)`.

    Args:
        run: The run folder, or a controller that has one. It is not changed.
        new_dir: The new run folder; it must not hold a run.
        mutator: The policy from then on.
        at: A checkpoint, or a row of the journal: all of its transaction is copied, and
            nothing later. None: everything.
        space: What the meta_params may be from then on; None: as in the run. Each slot
            goes on with what it has of this space. What it lacks is drawn as for a
            first population, by the run's seed; what the run's space has and this one
            has not is dropped; a number out of its range stops at the bound.
        **options: Further arguments of the new controller, such as `stop`. The mode
            and the seed are those of the run.

    Returns:
        The controller of the new run.

    Raises:
        ValueError: If there is no such row, the space has no domain, or `mutate_fn`
            could not explore the meta_params in its own.
        JournalError: If there is no run, or `new_dir` holds one, cannot be written to,
            or would have its params where the run has them.
    """
    _check_options(options, mutator, space)
    source_folder, folder = transactions.folder_of(run), run_folder(new_dir, "new_dir")
    source = transactions.open_journal(source_folder)
    try:
        with source.reading():
            facts = transactions.facts_of(source)
            own_store = options.get("params") is None
            last = _last_row(source, at)
            rules = mutator, space, last
            _make(source, (source_folder, folder), rules, own_store)
    finally:
        source.close()
    given = {"mode": facts["mode"], "seed": facts["seed"], "space": space, **options}
    starts = [None] * int(facts["size"])
    controller = PopulationController(starts, mutator, folder, **given)
    _warn(controller)
    return controller


def _check_options(options: dict[str, Any], mutator: object, space: Any) -> None:
    """Refuse, before anything is written, what the new controller would refuse."""
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
    resuming.check_arguments([None], mutator, "min", 0, options.get("stop"), space)
    resuming.check_faults(
        options.get("keep"),
        options.get("worker_timeout"),
        options.get("durability", "process"),
        options.get("on_event"),
    )


def _warn(controller: PopulationController) -> None:
    """Say so if a slot must begin far before the point where it was."""
    graph = controller.graph
    for worker_id in range(len(controller.workers)):
        newest = controller.newest(worker_id)
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
    end = source.tail().row
    if at is None:
        return end
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
    return row


def _make(
    source: Journal,
    folders: tuple[pathlib.Path, pathlib.Path],
    rules: _Rules,
    own_store: bool,
) -> None:
    """Write the new run as a whole, or nothing that looks like one."""
    folder = folders[1]
    with in_words(folder):
        if folder.is_file() or os.path.lexists(folder / JOURNAL_NAME):
            raise taken(folder)
        check_apart(*folders)
        make_folder(folder)
    with only_fork(folder) as alone:
        if alone:
            remove(folder, _DRAFT)  # Of forks that were killed.
        draft = folder / f"{_DRAFT}-{secrets.token_hex(8)}"
        files = Files(folder, alone)
        try:
            with contextlib.closing(SqliteJournal(draft)) as journal:
                copy = _Copy(journal, folders, own_store, files)
                _write(source, journal, copy, rules)
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


def _write(source: Journal, journal: Journal, copy: _Copy, rules: _Rules) -> None:
    """Write all of the new run in one transaction."""
    mutator, space, last = rules
    with journal.transaction():
        facts = transactions.facts_of(source)
        for transaction in transactions.transactions(source):
            copy.follow(transaction, beyond=transaction.first > last)
        copy.finish()
        copy.give_up(int(facts["size"]))
        facts |= {
            "mutator": name_of(type(mutator)),
            "settings": settings(mutator),
        }
        if int(facts.get("claimed", 0)) > last:
            del facts["claimed"]
        for key in ("saved", "keep", "store", "given"):
            facts.pop(key, None)
        origin = facts.pop("forked", {})
        if space is not None:
            facts = {k: v for k, v in facts.items() if not k.startswith("categories")}
            facts["space"] = to_data(space)
        journal.write([Fact(key, codec.encode(value)) for key, value in facts.items()])
        state = _state(journal, facts, copy.target)
        begun = origin.get("begun", [])
        if space is not None:
            former = structures.former_space(texts_of(source))
            begun = refit.refit(journal, state, space, former, facts["seed"])
        structures.check_forked(mutator, journal, len(state.slots))
        token = resuming.new_token()
        now = {"from": str(copy.source), "row": state.row, "token": token}
        if refit.is_complete(journal, state, begun):
            now["begun"] = begun
        decider = Decider(mutator, state.graph, facts["seed"], None)
        journal.write([Fact("forked", codec.encode(now)), decider.init(state)])


def _state(journal: Journal, facts: dict[str, Any], folder: pathlib.Path) -> RunState:
    """What is known of the new run, in which nothing is damaged."""
    graph = JournalGraph(journal, threading.RLock(), folder)
    state = loading.load(journal, graph, facts["mode"])
    for _ in graph.history():
        pass  # What is damaged shows itself before there is a new run.
    return state


class _Copy:
    """Copies transactions into a new journal, and shares the saved params they name.

    Args:
        journal: The new one; a transaction is open.
        folders: The old run's and the new one's.
        own_store: Whether the new run keeps its params in its folder.
        files: Makes the files of the new run.

    Attributes:
        source: The old run's folder.
        end: The last row that was copied.
    """

    def __init__(
        self,
        journal: Journal,
        folders: tuple[pathlib.Path, pathlib.Path],
        own_store: bool,
        files: Files,
    ) -> None:
        self._journal = journal
        self.source, self.target = folders
        self._old, self._new = (folder / PARAMS_FOLDER for folder in folders)
        self._old_own, self._new_own = (folder / OWN_FOLDER for folder in folders)
        self._files = files
        self._own_store = own_store
        self._removals: list[Removal] = []
        self._losses: list[Loss] = []
        self._is_part = False  # Whether anything lies beyond the end.
        self._named: dict[str, CheckpointRow] = {}
        self.end = 0

    def follow(self, transaction: RecordedTransaction, *, beyond: bool) -> None:
        """Copy a transaction; of one beyond the end, only what is gone since."""
        after = transaction.after
        self._removals += [r for r in after if isinstance(r, Removal)]
        if beyond:
            self._is_part = True
            return
        self._losses += [r for r in after if isinstance(r, Loss)]
        for report in transaction.reports:
            if isinstance(report, CheckpointRecord):
                self._checkpoint(report)
            else:
                self._journal.write([report])
                self._name(report.params, report.checkpoint)
            self.end = report.row
        for generation, root in transaction.opened:
            self._journal.write([generation])
            self._checkpoint(root)
            self.end = root.row
        self._journal.write([r for r in after if isinstance(r, Best)])

    def finish(self) -> None:
        """Share the params that are left; what is gone by now is gone here too."""
        for removal in self._removals:
            if removal.params.startswith(codec.HELD):
                continue
            row = min(removal.row, self.end)
            self._journal.write([removal._replace(row=row)])
        gone = {removal.params for removal in self._removals}
        if self._named:
            self._journal.write([SAVED])
        for text, named in self._named.items():
            params = decode_params(text)
            if text in gone:
                continue
            if not isinstance(params, Saved):
                self._copy_own(params)
            elif self._own_store:
                self._share(text, params.path, named)

    def give_up(self, size: int) -> None:
        """Record which slots were not waited for at the end.

        Args:
            size: How many slots there are.
        """
        given_up: set[int] = set()
        for loss in self._losses:
            now = set(lost(decode(loss.lost), size))
            if self._is_part and loss.row >= self.end:
                now |= given_up  # A report beyond the end has brought the others back.
            given_up = now
        if given_up:
            text = codec.encode(sorted(given_up))
            time = self._losses[-1].time
            self._journal.write([Loss(self.end, text, None, time)])

    def _checkpoint(self, record: CheckpointRecord) -> None:
        if record.params is not None and record.params.startswith(codec.HELD):
            record = record._replace(params=None)  # Weights in a memory stay there.
        self._journal.write([record])
        self._name(record.params, record.row)

    def _name(self, params: str | None, row: int) -> None:
        if params is not None and params not in self._named:
            found = Find(after=row - 1, upto=row)
            for named in self._journal.checkpoints(found):
                self._named[params] = named

    def _copy_own(self, params: Any) -> None:
        """Copy what the loop has saved itself: it may write to such a file again."""
        for path in run_paths.paths_of(params):
            old, new = self._old_own / path, self._new_own / path
            for entry in saved_as(old):
                with contextlib.suppress(FileNotFoundError):  # The loop removed it.
                    self._files.take(entry, new.with_name(entry.name), shared=False)

    def _share(self, text: str, path: str, named: CheckpointRow) -> None:
        """Link a file, or copy it; if it has been removed meanwhile, say so."""
        parts = pathlib.PurePath(path)
        if parts.is_absolute() or ".." in parts.parts or "\0" in path:
            raise damaged(f"the params {path[:60]!r} are not in its folder")
        old, new = self._old / path, self._new / path
        try:
            size = self._files.take(old, new, shared=True)
        except FileNotFoundError:
            if not self._old.is_dir():
                raise ParamsError(
                    f"The params of this run are not in {self._old}. It was made with "
                    "a store elsewhere: pass the same one, params=."
                ) from None
            self._journal.write([Removal(self.end, text, UNREACHABLE)])
            return
        save = Save(text, self.end, named.generation_id, named.step, size)
        self._journal.write([save])
