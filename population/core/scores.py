"""Where each slot stands, and how good it was: arrays that a report changes in O(1)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from population.base.types import Checkpoint
from population.core.graph import JournalGraph

_KEPT = 17  # To look back over 16 reports at the one before them.
Entries = deque[tuple[int, float]]


def score_of(checkpoint: Checkpoint, sign: float) -> float:
    """Lower is better whatever the mode; inf for None, NaN and infinities."""
    value = checkpoint.value
    return math.inf if value is None or not math.isfinite(value) else sign * value


class Scores:
    """The newest values on each slot's lineage.

    Args:
        size: How many slots there are.
        graph: All checkpoints.
        sign: 1.0 if lower values are better, else -1.0.

    Attributes:
        steps: `[N]` step of the newest report with a value on each lineage, or -1.
        scores: `[N]` the scores of those reports; inf for none.
        begins: `[N]` step at which each slot's generation began.
        reached: `[N]` step of the newest checkpoint of any kind.
        unsure: The slots whose `ready` has to be looked for, with their newest.
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
        self._recent: RecentScores | None = None  # Kept once a policy looks back.

    @property
    def ready(self) -> npt.NDArray[np.int64]:
        """`[N]` step of the newest checkpoint that a barrier may rest on, or -1."""
        if self.unsure:
            self.settle()
        return self._ready

    def settle(self) -> None:
        """Look for the barriers of the slots that are unsure."""
        unsure = dict(self.unsure)
        self.unsure.clear()
        for worker_id, newest in unsure.items():
            self._find_ready(worker_id, self._graph.newest_value(newest), True)

    def advance(self, worker_id: int, step: int, score: float, decides: bool) -> None:
        """A slot has reported a value further on; whether a barrier may rest on it."""
        self.steps[worker_id] = step
        self.scores[worker_id] = score
        if decides:
            self._ready[worker_id] = step
            if self.unsure:
                self.unsure.pop(worker_id, None)
        if self._recent is not None:
            self._recent.add(worker_id, step, score)

    def open(
        self,
        worker_id: int,
        step: int,
        parent: Checkpoint | None,
        present: str,
        *,
        needs_params: bool,
    ) -> None:
        """A slot begins a generation.

        Args:
            worker_id: The slot.
            step: Its first step.
            parent: What it copies; None: nothing.
            present: The present generation of the slot that has trained the parent.
            needs_params: As in `refresh`.
        """
        recent = None
        if parent is not None and self._recent is not None:
            recent = self._recent.before(parent, present)
        self.begins[worker_id] = self.reached[worker_id] = step
        self.refresh(worker_id, parent, needs_params=needs_params)
        if self._recent is not None and recent is not None:
            self._recent.put(worker_id, recent)

    def refresh(
        self, worker_id: int, newest: Checkpoint | None, *, needs_params: bool
    ) -> bool:
        """Find the lineage's newest value, and the newest one that may decide.

        Args:
            worker_id: The slot.
            newest: Where its lineage ends; None: it has none.
            needs_params: Whether a barrier needs params: if any were ever recorded.

        Returns:
            Whether there is a value.
        """
        self.unsure.pop(worker_id, None)
        valued = None if newest is None else self._graph.newest_value(newest)
        self.steps[worker_id] = -1 if valued is None else valued.step
        self.scores[worker_id] = (
            math.inf if valued is None else score_of(valued, self._sign)
        )
        if self._recent is not None:
            last = int(self.steps[worker_id]), float(self.scores[worker_id])
            self._recent.begin(worker_id, *last)
        self._find_ready(worker_id, valued, needs_params)
        return valued is not None

    def need_params(self) -> list[int]:
        """From now on a barrier needs params.

        Returns:
            The slots that were ready: one that has diverged still is.
        """
        reported: list[int] = np.flatnonzero(self._ready >= 0).tolist()
        self._ready.fill(-1)
        self.unsure.clear()
        return reported

    def doubt(self, worker_id: int, newest: Checkpoint) -> None:
        """A slot's newest params are gone: look for another barrier when asked."""
        self.unsure[worker_id] = newest

    def behind(self, step: int) -> list[int]:
        """The slots that a late report of a step may concern, but for its own.

        One whose newest weights are gone may stand before the step.
        """
        late = (self.steps <= step) | (self.ready <= step) | (self.reached < step)
        found: list[int] = np.flatnonzero(late & (self.begins >= step)).tolist()
        return found

    def complete(self, step: int) -> None:
        """A report of this step has got its value late: read it when asked."""
        if self._recent is not None:
            branched_later = np.flatnonzero(self.begins >= step)
            self._recent.forget_older(branched_later.tolist())

    def as_of(
        self, step: int, newest: Callable[[int], Checkpoint]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """`steps` and `scores` as they were at a step of each slot's lineage."""
        steps, scores = self.steps.copy(), self.scores.copy()
        if self._recent is None:
            self._recent = RecentScores(steps.tolist(), scores.tolist())
        for worker_id in np.flatnonzero(steps > step).tolist():
            known = self._recent.at(worker_id, step)
            if known is None:
                found = self._graph.newest_value(newest(worker_id), until=step)
                known = (-1, math.inf)
                if found is not None:
                    known = found.step, score_of(found, self._sign)
            steps[worker_id], scores[worker_id] = known
        return steps, scores

    def _find_ready(
        self, worker_id: int, valued: Checkpoint | None, needs_params: bool
    ) -> None:
        ready = valued
        if valued is not None and needs_params:
            ready = self._graph.newest_value(valued, params=True)
        self._ready[worker_id] = -1 if ready is None else ready.step


class RecentScores:
    """Steps and scores of the newest reports with a value on each slot's lineage.

    Oldest first; none is missing from the first one's step on. `(-1, inf)` stands for
    the time before any report.

    Args:
        steps: Of each slot's newest report with a value, -1 for none.
        scores: Of those reports.
    """

    def __init__(self, steps: Sequence[int], scores: Sequence[float]) -> None:
        self._entries = [
            Entries([entry], maxlen=_KEPT) for entry in zip(steps, scores, strict=True)
        ]
        self._donor: tuple[int, Entries] = (-1, deque())

    def add(self, worker_id: int, step: int, score: float) -> None:
        """The slot has come further."""
        self._entries[worker_id].append((step, score))

    def at(self, worker_id: int, step: int) -> tuple[int, float] | None:
        """The newest at or before a step; None if it is not in memory."""
        for entry in reversed(self._entries[worker_id]):
            if entry[0] <= step:
                return entry
        return None

    def begin(self, worker_id: int, step: int, score: float) -> None:
        """The slot's lineage is another one, with this newest report."""
        self._entries[worker_id] = Entries([(step, score)], maxlen=_KEPT)

    def forget_older(self, worker_ids: Iterable[int]) -> None:
        """An older report of these lineages has got its value: keep only the newest."""
        self._donor = (-1, deque())
        for worker_id in worker_ids:
            entries = self._entries[worker_id]
            for _ in range(len(entries) - 1):
                entries.popleft()

    def before(self, parent: Checkpoint, present: str) -> Entries | None:
        """The entries that lead to a checkpoint, if they are in memory.

        Args:
            parent: The checkpoint.
            present: The present generation of the slot that trained it.
        """
        if self._donor[0] != parent.row:  # Many slots may branch from one.
            if parent.generation_id != present:
                return None
            known = (e for e in self._entries[parent.worker_id] if e[0] <= parent.step)
            self._donor = (parent.row, deque(known, maxlen=_KEPT))
        return self._donor[1]

    def put(self, worker_id: int, entries: Entries) -> None:
        """The slot's lineage is that of these entries."""
        self._entries[worker_id] = entries.copy()
