"""Several loggers as one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from population.base.types import Event
from population.report.loggers.base import EventLogger


def combined(*loggers: Callable[[Event], object]) -> EventLogger:
    """Return a logger that passes each event to all of these, in order.

    If one raises an exception, the others still get the event.

    Args:
        *loggers: Loggers, or other functions of an event. `close` closes the loggers.

    Raises:
        TypeError: One of them cannot be called.
    """
    for logger in loggers:
        if not callable(logger):
            raise TypeError(
                "combined needs loggers or functions of an event, got "
                f"{type(logger).__name__}."
            )
    return CombinedLogger(loggers)


class CombinedLogger(EventLogger):
    """Passes each event to several loggers.

    Args:
        loggers: The loggers, or other functions of an event.
    """

    def __init__(self, loggers: tuple[Callable[[Event], object], ...]) -> None:
        self._loggers = loggers

    def __call__(self, event: Event) -> None:
        """Pass the event on; raise the last exception once all have had it."""
        with contextlib.ExitStack() as stack:
            for logger in reversed(self._loggers):
                stack.callback(logger, event)

    def close(self) -> None:
        """Close those that can be closed."""
        with contextlib.ExitStack() as stack:
            for logger in reversed(self._loggers):
                if isinstance(logger, EventLogger):
                    stack.callback(logger.close)
