"""Whether a population makes progress, or is reset to the same steps for ever."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from population.core.graph import JournalGraph
from population.core.incoming import Incoming
from population.core.slot import Opened
from population.core.slots import Slots
from population.journal.base import Journal

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
    """Counts how often each slot was reset while no member made progress.

    Args:
        journal: Tells what other processes have reported meanwhile.
        graph: Tells whether the library keeps the weights.
        slots: What is known of each slot.
        may_train: Whether somebody holds a slot, and it does not wait.

    Attributes:
        tries: How often a slot may be reset without a finite value of any member.
        circles: How often it may diverge though finite values come in between.
    """

    def __init__(
        self,
        journal: Journal,
        graph: JournalGraph,
        slots: Slots,
        may_train: Callable[[int], bool],
    ) -> None:
        self._journal = journal
        self._graph = graph
        self._slots = slots
        self._may_train = may_train
        self._furthest = 0
        self._best = math.inf
        self._diverging, self._circling, self._fresh = _Count(), _Count(), _Count()
        self.tries, self.circles = 20.0, 100.0

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
        better = self._slots.best.score < self._best
        self._best = self._slots.best.score
        if further:
            self._fresh.end()
        if further or better:
            self._circling.end()
        if further or finite:
            self._diverging.end()
        if not opened:
            return
        before = self._slots.batch - 1
        if not (further or finite):
            self._diverging.add([new.worker_id for new in opened], before)
        if not (further or better):
            diverged = [new.worker_id for new in opened if new.diverged]
            self._circling.add(diverged, before)
        if not (further or self._slots.saved):
            lost = [new for new in opened if new.loses_all and not new.diverged]
            self._fresh.add([new.worker_id for new in lost], before)

    def check(self) -> None:
        """End what would go on for ever.

        Raises:
            RuntimeError: If a slot has begun anew too often.
        """
        worker_id, count = self._diverging.most()
        if count >= self.tries and self._all_since(self._diverging.row):
            progress = self._ended(self._diverging)
            if progress.diverged and not (progress.finite or progress.further):
                raise RuntimeError(
                    f"Worker {worker_id} has diverged and begun anew {count} times, "
                    "and nobody has reported a finite value meanwhile: this would go "
                    "on for ever. Is the evaluation right, and can any member train "
                    "with these hyperparameters? What was recorded stays."
                )
        worker_id, count = self._circling.most()
        if count >= self.circles and self._all_since(self._circling.row):
            if not self._ended(self._circling).further:
                raise RuntimeError(
                    f"Worker {worker_id} has diverged and begun anew {count} times, "
                    "and meanwhile no member got beyond step "
                    f"{self._furthest} or found a better value: this would go on for "
                    "ever. Everybody diverges before a training state is saved that "
                    "lies further on: save more often, or begin with other "
                    "hyperparameters. What was recorded stays."
                )
        worker_id, count = self._fresh.most()
        if count >= self.tries:
            progress = self._ended(self._fresh)
            if self._graph.keeps_weights and not progress.further:
                raise RuntimeError(
                    f"Worker {worker_id} was set back to fresh weights {count} times, "
                    f"and no member got any further meanwhile. {NO_STATE} What was "
                    "recorded stays."
                )

    def _ended(self, count: _Count) -> Progress:
        """What was reported since a count began; the count is reset."""
        progress = Progress(*self._journal.progress(count.row))
        count.end()
        return progress

    def _all_since(self, row: int) -> bool:
        """Whether all who train have begun anew or diverged since: none is slow."""
        for worker_id in self._slots.live:
            slot = self._slots[worker_id]
            anew = slot.generation.row > row or slot.newest.diverged
            if not anew and self._may_train(worker_id):
                return False
        return True


class _Count:
    """How often each slot began anew since a row of the journal."""

    def __init__(self) -> None:
        self.slots: Counter[int] = Counter()
        self.row = 0

    def end(self) -> None:
        """Reset: a member has made progress."""
        if self.slots:
            self.slots.clear()

    def add(self, worker_ids: Sequence[int], before: int) -> None:
        """These slots began anew, after this row."""
        if worker_ids and not self.slots:
            self.row = before
        self.slots.update(worker_ids)

    def most(self) -> tuple[int, int]:
        """The slot that began anew most often, and how often."""
        return max(self.slots.items(), key=_by_count, default=(-1, 0))


def _by_count(item: tuple[int, int]) -> int:
    return item[1]
