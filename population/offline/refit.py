"""Gives the slots of a fork the meta_params of another space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from population.base import codec
from population.base.types import Checkpoint
from population.core import branching, reports
from population.core.decisions import Decider
from population.core.decoding import decode
from population.core.state import RunState
from population.core.statuses import StatusRules
from population.core.step import EncodedReport, Moment, Step
from population.journal.base import Journal
from population.journal.records import Best, CheckpointRecord, Late
from population.run.transaction import Transaction
from population.space.structure import refitted

_REASON = "fork into another space"
_FIRST = "first hyperparameters of a fork"


def refit(
    journal: Journal,
    state: RunState,
    decider: Decider,
    space: Any,
    former: Any,
    seed: int,
) -> list[int]:
    """Open a generation for each slot whose meta_params are not in the space.

    It continues from the slot's resume point, so that no training is lost. Called
    within the transaction that makes the fork.

    Args:
        journal: The journal of the fork.
        state: The state of the fork.
        decider: The mutator of the fork.
        space: The space.
        former: The space of the meta_params before, or None (`former_space`).
        seed: The seed of the run.

    Returns:
        The number of the present generation of each slot.
    """
    # Decisions draw from [seed, d], the first population from [seed, 0, 1].
    rng = np.random.default_rng([seed, 0, 2, state.row])
    tx = _transaction(journal, state, decider)
    opened: list[tuple[int, Checkpoint, Checkpoint]] = []
    for worker_id, slot in enumerate(state.slots):
        meta_params = decode(slot.generation.meta_params)
        wanted = refitted(space, meta_params, former, rng)
        text = codec.encode(wanted, f"meta_params for worker {worker_id}")
        if codec.digest(codec.decode(text)) != codec.digest(meta_params):
            point = tx.graph.resume_point(slot.newest)
            # The slot's resume point if it diverges: so no later lineage goes back to
            # meta_params of the former space.
            origin = tx.graph.resume_point(point._replace(value=math.nan))
            place = worker_id, origin, text, _REASON, tx.at
            tx.do(branching.branch(state, tx.graph, *place))
            opened.append((worker_id, origin, point))
    # A separate transaction, as `replay` needs it.
    later = _transaction(journal, state, decider)
    for worker_id, origin, point in opened:
        _take_over(later, worker_id, origin, point)
    return [slot.generation.number for slot in state.slots]


def begin(journal: Journal, state: RunState, decider: Decider) -> None:
    """Give each slot the hyperparameters with which the mutator has it begin."""
    tx = _transaction(journal, state, decider)
    for worker_id, slot in enumerate(state.slots):
        point = tx.graph.resume_point(slot.newest)
        present = slot.generation.meta_params
        text = decider.first(worker_id, point.step, present)
        if codec.digest(decode(text)) != slot.generation.digest:
            place = worker_id, point, text, _FIRST, tx.at
            tx.do(branching.branch(state, tx.graph, *place))


def is_complete(journal: Journal, state: RunState, begun: Sequence[int]) -> bool:
    """Whether the journal has the generation with this number of each slot."""
    if len(begun) != len(state.slots):
        return False
    names = [
        f"{state.run}-{worker_id}-{number}" for worker_id, number in enumerate(begun)
    ]
    return all(journal.generations(id=name) for name in names)


def _transaction(journal: Journal, state: RunState, decider: Decider) -> Transaction:
    at = Moment(state.time, state.row + 1, state.time)
    rules = decider, StatusRules(None, divergence_fails=False)
    return Transaction(journal, state, state.graph, at, *rules)


def _take_over(
    tx: Transaction, worker_id: int, origin: Checkpoint, point: Checkpoint
) -> None:
    """Copy the value of its origin and later params to a slot's new generation.

    Args:
        tx: The transaction.
        worker_id: The slot.
        origin: The checkpoint at which its generation begins.
        point: The checkpoint from which it continues; later if it has no value.
    """
    state, graph = tx.state, tx.graph
    name = state.slots[worker_id].generation.generation_id
    value = origin.value
    if value is not None and math.isfinite(value):
        first = EncodedReport(
            worker_id, name, origin.step, None, None, value, None, None
        )
        tx.do(_uncounted(reports.receive(state, graph, first, tx.at)))
    if point.step > origin.step:
        text = None if point.params is None else graph.params_text(point)
        rest = EncodedReport(
            worker_id, name, point.step, point.params, text, None, None, None
        )
        tx.do(reports.receive(state, graph, rest, tx.at))


def _uncounted(step: Step) -> Step:
    """Return a step without counting its value, which the run has counted already."""
    kinds = CheckpointRecord, Late, Best
    records = (
        r._replace(reports=r.reports - 1) if isinstance(r, kinds) else r
        for r in step.records
    )
    return step._replace(records=tuple(records))
