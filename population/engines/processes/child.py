"""The code of one process of a population: open the run, train, send how it ended.

The order to begin comes through a pipe whose other end only the parent has. The end of
the pipe is the order to stop: the parent has closed it or died.
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
from population.engines import trials
from population.engines.processes import pickling, settings
from population.run import liveness
from population.run.events import OnEvent
from population.worker import Worker

if TYPE_CHECKING:
    Link = connection.Connection[Any, Any]

logger = logging.getLogger("population")
_LOOK_AGAIN_S = 1.0


def main(orders: Link, messages: Link, tells_events: bool) -> None:
    """Run a process of `processes.run`.

    Args:
        orders: The pipe from the parent: it sends the caller's settings of JAX, and
            the training function with the run's arguments, pickled separately.
        messages: The pipe for messages to the parent.
        tells_events: Whether to send events to the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Only the parent handles Ctrl-C.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    child = _Child(orders, messages)
    try:
        payload = orders.recv_bytes()
    except (EOFError, OSError):  # The parent has stopped it before it began.
        child.tell(pickling.Done(0.0))
        return
    threading.Thread(
        target=child.listen, args=(os.getppid(),), name="population-orders", daemon=True
    ).start()
    child.work(payload, child.tell_event if tells_events else None)


class _Child:
    """The process's two pipes, and the flag that stops its training."""

    def __init__(self, orders: Link, messages: Link) -> None:
        self._orders = orders
        self._messages = messages
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._controller: PopulationController | None = None
        self._trials: trials.Trials | None = None

    def listen(self, parent: int) -> None:
        """Wait for the order to stop, in a thread that does nothing else."""
        with contextlib.suppress(EOFError, OSError):
            while not self._orders.poll(_LOOK_AGAIN_S):
                if os.getppid() != parent:  # Forks of a dead parent may keep the pipe.
                    break
        self._stopped.set()
        if self._controller is not None:
            self._controller.wake()

    def work(self, payload: bytes, on_event: OnEvent | None) -> None:
        """Train until `train` returns, and send the parent how it ended."""
        try:
            overhead_s = self._train(payload, on_event)
        except BaseException as error:  # Raised again by the parent.
            place = "a worker" if self._trials is None else self._trials.place
            self.tell(pickling.pack_error(place, error))
        else:
            self.tell(pickling.Done(overhead_s))

    def tell(self, message: object) -> None:
        """Send a message, unless the parent has closed its end."""
        with self._lock, contextlib.suppress(OSError):
            self._messages.send(message)

    def tell_event(self, event: Event) -> None:
        """Send an event, except "finished", which the parent notices itself."""
        if event.kind != "finished":
            self.tell(event)

    def _train(self, payload: bytes, on_event: OnEvent | None) -> float:
        """Train until `train` returns; return the workers' `overhead_s`."""
        sent, packed = pickle.loads(payload)
        received = settings.Received(sent)
        received.put_early()  # Before unpickling any of the parts.
        parts: dict[str, Any] = pickle.loads(packed)
        received.put(lambda names: self.tell(pickling.NotInForce(tuple(names))))
        train, on_error = parts.pop("train"), parts.pop("on_error")
        liveness.join_siblings(parts.pop("siblings"))
        statuses = parts.pop("statuses")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The parent has warned already.
            controller = PopulationController(**parts, on_event=on_event)
        with contextlib.closing(controller):
            # Whoever stops the run stops this process, too, if it begins after that.
            controller.open_run.session.statuses = statuses
            self._controller = controller
            self.tell(pickling.Joined(controller.open_run.holder.owner))

            def begin(worker: Worker) -> None:
                self.tell(pickling.Began())
                train(worker)

            rest = controller, self._stopped, on_error, self.tell
            self._trials = own = trials.Trials(begin, *rest)
            own.run()
            return own.overhead_s
