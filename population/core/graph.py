"""The graph of checkpoints, read from the journal point by point.

`graph[generation_id][step]` is a `Checkpoint`. A lineage is walked by generations: it
holds all of a slot's present generation, of the one before all up to the checkpoint
where it branched off, and so on.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from population.base import codec, run_paths
from population.base.errors import damaged
from population.base.interfaces import CheckpointGraph
from population.base.types import Checkpoint, Ref, Schedule
from population.core.decoding import checkpoint_of
from population.journal.base import Find, Journal
from population.journal.records import CheckpointRow, Fact, Generation

_PAGE = 256
_END = 2**63 - 1
_REMEMBERED = 20_000


class Segment(NamedTuple):
    """The part of a generation that belongs to a lineage.

    Attributes:
        generation_id: The generation.
        first: The step at which it began.
        last: The last step that belongs to the lineage.
        parent: What it began from; None for a root.
    """

    generation_id: str
    first: int
    last: int
    parent: Ref | None


class CheckpointsByStep(Mapping[int, Checkpoint]):
    """One generation's checkpoints by step, ascending; each loaded when asked for."""

    def __init__(self, graph: JournalGraph, generation_id: str) -> None:
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
        return f"CheckpointsByStep({self._id!r}, {len(self)} checkpoints)"


class JournalGraph(CheckpointGraph):
    """All checkpoints of a run, in the order of their generations.

    Args:
        journal: Where they are recorded.
        lock: Taken while the journal is read; the controller's.
        log_dir: The run folder; None: paths within it stay `RunPath`.

    Attributes:
        own: How paths of the library's own begin; see `run_paths`.
    """

    def __init__(
        self,
        journal: Journal,
        lock: contextlib.AbstractContextManager[object],
        log_dir: pathlib.Path | None = None,
    ) -> None:
        self.own = run_paths.own_folder(log_dir)
        self._journal = journal
        self._lock = lock
        self._keeps_weights = False
        self._origins: dict[str, tuple[int, int, Ref | None]] = {}

    def __getitem__(self, generation_id: str) -> CheckpointsByStep:
        if self.generation(generation_id) is None:
            raise KeyError(generation_id)
        return CheckpointsByStep(self, generation_id)

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter([g.generation_id for g in self._journal.generations()])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"JournalGraph({len(self)} generations)"

    @property
    def keeps_weights(self) -> bool:
        """Whether the library keeps the weights: else the loops keep them themselves.

        From the first claim by a `Worker`, report with params or `Start` with params.
        """
        if not self._keeps_weights:
            with self._lock:
                keys = {fact.key for fact in self._journal.all(Fact)}
            self._keeps_weights = not keys.isdisjoint({"claimed", "saved"})
        return self._keeps_weights

    def find(self, meta_params: object) -> list[str]:
        """The ids of all generations with equal hyperparameters, oldest first."""
        with self._lock:
            found = self._journal.generations(digest=codec.digest(meta_params))
        return [g.generation_id for g in found]

    def generation(self, generation_id: str) -> Generation | None:
        """The generation of that id, or None."""
        with self._lock:
            return next(iter(self._journal.generations(id=generation_id)), None)

    def get_checkpoint(self, ref: Ref) -> Checkpoint | None:
        """The checkpoint of that name, or None."""
        return next(self.span(ref.generation_id, ref.step, ref.step), None)

    def checkpoint(self, ref: Ref) -> Checkpoint:
        """The checkpoint of that name.

        Raises:
            KeyError: There is no such checkpoint.
        """
        return self[ref.generation_id][ref.step]

    def at(self, row: int) -> Checkpoint:
        """The checkpoint of a row of the journal.

        Raises:
            JournalError: There is no such row.
        """
        return checkpoint_of(self._row(row), self.own)

    def newest_of(self, generation: Generation) -> Checkpoint:
        """A generation's newest checkpoint.

        Raises:
            JournalError: It has no checkpoint.
        """
        newest = next(self.span(generation.generation_id, descending=True), None)
        if newest is None:
            raise damaged(f"{generation.generation_id} has no checkpoint")
        own = newest.worker_id == generation.worker_id
        if not own or newest.step < generation.step:
            raise damaged(f"{generation.generation_id} does not begin with its step")
        return newest

    def had_params(self, checkpoint: Checkpoint) -> str | None:
        """A checkpoint's params, encoded, whether or not they were removed since."""
        return self._row(checkpoint.row).had_params

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
            find = Find(
                generation_id, low=low, high=high, newest_first=descending, limit=size
            )
            rows = self._find(find)
            for row in rows:
                if row.generation_id != generation_id or not low <= row.step <= high:
                    raise damaged(f"row {row.row} is not where its step belongs")
                if descending:
                    high = row.step - 1
                else:
                    low = row.step + 1
                yield checkpoint_of(row, self.own)
            if len(rows) < size:
                return
            size = min(8 * size, _PAGE)

    def history(self) -> Iterator[Checkpoint]:
        """All checkpoints in the order in which they were recorded."""
        after = 0
        while True:
            rows = self._find(Find(after=after, limit=_PAGE))
            for row in rows:
                if row.row <= after:
                    raise damaged(f"row {row.row} comes after row {after}")
                after = row.row
                yield checkpoint_of(row, self.own)
            if len(rows) < _PAGE:
                return

    def best(self) -> Checkpoint | None:
        """The checkpoint with the best finite value; the first one on ties."""
        with self._lock:
            row = self._journal.tail().best
        return None if row is None else self.at(row)

    def root(self, generation_id: str) -> Checkpoint:
        """A generation's first checkpoint.

        Raises:
            KeyError: If there is no such generation.
        """
        if (found := next(self.span(generation_id), None)) is None:
            raise KeyError(generation_id)
        return found

    def segments(self, checkpoint: Checkpoint) -> Iterator[Segment]:
        """The generations of a lineage, newest first; that they descend is checked."""
        generation_id, last = checkpoint.ref
        below = _END
        while True:
            row, first, parent = self._origin(generation_id)
            if row >= below or first > last:
                raise damaged(f"{generation_id} is its own ancestor, or begins late")
            yield Segment(generation_id, first, last, parent)
            if parent is None:
                return
            generation_id, last = parent
            below = row

    def walk(self, checkpoint: Checkpoint) -> Iterator[Checkpoint]:
        """All checkpoints of a lineage, newest first; begins with `checkpoint`."""
        yield checkpoint
        below = checkpoint.step - 1
        for segment in self.segments(checkpoint):
            last = min(segment.last, below)
            yield from self.span(segment.generation_id, 0, last, descending=True)
            below = segment.last

    def lineage(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        """All checkpoints that led to this one, from the root to itself."""
        return list(self.walk(checkpoint))[::-1]

    def schedule(self, checkpoint: Checkpoint) -> Schedule:
        """The hyperparameters over steps that led to a checkpoint.

        `FixedSchedule(controller.schedule(checkpoint))` trains with them again.
        """
        roots = [self.root(segment[0]) for segment in self.segments(checkpoint)]
        changes: dict[int, object] = {}
        before: str | None = None
        for root in reversed(roots):
            now = codec.digest(root.meta_params)
            if now != before or root.step in changes:
                changes[root.step] = root.meta_params
            before = now
        return Schedule(changes)

    def resume_point(self, checkpoint: Checkpoint) -> Checkpoint:
        """Where training can go on: the nearest that did not diverge and has params.

        The checkpoint itself or an ancestor; from one that diverged, the nearest with a
        finite value, as what has none yet may be as bad. A root always qualifies, with
        None for fresh params. Where loops keep the weights, params are not needed.
        """
        value, params = checkpoint.diverged, self.keeps_weights
        lacks = value or (params and checkpoint.params is None)
        if checkpoint.parent is None or not lacks:
            return checkpoint
        fresh: str | None = None
        for segment in self.segments(checkpoint):
            if found := self._newest(segment, value=value, params=params, finite=True):
                return found
            # A generation's first checkpoint stands for what it copies: here, for
            # fresh weights, which no worker has trained on the way.
            if segment.last > segment.first:
                fresh = None
            if self.root(segment.generation_id).diverged:
                fresh = None
            else:
                fresh = fresh or segment.generation_id
        return self.root(fresh or segment.generation_id)

    def newest_value(
        self, checkpoint: Checkpoint, *, until: int = _END, params: bool = False
    ) -> Checkpoint | None:
        """The nearest checkpoint with a value, itself or an ancestor.

        Args:
            checkpoint: Where to begin.
            until: The last step to look at.
            params: Whether it must have params too, unless the value is not finite.
        """
        if checkpoint.step <= until and _closes(checkpoint, params):
            return checkpoint
        for segment in self.segments(checkpoint):
            if segment.first > until:
                continue
            segment = segment._replace(last=min(segment.last, until))
            if found := self._newest(segment, value=True, decides=params):
                return found
        return None

    def reports_since(self, checkpoint: Checkpoint, step: int) -> list[Checkpoint]:
        """The lineage's checkpoints at or after `step` that have a value, ascending."""
        since = self._since(checkpoint, step)
        return [c for c in since if c.value is not None]

    def first_since(
        self, checkpoint: Checkpoint, step: int, *, needs_params: bool
    ) -> Checkpoint | None:
        """The lineage's first checkpoint from `step` on that has a value.

        Args:
            checkpoint: Where the lineage ends.
            step: The first step to look at.
            needs_params: Whether it must have params too, unless the value is not
                finite: what has diverged need not be saved.
        """
        before = checkpoint.parent
        if before is not None and before.step < step == checkpoint.step:
            if _closes(checkpoint, needs_params):
                return checkpoint  # The usual case, in no time.
        since = self._since(checkpoint, step)
        return next((c for c in since if _closes(c, needs_params)), None)

    def params_text(self, checkpoint: Checkpoint) -> str:
        """A checkpoint's params as the journal keeps them."""
        try:
            return run_paths.encode(checkpoint.params, self.own)
        except TypeError:  # An older version has kept what is too deep for this one.
            text = self._row(checkpoint.row).params
            if text is None:
                raise damaged(f"row {checkpoint.row} has no params") from None
            return text

    def forget(self) -> None:
        """A transaction was rolled back: read anew what is kept."""
        self._origins.clear()
        self._keeps_weights = False

    def _since(self, checkpoint: Checkpoint, step: int) -> Iterator[Checkpoint]:
        """The lineage's checkpoints at or after `step`, ascending."""
        segments: list[Segment] = []
        for segment in self.segments(checkpoint):
            segments.append(segment)
            if segment.first < step:
                break
        for generation_id, _, last, _ in reversed(segments):
            yield from self.span(generation_id, step, last)

    def _newest(self, segment: Segment, **needs: bool) -> Checkpoint | None:
        name, last = segment.generation_id, segment.last
        rows = self._find(Find(name, high=last, newest_first=True, limit=1, **needs))
        return checkpoint_of(rows[0], self.own) if rows else None

    def _row(self, row: int) -> CheckpointRow:
        found = self._find(Find(after=row - 1, upto=row, limit=1))
        if not found:
            raise damaged(f"the checkpoint of row {row} is missing")
        return found[0]

    def _find(self, find: Find) -> list[CheckpointRow]:
        with self._lock:
            return self._journal.checkpoints(find)

    def _origin(self, generation_id: str) -> tuple[int, int, Ref | None]:
        """A generation's first row, first step and parent, which never change.

        Not kept by an `lru_cache` of the method: that would hold this, and so the
        journal, until the garbage collector comes.
        """
        found = self._origins.get(generation_id)
        if found is None:
            root = next(self.span(generation_id), None)
            if root is None:
                raise damaged(f"{generation_id} has no checkpoint")
            if len(self._origins) >= _REMEMBERED:
                self._origins.clear()
            found = root.row, root.step, root.parent
            self._origins[generation_id] = found
        return found


def _closes(checkpoint: Checkpoint, needs_params: bool) -> bool:
    """Whether it has a value, and the params that a barrier needs of a finite one."""
    if checkpoint.value is None:
        return False
    return not needs_params or checkpoint.params is not None or checkpoint.diverged
