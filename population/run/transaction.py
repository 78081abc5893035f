"""One transaction of an open run: records are written, then applied."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from population.base import codec
from population.base.types import Checkpoint, Event
from population.core import branching
from population.core.graph import JournalGraph
from population.core.state import RunState
from population.core.step import Moment, Note, Restart, Step
from population.journal.base import Journal
from population.journal.records import CheckpointRecord, Fact, Late, Record

Result = TypeVar("Result")


def within(journal: Journal, work: Callable[[], Result]) -> Result:
    """The result of work in a transaction, which ends even if a Ctrl-C comes late."""
    transaction = journal.transaction()
    try:
        with transaction:
            return work()
    except BaseException as error:
        transaction.__exit__(type(error), error, None)
        raise


class Before(NamedTuple):
    """How far a run had come before a transaction.

    Attributes:
        row: The last row.
        furthest: The greatest step of any slot.
        best: The score of the best checkpoint.
    """

    row: int
    furthest: int
    best: float


@dataclasses.dataclass(eq=False, slots=True, weakref_slot=True)
class Transaction:
    """What is done within a transaction; its effects follow after the commit.

    Attributes:
        journal: Its transaction is open; `do` alone writes.
        state: What is known; changed by `do` alone.
        graph: All checkpoints.
        at: When.
        tells: Whether events are wanted.
        reader: The session that trains all slots, if it is this one: weights in the
            memory of others do not count for it.
        records: What was written so far.
        notes: What is to be logged after the commit.
        events: What `on_event` is to be told after the commit.
        restarts: The slots that began a generation.
        before: How far the run had come before.
    """

    journal: Journal
    state: RunState
    graph: JournalGraph
    at: Moment
    tells: bool = False
    reader: str | None = None
    records: list[Record] = dataclasses.field(init=False)
    notes: list[Note] = dataclasses.field(init=False)
    events: list[Event] = dataclasses.field(init=False)
    restarts: list[Restart] = dataclasses.field(init=False)
    before: Before = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.records, self.notes, self.events, self.restarts = [], [], [], []
        state = self.state
        self.before = Before(state.row, state.furthest, state.best.score)

    def do(self, step: Step) -> None:
        """Write a step's records, and apply them to what is known."""
        if step.records:
            self.records += step.records  # What fails may have been written in part.
            self.journal.write(step.records)
            apply, about = self.state.apply, step.about
            for record in step.records:
                apply(record, about)
            if self.state.must_reread:
                self.state.settle()
        if step.notes:
            self.notes += step.notes
        if step.restart is not None:
            self.restarts.append(step.restart)

    def params(self) -> set[str]:
        """The params, encoded, that were recorded for checkpoints so far."""
        kinds = CheckpointRecord, Late
        return {r.params for r in self.records if isinstance(r, kinds) and r.params}

    def resume(
        self, worker_id: int, reason: str = "", reader: str | None = None
    ) -> None:
        """Have a slot go back to its resume point.

        Args:
            worker_id: The slot.
            reason: Open a generation in any case, for this reason.
            reader: The session in whose memory the weights may be; None: in no memory.
        """
        state, graph = self.state, self.graph
        point = graph.resume_point(state.slots[worker_id].newest)
        self.within_reach(point, reader, state.row)
        self.do(branching.resume(state, graph, worker_id, self.at, reason))

    def within_reach(
        self, point: Checkpoint, reader: str | None, row: int
    ) -> Checkpoint:
        """A resume point, or the one before it whose weights are not elsewhere.

        Args:
            point: The resume point.
            reader: As in `resume`.
            row: After which row of the journal those elsewhere were gone.
        """
        while lost := branching.out_of_reach(self.graph, point, reader, row):
            self.do(lost)
            point = self.graph.resume_point(self.graph.at(point.row))
        return point

    def claim_weights(self) -> None:
        """Record that from now on the library keeps the weights, if it is new."""
        if not self.graph.keeps_weights:
            text = codec.encode(self.state.row)
            self.do(Step((Fact("claimed", text),)))
