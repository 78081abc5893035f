"""Reads again and again how far an open run is, at little cost.

What is in memory is copied within the run's lock; the journal is read only for new
generations, failures and a new best checkpoint.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import NamedTuple

from population.base.types import Checkpoint
from population.controller import PopulationController
from population.core.branching import is_restart
from population.core.membership import FAILURES
from population.core.state import RunState
from population.journal.records import Generation, Status
from population.report.hyperparameters import one_line
from population.report.pace import Pace


class PopulationProgress(NamedTuple):
    """How far a population is.

    Attributes:
        size: The number of members.
        end: The step at which each member ends; None: none is given.
        furthest: The greatest step of a member.
        mean: The mean of their steps; a retired one counts as at its end.
        best: The best checkpoint; None before the first finite value.
        branches: The number of generations that decisions have opened.
        failures: The number of failures of members, divergences included.
        retired: The number of members that are retired.
        elapsed_s: Seconds since the display began.
        left_s: An estimate of the seconds until the run ends; None: not known.
    """

    size: int
    end: int | None
    furthest: int
    mean: float
    best: Checkpoint | None
    branches: int
    failures: int
    retired: int
    elapsed_s: float
    left_s: float | None


class MemberProgress(NamedTuple):
    """How far a member is.

    Attributes:
        worker_id: The slot.
        newest: The newest checkpoint that it has reported itself.
        failures: Its failures in a row.
        retired: Whether it is retired.
        note: The hyperparameters of `newest` in a line.
    """

    worker_id: int
    newest: Checkpoint
    failures: int
    retired: bool
    note: str


class RunWatch:
    """Reads how far an open run is.

    Args:
        controller: The run.
        clock: Returns seconds.
    """

    def __init__(
        self, controller: PopulationController, clock: Callable[[], float]
    ) -> None:
        self._controller, self._clock = controller, clock
        self._began = clock()
        self._steps, self._reports = Pace(), Pace()
        self._slots: list[tuple[Generation, Checkpoint]] = []
        self._newest: dict[int, tuple[Checkpoint, Checkpoint]] = {}
        self._notes: dict[int, tuple[str, str]] = {}
        self._failing: dict[int, int] = {}
        self._retired: frozenset[int] = frozenset()
        self._best: Checkpoint | None = None
        self._sign = 1.0
        self._row = self._statuses = self._branches = self._failures = 0

    def look(self) -> PopulationProgress:
        """Read how far the population is.

        Raises:
            JournalError: The run is closed, or cannot be read.
        """
        run, now = self._controller.open_run, self._clock()
        run.check_open()
        with run.lock.lock:
            state = run.state()
            self._slots = [(slot.generation, slot.newest) for slot in state.slots]
            reached: list[int] = state.scores.reached.tolist()
            reports, open_s = state.reports, 0.0
            if run.stop.seconds is not None:
                open_s = run.session.look()
            self._sign = state.sign
            self._count(state)
            row = state.best.row
            if row is not None and (self._best is None or self._best.row != row):
                self._best = run.graph.at(row)
        return PopulationProgress(
            size=run.size,
            end=run.stop.steps,
            furthest=max(reached),
            mean=statistics.fmean(self._ends(reached)),
            best=self._best,
            branches=self._branches,
            failures=self._failures,
            retired=len(self._retired),
            elapsed_s=now - self._began,
            left_s=self._left_s(now, reached, reports, open_s),
        )

    def member(self, worker_id: int) -> MemberProgress:
        """Return how far a member was at the last look."""
        newest = self._reported(worker_id)
        generation_id, note = self._notes.get(worker_id, ("", ""))
        if generation_id != newest.generation_id:
            note = one_line(newest.meta_params)
            self._notes[worker_id] = newest.generation_id, note
        failures, retired = self._failing.get(worker_id, 0), worker_id in self._retired
        return MemberProgress(worker_id, newest, failures, retired, note)

    def ranked(self) -> list[int]:
        """Return all worker ids, those whose newest value is the best first."""

        def score(worker_id: int) -> float:
            value = self._reported(worker_id).value
            known = value is not None and math.isfinite(value)
            return self._sign * (value or 0.0) if known else math.inf

        return sorted(range(len(self._slots)), key=score)

    def _count(self, state: RunState) -> None:
        """Count branches and failures, from what is new in the journal."""
        journal, members = self._controller.open_run.journal, state.members
        if any(generation.row > self._row for generation, _ in self._slots):
            for opened in journal.generations(after=self._row):
                self._row = opened.row
                self._branches += opened.number > 0 and not is_restart(opened.reason)
        statuses = members.statuses
        if members.count != self._statuses:
            new = [s for s in statuses.values() if s.number > self._statuses]
            if len(new) != members.count - self._statuses:  # Others have replaced some.
                new = journal.all(Status)
                self._failures = 0
            self._statuses = members.count
            self._failures += sum(status.kind in FAILURES for status in new)
            self._failing = {w: status.failures for w, status in statuses.items()}
        self._retired = members.retired

    def _reported(self, worker_id: int) -> Checkpoint:
        """Return the newest checkpoint that a slot itself has reported."""
        generation, newest = self._slots[worker_id]
        seen, found = self._newest.get(worker_id, (None, newest))
        if seen is not newest:
            own = newest.step > generation.step or newest.value is not None
            found = newest if own else self._controller.newest(worker_id)
            self._newest[worker_id] = newest, found
        return found

    def _ends(self, reached: list[int]) -> list[int]:
        """Return the steps of the members; a retired one is as if at its end."""
        end = self._controller.stop.steps
        if end is None:
            return reached
        return [
            end if worker_id in self._retired else min(step, end)
            for worker_id, step in enumerate(reached)
        ]

    def _left_s(
        self, now: float, reached: list[int], reports: int, open_s: float
    ) -> float | None:
        """Return an estimate of the seconds until `stop` ends the run, or None."""
        stop, found = self._controller.stop, []
        if stop.steps is not None:
            done = self._ends(reached)
            self._steps.note(now, sum(done))
            left = stop.steps * len(done) - sum(done)
            found.append(self._steps.left_s(now, left))
        if stop.reports is not None:
            self._reports.note(now, reports)
            found.append(self._reports.left_s(now, stop.reports - reports))
        if stop.seconds is not None:
            found.append(max(0.0, stop.seconds - open_s))
        return min((seconds for seconds in found if seconds is not None), default=None)
