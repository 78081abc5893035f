"""One of several processes that train a population together, with many threads.

Half of the processes are raw loops, the others claim slots with `controller.worker()`.
Each prints "ready", "ended" and what it saw, and waits for a line before the second and
third: all begin together, and read the run again when all have ended.
"""

from __future__ import annotations

import json
import math
import pathlib
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from population import (
    ActiveWorker,
    Branch,
    Mutator,
    PopulationController,
    PopulationView,
    Report,
    Retire,
    Stop,
    Worker,
)
from population.mutators import PopulationBasedTraining, WinnerTakeAllGenetic
from tests import probe

PROCESSES, THREADS = 8, 4
SLOTS = 34
RAW_SLOTS = PROCESSES // 2 * THREADS  # One per thread; workers share the other slots.
TIMEOUT_S = 600.0  # No slot may be lost here, however busy the machine is.
_PAUSE_S = 0.002
STEPS_PER_EXPLOIT = 5


def mutate(h: float, rng: np.random.Generator) -> float:
    """A step in a random direction: no two decisions give equal numbers."""
    return float(h + rng.normal())


POLICIES: dict[str, Callable[[], Mutator[Any]]] = {
    "winner": lambda: WinnerTakeAllGenetic(mutate, STEPS_PER_EXPLOIT),
    "pbt": lambda: PopulationBasedTraining(mutate, STEPS_PER_EXPLOIT),
    "synchronous": lambda: PopulationBasedTraining(
        mutate, STEPS_PER_EXPLOIT, synchronous=True
    ),
}


class Noting(Mutator[Any]):
    """Decides like another policy, and remembers what this process decided."""

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self._inner = POLICIES[policy]()
        self._decided: list[list[Any]] = []

    @property
    def decided(self) -> list[list[Any]]:
        """Worker, the parent's generation and step, and the new meta_params."""
        return self._decided

    def init(self, view: PopulationView) -> Any:
        """The state of the other policy."""
        return self._inner.init(view)

    def update(
        self, state: Any, report: Report, view: PopulationView
    ) -> tuple[Any, Mapping[int, Branch | Retire]]:
        """The decision of the other policy."""
        state, branches = self._inner.update(state, report, view)
        for worker_id, branch in branches.items():
            assert isinstance(branch, Branch)
            parent = branch.parent
            ref = (
                ["", 0] if parent is None else list(view.graph.resume_point(parent).ref)
            )
            self._decided.append([worker_id, *ref, branch.meta_params])
        return state, branches

    def wait_at(self, state: Any, worker_id: int, view: PopulationView) -> int | None:
        """Where the other policy makes slots wait."""
        return self._inner.wait_at(state, worker_id, view)


class Saw(NamedTuple):
    """The reports and the work of a thread.

    Attributes:
        reports: Slot, generation, step, params and value of acknowledged reports.
        received: The generations that it got from polls.
    """

    reports: list[list[Any]]
    received: list[str]


def opened(
    log_dir: str | pathlib.Path, policy: str, ticks: int
) -> PopulationController:
    """The run."""
    return PopulationController(
        [float(slot) for slot in range(SLOTS)],
        Noting(policy),
        log_dir,
        stop=Stop(reports=ticks),
        worker_timeout=TIMEOUT_S,
    )


def value_of(slot: int, step: int, meta_params: float) -> float:
    """Sometimes a member diverges."""
    if (slot * 7 + step) % 97 == 0:
        return math.nan
    return abs(meta_params) + 1 / (1 + step)


def raw(controller: PopulationController, slot: int, saw: Saw) -> None:
    """A loop of the two calls, which waits if it must."""
    pause = threading.Event()
    work: ActiveWorker | None = None
    step = 0
    while not controller.finished:
        news = controller.maybe_get_worker_data(
            slot, work and work.generation_id, step, None, None
        )
        if news is not None:
            work, step = news, news.step
            saw.received.append(news.generation_id)
        assert work is not None
        if work.wait_at is not None and step >= work.wait_at:
            pause.wait(_PAUSE_S)  # Others do not notify this process.
            now = controller.workers[slot]  # No branch, no new work.
            if now.generation_id == work.generation_id:
                work = now
            continue
        step += 1
        value = value_of(slot, step, work.meta_params)
        report = [slot, work.generation_id, step, f"{slot}/{step}", value]
        controller.set_eval(slot, work.generation_id, step, report[3], value)
        saw.reports.append(report)


def claiming(worker: Worker, saw: Saw) -> None:
    """A loop of a `Worker`, which trains each slot that it gets."""
    worker.turn = 5
    while worker.running:
        if worker.poll():
            saw.received.append(worker.generation_id)
        if not worker.running:
            return
        worker.step += 1
        slot, step = worker.worker_id, worker.step
        value = value_of(slot, step, worker.meta_params)
        report = [slot, worker.generation_id, step, f"{slot}/{step}", value]
        worker.report(value, report[3])
        saw.reports.append(report)


def main(log_dir: str, policy: str, ticks: int, number: int) -> None:
    """Train until the run has ended, in several threads."""
    controller = opened(log_dir, policy, ticks)
    seen = [Saw([], []) for _ in range(THREADS)]
    failed: list[str] = []

    def loop(thread: int) -> None:
        try:
            if number % 2:
                with controller.worker() as worker:
                    claiming(worker, seen[thread])
            else:
                raw(controller, number // 2 * THREADS + thread, seen[thread])
        except BaseException as error:
            failed.append(repr(error))
            raise

    threads = [threading.Thread(target=loop, args=[t]) for t in range(THREADS)]
    print("ready", flush=True)
    sys.stdin.readline()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("ended", flush=True)
    sys.stdin.readline()
    mutator: Any = controller.arguments()["mutator"]
    found = {
        "failed": failed,
        "reports": [report for saw in seen for report in saw.reports],
        "received": [generation_id for saw in seen for generation_id in saw.received],
        "decided": mutator.decided,
        "known": known(controller),
    }
    print(json.dumps(found), flush=True)
    controller.close()


def known(controller: PopulationController) -> dict[str, str]:
    """All that is kept in memory of the run, after all records were read."""
    workers = repr(controller.workers)
    return {"workers": workers, **probe.in_memory(controller)}
