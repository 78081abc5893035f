"""What workers with a handle do in a golden script.

A script is one thread, so it polls no handle where that might block: it polls only if
at least one slot that the handle could get certainly does not wait.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from population import PopulationController, Worker
from tests.golden import loops
from tests.golden.stage import Stage, newest

_MOST = 4


def claim(stage: Stage) -> None:
    """A worker takes any free slot, or one that another worker may hold."""
    rng, place = stage.rng, stage.place()
    if len(stage.handles) >= _MOST:
        return
    worker_id = rng.randrange(stage.size) if rng.random() < 0.4 else None
    if worker_id is None and not _surely_finds(stage, place, None):
        worker_id = rng.randrange(stage.size)
    made: list[Worker] = []

    def work() -> list[Any]:
        made.append(place.worker(worker_id))
        return _shown(made[0])

    stage.call("claim", worker_id, work)
    if made:
        stage.handles.append((made[0], place))
        _holds(stage, made[0])


def step(stage: Stage) -> None:
    """A worker asks for news, trains, and reports."""
    if not stage.handles:
        return
    rng = stage.rng
    worker, place = rng.choice(stage.handles)
    if rng.random() < 0.9:
        _poll(stage, worker, place)
    for _ in range(rng.choice([1, 1, 2])):
        worker.step += rng.choice([1, 1, 1, 2, 0])
        _report(stage, worker)


def poll(stage: Stage) -> None:
    """A worker only asks for news."""
    if stage.handles:
        _poll(stage, *stage.rng.choice(stage.handles))


def reject(stage: Stage) -> None:
    """The params that the poll returned are rejected."""
    given = [pair for pair in stage.handles if pair[0].params is not None]
    if stage.handles:
        worker, _ = stage.rng.choice(given or stage.handles)
        stage.call("reject", worker.worker_id, lambda: worker.reject("a bad sector"))


def busy(stage: Stage) -> None:
    """A worker says that it will be silent."""
    if stage.handles:
        worker, _ = stage.rng.choice(stage.handles)
        seconds = stage.rng.choice([60.0, 3, -1.0])
        stage.call("busy", seconds, lambda: worker.busy(seconds))


def release(stage: Stage) -> None:
    """A worker gives its slot back; some workers report even after that."""
    if not stage.handles:
        return
    pair = stage.rng.choice(stage.handles)
    worker = pair[0]
    stage.call("release", worker.worker_id, worker.release)
    _drop(stage, worker)
    if stage.rng.random() < 0.3:
        _report(stage, worker)
    stage.handles.remove(pair)


def _poll(stage: Stage, worker: Worker, place: PopulationController) -> None:
    if not _surely_finds(stage, place, worker):
        return

    def work() -> list[Any]:
        return [worker.poll(), *_shown(worker)]

    answer = stage.call("worker poll", worker.worker_id, work)
    if answer is not None:
        _holds(stage, worker)


def _report(stage: Stage, worker: Worker) -> None:
    rng, value = stage.rng, loops.value(stage)
    state: Any = None
    if stage.saves != "never" and (stage.saves == "always" or rng.random() < 0.7):
        state = rng.choice([f"s{len(stage.rows)}", worker.save_to, "again"])
        if stage.arrays and rng.random() < 0.6:
            state = {"w": np.full(2, worker.step, np.float32)}
    said = worker.worker_id, worker.step, state, value
    if state is None or value is None:
        place = worker.worker_id, worker.generation_id, worker.step
        stage.open_reports.append(place)
    stage.call("worker report", said, lambda: worker.report(value, state))


def _shown(worker: Worker) -> list[Any]:
    """What a loop sees of its worker."""
    return [
        worker.worker_id,
        worker.generation_id,
        worker.step,
        worker.params,
        worker.meta_params,
        worker.running,
    ]


def _holds(stage: Stage, worker: Worker) -> None:
    _drop(stage, worker)
    stage.holders[worker.worker_id] = worker


def _drop(stage: Stage, worker: Worker) -> None:
    stage.holders = {
        worker_id: holder
        for worker_id, holder in stage.holders.items()
        if holder is not worker
    }


def _surely_finds(
    stage: Stage, place: PopulationController, worker: Worker | None
) -> bool:
    """Whether a worker that asks for a slot gets one at once, or the run has ended."""
    if place.finished:
        return True
    for worker_id, work in enumerate(place.workers):
        holder = stage.holders.get(worker_id)
        if holder is not None and holder is not worker:
            continue
        step = newest(place)[worker_id].step
        if work.wait_at is None or step < work.wait_at:
            return True
    return False
