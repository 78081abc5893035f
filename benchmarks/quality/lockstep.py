"""Trains a population on a task in lockstep: all members report after each round.

Ten million reports are too many for a journal. `Lockstep` shows a mutator the same view
as a controller in memory does, and a test compares the two, bit for bit.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.quality.tasks import Array, Problem
from population import Branch, Checkpoint, Mutator, Report, Retire, Schedule
from population.mutators import FixedSchedule
from population.space import sample, stratified

WINDOW = 5  # So many noisy reports are averaged.


class Outcome(NamedTuple):
    """What one run has found.

    Attributes:
        value: The true value of the member with the best report at the end.
        again: The true value of its schedule, trained with from the start.
        steadier: The true value of the member with the best mean of its last reports.
    """

    value: float
    again: float
    steadier: float


class Lockstep:
    """A population under a mutator, and its view; larger values are better.

    There are no divergences, retirements and branches to earlier rounds here.

    Args:
        mutator: The policy.
        members: The first hyperparameters of each member.
        seed: The seed.

    Attributes:
        settings: The hyperparameters of each member.
        state: The mutator's state.
    """

    def __init__(
        self, mutator: Mutator[Any], members: Sequence[Any], seed: int
    ) -> None:
        size = len(members)
        self._mutator = mutator
        self._seed = seed
        self._decisions = 0
        self._parents: dict[int, Checkpoint] = {}
        self._rows = itertools.count(size)
        self._rng: np.random.Generator | None = None
        self.graph = self
        self.now = 0.0
        self.live = self.workers = list(range(size))
        self.settings = [mutator.first(w, 0, meta) for w, meta in enumerate(members)]
        self.steps = np.full(size, -1)
        self.scores = np.full(size, np.inf)
        self.begins = np.zeros(size, int)
        self._newest = [
            Checkpoint(None, meta, str(w), None, None, 0, 0.0, w, row=w)
            for w, meta in enumerate(self.settings)
        ]
        self._history = self._reported = np.full((size, 0), np.nan)
        self._reports: list[Report] = []
        self.state = mutator.init(self._view)

    @property
    def _view(self) -> Any:
        return self

    def report(self, values: Sequence[float]) -> dict[int, int]:
        """Report a round; return the members that copy weights, and from which ones."""
        step = self._newest[0].step + 1
        self._reports = []
        for w, value in enumerate(values):
            before, row = self._newest[w], next(self._rows)
            found = before._replace(
                value=value, step=step, parent=before.ref, reason="", row=row
            )
            self._newest[w], self._parents[row] = found, before
            self._reports.append(Report(w, found))
        self.steps[:] = step
        self.scores[:] = np.negative(values)
        self._reported = np.column_stack([self._history, self.scores])
        self._history = self._reported.copy()
        branched: dict[int, int] = {}
        for report in self._reports:
            if report.worker_id not in branched:
                self._rng = None
                after, moves = self._mutator.update(self.state, report, self._view)
                if moves or after is not self.state:
                    self._decisions += 1
                self.state = after
                for w, branch in sorted(moves.items()):
                    branched[w] = self._branch(w, branch)
        return {w: origin for w, origin in branched.items() if origin != w}

    def schedule(self, worker_id: int) -> Schedule:
        """Return the hyperparameters over steps that led to a member's last report."""
        lineage = list(self.walk(self._reports[worker_id].checkpoint))
        return Schedule(
            {c.step: c.meta_params for c in reversed(lineage) if c.value is None}
        )

    def mean(self, worker_id: int, window: int) -> float:
        """Return the mean of a member's last values, as it reported them."""
        return -float(self._reported[worker_id, -window:].mean())

    @property
    def rng(self) -> np.random.Generator:
        """The random numbers of this decision."""
        if self._rng is None:
            self._rng = np.random.default_rng([self._seed, self._decisions + 1])
        return self._rng

    @property
    def ready(self) -> npt.NDArray[np.int64]:
        """All reports can close a barrier."""
        return self.steps

    def last(self, count: int, until: Any = None) -> Array:
        """Return the last scores of each lineage; all are at the same step."""
        del until
        found = np.full((len(self.live), count), np.nan)
        tail = self._history[:, -count:]
        found[:, count - tail.shape[1] :] = tail
        return found

    def as_of(self, step: int) -> tuple[npt.NDArray[np.int64], Array]:
        """Return the scores at a step."""
        if step < 1:
            return np.full(len(self.live), -1), np.full(len(self.live), np.inf)
        step = min(step, int(self.steps[0]))
        return np.full(len(self.live), step), self._history[:, step - 1].copy()

    def score(self, checkpoint: Checkpoint) -> float:
        """Return minus the value."""
        return np.inf if checkpoint.value is None else -checkpoint.value

    def newest(self, worker_id: int) -> Checkpoint:
        """Return a member's newest checkpoint."""
        return self._newest[worker_id]

    def barrier(self, worker_id: int, step: int) -> Checkpoint | None:
        """Return a member's first report from a step on."""
        if self.steps[worker_id] < step:
            return None
        found = None
        for checkpoint in self.walk(self._newest[worker_id]):
            if checkpoint.step < step:
                break
            found = checkpoint if checkpoint.value is not None else found
        return found

    def resume_point(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the nearest report: a branch has the weights of its parent."""
        return next(c for c in self.walk(checkpoint) if c.value is not None)

    def walk(self, checkpoint: Checkpoint) -> Iterator[Checkpoint]:
        """Yield a checkpoint and its ancestors."""
        found: Checkpoint | None = checkpoint
        while found is not None:
            yield found
            found = self._parents.get(found.row)

    def _branch(self, worker_id: int, branch: Branch | Retire) -> int:
        """Begin a generation; return the member whose weights it has."""
        step = int(self.steps[0])
        parent = branch.parent if isinstance(branch, Branch) else None
        if not isinstance(branch, Branch) or parent is None or parent.step != step:
            raise RuntimeError(f"In lockstep nobody goes back, but here: {branch}.")
        row, origin = next(self._rows), parent.worker_id
        self._newest[worker_id] = Checkpoint(
            None,
            branch.meta_params,
            str(row),
            None,
            parent.ref,
            step,
            0.0,
            worker_id,
            row=row,
        )
        self._parents[row] = parent
        self._history[worker_id] = self._reported[origin]
        self.scores[worker_id] = self._reported[origin, -1]
        self.begins[worker_id] = step
        self.settings[worker_id] = branch.meta_params
        return origin


def found_by(
    mutator: Mutator[Any], problem: Problem, size: int, seed: int, initial: str
) -> Outcome:
    """Return what a policy finds, with `initial` as in `from_space`."""
    members = first_members(problem, size, seed, initial)
    population = Lockstep(mutator, members, seed)
    states, reports = train(population, problem, noise_of(seed))
    best = int(np.argmax(reports))
    means = [population.mean(w, WINDOW if problem.noise else 1) for w in range(size)]
    values = problem.values(states).tolist()
    again = _again(population.schedule(best), problem)
    return Outcome(values[best], again, values[int(np.argmax(means))])


def train(
    population: Lockstep, problem: Problem, rng: np.random.Generator | None
) -> tuple[Array, Array]:
    """Train all members; without `rng` reports have no noise.

    Returns:
        `[N, d]` and `[N]` the states after the last round, and its reports.
    """
    size = len(population.settings)
    states = problem.begin(size)
    for number in range(problem.rounds):
        settings = _settings(problem, population.settings)
        trained = problem.train(states, settings, number)
        reports = problem.values(trained)
        if rng is not None:
            reports = reports + problem.noise * rng.normal(size=size)
        states = trained.copy()
        for worker_id, origin in population.report(reports.tolist()).items():
            states[worker_id] = trained[origin]
    return trained, reports


def searched(problem: Problem, size: int, seed: int, initial: str) -> Outcome:
    """Return what random search finds: its members never change."""
    members = first_members(problem, size, seed, initial)
    settings, states = _settings(problem, members), problem.begin(size)
    noise = noise_of(seed)
    reports = []
    for number in range(problem.rounds):
        states = problem.train(states, settings, number)
        found = problem.values(states)
        reports.append(found + problem.noise * noise.normal(size=size))
    window = WINDOW if problem.noise else 1
    best = int(np.mean(reports[-window:], axis=0).argmax())
    again = _again(Schedule({0: members[best]}), problem)
    return Outcome(float(found[best]), again, float(found[best]))


def noise_of(seed: int) -> np.random.Generator:
    """Return the random numbers of the reports; no decision draws them."""
    return np.random.default_rng([seed, 0, 6])


def static(problem: Problem) -> float:
    """Return the true value of the best setting that never changes."""
    settings = problem.statics()
    found = []
    for again in problem.again():
        states = again.begin(len(settings))
        for number in range(problem.rounds):
            states = again.train(states, settings, number)
        found.append(again.values(states))
    return float(np.mean(found, axis=0).max())


def first_members(problem: Problem, size: int, seed: int, initial: str) -> list[Any]:
    """Return the members of `from_space`, or with "whole" not those of `start` only."""
    rng = np.random.default_rng([seed, 0, 1])
    if initial == "stratified":
        return stratified(problem.space, size, rng)
    first = initial != "whole"
    return [sample(problem.space, rng, first=first) for _ in range(size)]


def _again(schedule: Schedule, problem: Problem) -> float:
    """Return the true value of a schedule, trained with from the start."""
    values = []
    for other in problem.again():
        replay = Lockstep(FixedSchedule(schedule), [schedule.at(0)], 0)
        states, _ = train(replay, other, None)
        values.append(float(other.values(states)[0]))
    return statistics.fmean(values)


def _settings(problem: Problem, members: Sequence[Any]) -> Array:
    """Return hyperparameters as `[M, h]`."""
    return np.array([[member[name] for name in problem.space] for member in members])
