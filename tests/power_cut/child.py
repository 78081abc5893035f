"""The run that is recorded: saves, branches, removals, merges and two sessions."""

from __future__ import annotations

import ctypes
import pathlib
from typing import Any

import numpy as np

from population import PopulationController, Worker
from population.journal import sqlite_connection, sqlite_merging
from population.mutators import WinnerTakeAllGenetic
from population.run import remover

SLOTS = 3
RUN = "run"
_FLOATS = 600  # A save is more than one block of the disk.
_COMMITS_BEFORE_MERGE, _BYTES_BEFORE_MERGE = 4, 60_000
_REMOVE_EVERY_S = 0.02


def mutate(h: float, rng: np.random.Generator) -> float:
    """A step in a random direction."""
    return float(h + rng.normal() * 0.1)


def opened(log_dir: pathlib.Path, durability: str = "process") -> PopulationController:
    """Open the run."""
    first = [float(i + 1) for i in range(SLOTS)]
    mutator = WinnerTakeAllGenetic(mutate, 3)
    return PopulationController(first, mutator, log_dir, durability=durability)


def init(h: float) -> dict[str, Any]:
    """Fresh weights; no report has the value 0."""
    del h
    return {"w": np.zeros(_FLOATS)}


def train(worker: Worker, state: Any, value: float) -> Any:
    """Train for a step; return the new state, which tells its value."""
    worker.step += 1
    return {"w": np.full_like(state["w"], value)}


def command(
    folder: pathlib.Path, durability: str, reports: int, recorder: pathlib.Path
) -> list[str]:
    """Return the arguments of an interpreter that is this child."""
    arguments = str(folder), durability, reports, str(recorder)
    # Not as `__main__`: the run knows the module of its `mutate_fn`.
    return ["-c", f"from tests.power_cut import child; child.main{arguments!r}"]


def main(folder: str, durability: str, reports: int, recorder: str) -> None:
    """Train the members in turns; mark each report before and after it."""
    # Long logs, and seconds between removals, are only made short here.
    vars(sqlite_connection)["_COMMITS_BEFORE_MERGE"] = _COMMITS_BEFORE_MERGE
    vars(sqlite_merging)["_BYTES_BEFORE_MERGE"] = _BYTES_BEFORE_MERGE
    vars(remover)["EVERY_S"] = _REMOVE_EVERY_S
    mark = ctypes.CDLL(recorder).power_cut_mark
    rng = np.random.default_rng(0)
    done = 0
    for end in (reports // 2, reports):  # Two sessions.
        controller = opened(pathlib.Path(folder, RUN), durability)
        workers = [controller.worker(slot) for slot in range(SLOTS)]
        states = [init(0.0)] * SLOTS
        while done < end:
            slot = done % SLOTS
            worker = workers[slot]
            if worker.poll():
                states[slot] = worker.restore(init)
            value = float(rng.random()) + 0.5
            states[slot] = train(worker, states[slot], value)
            place = f"{slot} {worker.generation_id} {worker.step} {value!r}"
            mark(f"report {place}".encode())
            worker.report(value, states[slot])
            mark(b"acknowledged")
            done += 1
        for worker in workers:
            worker.release()
        controller.close()
