"""Which params may still be needed: by a decision, a restart or a worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from population.base import Checkpoint
from population.decisions import Decisions
from population.graph import CheckpointGraph
from population.slots import Slots

if TYPE_CHECKING:
    from population.session import Session


def reachable(
    graph: CheckpointGraph, starts: Iterable[Checkpoint]
) -> dict[int, Checkpoint]:
    """The checkpoints with params that training may go on from.

    From the resume point of each start back to the nearest with params and a finite
    value: what has none yet may turn out to have diverged.

    Args:
        graph: All checkpoints.
        starts: What is in use: the slots' newest, those that the mutator's state
            names, the best, those that undecided rounds rest on.

    Returns:
        The checkpoints by row.
    """
    found: dict[int, Checkpoint] = {}
    for start in {checkpoint.row: checkpoint for checkpoint in starts}.values():
        finite = start.value is not None and not start.diverged
        if finite and start.params is not None:
            found[start.row] = start  # The usual case, in no time.
            continue
        for checkpoint in graph.walk(graph.resume_point(start)):
            if checkpoint.params is None:
                continue
            found[checkpoint.row] = checkpoint
            if checkpoint.value is not None and not checkpoint.diverged:
                break
    return found


def in_use(session: Session) -> dict[int, Checkpoint]:
    """The checkpoints of a run with params that may still be needed, by row."""
    graph, slots, decisions = session.graph, session.slots, session.decisions
    starts = [slot.newest for slot in slots]
    starts += map(graph.checkpoint, decisions.refs())
    starts += graph.at_rows(session.leases.handed_out())
    best = graph.best()
    starts += [] if best is None else [best]
    barriers = list(_barriers(slots, decisions))
    found = reachable(graph, starts + barriers)
    # A round may rest on a checkpoint that diverged; it must not lose its params.
    found.update({c.row: c for c in barriers if c.params is not None})
    return found


def _barriers(slots: Slots, decisions: Decisions) -> Iterator[Checkpoint]:
    """The checkpoints that undecided rounds, and the end of the run, rest on."""
    for worker_id in range(len(slots)):
        for limit in decisions.limits(worker_id):
            found = slots.barrier(worker_id, limit)
            if found is not None:
                yield found
