"""The life of one process of a population: open the run, train, say how it ended.

The order to begin comes through a pipe whose other end only the parent has. Its end is
the order to stop, whether the parent closes it or dies.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import threading
import warnings
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from population.base.types import Event
from population.controller import PopulationController
from population.engines.processes import pickling, settings
from population.run.events import OnEvent
from population.worker import Worker

if TYPE_CHECKING:
    Link = connection.Connection[Any, Any]

logger = logging.getLogger("population")
_LOOK_AGAIN_S = 1.0


def main(orders: Link, news: Link, tells_events: bool) -> None:
    """What a process of `processes.run` does.

    Args:
        orders: Brings the caller's settings of JAX, and the training function with the
            run's arguments, pickled by themselves; then its end.
        news: Takes what the parent is to know.
        tells_events: Whether the parent wants to know what happens.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    child = _Child(orders, news)
    try:
        payload = orders.recv_bytes()
    except (EOFError, OSError):  # Stopped before it began.
        child.tell(pickling.Done(0.0))
        return
    threading.Thread(
        target=child.listen, args=(os.getppid(),), name="population-orders", daemon=True
    ).start()
    child.work(payload, child.tell_event if tells_events else None)


class _Child:
    """Its two pipes, and the flag that stops it."""

    def __init__(self, orders: Link, news: Link) -> None:
        self._orders = orders
        self._news = news
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._controller: PopulationController | None = None
        self._worker: Worker | None = None

    def listen(self, parent: int) -> None:
        """Wait for the order to stop; one thread does nothing else."""
        with contextlib.suppress(EOFError, OSError):
            while not self._orders.poll(_LOOK_AGAIN_S):
                if os.getppid() != parent:  # Its forks may keep the pipe open.
                    break
        self._stopped.set()
        if self._controller is not None:
            self._controller.wake()

    def work(self, payload: bytes, on_event: OnEvent | None) -> None:
        """Train until `train` returns, and tell the parent how it ended."""
        try:
            overhead_s = self._train(payload, on_event)
        except BaseException as error:  # Raised again by the parent.
            worker_id = None if self._worker is None else self._worker.worker_id
            self.tell(pickling.pack_error(worker_id, error))
        else:
            self.tell(pickling.Done(overhead_s))

    def tell(self, message: object) -> None:
        """Send a message, unless its reader has gone."""
        with self._lock, contextlib.suppress(OSError):
            self._news.send(message)

    def tell_event(self, event: Event) -> None:
        """Send an event; that the run has ended, the parent sees for itself."""
        if event.kind != "finished":
            self.tell(event)

    def _train(self, payload: bytes, on_event: OnEvent | None) -> float:
        """Train until `train` returns; the worker's seconds inside poll and report."""
        sent, packed = pickle.loads(payload)
        received = settings.Received(sent)
        received.put_early()  # Before any of the parts is loaded.
        parts: dict[str, Any] = pickle.loads(packed)
        received.put(lambda names: self.tell(pickling.NotInForce(tuple(names))))
        train = parts.pop("train")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The parent has said it.
            controller = PopulationController(**parts, on_event=on_event)
        with contextlib.closing(controller):
            self._controller = controller
            self._worker = worker = controller.worker(stopped=self._stopped)
            with worker:
                if worker.worker_id >= 0:  # Else the run ended before it got a slot.
                    train(worker)
            return worker.overhead_s
