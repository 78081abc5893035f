"""Tracks the checkpoint in each row, and fills rows with those that slots need.

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
from population.engines.stacked.states import MemberStates, on_host
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
    """The rows of the members' states, and the checkpoint that each holds.

    Args:
        states: The rows.
        count: The number of members.
        rows: The number of rows; those beyond the members are padding.
        columns: Converts meta_params to scalars.
        load: Makes a state from params that are saved or plain data.
        fresh: Makes a fresh state from a slot and its scalars.

    Attributes:
        holds: By row, the key of its state; None if it must not be copied.
        steps: `[R]` the steps of the rows' states.
        snapshots: States that are kept beside the rows, by key.
    """

    def __init__(
        self,
        states: MemberStates,
        count: int,
        rows: int,
        columns: Columns,
        load: Callable[[Any], Flat],
        fresh: Callable[[int, Sequence[Any]], Flat],
    ) -> None:
        self._states = states
        self._columns = columns
        self._load, self._fresh = load, fresh
        self.holds: list[Key | None] = [None] * count
        self._generations = [""] * count
        self.steps = np.zeros(rows, np.int32)
        self._scalars = columns.blank(rows)
        self._new = np.zeros(rows, np.bool_)
        self._stale = True
        self.snapshots: dict[Key, Flat] = {}

    def use(self, states: MemberStates) -> None:
        """Use other rows, which hold the same states."""
        self._states = states
        self._set_rows()

    def keys(self) -> set[Key]:
        """Return the keys of all states in rows and snapshots."""
        return {key for key in self.holds if key is not None} | self.snapshots.keys()

    def on_host(self, keys: Sequence[Key]) -> Iterator[tuple[Key, Flat]]:
        """Yield the NumPy arrays of those states that are in rows or snapshots."""
        rows, whole = self._rows(), None
        for key in keys:
            if key in self.snapshots:
                yield key, tuple(map(on_host, self.snapshots[key]))
            elif key in rows:
                whole = whole or self._states.host()
                yield key, whole(rows[key])

    def snapshot(self, keys: Collection[Key]) -> None:
        """Make snapshots of those of these states that are in rows."""
        new = [key for key in keys if key not in self.snapshots]
        rows = self._rows() if new else {}
        for key in new:
            if key in rows:
                self.snapshots[key] = self._states.take(rows[key])

    def drop_all_but(self, keys: Collection[Key]) -> None:
        """Drop all other snapshots."""
        for key in [key for key in self.snapshots if key not in keys]:
            del self.snapshots[key]

    def bring(self, work: Mapping[int, SlotWork]) -> None:
        """Fill the rows of these slots with the states from which they continue.

        Args:
            work: The slots and their work.
        """
        holds = self._rows()
        moves: dict[int, int] = {}
        firsts: dict[Key, int] = {}  # States that are not in any row: loaded once.
        repeats: dict[int, int] = {}
        for row, slot in work.items():
            self._begin(row, slot)
            key = key_of(slot.newest)
            if self.holds[row] == key:
                continue
            if key in holds:
                moves[row] = holds[key]
            elif key in firsts:
                repeats[row] = firsts[key]
            else:
                firsts[key] = row
        self._move(moves)
        for key, row in firsts.items():
            self._states.put(row, self._brought(key, row, work[row].newest.params))
            self.holds[row] = key
        self._move(repeats)
        if self._stale:
            self._set_rows()

    def _rows(self) -> dict[Key, int]:
        """Return, by key, a row that holds its state."""
        return {key: row for row, key in enumerate(self.holds) if key is not None}

    def _begin(self, row: int, slot: SlotWork) -> None:
        """Set step and meta_params of a row by the slot's generation."""
        newest = slot.newest
        if self.steps[row] != newest.step:
            self.steps[row] = newest.step
            self._stale = True
        if self._generations[row] == slot.generation_id:
            return
        self._generations[row] = slot.generation_id
        scalars = self._columns.encode(newest.meta_params, row)
        for column, scalar in zip(self._scalars, scalars, strict=True):
            column[row] = scalar
        self._new[row] = True
        self._stale = True

    def _move(self, sources: dict[int, int]) -> None:
        if sources:
            self._states.move(sources)
            held = {row: self.holds[source] for row, source in sources.items()}
            for row, key in held.items():
                self.holds[row] = key

    def _brought(self, key: Key, row: int, params: Any) -> Flat:
        """Return a state from a snapshot, `init`, a save or the journal."""
        if key in self.snapshots:
            return self.snapshots[key]
        if params is None:
            return self._fresh(row, [column[row] for column in self._scalars])
        if not isinstance(params, InMemory):
            return self._load(params)
        raise RuntimeError(
            f"Slot {row} must continue from weights that are no longer in memory "
            f"({key}). This is a bug of the library; please report it. Open the run "
            "again to continue from the last save."
        )

    def _set_rows(self) -> None:
        count = len(self.holds)
        for column in self._scalars:
            column[count:] = column[0]  # Padding rows train with the scalars of row 0.
        self._states.set_rows(self.steps, self._scalars, self._new)
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
