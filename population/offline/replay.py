"""Derives the decisions of a recorded run again, with its mutator or with another.

It applies the same rules to every report as the run did, in a separate run in memory,
and always applies the recorded decisions, whatever the mutator decides now. So the same
mutator must reach the same decisions, and another one shows what it would have decided
in the same situations.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

from population.base import codec
from population.base.errors import damaged
from population.base.interfaces import Mutator
from population.base.refusals import shortly
from population.base.types import Branch, Checkpoint, Failure, InMemory, Report, Retire
from population.core import reports
from population.core.branching import is_restart
from population.core.checked import Decisions, by_worker
from population.core.decisions import Decider
from population.core.decoding import decode
from population.core.facts import read_all
from population.core.graph import JournalGraph
from population.core.known import Subject
from population.core.reports import SAVED
from population.core.state import RunState
from population.journal.base import Journal
from population.journal.records import (
    CheckpointRecord,
    Fact,
    Late,
    Loss,
    Record,
    Status,
)
from population.journal.sqlite import SqliteJournal
from population.offline import transactions
from population.offline.comparison import Decision, Replay
from population.offline.transactions import Entry, Happening, Opened

if TYPE_CHECKING:
    from population.controller import PopulationController


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
        self._now = 0.0
        self._has_begun = False

    def run(self) -> Replay:
        """Repeat all that happened, and return the decisions."""
        for happening in transactions.happenings(self._source, self._end):
            self._claim()
            if happening.row > max(self._forked, 1):
                if self._forked:
                    self._forked = 0
                    self._begin()
                self._follow(happening)
            else:  # Another run decided what a fork has copied.
                self._put(*happening.reports)
                if happening.cause is not None:
                    self._put(happening.cause)
                for entry in happening.followed:
                    self._put(*_flat(entry))
            if happening.row == 1 and not self._has_begun:
                self._claim()
                self._begin()
        return Replay(self._found, self._updates)

    def _begin(self) -> None:
        """Set the mutator's first state."""
        self._has_begun = True
        self._state.apply(self._decider.init(self._state))
        self._value, self._count = self._decider.value(self._state), 0

    def _follow(self, happening: Happening) -> None:
        """Repeat what was reported, and compare the decisions that followed."""
        cause = happening.cause
        due: Sequence[Report | Failure]
        if cause is None:
            due = self._reports(happening.reports)
            self._now = self._state.time
        else:
            self._put(cause)
            self._now = cause.time
            due = self._told(cause)
        for entry in self._ask(due, happening.followed):
            self._put(*_flat(entry))

    def _reports(self, records: Sequence[Record]) -> list[Report]:
        """Apply recorded reports; return those that the mutator is to see."""
        due = []
        for record in records:
            if not isinstance(record, CheckpointRecord | Late):
                self._put(record)
            elif report := self._report(record):
                due.append(report)
        return sorted(due, key=lambda report: report.worker_id)

    def _told(self, cause: Status | Loss) -> list[Report | Failure]:
        """Return the failure, or the known report, that the mutator was shown."""
        slots = self._state.slots
        if isinstance(cause, Status):
            failures, retired = cause.failures, bool(cause.retired)
            at = slots[cause.worker_id].newest
            return [Failure(cause.worker_id, at, cause.reason, failures, retired)]
        if cause.told is None:
            return []
        if cause.told >= len(slots):
            raise damaged(f"it names worker {cause.told}, which does not exist")
        known = self._graph.newest_value(slots[cause.told].newest)
        return [] if known is None else [Report(cause.told, known)]

    def _ask(
        self, due: Sequence[Report | Failure], entries: Sequence[Entry]
    ) -> Sequence[Entry]:
        """Show the mutator reports or a failure; apply the decisions after each.

        If a transaction has several reports, the journal does not record after which
        of them something was decided: this takes the one where the mutator derives it,
        or else the last.

        Returns:
            The entries that are left.
        """
        due = [report for report in due if not self._is_over(report)]
        branched: set[int] = set()
        refused: set[int] = set()  # Those that a failure has retired are not branched.
        for number, report in enumerate(due):
            if report.worker_id in branched or self._is_over(report):
                continue
            if isinstance(report, Failure) and report.retired:
                refused.add(report.worker_id)
            derived = self._derived(report)
            for worker_id in refused:
                if isinstance(derived.get(worker_id), Branch):
                    del derived[worker_id]
            present = _agreeing(entries, derived)
            if number == len(due) - 1 and not present:
                present = _decided(entries)
            entries = entries[len(present) :]
            for entry in present:
                if isinstance(entry, Opened):
                    branched.add(entry.generation.worker_id)
                elif _overrules(entry) and entry.worker_id in derived:
                    refused.add(entry.worker_id)
                    del derived[entry.worker_id]
            self._note(report, present, derived)
            for entry in present:
                self._put(*_flat(entry))
        return entries

    def _is_over(self, report: Report | Failure) -> bool:
        """Whether this is a report of a retired slot: the mutator does not see it."""
        is_report = isinstance(report, Report)
        return is_report and report.worker_id in self._state.members.retired

    def _derived(self, report: Report | Failure) -> dict[int, Branch | Retire]:
        """Return the mutator's decisions, each from its parent's resume point."""
        self._updates += 1
        after, decisions = self._decider.update(
            self._state, self._value, self._count, report, self._now
        )
        if decisions or after is not self._value:
            self._value, self._count = after, self._count + 1
        found: dict[int, Branch | Retire] = {}
        points: dict[int, Checkpoint] = {}
        name, size = type(self._decider.mutator).__name__, len(self._state.slots)
        for worker_id, decision in by_worker(name, size, decisions):
            if isinstance(decision, Retire):
                if worker_id not in self._state.members.retired:
                    found[worker_id] = decision
                continue
            parent = decision.parent
            if parent is not None:
                parent = self._decider.resume_point(parent, points)
            meta = codec.normalized(decision.meta_params, "meta_params")
            found[worker_id] = Branch(parent, meta, decision.reason)
        return found

    def _note(
        self, report: Report | Failure, taken: Sequence[Entry], derived: Decisions
    ) -> None:
        """Note a decision, recorded or derived."""
        was: dict[int, Branch | Retire] = {}
        for entry in taken:
            if isinstance(entry, Status) and entry.kind == "retired":
                was[entry.worker_id] = Retire(entry.reason)
            elif isinstance(entry, Opened):
                was[entry.generation.worker_id] = self._branch(entry)
        if was or derived:
            row, ref = self._state.row, report.checkpoint.ref
            self._found.append(Decision(row, ref, report.worker_id, was, derived))

    def _branch(self, opened: Opened) -> Branch:
        generation, root = opened
        found = None if root.parent is None else self._graph.at(root.parent)
        return Branch(found, decode(generation.meta_params), generation.reason)

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
        return reports.shown(self._state, about, int(ready[found.worker_id]))

    def _put(self, *records: Record) -> None:
        """Write and apply records of the run."""
        for record in records:
            params = getattr(record, "params", None)
            new = isinstance(record, CheckpointRecord | Late) and params is not None
            if new and not self._state.has_params:
                self._journal.write([SAVED])
            self._journal.write([record])
            self._state.apply(record)
            self._state.reread()

    def _claim(self) -> None:
        """Record, at the same row as the run, that the library keeps the weights."""
        if 0 <= self._claimed <= self._state.row and not self._state.is_claimed:
            self._put(Fact("claimed", codec.encode(self._claimed)))


def _flat(entry: Entry) -> Sequence[Record]:
    """Return a record alone, or a generation and its first checkpoint."""
    return entry if isinstance(entry, Opened) else (entry,)


def _is_decided(entry: Entry) -> bool:
    """Whether a decision has opened a generation, or retired a slot."""
    if isinstance(entry, Status):
        return entry.kind == "retired"
    return isinstance(entry, Opened) and not is_restart(entry.generation.reason)


def _overrules(entry: Entry) -> TypeGuard[Status]:
    """Whether a slot was retired by its divergence, perhaps in place of a branch."""
    return isinstance(entry, Status) and entry.kind == "diverged" and entry.retired == 1


def _decided(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Return the next entries up to the last decision before a restart."""
    count = 0
    for number, entry in enumerate(entries):
        if _is_decided(entry):
            count = number + 1
        elif not isinstance(entry, Status):
            break
    return entries[:count]


def _agreeing(entries: Sequence[Entry], derived: Decisions) -> Sequence[Entry]:
    """Return the next entries that are the derived decisions: of all, or none."""
    at = 0
    for worker_id, decision in derived.items():
        is_overruled = False
        while at < len(entries) and _is_beside(entries[at], worker_id):
            is_overruled = _overrules(entries[at])
            at += 1
            if is_overruled:
                break  # What follows was not decided here.
        if is_overruled:
            continue
        if at == len(entries) or not _is_same(entries[at], worker_id, decision):
            return ()
        at += 1
    return entries[:at]


def _is_beside(entry: Entry, worker_id: int) -> bool:
    """Whether an entry is a status of a slot that comes before a branch."""
    is_status = isinstance(entry, Status) and entry.worker_id == worker_id
    return is_status and not _is_decided(entry)


def _is_same(entry: Entry, worker_id: int, decision: Branch | Retire) -> bool:
    """Whether a recorded decision is the derived one, as far as the entry tells."""
    if not _is_decided(entry):
        return False
    if isinstance(decision, Retire):
        return isinstance(entry, Status) and entry.worker_id == worker_id
    if not isinstance(entry, Opened) or entry.generation.worker_id != worker_id:
        return False
    return codec.digest(decision.meta_params) == entry.generation.digest
