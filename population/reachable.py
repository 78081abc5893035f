"""Which params may still be needed: by a decision, a restart or a worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from population.base import Checkpoint, Ref
from population.decisions import Decisions
from population.graph import CheckpointGraph
from population.leases import Leases
from population.slots import Slots


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
        for checkpoint in graph.walk(graph.resume_point(start)):
            if checkpoint.params is None:
                continue
            found[checkpoint.row] = checkpoint
            if checkpoint.value is not None and not checkpoint.diverged:
                break
    return found


def in_use(
    graph: CheckpointGraph,
    slots: Slots,
    decisions: Decisions,
    leases: Leases,
) -> dict[int, Checkpoint]:
    """The checkpoints of a run with params that may still be needed, by row."""
    starts = [slot.newest for slot in slots]
    starts += map(graph.checkpoint, refs(decisions.state))
    starts += graph.at_rows(leases.handed_out())
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


def refs(state: Any) -> Iterator[Ref]:
    """All checkpoints that a mutator's state names."""
    if isinstance(state, Ref):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from refs(value)
    elif isinstance(state, (list, tuple)):
        for value in state:
            yield from refs(value)
    elif hasattr(state, "__dataclass_fields__"):
        for name in state.__dataclass_fields__:
            yield from refs(getattr(state, name))
