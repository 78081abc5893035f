"""Calls the user's `on_event` with the events that are recorded."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable

from population.base.types import Event
from population.run.lock import RunLock

logger = logging.getLogger("population")
OnEvent = Callable[[Event], object]


class Events:
    """Calls `on_event` with events when the lock is free.

    The events of one transaction are passed in order. Threads that report at the same
    time call it at the same time, each with the events of its own transaction.

    Args:
        on_event: The user's callback, or None.
        lock: The run's lock.

    Attributes:
        on_event: The callback, or None.
    """

    def __init__(self, on_event: OnEvent | None, lock: RunLock) -> None:
        self.on_event = on_event
        self._lock = lock
        self._finished = False

    def tell(self, events: Iterable[Event]) -> None:
        """Call `on_event` with these recorded events once the lock is free."""
        if self.on_event is not None:
            self._lock.pending.append(functools.partial(self.emit, *events))

    def finished(self) -> None:
        """Call `on_event`, once, with the event that the run has ended."""
        if not self._finished:
            self._finished = True
            self.tell([Event("finished", -1, None)])

    def emit(self, *events: Event) -> None:
        """Call `on_event` now, in this thread, for example with another process's."""
        for event in events:
            if self.on_event is None:
                return
            try:
                self.on_event(event)
            except Exception:  # The user's callback must not stop the training.
                logger.exception("on_event raised at %s", event.kind)
