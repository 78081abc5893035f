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
from population.testing import inside
from population.testing.clock import Clock

_NOISE = 1.0
_FAILS = -1  # Stands for the ticket of a report.


def _descend(params: Any, meta_params: Any, steps: int) -> Any:
    """Return the expected loss of gradient descent on x**2 / 2, step by step."""
    rate = meta_params["learning_rate"]
    for _ in range(steps):
        params = (1 - rate) * (1 - rate) * params + rate * rate * _NOISE
    return params


def _loss(params: Any) -> tuple[float, Mapping[str, float]]:
    """Return the expected loss, and the distance from the minimum as a metric."""
    loss = float(params)
    return loss, {"distance": math.sqrt(loss) if loss >= 0 else math.nan}


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
        evaluate: `evaluate(params)` returns their value, or `(value, metrics)`, with
            metrics as a dict; by default {"distance": ...} from the minimum.
    """

    init: Callable[[Any], Any] = lambda meta_params: 100.0
    train: Callable[[Any, Any, int], Any] = _descend
    evaluate: Callable[[Any], float | tuple[float, Any]] = _loss


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
    failures: Mapping[int, Sequence[float]] | None = None,
    give_up_after: float | None = 60.0,
    **options: Any,
) -> PopulationController:
    """Train a simulated population, to see what a mutator decides.

    Workers wait at the steps of `wait_at`, also for one that has died, until its slot
    is given up, as `controller.give_up` does. In a real run time alone never gives a
    slot up: pass None to see what a mutator does without that. If workers wait for one
    that has trained all of its `steps`, the run ends. The loop of a retired slot ends.

    Args:
        mutator: The policy.
        population: The first meta_params of each worker; by default learning rates.
        problem: The problem to train.
        size: The number of workers, if no population is given.
        steps: Training steps of each worker, including those that a branch discards.
        every: Training steps between two reports.
        speeds: Training steps of each worker per second; by default 1.
        deaths: Seconds after which a worker reports no more, by worker id.
        failures: The seconds at which a worker's trial fails, by worker id: it loses
            what it has trained since its last report, and begins again at once.
        give_up_after: Seconds after its last report until a dead worker's slot is given
            up, but not before its death; None: never.
        **options: Further arguments of the controller, such as `seed` and `mode`.

    Returns:
        The controller; ask it for `best()`, `history()`, `schedule(...)`.

    Raises:
        ValueError: An argument is out of its range.
        RuntimeError: Every worker that has not died waits for a decision that never
            comes, or all slots are retired because they failed too often.
    """
    metas = _learning_rates(size) if population is None else list(population)
    rates = [1.0] * len(metas) if speeds is None else list(speeds)
    deaths, failures = deaths or {}, failures or {}
    _check(len(metas), steps, every, rates, give_up_after)
    _check_workers(len(metas), deaths=deaths, failures=failures)
    clock = Clock()
    controller = PopulationController(metas, mutator, clock=clock, **options)
    loops = [_Loop(s, deaths.get(w, math.inf), steps) for w, s in enumerate(rates)]
    patience = math.inf if give_up_after is None else give_up_after
    problem = problem or Problem()
    fails = [(t, w, _FAILS) for w, times in failures.items() for t in times]
    _Simulation(controller, clock, problem, every, loops, patience, fails).run()
    return controller


@dataclasses.dataclass
class _Loop:
    """One worker's training loop.

    Attributes:
        speed: Its training steps per second.
        death: The time at which it dies; inf: never.
        left: Training steps that are left.
        last: The time of its last report.
        work: Its work; None at first.
        params: The params that it trains.
        step: Their step.
        ticket: The number of its planned report; earlier ones do not count any more.
        given_up: Whether its slot was given up.
    """

    speed: float
    death: float
    left: int
    last: float = 0.0
    work: ActiveWorker | None = None
    params: Any = None
    step: int = 0
    ticket: int = 0
    given_up: bool = False


@dataclasses.dataclass
class _Simulation:
    """Runs the loops in the order in which their next reports are due.

    Attributes:
        controller: The run.
        clock: Its clock.
        problem: The problem to train.
        every: Training steps between two reports.
        loops: The loops, by worker id.
        patience: Seconds from the last report of a worker that has died until its slot
            is given up; inf: never.
        due: The times of the next reports, with worker ids and tickets, and of failures
            of trials; a heap.
        waiting: The workers that have reported, and wait for a decision.
    """

    controller: PopulationController
    clock: Clock
    problem: Problem
    every: int
    loops: list[_Loop]
    patience: float
    due: list[tuple[float, int, int]] = dataclasses.field(default_factory=list)
    waiting: set[int] = dataclasses.field(default_factory=set)

    def run(self) -> None:
        """Run until every live worker has trained all of its steps, or the run ends."""
        inside.end_nothing(self.controller)  # The steps do.
        heapq.heapify(self.due)
        for worker_id in range(len(self.loops)):
            self._begin(worker_id)
        while self.due or self.waiting:
            if self._give_up_next():
                continue
            if not self.due:
                self._check_the_end()
                return
            now, worker_id, ticket = heapq.heappop(self.due)
            loop = self.loops[worker_id]
            if ticket not in (loop.ticket, _FAILS) or self._is_retired(worker_id):
                continue  # It was branched meanwhile, and its loop began again.
            if ticket == _FAILS and not loop.left:
                continue  # Its loop has ended.
            self.clock.now = max(self.clock.now, min(now, loop.death))
            if now < loop.death:
                if ticket == _FAILS:
                    self.controller.fail(worker_id, "a simulated failure")
                else:
                    self._report(worker_id)
                self._resume_loops()

    def _begin(self, worker_id: int) -> None:
        """Poll, and plan the next report."""
        loop = self.loops[worker_id]
        given = None if loop.work is None else loop.work.generation_id
        other = self.controller.maybe_get_worker_data(
            worker_id, given, loop.step, None, None
        )
        if other is not None:
            loop.work, loop.step, loop.params = other, other.step, other.params
            if other.params is None:
                loop.params = self.problem.init(other.meta_params)
        loop.ticket += 1
        if loop.left > 0:
            seconds = min(self.every, loop.left) / loop.speed
            due = (self.clock.now + seconds, worker_id, loop.ticket)
            heapq.heappush(self.due, due)

    def _report(self, worker_id: int) -> None:
        loop = self.loops[worker_id]
        if loop.work is None:
            return
        count = min(self.every, loop.left)
        loop.params = self.problem.train(loop.params, loop.work.meta_params, count)
        loop.step += count
        loop.left -= count
        loop.last = self.clock.now
        found = self.problem.evaluate(loop.params)
        value, metrics = found if isinstance(found, tuple) else (found, None)
        generation_id = loop.work.generation_id
        self.controller.set_eval(
            worker_id, generation_id, loop.step, loop.params, value, metrics
        )
        self.waiting.add(worker_id)

    def _resume_loops(self) -> None:
        """Continue the loops that no longer wait; restart those that were branched."""
        for worker_id, loop in enumerate(self.loops):
            if worker_id in self.waiting:
                if not inside.waits(self.controller, worker_id):
                    self.waiting.discard(worker_id)
                    self._begin(worker_id)
            elif self._is_retired(worker_id):
                continue  # Its loop ends, unless a later branch brings it back.
            elif loop.work is not None and not self._has_died(loop):
                newest = inside.newest(self.controller, worker_id)
                if newest.generation_id != loop.work.generation_id:
                    self._begin(worker_id)

    def _give_up_next(self) -> bool:
        """Give up the slot whose time comes next, if nothing is reported before.

        If no report is due, time passes only for the sake of workers that have died.

        Returns:
            Whether a slot was given up.
        """
        pending = [
            (max(loop.death, loop.last + self.patience), worker_id)
            for worker_id, loop in enumerate(self.loops)
            if not (loop.given_up or self._is_retired(worker_id))
        ]
        now, worker_id = min(pending, default=(math.inf, -1))
        if now == math.inf:
            return False
        if self.due:
            until = self.due[0][0]
        else:
            dead = [t for t, w in pending if self._has_died(self.loops[w])]
            until = min(dead, default=-math.inf)
        if now > until:
            return False
        self.clock.now = max(self.clock.now, now)
        self.loops[worker_id].given_up = True
        self.controller.give_up(worker_id)
        self._resume_loops()
        return True

    def _check_the_end(self) -> None:
        """Look at a run in which no report is due and no slot will be given up.

        Raises:
            RuntimeError: Workers could train, but wait for what never comes.
        """
        live = inside.live(self.controller)
        waiting = [w for w in live if inside.waits(self.controller, w)]
        loops = self.loops
        if not any(loops[w].left and not self._has_died(loops[w]) for w in waiting):
            return
        others = [w for w in live if w not in waiting]
        if not others:
            raise RuntimeError(inside.why_it_never_ends(self.controller, waiting))
        if all(loops[w].left and self._has_died(loops[w]) for w in others):
            raise RuntimeError(
                f"Workers {waiting} wait for a decision that needs a report of workers "
                f"{others}, which have died. Such a run waits for ever: give up their "
                "slots by controller.give_up(worker_id), here by give_up_after."
            )

    def _is_retired(self, worker_id: int) -> bool:
        return worker_id in inside.retired(self.controller)

    def _has_died(self, loop: _Loop) -> bool:
        return self.clock.now >= loop.death


def _learning_rates(size: int) -> list[Any]:
    return [{"learning_rate": 10 ** (-3 * i / max(size - 1, 1))} for i in range(size)]


def _check(
    size: int,
    steps: int,
    every: int,
    speeds: Sequence[float],
    give_up_after: float | None,
) -> None:
    for name, count in (("steps", steps), ("every", every)):
        if type(count) is not int or count < 1:
            raise ValueError(f"{name} must be a positive int, got {count!r}.")
    if len(speeds) != size or not all(speed > 0 for speed in speeds):
        raise ValueError(
            f"speeds must be {size} positive numbers, one a worker, got {speeds!r}."
        )
    if give_up_after is not None and not give_up_after >= 0:
        raise ValueError(
            f"give_up_after must be 0 or more seconds, or None, got {give_up_after!r}."
        )


def _check_workers(size: int, **named: Mapping[int, object]) -> None:
    """Refuse arguments by worker id that name workers which do not exist."""
    for name, by_worker in named.items():
        unknown = [worker_id for worker_id in by_worker if worker_id not in range(size)]
        if unknown:
            raise ValueError(
                f"{name} must name workers of a population of {size}, got {unknown}."
            )
