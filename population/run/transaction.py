"""One transaction of an open run: it writes records, then applies them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from population.base import codec
from population.base.errors import damaged
from population.base.types import Checkpoint, Event
from population.core import branching
from population.core.decisions import Decider
from population.core.graph import JournalGraph
from population.core.membership import FAILURES
from population.core.state import RunState
from population.core.statuses import StatusRules
from population.core.step import Moment, Note, Restart, Step
from population.journal.base import Journal
from population.journal.records import CheckpointRecord, Fact, Late, Record, Status

Result = TypeVar("Result")


def within(journal: Journal, work: Callable[[], Result]) -> Result:
    """Run work in a transaction, and end that even if a Ctrl-C comes late."""
    transaction = journal.transaction()
    try:
        with transaction:
            return work()
    except BaseException as error:
        transaction.__exit__(type(error), error, None)
        raise


class Before(NamedTuple):
    """The progress of a run before a transaction.

    Attributes:
        row: The last row of the journal.
        furthest: The greatest step of any slot.
        best: The score of the best checkpoint; lower is better.
    """

    row: int
    furthest: int
    best: float


@dataclasses.dataclass(eq=False, slots=True, weakref_slot=True)
class Transaction:
    """Collects what one transaction writes; its effects follow after the commit.

    Attributes:
        journal: The journal, with an open transaction; only `do` writes to it.
        state: The run in memory; only `do` changes it.
        graph: All checkpoints.
        at: The time of the transaction.
        decider: The mutator; says with which hyperparameters a slot begins.
        rules: The rules for failures of slots.
        tells: Whether to collect `events`, because the run has an `on_event`.
        reader: This session, if it trains all slots with weights in its memory; None:
            only saved weights count.
        records: The records that `do` has written so far.
        notes: What to log after the commit.
        events: The events to pass to `on_event` after the commit.
        restarts: The slots that began a generation.
        before: The progress of the run before the transaction.
        live: The slots that were live when the mutator was last shown a report because
            some are no longer.
    """

    journal: Journal
    state: RunState
    graph: JournalGraph
    at: Moment
    decider: Decider
    rules: StatusRules
    tells: bool = False
    reader: str | None = None
    records: list[Record] = dataclasses.field(init=False)
    notes: list[Note] = dataclasses.field(init=False)
    events: list[Event] = dataclasses.field(init=False)
    restarts: list[Restart] = dataclasses.field(init=False)
    before: Before = dataclasses.field(init=False)
    live: tuple[int, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.records, self.notes, self.events, self.restarts = [], [], [], []
        state = self.state
        self.before = Before(state.row, state.furthest, state.best.score)
        self.live = state.members.live

    def do(self, step: Step) -> None:
        """Write a step's records, and apply them to the state in memory."""
        if step.records:
            self.records += step.records  # First: a failed write may be partial.
            self.journal.write(step.records)
            apply, about = self.state.apply, step.about
            for record in step.records:
                if self.tells and type(record) is Status:
                    self._tell(record)
                apply(record, about)
            if self.state.must_reread:
                self.state.reread()
        if step.notes:
            self.notes += step.notes
        if step.restart is not None:
            self.restarts.append(step.restart)

    def params(self) -> set[str]:
        """Return the encoded params that this has recorded for checkpoints so far."""
        kinds = CheckpointRecord, Late
        return {r.params for r in self.records if isinstance(r, kinds) and r.params}

    def resume(
        self, worker_id: int, reason: str = "", reader: str | None = None
    ) -> None:
        """Move a slot back to its resume point; from a divergence, this is a failure.

        Args:
            worker_id: The slot.
            reason: If given, open a new generation in any case, for this reason.
            reader: The session in whose memory the weights may be; None: only saved
                weights count.
        """
        state, graph = self.state, self.graph
        point = graph.resume_point(state.slots[worker_id].newest)
        self.within_reach(point, reader, state.row)
        place = state, graph, worker_id, self.at
        step = branching.resume(*place, reason, self.decider.first)
        if step.restart is not None:
            self.do(self.rules.diverged(state, worker_id, self.at))
        self.do(step)

    def _tell(self, status: Status) -> None:
        """Add the events of a status that is about to be applied."""
        worker_id, members = status.worker_id, self.state.members
        newest = self.state.slots[worker_id].newest
        if status.kind in FAILURES:
            self.events.append(Event("failed", worker_id, newest, status.reason))
        if status.retired and worker_id not in members.retired:
            self.events.append(Event("retired", worker_id, newest, status.reason))

    def within_reach(
        self, point: Checkpoint, reader: str | None, row: int
    ) -> Checkpoint:
        """Return the nearest resume point whose weights this process can get.

        It records that weights in the memory of other processes are gone.

        Args:
            point: The resume point to begin with.
            reader: As in `resume`.
            row: The row of the journal after which those weights were gone.

        Raises:
            JournalError: The journal is damaged: it does not find what was written.
        """
        gone: set[Record] = set()
        while lost := branching.out_of_reach(self.graph, point, reader, row):
            if gone.issuperset(lost.records):
                raise damaged("it does not find the removals that it holds")
            gone.update(lost.records)
            self.do(lost)
            point = self.graph.resume_point(self.graph.at(point.row))
        return point

    def claim_weights(self) -> None:
        """Record, once a run, that the library keeps the weights from now on."""
        if not self.graph.keeps_weights:
            text = codec.encode(self.state.row)
            self.do(Step((Fact("claimed", text),)))
