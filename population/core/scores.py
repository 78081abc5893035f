"""The step and score of each slot, in arrays that a report changes in O(1)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from population.base.types import Checkpoint
from population.core.graph import JournalGraph

_KEPT = 17  # To look back over 16 reports at the one before them.
Entry = tuple[int, float]
Entries = deque[Entry]


class Scores:
    """The newest values on each slot's lineage.

    Args:
        size: The number of slots.
        graph: All checkpoints.
        sign: 1.0 if lower values are better, else -1.0.

    Attributes:
        steps: `[N]` step of the newest report with a value on each lineage, or -1.
        scores: `[N]` the scores of those reports; inf for none.
        begins: `[N]` step at which each slot's generation began.
        reached: `[N]` step of the newest checkpoint of any kind.
        unsure: The newest checkpoint of each slot whose `ready` must be looked up.
        needs_params: Whether a barrier needs params: if any were ever recorded.
    """

    def __init__(self, size: int, graph: JournalGraph, sign: float) -> None:
        self._graph = graph
        self._sign = sign
        self.steps: npt.NDArray[np.int64] = np.full(size, -1, np.int64)
        self.scores: npt.NDArray[np.float64] = np.full(size, math.inf)
        self.begins: npt.NDArray[np.int64]
        self.reached: npt.NDArray[np.int64]
        self.begins, self.reached = np.zeros((2, size), np.int64)
        self._ready: npt.NDArray[np.int64] = np.full(size, -1, np.int64)
        self.unsure: dict[int, Checkpoint] = {}
        self.needs_params = False
        # For each slot, once a policy calls `as_of`: steps and scores of the newest
        # reports with a value on its lineage, oldest first, without gaps.
        self._recent: list[Entries] = []

    def score(self, checkpoint: Checkpoint) -> float:
        """Return a checkpoint's score: lower is better; inf for no finite value."""
        value = checkpoint.value
        if value is None or not math.isfinite(value):
            return math.inf
        return self._sign * value

    @property
    def ready(self) -> npt.NDArray[np.int64]:
        """`[N]` step of the newest checkpoint that can close a barrier, or -1."""
        if self.unsure:
            self.settle()
        return self._ready

    def settle(self) -> None:
        """Look up `ready` for the slots that are unsure."""
        unsure = dict(self.unsure)
        self.unsure.clear()
        for worker_id, newest in unsure.items():
            self._find_ready(worker_id, self._graph.newest_value(newest))

    def advance(self, worker_id: int, step: int, score: float, decides: bool) -> None:
        """Note a slot's value at a new step; `decides`: it can close a barrier."""
        self.steps[worker_id] = step
        self.scores[worker_id] = score
        if decides:
            self._ready[worker_id] = step
            if self.unsure:
                self.unsure.pop(worker_id, None)
        if self._recent:
            self._recent[worker_id].append((step, score))

    def open(
        self, worker_id: int, step: int, parent: Checkpoint | None, donor: int | None
    ) -> None:
        """Start a generation of a slot.

        Args:
            worker_id: The slot.
            step: The generation's first step.
            parent: The checkpoint that it copies, or None.
            donor: A slot with the parent on its lineage, or None.
        """
        known: Iterable[Entry] = ()
        if donor is not None and self._recent:
            known = self._recent[donor]
        self.begins[worker_id] = self.reached[worker_id] = step
        self.refresh(worker_id, parent)
        if known:
            newest = self._recent[worker_id][-1]
            older = (entry for entry in known if entry[0] < newest[0])
            self._recent[worker_id] = Entries((*older, newest), maxlen=_KEPT)

    def refresh(self, worker_id: int, newest: Checkpoint | None) -> None:
        """Look up a lineage's newest value, and the newest that can close a barrier.

        Args:
            worker_id: The slot.
            newest: The last checkpoint of its lineage; None: it has no checkpoint.
        """
        self.unsure.pop(worker_id, None)
        valued = None if newest is None else self._graph.newest_value(newest)
        entry = self._entry(valued)
        self.steps[worker_id], self.scores[worker_id] = entry
        if self._recent:
            self._recent[worker_id] = Entries([entry], maxlen=_KEPT)
        self._find_ready(worker_id, valued)

    def need_params(self) -> list[int]:
        """Make barriers need params from now on.

        Returns:
            The slots that were ready, to be passed to `doubt`: those that diverged are
            still ready.
        """
        self.needs_params = True
        reported: list[int] = np.flatnonzero(self._ready >= 0).tolist()
        self._ready.fill(-1)
        self.unsure.clear()
        return reported

    def doubt(self, worker_id: int, newest: Checkpoint) -> None:
        """Have `ready` look a slot up again: its params are gone, or newly needed."""
        self.unsure[worker_id] = newest

    def behind(self, step: int) -> list[int]:
        """Return the other slots that a late report of a step may concern.

        A slot whose newest weights are gone may have `reached` only an earlier step.
        """
        begun_later = self.begins >= step
        if not begun_later.any():  # As usually.
            return []
        late = (self.steps <= step) | (self.ready <= step) | (self.reached < step)
        found: list[int] = np.flatnonzero(late & begun_later).tolist()
        return found

    def complete(self, step: int) -> None:
        """Drop cached reports of slots that a late value of this step may concern."""
        if self._recent:
            for worker_id in np.flatnonzero(self.begins >= step).tolist():
                newest = self._recent[worker_id][-1]
                self._recent[worker_id] = Entries([newest], maxlen=_KEPT)

    def as_of(
        self, step: int, newest: Callable[[int], Checkpoint]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return `steps` and `scores` as they were at a step of each slot's lineage."""
        steps, scores = self.steps.copy(), self.scores.copy()
        if not self._recent:
            latest = zip(steps.tolist(), scores.tolist(), strict=True)
            self._recent = [Entries([entry], maxlen=_KEPT) for entry in latest]
        for worker_id in np.flatnonzero(steps > step).tolist():
            known = reversed(self._recent[worker_id])
            entry = next((entry for entry in known if entry[0] <= step), None)
            if entry is None:
                found = self._graph.newest_value(newest(worker_id), until=step)
                entry = self._entry(found)
            steps[worker_id], scores[worker_id] = entry
        return steps, scores

    def _entry(self, found: Checkpoint | None) -> Entry:
        """Return the step and score of a checkpoint; `(-1, inf)` for None."""
        return (-1, math.inf) if found is None else (found.step, self.score(found))

    def _find_ready(self, worker_id: int, valued: Checkpoint | None) -> None:
        ready = valued
        if valued is not None and self.needs_params:
            ready = self._graph.newest_value(valued, params=True)
        self._ready[worker_id] = -1 if ready is None else ready.step
