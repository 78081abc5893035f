"""Opens generations: at the start of a run, by a decision, and to go back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from population.base import codec
from population.base.types import Checkpoint, InMemory
from population.core.graph import JournalGraph
from population.core.known import Subject
from population.core.reports import first_facts
from population.core.state import RunState
from population.core.step import EncodedReport, Moment, Restart, Step
from population.journal.records import CheckpointRecord, Generation, Removal

GONE = "held in a memory that is gone"  # Why params in the memory of others go.


def start(
    state: RunState, starts: Sequence[EncodedReport], metas: Sequence[str], at: Moment
) -> Iterator[Step]:
    """The first generation of each slot; each step is applied before the next.

    Args:
        state: What is known of the run: nothing yet.
        starts: Where each slot begins.
        metas: The meta_params of each, encoded.
        at: When.
    """
    for new, meta in zip(starts, metas, strict=True):
        place = new.worker_id, 0, new.step, meta
        yield _open(state, place, "start", None, new.params, new.params_text, at)


def branch(
    state: RunState,
    graph: JournalGraph,
    worker_id: int,
    parent: Checkpoint | None,
    meta_text: str,
    reason: str,
    at: Moment,
) -> Step:
    """A slot goes on from a checkpoint, whose params its first checkpoint copies.

    Args:
        state: What is known.
        graph: All checkpoints.
        worker_id: The slot.
        parent: The checkpoint; None: fresh params at step 0.
        meta_text: The hyperparameters, encoded.
        reason: Why.
        at: When.
    """
    slot = state.slots[worker_id]
    step = 0 if parent is None else parent.step
    params = text = None
    if parent is not None and parent.params is not None:
        params, text = parent.params, graph.params_text(parent)
    place = worker_id, slot.generation.number + 1, step, meta_text
    opened = _open(state, place, reason, parent, params, text, at)
    loses = parent is not None and parent.params is None
    loses_all = loses and step < slot.newest.step
    return opened._replace(restart=Restart(worker_id, loses_all, slot.newest.diverged))


def resume(
    state: RunState,
    graph: JournalGraph,
    worker_id: int,
    at: Moment,
    reason: str = "",
) -> Step:
    """A slot goes back to its resume point, with the same hyperparameters.

    Args:
        state: What is known.
        graph: All checkpoints.
        worker_id: The slot.
        at: When.
        reason: Open a generation in any case, for this reason; else only if the resume
            point lies further back.
    """
    slot = state.slots[worker_id]
    point = graph.resume_point(slot.newest)
    if not reason and point.row == slot.newest.row:
        return Step()
    meta_text = slot.generation.meta_params
    return branch(state, graph, worker_id, point, meta_text, reason or "resume", at)


def out_of_reach(
    graph: JournalGraph, point: Checkpoint, reader: str | None, row: int
) -> Step | None:
    """Record that no slot can go on from what is in the memory of another process.

    To be applied and asked again, until there is nothing to record.

    Args:
        graph: All checkpoints.
        point: A resume point.
        reader: In whose memory the weights may be; None: only saved weights count.
        row: After which row of the journal they were gone.
    """
    lost: set[InMemory] = set()
    for checkpoint in graph.walk(point):
        params = checkpoint.params
        if type(params) is InMemory and params.session != reader:
            lost.add(params)
        elif params is not None or not lost:
            break
    texts = [codec.encode_params(params) for params in sorted(lost)]
    return Step(tuple(Removal(row, t, GONE) for t in texts)) if lost else None


def _open(
    state: RunState,
    slot: tuple[int, int, int, str],
    reason: str,
    parent: Checkpoint | None,
    params: Any,
    params_text: str | None,
    at: Moment,
) -> Step:
    worker_id, number, step, meta_text = slot
    row, meta_params = state.row + 1, codec.decode(meta_text)
    before = state.slots[worker_id].generation if number else None
    if before is not None and before.meta_params == meta_text:
        digest = before.digest  # The usual case at a restart or a takeover.
    else:
        digest = codec.digest(meta_params)
    name = f"{state.run}-{worker_id}-{number}"
    place = row, name, worker_id, number, step
    generation = Generation(*place, meta_text, digest, reason, at.now)
    record = CheckpointRecord(
        row=row + 1,
        generation=row,
        step=step,
        parent=None if parent is None else parent.row,
        params=params_text,
        has_value=False,
        value=None,
        metrics=None,
        time=at.now,
        reports=state.reports,
        batch=at.batch,
    )
    root = Checkpoint(
        params=params,
        meta_params=meta_params,
        generation_id=name,
        value=None,
        parent=None if parent is None else parent.ref,
        step=step,
        time=at.now,
        worker_id=worker_id,
        reason=reason,
        row=row + 1,
    )
    first = () if params is None else first_facts(state, params)
    return Step((*first, generation, record), Subject(root, parent=parent))
