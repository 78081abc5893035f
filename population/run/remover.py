"""Removes params from their store beside the training: that can take long."""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from collections.abc import Callable

from population.base.interfaces import ParamsStore

logger = logging.getLogger("population")
THREAD = "population-remover"
Paths = queue.Queue[tuple[ParamsStore, str] | None]


class Remover:
    """A thread that removes one path after the other; begun with the first one.

    Whatever the program does, its end waits for what is left. If it is killed, a later
    session removes that. What a store raises is logged.
    """

    def __init__(self) -> None:
        self._paths: Paths = queue.Queue()
        self._stop: Callable[[], object] | None = None

    def put(self, store: ParamsStore, path: str) -> None:
        """Have a path removed soon."""
        if self._stop is None:
            thread = threading.Thread(
                target=_work,
                args=(self._paths,),
                name=THREAD,
                daemon=True,
            )
            thread.start()
            self._stop = weakref.finalize(self, _end, self._paths, thread)
        self._paths.put((store, path))

    def wait(self) -> None:
        """Wait until everything is removed."""
        if self._stop is not None:
            self._paths.join()

    def close(self) -> None:
        """Remove what is left, and end the thread."""
        if self._stop is not None:
            self._stop()
            self._stop = None


def remove(store: ParamsStore, path: str) -> None:
    """Remove a path in this thread."""
    try:
        store.remove(path)
    except Exception:  # The store may be the user's; training must go on.
        logger.exception("params could not be removed")


def _work(paths: Paths) -> None:
    while True:
        found = paths.get()
        try:
            if found is None:
                return
            remove(*found)
        finally:
            del found
            paths.task_done()


def _end(paths: Paths, thread: threading.Thread) -> None:
    paths.put(None)
    thread.join()
