"""The stack of members: which slot each row trains, and the states by worker id.

All rows are trained, also those of retired members. Once half of the members in the
stack are retired, the others are copied into a smaller one; only this module translates
between worker ids and rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from population.engines.stacked.layout import Flat
from population.engines.stacked.states import MemberStates

Evaluated = dict[int, tuple[float, list[Any]]]  # Values and metrics, by worker id.


class RowMap:
    """The slot that each row trains.

    Args:
        worker_ids: The slots that have a row, ascending.
        devices: The number of devices; each gets the same number of rows.

    Attributes:
        worker_ids: The slots that have a row: row i trains the i-th of them.
        padded: By row, its slot; rows of padding repeat the first slot.
    """

    def __init__(self, worker_ids: Sequence[int], devices: int) -> None:
        self.worker_ids = tuple(worker_ids)
        self.padded = self.worker_ids + self.worker_ids[:1] * (
            -len(self.worker_ids) % devices
        )
        self._devices = devices
        self._row = {w: row for row, w in enumerate(self.worker_ids)}

    def __contains__(self, worker_id: object) -> bool:
        return worker_id in self._row

    def __len__(self) -> int:
        return len(self.padded)

    def row(self, worker_id: int) -> int:
        """Return the row of a slot."""
        return self._row[worker_id]

    def resized(self, live: Sequence[int]) -> RowMap | None:
        """Return the rows to copy the states into, or None to keep these rows.

        They grow if a slot to be trained has no row. They shrink once half of the slots
        that have a row are retired, if that leaves fewer rows.

        Args:
            live: The slots that are not retired.
        """
        grows = any(w not in self for w in live)
        if not live or not (grows or 2 * len(live) <= len(self.worker_ids)):
            return None
        found = RowMap(live, self._devices)
        return found if grows or len(found) < len(self) else None


class Stack:
    """The states of the members that have a row, by worker id.

    Args:
        states: The rows.
        rows: The slot that each row trains.
    """

    def __init__(self, states: MemberStates, rows: RowMap) -> None:
        self.states, self.rows = states, rows
        self._index = np.array(rows.padded)

    def __contains__(self, worker_id: object) -> bool:
        return worker_id in self.rows

    def release(self) -> None:
        """Free the memory of the states."""
        self.states.release()

    def wait(self) -> None:
        """Return once the devices are done."""
        self.states.wait()

    def set_rows(
        self,
        steps: npt.NDArray[np.int32],
        scalars: Sequence[npt.NDArray[Any]],
        new: npt.NDArray[np.bool_],
    ) -> None:
        """Set steps and meta_params; the arguments are `[N]`, by worker id."""
        at = self._index
        self.states.set_rows(steps[at], [column[at] for column in scalars], new[at])

    def train(self, batches: Any) -> None:
        """Train all members for one chunk of steps."""
        self.states.train(batches)

    def finish(self, batches: Any) -> Evaluated:
        """Train the last chunk of a round; return all values with their metrics."""
        found = self.states.finish(batches)
        return dict(zip(self.rows.worker_ids, found, strict=False))

    def take(self, worker_id: int) -> Flat:
        """Return a copy of a member's state."""
        return self.states.take(self.rows.row(worker_id))

    def put(self, worker_id: int, flat: Flat) -> None:
        """Copy a state into a member's row."""
        self.states.put(self.rows.row(worker_id), flat)

    def move(self, sources: Mapping[int, int]) -> None:
        """Copy states; `sources` maps each target to the slot whose state it gets."""
        row = self.rows.row
        self.states.move({row(to): row(source) for to, source in sources.items()})

    def host(self) -> Callable[[int], Flat]:
        """Read all states at once; return a function from a slot to NumPy arrays."""
        by_row = self.states.host()
        return lambda worker_id: by_row(self.rows.row(worker_id))

    def picked(self, rows: RowMap) -> Any:
        """Return exact copies of states, in the order of other rows.

        Slots that have no row here get the state of another one.
        """
        return self.states.picked(
            [self.rows.row(w) if w in self.rows else 0 for w in rows.padded]
        )

    def columns(self, places: Sequence[int]) -> list[npt.NDArray[Any]]:
        """Return some of the arrays of all states, by worker id.

        Slots without a row have zeros.
        """
        ids = list(self.rows.worker_ids)
        found = []
        for column in self.states.columns(places):
            spread = np.zeros((ids[-1] + 1, *column.shape[1:]), column.dtype)
            spread[ids] = column[: len(ids)]
            found.append(spread)
        return found
