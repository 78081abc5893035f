"""Params on their way into the journal and out again, and what becomes of them.

Plain values go into the journal as they are. A tree with arrays goes through the params
store, before any lock is taken, and the journal keeps its path; what was saved for a
report that is then not recorded is removed again.
"""

from __future__ import annotations

import functools
import pathlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from population.base import codec, run_paths
from population.base.errors import JournalError, ParamsError, damaged
from population.base.interfaces import ParamsStore
from population.base.types import Held, Ref, Saved
from population.core.decoding import decode_params
from population.core.facts import store_key
from population.core.graph import JournalGraph
from population.core.incoming import Incoming
from population.journal.sqlite_file import JOURNAL_NAME
from population.run import remover, sharing
from population.run.liveness import Owner
from population.run.remover import Remover

PARAMS_FOLDER = "params"


class Keeper:
    """Saves, loads and drops the params of one run.

    Args:
        log_dir: The run folder, or None.
        store: The caller's params store, or None for the default.
        in_memory: Whether the run ends with the process; arrays then stay in memory.

    Attributes:
        store: The caller's params store, or None.
    """

    def __init__(
        self, log_dir: pathlib.Path | None, store: ParamsStore | None, in_memory: bool
    ) -> None:
        self._log_dir = log_dir
        self._own = run_paths.own_folder(log_dir)
        self.store = store
        self._store = store
        self._in_memory = in_memory
        self._token = ""
        self._lock = threading.Lock()
        self._before_first_save: Callable[[], object] | None = None
        self._vanishes = in_memory and store is None
        self._remover = Remover()

    def begin(self, token: str) -> None:
        """What is saved from now on is of the session with this token."""
        self._token = token

    def guard(self, recorded: Mapping[str, str], holder: Owner) -> None:
        """Refuse a store in which another copy of this run keeps its params.

        A bucket is asked when it is needed first: it may be slow, or out of reach.

        Args:
            recorded: The run's facts.
            holder: This process.

        Raises:
            JournalError: If there is another copy; see `sharing.check`.
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

    def prepare(
        self,
        worker_id: int,
        generation_id: str,
        step: int,
        params: Any,
        value: float | None = None,
        metrics: Any = None,
        metrics_text: str | None = None,
        *,
        plain: bool = True,
    ) -> Incoming:
        """Encode params, saving those with arrays.

        Args:
            worker_id: The slot.
            generation_id: The generation that they belong to.
            step: Their step.
            params: The params.
            value: Their value.
            metrics: Further figures.
            metrics_text: `metrics` encoded.
            plain: Whether a tree must come back without one to compare it with. If
                not, all but paths go through the store, so that any tree comes back.

        Raises:
            TypeError: If they cannot be stored; the message names the place.
            ValueError: If there is nowhere to save arrays.
        """
        text, size = None, None
        if params is not None:
            text = None if self._must_save(params, plain) else self._encoded(params)
            if text is None:
                params, size = self._save(generation_id, step, params, plain)
                text = saved_text(params.path)
            elif type(params) is not str:
                # A copy: the caller may change its own.
                params = run_paths.absolute(codec.decode(text), self._own)
        return Incoming(
            worker_id,
            generation_id,
            step,
            params,
            text,
            value,
            metrics,
            metrics_text,
            size,
        )

    def load(self, params: Any, like: Any = None) -> Any:
        """The params of a checkpoint, read from the store if it keeps them.

        Raises:
            ParamsError: If they cannot be read, or are in the memory of a process.
        """
        if type(params) is Held:
            raise ParamsError(
                "These params are only in the memory of the process that trains them. "
                "Load what is saved: controller.graph.resume_point(checkpoint) after "
                "the engine has ended, or train with a smaller save_every."
            )
        if type(params) is not Saved:
            return params
        return self._need_store().load(params.path, like)

    def forget(self, incoming: Iterable[Incoming], taken: Collection[Incoming]) -> None:
        """Remove what was saved for reports that were recorded without it."""
        kept = {id(new) for new in taken}
        lost = [new for new in incoming if new.fresh and id(new) not in kept]
        self._undo(new.params.path for new in lost)

    def forget_unrecorded(
        self, incoming: Iterable[Incoming], graph: JournalGraph
    ) -> None:
        """Remove what was saved for reports that failed, if they were not recorded."""
        for new in incoming:
            try:
                recorded = _is_recorded(new, graph)
            except JournalError:
                continue  # Nobody knows; a later session will.
            if not recorded:
                self._undo([new.params.path])

    def drop(self, paths: Iterable[str]) -> None:
        """Remove from the store, soon, what the journal does not name any more."""
        for path in paths:
            if self._vanishes:
                self._need_store().remove(path)
            else:
                self._remover.put(self._need_store(), path)

    def _undo(self, paths: Iterable[str]) -> None:
        """Remove what was saved in vain, before anybody looks."""
        vain = list(paths)
        if vain:
            self.drop(vain)
            self._remover.settle()

    def names(self, folders: Iterable[str]) -> Iterator[str]:
        """The paths that the store keeps in these folders, if it can tell."""
        store: Any = self._need_store()
        if hasattr(store, "names"):
            for folder in folders:
                yield from store.names(folder)

    def drop_now(self, paths: Iterable[str]) -> None:
        """The same in this thread: no other one has to get its turn first."""
        for path in paths:
            remover.remove(self._need_store(), path)

    def close(self) -> None:
        """Remove what is left to be removed."""
        self._remover.close()

    def _encoded(self, params: Any) -> str | None:
        """Params as text; None if there is something that only a store may keep."""
        try:
            return run_paths.encode(params, self._own, scalars=False)
        except TypeError:
            return None

    def _must_save(self, params: Any, plain: bool) -> bool:
        return not (plain or isinstance(params, (str, pathlib.PurePath, Saved)))

    def _save(
        self, generation_id: str, step: int, params: Any, plain: bool
    ) -> tuple[Saved, int]:
        from population import params as params_module

        kept_as_it_is = plain and not self._in_memory
        params_module.check(params, plain=kept_as_it_is, functions=not plain)
        if self._before_first_save is not None:
            self._before_first_save()
            self._before_first_save = None
        self._remover.settle()  # Else a slow disk would fill up all the same.
        name = f"{generation_id}/{step}-{self._token}"
        path = self._need_store().save(name, params)
        return Saved(path), _size(params)

    def _need_store(self) -> ParamsStore:
        with self._lock:
            return self._made_store()

    def _made_store(self) -> ParamsStore:
        if self._store is None:
            from population.params import FileParams, MemoryParams

            if self._log_dir is not None:
                self._store = FileParams(self._log_dir / PARAMS_FOLDER)
            elif self._in_memory:
                self._store = MemoryParams()
            else:
                raise ValueError(
                    "params with arrays need a place to be saved, and this journal has "
                    "none. Give the controller log_dir=, or params=FileParams(folder)."
                )
        return self._store


def _size(tree: Any) -> int:
    import jax

    arrays = filter(codec.is_array, jax.tree.leaves(tree))
    return sum(int(getattr(leaf, "nbytes", 0)) for leaf in arrays)


@functools.lru_cache(maxsize=16384)
def saved_text(path: str) -> str:
    """Saved params as the journal keeps them."""
    return codec.encode(Saved(path))


def path_of(text: str) -> str:
    """The path that a journal's text names."""
    saved = decode_params(text)
    if type(saved) is not Saved:
        raise damaged(f"{text[:60]!r} names nothing that was saved")
    return saved.path


def _is_recorded(new: Incoming, graph: JournalGraph) -> bool:
    found = graph.get_checkpoint(Ref(new.generation_id, new.step))
    return found is not None and found.params == new.params
