"""What is known of each slot, and how a report changes it.

Everything here is a copy of what the journal says, kept so that a report costs the
same however long the history is. `Slots.load` reads it anew: at the start, when another
process has written, and after a transaction that was rolled back.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from population.base import codec
from population.base.errors import damaged
from population.base.log_once import Once
from population.base.types import ActiveWorker, Checkpoint
from population.core import facts, present
from population.core.best import Best
from population.core.decoding import decode
from population.core.graph import JournalGraph
from population.core.incoming import Incoming
from population.core.recent import Recent
from population.core.slot import Opened, Slot
from population.journal.base import Journal
from population.journal.records import GenerationRow, Tail


class Slots(Sequence[Slot]):
    """All slots of a run, and where its journal ends.

    Args:
        journal: Where everything is recorded.
        graph: The same, as checkpoints.
        mode: "min" or "max".

    Attributes:
        once: Says something about a generation the first time.
        run: The run's token, the first part of its generation ids.
        journal: Where everything is recorded.
        graph: The same, as checkpoints.
        row: The last row of the journal.
        batch: The first row of the present batch.
        time: Time of the newest report.
        reports: Reports with a value so far.
        best: The best checkpoint so far.
        saved: Whether any params were ever recorded.
        taken: Of the present batch, the reports whose saved params were recorded.
        opened: Of the present batch, the slots that began anew.
        steps: `[N]` step of the newest report with a value on each lineage, or -1.
        scores: `[N]` the scores of those reports.
        ready: `[N]` step of the newest checkpoint that a barrier may rest on, or -1.
        reached: `[N]` step of the newest checkpoint of any kind.
        begins: `[N]` step at which each slot's generation began.
        live: The worker ids of the slots that are not lost, ascending.
        lost: Those of the others.
        losses: How often it was recorded that others are lost than before.
    """

    def __init__(self, journal: Journal, graph: JournalGraph, mode: str) -> None:
        self.journal = journal
        self.graph = graph
        self._sign = 1.0 if mode == "min" else -1.0
        self._slots: list[Slot] = []
        self.once = Once()
        self.run = ""
        self.row = 0
        self.time = 0.0
        self.reports = 0
        self.best = Best(journal, graph, self.score)
        self.saved = False
        self.taken: list[Incoming] = []
        self.opened: list[Opened] = []
        self.batch = 0
        self.steps: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self.scores: npt.NDArray[np.float64] = np.zeros(0)
        self.ready: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self.reached: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self.begins: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self.live: Sequence[int] = ()
        self.lost: frozenset[int] = frozenset()
        self.losses = 0
        self._diverged = False
        self._recent: Recent | None = None  # Kept once a policy looks back.

    def __getitem__(self, worker_id: Any) -> Any:
        """The slot of that worker id."""
        return self._slots[worker_id]

    def __len__(self) -> int:
        return len(self._slots)

    def newest(self, worker_id: int) -> Checkpoint:
        """The slot's newest checkpoint."""
        return self._slots[worker_id].newest

    def load(self) -> None:
        """Read everything from the journal. O(slots), whatever the history."""
        known = facts.read_all(self.journal)
        size, self.run = known["size"], known["run"]
        self.saved = "saved" in known
        self._resize(size)
        self._slots = [self._load_slot(worker_id) for worker_id in range(size)]
        self.load_losses()
        self.best.begin()
        self.end_at(self.journal.tail())

    def reload(self, worker_id: int) -> None:
        """Read one slot anew."""
        self._slots[worker_id] = self._load_slot(worker_id)

    def extend(self, worker_id: int) -> None:
        """Read where a slot has come in its generation."""
        slot = self._slots[worker_id]
        slot.newest = present.newest_of(self.graph, slot.generation)
        self.reached[worker_id] = present.reached(self, slot.newest)
        self.look_back(worker_id, slot.newest)

    def end_at(self, tail: Tail) -> None:
        """Take over where the journal ends."""
        self.row, self.time, self.reports = tail.row, tail.time, tail.reports
        self.best.end_at(tail)

    def load_losses(self) -> None:
        """Read which slots are lost."""
        text, self.losses = self.journal.lost()
        self.lose([] if text is None else facts.lost(decode(text), len(self.steps)))

    def begin(self, now: float) -> None:
        """Begin a batch of reports; its time is never before the last one's."""
        if self.time < now < math.inf:
            self.time = now
        self.batch = self.row + 1
        if self.taken or self.opened:
            self.taken, self.opened = [], []

    def score(self, checkpoint: Checkpoint) -> float:
        """Lower is better whatever the mode; inf for None, NaN and infinities."""
        value = checkpoint.value
        if value is None or not math.isfinite(value):
            return math.inf
        return self._sign * value

    def check_id(self, worker_id: Any) -> int:
        """A worker id as an int of this population.

        Raises:
            TypeError: If it is no int.
            ValueError: If there is no such slot.
        """
        found = codec.integer(worker_id, "worker_id")
        if found >= len(self._slots):
            raise ValueError(
                f"worker_id must be below {len(self._slots)}, the size of the "
                f"population, got {found}."
            )
        return found

    def id_of(self, worker_id: int, number: int) -> str:
        """The id of a slot's generation."""
        return f"{self.run}-{worker_id}-{number}"

    def work(self, worker_id: int) -> ActiveWorker:
        """What a slot works on, but for when it waits."""
        newest = self._slots[worker_id].newest
        meta_params = decode(self._slots[worker_id].generation.meta_params)
        params = copy.deepcopy(newest.params)  # The receiver's own, like meta_params.
        return ActiveWorker(params, meta_params, *newest.ref)

    def as_score(self, value: float) -> float:
        """A value in the sense of `score`."""
        return self._sign * value

    def create(
        self, run: str, starts: Sequence[Incoming], metas: Sequence[str]
    ) -> None:
        """Record the first generation of every slot."""
        self.run = run
        self._resize(len(starts))
        for start, meta in zip(starts, metas, strict=True):
            worker_id = start.worker_id
            generation = self._add_generation(worker_id, 0, start.step, meta, "start")
            root = self.insert(generation, codec.decode(meta), None, start)
            self._slots.append(Slot(generation, root.meta_params, root))
            self.begins[worker_id] = self.reached[worker_id] = root.step

    def open(
        self, worker_id: int, parent: Checkpoint | None, meta_text: str, reason: str
    ) -> None:
        """Begin a new generation; its first checkpoint copies the parent's params."""
        number = self._slots[worker_id].generation.number + 1
        step = 0 if parent is None else parent.step
        generation = self._add_generation(worker_id, number, step, meta_text, reason)
        params = text = None
        if parent is not None and parent.params is not None:
            params, text = parent.params, self.graph.params_text(parent)
        start = Incoming(
            worker_id, generation.generation_id, step, params, text, None, None, None
        )
        root = self.insert(generation, codec.decode(meta_text), parent, start)
        self.opened.append(Opened.of(self._slots[worker_id], parent))
        recent = None
        if parent is not None and self._recent is not None:
            donor = self._slots[parent.worker_id].generation.generation_id
            recent = self._recent.before(parent, donor)
        self._slots[worker_id] = Slot(generation, root.meta_params, root)
        self.begins[worker_id] = self.reached[worker_id] = step
        self.look_back(worker_id, parent)
        if self._recent is not None and recent is not None:
            self._recent.put(worker_id, recent)

    def barrier(self, worker_id: int, step: int) -> Checkpoint | None:
        """The lineage's first checkpoint at or after `step` that decides, or None."""
        if self.ready[worker_id] < step:
            return None
        newest = self._slots[worker_id].newest
        return self.graph.first_since(newest, step, needs_params=self.saved)

    def as_of(self, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """`steps` and `scores` as they were at a step of each slot's lineage."""
        steps, scores = self.steps.copy(), self.scores.copy()
        if self._recent is None:
            self._recent = Recent(steps.tolist(), scores.tolist())
        for worker_id in np.flatnonzero(steps > step).tolist():
            steps[worker_id], scores[worker_id] = self._known_at(worker_id, step)
        return steps, scores

    def lose(self, worker_ids: Collection[int]) -> None:
        """Say which slots are lost, all others being live."""
        lost = frozenset(worker_ids)
        if lost == self.lost and len(self.live) + len(lost) == len(self.steps):
            return
        self.lost = lost
        self.live = tuple(i for i in range(len(self.steps)) if i not in lost)

    def record_losses(self, worker_ids: Collection[int], told: int | None) -> None:
        """Record which slots are lost from now on.

        Args:
            worker_ids: The slots.
            told: The worker whose newest report the mutator is shown again, if any.
        """
        text = codec.encode(sorted(worker_ids))
        self.journal.add_loss(self.row, text, told, self.time)
        self.losses += 1
        self.lose(worker_ids)

    def advance(self, worker_id: int, step: int, score: float) -> None:
        """A slot's newest value so far is of this step."""
        self.steps[worker_id] = step
        self.scores[worker_id] = score
        if self._recent is not None:
            self._recent.add(worker_id, step, score)

    def forget_recent(self, step: int) -> None:
        """A report of this step has got its value late: look it up when asked."""
        if self._recent is not None:
            branched_later = np.flatnonzero(self.begins >= step)
            self._recent.forget_older(branched_later.tolist())

    def _resize(self, size: int) -> None:
        self.steps = np.full(size, -1, np.int64)
        self.scores = np.full(size, math.inf)
        self.ready = np.full(size, -1, np.int64)
        self.begins, self.reached = np.zeros((2, size), np.int64)
        self._recent = None
        self.live = ()
        self.lose(self.lost)

    def _load_slot(self, worker_id: int) -> Slot:
        if (generation := self.journal.newest_generation(worker_id)) is None:
            raise damaged(f"it holds no generation of worker {worker_id}")
        newest = present.newest_of(self.graph, generation)
        if newest.step < generation.step or newest.worker_id != worker_id:
            raise damaged(f"{generation.generation_id} does not begin with its step")
        self.reached[worker_id] = present.reached(self, newest)
        self.look_back(worker_id, newest)
        self.begins[worker_id] = generation.step
        return Slot(generation, newest.meta_params, newest)

    def look_back(self, worker_id: int, newest: Checkpoint | None) -> None:
        """Find the lineage's newest value, and the newest one that may decide."""
        self.steps[worker_id] = self.ready[worker_id] = -1
        self.scores[worker_id] = math.inf
        valued = None if newest is None else self.graph.newest_value(newest)
        if valued is not None:
            self.steps[worker_id] = valued.step
            self.scores[worker_id] = self.score(valued)
        if self._recent is not None:
            last = int(self.steps[worker_id]), float(self.scores[worker_id])
            self._recent.begin(worker_id, *last)
        if valued is None:
            return
        self._diverged = True
        ready = self.graph.newest_value(valued, params=self.saved)
        if ready is not None:
            self.ready[worker_id] = ready.step

    def _known_at(self, worker_id: int, step: int) -> tuple[int, float]:
        known = None if self._recent is None else self._recent.at(worker_id, step)
        if known is not None:
            return known
        found = self.graph.newest_value(self._slots[worker_id].newest, until=step)
        return (-1, math.inf) if found is None else (found.step, self.score(found))

    def _add_generation(
        self, worker_id: int, number: int, step: int, meta_text: str, reason: str
    ) -> GenerationRow:
        self.row += 1
        before = self._slots[worker_id].generation if number else None
        if before is not None and before.meta_params == meta_text:
            digest = before.digest  # The usual case at a restart or a takeover.
        else:
            digest = codec.digest(codec.decode(meta_text))
        generation = GenerationRow(
            row=self.row,
            generation_id=self.id_of(worker_id, number),
            worker_id=worker_id,
            number=number,
            step=step,
            meta_params=meta_text,
            digest=digest,
            reason=reason,
            time=self.time,
        )
        self.journal.add_generation(generation)
        return generation

    def insert(
        self,
        generation: GenerationRow,
        meta_params: Any,
        parent: Checkpoint | None,
        new: Incoming,
    ) -> Checkpoint:
        """Insert a checkpoint; the one place where they are made."""
        has_value = new.value is not None
        self.row = row = self.row + 1
        if has_value:
            self.reports += 1
        if new.params is not None:
            self.took(new)
        self.journal.add_checkpoint(
            row,
            generation.row,
            new.step,
            None if parent is None else parent.row,
            new.params_text,
            has_value,
            new.value,
            new.metrics_text,
            self.time,
            self.reports,
            self.batch,
        )
        return Checkpoint(
            new.params,
            meta_params,
            generation.generation_id,
            new.value,
            None if parent is None else parent.ref,
            new.step,
            self.time,
            generation.worker_id,
            new.metrics,
            generation.reason,
            row,
        )

    def took(self, new: Incoming) -> None:
        """A report's params are recorded; from the first on barriers rest on such."""
        if not self.saved:
            self.saved = True
            self.journal.add_fact("saved", codec.encode(True))
            reported = np.flatnonzero(self.ready >= 0).tolist()
            self.ready.fill(-1)
            for worker_id in reported if self._diverged else ():
                self.look_back(worker_id, self._slots[worker_id].newest)
        if new.bytes is not None:
            self.taken.append(new)

    def rank(self, checkpoint: Checkpoint) -> float:
        """The score of a checkpoint whose value has just come; keeps the best."""
        score = self.score(checkpoint)
        self.best.offer(checkpoint, score, self.row, self.reports)
        if checkpoint.diverged:
            self._diverged = True
            self.once(
                checkpoint.generation_id,
                "diverged",
                f": worker {checkpoint.worker_id} reported {checkpoint.value} at "
                f"step {checkpoint.step}",
                logging.WARNING,
            )
        return score
