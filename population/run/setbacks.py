"""Ends a run whose members make no progress, as they are reset again and again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from population.core.decisions import Decider
from population.core.graph import JournalGraph
from population.core.leases import LeaseRules
from population.core.state import RunState
from population.core.step import EncodedReport, Restart
from population.journal.base import Journal
from population.journal.records import CheckpointRecord, Late
from population.run.transaction import Before

NO_STATE = (
    "No training state was ever reported, so that every decision sets members back to "
    "fresh weights. Pass the state: worker.report(value, state), or params to set_eval."
)


class SetBacks:
    """Counts how often each slot was reset while no member made progress.

    Args:
        journal: Tells what other processes have reported meanwhile.
        graph: Tells whether the library keeps the weights.
        decider: Says when slots wait.
        leases: Say which slots are held.

    Attributes:
        tries: How often a slot may be reset without a finite value of any member.
        circles: How often it may diverge though finite values come in between.
        is_counting: Whether any slot was reset since a member has made progress; only
            then has `check` anything to look at.
    """

    def __init__(
        self,
        journal: Journal,
        graph: JournalGraph,
        decider: Decider,
        leases: LeaseRules,
    ) -> None:
        self._journal = journal
        self._graph = graph
        self._decider = decider
        self._leases = leases
        self._never_finite = _Count()  # All restarts, until a value is finite.
        self._never_better = _Count()  # Those that diverged, until one is the best.
        self._never_further = _Count()  # Those that lost all for want of a save.
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
        diverged = [new.worker_id for new in restarts if new.diverged]
        fresh = [
            new.worker_id
            for new in restarts
            if new.loses_all and not (new.diverged or state.has_params)
        ]
        all_slots = [new.worker_id for new in restarts]
        self._never_finite.note(all_slots, before, ends=further or finite)
        self._never_better.note(diverged, before, ends=further or better)
        self._never_further.note(fresh, before, ends=further)
        counts = self._never_finite, self._never_better, self._never_further
        self.is_counting = any(count.slots for count in counts)

    def check(self, state: RunState) -> None:
        """End a run that makes no progress.

        Raises:
            RuntimeError: A slot has begun anew too often.
        """
        worker_id, count = self._never_finite.most()
        if count >= self.tries and self._all_since(state, self._never_finite.row):
            further, are_finite = self._ended(self._never_finite)
            if are_finite == {False} and not further:
                raise RuntimeError(
                    f"Worker {worker_id} has diverged and begun anew {count} times, "
                    "and no finite value was reported meanwhile. Check the evaluation, "
                    "and whether any member can train with these hyperparameters. "
                    "What was recorded stays."
                )
        worker_id, count = self._never_better.most()
        if count >= self.circles and self._all_since(state, self._never_better.row):
            further, _ = self._ended(self._never_better)
            if not further:
                raise RuntimeError(
                    f"Worker {worker_id} has diverged and begun anew {count} times, "
                    "and meanwhile no member found a better value. No training state "
                    f"beyond step {state.furthest} was saved meanwhile. Save more "
                    "often, or begin with other hyperparameters. What was recorded "
                    "stays."
                )
        worker_id, count = self._never_further.most()
        if count >= self.tries:
            further, _ = self._ended(self._never_further)
            if self._graph.keeps_weights and not further:
                raise RuntimeError(
                    f"Worker {worker_id} was set back to fresh weights {count} times, "
                    f"and no member got any further meanwhile. {NO_STATE} What was "
                    "recorded stays."
                )

    def _ended(self, count: _Count) -> tuple[bool, set[bool]]:
        """What any process has reported since a count began; the count is reset.

        Returns:
            Whether a new checkpoint lies further on, and whether the values that were
            reported are finite.
        """
        further, are_finite = False, set[bool]()
        for record in self._journal.log(count.row):
            if isinstance(record, CheckpointRecord):
                further |= record.step > count.furthest
            if isinstance(record, CheckpointRecord | Late) and record.has_value:
                value = record.value
                are_finite.add(value is not None and math.isfinite(value))
        count.slots.clear()
        return further, are_finite

    def _all_since(self, state: RunState, row: int) -> bool:
        """Whether all that train have begun anew or diverged since: none is slow."""
        for worker_id in state.live:
            slot = state.slots[worker_id]
            anew = slot.generation.row > row or slot.newest.diverged
            is_held = not self._leases.is_free(state, worker_id)
            if is_held and not (anew or self._decider.waits(state, worker_id)):
                return False
        return True


class _Count:
    """How often each slot began anew since a member has made progress.

    Attributes:
        slots: How often, by worker id.
        row: The last row of the journal before the first time.
        furthest: The greatest step of any slot then.
    """

    def __init__(self) -> None:
        self.slots: Counter[int] = Counter()
        self.row = self.furthest = 0

    def note(self, worker_ids: Sequence[int], before: Before, *, ends: bool) -> None:
        """Count that these slots began anew, or reset: a member has made progress."""
        if ends:
            self.slots.clear()
            return
        if worker_ids and not self.slots:
            self.row, self.furthest = before.row, before.furthest
        self.slots.update(worker_ids)

    def most(self) -> tuple[int, int]:
        """The slot that began anew most often, and how often."""
        return next(iter(self.slots.most_common(1)), (-1, 0))
