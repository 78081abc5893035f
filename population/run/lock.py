"""The lock of a session, and what is to be done once it has been left.

A user's callback, or the removal of files, must not run while others wait for the lock.
It is taken as `with door.lock:`, in C, so that no Ctrl-C comes between taking it and
knowing that it is to be given back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Door:
    """A re-entrant lock that one can wait behind for news.

    Attributes:
        lock: The lock.
    """

    def __init__(self) -> None:
        self.lock: Any = threading.RLock()
        self._news = threading.Condition(self.lock)
        self._later: list[Callable[[], object]] = []

    def later(self, call: Callable[[], object]) -> None:
        """Have something done when the lock has been left; called by who holds it."""
        self._later.append(call)

    def drain(self) -> None:
        """Do what is to be done, unless this thread still holds the lock."""
        while self._later and not self.lock._is_owned():
            try:
                call = self._later.pop(0)
            except IndexError:
                return  # Another thread was quicker.
            call()

    def wait(self, timeout_s: float) -> None:
        """Let others in until there are news, or for so long."""
        self._news.wait(timeout_s)

    def notify_all(self) -> None:
        """Wake all that wait."""
        self._news.notify_all()
