"""Finds the params that a decision, a restart or a worker may still need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from population.base import codec
from population.base.types import Checkpoint, InMemory, Saved
from population.core.branching import GONE
from population.core.decisions import Decider
from population.core.graph import JournalGraph
from population.core.leases import handed_out
from population.core.state import RunState
from population.core.step import EncodedReport, Step
from population.journal.records import UNREACHABLE, Removal


def reachable(
    state: RunState, graph: JournalGraph, decider: Decider
) -> dict[int, Checkpoint]:
    """Return the checkpoints of a run whose params may still be needed, by row."""
    found = _named(state, graph, decider)
    newest = (slot.newest for slot in state.slots)
    found |= {c.row: c for c in newest if _suffices(c)}
    # Weights in memory end with their process: so keep saved ones from before, too.
    held = [c for c in found.values() if type(c.params) is InMemory]
    for checkpoint in filter(None, (_saved_before(graph, c) for c in held)):
        found[checkpoint.row] = checkpoint
    return found


def spares(state: RunState, graph: JournalGraph, count: int) -> dict[int, Checkpoint]:
    """Return, by row, saved checkpoints from which each slot could continue instead.

    They are in use only if the save of a slot's resume point is lost.

    Args:
        state: The state of the run.
        graph: All checkpoints.
        count: How many older saves each slot has.
    """
    found: dict[int, Checkpoint] = {}
    for slot in state.slots if count else ():
        saved: dict[str, Checkpoint] = {}  # A branch and its donor share a save.
        for checkpoint in graph.walk(graph.resume_point(slot.newest)):
            if _suffices(checkpoint) and type(checkpoint.params) is Saved:
                saved.setdefault(checkpoint.params.path, checkpoint)
                if len(saved) > count:
                    break
        found.update((c.row, c) for c in saved.values())
    return found


def behind(
    graph: JournalGraph, needed: Iterable[Checkpoint], lost: Collection[str]
) -> dict[int, Checkpoint]:
    """Return, by row, the saved checkpoints that take the place of lost ones.

    Args:
        graph: All checkpoints.
        needed: The checkpoints whose params may be needed.
        lost: The paths of saves that are lost.
    """
    found: dict[int, Checkpoint] = {}
    for start in needed if lost else ():
        if type(start.params) is not Saved or start.params.path not in lost:
            continue
        for checkpoint in graph.walk(start):
            if type(checkpoint.params) is Saved and not checkpoint.diverged:
                found[checkpoint.row] = checkpoint
                is_there = checkpoint.params.path not in lost
                if is_there and _suffices(checkpoint):
                    break
    return found


def needed_in_memory(
    state: RunState, graph: JournalGraph, decider: Decider, reader: str
) -> frozenset[InMemory]:
    """Return weights in a process's memory that may be needed after its slots train.

    Args:
        state: The state of the run.
        graph: All checkpoints.
        decider: The mutator.
        reader: The session of the process.
    """
    held = _held(_named(state, graph, decider).values())
    return frozenset(params for params in held if params.session == reader)


def lose(
    state: RunState,
    graph: JournalGraph,
    decider: Decider,
    is_lost: Callable[[InMemory], bool],
) -> Step:
    """Record that needed weights were in a memory that is gone.

    Of other weights, `branching.out_of_reach` notices the loss when a slot resumes.
    """
    if not state.has_held:
        return Step()
    found = [slot.newest for slot in state.slots]
    found += _named(state, graph, decider).values()
    lost = sorted(filter(is_lost, _held(found)))
    return Step(tuple(Removal(state.row, codec.encode_params(p), GONE) for p in lost))


def forget(
    state: RunState,
    graph: JournalGraph,
    decider: Decider,
    gone: Collection[InMemory],
    new: Iterable[EncodedReport],
) -> Step:
    """Record that weights are in no memory any more, before the reports of a batch.

    Args:
        state: The state of the run.
        graph: All checkpoints.
        decider: The mutator.
        gone: The weights.
        new: The reports; their slots have trained further.
    """
    trained = {report.worker_id for report in new if _extends(state, report)}
    standing = [slot.newest for w, slot in enumerate(state.slots) if w not in trained]
    missed = _held([*_named(state, graph, decider).values(), *standing])
    found = ((p, GONE if p in missed else UNREACHABLE) for p in sorted(gone))
    row = state.row
    return Step(tuple(Removal(row, codec.encode_params(p), why) for p, why in found))


def resumable(
    graph: JournalGraph, starts: Iterable[Checkpoint]
) -> dict[int, Checkpoint]:
    """Return the checkpoints with params from which training may continue, by row.

    For each start: from its resume point back to the nearest with params and a finite
    value, as a checkpoint without a value may turn out to have diverged.

    Args:
        graph: All checkpoints.
        starts: The checkpoints in use: the slots' newest, those that the mutator's
            state names, the best, those at the barriers of undecided rounds.
    """
    found: dict[int, Checkpoint] = {}
    for start in {checkpoint.row: checkpoint for checkpoint in starts}.values():
        if _suffices(start):
            found[start.row] = start  # The usual case, without a query.
            continue
        for checkpoint in graph.walk(graph.resume_point(start)):
            if checkpoint.params is None:
                continue
            found[checkpoint.row] = checkpoint
            if checkpoint.value is not None and not checkpoint.diverged:
                break
    return found


def _named(
    state: RunState, graph: JournalGraph, decider: Decider
) -> dict[int, Checkpoint]:
    """Return needed checkpoints, except newest ones with params and finite values."""
    starts = [slot.newest for slot in state.slots if not _suffices(slot.newest)]
    starts += decider.named(state)
    rows = [*handed_out(state), state.best.row]
    starts += [graph.at(row) for row in rows if row is not None]
    barriers: Collection[Checkpoint] = list(decider.barriers(state))
    found = resumable(graph, [*starts, *barriers])
    # A decision may use a barrier checkpoint that diverged: it must keep its params.
    found.update({c.row: c for c in barriers if c.params is not None})
    return found


def _held(checkpoints: Iterable[Checkpoint]) -> set[InMemory]:
    """Return those params of checkpoints that are only in a process's memory."""
    return {c.params for c in checkpoints if type(c.params) is InMemory}


def _extends(state: RunState, new: EncodedReport) -> bool:
    """Whether a report has a new step of its slot's present generation."""
    slot = state.slots[new.worker_id]
    own = new.generation_id == slot.generation.generation_id
    return own and new.step > slot.newest.step


def _suffices(checkpoint: Checkpoint) -> bool:
    """Whether it has params and a finite value: nothing before it is needed."""
    finite = checkpoint.value is not None and not checkpoint.diverged
    return finite and checkpoint.params is not None


def _saved_before(graph: JournalGraph, held: Checkpoint) -> Checkpoint | None:
    """Return the nearest ancestor from which training can continue after a kill."""
    for checkpoint in graph.walk(held):
        if _suffices(checkpoint) and type(checkpoint.params) is not InMemory:
            return checkpoint
    return None
