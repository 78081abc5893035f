"""Opens generations: at the start of a run, by a decision, and to go back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from population.base import codec
from population.base.types import Checkpoint, InMemory
from population.core.graph import JournalGraph
from population.core.reports import insert
from population.core.state import RunState
from population.core.step import EncodedReport, Moment, Restart, Step
from population.journal.records import Generation, Removal

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
        yield _open(state, new, 0, meta, "start", None, at)


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
    before = slot.generation
    place = worker_id, before.generation_id, step
    new = EncodedReport(*place, params, text, None, None, None)
    opened = _open(state, new, before.number + 1, meta_text, reason, parent, at)
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
    if not lost:
        return None
    return Step(tuple(Removal(row, codec.encode_params(p), GONE) for p in sorted(lost)))


def _open(
    state: RunState,
    new: EncodedReport,
    number: int,
    meta_text: str,
    reason: str,
    parent: Checkpoint | None,
    at: Moment,
) -> Step:
    """Open a generation with a first checkpoint that has the report's step and params.

    Args:
        state: What is known.
        new: Says them, and which slot it is.
        number: How many generations the slot had before.
        meta_text: The hyperparameters, encoded.
        reason: Why.
        parent: What the first checkpoint copies, or None.
        at: When.
    """
    worker_id, meta_params = new.worker_id, codec.decode(meta_text)
    name = f"{state.run}-{worker_id}-{number}"
    what = meta_text, codec.digest(meta_params), reason
    place = state.row + 1, name, worker_id, number, new.step
    generation = Generation(*place, *what, at.now)
    step = insert(state, new, generation, meta_params, parent, at, is_newest=False)
    return step._replace(records=(generation, *step.records))
