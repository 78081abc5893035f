"""Saves, loads and removes the params of a run.

Plain values go into the journal as they are. A tree with arrays goes into the params
store, before any lock is taken, and the journal keeps its path. The transaction of a
report records params as removed once no slot or decision can reach them; the store
removes them after the commit.
"""

from __future__ import annotations

import functools
import logging
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from population.base import codec, run_paths
from population.base.errors import ParamsError, PopulationError, mark_of_the_run
from population.base.interfaces import ParamsStore
from population.base.types import Checkpoint, InMemory, Saved
from population.core.facts import store_key
from population.core.owners import Owner
from population.core.retention import Keep, path_of, saved_text
from population.core.step import EncodedReport, Step
from population.journal.base import Journal
from population.journal.records import UNREACHABLE, Removal, Save
from population.journal.sqlite_file import JOURNAL_NAME
from population.run import leftovers, remover, sharing
from population.run.remover import Remover
from population.run.transaction import Transaction

logger = logging.getLogger("population")
PARAMS_FOLDER = "params"
_FEW = 30
Reachable = Callable[[], Mapping[int, Checkpoint]]


class ParamsManager:
    """Saves, loads and removes the params of one run.

    Args:
        log_dir: The run folder, or None.
        store: The caller's params store, or None for the default.
        in_memory: Whether the run ends with the process; arrays then stay in memory.
        token: The token of this session.

    Attributes:
        store: The caller's params store, or None.
        keep: The rules for params to keep although nothing can reach them any more.
    """

    def __init__(
        self,
        log_dir: pathlib.Path | None,
        store: ParamsStore | None,
        in_memory: bool,
        token: str,
    ) -> None:
        self._log_dir = log_dir
        self._own = run_paths.own_folder(log_dir)
        self.store = store
        self.keep = Keep()
        self._store = store
        self._in_memory = in_memory
        self._token = token
        self._lock = threading.Lock()
        self._before_first_save: Callable[[], object] | None = None
        self._vanishes = in_memory and store is None
        self._remover = Remover()
        self._most = self._most_bytes = 0  # `sweep` removes saves beyond these.
        self._has_looked = False  # Whether it has looked for leftovers.

    def guard(self, recorded: Mapping[str, str], holder: Owner) -> None:
        """Refuse a store in which another copy of this run keeps its params.

        For a bucket, which may be slow or offline, the first save makes the check.

        Args:
            recorded: The run's facts.
            holder: This process.

        Raises:
            JournalError: Another copy exists; see `sharing.check`.
        """
        run = store_key(recorded)
        if self._log_dir is None or run is None or not hasattr(self.store, "claimed"):
            return
        file = self._log_dir / JOURNAL_NAME
        is_saved = "saved" in recorded
        check = functools.partial(
            sharing.check, self.store, run, file, holder, is_saved
        )
        if getattr(self.store, "in_bucket", False):
            self._before_first_save = check
        else:
            check()

    def save(self, report: EncodedReport, *, plain: bool = True) -> EncodedReport:
        """Encode the params of a report, and save those with arrays.

        Args:
            report: The report, with `params` as the caller has passed them.
            plain: Whether `load` must work without a tree `like` it. If not, all
                params except paths go into the store, which can restore any tree.

        Returns:
            The report with encoded params.

        Raises:
            TypeError: The params cannot be stored; the message names the place.
            ValueError: There is no store for arrays.
        """
        params = report.params
        if params is None:
            return report
        text = self._encoded(params, plain)
        if text is None:
            return self._save(report, plain)
        if type(params) is not str:
            # A copy: the caller may change the original.
            params = run_paths.absolute(codec.decode(text), self._own)
        return report._replace(params=params, params_text=text)

    def load(self, params: Any, like: Any = None) -> Any:
        """Return the params of a checkpoint, read from the store if it keeps them.

        Raises:
            ParamsError: The params cannot be read, or are in the memory of a process.
        """
        if type(params) is InMemory:
            raise ParamsError(
                "These params are only in the memory of the process that trains them. "
                "Load what is saved: controller.graph.resume_point(checkpoint) after "
                "the engine has ended, or train with a smaller save_every."
            )
        if type(params) is not Saved:
            return params
        store = self._need_store()
        try:
            return store.load(params.path, like)
        except OSError as error:
            mark_of_the_run(error)
            raise

    def sweep(
        self,
        tx: Transaction,
        reports: Sequence[EncodedReport],
        reachable: Reachable,
    ) -> Step:
        """Record the saves of a transaction, and return the removals to record.

        It looks for removals only when the saves have grown by a sixth since the last
        time, so that the cost of a report does not depend on the number of slots.

        Args:
            tx: The transaction, which has recorded its reports.
            reports: The reports.
            reachable: Returns the checkpoints whose params may still be needed.
        """
        saves = tx.state.saves
        if not self.note(tx, reports) or self.keep.everything or not self._is_full(tx):
            return Step()
        alive = {
            saved_text(checkpoint.params.path)
            for checkpoint in reachable().values()
            if type(checkpoint.params) is Saved
        }
        known = saves.read()
        removed = self.keep.unneeded(known, alive)
        kept = len(known) - len(removed)
        self._most = 0 if kept < _FEW else kept + kept // 6 - 1
        if self.keep.bytes is not None:
            gone = sum(save.bytes for save in removed)
            self._note_budget(self.keep.bytes, saves.bytes() - gone)
        row = tx.state.row
        return Step(tuple(Removal(row, s.params, UNREACHABLE) for s in removed))

    def note(self, tx: Transaction, reports: Sequence[EncodedReport]) -> bool:
        """Record the saves of the recorded reports; return whether there are any."""
        recorded = tx.params()
        saves = tuple(
            Save(text, tx.state.row, new.generation_id, new.step, new.bytes)
            for new in reports
            if new.bytes is not None and (text := new.params_text) in recorded
        )
        tx.do(Step(saves))
        return bool(saves)

    def after(self, tx: Transaction, reports: Sequence[EncodedReport]) -> Iterator[Any]:
        """Yield the calls to make after the commit, once the lock is free."""
        removed = [
            path_of(record.params)
            for record in tx.records
            if isinstance(record, Removal) and record.reason == UNREACHABLE
            if not record.params.startswith(codec.HELD)
        ]
        recorded = tx.params()
        unrecorded = [new for new in reports if new.params_text not in recorded]
        yield functools.partial(self.forget, unrecorded)
        if self._most:
            self._remove(removed)
        else:  # Few: the caller's thread is quicker than a switch to another one.
            yield functools.partial(self._remove, removed, here=True)

    def forget(self, reports: Iterable[EncodedReport]) -> None:
        """Remove the saves of reports that were not recorded, and wait for that."""
        paths = [new.params.path for new in reports if new.bytes is not None]
        if paths:
            self._remove(paths)
            self._remover.wait()

    def remove_leftovers(
        self, journal: Journal, lock: AbstractContextManager[object]
    ) -> None:
        """Remove, once a session, the saves that dead sessions have never recorded.

        It keeps the saves of live sessions, which may be about to report them.

        Args:
            journal: The journal of the run.
            lock: Held while this reads the journal.
        """
        if self._has_looked:
            return
        self._has_looked = True
        try:
            self._remove(leftovers.look(journal, lock, self._need_store()))
        except (OSError, PopulationError) as error:
            logger.warning("what earlier sessions have left was not removed: %s", error)

    def close(self) -> None:
        """Make all removals that are left."""
        self._remover.close()

    def _is_full(self, tx: Transaction) -> bool:
        if self.keep.bytes is None:
            return tx.state.saves.count() > self._most
        most = max(self.keep.bytes, self._most_bytes)
        return tx.state.saves.bytes() > most

    def _note_budget(self, budget: int, size: int) -> None:
        """Set the size for the next look; warn once if the budget is too small."""
        if size > budget and not self._most_bytes:
            logger.warning(
                "Keep(bytes=%d) is less than what may still be needed: %d bytes. "
                "Nothing reachable is removed; give it more room.",
                budget,
                size,
            )
        self._most_bytes = 0 if size <= budget else size + size // 5

    def _remove(self, paths: Iterable[str], *, here: bool = False) -> None:
        """Remove paths from the store that the journal does not name any more."""
        remove = remover.remove if here or self._vanishes else self._remover.put
        for path in paths:
            remove(self._need_store(), path)

    def _encoded(self, params: Any, plain: bool) -> str | None:
        """Return params as text; None if they go into the store."""
        if not (plain or isinstance(params, (str, pathlib.PurePath, Saved))):
            return None
        try:
            return run_paths.encode(params, self._own, scalars=False)
        except TypeError:  # They hold an object that only a store may keep.
            return None

    def _save(self, report: EncodedReport, plain: bool) -> EncodedReport:
        """Save the params in the store, and return the report with their path."""
        from population import params as params_module

        tree = report.params
        kept_as_it_is = plain and not self._in_memory
        params_module.check(tree, plain=kept_as_it_is, functions=not plain)
        if self._before_first_save is not None:
            self._before_first_save()
            self._before_first_save = None
        self._remover.wait()  # Else a disk could fill up faster than it removes.
        name = f"{report.generation_id}/{report.step}-{self._token}"
        size, store = _size(tree), self._need_store()
        try:
            path = store.save(name, tree)
        except OSError as error:
            mark_of_the_run(error)
            raise
        saved, text = Saved(path), saved_text(path)
        return report._replace(params=saved, params_text=text, bytes=size)

    def _need_store(self) -> ParamsStore:
        with self._lock:
            if self._store is None:
                from population.params import FileParams, MemoryParams

                if self._log_dir is not None:
                    self._store = FileParams(self._log_dir / PARAMS_FOLDER)
                elif self._in_memory:
                    self._store = MemoryParams()
                else:
                    raise ValueError(
                        "params with arrays need a place to be saved, and this journal "
                        "has none. Give the controller log_dir=, or "
                        "params=FileParams(folder)."
                    )
            return self._store


def _size(tree: Any) -> int:
    import jax

    arrays = filter(codec.is_array, jax.tree.leaves(tree))
    return sum(int(getattr(leaf, "nbytes", 0)) for leaf in arrays)
