"""Handles Ctrl-C while a stacked population trains."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from typing import Any

logger = logging.getLogger("population")


@contextlib.contextmanager
def stop_at_first() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C sets; a second raises KeyboardInterrupt."""
    stop, before = threading.Event(), signal.getsignal(signal.SIGINT)
    is_handled = before is not None and before is not signal.SIG_IGN  # By Python.
    if not is_handled or threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def interrupted(number: int, frame: Any) -> None:
        del number, frame
        if stop.is_set():
            signal.signal(signal.SIGINT, before)
            signal.raise_signal(signal.SIGINT)
        logger.warning("interrupted: the population stops after this round")
        stop.set()

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
