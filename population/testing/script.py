"""The events of a script: what may happen to a run.

An event says what a worker does relative to its newest checkpoint. So a script still
makes sense when some of its events are left out or joined, to find the shortest one
that shows a mistake.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

from population.base.types import Ref
from population.controller import PopulationController
from population.testing.clock import Clock

Work = tuple[int, str, int, Any, Any]  # A report, in the argument order of `set_eval`.


class ScriptedRun(Protocol):
    """What an event needs of the run in which it happens.

    Attributes:
        controller: The run.
        clock: Its clock.
        size: How many workers there are.
        given_up: The workers whose slots are given up.
        last: The last report of each worker.
        previous: Where each worker's previous generation ended.
    """

    controller: PopulationController
    clock: Clock
    size: int
    given_up: set[int]
    last: dict[int, Work]
    previous: dict[int, Ref]

    def held(self, worker_id: int) -> bool:
        """Whether the worker waits for a decision."""

    def ahead(self, worker_id: int, steps: int, value: Any, saved: bool) -> Work:
        """The report of a worker that has trained on from its newest checkpoint."""

    def deliver(self, reports: Sequence[Work], *, last: bool = True) -> None:
        """Report; a worker that reports is waited for again."""

    def give_up(self, worker_id: int) -> None:
        """Give up a worker's slot, until it reports again."""


@dataclasses.dataclass(frozen=True)
class ScriptEvent(abc.ABC):
    """Something that happens to a run; its `str` is one line."""

    @abc.abstractmethod
    def play(self, run: ScriptedRun) -> None:
        """Let it happen; nothing happens where it is impossible."""

    def joined(self, later: ScriptEvent) -> ScriptEvent | None:
        """One event in place of this one and a later one; None if there is none."""
        del later
        return None


@dataclasses.dataclass(frozen=True)
class ScriptedReport(ScriptEvent):
    """A worker trains on, and reports.

    Attributes:
        worker_id: The worker.
        steps: How many steps it has trained since its newest checkpoint.
        value: The value, or None.
        saved: Whether it has saved its params.
    """

    worker_id: int
    steps: int = 1
    value: float | None = None
    saved: bool = False

    def __str__(self) -> str:
        return (
            f"worker {self.worker_id} reports step +{self.steps}, "
            f"{_value(self.value)}{_params(self.saved)}"
        )

    def play(self, run: ScriptedRun) -> None:
        """Report for the worker's current generation."""
        if not run.held(self.worker_id):
            work = run.ahead(self.worker_id, self.steps, self.value, self.saved)
            run.deliver([work])

    def joined(self, later: ScriptEvent) -> ScriptEvent | None:
        """The later report, with the steps of both."""
        if not isinstance(later, ScriptedReport) or later.worker_id != self.worker_id:
            return None
        return dataclasses.replace(later, steps=self.steps + later.steps)


@dataclasses.dataclass(frozen=True)
class AllReport(ScriptEvent):
    """Every worker trains on, and reports.

    Attributes:
        steps: How many steps each has trained since its newest checkpoint.
        values: The values by worker id, repeated if there are more workers.
        saved: Whether they have saved their params.
        at_once: Whether they report in one batch, as an engine does; else in turn.
    """

    steps: int
    values: tuple[float | None, ...]
    saved: bool = False
    at_once: bool = False

    def __str__(self) -> str:
        values = ", ".join("none" if v is None else f"{v:g}" for v in self.values)
        how = "in one batch" if self.at_once else "in turn"
        return (
            f"all report step +{self.steps} {how}, values {values}{_params(self.saved)}"
        )

    def play(self, run: ScriptedRun) -> None:
        """Report for every worker that is not given up."""
        live = (w for w in range(run.size) if w not in run.given_up)
        due = [w for w in live if not run.held(w)]
        if self.at_once:
            run.deliver([self._work(w, run) for w in due])
            return
        for worker_id in due:
            if not run.held(worker_id):
                run.deliver([self._work(worker_id, run)])

    def joined(self, later: ScriptEvent) -> ScriptEvent | None:
        """The later reports, with the steps of both."""
        if not isinstance(later, AllReport) or later.at_once != self.at_once:
            return None
        return dataclasses.replace(later, steps=self.steps + later.steps)

    def _work(self, worker_id: int, run: ScriptedRun) -> Work:
        value = self.values[worker_id % len(self.values)]
        return run.ahead(worker_id, self.steps, value, self.saved)


@dataclasses.dataclass(frozen=True)
class Earlier(ScriptEvent):
    """A worker reports the step before its newest one, out of order.

    Attributes:
        worker_id: The worker.
        value: The value.
    """

    worker_id: int
    value: float | None

    def __str__(self) -> str:
        return (
            f"worker {self.worker_id} reports the step before its newest, "
            f"{_value(self.value)}"
        )

    def play(self, run: ScriptedRun) -> None:
        """Report it, if it is in the same generation."""
        newest = run.controller.newest(self.worker_id)
        root = run.controller.graph.root(newest.generation_id)
        if newest.step - 1 > root.step:
            step = newest.step - 1
            work = (self.worker_id, newest.generation_id, step, None, self.value)
            run.deliver([work])


@dataclasses.dataclass(frozen=True)
class Again(ScriptEvent):
    """A worker delivers its last report once more.

    Attributes:
        worker_id: The worker.
    """

    worker_id: int

    def __str__(self) -> str:
        return f"worker {self.worker_id} delivers its last report again"

    def play(self, run: ScriptedRun) -> None:
        """Deliver it, if there is one."""
        last = run.last.get(self.worker_id)
        if last is not None:
            run.deliver([last])


@dataclasses.dataclass(frozen=True)
class LateValue(ScriptEvent):
    """The value of a worker's last report comes late.

    Attributes:
        worker_id: The worker.
        value: The value.
    """

    worker_id: int
    value: float

    def __str__(self) -> str:
        return (
            f"worker {self.worker_id} gets the value of its last report late: "
            f"{_value(self.value)}"
        )

    def play(self, run: ScriptedRun) -> None:
        """Report the value, if it is missing."""
        last = run.last.get(self.worker_id)
        if last is not None and last[4] is None:
            worker_id, generation_id, step, _, _ = last
            run.deliver([(worker_id, generation_id, step, None, self.value)])


@dataclasses.dataclass(frozen=True)
class OldReport(ScriptEvent):
    """A worker that has not polled since its slot was branched trains on, and reports.

    Attributes:
        worker_id: The worker.
        steps: How many steps it has trained.
        value: The value.
    """

    worker_id: int
    steps: int
    value: float | None

    def __str__(self) -> str:
        return (
            f"worker {self.worker_id} reports step +{self.steps} for its previous "
            f"generation, {_value(self.value)}"
        )

    def play(self, run: ScriptedRun) -> None:
        """Report for the previous generation, if there is one."""
        old = run.previous.get(self.worker_id)
        if old is not None:
            step = old.step + self.steps
            run.previous[self.worker_id] = old._replace(step=step)
            work = (self.worker_id, old.generation_id, step, "of old", self.value)
            run.deliver([work], last=False)


@dataclasses.dataclass(frozen=True)
class GivenUp(ScriptEvent):
    """A worker's slot is given up: it leaves `view.live` until it reports again.

    Attributes:
        worker_id: The worker.
    """

    worker_id: int

    def __str__(self) -> str:
        return f"worker {self.worker_id} is given up"

    def play(self, run: ScriptedRun) -> None:
        """Give up the slot, unless it is the last live one."""
        if len(run.given_up | {self.worker_id}) < run.size:
            run.give_up(self.worker_id)


@dataclasses.dataclass(frozen=True)
class Passes(ScriptEvent):
    """Time passes.

    Attributes:
        seconds: How long.
    """

    seconds: float

    def __str__(self) -> str:
        return f"{self.seconds:g} seconds pass"

    def play(self, run: ScriptedRun) -> None:
        """Advance the clock."""
        run.clock.advance(self.seconds)


def negated(script: Sequence[ScriptEvent]) -> tuple[ScriptEvent, ...]:
    """The script with the sign of every value changed."""
    found: list[ScriptEvent] = []
    for event in script:
        if isinstance(event, AllReport):
            values = tuple(None if v is None else -v for v in event.values)
            event = dataclasses.replace(event, values=values)
        elif isinstance(event, (ScriptedReport, Earlier, OldReport)):
            if event.value is not None:
                event = dataclasses.replace(event, value=-event.value)
        elif isinstance(event, LateValue):
            event = dataclasses.replace(event, value=-event.value)
        found.append(event)
    return tuple(found)


def _value(value: float | None) -> str:
    return "no value" if value is None else f"value {value:g}"


def _params(saved: bool) -> str:
    return ", params saved" if saved else ""
