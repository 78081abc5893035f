"""Reads the state of a run from its journal: all of it, or only new records."""

from __future__ import annotations

from population.base.errors import damaged
from population.core import facts
from population.core.graph import JournalGraph
from population.core.state import RunState
from population.journal.base import Journal
from population.journal.records import Best, Fact, Lease, Loss, MutatorRecord, Status


def load(journal: Journal, graph: JournalGraph, mode: str) -> RunState:
    """Load the state of a run. O(slots + statuses), however long the history is.

    Raises:
        JournalError: The journal is damaged.
    """
    known = facts.read_all(journal)
    state = RunState(known["run"], known["size"], mode, journal, graph)
    for fact in journal.all(Fact):
        state.apply(fact)
    for worker_id in range(known["size"]):
        state.load_slot(worker_id)
    tail = journal.tail()
    state.row, state.time, state.reports = tail.row, tail.time, tail.reports
    if tail.best is not None:
        state.apply(Best(tail.row, tail.best, tail.best_reports))
    for loss in journal.all(Loss)[-1:]:
        state.apply(loss)
    for status in journal.all(Status):
        if status.number != state.members.count + 1 or status.row > tail.row:
            raise damaged(f"status {state.members.count + 1} is missing")
        state.apply(status)
    _take_in_replaced(state, journal)
    return state


def catch_up(state: RunState, journal: Journal) -> bool:
    """Apply the records that other connections have written since.

    Returns:
        True; or False if there are so many that the caller must load all again.
    """
    last = journal.tail().row
    behind = last - state.row
    if not 0 <= behind <= 4 * len(state.slots) + 256:
        return False  # Loading all is quicker.
    if not (state.has_params or state.is_claimed):
        for fact in journal.all(Fact):
            state.apply(fact)
    for record in journal.log(state.row, last):
        state.apply(record)
    _take_in_replaced(state, journal)
    state.reread()
    return True


def _take_in_replaced(state: RunState, journal: Journal) -> None:
    """Apply the kinds of records that replace older ones of their kind."""
    for lease in journal.all(Lease, state.change):
        state.apply(lease)
    for mutator in journal.all(MutatorRecord):
        state.apply(mutator)
