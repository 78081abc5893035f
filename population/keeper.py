"""Params on their way into the journal and out again.

Plain values go into the journal as they are. A tree with arrays goes through the params
store, before any lock is taken, and the journal keeps its path; what was saved for a
report that is then not recorded is removed again.
"""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Callable, Iterable
from typing import Any

from population import codec
from population.base import Checkpoint, ParamsStore, Ref, Saved
from population.graph import CheckpointGraph
from population.slots import Incoming

PARAMS_FOLDER = "params"


class Keeper:
    """Saves, loads and drops the params of one run.

    Args:
        log_dir: The run folder, or None.
        store: The caller's params store, or None for the default.
        in_memory: Whether the run ends with the process; arrays then stay in memory
            until nothing can reach them.
    """

    def __init__(
        self, log_dir: pathlib.Path | None, store: ParamsStore | None, in_memory: bool
    ) -> None:
        self._log_dir = log_dir
        self._store = store
        self._drops = in_memory and store is None
        self._in_memory = in_memory
        self._kept: dict[str, None] = {}
        self._limit = 0
        self._lock = threading.Lock()

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
        text, fresh = None, False
        if params is not None:
            text = None if self._must_save(params, plain) else _encoded(params)
            if text is None:
                params, fresh = self._save(generation_id, step, params, plain), True
                text = codec.encode(params)
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
            fresh,
        )

    @property
    def drops(self) -> bool:
        """Whether arrays vanish as soon as nothing can reach them."""
        return self._drops

    def load(self, params: Any, like: Any = None) -> Any:
        """The params of a checkpoint, read from the store if it keeps them."""
        if type(params) is not Saved:
            return params
        return self._need_store().load(params.path, like)

    def recorded(self, incoming: Iterable[Incoming], graph: CheckpointGraph) -> None:
        """Take note of arrays in memory that the journal names now."""
        if self._drops:
            for new in incoming:
                if new.fresh and _is_recorded(new, graph):
                    self._kept[new.params.path] = None

    def droppable(self, reachable: Callable[[], Iterable[Checkpoint]]) -> list[str]:
        """Arrays in memory that nothing can reach any more.

        They are looked through when there are a fifth more than last time, so that a
        report costs the same however many slots there are.
        """
        if len(self._kept) <= self._limit:
            return []
        alive = {c.params.path for c in reachable() if type(c.params) is Saved}
        self._limit = len(alive) + len(alive) // 5
        return [path for path in self._kept if path not in alive]

    def drop(self, paths: Iterable[str]) -> None:
        """Drop arrays whose removal has been recorded."""
        for path in paths:
            self._kept.pop(path, None)
            self._need_store().remove(path)

    def forget_unrecorded(
        self, incoming: Iterable[Incoming], graph: CheckpointGraph
    ) -> None:
        """Remove what was saved for reports that were then not recorded."""
        for new in incoming:
            if new.fresh and not _is_recorded(new, graph):
                self._need_store().remove(new.params.path)

    def _must_save(self, params: Any, plain: bool) -> bool:
        return not (plain or isinstance(params, (str, pathlib.PurePath, Saved)))

    def _save(self, generation_id: str, step: int, params: Any, plain: bool) -> Saved:
        from population import params as params_module

        params_module.check(params, plain=plain and not self._in_memory)
        return Saved(self._need_store().save(f"{generation_id}/{step}", params))

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


def _encoded(params: Any) -> str | None:
    """Params as text; None if there is something that only a store may keep."""
    try:
        return codec.encode(params, "params", scalars=False)
    except TypeError:
        return None


def _is_recorded(new: Incoming, graph: CheckpointGraph) -> bool:
    found = graph.get_checkpoint(Ref(new.generation_id, new.step))
    return found is not None and found.params == new.params
