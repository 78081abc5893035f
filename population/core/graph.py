"""The graph of checkpoints, read from the journal one by one.

`graph[generation_id][step]` is a `Checkpoint`. A lineage consists of segments: all of a
slot's present generation, the one before up to the checkpoint where it branched off,
and so on.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from population.base import codec, run_paths
from population.base.errors import damaged
from population.base.interfaces import CheckpointGraph
from population.base.types import Checkpoint, Ref
from population.core.checkpoints_by_step import CheckpointsByStep
from population.core.decoding import checkpoint_of, unknown
from population.core.known import check_checkpoint, check_ref, check_step, closes
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
        parent: The checkpoint that it began from; None for a root.
    """

    generation_id: str
    first: int
    last: int
    parent: Ref | None


class JournalGraph(CheckpointGraph):
    """All checkpoints of a run, in the order of their generations.

    Args:
        journal: The journal of the run.
        lock: The run's lock, held while this reads the journal.
        log_dir: The run folder; None: paths within it stay `RunPath`.

    Attributes:
        own: The prefix of paths in the run's `own` folder; see `run_paths`.
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
            raise self._unknown(generation_id)
        return CheckpointsByStep(
            generation_id,
            lambda step: self.get_checkpoint(Ref(generation_id, step)),
            lambda: self.span(generation_id),
        )

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter([g.generation_id for g in self._journal.generations()])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"JournalGraph({len(self)} generations)"

    @property
    def keeps_weights(self) -> bool:
        """Whether the library keeps the weights; if not, the loops save their own.

        True from the first claim by a `Worker`, or report or `Start` with params.
        """
        if not self._keeps_weights:
            with self._lock:
                keys = {fact.key for fact in self._journal.all(Fact)}
            self._keeps_weights = not keys.isdisjoint({"claimed", "saved"})
        return self._keeps_weights

    def find(self, meta_params: object) -> list[str]:
        """Return the ids of all generations with these meta_params, oldest first."""
        with self._lock:
            found = self._journal.generations(digest=codec.digest(meta_params))
        return [g.generation_id for g in found]

    def generation(self, generation_id: str) -> Generation | None:
        """Return the generation with that id, or None."""
        if not isinstance(generation_id, str):
            return None
        with self._lock:
            return next(iter(self._journal.generations(id=generation_id)), None)

    def get_checkpoint(self, ref: Ref) -> Checkpoint | None:
        """Return the checkpoint with that generation id and step, or None."""
        step = check_step(ref.step, "the step of a Ref")
        return next(self.span(ref.generation_id, step, min(step, _END)), None)

    def checkpoint(self, ref: Ref) -> Checkpoint:
        """Return the checkpoint with that generation id and step.

        Raises:
            KeyError: There is no such checkpoint.
            TypeError: `ref` is not a `Ref`.
        """
        check_ref(ref, "graph.checkpoint")
        return self[ref.generation_id][ref.step]

    def parent(self, child: Checkpoint) -> Checkpoint | None:
        """Return a checkpoint's parent; a JournalError if it cannot be found."""
        found = None if child.parent is None else self.get_checkpoint(child.parent)
        if found is None and child.parent is not None:
            raise damaged(f"it does not find {child.parent}, the parent of {child.ref}")
        return found

    def at(self, row: int) -> Checkpoint:
        """Return the checkpoint of a row of the journal.

        Raises:
            JournalError: There is no such row.
        """
        return checkpoint_of(self._row(row), self.own)

    def newest_of(self, generation: Generation) -> Checkpoint:
        """Return a generation's newest checkpoint.

        Raises:
            JournalError: The generation has no checkpoint, or is damaged.
        """
        newest = next(self.span(generation.generation_id, descending=True), None)
        if newest is None:
            raise damaged(f"{generation.generation_id} has no checkpoint")
        own = newest.worker_id == generation.worker_id
        if not own or newest.step < generation.step:
            raise damaged(f"{generation.generation_id} does not begin with its step")
        return newest

    def had_params(self, checkpoint: Checkpoint) -> str | None:
        """Return a checkpoint's params, encoded, even if they were removed since."""
        return self._row(checkpoint.row).had_params

    def span(
        self,
        generation_id: str,
        low: int = 0,
        high: int = _END,
        *,
        descending: bool = False,
        **needs: bool,
    ) -> Iterator[Checkpoint]:
        """Yield a generation's checkpoints with `low <= step <= high`, by step.

        `needs` are further conditions of a `Find`.
        """
        needs["newest_first"] = descending
        size = 1
        while low <= high:
            find = Find(generation_id, low=low, high=high, limit=size, **needs)
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

    def history(self, after: int = 0) -> Iterator[Checkpoint]:
        """Yield all checkpoints after a row in recorded order."""
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
        """Return the checkpoint with the best finite value; the first one on ties."""
        with self._lock:
            row = self._journal.tail().best
        return None if row is None else self.at(row)

    def root(self, generation_id: str) -> Checkpoint:
        """Return a generation's first checkpoint.

        Raises:
            KeyError: There is no such generation.
        """
        if isinstance(generation_id, str):
            if (found := next(self.span(generation_id), None)) is not None:
                return found
        raise self._unknown(generation_id)

    def segments(self, checkpoint: Checkpoint) -> Iterator[Segment]:
        """Yield the segments of a lineage, newest first; JournalError on a cycle."""
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
        """Yield all checkpoints of a lineage, newest first, `checkpoint` included."""
        yield check_checkpoint(checkpoint, "graph.walk")
        below = checkpoint.step - 1
        for segment in self.segments(checkpoint):
            last = min(segment.last, below)
            yield from self.span(segment.generation_id, 0, last, descending=True)
            below = segment.last

    def lineage(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        """Return all checkpoints that led to this one, from the root to itself."""
        return list(self.walk(checkpoint))[::-1]

    def resume_point(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint from which training continues: it or an ancestor.

        The nearest that has params and did not diverge; from one that diverged, the
        nearest with a finite value, as one without a value may be as bad. A root always
        qualifies, with None for fresh params. If loops save the weights, none need any.
        """
        check_checkpoint(checkpoint, "graph.resume_point")
        value, params = checkpoint.diverged, self.keeps_weights
        lacks = value or (params and checkpoint.params is None)
        if checkpoint.parent is None or not lacks:
            return checkpoint
        fresh: str | None = None
        for segment in self.segments(checkpoint):
            if found := self._newest(segment, value=value, params=params, finite=True):
                return found
            # A generation's first checkpoint has the weights that it copies: here
            # fresh ones, if no worker has trained since.
            if segment.last > segment.first:
                fresh = None
            fresh = (fresh or segment.generation_id) if self._copies(segment) else None
        return self.root(fresh or segment.generation_id)

    def newest_value(
        self, checkpoint: Checkpoint, *, until: int = _END, params: bool = False
    ) -> Checkpoint | None:
        """Return the nearest checkpoint with a value, itself or an ancestor.

        Args:
            checkpoint: The checkpoint to begin with.
            until: The last step to look at.
            params: Whether it must have params too, unless the value is not finite.
        """
        check_checkpoint(checkpoint, "graph.newest_value")
        until = check_step(until, "until")
        if checkpoint.step <= until and closes(checkpoint, params):
            return checkpoint
        return next(self.reports_until(checkpoint, until, decides=params), None)

    def reports_until(
        self, checkpoint: Checkpoint, until: int, **needs: bool
    ) -> Iterator[Checkpoint]:
        """Yield the lineage's checkpoints up to `until` with a value, descending."""
        for name, first, last, _ in self.segments(checkpoint):
            end = min(last, until)
            yield from self.span(name, first, end, descending=True, value=True, **needs)

    def reports_since(self, checkpoint: Checkpoint, step: int) -> list[Checkpoint]:
        """Return the lineage's checkpoints from `step` on with a value, ascending."""
        check_checkpoint(checkpoint, "graph.reports_since")
        since = self._since(checkpoint, check_step(step))
        return [c for c in since if c.value is not None]

    def first_since(
        self, checkpoint: Checkpoint, step: int, *, needs_params: bool
    ) -> Checkpoint | None:
        """Return the lineage's first checkpoint from `step` on that has a value.

        Args:
            checkpoint: The last checkpoint of the lineage.
            step: The first step to look at.
            needs_params: Whether it must have params too, unless the value is not
                finite: weights that have diverged need not be saved.
        """
        before = checkpoint.parent
        if before is not None and before.step < step == checkpoint.step:
            if closes(checkpoint, needs_params):
                return checkpoint  # The usual case, without a query.
        since = self._since(checkpoint, step)
        return next((c for c in since if closes(c, needs_params)), None)

    def params_text(self, checkpoint: Checkpoint) -> str:
        """Return a checkpoint's params as the journal keeps them."""
        try:
            return run_paths.encode(checkpoint.params, self.own)
        except TypeError:  # Older versions stored deeper trees than this one allows.
            text = self._row(checkpoint.row).params
            if text is None:
                raise damaged(f"row {checkpoint.row} has no params") from None
            return text

    def forget(self) -> None:
        """Drop all that is cached, as a transaction was rolled back."""
        self._origins.clear()
        self._keeps_weights = False

    def _since(self, checkpoint: Checkpoint, step: int) -> Iterator[Checkpoint]:
        """Yield the lineage's checkpoints at or after `step`, ascending."""
        segments: list[Segment] = []
        for segment in self.segments(checkpoint):
            segments.append(segment)
            if segment.first < step:
                break
        for generation_id, _, last, _ in reversed(segments):
            yield from self.span(generation_id, step, last)

    def _copies(self, segment: Segment) -> bool:
        """Whether a generation's first checkpoint is no worse than its parent."""
        root = self.root(segment.generation_id)
        parent = self.parent(root)
        has_own = parent is not None and root.params not in (None, parent.params)
        return not (has_own or root.diverged)

    def _newest(self, segment: Segment, **needs: bool) -> Checkpoint | None:
        name, last = segment.generation_id, segment.last
        rows = self._find(Find(name, high=last, newest_first=True, limit=1, **needs))
        return checkpoint_of(rows[0], self.own) if rows else None

    def _unknown(self, generation_id: str) -> KeyError:
        with self._lock:
            return unknown(self._journal, generation_id)

    def _row(self, row: int) -> CheckpointRow:
        found = self._find(Find(after=row - 1, upto=row, limit=1))
        if not found:
            raise damaged(f"the checkpoint of row {row} is missing")
        return found[0]

    def _find(self, find: Find) -> list[CheckpointRow]:
        with self._lock:
            return self._journal.checkpoints(find)

    def _origin(self, generation_id: str) -> tuple[int, int, Ref | None]:
        """Return a generation's first row, first step and parent, which never change.

        An `lru_cache` of the method would keep this object, and so the journal, alive
        until a garbage collection.
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
