"""Derives the decisions of a recorded run again, with its mutator or with another.

It applies the same rules to every report as the run did, in a separate run in memory,
and always applies the recorded decisions, whatever the mutator decides now. So the same
mutator must reach the same decisions, and another one shows what it would have decided
in the same situations.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from population.base import codec
from population.base.errors import damaged
from population.base.interfaces import Mutator
from population.base.refusals import shortly
from population.base.types import Branch, InMemory, Ref, Report
from population.core import reports
from population.core.decisions import Decider
from population.core.decoding import decode
from population.core.facts import read_all
from population.core.graph import JournalGraph
from population.core.known import Subject
from population.core.reports import SAVED
from population.core.state import RunState
from population.journal.base import Journal
from population.journal.records import (
    Best,
    CheckpointRecord,
    Fact,
    Generation,
    Late,
    Loss,
    Record,
)
from population.journal.sqlite import SqliteJournal
from population.offline import transactions
from population.offline.transactions import RecordedTransaction

if TYPE_CHECKING:
    from population.controller import PopulationController

_NOT_DECIDED = ("resume", "takeover", "rejected: ")
Opened = tuple[Generation, CheckpointRecord]


@dataclasses.dataclass(frozen=True)
class Decision:
    """The recorded and the derived decision after a report.

    Attributes:
        row: The last row of the journal that the mutator could see.
        checkpoint: The checkpoint of the report.
        worker_id: The slot of the report.
        recorded: The branches of the run, by worker id.
        derived: The branches of the mutator passed to `replay`.
    """

    row: int
    checkpoint: Ref
    worker_id: int
    recorded: Mapping[int, Branch]
    derived: Mapping[int, Branch]

    @property
    def same(self) -> bool:
        """Whether both continue from the same checkpoints with the same meta_params."""
        return _plain(self.recorded) == _plain(self.derived)

    def __str__(self) -> str:
        place = f"worker {self.worker_id} at step {self.checkpoint.step}"
        if self.same:
            return f"row {self.row}, {place}: {_told(self.recorded)}"
        return (
            f"row {self.row}, {place}: recorded {_told(self.recorded)}; "
            f"derived {_told(self.derived)}"
        )


@dataclasses.dataclass(frozen=True)
class Replay:
    """The decisions of a run, compared with those of a mutator.

    Attributes:
        decisions: All reports after which either of them branched.
        updates: The number of reports that the mutator saw.
    """

    decisions: Sequence[Decision]
    updates: int

    @property
    def first_difference(self) -> Decision | None:
        """The first decision that differs; None if all are the same."""
        return next((d for d in self.decisions if not d.same), None)

    def __str__(self) -> str:
        differing = sum(not decision.same for decision in self.decisions)
        lines = [
            f"{len(self.decisions)} decisions after {self.updates} reports, "
            f"{differing} of them other than recorded."
        ]
        if self.first_difference is not None:
            lines.append(f"The first: {self.first_difference}.")
        return "\n".join(lines)


def replay(
    run: PopulationController | str | os.PathLike[str], mutator: Mutator[Any]
) -> Replay:
    """Show a mutator all reports of a recorded run again. The run is not changed.

    Args:
        run: The run folder, or a controller that has one.
        mutator: The run's mutator, to check it; or another one, to see what it would
            have decided. Its `mutate_fn` must be pure except for its `rng`.

    Returns:
        All decisions, the recorded and the derived ones.

    Raises:
        JournalError: The folder holds no run, or it cannot be read.
    """
    if not isinstance(mutator, Mutator):
        raise TypeError(
            "replay needs the run's mutator, an object of a class of policies, got "
            f"{shortly(mutator)}."
        )
    folder = transactions.folder_of(run)
    journal = transactions.open_journal(folder)
    in_memory = contextlib.closing(SqliteJournal())
    with contextlib.closing(journal), in_memory as copy, copy.transaction():
        with journal.reading():
            replayer = _Replayer(journal, copy, mutator, folder)
        return replayer.run()


class _Replayer:
    """A run in memory that repeats a recorded one.

    Args:
        source: The journal of the recorded run.
        journal: The journal of the run in memory; empty.
        mutator: The mutator to show the reports.
        folder: The run folder.
    """

    def __init__(
        self,
        source: Journal,
        journal: Journal,
        mutator: Mutator[Any],
        folder: pathlib.Path,
    ) -> None:
        facts = read_all(source)
        # Rows up to this one never change, so that a run that continues meanwhile need
        # not keep its log for this reader.
        self._end = source.tail().row
        self._source = source
        self._forked = int(facts.get("forked", {"row": 0})["row"])
        self._claimed = int(facts.get("claimed", -1))
        self._journal = journal
        kept = ("run", "size", "mode", "seed")
        self._journal.write([Fact(key, codec.encode(facts[key])) for key in kept])
        self._graph = JournalGraph(self._journal, threading.RLock(), folder)
        start = facts["run"], facts["size"], facts["mode"]
        self._state = RunState(*start, self._journal, self._graph)
        self._decider = Decider(mutator, self._graph, facts["seed"], None)
        self._value: Any = None
        self._count = 0
        self._found: list[Decision] = []
        self._updates = 0
        self._reminded: tuple[int, float] | None = None

    def run(self) -> Replay:
        """Repeat all transactions, and return the decisions."""
        for transaction in transactions.transactions(self._source, self._end):
            self._claim()
            if transaction.first > max(self._forked, 1):
                if self._forked:
                    self._forked = 0
                    self._begin()
                self._follow(transaction)
            else:  # Another run decided the transactions that a fork has copied.
                self._put(*transaction.reports, *_flat(transaction.opened))
            if transaction.first == 1:
                self._claim()
                self._begin()
            for record in transaction.after:
                if isinstance(record, Loss):
                    self._remind([])
                    if record.told is not None:
                        self._reminded = record.told, record.time
                self._put(record)
        self._remind([])
        return Replay(self._found, self._updates)

    def _begin(self) -> None:
        """Set the mutator's first state."""
        self._state.apply(self._decider.init(self._state))
        self._value, self._count = self._decider.value(self._state), 0

    def _follow(self, transaction: RecordedTransaction) -> None:
        opened = list(transaction.opened)
        if not transaction.reports and self._reminded is not None:
            decided = [o for o in opened if not self._is_forced(o)]
            self._remind(decided)
            opened = [o for o in opened if o not in decided]
        else:
            self._remind([])
        due = []
        for record in transaction.reports:
            if isinstance(record, Best):
                self._put(record)
            elif report := self._report(record):
                due.append(report)
        if due:
            due.sort(key=lambda report: report.worker_id)
            opened = self._ask(due, opened, self._state.time)
        self._put(*_flat(opened))

    def _ask(
        self, due: Sequence[Report], opened: list[Opened], now: float
    ) -> list[Opened]:
        """Show the mutator reports, and apply the generations opened after each.

        If a transaction has several reports, the journal does not record after which
        of them a branch was decided: this takes the one where the mutator derives it,
        or else the last.
        """
        branched: set[int] = set()
        for number, report in enumerate(due):
            if report.worker_id in branched:
                continue
            derived = self._derived(report, now)
            last = number == len(due) - 1
            count = len(opened) if last else _agreeing(opened, derived)
            present, opened = opened[:count], opened[count:]
            self._note(report, present, derived)
            for branch in present:
                self._put(*branch)
                branched.add(branch[0].worker_id)
        return opened

    def _derived(self, report: Report, now: float) -> dict[int, Branch]:
        """Return the mutator's branches, each from its parent's resume point."""
        self._updates += 1
        after, branches = self._decider.update(
            self._state, self._value, self._count, report, now
        )
        if branches or after is not self._value:
            self._value, self._count = after, self._count + 1
        found = {}
        for worker_id, branch in sorted(branches.items()):
            parent = branch.parent
            if parent is not None:
                parent = self._graph.resume_point(parent)
            meta = codec.normalized(branch.meta_params, "meta_params")
            found[worker_id] = Branch(parent, meta, branch.reason)
        return found

    def _note(
        self, report: Report, opened: Sequence[Opened], derived: Mapping[int, Branch]
    ) -> None:
        if opened or derived:
            was = {g.worker_id: self._branch(g, root) for g, root in opened}
            row, ref = self._state.row, report.checkpoint.ref
            self._found.append(Decision(row, ref, report.worker_id, was, derived))

    def _branch(self, generation: Generation, root: CheckpointRecord) -> Branch:
        found = None if root.parent is None else self._graph.at(root.parent)
        return Branch(found, decode(generation.meta_params), generation.reason)

    def _remind(self, opened: list[Opened]) -> None:
        """Show the mutator a report again, as the run did after a slot was given up."""
        if self._reminded is None:
            return
        (worker_id, now), self._reminded = self._reminded, None
        if worker_id >= len(self._state.slots):
            raise damaged(f"it names worker {worker_id}, which does not exist")
        newest = self._graph.newest_value(self._state.slots[worker_id].newest)
        if newest is not None:
            self._ask([Report(worker_id, newest)], opened, now)

    def _report(self, record: CheckpointRecord | Late) -> Report | None:
        """Apply a recorded report; return the report for the mutator, or None."""
        late = isinstance(record, Late)
        row = record.checkpoint if isinstance(record, Late) else record.row
        # Params in memory counted like saved ones, so nothing changed for a decision.
        held = late and type(self._graph.at(row).params) is InMemory
        ready = self._state.scores.ready.copy()
        self._put(record)
        found, value_added = self._graph.at(row), bool(record.has_value)
        newest = self._state.slots[found.worker_id].newest
        is_newest = not late and newest.row == row
        about = Subject(found, is_newest, value_added, value_added or not held)
        return reports.news(self._state, about, int(ready[found.worker_id]))

    def _put(self, *records: Record) -> None:
        """Write and apply records of the run."""
        for record in records:
            params = getattr(record, "params", None)
            new = isinstance(record, CheckpointRecord | Late) and params is not None
            if new and not self._state.has_params:
                self._journal.write([SAVED])
            self._journal.write([record])
            self._state.apply(record)
            self._state.settle()

    def _claim(self) -> None:
        """Record, at the same row as the run, that the library keeps the weights."""
        if 0 <= self._claimed <= self._state.row and not self._state.is_claimed:
            self._put(Fact("claimed", codec.encode(self._claimed)))

    def _is_forced(self, opened: Opened) -> bool:
        """Whether a generation was opened by a restart or a takeover."""
        generation = opened[0]
        present = self._state.slots[generation.worker_id].generation
        unchanged = generation.digest == present.digest
        return unchanged and generation.reason.startswith(_NOT_DECIDED)


def _flat(opened: Sequence[Opened]) -> list[Record]:
    """Return generations, each followed by its first checkpoint."""
    return [record for pair in opened for record in pair]


def _agreeing(opened: Sequence[Opened], derived: Mapping[int, Branch]) -> int:
    """Return how many of the next generations are the derived branches: all or 0."""
    if len(opened) < len(derived):
        return 0
    for (generation, _), (worker_id, branch) in zip(
        opened, derived.items(), strict=False
    ):
        same = codec.digest(branch.meta_params) == generation.digest
        if generation.worker_id != worker_id or not same:
            return 0
    return len(derived)


def _plain(branches: Mapping[int, Branch]) -> dict[int, tuple[Ref | None, str]]:
    return {
        worker_id: (
            None if branch.parent is None else branch.parent.ref,
            codec.digest(branch.meta_params),
        )
        for worker_id, branch in branches.items()
    }


def _told(branches: Mapping[int, Branch]) -> str:
    if not branches:
        return "no branch"
    return ", ".join(
        f"worker {worker_id} from {_place(branch)} with {branch.meta_params!r}"
        for worker_id, branch in sorted(branches.items())
    )


def _place(branch: Branch) -> str:
    if branch.parent is None:
        return "fresh params"
    return f"step {branch.parent.step} of {branch.parent.generation_id}"
