"""Access of the test kit to a run beyond the controller's public methods."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from population.base.types import Checkpoint
from population.controller import PopulationController
from population.journal.records import MutatorRecord, Status
from population.journal.sqlite import SqliteJournal
from population.run import deadlock, facts, polls


def end_nothing(controller: PopulationController) -> None:
    """Let a run without progress continue: a script or a budget ends it."""
    controller.open_run.guards.end_nothing()


def waits(controller: PopulationController, worker_id: int) -> bool:
    """Whether a slot waits for a decision, or for the end of the run."""
    run = controller.open_run
    with run.lock.lock:
        return run.waits(worker_id)


def newest(controller: PopulationController, worker_id: int) -> Checkpoint:
    """Return the checkpoint from which a slot continues, or which it has reported."""
    run = controller.open_run
    with run.lock.lock:
        return run.state().slots[worker_id].newest


def live(controller: PopulationController) -> Sequence[int]:
    """Return the worker ids of slots neither retired nor given up, ascending."""
    run = controller.open_run
    with run.lock.lock:
        return run.state().members.live


def retired(controller: PopulationController) -> Collection[int]:
    """Return the worker ids of retired slots."""
    run = controller.open_run
    with run.lock.lock:
        return run.state().members.retired


def statuses(controller: PopulationController) -> Mapping[int, Status]:
    """Return the newest status of each slot that has one, by worker id."""
    run = controller.open_run
    with run.lock.lock:
        return dict(run.state().members.statuses)


def give_up(controller: PopulationController, slots: Collection[int]) -> None:
    """Give up exactly these slots, without showing the mutator a value again."""
    polls.give_up(controller.open_run, slots, exactly=True, ask=False)


def why_it_never_ends(controller: PopulationController, waiting: Sequence[int]) -> str:
    """Return the error text of a run in which all of these slots wait."""
    return deadlock.never(controller.open_run, waiting)


def mutator_state(journal: SqliteJournal) -> str:
    """Return the mutator's state as the journal keeps it; "" before the first."""
    recorded = journal.all(MutatorRecord)
    return recorded[0].state if recorded else ""


@contextlib.contextmanager
def run_token(token: str) -> Iterator[None]:
    """Let generation ids of runs that are opened in the block begin with a token."""
    place = vars(facts)
    before = place["new_token"]
    place["new_token"] = lambda: token
    try:
        yield
    finally:
        place["new_token"] = before


@contextlib.contextmanager
def each_statement(
    journal: SqliteJournal, call: Callable[[str], object]
) -> Iterator[None]:
    """Call something with each SQL statement that is executed within the block."""
    connection = journal.raw
    connection.set_trace_callback(call)
    try:
        yield
    finally:
        connection.set_trace_callback(None)
