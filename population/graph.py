"""The graph of checkpoints, read from the journal point by point.

`graph[generation_id][step]` is a `Checkpoint`. The graph is a forest: every parent
exists, its step is not greater than its child's, and it never changes. A lineage is
walked by generations: a slot's lineage holds all of its present generation, of the
generation before all up to the checkpoint where it branched off, and so on.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

from population import codec
from population.base import Checkpoint, Ref, Schedule
from population.errors import damaged
from population.journal import CheckpointRow, Journal

_PAGE = 256
_END = 2**63 - 1


class Generation(Mapping[int, Checkpoint]):
    """One generation's checkpoints by step, ascending; each loaded when asked for."""

    def __init__(self, graph: CheckpointGraph, generation_id: str) -> None:
        self._graph = graph
        self._id = generation_id

    def __getitem__(self, step: int) -> Checkpoint:
        found = self._graph.get_checkpoint(Ref(self._id, step))
        if found is None:
            raise KeyError(step)
        return found

    def __iter__(self) -> Iterator[int]:
        return (checkpoint.step for checkpoint in self._graph.span(self._id))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Generation({self._id!r}, {len(self)} checkpoints)"


class CheckpointGraph(Mapping[str, Generation]):
    """All checkpoints of a run, in the order of their generations.

    Args:
        journal: Where they are recorded.
        lock: Held while the journal is read; the controller's.
    """

    def __init__(
        self, journal: Journal, lock: contextlib.AbstractContextManager[object]
    ) -> None:
        self._journal = journal
        self._lock = lock
        self._keeps_weights = False

    def __getitem__(self, generation_id: str) -> Generation:
        with self._lock:
            if self._journal.generation(generation_id) is None:
                raise KeyError(generation_id)
        return Generation(self, generation_id)

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(self._journal.generation_ids())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"CheckpointGraph({len(self)} generations)"

    @property
    def keeps_weights(self) -> bool:
        """Whether the weights are the library's business.

        They are from the first claim by a `Worker`, the first report with params, or
        a `Start` with params; without any of these the loops keep them themselves.
        """
        if not self._keeps_weights:
            with self._lock:
                facts = self._journal.facts()
            self._keeps_weights = "claimed" in facts or "saved" in facts
        return self._keeps_weights

    def find(self, meta_params: object) -> list[str]:
        """The ids of all generations with equal hyperparameters, oldest first."""
        with self._lock:
            return self._journal.generation_ids(codec.digest(meta_params))

    def get_checkpoint(self, ref: Ref) -> Checkpoint | None:
        """The checkpoint of that name, or None."""
        return next(self.span(ref.generation_id, ref.step, ref.step), None)

    def checkpoint(self, ref: Ref) -> Checkpoint:
        """The checkpoint of that name.

        Raises:
            KeyError: If there is none.
        """
        return self[ref.generation_id][ref.step]

    def span(
        self,
        generation_id: str,
        low: int = 0,
        high: int = _END,
        *,
        descending: bool = False,
    ) -> Iterator[Checkpoint]:
        """A generation's checkpoints with `low <= step <= high`, by step."""
        size = 1
        while low <= high:
            with self._lock:
                rows = self._journal.checkpoints(
                    generation_id, low, high, descending=descending, limit=size
                )
            for row in rows:
                yield decoded(row)
            if len(rows) < size:
                return
            if descending:
                high = rows[-1].step - 1
            else:
                low = rows[-1].step + 1
            size = min(8 * size, _PAGE)

    def history(self) -> Iterator[Checkpoint]:
        """All checkpoints in the order in which they were recorded."""
        after = 0
        while True:
            with self._lock:
                rows = self._journal.history(after, _PAGE)
            for row in rows:
                yield decoded(row)
            if len(rows) < _PAGE:
                return
            after = rows[-1].row

    def best(self) -> Checkpoint | None:
        """The checkpoint with the best finite value; the first one on ties."""
        with self._lock:
            row = self._journal.tail().best
            found = None if row is None else self._journal.checkpoint(row)
        return None if found is None else decoded(found)

    def root(self, generation_id: str) -> Checkpoint:
        """A generation's first checkpoint.

        Raises:
            KeyError: If there is no such generation.
        """
        found = next(self.span(generation_id), None)
        if found is None:
            raise KeyError(generation_id)
        return found

    def segments(self, checkpoint: Checkpoint) -> Iterator[tuple[Checkpoint, int]]:
        """The generations of a lineage, newest first.

        Yields:
            A generation's first checkpoint, and the last step that belongs to the
            lineage.
        """
        generation_id, last = checkpoint.ref
        while True:
            root = self.root(generation_id)
            yield root, last
            if root.parent is None:
                return
            generation_id, last = root.parent

    def walk(self, checkpoint: Checkpoint) -> Iterator[Checkpoint]:
        """All checkpoints of a lineage, newest first; begins with `checkpoint`."""
        yield checkpoint
        for root, last in self.segments(checkpoint):
            if (
                last == checkpoint.step
                and root.generation_id == checkpoint.generation_id
            ):
                last -= 1
            yield from self.span(root.generation_id, 0, last, descending=True)

    def lineage(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        """All checkpoints that led to this one, from the root to itself."""
        return list(self.walk(checkpoint))[::-1]

    def schedule(self, checkpoint: Checkpoint) -> Schedule:
        """The hyperparameters over steps that led to a checkpoint.

        `FixedSchedule(controller.schedule(checkpoint))` trains with them again.
        """
        entries = [(r.step, r.meta_params) for r, _ in self.segments(checkpoint)][::-1]
        changes: dict[int, object] = {}
        before: str | None = None
        for step, meta_params in entries:
            now = codec.digest(meta_params)
            if now != before or step in changes:
                changes[step] = meta_params
            before = now
        return Schedule(changes)

    def resume_point(self, checkpoint: Checkpoint) -> Checkpoint:
        """Where training can go on: the nearest that did not diverge and has params.

        The checkpoint itself or an ancestor. A root always qualifies; its params are
        its `Start`'s, None meaning fresh ones. Where the loops keep the weights
        themselves, params are not asked for.
        """
        needs_params = self.keeps_weights
        fresh: Checkpoint | None = None
        candidate = checkpoint
        for candidate in self.walk(checkpoint):
            if candidate.parent is None:
                return fresh or candidate
            if candidate.diverged:
                fresh = None
            elif candidate.params is not None or not needs_params:
                break
            elif candidate.step > candidate.parent.step:
                fresh = None
            else:  # A generation's first checkpoint stands for what it copies.
                fresh = fresh or candidate
        return candidate

    def newest_value(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """The nearest checkpoint with a value, itself or an ancestor."""
        return next((c for c in self.walk(checkpoint) if c.value is not None), None)

    def reports_since(self, checkpoint: Checkpoint, step: int) -> list[Checkpoint]:
        """The lineage's checkpoints at or after `step` that have a value, ascending."""
        found: list[Checkpoint] = []
        for root, last in self.segments(checkpoint):
            for c in self.span(root.generation_id, step, last, descending=True):
                if c.value is not None:
                    found.append(c)
            if root.step < step:
                break
        return found[::-1]

    def first_since(
        self, checkpoint: Checkpoint, step: int, *, needs_params: bool
    ) -> Checkpoint | None:
        """The lineage's first checkpoint from `step` on with a value (and params)."""
        segments: list[tuple[Checkpoint, int]] = []
        for root, last in self.segments(checkpoint):
            segments.append((root, last))
            if root.step < step:
                break
        for root, last in reversed(segments):
            for c in self.span(root.generation_id, step, last):
                if c.value is not None and not (needs_params and c.params is None):
                    return c
        return None


def decode(text: str, like: object = None) -> Any:
    """What a text of the journal says.

    Raises:
        JournalError: If it says nothing.
    """
    try:
        return codec.decode(text, like)
    except (ValueError, TypeError, KeyError, LookupError) as error:
        raise damaged(f"{error} in {text[:60]!r}") from error


def decoded(row: CheckpointRow) -> Checkpoint:
    """The record of a journal's row."""
    parent = None
    if row.parent_generation_id is not None and row.parent_step is not None:
        parent = Ref(row.parent_generation_id, row.parent_step)
    value = row.value
    if row.has_value and value is None:
        value = math.nan  # SQLite keeps NaN as NULL.
    return Checkpoint(
        params=None if row.params is None else decode(row.params),
        meta_params=decode(row.meta_params),
        generation_id=row.generation_id,
        value=value,
        parent=parent,
        step=row.step,
        time=row.time,
        worker_id=row.worker_id,
        metrics=None if row.metrics is None else decode(row.metrics),
        reason=row.reason,
        row=row.row,
    )
