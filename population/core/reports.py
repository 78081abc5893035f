"""Decides what to record of a report: each row of the protocol's table for reports.

A report is recorded once, in its generation, from any sender and however late. Only
`shown` decides whether the mutator sees it.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from population.base import codec, run_paths
from population.base.codec import HELD
from population.base.errors import damaged
from population.base.types import Checkpoint, InMemory, Ref, Report, Saved
from population.core.graph import JournalGraph
from population.core.known import Subject, check_id
from population.core.state import RunState
from population.core.step import EncodedReport, Moment, Note, Step
from population.journal.base import MAX
from population.journal.records import Best, CheckpointRecord, Fact, Generation, Late

# Facts recorded with the first params of a run, and with the first in a memory.
SAVED, HELD_FACT = Fact("saved", "true"), Fact("held", "true")


def is_known(state: RunState | None, graph: JournalGraph, new: EncodedReport) -> bool:
    """Whether the generation of a report is recorded; the present ones cost no query.

    Args:
        state: The state of the run; None: it must be loaded again.
        graph: All checkpoints.
        new: The report.
    """
    if state is not None:
        present = state.slots[new.worker_id].generation
        if present.generation_id == new.generation_id:
            return True
    return graph.generation(new.generation_id) is not None


def check(
    size: int,
    own: str | None,
    worker_id: Any,
    generation_id: Any,
    step: Any,
    params: Any,
    value: Any,
    metrics: Any = None,
) -> EncodedReport:
    """Check a report's parts and encode them, except for params that are not a path.

    This needs no lock.

    Args:
        size: The number of slots.
        own: The prefix of paths in the run's `own` folder.
        worker_id: The slot.
        generation_id: The generation.
        step: Training steps.
        params: Params of any kind, or None.
        value: The value, or None.
        metrics: Further figures, or None.

    Raises:
        TypeError, ValueError: A part is invalid; the message names it.
    """
    if type(worker_id) is not int or not 0 <= worker_id < size:
        worker_id = check_id(size, worker_id)
    if type(step) is not int or not 0 <= step <= MAX:
        step = codec.integer(step, "step")
    if type(generation_id) is not str:
        generation_id = check_generation_id(generation_id)
    if type(value) is not float:
        value = codec.number(value)
    text = None if metrics is None else codec.encode(metrics, "metrics")
    plain = None if text is None else codec.decode(text)
    path = None
    if type(params) is str:
        is_own = own is not None and params.startswith(own)
        path = run_paths.encode(params, own) if is_own else codec.encode(params)
    return EncodedReport(
        worker_id, generation_id, step, params, path, value, plain, text
    )


def check_generation_id(generation_id: Any) -> str:
    """Return a generation id, after a check of its type.

    Raises:
        TypeError: `generation_id` is not a str.
    """
    if not isinstance(generation_id, str):
        raise TypeError(
            "generation_id must be the str that the poll handed out, got "
            f"{type(generation_id).__name__}."
        )
    return generation_id


def check_step(generation: Generation, step: int) -> None:
    """Refuse a step before the generation's first.

    Raises:
        ValueError: `step` is earlier; the message names both steps.
    """
    if step < generation.step:
        raise ValueError(
            f"step must be {generation.step} or more, where generation "
            f"{generation.generation_id!r} began, got {step}. Count on from the step "
            "that the poll handed out."
        )


def receive(
    state: RunState, graph: JournalGraph, new: EncodedReport, at: Moment
) -> Step:
    """Return the records that a report adds.

    Raises:
        ValueError: The report's step is below the generation's first.
    """
    slot = state.slots[new.worker_id]
    generation: Generation | None = slot.generation
    if new.generation_id == slot.generation.generation_id:
        if new.step == slot.newest.step:
            return _complete(state, graph, slot.generation, slot.newest, new, at)
        if new.step > slot.newest.step:
            place = slot.generation, slot.meta_params, slot.newest
            return insert(state, new, *place, at, is_newest=True)
    else:
        generation = graph.generation(new.generation_id)
    if generation is None:
        return _note(new, "is unknown; its report was dropped")
    check_step(generation, new.step)
    existing = graph.get_checkpoint(Ref(new.generation_id, new.step))
    if existing is not None:
        return _complete(state, graph, generation, existing, new, at)
    if generation.worker_id != new.worker_id:
        return _note(new, "is of another worker; a report was dropped")
    return _insert_older(state, graph, generation, new, at)


def shown(state: RunState, about: Subject | None, ready_before: int) -> Report | None:
    """Return the report that the mutator is to see, or None.

    Args:
        state: The state of the run, with the records of the report.
        about: The subject of the report.
        ready_before: The slot's `ready` before the report.
    """
    if about is None or not about.is_shown:
        return None
    worker_id = about.checkpoint.worker_id
    if not about.is_newest:
        # Late params matter, too, if only they let a decision use the checkpoint.
        ready = about.value_added or state.scores.ready[worker_id] > ready_before
        if not ready or not state.is_on_lineage(worker_id, about.checkpoint):
            return None
    return Report(worker_id, about.checkpoint)


def _insert_older(
    state: RunState,
    graph: JournalGraph,
    generation: Generation,
    new: EncodedReport,
    at: Moment,
) -> Step:
    """Record a new step of a superseded generation, or an older one of the present."""
    earlier = graph.span(new.generation_id, 0, new.step, descending=True)
    parent = next(earlier, None)
    if parent is None:
        raise damaged(f"{new.generation_id} has no checkpoint before step {new.step}")
    place = generation, parent.meta_params, parent
    step = insert(state, new, *place, at, is_newest=False)
    if generation.row == state.slots[generation.worker_id].generation.row:
        return step
    side = Note(new.generation_id, "is superseded; reports are kept as a side branch")
    return step._replace(notes=(*step.notes, side))


def insert(
    state: RunState,
    new: EncodedReport,
    generation: Generation,
    meta_params: Any,
    parent: Checkpoint | None,
    at: Moment,
    *,
    is_newest: bool,
) -> Step:
    """Record a new checkpoint, which may be the first of a generation.

    Args:
        state: The state of the run.
        new: The report of the checkpoint.
        generation: Its generation; already recorded, or with the next row.
        meta_params: The generation's hyperparameters.
        parent: The checkpoint from which it was trained or copied, or None.
        at: The time of the transaction.
        is_newest: Whether it is a later step of its slot's present generation.
    """
    row, has_value = max(state.row, generation.row) + 1, new.value is not None
    reports = state.reports + has_value
    record = CheckpointRecord(
        row,
        generation.row,
        new.step,
        None if parent is None else parent.row,
        new.params_text,
        has_value,
        new.value,
        new.metrics_text,
        at.now,
        reports,
        at.batch,
    )
    checkpoint = Checkpoint(
        new.params,
        meta_params,
        generation.generation_id,
        new.value,
        None if parent is None else Ref(parent.generation_id, parent.step),
        new.step,
        at.now,
        generation.worker_id,
        new.metrics,
        generation.reason,
        row,
    )
    about = Subject(checkpoint, is_newest, has_value, True, parent)
    first: tuple[Fact, ...] = ()
    if new.params is not None and (
        not state.has_params or type(new.params) is InMemory
    ):
        first = _first_facts(state, new.params)
    if has_value:
        best, notes = _ranked(state, checkpoint, row, reports)
        return Step((*first, record, *best), about, notes)
    return Step((*first, record), about)


def _first_facts(state: RunState, params: Any) -> tuple[Fact, ...]:
    """Return the facts to record with the first params, and the first in memory."""
    first = () if state.has_params else (SAVED,)
    if type(params) is InMemory and not state.has_held:
        return (*first, HELD_FACT)
    return first


def _complete(
    state: RunState,
    graph: JournalGraph,
    generation: Generation,
    existing: Checkpoint,
    new: EncodedReport,
    at: Moment,
) -> Step:
    """Add to an existing checkpoint the value, metrics or params that it lacks."""
    own = generation.worker_id == new.worker_id
    was_held = type(existing.params) is InMemory
    brings = new.params is not None and type(new.params) is not InMemory
    adds_params = own and brings and _may_have_params(graph, existing)
    adds_value = existing.value is None and new.value is not None
    adds_metrics = existing.metrics is None and new.metrics_text is not None
    adds_metrics = adds_metrics and (adds_value or not _differs(existing, new))
    if not (adds_params or adds_value or adds_metrics):
        return _repeated(state, generation, existing, new)
    row, reports = state.row + 1, state.reports + adds_value
    late = Late(
        row,
        existing.row,
        new.params_text if adds_params else None,
        adds_value,
        new.value if adds_value else None,
        new.metrics_text if adds_metrics else None,
        at.now,
        reports,
        at.batch,
    )
    merged = existing._replace(
        params=new.params if adds_params else existing.params,
        value=new.value if adds_value else existing.value,
        metrics=new.metrics if adds_metrics else existing.metrics,
    )
    # Params in memory counted like saved ones, so nothing has changed for a decision.
    is_shown = adds_value or (adds_params and not was_held)
    about = Subject(merged, False, adds_value, is_shown)
    first = _first_facts(state, new.params) if adds_params else ()
    best, notes = _ranked(state, merged, row, reports) if adds_value else ((), ())
    return Step((*first, late, *best), about, notes)


def _may_have_params(graph: JournalGraph, existing: Checkpoint) -> bool:
    """Whether a checkpoint never had params, or only some in a process's memory."""
    had = graph.had_params(existing)
    return had is None or had.startswith(HELD)


def _repeated(
    state: RunState, generation: Generation, existing: Checkpoint, new: EncodedReport
) -> Step:
    """Return a message for a repeated report if it contradicts the first one."""
    if not _contradicts(existing, new):
        return Step()
    at_hand = existing.row == state.slots[generation.worker_id].newest.row
    what = "was reported again with something else, which was ignored"
    hint = f" (step {new.step}; is the step counted on?)"
    level = logging.WARNING if at_hand else logging.DEBUG
    return Step(notes=(Note(new.generation_id, what, hint, level),))


def _ranked(
    state: RunState, checkpoint: Checkpoint, row: int, reports: int
) -> tuple[tuple[Best, ...], tuple[Note, ...]]:
    """Return a `Best` record for a best new value; a note if it is not finite."""
    score = state.score(checkpoint)
    if score < state.best.score:
        return (Best(row, checkpoint.row, reports),), ()
    if math.isinf(score):
        detail = (
            f": worker {checkpoint.worker_id} reported {checkpoint.value} at step "
            f"{checkpoint.step}"
        )
        level = logging.WARNING
        return (), (Note(checkpoint.generation_id, "diverged", detail, level),)
    return (), ()


def _differs(existing: Checkpoint, new: EncodedReport) -> bool:
    """Whether a report has another value than its checkpoint."""
    return new.value is not None and repr(new.value) != repr(existing.value)


def _contradicts(existing: Checkpoint, new: EncodedReport) -> bool:
    known, given = existing.metrics, new.metrics
    if None not in (known, given) and repr(known) != repr(given):
        return True
    if _differs(existing, new):
        return True
    if new.params is None or isinstance(new.params, (Saved, InMemory)):
        return False
    return bool(new.params != existing.params)


def _note(new: EncodedReport, what: str) -> Step:
    return Step(notes=(Note(new.generation_id, what),))
