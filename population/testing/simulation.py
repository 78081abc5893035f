"""Simulates a mutator on a synthetic problem, with slow workers and deaths."""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from population.base.interfaces import Mutator
from population.base.types import ActiveWorker
from population.controller import PopulationController
from population.journal.base import Journal
from population.testing import inside
from population.testing.clock import Clock

_NOISE = 1.0


def _far_away(meta_params: Any) -> Any:
    del meta_params
    return 100.0


def _descend(params: Any, meta_params: Any, steps: int) -> Any:
    """The expected loss of stochastic gradient descent on x**2 / 2, step by step."""
    rate = meta_params["learning_rate"]
    for _ in range(steps):
        params = (1 - rate) * (1 - rate) * params + rate * rate * _NOISE
    return params


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something to train, as three pure functions.

    By default the expected loss of noisy gradient descent on a parabola: a large
    `learning_rate` is fast at first, only a small one comes close to the minimum, and
    one above 2 diverges. The best schedule decreases.

    Attributes:
        init: `init(meta_params)` returns the first params.
        train: `train(params, meta_params, steps)` returns the params that many steps
            later.
        evaluate: `evaluate(params)` returns their value.
    """

    init: Callable[[Any], Any] = _far_away
    train: Callable[[Any, Any, int], Any] = _descend
    evaluate: Callable[[Any], float] = float


def simulate(
    mutator: Mutator[Any],
    population: Sequence[Any] | None = None,
    *,
    problem: Problem | None = None,
    size: int = 4,
    steps: int = 200,
    every: int = 10,
    speeds: Sequence[float] | None = None,
    deaths: Mapping[int, float] | None = None,
    give_up_after: float | None = 60.0,
    seed: int = 0,
    mode: str = "min",
    journal: Journal | None = None,
) -> PopulationController:
    """Train a simulated population, to see what a mutator decides.

    Workers wait where `wait_at` says so, also for one that has died, until the program
    that runs them calls `controller.give_up`. That is done `give_up_after` seconds
    after its last report: the slot leaves `view.live`, and the mutator is shown the
    newest value of the lowest slot that is left and has one. In a run no time alone
    gives a slot up: pass None to see what a mutator does if nothing else does. If
    workers wait for one that has trained all of its `steps`, the run ends.

    Args:
        mutator: The policy.
        population: The first meta_params of each worker; by default learning rates.
        problem: What is trained.
        size: How many workers, if no population is given.
        steps: Training steps of each worker, including those that a branch discards.
        every: Training steps between two reports.
        speeds: Training steps of each worker per second; by default 1.
        deaths: Seconds after which a worker reports no more, by worker id.
        give_up_after: Seconds after its last report until a dead worker's slot is given
            up, but not before its death; None: never.
        seed: The run's seed.
        mode: Whether a smaller ("min") or a larger ("max") value is better.
        journal: Where the run is recorded; by default in memory.

    Returns:
        The controller; ask it for `best()`, `history()`, `schedule(...)`.

    Raises:
        ValueError: `steps`, `every`, `speeds`, `deaths` or `give_up_after` is out of
            its range.
        RuntimeError: Every worker that has not died waits for a decision that never
            comes.
    """
    metas = _learning_rates(size) if population is None else list(population)
    rates = [1.0] * len(metas) if speeds is None else list(speeds)
    dead = _Dead(deaths or {}, give_up_after)
    _check(len(metas), steps, every, rates, dead)
    clock = Clock()
    controller = PopulationController(
        metas, mutator, mode=mode, seed=seed, journal=journal, clock=clock
    )
    _Simulation(
        controller, clock, problem or Problem(), steps, every, rates, dead
    ).run()
    return controller


@dataclasses.dataclass(frozen=True)
class _Dead:
    """Which workers die, and when their slots are given up.

    Attributes:
        deaths: When a worker dies, by worker id.
        give_up_after: Seconds from its last report until its slot is given up, or None.
    """

    deaths: Mapping[int, float]
    give_up_after: float | None

    def death(self, worker_id: int) -> float:
        """When a worker dies; inf: never."""
        return self.deaths.get(worker_id, math.inf)

    def given_up(self, worker_id: int, last: float) -> float:
        """When the slot of a worker that last reported then is given up; inf: never."""
        if self.give_up_after is None:
            return math.inf
        return max(self.death(worker_id), last + self.give_up_after)


@dataclasses.dataclass
class _Loop:
    """One worker's training loop.

    Attributes:
        left: Training steps that are left.
        last: The time of its last report.
        work: Its work; None at first.
        params: The params that it trains.
        step: Their step.
        ticket: The number of its planned report; earlier ones do not count any more.
    """

    left: int
    last: float = 0.0
    work: ActiveWorker | None = None
    params: Any = None
    step: int = 0
    ticket: int = 0


class _Simulation:
    """Runs the loops in the order in which their next reports are due."""

    def __init__(
        self,
        controller: PopulationController,
        clock: Clock,
        problem: Problem,
        steps: int,
        every: int,
        speeds: Sequence[float],
        dead: _Dead,
    ) -> None:
        self._controller = controller
        inside.end_nothing(controller)  # The steps do.
        self._clock = clock
        self._problem = problem
        self._every = every
        self._speeds = speeds
        self._dead = dead
        self._loops = [_Loop(steps) for _ in speeds]
        self._due: list[tuple[float, int, int]] = []
        self._waiting: set[int] = set()
        self._given_up: set[int] = set()

    def run(self) -> None:
        """Run until every live worker has trained all of its steps, or the run ends."""
        for worker_id in range(len(self._loops)):
            self._begin(worker_id)
        while self._due or self._waiting:
            if self._give_up_next():
                continue
            if not self._due:
                self._check_the_end()
                return
            now, worker_id, ticket = heapq.heappop(self._due)
            if ticket != self._loops[worker_id].ticket:
                continue  # It was branched meanwhile, and its loop began anew.
            death = self._dead.death(worker_id)
            self._clock.now = max(self._clock.now, min(now, death))
            if now < death:
                self._report(worker_id)
                self._look_around()

    def _begin(self, worker_id: int) -> None:
        """Poll, and plan the next report."""
        loop = self._loops[worker_id]
        given = None if loop.work is None else loop.work.generation_id
        news = self._controller.maybe_get_worker_data(
            worker_id, given, loop.step, None, None
        )
        if news is not None:
            loop.work, loop.step, loop.params = news, news.step, news.params
            if news.params is None:
                loop.params = self._problem.init(news.meta_params)
        loop.ticket += 1
        if loop.left > 0:
            seconds = min(self._every, loop.left) / self._speeds[worker_id]
            due = (self._clock.now + seconds, worker_id, loop.ticket)
            heapq.heappush(self._due, due)

    def _report(self, worker_id: int) -> None:
        loop = self._loops[worker_id]
        if loop.work is None:
            return
        count = min(self._every, loop.left)
        loop.params = self._problem.train(loop.params, loop.work.meta_params, count)
        loop.step += count
        loop.left -= count
        loop.last = self._clock.now
        value = self._problem.evaluate(loop.params)
        generation_id = loop.work.generation_id
        self._controller.set_eval(
            worker_id, generation_id, loop.step, loop.params, value
        )
        self._waiting.add(worker_id)

    def _look_around(self) -> None:
        """Continue the loops that wait no longer; begin anew those that branched."""
        for worker_id, loop in enumerate(self._loops):
            if worker_id in self._waiting:
                if not inside.waits(self._controller, worker_id):
                    self._waiting.discard(worker_id)
                    self._begin(worker_id)
            elif loop.work is not None and not self._has_died(worker_id):
                newest = self._controller.newest(worker_id)
                if newest.generation_id != loop.work.generation_id:
                    self._begin(worker_id)

    def _give_up_next(self) -> bool:
        """Give up the slot whose time comes next, if nothing is reported before.

        If no report is due, time passes only for the sake of workers that have died.

        Returns:
            Whether a slot was given up.
        """
        pending = [w for w in self._dead.deaths if w not in self._given_up]
        times = {w: self._dead.given_up(w, self._loops[w].last) for w in pending}
        if self._due:
            until = self._due[0][0]
        else:
            dead = [times[w] for w in pending if self._has_died(w)]
            until = min(dead, default=-math.inf)
        now, worker_id = min(((times[w], w) for w in pending), default=(math.inf, -1))
        if now > until or now == math.inf:
            return False
        self._clock.now = max(self._clock.now, now)
        self._given_up.add(worker_id)
        self._controller.give_up(worker_id)
        self._look_around()
        return True

    def _check_the_end(self) -> None:
        """Look at a run in which no report is due and no slot will be given up.

        Raises:
            RuntimeError: Workers could train, but wait for what never comes.
        """
        live = inside.live(self._controller)
        waiting = [w for w in live if inside.waits(self._controller, w)]
        if not any(self._loops[w].left and not self._has_died(w) for w in waiting):
            return
        others = [w for w in live if w not in waiting]
        if not others:
            raise RuntimeError(inside.why_it_never_ends(self._controller, waiting))
        if all(self._loops[w].left and self._has_died(w) for w in others):
            raise RuntimeError(
                f"Workers {waiting} wait for a decision that needs a report of workers "
                f"{others}, which have died. Such a run waits for ever: give up their "
                "slots by controller.give_up(worker_id), here by give_up_after."
            )

    def _has_died(self, worker_id: int) -> bool:
        return self._clock.now >= self._dead.death(worker_id)


def _learning_rates(size: int) -> list[Any]:
    return [{"learning_rate": 10 ** (-3 * i / max(size - 1, 1))} for i in range(size)]


def _check(
    size: int,
    steps: int,
    every: int,
    speeds: Sequence[float],
    dead: _Dead,
) -> None:
    for name, count in (("steps", steps), ("every", every)):
        if type(count) is not int or count < 1:
            raise ValueError(f"{name} must be a positive int, got {count!r}.")
    if len(speeds) != size or not all(speed > 0 for speed in speeds):
        raise ValueError(
            f"speeds must be {size} positive numbers, one a worker, got {speeds!r}."
        )
    unknown = [worker_id for worker_id in dead.deaths if worker_id not in range(size)]
    if unknown:
        raise ValueError(
            f"deaths must name workers of a population of {size}, got {unknown}."
        )
    after = dead.give_up_after
    if after is not None and not after >= 0:
        raise ValueError(
            f"give_up_after must be 0 or more seconds, or None, got {after!r}."
        )
