"""Derives the decisions of a recorded run again, with its mutator or with another.

Every report is put through the same rules as when it came, in a run of its own that
lives in memory; what was decided then is put in force, whatever is decided now. So with
the same mutator the two must agree, and with another one it is seen what that would
have done in the same situation.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from population.base import codec, run_paths
from population.base.errors import damaged
from population.base.interfaces import Mutator
from population.base.log_once import Once
from population.base.types import Branch, Ref, Report, Stop
from population.core import reports
from population.core.decisions import Decisions
from population.core.decoding import decode, decode_params, decoded
from population.core.graph import JournalGraph
from population.core.incoming import Incoming
from population.core.slots import Slots
from population.journal.base import Journal
from population.journal.records import (
    UNREACHABLE,
    CheckpointRecord,
    GenerationRow,
    LateRecord,
    LossRecord,
    RemovalRecord,
)
from population.journal.sqlite import SqliteJournal
from population.offline import transactions
from population.offline.transactions import Transaction

if TYPE_CHECKING:
    from population.controller import PopulationController

_NOT_DECIDED = ("resume", "takeover", "rejected: ")
Opened = tuple[GenerationRow, CheckpointRecord]


@dataclasses.dataclass(frozen=True)
class Decision:
    """What was decided after a report, then and now.

    Attributes:
        row: The last row of the journal that the mutator could see.
        checkpoint: The report.
        worker_id: The slot that it is about.
        recorded: The branches of the run, by worker id.
        derived: Those of the mutator that was given.
    """

    row: int
    checkpoint: Ref
    worker_id: int
    recorded: Mapping[int, Branch]
    derived: Mapping[int, Branch]

    @property
    def same(self) -> bool:
        """Whether both go on from the same checkpoints with the same meta_params."""
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
    """The decisions of a run beside those of a mutator.

    Attributes:
        decisions: All reports after which either of them branched.
        updates: How many reports the mutator was shown.
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
        mutator: The run's, to check it; or another one, to see what that would have
            decided. Its `mutate_fn` must be pure but for the generator it is given.

    Returns:
        All decisions, as they were and as they are now.

    Raises:
        JournalError: If there is no run.
    """
    folder = transactions.folder_of(run)
    journal = transactions.open_journal(folder)
    try:
        with journal.reading():
            replayer = _Replayer(journal, mutator, folder)
        return replayer.run()
    finally:
        journal.close()


class _Replayer:
    """A run in memory that follows a recorded one.

    Args:
        source: The recorded run.
        mutator: Who is asked.
        folder: The run folder, in which the library's own paths lie.
    """

    def __init__(
        self, source: Journal, mutator: Mutator[Any], folder: pathlib.Path
    ) -> None:
        facts = transactions.facts_of(source)
        # What is recorded up to here never changes: a run that goes on meanwhile need
        # not keep its log for this reader.
        self._end = source.tail().row
        self._source = source
        self._forked = int(facts.get("forked", {"row": 0})["row"])
        self._claimed = int(facts.get("claimed", -1))
        self._is_claimed = False
        self._journal = SqliteJournal()
        for key in ("run", "size", "mode", "seed"):
            self._journal.add_fact(key, codec.encode(facts[key]))
        graph = JournalGraph(self._journal, threading.RLock(), folder)
        self._graph = graph
        self._slots = Slots(self._journal, graph, facts["mode"])
        self._slots.once = Once(quiet=True)
        self._decisions = Decisions(
            mutator, self._journal, graph, self._slots, facts["seed"], Stop()
        )
        self._generations: dict[int, GenerationRow] = {}
        self._found: list[Decision] = []
        self._updates = 0
        self._reminded: int | None = None

    def run(self) -> Replay:
        """Follow all transactions."""
        for transaction in transactions.transactions(self._source, self._end):
            if not self._slots.run:
                self._create(transaction)
            elif transaction.first <= self._forked:
                self._copy(transaction)
            else:
                self._follow(transaction)
            for record in transaction.after:
                if isinstance(record, RemovalRecord):
                    self._remove(record)
                elif isinstance(record, LossRecord):
                    self._remind([])
                    self._slots.begin(record.time)
                    self._slots.record_losses(decode(record.lost), record.told)
                    self._reminded = record.told
        self._remind([])
        self._journal.close()
        return Replay(self._found, self._updates)

    def _create(self, transaction: Transaction) -> None:
        for opened in transaction.opened:
            self._record(opened)
            if opened[1].params is not None:
                self._journal.add_fact("saved", codec.encode(True))
        self._claim()
        self._slots.load()
        self._decisions.begin()

    def _copy(self, transaction: Transaction) -> None:
        """What a fork took over was decided by others; its mutator began after it."""
        self._claim()
        for record in transaction.reports:
            self._slots.begin(record.time)
            self._report(record)
        for opened in transaction.opened:
            self._put(opened)

    def _follow(self, transaction: Transaction) -> None:
        self._claim()
        if self._forked:
            self._forked = 0
            self._decisions.begin()
        if not transaction.reports and self._reminded is not None:
            decided = [o for o in transaction.opened if not self._is_forced(o)]
            self._remind(decided)
            transaction.opened = [o for o in transaction.opened if o not in decided]
        else:
            self._remind([])
        first = transaction.reports[0] if transaction.reports else None
        if first is not None:
            self._slots.begin(first.time)
        reports = [self._report(record) for record in transaction.reports]
        due = sorted(
            (report for report in reports if report is not None),
            key=lambda report: report.worker_id,
        )
        left = list(transaction.opened)
        if due:
            left = self._ask(due, left)
        for opened in left:
            self._put(opened)

    def _ask(self, due: Sequence[Report], opened: list[Opened]) -> list[Opened]:
        """Show the mutator reports; what was opened is put in force as they are shown.

        Where one transaction holds several reports, the journal does not say which of
        them a branch was decided after: it is the one where it is derived, else the
        last.
        """
        branched: set[int] = set()
        for number, report in enumerate(due):
            if report.worker_id in branched:
                continue
            derived = self._derived(report)
            last = number == len(due) - 1
            count = len(opened) if last else _agreeing(opened, derived)
            now, opened = opened[:count], opened[count:]
            self._note(report, now, derived)
            for branch in now:
                self._put(branch)
                branched.add(branch[0].worker_id)
        return opened

    def _derived(self, report: Report) -> dict[int, Branch]:
        """The mutator's branches, each from where the slot would really go on."""
        self._updates += 1
        found = {}
        for worker_id, branch in sorted(self._decisions.ask(report).items()):
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
            row, ref = self._slots.row, report.checkpoint.ref
            self._found.append(Decision(row, ref, report.worker_id, was, derived))

    def _branch(self, generation: GenerationRow, root: CheckpointRecord) -> Branch:
        parent = None if root.parent is None else self._journal.checkpoint(root.parent)
        found = None if parent is None else decoded(parent, self._graph.own)
        return Branch(found, decode(generation.meta_params), generation.reason)

    def _remind(self, opened: list[Opened]) -> None:
        """The mutator was shown a report again, as a slot was found lost."""
        if self._reminded is None:
            return
        worker_id, self._reminded = self._reminded, None
        if worker_id >= len(self._slots):
            raise damaged(f"it tells of worker {worker_id}, which is none")
        newest = self._graph.newest_value(self._slots[worker_id].newest)
        if newest is not None:
            self._ask([Report(worker_id, newest)], opened)

    def _report(self, record: CheckpointRecord | LateRecord) -> Report | None:
        if isinstance(record, CheckpointRecord):
            found, step = self._generation(record.generation), record.step
        else:
            checkpoint = self._journal.checkpoint(record.checkpoint)
            if checkpoint is None:
                raise damaged(
                    f"row {record.row} completes a checkpoint that is missing"
                )
            found, step = self._generation(checkpoint.generation), checkpoint.step
        value = record.value
        if record.has_value and value is None:
            value = float("nan")
        params = None if record.params is None else decode_params(record.params)
        new = Incoming(
            found.worker_id,
            found.generation_id,
            step,
            run_paths.absolute(params, self._graph.own),
            record.params,
            value if record.has_value else None,
            None if record.metrics is None else decode(record.metrics),
            record.metrics,
        )
        try:
            return reports.record(self._slots, new)
        except ValueError as error:
            raise damaged(f"row {record.row} cannot be recorded: {error}") from error

    def _generation(self, row: int) -> GenerationRow:
        found = self._generations.get(row)
        if found is None:
            raise damaged(f"the generation of row {row} is missing")
        return found

    def _put(self, opened: Opened) -> None:
        """Put in force what the run did."""
        self._record(opened)
        self._slots.reload(opened[0].worker_id)
        self._slots.row = opened[1].row

    def _record(self, opened: Opened) -> None:
        generation, root = opened
        self._generations[generation.row] = generation
        self._journal.add_generation(generation)
        self._journal.add_checkpoint(*root)

    def _remove(self, removal: RemovalRecord) -> None:
        self._journal.remove([removal])
        if removal.reason != UNREACHABLE:
            self._slots.load()

    def _claim(self) -> None:
        """From this row on the weights were the library's business."""
        if 0 <= self._claimed <= self._slots.row and not self._is_claimed:
            self._is_claimed = True
            self._journal.add_fact("claimed", codec.encode(self._claimed))

    def _is_forced(self, opened: Opened) -> bool:
        """Whether a generation was opened by a restart or a takeover."""
        generation = opened[0]
        present = self._slots[generation.worker_id].generation
        unchanged = generation.digest == present.digest
        return unchanged and generation.reason.startswith(_NOT_DECIDED)


def _agreeing(opened: Sequence[Opened], derived: Mapping[int, Branch]) -> int:
    """How many of the next generations are the derived branches: all or none."""
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
