"""The step and score of each slot, in arrays that a report changes in O(1)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from population.base.types import Checkpoint
from population.core.graph import JournalGraph
from population.core.newest_metrics import NewestMetrics
from population.core.recent import Entry, Floats, Ints, Recent


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
        self.steps: Ints = np.full(size, -1, np.int64)
        self.scores: Floats = np.full(size, math.inf)
        self.begins: Ints
        self.reached: Ints
        self.begins, self.reached = np.zeros((2, size), np.int64)
        self._ready: Ints = np.full(size, -1, np.int64)
        self.unsure: dict[int, Checkpoint] = {}
        self.needs_params = False
        self._reported: list[Any] = [None] * size  # The metrics, by worker id.
        self._metrics: NewestMetrics | None = None
        self._recent: Recent | None = None

    def score(self, checkpoint: Checkpoint) -> float:
        """Return a checkpoint's score: lower is better; inf for no finite value."""
        value = checkpoint.value
        if value is None or not math.isfinite(value):
            return math.inf
        return self._sign * value

    @property
    def recent(self) -> Recent:
        """The newest reports on each lineage; kept from the first use on."""
        if self._recent is None:
            self._recent = Recent(self.steps, self.scores)
        return self._recent

    @property
    def metrics(self) -> NewestMetrics:
        """The metrics of the reports whose scores are in `scores`, as arrays."""
        if self._metrics is None:
            self._metrics = NewestMetrics(self._reported)
        return self._metrics

    @property
    def ready(self) -> Ints:
        """`[N]` step of the newest checkpoint that can close a barrier, or -1."""
        if self.unsure:
            self.resolve()
        return self._ready

    def resolve(self) -> None:
        """Look up `ready` for the slots that are unsure."""
        unsure = dict(self.unsure)
        self.unsure.clear()
        for worker_id, newest in unsure.items():
            self._find_ready(worker_id, self._graph.newest_value(newest))

    def advance(
        self, worker_id: int, step: int, score: float, metrics: Any, decides: bool
    ) -> None:
        """Note a slot's value at a new step; `decides`: it can close a barrier."""
        self.steps[worker_id] = step
        self.scores[worker_id] = score
        self._reported[worker_id] = metrics
        if self._metrics is not None:
            self._metrics.note(worker_id)
        if decides:
            self._ready[worker_id] = step
            if self.unsure:
                self.unsure.pop(worker_id, None)
        if self._recent is not None:
            self._recent.push(worker_id, step, score)

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
        self.begins[worker_id] = self.reached[worker_id] = step
        self.refresh(worker_id, parent, donor)

    def refresh(
        self, worker_id: int, newest: Checkpoint | None, donor: int | None = None
    ) -> None:
        """Look up a lineage's newest value, and the newest that can close a barrier.

        Args:
            worker_id: The slot.
            newest: The last checkpoint of its lineage; None: it has no checkpoint.
            donor: A slot with that checkpoint on its lineage, or None.
        """
        self.unsure.pop(worker_id, None)
        valued = None if newest is None else self._graph.newest_value(newest)
        entry = self._entry(valued)
        self.steps[worker_id], self.scores[worker_id] = entry
        self._reported[worker_id] = None if valued is None else valued.metrics
        if self._metrics is not None:
            self._metrics.note(worker_id)
        if self._recent is not None:
            if valued is None or donor is None or _may_share_step(valued):
                self._recent.reset(worker_id, *entry)
            else:
                self._recent.branch(worker_id, donor, *entry)
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

    def behind(self, step: int, *, value_added: bool) -> list[int]:
        """Return the other slots that a late report of a step may concern.

        A slot whose newest weights are gone may have `reached` only an earlier step.
        """
        begun_later = self.begins >= step
        if not begun_later.any():  # As usually.
            return []
        late = (self.steps <= step) | (self.ready <= step) | (self.reached < step)
        if value_added and self._recent is not None:
            late |= self._recent.reach(step)
        found: list[int] = np.flatnonzero(late & begun_later).tolist()
        return found

    def _entry(self, found: Checkpoint | None) -> Entry:
        """Return the step and score of a checkpoint; `(-1, inf)` for None."""
        return (-1, math.inf) if found is None else (found.step, self.score(found))

    def _find_ready(self, worker_id: int, valued: Checkpoint | None) -> None:
        ready = valued
        if valued is not None and self.needs_params:
            ready = self._graph.newest_value(valued, params=True)
        self._ready[worker_id] = -1 if ready is None else ready.step


def _may_share_step(checkpoint: Checkpoint) -> bool:
    """Whether an ancestor may have its step: the checkpoint that it is a copy of."""
    parent = checkpoint.parent
    return parent is not None and parent.step == checkpoint.step
