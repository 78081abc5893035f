"""A lock that knows what is to be done once it has been left.

A user's callback, or the removal of files, must not run while others wait for the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Door:
    """A re-entrant lock and a condition: `with door:`, `door.wait()`.

    Attributes:
        lock: The plain lock, for those who leave nothing to be done.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._news = threading.Condition(self.lock)
        self._depth = 0
        self._later: list[Callable[[], object]] = []

    def __enter__(self) -> Door:
        self.lock.acquire()
        self._depth += 1
        return self

    def __exit__(self, *exc: object) -> None:
        self._depth -= 1
        if self._depth or not self._later:
            self.lock.release()
            return
        due, self._later = self._later, []
        self.lock.release()
        for call in due:
            call()

    def later(self, call: Callable[[], object]) -> None:
        """Have something done as soon as nobody in this thread is inside any more."""
        self._later.append(call)

    def wait(self, timeout_s: float) -> None:
        """Let others in until there are news, or for so long."""
        depth, self._depth = self._depth, 0
        try:
            self._news.wait(timeout_s)
        finally:
            self._depth = depth

    def notify_all(self) -> None:
        """Wake all that wait."""
        self._news.notify_all()
