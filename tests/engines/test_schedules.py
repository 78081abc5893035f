"""A schedule gives the best value again, to the bit, in each engine.

The batches depend on the step alone, and nothing depends on the slot.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from population import PopulationController, Start, Stop
from population.engines import processes, threads, vectorized
from population.mutators import FixedSchedule
from tests.engines import schedules

Train = Callable[[PopulationController], object]


def raw(controller: PopulationController) -> None:
    """The two calls: each slot's weights and momentum are plain arrays."""
    loops = [_RawLoop(controller, worker_id) for worker_id in range(schedules.SIZE)]
    for _ in range(10 * schedules.STEPS):
        if controller.finished:
            return
        for loop in loops:
            loop.advance()
    raise AssertionError("the run does not end")


class _RawLoop:
    """A loop without the handle; it decides itself when it waits."""

    def __init__(self, controller: PopulationController, worker_id: int) -> None:
        self._controller = controller
        self._id = worker_id
        self._generation_id: str | None = None
        self._state: Any = None
        self._meta: Any = None
        self._step = 0

    def advance(self) -> None:
        """Train one step, unless the slot waits."""
        controller = self._controller
        work = controller.maybe_get_worker_data(
            self._id, self._generation_id, self._step, None, None
        )
        if work is not None:
            self._generation_id, self._step = work.generation_id, work.step
            self._meta = work.meta_params
            self._state = work.params or {"w": np.zeros(3), "m": np.zeros(3)}
        limit = controller.workers[self._id].wait_at
        if limit is not None and self._step >= limit:
            return
        x, y = schedules.batch(self._step)
        error = np.tanh(x @ self._state["w"]) - y
        moved = self._meta["momentum"] * self._state["m"] + x.T @ error / len(y)
        weights = self._state["w"] - self._meta["learning_rate"] * moved
        self._state = {"w": weights, "m": moved}
        self._step += 1
        if self._step % schedules.EVERY == 0:
            x, y = schedules.HELD_OUT
            value = float(np.mean((np.tanh(x @ weights) - y) ** 2))
            place = self._id, self._generation_id or "", self._step
            controller.set_eval(*place, self._state, value)


def by_threads(controller: PopulationController) -> None:
    """Fewer threads than slots: they take turns."""
    threads.run(schedules.train, controller, 2, progress=False)


def by_processes(controller: PopulationController) -> None:
    """Fewer processes than slots."""
    processes.run(schedules.train, controller, 2, progress=False)


def stacked(controller: PopulationController, batching: str = "auto") -> None:
    """One program."""
    vectorized.run(
        controller,
        schedules.stacked_init,
        schedules.stacked_step,
        schedules.stacked_evaluate,
        schedules.EVERY,
        shared_batches=schedules.shared_batch,
        evaluation=schedules.HELD_OUT,
        batching=batching,
        save_every=3,
        progress=False,
    )


WAYS: dict[str, Train] = {
    "raw": raw,
    "threads": by_threads,
    "processes": by_processes,
    "vmap": functools.partial(stacked, batching="vmap"),
    "map": functools.partial(stacked, batching="map"),
    "loop": functools.partial(stacked, batching="loop"),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_schedule_of_the_best_gives_its_value_again(
    way: str, tmp_path: pathlib.Path
) -> None:
    """From scratch, whatever the first population, to the bit."""
    first = schedules.searched(tmp_path / "first")
    WAYS[way](first)
    best = schedules.check_searched(first)
    second = schedules.again(first, tmp_path / "second")
    assert [w.meta_params for w in second.workers] != [schedules.OTHER] * 4
    WAYS[way](second)
    schedules.check_again(second, best)
    # The schedule is recorded, entry by entry: it is the same again.
    found = second.best()
    assert found is not None
    assert second.schedule(found) == first.schedule(best)
    first.close()
    second.close()


@pytest.mark.parametrize("way", ["raw", "threads", "vmap"])
def test_a_schedule_that_begins_later_gives_its_value_again(
    way: str, tmp_path: pathlib.Path
) -> None:
    """Until then the slots have their own hyperparameters, which it names, too."""
    entries = {20: {"learning_rate": 0.1, "momentum": 0.25}}
    policy = FixedSchedule(entries)
    starts, stop = [schedules.OTHER] * schedules.SIZE, Stop(steps=30)
    controller = PopulationController(starts, policy, tmp_path / "a", stop=stop)
    WAYS[way](controller)
    best = controller.best()
    assert best is not None
    schedule = controller.schedule(best)
    assert schedule == {0: schedules.OTHER, **entries}
    again = PopulationController(
        [{"learning_rate": 0.2, "momentum": 0.0}] * schedules.SIZE,
        FixedSchedule(schedule),
        tmp_path / "b",
        stop=Stop(steps=best.step),
    )
    WAYS[way](again)
    schedules.check_again(again, best)
    controller.close()
    again.close()


def test_a_schedule_from_trained_weights_gives_its_value_again(
    tmp_path: pathlib.Path,
) -> None:
    """With the same weights at the same step, its first entry is in force there."""
    before = schedules.searched(tmp_path / "before")
    raw(before)
    trained = before.best()
    assert trained is not None
    weights = before.load(trained)
    metas = [work.meta_params for work in before.workers]
    starts = [Start(meta, weights, trained.step) for meta in metas]
    stop = Stop(steps=2 * schedules.STEPS)
    first = PopulationController(
        starts, schedules.searching(), tmp_path / "first", stop=stop, seed=5
    )
    raw(first)
    best = first.best()
    assert best is not None
    assert min(first.schedule(best)) == trained.step
    assert len(first.schedule(best)) >= 2
    start = Start(schedules.OTHER, weights, trained.step)
    second = schedules.again(first, tmp_path / "second", start)
    raw(second)
    schedules.check_again(second, best)
    for controller in (before, first, second):
        controller.close()
