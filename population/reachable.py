"""Which params may still be needed: by a decision, a restart or a worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from population.base import Checkpoint, Ref
from population.graph import CheckpointGraph


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
