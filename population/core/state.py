"""The state of a run in memory, and how each record changes it.

Only `RunState.apply` changes it: for the records of this process, for those of other
processes, and for those of a recorded run that is replayed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from population.base.codec import HELD
from population.base.errors import damaged
from population.base.types import ActiveWorker, Checkpoint
from population.core.decoding import checkpoint_of, decode
from population.core.graph import JournalGraph
from population.core.known import BestSoFar, Slot, Subject
from population.core.membership import Membership
from population.core.owners import owner_of
from population.core.retention import Saves
from population.core.scores import Scores
from population.journal.base import Journal
from population.journal.records import (
    UNREACHABLE,
    Best,
    CheckpointRecord,
    CheckpointRow,
    Fact,
    Generation,
    Late,
    Lease,
    Loss,
    MutatorRecord,
    Opening,
    Record,
    Removal,
    Save,
    Status,
)


class RunState:
    """The state of a run in memory.

    Args:
        run: The run's token, the first part of its generation ids.
        size: The number of slots.
        mode: "min" or "max".
        journal: The journal of the run; read for what is not in memory.
        graph: All checkpoints, with those just written.

    Attributes:
        graph: All checkpoints.
        sign: 1.0 if lower values are better, else -1.0.
        score: Returns a checkpoint's score: lower is better in each mode; inf for
            None, NaN and infinities.
        row: The last row of the journal.
        time: Time of the newest report.
        reports: Reports with a value so far.
        furthest: The greatest step of a checkpoint since this was loaded.
        slots: The generation and newest checkpoint of each slot, by worker id.
        scores: The steps and scores of the slots, as arrays.
        best: The best checkpoint so far.
        mutator: The mutator's state, encoded; None before it is recorded.
        has_params: Whether any params were ever recorded: then barriers need some.
        has_held: Whether any params were only in the memory of a process.
        is_claimed: Whether a worker has ever claimed a slot.
        leases: The newest lease of each slot, by worker id.
        change: Number of the newest change of a lease; -1 before the first.
        members: Which slots are live, given up, failing or retired.
        saves: The list of what the params store keeps.
        must_reread: Whether `reread` has something to do.
    """

    def __init__(
        self, run: str, size: int, mode: str, journal: Journal, graph: JournalGraph
    ) -> None:
        self.run = run
        self.graph = graph
        self._journal = journal
        self.sign = 1.0 if mode == "min" else -1.0
        self.row, self.time, self.reports = 0, 0.0, 0
        self.furthest = 0
        self.slots: list[Slot] = []
        self.scores = Scores(size, graph, self.sign)
        self.score = self.scores.score
        self.best = BestSoFar()
        self.mutator: MutatorRecord | None = None
        self.has_params = self.has_held = self.is_claimed = False
        self.leases: dict[int, Lease] = {}
        self.change = -1
        self.members = Membership(size)
        self.saves = Saves(journal)
        self._opening: Generation | None = None
        # By the text of params that may be removed although they were a slot's newest:
        # slots, and the rows of those checkpoints.
        self._removable: dict[str, set[tuple[int, int]]] = {}
        self._last: Checkpoint | None = None  # What was applied last.
        self._present: dict[int, int] = {}  # The slots, by the row of their generation.
        self.must_reread = False

    def apply(self, record: Record, about: Subject | None = None) -> None:
        """Apply a record of the journal. A second time changes nothing.

        Args:
            record: The record.
            about: The subject of a `CheckpointRecord` or a `Late`, if it is in memory;
                else this reads it.
        """
        kind = type(record)
        if kind is CheckpointRecord or kind is Late:
            _APPLY[kind](self, record, about)
        else:
            _APPLY[kind](self, record)

    def reread(self) -> None:
        """Read the slots again if a record has removed params that are needed.

        Call it once all records of a transaction are applied.
        """
        if self.must_reread:
            self.must_reread = False
            for worker_id in range(len(self.slots)):
                self.load_slot(worker_id)

    def work(self, worker_id: int) -> ActiveWorker:
        """Return a copy of a slot's work, without the step at which it waits."""
        slot = self.slots[worker_id]
        meta_params = decode(slot.generation.meta_params)
        params = copy.deepcopy(slot.newest.params)
        return ActiveWorker(params, meta_params, *slot.newest.ref)

    def barrier(self, worker_id: int, step: int) -> Checkpoint | None:
        """Return the lineage's first checkpoint from `step` on that closes one."""
        if self.scores.ready[worker_id] < step:
            return None
        newest = self.slots[worker_id].newest
        return self.graph.first_since(newest, step, needs_params=self.has_params)

    def is_on_lineage(self, worker_id: int, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint is a slot's newest, or an ancestor of that."""
        slot = self.slots[worker_id]
        if checkpoint.generation_id == slot.generation.generation_id:
            return True
        if slot.generation.step < checkpoint.step:
            return False
        for generation_id, first, last, _ in self.graph.segments(slot.newest):
            if generation_id == checkpoint.generation_id:
                return checkpoint.step <= last
            if first < checkpoint.step:
                break
        return False

    def _apply_checkpoint(
        self, record: CheckpointRecord, about: Subject | None
    ) -> None:
        if record.row <= self.row:
            return
        self.row, self.time, self.reports = record.row, record.time, record.reports
        text = record.params
        if text is not None and not (self.has_params and text[0] == '"'):
            self._note_params(text)
        opening = self._opening
        if opening is not None and opening.row == record.generation:
            self._opening = None
            return self._open(opening, record, about)
        found = self._read(record) if about is None else about.checkpoint
        self._last = found
        worker_id = found.worker_id
        slot = self.slots[worker_id]
        current = slot.generation.row == record.generation
        if not current or found.step < slot.newest.step:
            return self._complete(found, value_added=bool(record.has_value))
        slot.newest = found
        step = record.step
        self.scores.reached[worker_id] = step
        if step > self.furthest:
            self.furthest = step
        score, text = self.score(found), record.params
        diverged = bool(record.has_value) and math.isinf(score)
        if text is not None and (diverged or self.has_held):
            self._note_newest(worker_id, found, text)
        if record.has_value:
            decides = text is not None or not self.has_params or diverged
            self.scores.advance(worker_id, step, score, found.metrics, decides)
        return None

    def _read(self, record: CheckpointRecord) -> Checkpoint:
        """The checkpoint of a record; without a query if it follows a slot's newest."""
        worker_id = self._present.get(record.generation)
        if worker_id is None or self.slots[worker_id].newest.row != record.parent:
            return self.graph.at(record.row)
        slot = self.slots[worker_id]
        newest, generation = slot.newest, slot.generation
        row = CheckpointRow(
            row=record.row,
            generation=record.generation,
            step=record.step,
            params=record.params,
            has_value=record.has_value,
            value=record.value,
            metrics=record.metrics,
            time=record.time,
            parent_generation_id=newest.generation_id,
            parent_step=newest.step,
            generation_id=generation.generation_id,
            worker_id=generation.worker_id,
            meta_params=generation.meta_params,
            reason=generation.reason,
            had_params=record.params,
            parent=record.parent,
        )
        return checkpoint_of(row, self.graph.own)

    def _apply_late(self, record: Late, about: Subject | None) -> None:
        if record.row <= self.row:
            return
        self.row, self.time, self.reports = record.row, record.time, record.reports
        if record.params is not None:
            self._note_params(record.params)
        at = record.checkpoint
        self._last = found = self.graph.at(at) if about is None else about.checkpoint
        slot = self.slots[found.worker_id]
        if slot.newest.row == found.row:
            slot.newest = found
            self._note_newest(found.worker_id, found, record.params)
            self.scores.reached[found.worker_id] = found.step
        self._complete(found, value_added=bool(record.has_value))

    def _apply_generation(self, record: Generation) -> None:
        if record.row > self.row:
            self.row = record.row
            self._opening = record

    def _apply_best(self, record: Best) -> None:
        found = self._last
        if found is None or found.row != record.checkpoint:
            found = self.graph.at(record.checkpoint)
        self.best = BestSoFar(record.checkpoint, self.score(found), record.reports)

    def _apply_removal(self, record: Removal) -> None:
        text = record.params
        self.saves.remove(text)
        removable = self._removable.pop(text, ())
        if record.reason != UNREACHABLE:
            self.must_reread = True
            return
        for worker_id, row in removable:
            slot = self.slots[worker_id]
            newest = slot.newest
            if newest.row != row:
                continue
            # A checkpoint that was read after the removal lacks them already.
            if newest.params is not None and self.graph.params_text(newest) == text:
                slot.newest = newest._replace(params=None)
            self.scores.doubt(worker_id, slot.newest)

    def _apply_lease(self, record: Lease) -> None:
        if record.worker_id >= len(self.slots):
            raise damaged(f"it holds a lease of worker {record.worker_id}")
        if record.owner:
            owner_of(record.owner)  # Raises if it cannot be read.
        self.leases[record.worker_id] = record
        self.change = max(self.change, record.change)

    def _apply_fact(self, record: Fact) -> None:
        if record.key == "saved" and not self.has_params:
            self._need_params()
        self.is_claimed |= record.key == "claimed"
        self.has_held |= record.key == "held"

    def _apply_mutator(self, record: MutatorRecord) -> None:
        if record != self.mutator:  # The same object keeps its cached decoding.
            self.mutator = record

    def _open(
        self,
        generation: Generation,
        record: CheckpointRecord,
        about: Subject | None,
    ) -> None:
        """Start a slot's generation with its first checkpoint."""
        worker_id = generation.worker_id
        if about is None:
            parent = None if record.parent is None else self.graph.at(record.parent)
            about = Subject(self.graph.at(record.row), parent=parent)
        root, parent = about.checkpoint, about.parent
        if worker_id >= min(len(self.slots) + 1, len(self.scores.steps)):
            raise damaged(f"row {generation.row} is of worker {worker_id}")
        donor = None
        if parent is not None and self.is_on_lineage(parent.worker_id, parent):
            donor = parent.worker_id
        self._place(generation, root, record.params)
        self.scores.open(worker_id, root.step, parent, donor)

    def _place(
        self, generation: Generation, newest: Checkpoint, text: str | None
    ) -> None:
        """Set a slot's generation and newest checkpoint; `text`: see `_note_newest`."""
        worker_id = generation.worker_id
        slot = Slot(generation, newest.meta_params, newest)
        for former in self.slots[worker_id : worker_id + 1]:
            del self._present[former.generation.row]
        self.slots[worker_id : worker_id + 1] = [slot]
        self._present[generation.row] = worker_id
        self._note_newest(worker_id, newest, text)

    def _complete(self, found: Checkpoint, *, value_added: bool) -> None:
        """Refresh every slot with a late report on its lineage."""
        others = self.scores.behind(found.step, value_added=value_added)
        for worker_id in sorted({found.worker_id, *others}):
            if self.is_on_lineage(worker_id, found):
                self.scores.refresh(worker_id, self.slots[worker_id].newest)
                self._step_back(worker_id)

    def _note_params(self, text: str) -> None:
        """Note that a record has params."""
        if not self.has_params:
            self._need_params()
        if text[0] == "{":  # Else it is a path.
            self.saves.mention(text)
            self.has_held |= text.startswith(HELD)

    def _need_params(self) -> None:
        """Make barriers need params from now on: the run has its first ones."""
        self.has_params = True
        for worker_id in self.scores.need_params():
            self.scores.doubt(worker_id, self.slots[worker_id].newest)

    def _note_newest(
        self, worker_id: int, newest: Checkpoint, text: str | None
    ) -> None:
        """Note params of a slot's newest checkpoint that may be removed.

        Args:
            worker_id: The slot.
            newest: Its newest checkpoint.
            text: The params as the journal keeps them, or None to look them up.
        """
        if text is None and newest.params is not None:
            text = self.graph.params_text(newest)
        if text is None:
            return
        if text.startswith(HELD) or newest.diverged:
            self._removable.setdefault(text, set()).add((worker_id, newest.row))

    def load_slot(self, worker_id: int) -> None:
        """Read a slot's generation and newest checkpoint from the journal."""
        found = self._journal.generations(worker_id=worker_id)
        if not found:
            raise damaged(f"it holds no generation of worker {worker_id}")
        (generation,) = found
        newest = self.graph.newest_of(generation)
        self._place(generation, newest, None)
        self.scores.begins[worker_id] = generation.step
        self.scores.reached[worker_id] = newest.step
        self.furthest = max(self.furthest, newest.step)
        self._step_back(worker_id)
        self.scores.refresh(worker_id, newest)

    def _step_back(self, worker_id: int) -> None:
        """Set `reached` to the resume point if a slot's newest weights are gone."""
        newest = self.slots[worker_id].newest
        if newest.params is not None or not (self.has_params and self.has_held):
            return
        if (self.graph.had_params(newest) or "").startswith(HELD):
            self.scores.reached[worker_id] = self.graph.resume_point(newest).step


_APPLY: Mapping[type, Any] = {
    CheckpointRecord: RunState._apply_checkpoint,
    Late: RunState._apply_late,
    Generation: RunState._apply_generation,
    Best: RunState._apply_best,
    Removal: RunState._apply_removal,
    Loss: lambda state, record: state.members.apply_loss(record),
    Status: lambda state, record: state.members.apply_status(record),
    Lease: RunState._apply_lease,
    Opening: lambda state, record: None,  # An opening changes no slot.
    Fact: RunState._apply_fact,
    Save: lambda state, record: state.saves.add(record),
    MutatorRecord: RunState._apply_mutator,
}
