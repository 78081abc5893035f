"""Measures what a report costs, in counts that are the same on every machine."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NamedTuple

from population.base.interfaces import Mutator, PopulationView
from population.base.types import Report
from population.testing import inside, touched
from population.testing.perturb import perturb
from population.testing.runner import Case, Played, Result, ScriptRunner, Work
from population.testing.wrapped import Decided, WrappedMutator

_MOST = 1_000_000  # Instructions counted in a run at most; takes a third of a second.


class Count(NamedTuple):
    """The cost of one report.

    Attributes:
        opcodes: Python instructions within `update` and `wait_at`.
        statements: SQL statements of the whole report.
        written: Bytes of the mutator's state that are written, if it has changed.
        touched: Bytes that `update` allocates, or goes through in C.
        held: Bytes of the containers in the mutator's attributes.
        branched: Whether anything was branched or retired.
        decided: Whether anything was branched, or the state changed.
    """

    opcodes: int
    statements: int
    written: int
    touched: int
    held: int
    branched: bool
    decided: bool


class Cost(NamedTuple):
    """The cost of the reports of a script.

    Attributes:
        played: The run.
        counts: The counts of each report.
    """

    played: Played
    counts: list[Count]

    @property
    def idle(self) -> list[Count]:
        """The counts of reports without a decision."""
        return [count for count in self.counts if not count.decided]

    @property
    def undecided(self) -> list[Count]:
        """The counts of reports without a branch, which may have changed the state."""
        return [count for count in self.counts if not count.branched]


def median(counts: Sequence[Count], field: str) -> float:
    """Return the median of a field; there must be a count."""
    return float(statistics.median([getattr(count, field) for count in counts]))


def mean(counts: Sequence[Count], field: str) -> float:
    """Return the mean of a field; there must be a count."""
    return statistics.fmean([getattr(count, field) for count in counts])


def cost_of(
    case: Case,
    when: Callable[[int], bool] = lambda position: True,
    *,
    of_bytes: bool = True,
) -> Cost:
    """Return the cost of reports when a case is played.

    Args:
        case: The case.
        when: Whether the reports of the event at a position are counted.
        of_bytes: Whether bytes are counted, too, which takes longer.
    """
    runner = _CountingRunner(case, when, of_bytes)
    return Cost(runner.run(), runner.counts)


class _CountingRunner(ScriptRunner):
    """Counts the instructions and statements of each delivery of reports."""

    def __init__(self, case: Case, when: Callable[[int], bool], of_bytes: bool) -> None:
        self.counts: list[Count] = []
        self._when = when
        self._meter = _Meter(case.make(), of_bytes)
        super().__init__(case, make=lambda: self._meter)

    def deliver(self, reports: Sequence[Work], *, last: bool = True) -> None:
        """Report, and count what that takes."""
        meter, statements = self._meter, list[str]()
        if not meter.begin(self._when(self.position)):
            super().deliver(reports, last=last)
            return
        with inside.each_statement(self.journal, statements.append):
            super().deliver(reports, last=last)
        written = 0
        if meter.has_changed:
            written = len(inside.mutator_state(self.journal))
        count = meter.count._replace(statements=len(statements), written=written)
        self.counts.append(count)
        meter.begin(False)


_NOTHING = Count(0, 0, 0, 0, 0, False, False)


class _Meter(WrappedMutator):
    """Calls another mutator, and counts its instructions and bytes.

    Args:
        mutator: The other mutator.
        of_bytes: Whether bytes are counted, too.

    Attributes:
        count: The counts of the report that `begin` began.
        has_changed: Whether it has changed the state.
    """

    def __init__(self, mutator: Mutator[Any], of_bytes: bool) -> None:
        super().__init__(mutator)
        self.count = _NOTHING
        self.has_changed = False
        self._bytes = touched.ByteCounter() if of_bytes else None
        self._counts = False
        self._budget = _MOST  # Instructions that may still be counted.
        self._opcodes = 0

    def begin(self, counts: bool) -> bool:
        """Begin a report, and return whether it is counted, as it should be.

        Args:
            counts: Whether it should.
        """
        self._counts = counts and self._budget > 0
        self.count, self._opcodes, self.has_changed = _NOTHING, 0, False
        return self._counts

    def update(self, state: Any, report: Report, view: PopulationView) -> Decided:
        """Return the other mutator's decision, and count what it takes."""
        if not self._counts:
            return self._mutator.update(state, report, view)
        counter, passed = self._bytes, 0

        def decide() -> Decided:
            return self._traced(lambda: self._mutator.update(state, report, view))

        if counter is None:
            found = decide()
        else:
            found, passed = counter.call(decide), counter.bytes
        following, branches = found
        before = self.count
        self.count = Count(
            self._opcodes,
            0,
            0,
            before.touched + passed,
            touched.held(vars(self._mutator))
            if hasattr(self._mutator, "__dict__")
            else 0,
            before.branched or bool(branches),
            before.decided or bool(branches) or following is not state,
        )
        self.has_changed |= following is not state
        return found

    def wait_at(self, state: Any, worker_id: int, view: PopulationView) -> int | None:
        """Return the other mutator's `wait_at`, and count its instructions."""
        if not self._counts:
            return super().wait_at(state, worker_id, view)
        found = self._traced(lambda: self._mutator.wait_at(state, worker_id, view))
        self.count = self.count._replace(opcodes=self._opcodes)
        return found

    def _traced(self, call: Callable[[], Result]) -> Result:
        """Return the result of a call, whose instructions are counted."""
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            return call()
        finally:
            sys.settrace(before)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        del argument
        if frame.f_code.co_filename == perturb.__code__.co_filename:
            return None  # This function is part of the test kit.
        frame.f_trace_opcodes = self._budget > 0
        frame.f_trace_lines = False
        if event == "opcode":
            self._opcodes += 1
            self._budget -= 1
        return self._trace if self._budget > 0 else None
