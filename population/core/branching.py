"""Opens generations: at the start of a run, by a decision, and to resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from population.base import codec
from population.base.types import Checkpoint, InMemory
from population.core.graph import JournalGraph
from population.core.reports import insert
from population.core.state import RunState
from population.core.step import EncodedReport, Moment, Restart, Step
from population.journal.records import Generation, Removal

GONE = "held in a memory that is gone"  # The reason of removals for lost memory.


def is_restart(reason: str) -> bool:
    """Whether a reason is of a generation that the library opened by itself."""
    return reason in ("resume", "takeover") or reason.startswith(
        ("rejected: ", "failed: ")
    )


def start(
    state: RunState, starts: Sequence[EncodedReport], metas: Sequence[str], at: Moment
) -> Iterator[Step]:
    """Open the first generation of each slot; apply each step before the next.

    Args:
        state: The state of the run, without slots yet.
        starts: The start of each slot.
        metas: The meta_params of each, encoded.
        at: The time of the transaction.
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
    """Open a generation in which a slot continues from a checkpoint.

    Args:
        state: The state of the run.
        graph: All checkpoints.
        worker_id: The slot.
        parent: The checkpoint, whose params the first one copies; None: fresh params.
        meta_text: The hyperparameters, encoded.
        reason: The reason to record.
        at: The time of the transaction.
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
    reason: str,
    first: Callable[[int, int, str], str],
) -> Step:
    """Move a slot back to its resume point, with the hyperparameters for that step.

    Args:
        state: The state of the run.
        graph: All checkpoints.
        worker_id: The slot.
        at: The time of the transaction.
        reason: If given, open a generation in any case, for this reason; else only if
            the resume point is an earlier checkpoint.
        first: Returns the hyperparameters with which the slot begins at a step, from
            those that it has; both encoded.
    """
    slot = state.slots[worker_id]
    point = graph.resume_point(slot.newest)
    if not reason and point.row == slot.newest.row:
        return Step()
    meta_text = first(worker_id, point.step, slot.generation.meta_params)
    return branch(state, graph, worker_id, point, meta_text, reason or "resume", at)


def out_of_reach(
    graph: JournalGraph, point: Checkpoint, reader: str | None, row: int
) -> Step | None:
    """Record as gone the weights of a resume point in another process's memory.

    Apply the step and call this again, until it returns None.

    Args:
        graph: All checkpoints.
        point: A resume point.
        reader: The session whose memory counts; None: only saved weights count.
        row: The row of the journal after which the weights were gone.
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


def donor_of(graph: JournalGraph, checkpoint: Checkpoint) -> Any:
    """Return the meta_params under which a checkpoint's params were saved.

    The params of a generation's first checkpoint were saved under its parent's.
    """
    while parent := graph.parent(checkpoint):
        if checkpoint.ref != graph.root(checkpoint.generation_id).ref:
            break
        checkpoint = parent
    return checkpoint.meta_params


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
        state: The state of the run.
        new: A report with the slot, the step and the params.
        number: The number of generations that the slot had before.
        meta_text: The hyperparameters, encoded.
        reason: The reason to record.
        parent: The checkpoint that the first one copies, or None.
        at: The time of the transaction.
    """
    worker_id, meta_params = new.worker_id, codec.decode(meta_text)
    name = f"{state.run}-{worker_id}-{number}"
    what = meta_text, codec.digest(meta_params), reason
    place = state.row + 1, name, worker_id, number, new.step
    generation = Generation(*place, *what, at.now)
    step = insert(state, new, generation, meta_params, parent, at, is_newest=False)
    return step._replace(records=(generation, *step.records))
