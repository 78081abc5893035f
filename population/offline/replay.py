"""Derives the decisions of a recorded run again, with its mutator or with another.

It applies the same rules to every report as the run did, in a separate run in memory,
and always applies the recorded decisions, whatever the mutator decides now. So the same
mutator must reach the same decisions, and another one shows what it would have decided
in the same situations.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from population.base import codec
from population.base.errors import damaged
from population.base.interfaces import Mutator
from population.base.refusals import shortly
from population.base.types import Branch, Failure, InMemory, Report, Retire
from population.core import reports
from population.core.branching import is_restart
from population.core.decisions import Decider, Decisions
from population.core.decoding import decode
from population.core.facts import read_all
from population.core.graph import JournalGraph
from population.core.known import Subject
from population.core.membership import FAILURES
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
        self._live = self._state.members.live
        self._overruled: set[int] = set()  # Retired by a failure, just now.
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
                self._live = self._state.members.live
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
        entries, cause = list(happening.followed), happening.cause
        self._overruled.clear()
        due: Sequence[Report | Failure]
        if cause is not None:
            self._put(cause)
            self._now = cause.time
            due = self._failures(cause) if type(cause) is Status else []
            if isinstance(cause, Loss):
                due, live = self._told(cause), self._state.members.live
                if not (due or entries) and set(self._live) <= set(live):
                    return  # A report of a slot that was given up comes next.
                self._live = live
        else:
            due = self._reports(happening.reports)
            self._now = self._state.time
            if not due and entries and isinstance(entries[0], Status):
                self._now = entries[0].time  # A slot was set back from a divergence.
        entries = self._ask(due, entries)
        while True:
            for entry in entries[: (count := _before_decision(entries))]:
                self._put(*_flat(entry))
            entries = entries[count:]
            present, self._live = self._live, self._state.members.live
            if not set(present) <= set(self._live):  # Some slots are no longer live.
                entries = self._ask(self._known(), entries)
            elif entries:  # A decision without a cause that this knows.
                self._put(*_flat(entries.pop(0)))
            else:
                return

    def _reports(self, records: Sequence[Record]) -> list[Report]:
        """Apply recorded reports; return those that the mutator is to see."""
        due = []
        for record in records:
            if not isinstance(record, CheckpointRecord | Late):
                self._put(record)
            elif report := self._report(record):
                due.append(report)
        return sorted(due, key=lambda report: report.worker_id)

    def _failures(self, status: Status) -> list[Failure]:
        """Return a recorded failure, as the mutator was shown it."""
        worker_id, newest = status.worker_id, self._state.slots[status.worker_id].newest
        what = status.reason, status.failures, bool(status.retired)
        return [Failure(worker_id, newest, *what)]

    def _told(self, loss: Loss) -> list[Report]:
        """Return the report that the mutator was shown as slots were given up."""
        if loss.told is None:
            return []
        if loss.told >= len(self._state.slots):
            raise damaged(f"it names worker {loss.told}, which does not exist")
        newest = self._graph.newest_value(self._state.slots[loss.told].newest)
        return [] if newest is None else [Report(loss.told, newest)]

    def _known(self) -> list[Report]:
        """Return the report that the mutator was shown as slots were retired."""
        for worker_id in self._live:
            newest = self._graph.newest_value(self._state.slots[worker_id].newest)
            if newest is not None:
                return [Report(worker_id, newest)]
        return []

    def _ask(
        self, due: Sequence[Report | Failure], entries: list[Entry]
    ) -> list[Entry]:
        """Show the mutator reports or a failure; apply the decisions after each.

        If a transaction has several reports, the journal does not record after which
        of them something was decided: this takes the one where the mutator derives it,
        or else the last.

        Returns:
            The entries that are left.
        """
        branched: set[int] = set()
        for number, report in enumerate(due):
            if report.worker_id in branched:
                continue
            derived = self._derived(report)
            count = _agreeing(entries, derived)
            if number == len(due) - 1 and not count:
                count = self._last(entries, derived)
            present, entries = entries[:count], entries[count:]
            self._note(report, present, derived)
            for entry in present:
                self._put(*_flat(entry))
                if isinstance(entry, Opened):
                    branched.add(entry.generation.worker_id)
        return entries

    def _last(self, entries: Sequence[Entry], derived: Decisions) -> int:
        """Return how many entries to take for the last of several reports."""
        if not derived and self._live is not self._state.members.live:
            return 0  # They were decided as slots were no longer live.
        undecided = (i for i, e in enumerate(entries) if not _may_follow(e))
        count = next(undecided, len(entries))
        return count if any(map(_is_decided, entries[:count])) else 0

    def _derived(self, report: Report | Failure) -> dict[int, Branch | Retire]:
        """Return the mutator's decisions, each from its parent's resume point."""
        self._updates += 1
        after, decisions = self._decider.update(
            self._state, self._value, self._count, report, self._now
        )
        if decisions or after is not self._value:
            self._value, self._count = after, self._count + 1
        found: dict[int, Branch | Retire] = {}
        for worker_id, decision in sorted(decisions.items()):
            if isinstance(decision, Retire):
                if worker_id not in self._state.members.retired:
                    found[worker_id] = decision
                continue
            if worker_id in self._overruled:
                continue
            parent = decision.parent
            if parent is not None:
                parent = self._graph.resume_point(parent)
            meta = codec.normalized(decision.meta_params, "meta_params")
            found[worker_id] = Branch(parent, meta, decision.reason)
        return found

    def _note(
        self, report: Report | Failure, taken: Sequence[Entry], derived: Decisions
    ) -> None:
        """Note a decision, recorded or derived."""
        was: dict[int, Branch | Retire] = {}
        derived = dict(derived)
        for entry in taken:
            if isinstance(entry, Status):
                if entry.kind == "retired":
                    was[entry.worker_id] = Retire(entry.reason)
                elif entry.kind == "diverged" and entry.retired:
                    derived.pop(entry.worker_id, None)  # Its last failure overruled it.
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
        return reports.news(self._state, about, int(ready[found.worker_id]))

    def _put(self, *records: Record) -> None:
        """Write and apply records of the run."""
        for record in records:
            params = getattr(record, "params", None)
            new = isinstance(record, CheckpointRecord | Late) and params is not None
            if new and not self._state.has_params:
                self._journal.write([SAVED])
            if isinstance(record, Status) and record.kind in FAILURES:
                if record.retired:
                    self._overruled.add(record.worker_id)
            self._journal.write([record])
            self._state.apply(record)
            self._state.settle()

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


def _before_decision(entries: Sequence[Entry]) -> int:
    """Return how many entries come before the next decision and its statuses."""
    pairs = itertools.zip_longest(entries, entries[1:])
    decided = (_is_decided(e) or _is_overruled(e, after) for e, after in pairs)
    count = next((i for i, found in enumerate(decided) if found), None)
    if count is None:
        return len(entries)
    while count and isinstance(entries[count - 1], Status):
        count -= 1
    return count


def _is_overruled(entry: Entry, after: Entry | None) -> bool:
    """Whether a branch was dropped, as the divergence before it retired the slot."""
    if not (isinstance(entry, Status) and entry.kind == "diverged" and entry.retired):
        return False
    return not (isinstance(after, Opened) and is_restart(after.generation.reason))


def _may_follow(entry: Entry) -> bool:
    """Whether an entry may be part of a decision."""
    return _is_decided(entry) or isinstance(entry, Status)


def _agreeing(entries: Sequence[Entry], derived: Decisions) -> int:
    """Return how many of the next entries are the derived decisions: all or 0."""
    at = 0
    for worker_id, decision in derived.items():
        overruled = False
        while at < len(entries) and isinstance(entry := entries[at], Status):
            if entry.worker_id != worker_id or entry.kind == "retired":
                break
            overruled = entry.kind == "diverged" and bool(entry.retired)
            at += 1
        if overruled:
            continue
        if at == len(entries) or not _is_same(entries[at], worker_id, decision):
            return 0
        at += 1
    return at


def _is_same(entry: Entry, worker_id: int, decision: Branch | Retire) -> bool:
    """Whether a recorded decision is the derived one, as far as the entry tells."""
    if isinstance(decision, Retire):
        if not isinstance(entry, Status) or entry.kind != "retired":
            return False
        return entry.worker_id == worker_id
    if not isinstance(entry, Opened) or entry.generation.worker_id != worker_id:
        return False
    return codec.digest(decision.meta_params) == entry.generation.digest
