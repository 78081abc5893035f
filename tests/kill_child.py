"""Processes that die, or end, at the worst moment, for `test_kills`.

Call the functions with `python -c`, in a process that has not used JAX: children are
forks of it, and so begin within milliseconds.
"""

from __future__ import annotations

import os
import pathlib
import random
import select
import signal
import time
import traceback
import warnings
from typing import Any

import numpy as np

from population import PopulationController
from population.mutators import WinnerTakeAllGenetic
from tests.crash_points import LookedInto

SLOTS = 4
_PATIENCE_S = 60.0
_LONGEST_DELAY_S = 0.002


def mutate(h: float, rng: np.random.Generator) -> float:
    """A step in a random direction."""
    return float(h + rng.normal() * 0.1)


def opened(log_dir: str | os.PathLike[str], **options: Any) -> PopulationController:
    """The run of raw loops, whose weights are arrays."""
    first = [float(i + 1) for i in range(SLOTS)]
    return PopulationController(
        first, WinnerTakeAllGenetic(mutate, 3), log_dir, **options
    )


def report(controller: PopulationController, worker_id: int, value: float) -> None:
    """Train a slot for a step, and report it."""
    work = controller.maybe_get_worker_data(worker_id, None, 0, None, None)
    assert work is not None
    params = {"w": np.full(3, value)}
    controller.set_eval(worker_id, work.generation_id, work.step + 1, params, value)


def race(parent: str, how: str) -> None:
    """Another process reports its best and dies between two looks of a clean-up.

    There is a run for each look, until there are no more; `parent/looks` has the count.
    """
    warnings.filterwarnings("ignore", message=".*fork", category=RuntimeWarning)
    import population.params  # noqa: F401  (Once for all children.)

    count = 0
    while _raced(pathlib.Path(parent, str(count + 1)), count + 1, how):
        count += 1
    pathlib.Path(parent, "looks").write_text(str(count))


def _raced(log_dir: pathlib.Path, count: int, how: str) -> bool:
    """Whether there were this many looks."""
    opened(log_dir).close()  # It removes files of processes that are dead already.
    begun, begins = os.pipe()
    told, tells = os.pipe()
    pid = os.fork()
    if pid == 0:
        controller = opened(log_dir)
        report(controller, 0, 5.0)
        os.write(tells, b".")
        os.read(begun, 1)
        report(controller, 0, 1.0)  # The report was acknowledged.
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

    journal = LookedInto(log_dir / "journal.sqlite")
    controller = opened(log_dir, journal=journal)
    journal.before(count, act)
    report(controller, 1, 9.0)  # Its first report with arrays: it cleans up.
    passed = not journal.waits
    if not passed:
        act()
    controller.close()
    journal.close()
    return passed


class Loops:
    """Raw loops, one per slot, each in a process that may be killed.

    Args:
        log_dir: The run.
        choose: Draws the seeds of their weights.

    Attributes:
        acknowledged: A line for each acknowledged report: `generation_id step w`.
    """

    def __init__(self, log_dir: pathlib.Path, choose: random.Random) -> None:
        self.acknowledged: list[str] = []
        self._log_dir = log_dir
        self._choose = choose
        self._told, self._tells = os.pipe()
        self._rest = ""
        self._pids = [self._begun(slot) for slot in range(SLOTS)]

    def kill(self, slot: int, *, replace: bool = True) -> None:
        """Kill a loop; start another one in its place."""
        pid = self._pids[slot]
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        if not os.WIFSIGNALED(status):
            raise RuntimeError(f"the loop of slot {slot} has failed")
        if replace:
            self._pids[slot] = self._begun(slot)

    def listen(self, count: int) -> None:
        """Wait until this many more reports were acknowledged."""
        enough = len(self.acknowledged) + count
        while len(self.acknowledged) < enough:
            self._read(_PATIENCE_S)

    def end(self) -> None:
        """Kill all loops; read what they still acknowledged."""
        for slot in range(SLOTS):
            self.kill(slot, replace=False)
        os.close(self._tells)
        while self._read(0.0):
            pass
        os.close(self._told)

    def _read(self, patience_s: float) -> bool:
        if not select.select([self._told], [], [], patience_s)[0]:
            raise RuntimeError("no report was acknowledged for a long time")
        found = os.read(self._told, 1 << 16).decode()
        *lines, self._rest = (self._rest + found).split("\n")
        self.acknowledged += lines
        return bool(found)

    def _begun(self, slot: int) -> int:
        seed = self._choose.random()
        pid = os.fork()
        if pid:
            return pid
        os.close(self._told)  # Otherwise it would not end when its reader is gone.
        try:
            self._train(slot, random.Random(seed))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _train(self, slot: int, weights: random.Random) -> None:
        controller = opened(self._log_dir)
        generation_id, step = None, 0
        while True:
            found = controller.maybe_get_worker_data(
                slot, generation_id, step, None, None
            )
            if found is not None:
                generation_id, step = found.generation_id, found.step
            assert generation_id is not None
            step, w = step + 1, weights.random()
            params = {"w": np.full(3, w)}
            controller.set_eval(slot, generation_id, step, params, w)
            os.write(self._tells, f"{generation_id} {step} {w!r}\n".encode())


def kill_often(parent: str, seed: int, kills: int) -> None:
    """Kill the loops of one run again and again, at moments drawn at random.

    `parent/acknowledged` has the reports that were acknowledged.
    """
    warnings.filterwarnings("ignore", message=".*fork", category=RuntimeWarning)
    import population.params  # noqa: F401  (Once for all children.)

    choose = random.Random(seed)
    loops = Loops(pathlib.Path(parent, "run"), choose)
    for _ in range(kills):
        loops.listen(choose.randrange(1, 8))
        until = time.perf_counter() + choose.random() * _LONGEST_DELAY_S
        while time.perf_counter() < until:
            pass
        loops.kill(choose.randrange(SLOTS))
    loops.end()
    pathlib.Path(parent, "acknowledged").write_text("\n".join(loops.acknowledged))
