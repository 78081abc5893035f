"""A run that is killed at a named point.

It prints each report that was acknowledged, one a line, as `generation_id step`. Call
`main` with `python -c`: run as a script, the functions here would be those of another
module, and so the mutator another one.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from typing import Any

import numpy as np

from population import PopulationController
from population.journals.sqlite import SqliteJournal
from population.mutators import WinnerTakeAllGenetic
from population.session import Session

REPORTS = 36
_connect = sqlite3.connect


def mutate(h: float, rng: np.random.Generator) -> float:
    """A step in a random direction."""
    return float(h + rng.normal() * 0.1)


def opened(log_dir: str | os.PathLike[str]) -> PopulationController:
    """The run."""
    return PopulationController(
        [1.0, 2.0, 3.0], WinnerTakeAllGenetic(mutate, 2), log_dir
    )


def drive(
    controller: PopulationController,
    acknowledge: Callable[[str, int], None],
    arrays: bool = False,
    reports: int = REPORTS,
) -> None:
    """Train the slot that is furthest behind until there are enough reports."""
    while controller.session.slots.reports < reports:
        workers = controller.workers
        worker_id = min(range(len(workers)), key=lambda w: workers[w].step)
        work = controller.maybe_get_worker_data(worker_id, None, 0, None, None)
        assert work is not None
        step = work.step + 1
        params: Any = f"at {step}"
        if arrays:
            params = {"w": np.full(3, step)}
        value = work.meta_params**2
        controller.set_eval(worker_id, work.generation_id, step, params, value)
        acknowledge(work.generation_id, step)


def kill_at(point: str, count: int) -> None:
    """Arrange for this process to be killed at the `count`-th passage of a point."""
    passed = [0]

    def passing() -> None:
        passed[0] += 1
        if passed[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            passing()
            return original(*arguments, **options)

        setattr(owner, name, wrapped)

    def after(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            result = original(*arguments, **options)
            passing()
            return result

        setattr(owner, name, wrapped)

    class Connection(sqlite3.Connection):
        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            passing()
            return super().execute(*arguments)

    if point == "in the transaction":
        after(SqliteJournal, "add_checkpoint")
    elif point == "before the commit":
        before(SqliteJournal, "__exit__")
    elif point == "before the acknowledgement":
        after(Session, "commit")
    elif point == "between branches":
        after(SqliteJournal, "add_generation")
    elif point == "before the rename":
        before(os, "replace")
    elif point == "after the rename":
        after(os, "replace")
    elif point == "during the write":
        before(os, "fsync")
    elif point == "any statement":
        sqlite3.connect = lambda *a, **k: _connect(*a, factory=Connection, **k)  # type: ignore[assignment]


def acknowledge(generation_id: str, step: int) -> None:
    """Tell the parent that `set_eval` has returned."""
    os.write(1, f"{generation_id} {step}\n".encode())


def main(log_dir: str, point: str, count: int) -> None:
    """Run until killed, or to the end."""
    if point == "creation":
        create_with_kills(log_dir, range(1, count))
        return
    kill_at(point, count)
    files = ("before the rename", "after the rename", "during the write")
    controller = opened(log_dir)
    drive(controller, acknowledge, arrays=point in files)


def create_with_kills(parent: str, counts: range) -> None:
    """Make a run for each count in a process of its own, killed at that statement."""
    for count in counts:
        child = os.fork()
        if child == 0:
            kill_at("any statement", count)
            os.dup2(
                os.open(f"{parent}/{count}.acknowledged", os.O_CREAT | os.O_RDWR), 1
            )
            drive(opened(f"{parent}/{count}"), acknowledge, reports=3)
            os._exit(0)
        os.waitpid(child, 0)
