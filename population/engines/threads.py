"""Train a population in threads of this process.

`run(train, controller)` calls `train(worker)` in each thread. With fewer threads than
slots the slots take turns; with fewer slots than threads the spare threads wait. The
caller's settings of JAX are in force in the threads, too.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from population.controller import PopulationController
from population.engines import jax_settings, trials
from population.engines.summary import Summary as Summary
from population.report import progress as progress_module
from population.worker import Worker

logger = logging.getLogger("population")
_REFRESH_S = 0.2


def run(
    train: Callable[[Worker], None],
    controller: PopulationController,
    num_workers: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    *,
    on_error: str = "raise",
    progress: bool = True,
) -> Summary:
    """Call `train(worker)` in threads until each of them returns.

    The first exception stops the others when they next read `worker.running`; it is
    raised here, with the worker's id as a note. Ctrl-C also stops all of them, and
    returns; a second one does not wait.

    With `on_error="fail"` an exception of `train` is recorded as a failure of its trial
    (`worker.fail`), and the thread calls `train` with another worker, until the run has
    ended. The first traceback of each kind is logged. Errors of the library and of the
    mutator, and an `OSError` of the params store, still stop all.

    Args:
        train: The training loop of one worker.
        controller: The population.
        num_workers: The number of threads; by default one for each slot.
        devices: Worker i trains on `devices[i % len(devices)]`; by default all local
            devices of JAX's default backend, also within `jax.default_device`.
        on_error: What an exception of `train` ends: the run ("raise") or its trial.
        progress: Whether to show bars.

    Raises:
        ValueError: `num_workers` is not a positive int, or `on_error` is unknown.
        NoProgressError: All slots are retired, because they failed too often.
        Exception: The first exception that a worker raised.
    """
    count = trials.check(controller, num_workers, on_error)
    places = list(devices) if devices else _all_devices()
    found = jax_settings.taken("train")
    workers = _WorkerThreads(train, controller, on_error, found)
    failures = trials.FailureCount(controller)
    ends = [threading.Event() for _ in range(count)]
    threads = [
        threading.Thread(
            target=workers.work,
            args=(places[index % len(places)], end),
            name=f"population-{index}",
            daemon=True,
        )
        for index, end in enumerate(ends)
    ]
    start = time.perf_counter()
    with progress_module.bars(controller) if progress else contextlib.nullcontext():
        interrupted = workers.run(threads, ends)
    wall_s = time.perf_counter() - start
    if workers.error is not None:
        raise workers.error
    trials.check_failures(controller)
    return Summary(
        count, wall_s, workers.overhead_s, interrupted, failures=failures.since()
    )


class _WorkerThreads:
    """What the threads share: the flag that stops them, and the first error."""

    def __init__(
        self,
        train: Callable[[Worker], None],
        controller: PopulationController,
        on_error: str,
        found: jax_settings.Settings,
    ) -> None:
        self._train = train
        self._controller = controller
        self._on_error = on_error
        self._settings = found
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self.error: BaseException | None = None
        self.overhead_s = 0.0

    def work(self, device: jax.Device, end: threading.Event) -> None:
        """Claim a slot and train; the target of each thread."""
        tell = self._controller.open_run.notices.say
        rest = self._controller, self._stopped, self._on_error, tell
        own = trials.Trials(self._train, *rest)
        try:
            with jax_settings.applied(self._settings), jax.default_device(device):
                own.run(device)
            with self._lock:
                self.overhead_s += own.overhead_s
        except BaseException as error:  # Raised again by `run`, in the caller's thread.
            with self._lock:
                if self.error is None:
                    error.add_note(f"This was raised by {own.place} of the population.")
                    self.error = error
            self.stop()
        finally:
            end.set()

    def run(
        self, threads: Sequence[threading.Thread], ends: Sequence[threading.Event]
    ) -> bool:
        """Start the threads and wait for their ends; return whether Ctrl-C came."""
        try:
            for thread in threads:
                thread.start()
            _wait_for(ends)
        except KeyboardInterrupt:
            logger.warning("interrupted: every worker stops at its next step")
            self.stop()
            pairs = zip(threads, ends, strict=True)
            _wait_for([end for thread, end in pairs if thread.ident is not None])
            return True
        return False

    def stop(self) -> None:
        """End every loop, also those of waiting workers."""
        self._stopped.set()
        self._controller.wake()


def _all_devices() -> list[jax.Device]:
    """Return all local devices; warn if the caller has set one as the default."""
    places: list[jax.Device] = jax.local_devices()
    named: Any = jax.config.values["jax_default_device"]
    chosen = jax.local_devices(backend=named)[0] if isinstance(named, str) else named
    if named is not None and any(place != chosen for place in places):
        logger.warning(
            "jax.default_device is %s, but threads.run divides the workers among all "
            "devices: %s. To train on it alone, pass devices=[...] with the device.",
            named,
            places,
        )
    return places


def _wait_for(ends: Sequence[threading.Event]) -> None:
    # No join: in Python 3.11 and 3.12 a thread counts as ended once Ctrl-C has
    # interrupted a join. With a timeout, as Python handles Ctrl-C only in between.
    for end in ends:
        while not end.wait(_REFRESH_S):
            pass
