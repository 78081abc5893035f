"""What follows from a lineage: its schedule of hyperparameters."""

from __future__ import annotations

from population.base import codec
from population.base.schedule import Schedule
from population.base.types import Checkpoint
from population.core.graph import JournalGraph


def schedule(graph: JournalGraph, checkpoint: Checkpoint) -> Schedule:
    """Return the hyperparameters over steps that led to a checkpoint."""
    roots = [graph.root(segment[0]) for segment in graph.segments(checkpoint)]
    changes: dict[int, object] = {}
    before: str | None = None
    for root in reversed(roots):
        now = codec.digest(root.meta_params)
        if now != before or root.step in changes:
            changes[root.step] = root.meta_params
        before = now
    return Schedule(changes)
