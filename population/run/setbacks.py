"""Ends a run whose members make no progress, as they are reset again and again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from population.core.graph import JournalGraph
from population.core.state import RunState
from population.core.step import EncodedReport, Restart
from population.journal.base import Journal
from population.journal.records import CheckpointRecord, Late
from population.run.transaction import Before

NO_STATE = (
    "No training state was ever reported, so that every decision sets members back to "
    "fresh weights. Pass the state: worker.report(value, state), or params to set_eval."
)


class Progress(NamedTuple):
    """What was reported since a row of the journal, by any process.

    Attributes:
        finite: Whether any value was finite.
        diverged: Whether any value was NaN or infinite.
        furthest: The greatest step of a new checkpoint.
    """

    finite: bool
    diverged: bool
    furthest: int


class SetBacks:
    """Counts how often each slot was reset while no member made progress.

    Args:
        journal: Tells what other processes have reported meanwhile.
        graph: Tells whether the library keeps the weights.
        may_train: Whether a slot is held, and does not wait.

    Attributes:
        tries: How often a slot may be reset without a finite value of any member.
        circles: How often it may diverge though finite values come in between.
        is_counting: Whether any slot was reset since a member has made progress.
    """

    def __init__(
        self,
        journal: Journal,
        graph: JournalGraph,
        may_train: Callable[[RunState, int], bool],
    ) -> None:
        self._journal = journal
        self._graph = graph
        self._may_train = may_train
        self._diverging, self._circling, self._fresh = _Count(), _Count(), _Count()
        self.tries, self.circles = 20.0, 100.0
        self.is_counting = False

    def note(
        self,
        state: RunState,
        before: Before,
        reports: Sequence[EncodedReport],
        restarts: Sequence[Restart],
    ) -> None:
        """Take in what a transaction has recorded, if it restarts slots or counts.

        Args:
            state: What is known since.
            before: How far the run had come before it.
            reports: The reports.
            restarts: The slots that it has begun anew.
        """
        further = state.furthest > before.furthest
        better = state.best.score < before.best
        finite = any(r.value is not None and math.isfinite(r.value) for r in reports)
        if further:
            self._fresh.end()
        if further or better:
            self._circling.end()
        if further or finite:
            self._diverging.end()
        self._add(state, before, restarts, further or finite, further or better)
        counts = self._diverging.slots, self._circling.slots, self._fresh.slots
        self.is_counting = any(counts)

    def _add(
        self,
        state: RunState,
        before: Before,
        restarts: Sequence[Restart],
        finite: bool,
        better: bool,
    ) -> None:
        """Count restarts without a finite value, or without anything better."""
        further = state.furthest > before.furthest
        if not finite:
            slots = [new.worker_id for new in restarts]
            self._diverging.add(slots, before)
        if not better:
            diverged = [new.worker_id for new in restarts if new.diverged]
            self._circling.add(diverged, before)
        if not (further or state.has_params):
            lost = [new for new in restarts if new.loses_all and not new.diverged]
            self._fresh.add([new.worker_id for new in lost], before)

    def check(self, state: RunState) -> None:
        """End a run that makes no progress.

        Raises:
            RuntimeError: A slot has begun anew too often.
        """
        worker_id, count = self._diverging.most()
        if count >= self.tries and self._all_since(state, self._diverging.row):
            progress, further = self._ended(self._diverging)
            if progress.diverged and not (progress.finite or further):
                raise RuntimeError(
                    f"Worker {worker_id} has diverged and begun anew {count} times, "
                    "and no finite value was reported meanwhile. Check the evaluation, "
                    "and whether any member can train with these hyperparameters. "
                    "What was recorded stays."
                )
        worker_id, count = self._circling.most()
        if count >= self.circles and self._all_since(state, self._circling.row):
            _, further = self._ended(self._circling)
            if not further:
                raise RuntimeError(
                    f"Worker {worker_id} has diverged and begun anew {count} times, "
                    "and meanwhile no member found a better value. No training state "
                    f"beyond step {state.furthest} was saved meanwhile. Save more "
                    "often, or begin with other hyperparameters. What was recorded "
                    "stays."
                )
        worker_id, count = self._fresh.most()
        if count >= self.tries:
            _, further = self._ended(self._fresh)
            if self._graph.keeps_weights and not further:
                raise RuntimeError(
                    f"Worker {worker_id} was set back to fresh weights {count} times, "
                    f"and no member got any further meanwhile. {NO_STATE} What was "
                    "recorded stays."
                )

    def _ended(self, count: _Count) -> tuple[Progress, bool]:
        """What was reported since a count began, and if further on; it is reset."""
        progress = _progress(self._journal, count.row)
        further = progress.furthest > count.furthest
        count.end()
        return progress, further

    def _all_since(self, state: RunState, row: int) -> bool:
        """Whether all that train have begun anew or diverged since: none is slow."""
        for worker_id in state.live:
            slot = state.slots[worker_id]
            anew = slot.generation.row > row or slot.newest.diverged
            if not anew and self._may_train(state, worker_id):
                return False
        return True


def _progress(journal: Journal, row: int) -> Progress:
    """What was reported since a row of the journal."""
    finite = diverged = False
    furthest = 0
    for record in journal.log(row):
        if isinstance(record, CheckpointRecord):
            furthest = max(furthest, record.step)
        if isinstance(record, CheckpointRecord | Late) and record.has_value:
            is_finite = record.value is not None and math.isfinite(record.value)
            finite, diverged = finite or is_finite, diverged or not is_finite
    return Progress(finite, diverged, furthest)


class _Count:
    """How often each slot began anew since a row of the journal."""

    def __init__(self) -> None:
        self.slots: Counter[int] = Counter()
        self.row = self.furthest = 0

    def end(self) -> None:
        """Reset: a member has made progress."""
        if self.slots:
            self.slots.clear()

    def add(self, worker_ids: Sequence[int], before: Before) -> None:
        """Count that these slots began anew, from the progress `before` on."""
        if worker_ids and not self.slots:
            self.row, self.furthest = before.row, before.furthest
        self.slots.update(worker_ids)

    def most(self) -> tuple[int, int]:
        """The slot that began anew most often, and how often."""
        return max(self.slots.items(), key=_by_count, default=(-1, 0))


def _by_count(item: tuple[int, int]) -> int:
    return item[1]
