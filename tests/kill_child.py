"""What dies, or ends, at the worst moment: the processes of `test_kills`.

Call the functions with `python -c`, in a process that has not used JAX: children are
forks of it, and so begin within milliseconds.
"""

from __future__ import annotations

import os
import pathlib
import signal
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from population import PopulationController
from population.journals.sqlite import SqliteJournal
from population.mutators import WinnerTakeAllGenetic

SLOTS = 4


def mutate(h: float, rng: np.random.Generator) -> float:
    """A step in a random direction."""
    return float(h + rng.normal() * 0.1)


def opened(log_dir: str | os.PathLike[str], **options: Any) -> PopulationController:
    """The run: raw loops, whose weights are arrays."""
    first = [float(i + 1) for i in range(SLOTS)]
    return PopulationController(
        first, WinnerTakeAllGenetic(mutate, 3), log_dir, **options
    )


def report(controller: PopulationController, worker_id: int, value: float) -> None:
    """Train a slot for a step, and report it."""
    work = controller.maybe_get_worker_data(worker_id, None, 0, None, None)
    assert work is not None
    step = work.step + 1
    params = {"w": np.full(3, step)}
    controller.set_eval(worker_id, work.generation_id, step, params, value)


class Looks(SqliteJournal):
    """A journal that does something before one of the looks into it.

    Looks within a transaction are not counted: nobody else can write then.
    """

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__(path)
        self._count = 0
        self._act: Callable[[], object] | None = None
        self._writing = False

    def before(self, count: int, act: Callable[[], object]) -> None:
        """Do something before the look of this number, counted from now."""
        self._count, self._act = count, act

    @property
    def waits(self) -> bool:
        """Whether it has not been done yet."""
        return self._act is not None

    def __enter__(self) -> object:
        found = super().__enter__()
        self._writing = True
        return found

    def __exit__(self, *exc: object) -> None:
        self._writing = False
        super().__exit__(*exc)

    def __getattribute__(self, name: str) -> Any:
        looks = {"owners", "reading", "saves", "rejected", "removed_since"}
        if name in looks | {"trained_since", "changed"} and not self._writing:
            self._count -= 1
            if self._count == 0 and self._act is not None:
                act, self._act = self._act, None
                act()
        return super().__getattribute__(name)


def race(parent: str, how: str) -> None:
    """Another process reports its best, and is gone, between two looks of a tidying.

    A run for each look, until there are no more; `parent/looks` says how many.
    """
    warnings.filterwarnings("ignore", message=".*fork", category=RuntimeWarning)
    import population.params  # noqa: F401  (Once for all children.)

    count = 0
    while _raced(pathlib.Path(parent, str(count + 1)), count + 1, how):
        count += 1
    pathlib.Path(parent, "looks").write_text(str(count))


def _raced(log_dir: pathlib.Path, count: int, how: str) -> bool:
    """Whether there were so many looks."""
    opened(log_dir).close()  # Who is gone already is tidied up after.
    begun, begins = os.pipe()
    told, tells = os.pipe()
    pid = os.fork()
    if pid == 0:
        controller = opened(log_dir)
        report(controller, 0, 5.0)
        os.write(tells, b".")
        os.read(begun, 1)
        report(controller, 0, 1.0)  # Acknowledged.
        os.write(tells, b".")
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        controller.close()
        os._exit(0)
    os.read(told, 1)

    def act() -> None:
        os.write(begins, b".")
        os.read(told, 1)
        os.waitpid(pid, 0)

    journal = Looks(log_dir / "journal.sqlite")
    controller = opened(log_dir, journal=journal)
    journal.before(count, act)
    report(controller, 1, 9.0)  # Its first with arrays: it tidies up.
    passed = not journal.waits
    if not passed:
        act()
    controller.close()
    journal.close()
    return passed
