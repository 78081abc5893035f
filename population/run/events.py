"""Tells a user's `on_event` what has happened, once it is recorded and nobody waits."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable

from population.base.types import Event, Report
from population.core.slot import Slot
from population.run.lock import Door

logger = logging.getLogger("population")
OnEvent = Callable[[Event], object]


class Events:
    """Collects the events of a transaction, and tells them after it.

    Args:
        on_event: Whom to tell; None: nobody.
        door: Events are told when it has been left.

    Attributes:
        on_event: The same.
    """

    def __init__(self, on_event: OnEvent | None, door: Door) -> None:
        self.on_event = on_event
        self._door = door
        self._events: list[Event] = []
        self._finished = False

    def reported(self, reports: Iterable[Report | None]) -> None:
        """Reports were recorded that say something about a slot."""
        if self.on_event is None:
            return
        for report in reports:
            if report is not None:
                self._events.append(Event("report", *report))
                if report.checkpoint.diverged:
                    self._events.append(Event("diverged", *report))

    def branched(self, slots: Iterable[Slot]) -> None:
        """The mutator has given these slots other work."""
        for slot in slots if self.on_event is not None else ():
            worker_id = slot.generation.worker_id
            self._events.append(Event("branch", worker_id, slot.newest))

    def claimed(self, slot: Slot, *, taken_over: bool) -> None:
        """A worker of this process has claimed a slot."""
        if self.on_event is not None:
            kind = "takeover" if taken_over else "claim"
            self._events.append(Event(kind, slot.generation.worker_id, slot.newest))

    def finished(self) -> None:
        """The run has ended; told once."""
        if self.on_event is not None and not self._finished:
            self._finished = True
            self._events.append(Event("finished", -1, None))
            self.tell()

    def tell(self) -> None:
        """What was collected is recorded now."""
        if self._events:
            events, self._events = self._events, []
            self._door.later(functools.partial(self._call, events))

    def forget(self) -> None:
        """What was collected was rolled back."""
        self._events = []

    def emit(self, event: Event) -> None:
        """Tell of something that happened in another process."""
        self._call([event])

    def _call(self, events: Iterable[Event]) -> None:
        for event in events:
            if self.on_event is None:
                return
            try:
                self.on_event(event)
            except Exception:  # The user's; training must not suffer from it.
                logger.exception("on_event raised at %s", event.kind)
