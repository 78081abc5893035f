"""Ends a run that resets its slots again and again without progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from population.base.errors import NoProgressError
from population.core.decisions import Decider
from population.core.graph import JournalGraph
from population.core.leases import LeaseRules
from population.core.state import RunState
from population.core.step import Restart
from population.journal.base import Journal
from population.journal.records import CheckpointRecord
from population.run.transaction import Before

NO_STATE = (
    "No training state was ever reported, so that every decision sets members back to "
    "fresh weights. Pass the state: worker.report(value, state), or params to set_eval."
)


class SetBacks:
    """Counts the resets of each slot since a member last made progress.

    Each new generation of a slot counts as a reset. After too many of them `check` ends
    the run.

    Args:
        journal: Holds what other processes have reported meanwhile.
        graph: All checkpoints; knows whether the library keeps the weights.
        decider: The mutator; decides which slots wait.
        leases: The rules of leases, which say which slots are held.

    Attributes:
        tries: How many resets of a slot to fresh weights end the run if no member gets
            further.
        circles: How many divergences and failures of a slot end the run although
            members report finite values in between.
        is_counting: Whether a slot was reset since a member last made progress; if
            not, `check` has nothing to do.
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
        self._never_better = _Count()  # Those that failed, until one is the best.
        self._never_further = _Count()  # Those that lost all for want of a save.
        self.tries, self.circles = 20.0, 100.0
        self.is_counting = False

    def note(
        self,
        state: RunState,
        before: Before,
        restarts: Sequence[Restart],
        failed: Sequence[int],
    ) -> None:
        """Update the counts after a transaction that reset slots, or made progress.

        Args:
            state: The run after the transaction.
            before: How far the run was before the transaction.
            restarts: The slots that the transaction has reset.
            failed: The slots of which it has recorded a failure.
        """
        further = state.furthest > before.furthest
        better = state.best.score < before.best
        ended = [new.worker_id for new in restarts if new.diverged]
        fresh = [
            new.worker_id
            for new in restarts
            if new.loses_all and not (new.diverged or state.has_params)
        ]
        self._never_better.note([*ended, *failed], before, ends=further or better)
        self._never_further.note(fresh, before, ends=further)
        counts = self._never_better, self._never_further
        self.is_counting = any(count.slots for count in counts)

    def check(self, state: RunState) -> None:
        """End a run that makes no progress.

        Raises:
            NoProgressError: A slot was reset too often.
        """
        worker_id, count = self._never_better.most()
        if count >= self.circles and self._all_since(state, self._never_better.row):
            if not self._got_further(self._never_better):
                raise NoProgressError(
                    f"Worker {worker_id} has diverged or failed {count} times, "
                    "and meanwhile no member found a better value. No training state "
                    f"beyond step {state.furthest} was saved meanwhile. Save more "
                    "often, or begin with other hyperparameters. What was recorded "
                    "stays."
                )
        worker_id, count = self._never_further.most()
        if count >= self.tries:
            further = self._got_further(self._never_further)
            if self._graph.keeps_weights and not further:
                raise NoProgressError(
                    f"Worker {worker_id} was set back to fresh weights {count} times, "
                    f"and no member got any further meanwhile. {NO_STATE} What was "
                    "recorded stays."
                )

    def _got_further(self, count: _Count) -> bool:
        """Whether any process has reported a greater step since; reset the count."""
        records = self._journal.log(count.row)
        steps = (r.step for r in records if isinstance(r, CheckpointRecord))
        count.slots.clear()
        return any(step > count.furthest for step in steps)

    def _all_since(self, state: RunState, row: int) -> bool:
        """Whether each slot in training was reset or diverged after this row.

        If not, a slow slot may still make progress.
        """
        for worker_id in state.members.live:
            slot = state.slots[worker_id]
            anew = slot.generation.row > row or slot.newest.diverged
            is_held = not self._leases.is_free(state, worker_id)
            if is_held and not (anew or self._decider.waits(state, worker_id)):
                return False
        return True


class _Count:
    """How often each slot was reset since a member last made progress.

    Attributes:
        slots: The number of resets by worker id.
        row: The last row of the journal before the first reset.
        furthest: The greatest step of any slot before the first reset.
    """

    def __init__(self) -> None:
        self.slots: Counter[int] = Counter()
        self.row = self.furthest = 0

    def note(self, worker_ids: Sequence[int], before: Before, *, ends: bool) -> None:
        """Count a reset of these slots; with `ends` (progress) clear all counts."""
        if ends:
            self.slots.clear()
            return
        if worker_ids and not self.slots:
            self.row, self.furthest = before.row, before.furthest
        self.slots.update(worker_ids)

    def most(self) -> tuple[int, int]:
        """Return the slot that was reset most often, and how often."""
        return next(iter(self.slots.most_common(1)), (-1, 0))
