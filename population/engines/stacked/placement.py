"""Whose weights each row holds, and how the right ones get there.

A state is known by the params that its checkpoint has in the graph: `Held` while only
this process has it, `Saved` once the params store has it too, `Fresh` if nobody has
trained it yet. After each report the graph says what each slot goes on from; here the
rows are made to hold that, and what may be needed later is put aside before training
overwrites it.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from population.base.types import Checkpoint, Held, Ref, Saved
from population.engines.stacked.columns import Columns
from population.engines.stacked.layout import Flat
from population.engines.stacked.states import Bank, on_host
from population.journal.records import GenerationRow


@dataclasses.dataclass(frozen=True)  # A tuple would equal another of one text.
class Fresh:
    """A state as `init` makes it.

    Attributes:
        generation_id: The generation that begins with it.
    """

    generation_id: str


@dataclasses.dataclass(frozen=True)
class Given:
    """Params that the journal itself keeps, as those of a `Start` may be.

    Attributes:
        place: The checkpoint that has them.
    """

    place: Ref


Key = Held | Saved | Fresh | Given


class Sources(NamedTuple):
    """Where states come from that no row and no snapshot holds.

    Attributes:
        load: Params that are saved or plain data, to a state.
        fresh: A slot and its scalars, to a fresh state.
    """

    load: Callable[[Any], Flat]
    fresh: Callable[[int, Sequence[Any]], Flat]


class Tenants:
    """The rows of a bank and what they hold.

    Args:
        bank: The rows.
        count: How many members there are.
        rows: How many rows; those beyond the members are padding.
        columns: How meta_params become scalars.
        sources: Where other states come from.

    Attributes:
        holds: By row, whose state it is; None if it is of no use.
        steps: `[R]` the steps of the rows' states.
        snapshots: States that are kept beside the rows.
    """

    def __init__(
        self, bank: Bank, count: int, rows: int, columns: Columns, sources: Sources
    ) -> None:
        self._bank = bank
        self._columns = columns
        self._sources = sources
        self.holds: list[Key | None] = [None] * count
        self._generations = [""] * count
        self.steps = np.zeros(rows, np.int32)
        self._scalars = columns.blank(rows)
        self._new = np.zeros(rows, np.bool_)
        self._stale = True
        self.snapshots: dict[Key, Flat] = {}

    def use(self, bank: Bank) -> None:
        """Go over to a bank whose rows hold the same states."""
        self._bank = bank
        self._tell()

    def has(self, row: int, key: Key) -> None:
        """Say what a row holds: after training, say."""
        self.holds[row] = key

    def lose(self, row: int) -> None:
        """Say that what a row holds is of no use."""
        self.holds[row] = None

    def keys(self) -> set[Key]:
        """The states that are here."""
        return {key for key in self.holds if key is not None} | self.snapshots.keys()

    def on_host(self, keys: Sequence[Key]) -> Iterator[tuple[Key, Flat]]:
        """Those of these states that are here, as NumPy arrays."""
        rows = {key: row for row, key in enumerate(self.holds) if key is not None}
        whole = None
        for key in keys:
            if key in self.snapshots:
                yield key, tuple(map(on_host, self.snapshots[key]))
            elif key in rows:
                whole = whole or self._bank.host()
                yield key, whole(rows[key])

    def keep(self, keys: Collection[Key]) -> None:
        """Have snapshots of these, as far as their states are here."""
        new = [key for key in keys if key not in self.snapshots]
        if not new:
            return
        holds = {key: row for row, key in enumerate(self.holds) if key is not None}
        for key in new:
            if key in holds:
                self.snapshots[key] = self._bank.take(holds[key])

    def drop_all_but(self, keys: Collection[Key]) -> None:
        """Have no other snapshots than these."""
        for key in [key for key in self.snapshots if key not in keys]:
            del self.snapshots[key]

    def settle(self, work: Sequence[tuple[int, GenerationRow, Checkpoint]]) -> None:
        """Have the rows of these slots hold what the slots go on from.

        Args:
            work: The slots, each with its present generation and newest checkpoint.
        """
        holds = {key: row for row, key in enumerate(self.holds) if key is not None}
        moves: dict[int, int] = {}
        firsts: dict[Key, int] = {}  # What is not in any row is brought once.
        repeats: dict[int, int] = {}
        params: dict[int, Any] = {}
        for row, generation, newest in work:
            self._begin(row, generation, newest)
            key = key_of(newest)
            if self.holds[row] == key:
                continue
            if key in holds:
                moves[row] = holds[key]
            elif key in firsts:
                repeats[row] = firsts[key]
            else:
                firsts[key], params[row] = row, newest.params
        self._move(moves)
        for key, row in firsts.items():
            self._bank.put(row, self._brought(key, row, params[row]))
            self.holds[row] = key
        self._move(repeats)
        if self._stale:
            self._tell()

    def _begin(self, row: int, generation: GenerationRow, newest: Checkpoint) -> None:
        """Take over what a slot's generation says of its row."""
        if self.steps[row] != newest.step:
            self.steps[row] = newest.step
            self._stale = True
        if self._generations[row] == generation.generation_id:
            return
        self._generations[row] = generation.generation_id
        scalars = self._columns.encode(newest.meta_params, row)
        for column, scalar in zip(self._scalars, scalars, strict=True):
            column[row] = scalar
        self._new[row] = True
        self._stale = True

    def _move(self, sources: dict[int, int]) -> None:
        if sources:
            self._bank.move(sources)
            held = {row: self.holds[source] for row, source in sources.items()}
            for row, key in held.items():
                self.holds[row] = key

    def _brought(self, key: Key, row: int, params: Any) -> Flat:
        """A state that no row holds."""
        if key in self.snapshots:
            return self.snapshots[key]
        if isinstance(key, (Saved, Given)):
            return self._sources.load(params)
        if isinstance(key, Fresh):
            scalars = [column[row] for column in self._scalars]
            return self._sources.fresh(row, scalars)
        raise RuntimeError(
            f"Slot {row} is to go on from weights that are not here any more ({key}). "
            "This is a fault of the library; please report it. Open the run again to "
            "go on from what was saved."
        )

    def _tell(self) -> None:
        count = len(self.holds)
        for column in self._scalars:
            column[count:] = column[0]  # The padding trains along with the first.
        self._bank.tell(self.steps, self._scalars, self._new)
        self._new[:] = False
        self._stale = False


def key_of(newest: Checkpoint) -> Key:
    """What a slot goes on from.

    Raises:
        ValueError: If a loop has saved it by itself.
    """
    params = newest.params
    if params is None:
        return Fresh(newest.generation_id)
    if isinstance(params, (Held, Saved)):
        return params
    if not isinstance(params, (str, pathlib.PurePath)):
        return Given(newest.ref)
    raise ValueError(
        f"Worker {newest.worker_id} is to go on from {params!r}, which a training "
        "loop saved by itself. A stacked population needs trees that the params store "
        "keeps: worker.report(value, state), or Start(meta_params, params=tree)."
    )
