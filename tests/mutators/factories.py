"""Example arguments of every mutator of the registry, for the tests of all.

Each decides every few steps or seconds: for the short runs of `population.testing`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from population import Mutator
from population.mutators import (
    BranchingSingleMachine,
    FixedSchedule,
    MultiFrequencyPBT,
    PopulationBasedTraining,
    SuccessiveHalving,
    TwoSpeedPBT,
    WinnerTakeAllGenetic,
)
from population.mutators.exploit import BinaryTournament, WelchTTest

Make = Callable[[Any], Mutator[Any]]


def _by_step(step: int) -> dict[str, int]:
    return {"by": step // 4}


# These retire slots, and never branch: a test's id of the example.
RETIRING = {"halving-0", "halving-2"}
# By name: a function that makes one with a `mutate_fn`, and a number of workers.
FACTORIES: dict[str, list[tuple[Make, int]]] = {
    "winner": [
        (lambda fn: WinnerTakeAllGenetic(fn, 3), 4),
        (lambda fn: WinnerTakeAllGenetic(fn, 3, synchronous=True), 3),
        (lambda fn: WinnerTakeAllGenetic(fn, 3, keep_winner=True), 3),
        (lambda fn: WinnerTakeAllGenetic(fn, seconds_per_exploit=5), 3),
    ],
    "fixed": [
        (lambda fn: FixedSchedule({0: 0.0, 4: {"a": 1.0}, 8: 0.5}), 3),
        (lambda fn: FixedSchedule(_by_step), 3),
    ],
    "explore": [(lambda fn: BranchingSingleMachine(fn, 2, 3), 1)],
    "pbt": [
        (lambda fn: PopulationBasedTraining(fn, 3), 4),
        (lambda fn: PopulationBasedTraining(fn, 3, synchronous=True), 3),
        (lambda fn: PopulationBasedTraining(fn, 3, exploit=WelchTTest(4)), 3),
        (lambda fn: PopulationBasedTraining(None, 3, exploit=BinaryTournament()), 3),
    ],
    "two_speed": [
        (lambda fn: TwoSpeedPBT(fn, 3, slow=1), 4),
        (lambda fn: TwoSpeedPBT(fn, 2, slow=2), 5),
        (lambda fn: TwoSpeedPBT(fn, 3, horizon=36, z=0.0, core=0.0), 3),
    ],
    "multi": [(lambda fn: MultiFrequencyPBT(fn, 3, (1, 2)), 8)],
    "halving": [
        (lambda fn: SuccessiveHalving(None, 3), 4),
        (lambda fn: SuccessiveHalving(fn, 3), 4),
        (lambda fn: SuccessiveHalving(None, 2, 2), 3),
        (lambda fn: SuccessiveHalving(fn, 2, 2), 3),
    ],
}
