"""Tells a user's `on_event` what has happened, once it is recorded."""

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

    The events of one transaction come in their order. Threads that report at the same
    time call it at the same time, each with its own events.

    Args:
        on_event: Is called; None: there is no callback.
        lock: The run's lock.

    Attributes:
        on_event: The callback, or None.
    """

    def __init__(self, on_event: OnEvent | None, lock: RunLock) -> None:
        self.on_event = on_event
        self._lock = lock
        self._finished = False

    def tell(self, events: Iterable[Event]) -> None:
        """These have happened, and are recorded: call `on_event` once it may be."""
        if self.on_event is not None:
            self._lock.pending.append(functools.partial(self.emit, *events))

    def finished(self) -> None:
        """Tell once that the run has ended."""
        if not self._finished:
            self._finished = True
            self.tell([Event("finished", -1, None)])

    def emit(self, *events: Event) -> None:
        """Tell now, in this thread: of what happened in another process, say."""
        for event in events:
            if self.on_event is None:
                return
            try:
                self.on_event(event)
            except Exception:  # The user's; training must not suffer from it.
                logger.exception("on_event raised at %s", event.kind)
