"""Whether a population gets on, or is set back to the same steps for ever."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from population.graph import CheckpointGraph
from population.incoming import Incoming
from population.journal import Journal
from population.slot import Opened
from population.slots import Slots

NO_STATE = (
    "No training state was ever reported, so that every decision sets members back to "
    "fresh weights. Pass the state: worker.report(value, state), or params to set_eval."
)


class Progress(NamedTuple):
    """What was reported since a row of the journal, by any process.

    Attributes:
        finite: Whether any value was finite.
        diverged: Whether any value was NaN or infinite.
        further: Whether any step is above all steps before.
    """

    finite: bool
    diverged: bool
    further: bool


class SetBacks:
    """Counts how often each slot began anew while nobody got on.

    Args:
        journal: Tells what other processes have reported meanwhile.
        graph: Tells whether the library keeps the weights.
        slots: What is known of each slot.

    Attributes:
        tries: How often a slot may begin anew so.
    """

    def __init__(self, journal: Journal, graph: CheckpointGraph, slots: Slots) -> None:
        self._journal = journal
        self._graph = graph
        self._slots = slots
        self._furthest = 0
        self._diverging = _Count()
        self._fresh = _Count()
        self.tries = 20.0

    def note(self, reports: Sequence[Incoming], opened: Sequence[Opened]) -> None:
        """Take in what a transaction has recorded.

        Args:
            reports: The reports.
            opened: The generations that it has opened.
        """
        further = finite = False
        for new in reports:
            further |= new.step > self._furthest
            finite |= new.value is not None and math.isfinite(new.value)
            self._furthest = max(self._furthest, new.step)
        if further:
            self._fresh.begin(self._slots.row)
        if further or finite:
            self._diverging.begin(self._slots.row)
        elif opened:
            self._diverging.slots.update(new.worker_id for new in opened)
        if opened and not (further or self._slots.saved):
            lost = [new.worker_id for new in opened if new.loses_all]
            self._fresh.slots.update(lost)

    def check(self) -> None:
        """End what would go on for ever.

        Raises:
            RuntimeError: If a slot has begun anew too often.
        """
        worker_id, count = self._diverging.most()
        if count >= self.tries:
            progress = Progress(*self._journal.progress(self._diverging.row))
            self._diverging.begin(self._slots.row)
            if progress.diverged and not (progress.finite or progress.further):
                raise RuntimeError(
                    f"Worker {worker_id} has diverged and begun anew {count} times, "
                    "and nobody has reported a finite value meanwhile: this would go "
                    "on for ever. Is the evaluation right, and can any member train "
                    "with these hyperparameters? What was recorded stays."
                )
        worker_id, count = self._fresh.most()
        if count >= self.tries:
            progress = Progress(*self._journal.progress(self._fresh.row))
            self._fresh.begin(self._slots.row)
            only_diverges = progress.diverged and not progress.finite
            stands = not (progress.further or only_diverges)
            if self._graph.keeps_weights and stands:
                raise RuntimeError(
                    f"Worker {worker_id} was set back to fresh weights {count} times, "
                    f"and nobody got any further meanwhile. {NO_STATE} What was "
                    "recorded stays."
                )


class _Count:
    """How often each slot began anew since a row of the journal."""

    def __init__(self) -> None:
        self.slots: Counter[int] = Counter()
        self.row = 0

    def begin(self, row: int) -> None:
        """Count from here on."""
        self.row = row
        if self.slots:
            self.slots.clear()

    def most(self) -> tuple[int, int]:
        """The slot that began anew most often, and how often."""
        return max(self.slots.items(), key=_by_count, default=(-1, 0))


def _by_count(item: tuple[int, int]) -> int:
    return item[1]
