"""Training functions for the processes engine, and a program to be interrupted.

They import no JAX, so that a process starts quickly. Each weight is moved towards h
and kept in its own file.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys
import threading
from typing import Any

import numpy as np

from population import PopulationController, Stop, Worker
from population.engines import processes
from population.mutators import WinnerTakeAllGenetic

Meta = dict[str, float]
FOREVER = 10**9
TRACES = "POPULATION_TEST_TRACES"


def leave_trace(folder: pathlib.Path) -> None:
    """Write down the environment in which this module is imported."""
    found = {**os.environ, "had jax": str("jax" in sys.modules)}
    (folder / f"{os.getpid()}.json").write_text(json.dumps(found))


if TRACES in os.environ:
    leave_trace(pathlib.Path(os.environ[TRACES]))


def mutate(meta_params: Meta, rng: np.random.Generator) -> Meta:
    """Move the number a little."""
    return {"h": meta_params["h"] + 0.1 * float(rng.normal())}


def opened(
    log_dir: str | os.PathLike[str], size: int = 4, steps: int = 40, **options: Any
) -> PopulationController:
    """A synchronous population that ends at `steps`."""
    return PopulationController(
        [{"h": 1.0 + i} for i in range(size)],
        WinnerTakeAllGenetic(mutate, steps_per_exploit=10, synchronous=True),
        log_dir,
        stop=Stop(steps=steps),
        **options,
    )


def train(worker: Worker) -> None:
    """Train to the end."""
    train_until(worker, FOREVER)


def train_until(worker: Worker, step: int, weight: float = 1.0) -> float:
    """Train up to a step; the weight is the return value of an earlier call."""
    while worker.running and worker.step < step:
        if worker.poll():
            path = worker.load_from
            weight = 1.0 if path is None else float(pathlib.Path(path).read_text())
        weight += 0.1 * (worker.meta_params["h"] - weight)
        worker.step += 1
        path = worker.save_to if worker.step % 5 == 0 else None
        if path is not None:
            pathlib.Path(path).write_text(repr(weight))
            worker.report(abs(weight), path)
    return weight


def train_or_be_killed(worker: Worker) -> None:
    """Kill the process that begins with slot 0 between two reports.

    This is before its first wait: there it would give the slot back, and if it was slow
    to return, the others might have trained everything by then.
    """
    if worker.worker_id == 0 and is_first(worker, "killed"):
        train_until(worker, 7)
        os.kill(os.getpid(), signal.SIGKILL)
    train(worker)


def be_killed(worker: Worker) -> None:
    """Kill every process."""
    train_until(worker, 3)
    os.kill(os.getpid(), signal.SIGKILL)


def fail(worker: Worker) -> None:
    """The process that begins with slot 0 raises."""
    if worker.worker_id == 0:
        raise ZeroDivisionError("on purpose")
    train(worker)


class Stubborn(Exception):
    """An exception that pickle cannot make again from its arguments."""

    def __init__(self, code: int, place: str) -> None:
        super().__init__(f"code {code} at {place}")


def fail_stubbornly(worker: Worker) -> None:
    """Raise an exception that pickle cannot restore."""
    del worker
    raise Stubborn(7, "the door")


def say_and_train(worker: Worker) -> None:
    """Print that training has begun; then train."""
    weight = train_until(worker, 15)
    os.write(1, b"training\n")
    train_until(worker, FOREVER, weight)


def say_and_hang(worker: Worker) -> None:
    """Print that training has begun, and never look at `worker.running`."""
    del worker
    os.write(1, b"training\n")
    threading.Event().wait()


def folder(worker: Worker) -> pathlib.Path:
    """The run folder."""
    path = worker.save_to
    if path is None:
        raise ValueError("these functions need a run with a log_dir")
    return pathlib.Path(path).parents[2]


def is_first(worker: Worker, name: str) -> bool:
    """Whether this is the first call."""
    try:
        (folder(worker) / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def main(name: str, log_dir: str, workers: str, steps: str) -> None:
    """A program that trains in processes."""
    controller = opened(log_dir, steps=int(steps))
    train = getattr(sys.modules["tests.engines.process_children"], name)
    print(processes.run(train, controller, int(workers), progress=False), flush=True)
