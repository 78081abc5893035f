"""Hundreds of Ctrl-C during reports and polls; run in a new process.

Tools that watch a process, such as coverage, have locks in which they expect no Ctrl-C.
"""

from __future__ import annotations

import pathlib
import random
import signal
import sys
import threading

from population import PopulationController
from tests import probe
from tests.helpers import Scripted, generation

INTERRUPTS = 400


def main(folder: pathlib.Path) -> None:
    """Report until there were enough interrupts; then check the run."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    choose = random.Random(0)
    controller = PopulationController([1.0, 2.0], Scripted(), folder)
    first = generation(controller)
    hits, step, acknowledged = 0, 0, set()
    while hits < INTERRUPTS:
        step += 1
        try:
            signal.setitimer(signal.ITIMER_REAL, choose.uniform(2e-5, 6e-4))
            controller.set_eval(0, first, step, None, 1.0)
            acknowledged.add(step)
            controller.maybe_get_worker_data(0, first, step, None, None)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            hits += 1
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            hits += 1
        assert not probe.connection(controller).in_transaction, step
        assert _can_lock(controller), step
    assert acknowledged <= set(controller.graph[first])
    controller.close()
    again = PopulationController([1.0, 2.0], Scripted(), folder)
    assert acknowledged <= set(again.graph[first])
    again.close()
    print(f"{hits} interrupts, {len(acknowledged)} reports")


def _can_lock(controller: PopulationController) -> bool:
    """Whether another thread can take the lock of the open run."""
    got: list[bool] = []

    def take() -> None:
        lock = probe.lock(controller)
        got.append(lock.acquire(timeout=5))
        if got[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return got == [True]


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
