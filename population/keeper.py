"""Params on their way into the journal and out again, and what becomes of them.

Plain values go into the journal as they are. A tree with arrays goes through the params
store, before any lock is taken, and the journal keeps its path; what was saved for a
report that is then not recorded is removed again. What nothing can reach any more is
removed by a row of the journal first, then from the store.
"""

from __future__ import annotations

import functools
import logging
import pathlib
import re
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from population import codec, owners
from population.base import Checkpoint, ParamsStore, Ref, Saved
from population.door import Door
from population.errors import ParamsError
from population.graph import CheckpointGraph
from population.incoming import Incoming
from population.journal import Journal
from population.retention import Keep
from population.rows import UNREACHABLE

logger = logging.getLogger("population")
PARAMS_FOLDER = "params"
_SAVED_BY = re.compile(r"/\.?\d+-([0-9a-f]{8})\b")


class Keeper:
    """Saves, loads and drops the params of one run.

    Args:
        log_dir: The run folder, or None.
        store: The caller's params store, or None for the default.
        in_memory: Whether the run ends with the process; arrays then stay in memory.
        keep: What is kept although nothing can reach it any more.
    """

    def __init__(
        self,
        log_dir: pathlib.Path | None,
        store: ParamsStore | None,
        in_memory: bool,
        keep: Keep,
    ) -> None:
        self._log_dir = log_dir
        self._store = store
        self._in_memory = in_memory
        self._keep = keep
        self._token = ""
        self._tidied = in_memory
        self._most = 0
        self._most_bytes = keep.bytes or 0
        self._lock = threading.Lock()

    def begin(self, token: str) -> None:
        """What is saved from now on is of the session with this token."""
        self._token = token

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
            text = None if self._must_save(params, plain) else _encoded(params)
            if text is None:
                params, size = self._save(generation_id, step, params, plain)
                text = _saved_text(params.path)
            elif type(params) is not str:
                params = codec.decode(text)  # A copy: the caller may change its own.
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
        """The params of a checkpoint, read from the store if it keeps them."""
        if type(params) is not Saved:
            return params
        return self._need_store().load(params.path, like)

    def forget(self, incoming: Iterable[Incoming], taken: Collection[Incoming]) -> None:
        """Remove what was saved for reports that were recorded without it."""
        kept = {id(new) for new in taken}
        for new in incoming:
            if new.fresh and id(new) not in kept:
                self._need_store().remove(new.params.path)

    def forget_unrecorded(
        self, incoming: Iterable[Incoming], graph: CheckpointGraph
    ) -> None:
        """Remove what was saved for reports that failed, if they were not recorded."""
        for new in incoming:
            if new.fresh and not _is_recorded(new, graph):
                self._need_store().remove(new.params.path)

    def sweep(
        self,
        journal: Journal,
        row: int,
        reachable: Callable[[], Iterable[Checkpoint]],
    ) -> list[str]:
        """Record the removal of saves that neither are reachable nor to be kept.

        They are looked through when there are a fifth more than last time, so that a
        report costs the same however many slots there are.

        Args:
            journal: Where they are noted; a transaction is open.
            row: The last row.
            reachable: Finds the checkpoints whose params must stay.

        Returns:
            The paths, to be removed from the store once this is committed.
        """
        if self._keep.everything:
            return []
        count, size = journal.count_saves()
        if count <= self._most and not self._keep.bytes:
            return []
        if self._keep.bytes and size <= self._most_bytes:
            return []
        saved = (c.params for c in reachable() if type(c.params) is Saved)
        alive = {_saved_text(params.path) for params in saved}
        removed = self._keep.unneeded(journal.saves(), alive)
        for save in removed:
            journal.add_removal(row, save.params, UNREACHABLE)
            journal.drop_save(save.params)
        kept = count - len(removed)
        self._most = kept + max(kept // 5 - 1, 0)
        size -= sum(save.bytes for save in removed)
        self._note_budget(size)
        return [_path_of(save.params) for save in removed]

    def reject(
        self, journal: Journal, row: int, checkpoint: Checkpoint, reason: str
    ) -> None:
        """Record that params are damaged; the store keeps them to be looked at."""
        text = codec.encode(checkpoint.params)
        journal.add_removal(row, text, f"rejected: {reason}")
        journal.drop_save(text)

    def drop(self, paths: Iterable[str], door: Door) -> None:
        """Remove from the store what the journal says is removed."""
        for path in paths:
            door.later(functools.partial(self._remove, path))

    def tidy(self, journal: Journal, generations: Iterable[str], door: Door) -> None:
        """Remove, once a session, what a kill has left: saves that nothing names.

        Only those of sessions that are gone: others may be about to report theirs.
        """
        if self._tidied:
            return
        self._tidied = True
        sessions = journal.owners()
        known = {save.params for save in journal.saves()}
        gone = {
            owner.token
            for owner in (owners.owner_of(text) for _, text in sessions)
            if owners.is_gone(owner)
        }
        before = sessions[-2][0] if len(sessions) > 1 else 0
        self.drop(map(_path_of, journal.removed_since(before)), door)
        folders = list(generations)
        door.later(lambda: self._tidy(folders, known, gone))

    def _tidy(
        self, generations: Sequence[str], known: Collection[str], gone: Collection[str]
    ) -> None:
        names = getattr(self._need_store(), "names", _no_names)
        for generation_id in generations:
            for path in names(generation_id):
                saved_by = _SAVED_BY.search(f"/{path.rpartition('/')[2]}")
                left = saved_by is not None and saved_by[1] in gone
                if left and _saved_text(path) not in known:
                    self._remove(path)

    def _remove(self, path: str) -> None:
        try:
            self._need_store().remove(path)
        except (OSError, ParamsError) as error:
            logger.warning("the params %s could not be removed: %s", path, error)

    def _note_budget(self, size: int) -> None:
        budget = self._keep.bytes
        if budget is None:
            return
        if size > budget and self._most_bytes <= budget:
            logger.warning(
                "Keep(bytes=%d) is less than what may still be needed: %d bytes. "
                "Nothing reachable is removed; give it more room.",
                budget,
                size,
            )
        self._most_bytes = max(budget, size + size // 5)

    def _must_save(self, params: Any, plain: bool) -> bool:
        return not (plain or isinstance(params, (str, pathlib.PurePath, Saved)))

    def _save(
        self, generation_id: str, step: int, params: Any, plain: bool
    ) -> tuple[Saved, int]:
        from population import params as params_module

        params_module.check(params, plain=plain and not self._in_memory)
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


def _no_names(folder: str) -> list[str]:
    """A store of three methods cannot be looked through."""
    del folder
    return []


def _size(tree: Any) -> int:
    import jax

    return sum(int(getattr(leaf, "nbytes", 0)) for leaf in jax.tree.leaves(tree))


@functools.lru_cache(maxsize=16384)
def _saved_text(path: str) -> str:
    return codec.encode(Saved(path))


def _path_of(text: str) -> str:
    saved: Saved = codec.decode(text)
    return saved.path


def _encoded(params: Any) -> str | None:
    """Params as text; None if there is something that only a store may keep."""
    try:
        return codec.encode(params, "params", scalars=False)
    except TypeError:
        return None


def _is_recorded(new: Incoming, graph: CheckpointGraph) -> bool:
    found = graph.get_checkpoint(Ref(new.generation_id, new.step))
    return found is not None and found.params == new.params
