"""Calls the mutator with its state and random numbers, and checks its branches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from population.base import codec
from population.base.errors import damaged, mark_of_the_run, of_the_run
from population.base.interfaces import Mutator
from population.base.refusals import is_array
from population.base.types import Checkpoint, Failure, Ref, Report, Retire
from population.core import wrong_types
from population.core.branching import is_restart
from population.core.checked import (
    CheckedBranch,
    CheckedRetirement,
    Decisions,
    by_worker,
    checked_wait,
)
from population.core.decoding import decode
from population.core.graph import JournalGraph
from population.core.named_refs import refs_of
from population.core.state import RunState
from population.core.view import View
from population.journal.base import MAX
from population.journal.checks import checksum
from population.journal.records import MutatorRecord


class Decider:
    """Calls the mutator of a run and keeps its state.

    The state is one row of the journal, written in the transaction of the report that
    changed it: a restart reads the row and continues, and computes nothing again.

    Args:
        mutator: The policy.
        graph: All checkpoints.
        seed: The seed of its random numbers.
        end: The step at which every slot waits, or None.

    Attributes:
        check: Called with a branch's meta_params and the worker id; raises if the
            engine that trains all slots could not train them. None: no check.
        slowest_s: Seconds of the slowest decision so far.
    """

    def __init__(
        self, mutator: Mutator[Any], graph: JournalGraph, seed: int, end: int | None
    ) -> None:
        self.mutator = mutator
        self.check: Callable[[Any, int], object] | None = None
        self.slowest_s = 0.0
        self._graph = graph
        self._seed = seed
        self._end = end
        self._let_go = -1  # At this number of decisions no slot waits for the next.
        self._type: type | None = None
        self._view: tuple[Any, Any] = (None, None)
        self._decoded: tuple[Any, Any] = (None, None)  # A record, and its state.

    def init(self, state: RunState) -> MutatorRecord:
        """Return the mutator's first state as a record to write.

        Raises:
            TypeError: The state cannot be read back.
        """
        value = self._initial(state)
        record = self.record(value, 0)
        try:
            codec.decode(record.state, self._type)
        except (ValueError, NameError) as error:
            raise TypeError(
                f"{type(self.mutator).__name__}.init must return a state that can be "
                f"read back: plain data, or a dataclass of a module. {error}"
            ) from error
        return record

    def update(
        self,
        state: RunState,
        before: Any,
        decisions: int,
        shown: Report | Failure,
        now: float,
    ) -> tuple[Any, Decisions]:
        """Show the mutator a report or a failure.

        Args:
            state: The state of the run.
            before: The mutator's state.
            decisions: The number of decisions before this one.
            shown: The report or failure.
            now: The time of the transaction.

        Returns:
            The mutator's next state, the same object if nothing has changed, and its
            decisions.
        """
        known, view = self._view
        if known is not state:
            view = self._view_of(state)
        view.begin(decisions + 1, now)
        mutator, start = self.mutator, time.perf_counter()
        try:
            if type(shown) is Failure:
                found = mutator.failed(before, shown, view)
            else:
                found = mutator.update(before, shown, view)  # type: ignore[arg-type]
        except BaseException as error:
            mark_of_the_run(error)
            raise
        took = time.perf_counter() - start
        if took > self.slowest_s:
            self.slowest_s = took
        if type(found) is tuple and len(found) == 2:
            if type(found[1]) is dict or isinstance(found[1], Mapping):
                return found
        call = "failed" if type(shown) is Failure else "update"
        wrong = TypeError(
            wrong_types.wrong_answer(f"{type(mutator).__name__}.{call}", found)
        )
        mark_of_the_run(wrong)
        raise wrong

    def record(self, value: Any, decisions: int) -> MutatorRecord:
        """Return the mutator's next state as a record to write.

        Raises:
            TypeError: The state has another type than that of `init`, or cannot be
                stored.
            ValueError: It names a checkpoint that there is not.
        """
        value = _plain(value)
        with of_the_run():
            if self._type is not None and type(value) is not self._type:
                raise TypeError(
                    f"{type(self.mutator).__name__} must return a state of the type "
                    f"of init's, {self._type.__name__}, got {type(value).__name__}."
                )
            text = codec.encode(value, "the mutator's state", records=True)
            self._check_refs(value)
        record = MutatorRecord(0, text, decisions, checksum(text, decisions))
        self._decoded = (record, value)
        return record

    def value(self, state: RunState) -> Any:
        """Return the mutator's state.

        Raises:
            JournalError: The state cannot be read.
        """
        record = state.mutator
        if record is None:
            raise damaged("it holds no state of the mutator")
        if self._decoded[0] is not record:
            if self._type is None:
                self._initial(state)
            found = decode(record.state, self._type)
            if type(found) is not self._type:
                raise damaged(
                    f"the mutator's state is a {type(found).__name__}, not a "
                    f"{getattr(self._type, '__name__', None)}"
                )
            self._decoded = (record, found)
        return self._decoded[1]

    def decisions(self, state: RunState) -> int:
        """Return how many updates have branched or changed the mutator's state."""
        return 0 if state.mutator is None else state.mutator.decisions

    def first(self, worker_id: int, step: int, meta_text: str) -> str:
        """Return the hyperparameters with which a slot begins at a step, encoded.

        Args:
            worker_id: The slot.
            step: The step.
            meta_text: Those that it has, encoded.

        Raises:
            TypeError, ValueError: What the mutator's `first` returns cannot be stored,
                or the engine cannot train it.
        """
        mutator = self.mutator
        if type(mutator).first is Mutator.first:
            return meta_text
        present, meta_params = codec.digest(decode(meta_text)), decode(meta_text)
        with of_the_run():
            found = mutator.first(worker_id, step, meta_params)
            if found is None and meta_text != "null":
                name = type(mutator).__name__
                raise TypeError(wrong_types.lost_first(name, worker_id))
            text = codec.encode(found, f"first meta_params for worker {worker_id}")
            if codec.digest(codec.decode(text)) == present:
                return meta_text
            if self.check is not None:
                self.check(found, worker_id)
        return text

    def checked(
        self, state: RunState, decisions: Decisions
    ) -> Iterator[CheckedBranch | CheckedRetirement]:
        """Check decisions; apply each before asking for the next.

        Raises:
            TypeError, ValueError: One is neither a `Branch` nor a `Retire`, a parent is
                not recorded, or hyperparameters cannot be stored.
        """
        with of_the_run():
            yield from self._checked(state, decisions)

    def _checked(
        self, state: RunState, decisions: Decisions
    ) -> Iterator[CheckedBranch | CheckedRetirement]:
        points: dict[int, Checkpoint] = {}
        name = type(self.mutator).__name__
        for worker_id, branch in by_worker(name, len(state.slots), decisions):
            if not isinstance(branch.reason, str):
                raise TypeError(
                    f"{type(branch).__name__}.reason must be a str, got "
                    f"{type(branch.reason).__name__}."
                )
            reason = codec.readable(branch.reason)
            if isinstance(branch, Retire):
                yield CheckedRetirement(worker_id, reason)
                continue
            had = state.slots[worker_id].meta_params
            wrong = wrong_types.wrong_hyperparameters(
                name, worker_id, branch.meta_params, had
            )
            if wrong:
                raise TypeError(wrong)
            what = f"meta_params for worker {worker_id}"
            meta_text = codec.encode(branch.meta_params, what)
            if self.check is not None:
                self.check(branch.meta_params, worker_id)
            point = None
            if branch.parent is not None:
                point = self.resume_point(branch.parent, points)
            if is_restart(reason):  # A reason that only the library gives.
                reason = f"decision: {reason}"
            yield CheckedBranch(worker_id, point, meta_text, reason)

    def resume_point(
        self, parent: Checkpoint, known: dict[int, Checkpoint]
    ) -> Checkpoint:
        """Return the resume point of a branch's parent, as the journal has it now.

        A later report of the batch may say that what the mutator was shown diverged.

        Args:
            parent: The parent that the mutator names.
            known: The points found so far, by the parent's row: equal parents cost one
                query. The new one is added.

        Raises:
            TypeError, ValueError: The parent is not recorded.
        """
        if not isinstance(parent, Checkpoint):
            raise TypeError(
                wrong_types.wrong_parent(type(self.mutator).__name__, parent)
            )
        if parent.row not in known:
            found = self._graph.get_checkpoint(parent.ref)
            if found is None or found.row != parent.row:
                name, own = type(self.mutator).__name__, next(iter(self._graph))
                raise ValueError(wrong_types.missing_parent(name, parent, own))
            known[parent.row] = self._graph.resume_point(found)
        return known[parent.row]

    def named(self, state: RunState) -> list[Checkpoint]:
        """Return the checkpoints that the mutator's state names.

        Raises:
            JournalError: A checkpoint is missing.
        """
        return [self._named(ref) for ref in refs_of(self.value(state))]

    def decision_at(self, state: RunState, worker_id: int) -> int | None:
        """Return the step at which a slot must wait for a decision, or None."""
        view, value = self._view_of(state), self.value(state)
        try:
            found = self.mutator.wait_at(value, worker_id, view)
            if found is None or type(found) is int:
                return found
            return checked_wait(type(self.mutator).__name__, worker_id, found)
        except BaseException as error:
            mark_of_the_run(error)
            raise

    def limits(self, state: RunState, worker_id: int) -> list[int]:
        """Return the steps at which a slot waits: for a decision, and the run's end."""
        steps = (self.decision_at(state, worker_id), self._end)
        return [step for step in steps if step is not None]

    def wait_at(self, state: RunState, worker_id: int) -> int | None:
        """Return the step at which a slot waits, for a decision or the run's end.

        A retired slot waits where it is.
        """
        if worker_id in state.members.retired:
            return state.slots[worker_id].newest.step
        if self._is_let_go(state):
            return self._end
        return min(self.limits(state, worker_id), default=None)

    def waits(self, state: RunState, worker_id: int) -> bool:
        """Whether a slot waits for a decision or the run's end, or is retired."""
        if worker_id in state.members.retired:
            return True
        if self.is_at_end(state, worker_id):
            return True
        if self._is_let_go(state):
            return False
        limit = self.decision_at(state, worker_id)
        return limit is not None and bool(state.scores.ready[worker_id] >= limit)

    def is_at_end(self, state: RunState, worker_id: int) -> bool:
        """Whether a slot has reached the end of the run."""
        return self._end is not None and bool(
            state.scores.reached[worker_id] >= self._end
        )

    def let_go(self, state: RunState) -> None:
        """Let no slot wait for the next decision: the run ends before it."""
        self._let_go = self.decisions(state)

    def barriers(self, state: RunState) -> Iterator[Checkpoint]:
        """Yield the checkpoints at the barriers of slots and at the end of the run."""
        for worker_id in range(len(state.slots)):
            if worker_id in state.members.retired:
                continue
            for limit in self.limits(state, worker_id):
                found = state.barrier(worker_id, limit)
                if found is not None:
                    yield found

    def _is_let_go(self, state: RunState) -> bool:
        return self._let_go >= 0 and self._let_go == self.decisions(state)

    def _initial(self, state: RunState) -> Any:
        """Call the mutator's `init`; its type is the one for decoding later states."""
        view = self._view_of(state)
        view.begin(0, state.time)
        value = self.mutator.init(view)
        self._type = type(_plain(value))
        return value

    def _view_of(self, state: RunState) -> View:
        """Return the view of a run's state; the same object for the same state."""
        if self._view[0] is not state:
            self._view = (state, View(state, self._graph, self._seed))
        view: View = self._view[1]
        return view

    def _check_refs(self, value: Any) -> None:
        known = {*refs_of(self._decoded[1])}
        for ref in {*refs_of(value)} - known:
            if self._graph.get_checkpoint(ref) is None:
                name = type(self.mutator).__name__
                raise ValueError(wrong_types.missing_ref(name, ref))

    def _named(self, ref: Ref) -> Checkpoint:
        found = None
        if 0 <= ref.step <= MAX:
            found = self._graph.get_checkpoint(ref)
        if found is None:
            raise damaged(f"the mutator's state names {tuple(ref)}, which is missing")
        return found


def _plain(state: Any) -> Any:
    """Return a state as it comes back: a scalar of NumPy or JAX as one of Python."""
    return codec.normalized(state, "the state") if is_array(state) else state
