"""Train a population in threads of this process.

`run(train, controller)` calls `train(worker)` in each thread. With fewer threads than
slots the slots take turns; with fewer slots than threads the spare threads wait.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import jax

from population.controller import PopulationController
from population.report import progress as progress_module
from population.worker import Worker

logger = logging.getLogger("population")
_REFRESH_S = 0.2


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a run of an engine took.

    Attributes:
        num_workers: Threads.
        wall_s: Seconds from beginning to end.
        overhead_s: Seconds inside poll and report, summed over threads; without saving
            params and without waiting for a decision.
        interrupted: Whether Ctrl-C ended it; the run can be resumed.
    """

    num_workers: int
    wall_s: float
    overhead_s: float
    interrupted: bool

    @property
    def overhead(self) -> float:
        """The controller's share of the threads' time."""
        return self.overhead_s / max(self.num_workers * self.wall_s, 1e-9)


def run(
    train: Callable[[Worker], None],
    controller: PopulationController,
    num_workers: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    *,
    progress: bool = True,
) -> Summary:
    """Call `train(worker)` in threads until each of them returns.

    The first exception stops the others at their next look at `worker.running` and is
    raised here, with the worker's id as a note. Ctrl-C stops all of them likewise and
    returns; a second one does not wait.

    Args:
        train: The training loop of one worker.
        controller: The population.
        num_workers: Threads; by default one for each slot.
        devices: Worker i trains on `devices[i % len(devices)]`; by default all local
            devices of JAX's default backend.
        progress: Whether to show bars.

    Raises:
        ValueError: If `num_workers` is not positive.
        Exception: The first that a worker raised.
    """
    count = len(controller.workers) if num_workers is None else num_workers
    if type(count) is not int or count < 1:
        raise ValueError(f"num_workers must be a positive int, got {num_workers!r}.")
    places = list(devices) if devices else jax.local_devices()
    crew = _Crew(train, controller)
    threads = [
        threading.Thread(
            target=crew.work,
            args=(places[index % len(places)],),
            name=f"population-{index}",
            daemon=True,
        )
        for index in range(count)
    ]
    start = time.perf_counter()
    with progress_module.bars(controller) if progress else contextlib.nullcontext():
        for thread in threads:
            thread.start()
        interrupted = crew.join(threads)
    wall_s = time.perf_counter() - start
    if crew.error is not None:
        raise crew.error
    return Summary(count, wall_s, crew.overhead_s, interrupted)


class _Crew:
    """The threads' common ground: the flag that stops them, and the first error."""

    def __init__(
        self, train: Callable[[Worker], None], controller: PopulationController
    ) -> None:
        self._train = train
        self._controller = controller
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self.error: BaseException | None = None
        self.overhead_s = 0.0

    def work(self, device: jax.Device) -> None:
        """One thread's life."""
        with self._stop_on_error() as workers:
            worker = Worker(self._controller.session, stopped=self._stopped)
            workers.append(worker)
            worker.device = device
            with worker, jax.default_device(device):
                if worker.worker_id >= 0:  # Else the run ended before it got a slot.
                    self._train(worker)
            with self._lock:
                self.overhead_s += worker.overhead_s

    def join(self, threads: Sequence[threading.Thread]) -> bool:
        """Wait for the threads; say whether Ctrl-C ended them."""
        try:
            _wait_for(threads)
        except KeyboardInterrupt:
            logger.warning("interrupted: every worker stops at its next step")
            self.stop()
            _wait_for(threads)
            return True
        return False

    def stop(self) -> None:
        """End every loop, also one that waits."""
        self._stopped.set()
        self._controller.session.wake()

    @contextlib.contextmanager
    def _stop_on_error(self) -> Iterator[list[Worker]]:
        workers: list[Worker] = []
        try:
            yield workers
        except BaseException as error:  # Raised again by `run`, in the caller's thread.
            with self._lock:
                if self.error is None:
                    place = f"worker {workers[0].worker_id}" if workers else "a worker"
                    error.add_note(f"This was raised by {place} of the population.")
                    self.error = error
            self.stop()


def _wait_for(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        while thread.is_alive():
            thread.join(_REFRESH_S)  # In small bites, so that Ctrl-C is heard.
