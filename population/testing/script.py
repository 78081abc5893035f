"""The events of a script: reports and other events that may happen to a run.

An event describes a worker's action relative to its newest checkpoint. So a script
still makes sense when some of its events are left out or joined, to find the shortest
one that shows a mistake.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

from population.testing import inside
from population.testing.runner import MAX_FAILURES, ScriptEvent, ScriptRunner, Work


@dataclasses.dataclass(frozen=True)
class ScriptedReport(ScriptEvent):
    """A worker trains on, and reports.

    Attributes:
        worker_id: The worker.
        steps: The number of steps that it has trained since its newest checkpoint.
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

    def play(self, run: ScriptRunner) -> None:
        """Report for the worker's current generation."""
        if not run.held(self.worker_id):
            work = run.ahead(self.worker_id, self.steps, self.value, self.saved)
            run.deliver([work])

    def joined(self, later: ScriptEvent) -> ScriptEvent | None:
        """Return the later report, with the steps of both."""
        if not isinstance(later, ScriptedReport) or later.worker_id != self.worker_id:
            return None
        return dataclasses.replace(later, steps=self.steps + later.steps)


@dataclasses.dataclass(frozen=True)
class AllReport(ScriptEvent):
    """Every worker trains on, and reports.

    Attributes:
        steps: The number of steps that each has trained since its newest checkpoint.
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

    def play(self, run: ScriptRunner) -> None:
        """Report for every worker that is neither given up nor retired."""
        due = [w for w in run.live if not run.held(w)]
        if self.at_once:
            run.deliver([self._work(w, run) for w in due])
            return
        for worker_id in due:
            if not run.held(worker_id):
                run.deliver([self._work(worker_id, run)])

    def joined(self, later: ScriptEvent) -> ScriptEvent | None:
        """Return the later reports, with the steps of both."""
        if not isinstance(later, AllReport) or later.at_once != self.at_once:
            return None
        return dataclasses.replace(later, steps=self.steps + later.steps)

    def _work(self, worker_id: int, run: ScriptRunner) -> Work:
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

    def play(self, run: ScriptRunner) -> None:
        """Report it, if it is in the same generation."""
        if self.worker_id in run.retired:
            return
        newest = inside.newest(run.controller, self.worker_id)
        root = run.controller.graph.root(newest.generation_id)
        if newest.step - 1 > root.step:
            step = newest.step - 1
            name = newest.generation_id
            run.deliver([run.work(self.worker_id, name, step, None, self.value)])


@dataclasses.dataclass(frozen=True)
class Again(ScriptEvent):
    """A worker delivers its last report once more.

    Attributes:
        worker_id: The worker.
    """

    worker_id: int

    def __str__(self) -> str:
        return f"worker {self.worker_id} delivers its last report again"

    def play(self, run: ScriptRunner) -> None:
        """Deliver it, if there is one."""
        last = run.last.get(self.worker_id)
        if last is not None and self.worker_id not in run.retired:
            run.deliver([last])


@dataclasses.dataclass(frozen=True)
class LateValue(ScriptEvent):
    """The value of a worker's last report comes late.

    Attributes:
        worker_id: The worker.
        value: The value.
    """

    worker_id: int
    value: float | None

    def __str__(self) -> str:
        return (
            f"worker {self.worker_id} gets the value of its last report late: "
            f"{_value(self.value)}"
        )

    def play(self, run: ScriptRunner) -> None:
        """Report the value, if it is missing."""
        last = run.last.get(self.worker_id)
        if last is None or self.worker_id in run.retired:
            return
        if last[4] is None:
            worker_id, generation_id, step, *_ = last
            run.deliver([run.work(worker_id, generation_id, step, None, self.value)])


@dataclasses.dataclass(frozen=True)
class OldReport(ScriptEvent):
    """A worker that has not polled since its slot was branched trains on, and reports.

    Attributes:
        worker_id: The worker.
        steps: The number of steps that it has trained.
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

    def play(self, run: ScriptRunner) -> None:
        """Report for the previous generation, if there is one."""
        old = run.previous.get(self.worker_id)
        if old is not None and self.worker_id not in run.retired:
            step = old.step + self.steps
            run.previous[self.worker_id] = old._replace(step=step)
            name = old.generation_id
            work = run.work(self.worker_id, name, step, "of old", self.value)
            run.deliver([work], last=False)


@dataclasses.dataclass(frozen=True)
class GivenUp(ScriptEvent):
    """A worker's slot is given up: it leaves `view.live` until it reports a later step.

    Attributes:
        worker_id: The worker.
    """

    worker_id: int

    def __str__(self) -> str:
        return f"worker {self.worker_id} is given up"

    def play(self, run: ScriptRunner) -> None:
        """Give up the slot, unless it is retired or the last live one."""
        if set(run.live) - {self.worker_id} and self.worker_id not in run.retired:
            run.give_up(self.worker_id)


@dataclasses.dataclass(frozen=True)
class Fails(ScriptEvent):
    """A worker's trial fails, say by an exception; the third time in a row is its last.

    Attributes:
        worker_id: The worker.
    """

    worker_id: int

    def __str__(self) -> str:
        return f"worker {self.worker_id} fails"

    def play(self, run: ScriptRunner) -> None:
        """Let it fail, unless it is retired."""
        if self.worker_id not in run.retired:
            run.fail(self.worker_id, "an exception")


@dataclasses.dataclass(frozen=True)
class Revives(ScriptEvent):
    """A retired worker is trained again.

    Attributes:
        worker_id: The worker.
    """

    worker_id: int

    def __str__(self) -> str:
        return f"worker {self.worker_id} is revived, if it is retired"

    def play(self, run: ScriptRunner) -> None:
        """Revive it, if it is retired."""
        if self.worker_id in run.retired:
            run.controller.revive(self.worker_id)


@dataclasses.dataclass(frozen=True)
class Passes(ScriptEvent):
    """Time passes.

    Attributes:
        seconds: How long.
    """

    seconds: float

    def __str__(self) -> str:
        return f"{self.seconds:g} seconds pass"

    def play(self, run: ScriptRunner) -> None:
        """Advance the clock."""
        run.clock.advance(self.seconds)


def absent(script: Sequence[ScriptEvent]) -> set[int]:
    """Return the workers that a script gives up, or lets fail until retired."""
    failures = collections.Counter(
        event.worker_id for event in script if isinstance(event, Fails)
    )
    retired = {w for w, count in failures.items() if count >= MAX_FAILURES}
    return retired | {e.worker_id for e in script if isinstance(e, GivenUp)}


def negated(script: Sequence[ScriptEvent]) -> tuple[ScriptEvent, ...]:
    """Return the script with the sign of every value changed."""
    return tuple(_negated(event) for event in script)


def _negated(event: ScriptEvent) -> ScriptEvent:
    if isinstance(event, AllReport):
        return dataclasses.replace(event, values=tuple(map(_minus, event.values)))
    if isinstance(event, (ScriptedReport, Earlier, LateValue, OldReport)):
        return dataclasses.replace(event, value=_minus(event.value))
    return event


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _value(value: float | None) -> str:
    return "no value" if value is None else f"value {value:g}"


def _params(saved: bool) -> str:
    return ", params saved" if saved else ""
