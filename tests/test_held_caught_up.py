"""Processes that read what another process holds in its memory.

A process that trains knows at once which weights it has; another one reads it some
records later, and a third one reads all records at once. They agree.
"""

from __future__ import annotations

import math
import pathlib
import random
from collections.abc import Sequence
from typing import Any

import pytest

from population import PopulationController
from population.base.interfaces import Mutator
from population.base.types import InMemory
from population.mutators import PopulationBasedTraining
from tests import probe
from tests.held_engine import HELD, add
from tests.helpers import random_branch

SIZE = 3


class Three:
    """A process that trains, one that reads record by record, and one that loads all.

    Args:
        folder: The run folder.
        mutator: The policy of each.
    """

    def __init__(self, folder: pathlib.Path, *mutators: Mutator[Any]) -> None:
        metas = [float(i) for i in range(SIZE)]
        self.controllers = [PopulationController(metas, m, folder) for m in mutators]
        self.trains, self.catches_up, self.loads = self.controllers
        for controller in self.controllers:
            probe.end_nothing(controller)
        self.lease = self.trains.claim_all()
        self.kept: list[InMemory] = []
        self.compare()

    def report(
        self, worker_id: int, step: int, params: Any, value: Any, *gone: InMemory
    ) -> InMemory | None:
        """Report for a slot's generation; returns its weights in memory, if any."""
        name = self.lease.slots()[worker_id].generation_id
        return self.commit([(worker_id, name, step, params, value)], gone)[0]

    def commit(
        self, reports: Sequence[tuple[Any, ...]], gone: Sequence[InMemory] = ()
    ) -> list[InMemory | None]:
        """Make reports at once, after some weights are gone."""
        new = [self.lease.encode(*report) for report in reports]
        self.lease.report(new, gone=gone)
        found = [r.params if type(r.params) is InMemory else None for r in new]
        self.kept = [k for k in self.kept if k not in gone]
        self.kept += [held for held in found if held is not None]
        return found

    def compare(self) -> None:
        """All three processes know the same."""
        probe.refresh(self.catches_up)
        probe.forget(self.loads)
        known = [probe.in_memory(controller) for controller in self.controllers]
        assert known[1] == known[2]
        assert known[0] == known[2]

    def close(self) -> None:
        """Close all, without recording what is gone."""
        for controller in self.controllers:
            controller.close()


def three(folder: pathlib.Path) -> Three:
    """The processes with a policy that waits for all slots at step 10."""

    def policy() -> PopulationBasedTraining:
        return PopulationBasedTraining(add, steps_per_exploit=10, synchronous=True)

    return Three(folder, policy(), policy(), policy())


# What comes after a report of weights in memory, before others look: reports of the
# slot, each with what it holds, its value and whether the first weights are gone.
AFTER: dict[str, list[tuple[int, Any, float | None, bool]]] = {
    "a report without a value": [(9, HELD, None, True)],
    "a report of less": [(9, None, 30.0, True)],
    "a report of more": [(9, HELD, 30.0, True)],
    "a report that diverged": [(9, None, math.nan, True)],
    "reports before it is gone": [(9, HELD, None, False), (10, HELD, None, True)],
    "a value before it is gone": [(9, HELD, 7.0, False), (10, HELD, None, True)],
    "nothing but a late path": [(8, "saved at 8", None, False), (9, None, None, True)],
    "a barrier that is gone": [(12, HELD, 3.0, True), (13, HELD, None, False)],
    "a report at the same step": [(8, HELD, 20.0, True)],
}


@pytest.mark.parametrize("value", [20.0, 1.0, None, math.nan])
@pytest.mark.parametrize("after", AFTER)
def test_what_is_gone_by_the_time_of_a_look_is_gone(
    tmp_path: pathlib.Path, after: str, value: float | None
) -> None:
    """No barrier uses it any more."""
    runs = three(tmp_path)
    runs.report(0, 5, "saved at 5", 9.0)
    runs.compare()
    first = runs.report(0, 8, HELD, value)
    assert first is not None
    for step, params, then, is_gone in AFTER[after]:
        runs.report(0, step, params, then, *[first][: int(is_gone)])
    waits = [probe.waits(controller, 0) for controller in runs.controllers]
    assert len(set(waits)) == 1
    runs.compare()
    runs.close()


def test_the_barrier_before_what_is_gone_is_found(tmp_path: pathlib.Path) -> None:
    """It is that of the last step with a save."""
    runs = three(tmp_path)
    runs.report(0, 5, "saved at 5", 9.0)
    runs.compare()
    first = runs.report(0, 8, HELD, 20.0)
    assert first is not None
    runs.report(0, 9, HELD, None, first)
    runs.compare()
    assert probe.ready(runs.catches_up).tolist() == [5, -1, -1]
    runs.close()


def _reports(choose: random.Random, runs: Three) -> list[tuple[Any, ...]]:
    """Some slots report a new step, or a step that they have reported before."""
    found: list[tuple[Any, ...]] = []
    for worker_id in choose.sample(range(SIZE), choose.randrange(SIZE + 1)):
        work = runs.trains.workers[worker_id]
        name, step = work.generation_id, work.step + choose.randint(1, 3)
        if choose.random() < 0.25:
            earlier = [*runs.trains.graph[work.generation_id]]
            step = choose.choice(earlier)
        params = choose.choice([HELD, HELD, HELD, None, f"saved at {step}"])
        value = choose.choice([None, math.nan, *(choose.random() for _ in range(4))])
        found.append((worker_id, name, step, params, value))
    return found


@pytest.mark.parametrize("policy", ["scripted", "synchronous", "asynchronous"])
@pytest.mark.parametrize("seed", [*range(6), 67])  # An ancestor is saved late.
def test_live_caught_up_and_loaded_agree(
    tmp_path: pathlib.Path, seed: int, policy: str
) -> None:
    """This holds for all weights that are held, gone, saved later, or read late."""
    choose = random.Random(f"{policy} {seed}")

    def made() -> Mutator[Any]:
        if policy == "scripted":
            return random_branch(random.Random(seed))
        every, waits = 5, policy == "synchronous"
        return PopulationBasedTraining(add, steps_per_exploit=every, synchronous=waits)

    runs = Three(tmp_path, made(), made(), made())
    for _ in range(60):
        kind = choose.random()
        gone = choose.sample(runs.kept, choose.randint(0, min(3, len(runs.kept))))
        if kind < 0.9:
            runs.commit(_reports(choose, runs), gone)
        else:
            runs.lease.resume([choose.randrange(SIZE)])
        if choose.random() < 0.3:
            runs.compare()
    runs.compare()
    runs.close()
