"""The view of a run that a mutator gets for a decision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from population.base.refusals import shortly
from population.base.types import ActiveWorker, Checkpoint
from population.core.graph import JournalGraph
from population.core.known import check_checkpoint, check_id, check_step
from population.core.recent import Entry, Floats, Ints
from population.core.state import RunState

Array = TypeVar("Array", bound=npt.NDArray[Any])


class View:
    """The library's `PopulationView` of a run; `begin` prepares it for one call.

    Args:
        state: The state of the run.
        graph: All checkpoints.
        seed: The run's seed.

    Attributes:
        now: The time of the report, in seconds since the epoch.
    """

    def __init__(self, state: RunState, graph: JournalGraph, seed: int) -> None:
        self._state = state
        self._seed = seed
        self._unsure = state.scores.unsure
        self._decision = 0
        self.now = 0.0
        self._rng: np.random.Generator | None = None
        self.graph = graph
        self.steps = _read_only(state.scores.steps)
        self.scores = _read_only(state.scores.scores)
        self.begins = _read_only(state.scores.begins)
        self._ready = _read_only(state.scores.ready)

    def begin(self, decision: int, now: float) -> None:
        """Begin a call of the mutator.

        Args:
            decision: The number of the decision, which seeds `rng`.
            now: The time of the report, in seconds since the epoch.
        """
        self._decision, self.now = decision, now
        self._rng = None

    @property
    def workers(self) -> Sequence[ActiveWorker]:
        """The present work of each slot, by worker id."""
        return [self._state.work(w) for w in range(len(self._state.slots))]

    @property
    def live(self) -> Sequence[int]:
        """The worker ids of slots neither retired nor given up, ascending."""
        return self._state.members.live

    @property
    def rng(self) -> np.random.Generator:
        """Random numbers of this decision; made on first use, which takes 7 us."""
        if self._rng is None:
            self._rng = np.random.default_rng([self._seed, self._decision])
        return self._rng

    @property
    def ready(self) -> Ints:
        """`[N]`: step of the newest report that can close a barrier; -1: none."""
        if self._unsure:
            self._state.scores.resolve()
        return self._ready

    def as_of(self, step: int) -> tuple[Ints, Floats]:
        """Return `steps` and `scores` as they were at a step of each slot's lineage.

        Raises:
            TypeError: `step` is not an int.
        """
        return self._state.scores.recent.as_of(check_step(step), self._reports)

    def last(self, k: int, until: int | Ints | None = None) -> Floats:
        """Return `[N, k]`: `score` of the last `k` reports of each lineage, or NaN.

        Raises:
            ValueError: `k` is not a positive int, or `until` is neither a step nor one
                for each slot.
        """
        size = len(self.steps)
        if type(k) is not int or k < 1:
            raise ValueError(f"k must be a positive int, got {k!r}.")
        steps = np.asarray(0 if until is None else until)
        if steps.dtype.kind not in "iu" or steps.shape not in [(), (size,)]:
            raise ValueError(f"until must be a step, or {size} steps, got {until!r}.")
        return self._state.scores.recent.last(k, until, self._reports)

    def metric(self, name: str) -> Floats:
        """Return `[N]`: one of the metrics of each slot, NaN where it is missing.

        Raises:
            TypeError: `name` is not a str.
        """
        if not isinstance(name, str):
            raise TypeError(
                "view.metric needs the name of one of the metrics, such as 'loss' or "
                f"'loss/train', got {type(name).__name__} {shortly(name)}."
            )
        return self._state.scores.metrics.column(name).copy()

    def score(self, checkpoint: Checkpoint) -> float:
        """Return a checkpoint's score: lower is better; inf for no finite value.

        Raises:
            TypeError: Not a `Checkpoint`.
        """
        return self._state.score(check_checkpoint(checkpoint, "view.score"))

    def newest(self, worker_id: int) -> Checkpoint:
        """Return the slot's newest checkpoint, with or without a value.

        Raises:
            TypeError: `worker_id` is not an int.
            ValueError: There is no such slot.
        """
        slots = self._state.slots
        return slots[check_id(len(slots), worker_id)].newest

    def barrier(self, worker_id: int, step: int) -> Checkpoint | None:
        """Return the lineage's first checkpoint from `step` on that closes a barrier.

        Raises:
            TypeError: `worker_id` or `step` is not an int.
            ValueError: There is no such slot.
        """
        state = self._state
        worker_id = check_id(len(state.slots), worker_id)
        return state.barrier(worker_id, check_step(step))

    def _reports(self, worker_id: int, until: int) -> Iterator[Entry]:
        """Yield step and score of a slot's reports up to a step, newest first."""
        for checkpoint in self.graph.reports_until(self.newest(worker_id), until):
            yield checkpoint.step, self._state.score(checkpoint)


def _read_only(array: Array) -> Array:
    shown = array.view()
    shown.flags.writeable = False
    return shown
