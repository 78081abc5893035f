"""Which params may still be needed: by a decision, a restart or a worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from population.base.types import Checkpoint, Held
from population.core.decisions import Decisions
from population.core.graph import JournalGraph
from population.core.slots import Slots

if TYPE_CHECKING:
    from population.run.open_run import Session


def reachable(
    graph: JournalGraph, starts: Iterable[Checkpoint]
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
        if _stands(start):
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
    found = named(session)
    newest = (slot.newest for slot in session.slots)
    found |= {c.row: c for c in newest if _stands(c)}
    # What is only in a memory dies with it: what is saved before it is needed too.
    held = [c for c in found.values() if type(c.params) is Held]
    for checkpoint in filter(None, (_saved_before(session.graph, c) for c in held)):
        found[checkpoint.row] = checkpoint
    return found


def named(session: Session) -> dict[int, Checkpoint]:
    """The same, but for what is only the newest of a slot, and stands by itself."""
    graph, slots, decisions = session.graph, session.slots, session.decisions
    starts = [slot.newest for slot in slots if not _stands(slot.newest)]
    starts += decisions.named()
    starts += graph.at_rows(session.leases.handed_out())
    starts += filter(None, [slots.best.checkpoint()])
    barriers = list(_barriers(slots, decisions))
    found = reachable(graph, starts + barriers)
    # A round may rest on a checkpoint that diverged; it must not lose its params.
    found.update({c.row: c for c in barriers if c.params is not None})
    return found


def _stands(checkpoint: Checkpoint) -> bool:
    """Whether it has params and a finite value: nothing before it is needed."""
    finite = checkpoint.value is not None and not checkpoint.diverged
    return finite and checkpoint.params is not None


def _saved_before(graph: JournalGraph, held: Checkpoint) -> Checkpoint | None:
    """The nearest ancestor that training can go on from after a kill."""
    for checkpoint in graph.walk(held):
        if _stands(checkpoint) and type(checkpoint.params) is not Held:
            return checkpoint
    return None


def _barriers(slots: Slots, decisions: Decisions) -> Iterator[Checkpoint]:
    """The checkpoints that undecided rounds, and the end of the run, rest on."""
    for worker_id in range(len(slots)):
        for limit in decisions.limits(worker_id):
            found = slots.barrier(worker_id, limit)
            if found is not None:
                yield found
