"""Tracks which checkpoint the row of each slot holds, and fills rows with others.

The key of a state is the params of its checkpoint: `InMemory` while only this process
has them, `Saved` once the params store has them, too; or `Begun` before any training.
After each report the graph names the checkpoint from which each slot continues; the
rows are filled accordingly, and states that may be needed later are copied to snapshots
before training overwrites them.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from population.base.types import Checkpoint, InMemory, Ref, Saved
from population.engines.stacked.columns import Columns
from population.engines.stacked.layout import Flat
from population.engines.stacked.stack import Stack
from population.engines.stacked.states import on_host
from population.run.population_lease import SlotWork


# Not a NamedTuple, which would equal any other tuple with the same content.
@dataclasses.dataclass(frozen=True)
class Begun:
    """A state with which a generation begins: fresh, or from plain data in the journal.

    Attributes:
        place: The checkpoint of the state.
    """

    place: Ref


Key = InMemory | Saved | Begun


class Placement:
    """The checkpoint that the row of each slot holds. All is by worker id.

    Args:
        stack: The rows.
        count: The number of slots.
        columns: Converts meta_params to scalars.
        load: Makes a state from params that are saved or plain data.
        fresh: Makes a fresh state from a slot and its scalars.

    Attributes:
        holds: The key of each slot's state in the stack; None if that must not be
            copied, or the slot has no row.
        steps: `[N]` the steps of these states.
        snapshots: States that are kept beside the rows, by key.
    """

    def __init__(
        self,
        stack: Stack,
        count: int,
        columns: Columns,
        load: Callable[[Any], Flat],
        fresh: Callable[[int, Sequence[Any]], Flat],
    ) -> None:
        self._stack = stack
        self._columns = columns
        self._load, self._fresh = load, fresh
        self.holds: list[Key | None] = [None] * count
        self._generations = [""] * count
        self.steps = np.zeros(count, np.int32)
        self._scalars = columns.blank(count)
        self._new = np.zeros(count, np.bool_)
        self._stale = True
        self.snapshots: dict[Key, Flat] = {}

    def use(self, stack: Stack) -> None:
        """Use another stack, which holds the same states of the slots in both.

        If this raises, the present stack stays in use.
        """
        self._set_rows(stack)
        self._stack = stack
        self.holds = [key if w in stack else None for w, key in enumerate(self.holds)]

    def keys(self) -> set[Key]:
        """Return the keys of all states in rows and snapshots."""
        return {key for key in self.holds if key is not None} | self.snapshots.keys()

    def on_host(self, keys: Sequence[Key]) -> Iterator[tuple[Key, Flat]]:
        """Yield the NumPy arrays of those states that are in rows or snapshots."""
        holders, whole = self._holders(), None
        for key in keys:
            if key in self.snapshots:
                yield key, tuple(map(on_host, self.snapshots[key]))
            elif key in holders:
                whole = whole or self._stack.host()
                yield key, whole(holders[key])

    def snapshot(self, keys: Collection[Key]) -> None:
        """Make snapshots of those of these states that are in rows."""
        new = [key for key in keys if key not in self.snapshots]
        holders = self._holders() if new else {}
        for key in new:
            if key in holders:
                self.snapshots[key] = self._stack.take(holders[key])

    def leaving(self, rows: Collection[int]) -> set[InMemory]:
        """Return the keys of states in the rows of all slots but these."""
        left = (key for w, key in enumerate(self.holds) if w not in rows)
        return {key for key in left if isinstance(key, InMemory)}

    def drop_all_but(self, keys: Collection[Key]) -> None:
        """Drop all other snapshots."""
        for key in [key for key in self.snapshots if key not in keys]:
            del self.snapshots[key]

    def bring(self, work: Mapping[int, SlotWork]) -> None:
        """Fill the rows of these slots with the states from which they continue.

        Args:
            work: The slots and their work.
        """
        holders = self._holders()
        moves: dict[int, int] = {}
        firsts: dict[Key, int] = {}  # States that are not in any row: loaded once.
        repeats: dict[int, int] = {}
        for w, slot in work.items():
            self._begin(w, slot)
            key = key_of(slot.newest)
            if self.holds[w] == key:
                continue
            if key in holders:
                moves[w] = holders[key]
            elif key in firsts:
                repeats[w] = firsts[key]
            else:
                firsts[key] = w
        self._move(moves)
        for key, w in firsts.items():
            self._stack.put(w, self._brought(key, w, work[w].newest.params))
            self.holds[w] = key
        self._move(repeats)
        if self._stale:
            self._set_rows(self._stack)

    def _holders(self) -> dict[Key, int]:
        """Return, by key, a slot whose row holds its state."""
        return {key: w for w, key in enumerate(self.holds) if key is not None}

    def _begin(self, worker_id: int, slot: SlotWork) -> None:
        """Set step and meta_params of a slot's row by its generation."""
        newest = slot.newest
        if self.steps[worker_id] != newest.step:
            self.steps[worker_id] = newest.step
            self._stale = True
        if self._generations[worker_id] == slot.generation_id:
            return
        self._generations[worker_id] = slot.generation_id
        scalars = self._columns.encode(newest.meta_params, worker_id)
        for column, scalar in zip(self._scalars, scalars, strict=True):
            column[worker_id] = scalar
        self._new[worker_id] = True
        self._stale = True

    def _move(self, sources: dict[int, int]) -> None:
        if sources:
            self._stack.move(sources)
            held = {w: self.holds[source] for w, source in sources.items()}
            for w, key in held.items():
                self.holds[w] = key

    def _brought(self, key: Key, worker_id: int, params: Any) -> Flat:
        """Return a state from a snapshot, `init`, a save or the journal."""
        if key in self.snapshots:
            return self.snapshots[key]
        if params is None:
            scalars = [column[worker_id] for column in self._scalars]
            return self._fresh(worker_id, scalars)
        if not isinstance(params, InMemory):
            return self._load(params)
        raise RuntimeError(
            f"Slot {worker_id} must continue from weights that are no longer in memory "
            f"({key}). This is a bug of the library; please report it. Open the run "
            "again to continue from the last save."
        )

    def _set_rows(self, stack: Stack) -> None:
        stack.set_rows(self.steps, self._scalars, self._new)
        self._new[:] = False
        self._stale = False


def key_of(newest: Checkpoint) -> Key:
    """Return the key of the state from which a slot continues.

    Raises:
        ValueError: A training loop has saved the state itself.
    """
    params = newest.params
    if isinstance(params, (InMemory, Saved)):
        return params
    if not isinstance(params, (str, pathlib.PurePath)):
        return Begun(newest.ref)
    raise ValueError(
        f"Worker {newest.worker_id} must continue from {params!r}, which a training "
        "loop saved itself. A stacked population needs trees that the params store "
        "keeps: worker.report(value, state), or Start(meta_params, params=tree)."
    )
