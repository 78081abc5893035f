"""The lock of an open run, and what is to be done once it is free.

A callback of the user, or the removal of files, must not run while threads wait for
the lock. It is taken as `with run.lock.lock:`, in C, so that no Ctrl-C comes between
taking it and knowing that it is to be given back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class RunLock:
    """A re-entrant lock, at which threads can wait until something has changed.

    Attributes:
        lock: The lock.
        changed: Is notified when something has changed; can be waited for.
        pending: What is to be done when the lock is free; added to while it is held.
    """

    def __init__(self) -> None:
        self.lock: Any = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.pending: list[Callable[[], object]] = []

    def drain(self) -> None:
        """Do what is to be done, unless this thread still holds the lock."""
        while self.pending and not self.lock._is_owned():
            try:
                call = self.pending.pop(0)
            except IndexError:
                return  # Another thread was quicker.
            call()
