"""Measures what a report costs, in counts that are the same on every machine."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, NamedTuple

from population.base.interfaces import Mutator, PopulationView
from population.base.types import Branch, Failure, Report, Retire
from population.testing import inside
from population.testing.perturb import perturb
from population.testing.runner import Case, Played, ScriptRunner, Work

_MOST = 1_000_000  # Instructions counted in a run at most; takes a third of a second.


class Count(NamedTuple):
    """The cost of one report.

    Attributes:
        opcodes: Python instructions within `update`.
        statements: SQL statements of the whole report.
        decided: Whether anything was branched, or the state changed.
    """

    opcodes: int
    statements: int
    decided: bool


class Cost(NamedTuple):
    """The cost of the reports of a script.

    Attributes:
        played: The run.
        counts: The counts of each report.
    """

    played: Played
    counts: list[Count]

    def idle(self) -> tuple[float, float]:
        """Return the median counts of reports without a decision; 0 without any."""
        return _typical(statistics.median, [c for c in self.counts if not c.decided])

    def mean(self) -> tuple[float, float]:
        """Return the mean counts of all reports; 0 if there are none."""
        return _typical(statistics.fmean, self.counts)


def cost_of(case: Case) -> Cost:
    """Return the cost of each report when a case is played."""
    runner = _CountingRunner(case)
    return Cost(runner.run(), runner.counts)


def _typical(
    average: Callable[[Sequence[int]], float], counts: Sequence[Count]
) -> tuple[float, float]:
    """Return the average instructions and statements; 0 if there are no counts."""
    return (
        average([count.opcodes for count in counts] or [0]),
        average([count.statements for count in counts] or [0]),
    )


class _CountingRunner(ScriptRunner):
    """Counts the instructions and statements of each delivery of reports."""

    def __init__(self, case: Case) -> None:
        self.counts: list[Count] = []
        self._meter = _Meter(case.make())
        super().__init__(case, make=lambda: self._meter)

    def deliver(self, reports: Sequence[Work], *, last: bool = True) -> None:
        """Report, and count what that takes."""
        meter = self._meter
        statements: list[str] = []
        counting = meter.budget > 0
        meter.opcodes, meter.decided = 0, False
        with inside.each_statement(self.journal, statements.append):
            super().deliver(reports, last=last)
        if counting:
            self.counts.append(Count(meter.opcodes, len(statements), meter.decided))


class _Meter(Mutator[Any]):
    """Calls another mutator, and counts its instructions.

    Attributes:
        budget: The number of instructions that may still be counted.
        opcodes: The number of counted instructions.
        decided: Whether anything was branched, or the state changed.
    """

    def __init__(self, mutator: Mutator[Any]) -> None:
        self._mutator = mutator
        self.divergence_fails = mutator.divergence_fails
        self.budget = _MOST
        self.opcodes = 0
        self.decided = False

    def init(self, view: PopulationView) -> Any:
        return self._mutator.init(view)

    def update(
        self, state: Any, report: Report, view: PopulationView
    ) -> tuple[Any, Mapping[int, Branch | Retire]]:
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            following, branches = self._mutator.update(state, report, view)
        finally:
            sys.settrace(before)
        self.decided = self.decided or bool(branches) or following is not state
        return following, branches

    def failed(
        self, state: Any, failure: Failure, view: PopulationView
    ) -> tuple[Any, Mapping[int, Branch | Retire]]:
        return self._mutator.failed(state, failure, view)

    def first(self, worker_id: int, step: int, meta_params: Any) -> Any:
        return self._mutator.first(worker_id, step, meta_params)

    def wait_at(self, state: Any, worker_id: int, view: PopulationView) -> int | None:
        return self._mutator.wait_at(state, worker_id, view)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        del argument
        if frame.f_code.co_filename == perturb.__code__.co_filename:
            return None  # This function is part of the test kit.
        frame.f_trace_opcodes = self.budget > 0
        frame.f_trace_lines = False
        if event == "opcode":
            self.opcodes += 1
            self.budget -= 1
        return self._trace if self.budget > 0 else None
