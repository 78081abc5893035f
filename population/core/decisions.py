"""Runs the mutator: its state, its random numbers, and its branches put in force."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from population.base import codec
from population.base.errors import damaged
from population.base.interfaces import Mutator
from population.base.types import Branch, Checkpoint, Ref, Report, Stop
from population.core.decoding import decode
from population.core.graph import JournalGraph
from population.core.slots import Slots
from population.core.view import View
from population.journal.base import Journal

logger = logging.getLogger("population")
_SLOW_S = 1.0


class Decisions:
    """The mutator of a run at work.

    Its state is one row of the journal, written in the transaction of the report that
    changed it: a restart loads the row and goes on, and nothing is computed again.

    Args:
        mutator: The policy.
        journal: Where its state is kept.
        graph: All checkpoints.
        slots: What its branches change.
        seed: Of its random numbers.
        stop: `stop.steps` makes every slot wait there.

    Attributes:
        state: The mutator's state; never changed in place.
        count: How many updates have branched or changed the state. The random numbers
            of the next depend on it, so that a report that is redone shifts nothing.
    """

    def __init__(
        self,
        mutator: Mutator[Any],
        journal: Journal,
        graph: JournalGraph,
        slots: Slots,
        seed: int,
        stop: Stop,
    ) -> None:
        self._mutator = mutator
        self._journal = journal
        self._graph = graph
        self._slots = slots
        self._stop = stop
        self._view = View(slots, graph, seed)
        self._warned = False
        self._let_go = -1  # Until this many decisions no slot waits for one.
        self._is_slow = False
        self._known_row = -1
        self._type: type = type(None)
        self._refs: tuple[Any, list[Ref]] = (None, [])
        self.state: Any = None
        self.count = 0
        self._check: Callable[[Any, int], object] | None = None

    def begin(self) -> None:
        """Make the state of a new run."""
        self._view.begin(0)
        self.state = self._mutator.init(self._view)
        self._type = type(self.state)
        text = codec.encode(self.state, "the mutator's state", records=True)
        try:
            codec.decode(text, self._type)
        except (ValueError, NameError) as error:
            raise TypeError(
                f"{type(self._mutator).__name__}.init must return a state that can be "
                f"read back: plain data, or a dataclass of a module. {error}"
            ) from error
        self._write()

    def load(self) -> None:
        """Read the state from the journal."""
        recorded = self._journal.state()
        if recorded is None:
            raise damaged("it holds no state of the mutator")
        text, self.count = recorded
        # `init` is pure; what it returns tells the types that the text is read as.
        self._view.begin(0)
        self._known_row = -1
        self._type = type(self._mutator.init(self._view))
        self._read(text)
        self.named()

    def catch_up(self) -> None:
        """Read the state from the journal if another process has decided."""
        recorded = self._journal.state()
        if recorded is not None and recorded[1] != self.count:
            text, self.count = recorded
            self._read(text)

    def decide(self, reports: Sequence[Report | None]) -> Collection[int]:
        """Show the mutator each report, in worker order, and apply its branches.

        Reports of slots that were branched earlier in the batch are left out.

        Returns:
            The slots that were branched.
        """
        due = [report for report in reports if report is not None]
        if len(due) > 1:
            due.sort(key=lambda report: report.worker_id)
        branched: set[int] = set()
        before = self.count
        for report in due:
            if report.worker_id in branched:
                continue
            for worker_id, branch in sorted(self.ask(report).items()):
                self._apply(worker_id, branch)
                branched.add(worker_id)
        if self.count != before:
            self._write()
        return branched

    def ask(self, report: Report) -> Mapping[int, Branch]:
        """The mutator's branches after a report; its state is kept in memory only."""
        self._view.begin(self.count + 1)
        start = time.perf_counter()
        state, branches = self._mutator.update(self.state, report, self._view)
        took = time.perf_counter() - start
        if took > _SLOW_S and not self._is_slow:
            self._is_slow = True
            logger.warning(
                "%s took %.1f s for a decision, during which no worker can report. "
                "Keep what is slow out of mutate_fn.",
                type(self._mutator).__name__,
                took,
            )
        if branches or state is not self.state:
            self.state = state
            self.count += 1
        return branches

    @contextlib.contextmanager
    def checked_by(self, check: Callable[[Any, int], object]) -> Iterator[None]:
        """Have branches refused that whoever trains all slots could not train.

        Args:
            check: Gets a branch's meta_params and the worker id, and raises.
        """
        self._check = check
        try:
            yield
        finally:
            self._check = None

    def remind(self, worker_id: int, newest: Checkpoint) -> Collection[int]:
        """Ask again, with a report that is known, as fewer slots are waited for now."""
        return self.decide([Report(worker_id, newest)])

    def refs(self) -> list[Ref]:
        """All checkpoints that the state names."""
        if self._refs[0] is not self.state:
            self._refs = (self.state, list(_refs(self.state)))
        return self._refs[1]

    def named(self) -> list[Checkpoint]:
        """The same, as checkpoints.

        Raises:
            JournalError: If one is missing.
        """
        found = []
        for ref in self.refs():
            fits_column = type(ref.step) is int and 0 <= ref.step < 2**63
            checkpoint = None
            if type(ref.generation_id) is str and fits_column:
                checkpoint = self._graph.get_checkpoint(ref)
            if checkpoint is None:
                raise damaged(
                    f"the mutator's state names {tuple(ref)}, which is missing"
                )
            found.append(checkpoint)
        return found

    def wait_at(self, worker_id: int) -> int | None:
        """The step at which a slot waits, for a decision or for the end of the run."""
        if self._let_go == self.count:
            return self._stop.steps
        return min(self.limits(worker_id), default=None)

    def decision_at(self, worker_id: int) -> int | None:
        """The step at which the mutator has a slot wait for its decision."""
        return self._mutator.wait_at(self.state, worker_id, self._view)

    def limits(self, worker_id: int) -> list[int]:
        """The steps at which a slot waits: the mutator's, and the end of the run."""
        steps = (self.decision_at(worker_id), self._stop.steps)
        return [step for step in steps if step is not None]

    def let_go(self) -> None:
        """Have no slot wait for the next decision: the run ends before it."""
        self._let_go = self.count

    def waits(self, worker_id: int) -> bool:
        """Whether a slot waits for a decision, or for the end of the run."""
        end, slots = self._stop.steps, self._slots
        if end is not None and slots.reached[worker_id] >= end:
            return True
        if self._let_go == self.count:
            return False
        limit = self.decision_at(worker_id)
        return limit is not None and bool(slots.ready[worker_id] >= limit)

    def _read(self, text: str) -> None:
        """Take over the state that the journal holds."""
        state = decode(text, self._type)
        if type(state) is not self._type:
            raise damaged(
                f"the mutator's state is a {type(state).__name__}, not a "
                f"{self._type.__name__}"
            )
        self.state = state

    def _apply(self, worker_id: Any, branch: Branch) -> None:
        worker_id = self._slots.check_id(worker_id)
        if not isinstance(branch, Branch):
            raise TypeError(
                f"{type(self._mutator).__name__}.update must return a Branch for "
                f"worker {worker_id}, got {type(branch).__name__}."
            )
        if not isinstance(branch.reason, str):
            raise TypeError(
                f"Branch.reason must be a str, got {type(branch.reason).__name__}."
            )
        meta = codec.encode(branch.meta_params, f"meta_params for worker {worker_id}")
        if self._check is not None:
            self._check(branch.meta_params, worker_id)
        point = None
        if branch.parent is not None:
            self._check_parent(branch.parent)
            point = self._graph.resume_point(branch.parent)
        if self._graph.keeps_weights and not self._slots.saved and not self._warned:
            self._warned = True
            logger.warning(
                "A branch begins with fresh weights: no worker has saved any. Pass the "
                "training state to worker.report(value, state)."
            )
        self._slots.open(worker_id, point, meta, codec.readable(branch.reason))

    def _check_parent(self, parent: Checkpoint) -> None:
        """Refuse to branch from what was never recorded; ask once for equal parents."""
        if parent.row == self._known_row:
            return
        found = self._graph.get_checkpoint(parent.ref)
        if found is None or found.row != parent.row:
            raise ValueError(
                f"{type(self._mutator).__name__}.update must branch from a checkpoint "
                f"of the graph, got {parent.ref}, which is not there."
            )
        self._known_row = parent.row

    def _write(self) -> None:
        if type(self.state) is not self._type:
            raise TypeError(
                f"{type(self._mutator).__name__}.update must return a state of "
                f"the type of init's, {self._type.__name__}, got "
                f"{type(self.state).__name__}."
            )
        text = codec.encode(self.state, "the mutator's state", records=True)
        self._journal.set_state(text, self.count)


def _refs(state: Any) -> Iterator[Ref]:
    """All checkpoints that a mutator's state names."""
    if isinstance(state, Ref):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _refs(value)
    elif isinstance(state, (list, tuple)):
        for value in state:
            yield from _refs(value)
    elif hasattr(state, "__dataclass_fields__"):
        for name in state.__dataclass_fields__:
            yield from _refs(getattr(state, name))
