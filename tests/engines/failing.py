"""Training functions that fail, for the engines of threads and of processes.

They import no JAX, so that a process starts quickly.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import signal
from collections.abc import Iterable
from typing import Any

import numpy as np

from population import ParamsError, PopulationController, Stop, Worker
from population.mutators import FixedSchedule

STEPS, EVERY = 6, 2  # Steps of the run, and between two reports.
ALWAYS = 20  # Each slot that is a multiple of this always fails.
Trained = collections.Counter[tuple[int, int]]


def opened(
    log_dir: pathlib.Path | None,
    size: int,
    max_failures: int | None,
    steps: int = STEPS,
    **options: Any,
) -> PopulationController:
    """A population whose slots are independent."""
    return PopulationController(
        [{"h": 0.0}] * size,
        policy(),
        log_dir,
        stop=Stop(steps=steps),
        max_failures=max_failures,
        **options,
    )


def policy() -> FixedSchedule:
    """The policy of these runs, which decides nothing."""
    return FixedSchedule({0: {"h": 0.0}})


@dataclasses.dataclass(frozen=True)
class Unreliable:
    """A training function; each start fails with probability 0.3.

    Args:
        log: The file for all steps that were trained, also by processes that die.
        kills: Whether a failure kills the process; else it is an exception.
        longest: A failure comes at most so many steps after the start.
        seed: The seed of the failures.
    """

    log: pathlib.Path
    kills: bool = False
    longest: int = 5
    seed: int = 0

    def __call__(self, worker: Worker) -> None:
        """Train, and fail where that is due."""
        fails_at = -1
        while worker.running:
            if worker.poll():
                attempt = int(worker.generation_id.rpartition("-")[2])
                fails_at = self.fails_at(worker.worker_id, attempt, worker.step)
            if not worker.running:
                break
            worker.step += 1
            self._note(f"{worker.worker_id} {worker.step}\n")
            if worker.step == fails_at and self.kills:
                os.kill(os.getpid(), signal.SIGKILL)
            if worker.step == fails_at:
                raise FloatingPointError(f"slot {worker.worker_id} fails")
            if worker.step % EVERY == 0 or self.longest == 1:
                worker.report(1.0 / worker.step, worker.save_to or "weights")

    def fails_at(self, worker_id: int, attempt: int, step: int) -> int:
        """The step at which a start fails; -1: it does not."""
        if worker_id % ALWAYS == 0:
            return step + 1
        rng = np.random.default_rng([self.seed, worker_id, attempt])
        after = int(rng.integers(1, self.longest + 1))
        return step + after if rng.random() < 0.3 else -1

    def expected(self, size: int, max_failures: int) -> Expected:
        """What happens, slot by slot."""
        found = Expected(collections.Counter(), set(), set(), 0)
        for worker_id in range(size):
            saved = step = attempt = in_a_row = 0
            fails_at = self.fails_at(worker_id, attempt, step)
            while step < STEPS:
                step += 1
                found.trained[worker_id, step] += 1
                if step == fails_at:
                    found.failures += 1
                    lost = range(saved + 1, step + 1)
                    found.repeated |= {(worker_id, again) for again in lost}
                    in_a_row, attempt, step = in_a_row + 1, attempt + 1, saved
                    if in_a_row == max_failures:
                        found.retired.add(worker_id)
                        break
                    fails_at = self.fails_at(worker_id, attempt, step)
                elif step % EVERY == 0:
                    in_a_row, saved = 0, step
        return found

    def trained(self) -> Trained:
        """How often each step of each slot was trained."""
        lines = (line.split() for line in self.log.read_text().splitlines())
        return collections.Counter((int(w), int(step)) for w, step in lines)

    def _note(self, line: str) -> None:
        file = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode())  # What was written outlives a kill.
        os.close(file)


@dataclasses.dataclass
class Expected:
    """What must come out of a run.

    Attributes:
        trained: How often each step of each slot is trained.
        repeated: The steps that were under way at a failure.
        retired: The slots that fail too often.
        failures: The number of failures.
    """

    trained: Trained
    repeated: set[tuple[int, int]]
    retired: set[int]
    failures: int


def steps_of(worker: Worker) -> Iterable[int]:
    """Train step after step, and report each."""
    while worker.running:
        worker.poll()
        if not worker.running:
            break
        worker.step += 1
        yield worker.step
        worker.report(1.0, worker.save_to or "weights")


def train(worker: Worker) -> None:
    """Train to the end."""
    for _ in steps_of(worker):
        pass


def raise_always(worker: Worker) -> None:
    """Fail at once."""
    raise ZeroDivisionError(f"no\nnumber {worker.worker_id}")


def raise_params_error(worker: Worker) -> None:
    """Raise what the library raises for damaged params."""
    raise ParamsError("on purpose")


def be_killed(worker: Worker) -> None:
    """Kill the process that trains slot 0, once: at the second step of the slot."""
    for step in steps_of(worker):
        first = worker.generation_id.endswith("-0-0")
        if worker.worker_id == 0 and first and step == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def give_back_and_die(worker: Worker) -> None:
    """Die without a slot, the first time."""
    for step in steps_of(worker):
        if step == 2 and worker.save_to:
            mark = pathlib.Path(worker.save_to).parents[2] / "died"
            if not mark.exists():
                mark.touch()
                worker.release()
                os.kill(os.getpid(), signal.SIGKILL)


class DiesOnArrival:
    """A training function whose process dies when it receives it."""

    def __call__(self, worker: Worker) -> None:
        """Train."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (3,)
