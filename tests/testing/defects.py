"""Mutators with one defect each, and the right one from which they derive."""

from __future__ import annotations

import dataclasses
import datetime
import math
import random
import time
from collections.abc import Mapping
from time import monotonic
from typing import Any

import numpy as np

from population import (
    Branch,
    Checkpoint,
    Mutator,
    PopulationView,
    Ref,
    Report,
    Retire,
)
from population.base import Failure
from population.mutators.rounds import Latecomer

INTERVAL = 3
Update = tuple["Round", Mapping[int, Branch]]


@dataclasses.dataclass
class Round:
    """The state; not frozen, so that a defect can change it.

    Attributes:
        starts: The step at which each slot's interval began.
        notes: Anything that a defect keeps.
    """

    starts: list[int]
    notes: list[int] = dataclasses.field(default_factory=list)


class Right(Mutator[Round]):
    """After three steps a worker copies the best one, if that is another.

    Each part that can be wrong is a separate method.
    """

    def init(self, view: PopulationView) -> Round:
        """Each slot's interval begins at its step."""
        return Round([view.newest(w).step for w in range(len(view.steps))])

    def update(self, state: Round, report: Report, view: PopulationView) -> Update:
        """Decide for the worker that has reported."""
        worker_id = report.worker_id
        if view.steps[worker_id] < state.starts[worker_id] + INTERVAL:
            return state, {}
        return self.decide(state, worker_id, view)

    def decide(self, state: Round, worker_id: int, view: PopulationView) -> Update:
        """The branch, and the next interval of the worker."""
        best = self.best(view)
        if best == worker_id or not math.isfinite(view.scores[best]):
            return self.following(state, worker_id, int(view.steps[worker_id])), {}
        point = self.donor(best, view)
        branch = Branch(point, self.explored(point.meta_params, view), "copy")
        return self.following(state, worker_id, point.step), {worker_id: branch}

    def best(self, view: PopulationView) -> int:
        """The best worker."""
        return int(np.argmin(view.scores))

    def donor(self, best: int, view: PopulationView) -> Checkpoint:
        """The checkpoint from which to continue."""
        return view.graph.resume_point(view.newest(best))

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """New hyperparameters."""
        return {"moved": float(view.rng.normal()), "from": len(repr(meta_params))}

    def following(self, state: Round, worker_id: int, step: int) -> Round:
        """The next state."""
        starts = state.starts.copy()
        starts[worker_id] = step
        return Round(starts, state.notes)


class StateInPlace(Right):
    """Changes its state in place."""

    def following(self, state: Round, worker_id: int, step: int) -> Round:
        """The same object, with other content."""
        state.starts[worker_id] = step
        return state


class MetaParamsInPlace(Right):
    """Changes the donor's meta_params in place."""

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """The donor's own dict, changed."""
        meta_params["moved"] = float(view.rng.normal())
        return meta_params


class NumPyNumbers(Right):
    """Takes random numbers from NumPy's global generator."""

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """Random numbers that do not depend on the seed."""
        return {"moved": float(np.random.normal())}


class PythonNumbers(Right):
    """Takes random numbers from Python's global generator."""

    def best(self, view: PopulationView) -> int:
        """A random worker."""
        return random.randrange(len(view.scores))


class OperatingSystemNumbers(Right):
    """Makes a generator without a seed."""

    def best(self, view: PopulationView) -> int:
        """A random worker."""
        return int(np.random.default_rng().integers(len(view.scores)))


class OwnClock(Right):
    """Decides by the time of day."""

    def update(self, state: Round, report: Report, view: PopulationView) -> Update:
        """Branch only a minute after the last decision."""
        now = int(time.time())
        if state.notes and now < state.notes[0] + 60:
            return state, {}
        following, branches = super().update(state, report, view)
        return (Round(following.starts, [now]) if branches else following), branches


class OwnMonotonicClock(Right):
    """Decides by a clock that it has imported under another name."""

    def __init__(self) -> None:
        self._began = monotonic()

    def update(self, state: Round, report: Report, view: PopulationView) -> Update:
        """Branch only after a minute."""
        if monotonic() < self._began + 60:
            return state, {}
        return super().update(state, report, view)


class OwnCalendar(Right):
    """Writes the date into the hyperparameters."""

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """With today's date."""
        return {"made": str(datetime.datetime.now())}


class Counts(Right):
    """Counts in the object how often it was called."""

    def __init__(self) -> None:
        self._count = 0

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """The number of the decision."""
        self._count += 1
        return {"count": self._count}


class Remembers(Right):
    """Remembers in the object what a restart loses; two equal calls return the same."""

    def __init__(self) -> None:
        self._known: dict[int, float] = {}

    def update(self, state: Round, report: Report, view: PopulationView) -> Update:
        """Keep the best value of each worker outside of the state."""
        worker_id, score = report.worker_id, view.score(report.checkpoint)
        self._known[worker_id] = min(score, self._known.get(worker_id, math.inf))
        return super().update(state, report, view)

    def best(self, view: PopulationView) -> int:
        """The worker with the best value ever."""
        return min(self._known, key=lambda w: (self._known[w], w))


class NanIsBest(Right):
    """Takes NaN for the best value."""

    def decide(self, state: Round, worker_id: int, view: PopulationView) -> Update:
        """Copy a worker that has diverged."""
        for other in view.live:
            newest = view.newest(other)
            if newest.diverged and other != worker_id:
                following = self.following(state, worker_id, newest.step)
                return following, {worker_id: Branch(newest, {"nan": "best"})}
        return super().decide(state, worker_id, view)


class DeadDonor(Right):
    """Copies from the beginning of a generation that is superseded."""

    def donor(self, best: int, view: PopulationView) -> Checkpoint:
        """The best worker's oldest checkpoint with params."""
        for checkpoint in view.graph.lineage(view.newest(best)):
            if checkpoint.params is not None and not checkpoint.diverged:
                return checkpoint
        return super().donor(best, view)


class History(Right):
    """Keeps the step of every decision."""

    def following(self, state: Round, worker_id: int, step: int) -> Round:
        """With one more note."""
        following = super().following(state, worker_id, step)
        return Round(following.starts, [*state.notes, step])


class EqualCopy(Right):
    """Returns a new state at every report."""

    def update(self, state: Round, report: Report, view: PopulationView) -> Update:
        """Return an equal one."""
        following, branches = super().update(state, report, view)
        return Round(list(following.starts), following.notes), branches


class RawValues(Right):
    """Takes the smallest value as the best, for every mode."""

    def best(self, view: PopulationView) -> int:
        """Compare values, not scores."""
        values = [view.newest(w).value for w in range(len(view.steps))]
        known = [math.inf if v is None or not math.isfinite(v) else v for v in values]
        return int(np.argmin(known))


class Fails(Right):
    """Requires that each report has a value."""

    def update(self, state: Round, report: Report, view: PopulationView) -> Update:
        """Raise by arithmetic with None."""
        if abs(report.checkpoint.value) > 1e9:  # type: ignore[arg-type]
            return state, {}
        return super().update(state, report, view)


class Unstorable(Right):
    """Keeps a set, which is not plain data."""

    def following(self, state: Round, worker_id: int, step: int) -> Round:
        """A set of workers."""
        following = super().following(state, worker_id, step)
        return Round(following.starts, {worker_id})  # type: ignore[arg-type]


class AnotherType(Right):
    """Returns a state of another type than its `init`."""

    def following(self, state: Round, worker_id: int, step: int) -> Round:
        """A list."""
        return [step]  # type: ignore[return-value]


class Untyped(Right):
    """Keeps a record in a field whose annotation does not name its type."""

    def following(self, state: Round, worker_id: int, step: int) -> Round:
        """It can be written, but not read."""
        following = super().following(state, worker_id, step)
        return Round(following.starts, Round([step]))  # type: ignore[arg-type]


class OtherBeginnings(Right):
    """Begins differently each time."""

    def __init__(self) -> None:
        self._count = 0

    def init(self, view: PopulationView) -> Round:
        """Return the number of the call."""
        self._count += 1
        return Round(super().init(view).starts, [self._count])


class WaitsElsewhere(Right):
    """Returns another step at each call."""

    def __init__(self) -> None:
        self._count = 0

    def wait_at(self, state: Round, worker_id: int, view: PopulationView) -> int:
        """A later one."""
        self._count += 1
        return 1000 + self._count


class WaitsAndWrites(Right):
    """Records in its state that `wait_at` was called."""

    def wait_at(self, state: Round, worker_id: int, view: PopulationView) -> None:
        """Return None."""
        state.notes[:] = [len(state.notes) + 1, worker_id]


class SlowRounds(Right):
    """Compares all pairs of workers at every decision."""

    def best(self, view: PopulationView) -> int:
        """The worker with the fewest better ones."""
        better = [sum(a < b for a in view.scores) for b in view.scores]
        return better.index(min(better))


class Scans(Right):
    """Reads every worker at every report."""

    def update(self, state: Round, report: Report, view: PopulationView) -> Update:
        """Use a Python loop."""
        if max(view.newest(w).step for w in view.live) < 0:
            return state, {}
        return super().update(state, report, view)


class Barrier(Right):
    """All wait for each other, and all copy the best one."""

    def __init__(self) -> None:
        self._latecomer = Latecomer()

    def update(self, state: Round, report: Report, view: PopulationView) -> Update:
        """Decide when the last of them has arrived."""
        waiting_for = self.expected(view)
        if self._latecomer.is_late(
            state, waiting_for, lambda w: not self.missing(state, w, view)
        ):
            return state, {}
        points = {w: view.barrier(w, self.end(state, w)) for w in waiting_for}
        reached = [c for c in points.values() if c is not None]
        best = min(reached, key=view.score)
        point = view.graph.resume_point(best)
        branches = {
            w: Branch(point, self.explored(point.meta_params, view), "round")
            for w in points
            if w != best.worker_id
        }
        starts = [
            point.step if w in branches else points[w].step if w in points else old  # type: ignore[union-attr]
            for w, old in enumerate(state.starts)
        ]
        return Round(starts), branches

    def wait_at(self, state: Round, worker_id: int, view: PopulationView) -> int:
        """The end of the interval."""
        return self.end(state, worker_id)

    def end(self, state: Round, worker_id: int) -> int:
        """Where the worker's interval ends."""
        return state.starts[worker_id] + INTERVAL

    def expected(self, view: PopulationView) -> list[int]:
        """The workers for which the round waits."""
        return list(view.live)

    def missing(self, state: Round, worker_id: int, view: PopulationView) -> bool:
        """Whether a worker has not arrived."""
        return view.barrier(worker_id, self.end(state, worker_id)) is None


class WaitsForTheDead(Barrier):
    """Its rounds wait for workers that were given up or retired."""

    def expected(self, view: PopulationView) -> list[int]:
        """All workers."""
        return list(range(len(view.steps)))


class CountsOnTheDead(Right):
    """Decides only once all workers, live or not, have trained an interval."""

    def update(self, state: Round, report: Report, view: PopulationView) -> Update:
        """Look at all steps."""
        if view.steps.min() < INTERVAL:
            return state, {}
        return super().update(state, report, view)


class WaitsTooEarly(Barrier):
    """Workers wait one step before the step that a round needs."""

    def wait_at(self, state: Round, worker_id: int, view: PopulationView) -> int:
        """Return one step too early."""
        return self.end(state, worker_id) - 1


class Rescues(Right):
    """A worker that fails copies the best one, and is retired the second time."""

    def failed(
        self, state: Round, failure: Failure, view: PopulationView
    ) -> tuple[Round, Mapping[int, Branch | Retire]]:
        """Decide for the worker that has failed."""
        worker_id = failure.worker_id
        if failure.retired:
            return state, {}
        if failure.failures > 1:
            return state, {worker_id: Retire(f"failed twice: {failure.reason}")}
        point = self.donor(self.best(view), view)
        branch = Branch(point, self.explored(point.meta_params, view), "rescued")
        return self.following(state, worker_id, point.step), {worker_id: branch}


class RetiresTheBest(Right):
    """Retires the best worker, which is foolish, but breaks no promise."""

    def decide(self, state: Round, worker_id: int, view: PopulationView) -> Any:
        """Retire it if it is another, and not the last one."""
        best = self.best(view)
        following = self.following(state, worker_id, int(view.steps[worker_id]))
        if best == worker_id or best not in view.live or len(view.live) < 2:
            return following, {}
        return following, {best: Retire("too good")}


class FailedInPlace(Right):
    """Notes a failure in its state, in place."""

    def failed(
        self, state: Round, failure: Failure, view: PopulationView
    ) -> tuple[Round, Mapping[int, Branch | Retire]]:
        """Return the same object."""
        state.starts[failure.worker_id] = failure.checkpoint.step + 1
        return state, {}


class FailedCounts(Right):
    """Counts in the object how often a worker has failed."""

    def __init__(self) -> None:
        self._count = 0

    def failed(
        self, state: Round, failure: Failure, view: PopulationView
    ) -> tuple[Round, Mapping[int, Branch | Retire]]:
        """Branch with the number of the failure."""
        self._count += 1
        point = self.donor(failure.worker_id, view)
        return state, {failure.worker_id: Branch(point, {"count": self._count})}


class FailedEqualCopy(Right):
    """Returns an equal state after a failure."""

    def failed(
        self, state: Round, failure: Failure, view: PopulationView
    ) -> tuple[Round, Mapping[int, Branch | Retire]]:
        """Return another object."""
        return Round(list(state.starts), state.notes), {}


class FailedRaises(Right):
    """Requires that a worker has reported before it fails."""

    def failed(
        self, state: Round, failure: Failure, view: PopulationView
    ) -> tuple[Round, Mapping[int, Branch | Retire]]:
        """Raise by arithmetic with None."""
        if failure.checkpoint.value < 0:  # type: ignore[operator]
            return state, {}
        return state, {failure.worker_id: Retire("bad")}


class FirstInPlace(Right):
    """Changes the meta_params with which a slot begins, in place."""

    def first(self, worker_id: int, step: int, meta_params: Any) -> Any:
        """Return the same object."""
        meta_params["first"] = step
        return meta_params


class FirstCounts(Right):
    """Begins with other meta_params each time."""

    def __init__(self) -> None:
        self._count = 0

    def first(self, worker_id: int, step: int, meta_params: Any) -> Any:
        """With the number of the call."""
        self._count += 1
        return {**meta_params, "first": self._count}


class FirstUnstorable(Right):
    """Begins with meta_params that cannot be stored."""

    def first(self, worker_id: int, step: int, meta_params: Any) -> Any:
        """With a set."""
        return {**meta_params, "first": {step}}


class RefDonor(Right):
    """Goes back to checkpoints that its state names, which is valid."""

    def init(self, view: PopulationView) -> Any:
        """Its state is a list of them."""
        return [view.newest(w).ref for w in range(len(view.steps))]

    def update(self, state: Any, report: Report, view: PopulationView) -> Any:
        """Go back to the checkpoint of the last but one decision."""
        worker_id = report.worker_id
        start: Ref = state[worker_id]
        newest = view.newest(worker_id)
        if newest.params is None or newest.step < start.step + INTERVAL:
            return state, {}
        point = view.graph.resume_point(view.graph.checkpoint(start))
        here = view.graph.resume_point(newest).ref
        if here == start:
            return state, {}
        following = [here if w == worker_id else ref for w, ref in enumerate(state)]
        if view.rng.integers(2):
            return following, {}
        return following, {worker_id: Branch(point, {"again": point.step})}
