"""The policies that the golden scripts run: a wild one, and those of the library."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from population import Branch, Checkpoint, Mutator, PopulationView, Report
from population.mutators import (
    BranchingSingleMachine,
    FixedSchedule,
    MultiFrequencyPBT,
    PopulationBasedTraining,
    WinnerTakeAllGenetic,
)

RAISES = 6.6  # The wild policy raises at this value.
_NOT_FINITE = 10
_LENGTH = 6  # Steps between two barriers of a wild policy that has barriers.
Meta = dict[str, Any]
State = dict[str, Any]
Choice = Mapping[int, Branch]


class Wild(Mutator[State]):
    """Branches any slot from any checkpoint, as the digits of a value say.

    Its state keeps what it has seen of the population, so that the journal shows if a
    decision has seen something else; and it names a few checkpoints.

    Args:
        waits: Whether slots wait for each other at regular steps.
    """

    def __init__(self, waits: bool = False) -> None:
        self.waits = waits

    def init(self, view: PopulationView) -> State:
        """Remember nothing."""
        return {"seen": [len(view.workers)], "named": [], "round": 0}

    def update(
        self, state: State, report: Report, view: PopulationView
    ) -> tuple[State, Choice]:
        """Decide by the digits of the value."""
        checkpoint = report.checkpoint
        if checkpoint.value == RAISES:
            raise ZeroDivisionError("on purpose")
        if self.waits:
            arrived = self._arrived(state, view)
            if arrived is not None:
                return self._next_round(state, arrived, view)
        digit = _digit(checkpoint.value)
        if digit < 2:
            return ({**state} if digit else state), {}  # Equal, but another object.
        named = state["named"]
        if digit in (4, 8):
            named = [*named, checkpoint.ref][-2:]
        new = {**state, "seen": _seen(report, view), "named": named}
        return new, _branches(digit, report, view)

    def wait_at(self, state: State, worker_id: int, view: PopulationView) -> int | None:
        """The next barrier."""
        del worker_id, view
        return _LENGTH * (state["round"] + 1) if self.waits else None

    def _arrived(self, state: State, view: PopulationView) -> list[Checkpoint] | None:
        """What each slot has at the barrier, if all have arrived."""
        end = _LENGTH * (state["round"] + 1)
        found = [view.barrier(w, end) for w in range(len(view.workers))]
        arrived = [checkpoint for checkpoint in found if checkpoint is not None]
        return arrived if len(arrived) == len(found) else None

    def _next_round(
        self, state: State, arrived: list[Checkpoint], view: PopulationView
    ) -> tuple[State, Choice]:
        """The worst slot continues from the best."""
        scores = [view.score(checkpoint) for checkpoint in arrived]
        best, worst = int(np.argmin(scores)), int(np.argmax(scores))
        new = {**state, "round": state["round"] + 1, "named": [arrived[best].ref]}
        if best == worst:
            return new, {}
        meta = moved(arrived[best].meta_params, view.rng)
        return new, {worst: Branch(arrived[best], meta, "barrier")}


def _digit(value: float | None) -> int:
    if value is None:
        return 0
    return int(abs(value) * 10) % 10 if math.isfinite(value) else _NOT_FINITE


def _seen(report: Report, view: PopulationView) -> list[Any]:
    """What a decision can see, as plain data."""
    checkpoint = report.checkpoint
    steps, scores = view.as_of(checkpoint.step)
    return [
        [report.worker_id, checkpoint.step, repr(checkpoint.value), view.now],
        view.steps.tolist(),
        list(map(repr, view.scores.tolist())),
        view.ready.tolist(),
        view.begins.tolist(),
        [steps.tolist(), list(map(repr, scores.tolist()))],
        [view.newest(w).step for w in range(len(view.workers))],
    ]


def _branches(digit: int, report: Report, view: PopulationView) -> Choice:
    """Which slot continues from which checkpoint."""
    at, own, size = report.checkpoint, report.worker_id, len(view.workers)
    if digit == 2:
        return {own: Branch(at, moved(at.meta_params, view.rng), "own")}
    if digit == 3:
        return {(own + 1) % size: Branch(at, at.meta_params, "passed on")}
    if digit == 4:
        return {own: Branch(None, {"h": 0.5}, "fresh")}
    if digit == 5:
        meta = moved(at.meta_params, view.rng)
        return {w: Branch(at, meta, "all") for w in reversed(range(size))}
    if digit == 6:
        return {own: Branch(view.graph.lineage(at)[0], at.meta_params, "root")}
    if digit == 7:
        best = view.graph.best()
        return {} if best is None else {own: Branch(best, best.meta_params, "best")}
    if digit == 9:
        lineage = view.graph.lineage(at)
        earlier = lineage[int(view.rng.integers(len(lineage)))]
        donor = view.newest(int(view.rng.integers(size)))
        branches = {own: Branch(earlier, moved(at.meta_params, view.rng), "earlier")}
        return branches | {donor.worker_id: Branch(donor, donor.meta_params, "again")}
    if digit == _NOT_FINITE and int(view.rng.integers(2)):
        return {own: Branch(at, moved(at.meta_params, view.rng), "diverged")}
    return {}


def moved(meta: Meta, rng: np.random.Generator) -> Meta:
    """Another number, with few digits."""
    return {**meta, "h": meta["h"] + int(rng.integers(-8, 9)) / 4}


def directed(meta: Meta, direction: str, cycle: int) -> Meta:
    """A number moved in one direction."""
    return {**meta, "h": meta["h"] + {"neg": -1, "pos": 1}[direction] / (cycle + 1)}


def by_step(step: int) -> Meta:
    """A schedule as a function."""
    return {"h": step // 4 / 2}


class Policy(NamedTuple):
    """A way to make a policy.

    Attributes:
        make: Makes a policy, each time an equal one.
        size: How many workers it needs; None: any number.
    """

    make: Callable[[], Mutator[Any]]
    size: int | None = None


WILD = Policy(Wild)
_OTHERS = [
    Policy(lambda: Wild(waits=True)),
    Policy(lambda: PopulationBasedTraining(moved, 3)),
    Policy(lambda: PopulationBasedTraining(moved, 3, synchronous=True)),
    Policy(lambda: PopulationBasedTraining(moved, 2, burn_in=3, keep_best=False)),
    Policy(lambda: WinnerTakeAllGenetic(moved, 3)),
    Policy(lambda: WinnerTakeAllGenetic(moved, 3, keep_winner=True)),
    Policy(lambda: WinnerTakeAllGenetic(moved, 3, synchronous=True)),
    Policy(lambda: WinnerTakeAllGenetic(moved, seconds_per_exploit=9.0)),
    Policy(lambda: FixedSchedule({0: {"h": 0.0}, 4: {"h": 1.0}, 8: {"h": 0.5}})),
    Policy(lambda: FixedSchedule(by_step)),
    Policy(lambda: BranchingSingleMachine(directed, 2, 3), 1),
    Policy(lambda: MultiFrequencyPBT(moved, 3, (1,)), 4),
    Policy(lambda: MultiFrequencyPBT(moved, 2, (1, 2)), 8),
]


def choose(rng: random.Random) -> tuple[Policy, int]:
    """A policy, the wild one most often, and how many workers it is given."""
    policy = WILD if rng.random() < 0.45 else rng.choice(_OTHERS)
    size = rng.randint(1, 5)
    return policy, policy.size or size
