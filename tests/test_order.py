"""Under a synchronous mutator timing does not change a run.

Seeded random numbers schedule the workers, in one thread; nothing waits.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from population import Mutator, PopulationController, Stop
from population.mutators import (
    MultiFrequencyPBT,
    PopulationBasedTraining,
    WinnerTakeAllGenetic,
)
from population.mutators.exploit import BinaryTournament, Truncation, WelchTTest
from tests import probe
from tests.crash_child import Loop
from tests.helpers import assert_is_a_forest, told

SIZE = 5
STEPS = 24
ORDERS = range(1, 5)
Make = Callable[[], Mutator[Any]]


def mutate(h: float, rng: np.random.Generator) -> float:
    """A step in a random direction."""
    return float(h + rng.normal() * 0.1)


MUTATORS: dict[str, Make] = {
    "truncation": lambda: PopulationBasedTraining(
        mutate, 4, exploit=Truncation(0.4), synchronous=True
    ),
    "tournament": lambda: PopulationBasedTraining(
        mutate, 4, exploit=BinaryTournament(), synchronous=True, keep_best=False
    ),
    "t-test": lambda: PopulationBasedTraining(
        mutate, 6, exploit=WelchTTest(window=4, p=0.3), synchronous=True, burn_in=5
    ),
    "winner": lambda: WinnerTakeAllGenetic(mutate, 4, synchronous=True),
    "kept winner": lambda: WinnerTakeAllGenetic(
        mutate, 4, synchronous=True, keep_winner=True
    ),
    "frequencies": lambda: MultiFrequencyPBT(mutate, 4, frequencies=(1, 2)),
}


@pytest.fixture(params=MUTATORS)
def make(request: pytest.FixtureRequest) -> Make:
    """Makes a synchronous mutator."""
    return MUTATORS[request.param]


def run(make: Make) -> PopulationController:
    """A run that ends at a given step."""
    size = 8 if isinstance(make(), MultiFrequencyPBT) else SIZE
    starts = [1.0 + worker_id for worker_id in range(size)]
    return PopulationController(starts, make(), stop=Stop(steps=STEPS))


class RawLoop:
    """A loop of the two calls; it may report late and twice, but finally every value.

    Args:
        controller: The run.
        worker_id: Its slot.
        choose: Draws which reports come late, and how often.
    """

    def __init__(
        self, controller: PopulationController, worker_id: int, choose: random.Random
    ) -> None:
        self._controller = controller
        self._worker_id = worker_id
        self._choose = choose
        self._generation_id = ""
        self._step = 0
        self._weight = 1.0
        self._meta = 0.0
        self._owed: list[tuple[Any, ...]] = []

    def advance(self) -> bool:
        """Send a late report, or train a step; False while it waits."""
        if self._owed:
            self._say(self._owed.pop())
            return True
        found = self._controller.maybe_get_worker_data(
            self._worker_id, self._generation_id, self._step, None, None
        )
        if found is not None:
            self._weight = float(found.params or 1.0)
            self._meta, self._generation_id = found.meta_params, found.generation_id
            self._step = found.step
        wait_at = self._controller.workers[self._worker_id].wait_at
        if wait_at is not None and self._step >= wait_at:
            return False
        self._step += 1
        self._weight += 0.01 * self._meta * (1 + self._step % 4)
        name = (self._worker_id, self._generation_id, self._step)
        params, value = repr(self._weight), (self._weight - 1.3) ** 2
        if self._choose.random() < 0.7:
            self._owed = [(*name, params, value)]
        else:
            self._owed = [(*name, None, value), (*name, params, None)]
        return True

    def _say(self, report: tuple[Any, ...]) -> None:
        for _ in range(self._choose.choice([1, 1, 2])):
            self._controller.set_eval(*report)


def by_raw_loops(make: Make, order: int) -> PopulationController:
    """Each slot has its own loop; the next loop is drawn at random."""
    choose = random.Random(order)
    controller = run(make)
    loops = [RawLoop(controller, w, choose) for w in range(len(controller.workers))]
    while not controller.finished:
        weights = [choose.random() ** 3 for _ in loops]  # Some are far slower.
        for _ in range(10):
            choose.choices(loops, weights)[0].advance()
    return controller


def by_workers(make: Make, order: int) -> PopulationController:
    """Some workers take the slots in turns; the next worker is drawn at random.

    No worker polls while that would block, as the others are in the same thread.
    Sometimes one releases its slot and another one begins.
    """
    choose = random.Random(order)
    controller = run(make)

    def begin() -> Loop:
        return Loop(controller.worker(), lambda *report: None)

    def may_poll(loop: Loop) -> bool:
        slot = loop.worker.worker_id
        free = probe.free_slot(controller)
        return not probe.waits(controller, slot) or free is not None

    loops = [begin() for _ in range(choose.randint(1, 3))]
    while not controller.finished:
        free = probe.free_slot(controller) is not None
        able = [loop for loop in loops if may_poll(loop)]
        if loops and (choose.random() < 0.05 or not (able or free)):
            gone = loops.pop(choose.randrange(len(loops)))
            gone.worker.release()
        elif free and (not able or choose.random() < 0.05):
            loops.append(begin())
        elif able:
            choose.choice(able).step()
    return controller


def in_order(make: Make) -> PopulationController:
    """One worker trains all slots in turns."""
    controller = run(make)
    loop = Loop(controller.worker(), lambda *report: None)
    while loop.step():
        pass
    return controller


def content(controller: PopulationController) -> Iterator[tuple[Any, ...]]:
    """All checkpoints and branches, in an order that does not depend on timing."""
    return iter(sorted(told(controller), key=lambda checkpoint: checkpoint[:2]))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("drive", [by_raw_loops, by_workers])
def test_workers_in_another_order_make_the_same_run(
    make: Make, drive: Callable[[Make, int], PopulationController], order: int
) -> None:
    """The same checkpoints with the same branches, in any order, and twice."""
    expected, found = in_order(make), drive(make, order)
    assert list(content(found)) == list(content(expected))
    branches = len(found.graph) - len(found.workers)
    assert branches >= 5
    assert_is_a_forest(found.graph)
    assert probe.decisions(found) == probe.decisions(expected)


def test_the_orders_are_different_ones(make: Make) -> None:
    """Otherwise the test above would prove nothing."""
    orders = {tuple(c[:2] for c in told(by_raw_loops(make, order))) for order in ORDERS}
    assert len(orders) == len(ORDERS)
