"""Trains slot after slot in one loop; decides which exceptions fail a trial alone."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from population.base.errors import is_failure
from population.base.log_once import Notice
from population.controller import PopulationController
from population.core.membership import FAILURES
from population.journal.records import Status
from population.worker import Worker

if TYPE_CHECKING:
    import jax

_LONGEST_REASON = 200


def check(
    controller: PopulationController, num_workers: int | None, on_error: str
) -> int:
    """Check the arguments of an engine; return the number of its workers.

    Raises:
        ValueError: `num_workers` is not a positive int, or `on_error` is neither
            "raise" nor "fail".
        JournalError: The run is closed or read-only.
    """
    controller.check_trainable()
    if on_error not in ("raise", "fail"):
        raise ValueError(f'on_error must be "raise" or "fail", got {on_error!r}.')
    count = len(controller.workers) if num_workers is None else num_workers
    if type(count) is not int or count < 1:
        raise ValueError(f"num_workers must be a positive int, got {num_workers!r}.")
    return count


class Trials:
    """Calls `train` in one thread: once, or after each failure with another worker.

    Args:
        train: The training loop of one worker.
        controller: The population.
        stopped: The event that ends the loop.
        on_error: "raise" or "fail".
        tell: Called with the message about a failure; it is to be logged once.

    Attributes:
        worker: The worker in training; None before it has claimed a slot.
        overhead_s: Seconds inside poll and report, of all workers so far.
    """

    def __init__(
        self,
        train: Callable[[Worker], None],
        controller: PopulationController,
        stopped: threading.Event,
        on_error: str,
        tell: Callable[[Notice], None],
    ) -> None:
        self._train = train
        self._controller = controller
        self._stopped = stopped
        self._fails = on_error == "fail"
        self._tell = tell
        self.worker: Worker | None = None
        self.overhead_s = 0.0

    @property
    def place(self) -> str:
        """The worker in training, for people."""
        return "a worker" if self.worker is None else f"worker {self.worker.worker_id}"

    def run(self, device: jax.Device | None = None) -> None:
        """Train until `train` returns, or the run has ended.

        Args:
            device: The device of the workers.

        Raises:
            NoProgressError: All slots are retired, because they failed too often.
            BaseException: What `train` has raised, unless it is recorded as a failure.
        """
        while self._has_failed(device):
            pass

    def _has_failed(self, device: jax.Device | None) -> bool:
        """Claim a slot and train; return whether that ended with a recorded failure."""
        self.worker = None
        worker = self._controller.worker(stopped=self._stopped)
        self.worker, worker.device = worker, device
        with worker:
            if worker.worker_id < 0:  # The run ended before it got a slot.
                return False
            try:
                self._train(worker)
            except BaseException as error:  # What is no failure is raised again.
                if not (self._fails and is_failure(error)):
                    raise
                reason = _reason(error)
                self._tell(_notice(self.place, reason, error))
                if not worker.fail(reason):  # It had given its slot back.
                    raise
                return True
            finally:
                self.overhead_s += worker.overhead_s
        return False


class FailureCount:
    """Counts the failures of all trials since it was made.

    Args:
        controller: The population.
    """

    def __init__(self, controller: PopulationController) -> None:
        self._run = controller.open_run
        self._before = self._recorded()

    def since(self) -> int:
        """Return how many failures were recorded since; 0 if the run was closed."""
        return 0 if self._run.closed else self._recorded() - self._before

    def _recorded(self) -> int:
        with self._run.lock.lock:
            statuses = self._run.journal.all(Status)
        return sum(status.kind in FAILURES for status in statuses)


def check_failures(controller: PopulationController) -> None:
    """Raise a NoProgressError if all slots are retired by failures."""
    run = controller.open_run
    with run.lock.lock:
        if not run.closed:
            run.guards.check_failures(run.state())


def _reason(error: BaseException) -> str:
    """Describe an exception in one line."""
    summary = traceback.TracebackException.from_exception(error, limit=0)
    message = " ".join(str(summary).split())  # A message may have several lines.
    name = type(error).__name__
    text = f"{name}: {message}" if message else name
    short = text[: _LONGEST_REASON - 3]
    return text if len(text) <= _LONGEST_REASON else f"{short}..."


def _notice(place: str, reason: str, error: BaseException) -> Notice:
    """Return a warning with the traceback; one for each place that raises a type."""
    kind = type(error)
    at = traceback.extract_tb(error.__traceback__, limit=-1)
    where = "".join(f" at {frame.filename}:{frame.lineno}" for frame in at)
    trace = "".join(traceback.format_exception(error)).strip()
    text = (
        f"{place} has failed: {reason}. Further failures of this kind are recorded "
        f"without a warning.\n\n{trace}"
    )
    key = f"{kind.__module__}.{kind.__qualname__}{where}"
    return Notice("failed", key, text, logging.WARNING)
