"""The lock of an open run, and the calls to make once it is free.

A callback of the user, or the removal of files, must not run while threads wait for
the lock. Take it with `with run.lock.lock:`. That is C code, so that no Ctrl-C comes
between the acquisition and the registration of the release.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class RunLock:
    """A re-entrant lock with a condition, and calls to make when it is free.

    Attributes:
        lock: The lock.
        changed: The condition that is notified when the run has changed.
        pending: The calls to make when the lock is free; append while you hold it.
    """

    def __init__(self) -> None:
        self.lock: Any = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.pending: list[Callable[[], object]] = []

    def drain(self) -> None:
        """Make the pending calls, unless this thread still holds the lock."""
        while self.pending and not self.lock._is_owned():
            try:
                call = self.pending.pop(0)
            except IndexError:
                return  # Another thread has taken the last call.
            call()
