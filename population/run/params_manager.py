"""Saves, loads and removes the params of a run.

Plain values go into the journal as they are. A tree with arrays goes into the params
store, before any lock is taken, and the journal keeps its path. After a report it looks
for saves that no slot or decision can reach any more. A thread syncs what replaces
them, and the journal, and then records and makes the removals: so a power cut never
costs a save and what has replaced it.
"""

from __future__ import annotations

import functools
import logging
import pathlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from population.base import codec, run_paths
from population.base.errors import (
    JournalError,
    LostParamsError,
    ParamsError,
    PopulationError,
    mark_of_the_run,
)
from population.base.interfaces import ParamsStore
from population.base.types import InMemory, Saved
from population.core.facts import store_key
from population.core.owners import Owner
from population.core.retention import Keep, path_of, saved_text
from population.core.step import EncodedReport, Step
from population.journal.base import Journal
from population.journal.records import UNREACHABLE, Removal, Save
from population.journal.sqlite_file import JOURNAL_NAME
from population.run import leftovers, remover, sharing
from population.run.leftovers import Left
from population.run.remover import Remover
from population.run.replacer import Record, Replacer
from population.run.surplus import Found, Reachable, Surplus
from population.run.transaction import Transaction

logger = logging.getLogger("population")
PARAMS_FOLDER = "params"


class ParamsManager:
    """Saves, loads and removes the params of one run.

    Args:
        journal: The journal of the run.
        lock: The lock of the run, held while this reads the journal.
        log_dir: The run folder, or None.
        store: The caller's params store, or None for the default.
        in_memory: Whether the run ends with the process; arrays then stay in memory.
        token: The token of this session.

    Attributes:
        store: The caller's params store, or None.
        surplus: Finds the saves to remove.
    """

    def __init__(
        self,
        journal: Journal,
        lock: Any,
        log_dir: pathlib.Path | None,
        store: ParamsStore | None,
        in_memory: bool,
        token: str,
    ) -> None:
        self._journal, self._run_lock = journal, lock
        self._log_dir = log_dir
        self._own = run_paths.own_folder(log_dir)
        self.store = store
        self._store = store
        self._in_memory = in_memory
        self._token = token
        self._lock = threading.Lock()
        self._check_store: Callable[[], object] | None = None  # Once, before its use.
        self._mark: str | None = None  # The run's name in its store.
        self._marker: sharing.Marker | None = None
        self._vanishes = in_memory and store is None
        self._remover = Remover()
        self.surplus = Surplus(is_paced=not self._vanishes)
        self._found: Found | None = None  # In the present transaction.
        self._replacer = Replacer(journal, token)
        self._has_looked = False  # Whether it has looked for leftovers.

    @property
    def keep(self) -> Keep:
        """The rules for params to keep although nothing can reach them any more."""
        return self.surplus.keep

    @keep.setter
    def keep(self, keep: Keep) -> None:
        self.surplus.keep = keep

    def guard(
        self, recorded: Mapping[str, str], holder: Owner, newest: Collection[str]
    ) -> None:
        """Refuse a store in which another copy of this run keeps its params.

        A store in the run folder is checked before its first use, so that a run without
        arrays needs none; so is a bucket, which may be slow or offline.

        Args:
            recorded: The run's facts.
            holder: This process.
            newest: The paths of the run's newest saves; empty if it has none.

        Raises:
            JournalError: Another copy exists; see `sharing.check`.
        """
        run = store_key(recorded)
        if self._log_dir is None or run is None or self._vanishes:
            return
        self._mark = run
        file = self._log_dir / JOURNAL_NAME
        self._marker = sharing.Marker(run, str(file.resolve()), holder.text)
        is_default = self.store is None

        def check() -> None:
            store = self._need_store()
            if hasattr(store, "claimed"):
                sharing.check(store, run, file, holder, newest, is_own=is_default)

        if is_default or getattr(self.store, "in_bucket", False):
            self._check_store = check
        else:
            check()

    def is_proven(self) -> bool:
        """Whether the store has this run's mark: then a missing save is a lost one.

        Without it another store may be in its place, as an unmounted disk leaves one.
        """
        store = self._need_store()
        if self._mark is None or not hasattr(store, "claimed"):
            return False
        try:
            self._check_now()
            return store.claimed(self._mark) is not None
        except (OSError, PopulationError):
            return False

    def is_there(self, params: Any) -> bool:
        """Whether saved params can be read now, as far as their store can tell."""
        store = self._need_store()
        is_known = type(params) is Saved and hasattr(store, "is_intact")
        return is_known and bool(store.is_intact(params.path))

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
        except LostParamsError as error:
            error.params = params
            raise
        except OSError as error:
            mark_of_the_run(error)
            raise

    def sweep(
        self,
        tx: Transaction,
        reports: Sequence[EncodedReport],
        reachable: Reachable,
        *,
        now: bool = False,
    ) -> None:
        """Record the saves of a transaction, and look for saves that nothing needs.

        Args:
            tx: The transaction, which has recorded its reports.
            reports: The reports.
            reachable: Returns the checkpoints whose params may still be needed.
            now: Whether to look in any case.
        """
        self._found = None
        if self.note(tx, reports) or now:
            self._found = self.surplus.look(tx.state.saves, reachable, now=now)

    def drop(
        self, tx: Transaction, saves: Sequence[Save], reachable: Reachable
    ) -> list[str]:
        """Record those of some saves as removed that nothing needs; return their paths.

        Args:
            tx: The transaction.
            saves: The saves.
            reachable: Returns the checkpoints whose params may still be needed.
        """
        found = self.surplus.unneeded(saves, tx.state.saves, reachable)
        row = tx.state.row
        tx.do(Step(tuple(Removal(row, s.params, UNREACHABLE) for s in found)))
        return [path_of(save.params) for save in found]

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

    def after(
        self, tx: Transaction, reports: Sequence[EncodedReport], record: Record
    ) -> Iterator[Any]:
        """Yield the calls to make after the commit, once the lock is free.

        Args:
            tx: The transaction, in which `sweep` was called.
            reports: The reports for which something was saved.
            record: Calls `drop` in a transaction; it must not keep the run alive.
        """
        recorded = tx.params()
        unrecorded = [new for new in reports if new.params_text not in recorded]
        yield functools.partial(self.forget, unrecorded)
        if self._found is not None and self._found.removed:
            removed, needed = self._found
            place = self._need_store(), removed, needed, record
            # It must not refer to this object, which ends its thread when it goes.
            removal = functools.partial(self._replacer.replace, *place)
            yield removal if self._vanishes else functools.partial(self.queue, removal)

    def queue(self, removal: Callable[[], object]) -> None:
        """Have a thread make a removal; called when the lock of the run is free."""
        self._remover.put(removal)

    def forget(self, reports: Iterable[EncodedReport]) -> None:
        """Remove the saves of reports that were not recorded, and wait for that."""
        paths = [new.params.path for new in reports if new.bytes is not None]
        if paths:
            self._remover.put(
                functools.partial(remover.remove, self._need_store(), paths)
            )
            self._remover.wait()

    def undo(self, reports: Iterable[EncodedReport]) -> None:
        """Remove the saves of those reports that were not recorded."""
        saved = [report for report in reports if report.bytes is not None]
        if not saved:
            return
        try:
            with self._run_lock:
                known = {save.params for save in self._journal.all(Save)}
        except JournalError:
            return  # Once this session is dead, another one removes them.
        self.forget(r for r in saved if r.params_text not in known)

    def remove_leftovers(self, reachable: Reachable) -> None:
        """Remove, once a session, the saves that dead sessions have never recorded.

        It keeps the saves of live sessions, which may be about to report them.

        Args:
            reachable: Returns the checkpoints whose params may still be needed.
        """
        if self._has_looked:
            return
        self._has_looked = True
        try:
            store, marker = self._need_store(), self._marker
            since = None if marker is None else marker.clean_upto(store)
            left = leftovers.look(self._journal, self._run_lock, store, since)
            if left.paths or (marker and left.clean_upto > (since or 0)):
                with self._run_lock:
                    found = [c.params for c in reachable().values()]
                needed = [params.path for params in found if type(params) is Saved]
                what = self._replacer, store, left, needed, marker
                self._remover.put(functools.partial(_clear, *what))
        except (OSError, PopulationError) as error:
            logger.warning("what earlier sessions have left was not removed: %s", error)

    def wait(self) -> None:
        """Wait for all removals; not with the lock of the run, which they need."""
        if not self._run_lock._is_owned():
            self._remover.wait()

    def close(self) -> None:
        """Make all removals that are left."""
        self._remover.close()

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

        tree, store = report.params, self._need_store()
        if plain or not getattr(store, "checks_trees", False):
            kept_as_it_is = plain and not self._in_memory
            params_module.check(tree, plain=kept_as_it_is, functions=not plain)
        self._check_now()
        if not self._run_lock._is_owned():
            self._remover.wait_if_late()
        name = f"{report.generation_id}/{report.step}-{self._token}"
        size = _size(tree)
        try:
            path = store.save(name, tree)
            if self._journal.durability == "power" and hasattr(store, "sync"):
                store.sync([path])
        except OSError as error:
            mark_of_the_run(error)
            raise
        saved, text = Saved(path), saved_text(path)
        return report._replace(params=saved, params_text=text, bytes=size)

    def _check_now(self) -> None:
        """Make the check of the store that was left for its first use."""
        if self._check_store is not None:
            self._check_store()
            self._check_store = None

    def _need_store(self) -> Any:
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


def _clear(
    replacer: Replacer,
    store: Any,
    left: Left,
    needed: Sequence[str],
    marker: sharing.Marker | None,
) -> None:
    """Remove what dead sessions have left, and note that in the store."""
    is_done = not left.paths or replacer.remove(store, left.paths, needed)
    if is_done and marker is not None:
        marker.note(store, left.clean_upto)


def _size(tree: Any) -> int:
    import jax

    arrays = filter(codec.is_array, jax.tree.leaves(tree))
    return sum(int(getattr(leaf, "nbytes", 0)) for leaf in arrays)
