"""What a mutator may look at while it decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from population.base.types import ActiveWorker, Checkpoint
from population.core.graph import JournalGraph
from population.core.slots import Slots

Array = TypeVar("Array", bound=npt.NDArray[Any])


class View:
    """The controller's `PopulationView`: one object, brought up to date for each call.

    Args:
        slots: What is known of each slot.
        graph: All checkpoints.
        seed: The run's seed.
    """

    def __init__(self, slots: Slots, graph: JournalGraph, seed: int) -> None:
        self._slots = slots
        self._seed = seed
        self._steps = _read_only(slots.steps)  # Made anew when the slots are loaded.
        self._scores = _read_only(slots.scores)
        self._ready = _read_only(slots.ready)
        self._decision = 0
        self._rng: np.random.Generator | None = None
        self.graph = graph
        self.score = slots.score
        self.barrier = slots.barrier
        self.as_of = slots.as_of

    def begin(self, decision: int) -> None:
        """Begin a call of the mutator; `decision` says which random numbers it sees."""
        self._decision = decision
        self._rng = None

    @property
    def workers(self) -> Sequence[ActiveWorker]:
        """What each slot works on, by worker id."""
        return [self._slots.work(worker_id) for worker_id in range(len(self._slots))]

    @property
    def live(self) -> Sequence[int]:
        """The worker ids of the slots that are not lost, ascending."""
        return self._slots.live

    @property
    def rng(self) -> np.random.Generator:
        """Random numbers of this decision; made on first use, which takes 7 us."""
        if self._rng is None:
            self._rng = np.random.default_rng([self._seed, self._decision])
        return self._rng

    @property
    def now(self) -> float:
        """The time of the report, in seconds since the epoch."""
        return self._slots.time

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """`[N]`: step of the newest report with a value on each lineage; -1: none."""
        if self._steps.base is not self._slots.steps:
            self._steps = _read_only(self._slots.steps)
        return self._steps

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """`[N]`: `score` of those reports; inf for none."""
        if self._scores.base is not self._slots.scores:
            self._scores = _read_only(self._slots.scores)
        return self._scores

    @property
    def ready(self) -> npt.NDArray[np.int64]:
        """`[N]`: step of the newest report that a decision may rest on; -1: none."""
        if self._ready.base is not self._slots.ready:
            self._ready = _read_only(self._slots.ready)
        return self._ready

    @property
    def begins(self) -> npt.NDArray[np.int64]:
        """`[N]`: step at which each slot's present generation began."""
        return _read_only(self._slots.begins)

    def newest(self, worker_id: int) -> Checkpoint:
        """The slot's newest checkpoint, with or without a value."""
        newest: Checkpoint = self._slots[worker_id].newest
        return newest


def _read_only(array: Array) -> Array:
    shown = array.view()
    shown.flags.writeable = False
    return shown
