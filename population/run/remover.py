"""Removes params from their store in a thread, once what replaces them is synced."""

from __future__ import annotations

import collections
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import NamedTuple

from population.base.interfaces import ParamsStore

logger = logging.getLogger("population")
THREAD = "population-remover"
EVERY_S = 1.0  # The shortest time between two looks for saves to remove.
LATE_S = 5.0  # A save waits for removals that are older: else the disk could fill up.
_LOOK_S = 1.0
Jobs = collections.deque[tuple[float, Callable[[], object]]]
Wakes = queue.SimpleQueue[Callable[[], object] | None]


class _Thread(NamedTuple):
    """A thread that makes removals, and the queue that wakes it.

    Attributes:
        thread: The thread.
        wakes: A function in it wakes the thread, which removes all and then calls it.
            None ends the thread.
    """

    thread: threading.Thread
    wakes: Wakes


class Remover:
    """Makes one removal after the other in a thread, which the first one starts.

    At its end the program waits for the removals that are left. If it is killed, a
    later session makes them. An exception of a store is logged.

    A Ctrl-C may come at any line of `put` and `wait`. So nothing is counted: a removal
    stays in one queue until it is made, a single C call changes each queue, and a
    second thread does no harm if it is not known whether the first has started.
    """

    def __init__(self) -> None:
        self._jobs: Jobs = collections.deque()  # The first one is being made.
        self._turn = threading.Lock()  # Of the thread that makes removals.
        self._threads: list[_Thread] = []
        self._stop = weakref.finalize(self, _end, self._threads)

    def put(self, removal: Callable[[], object]) -> None:
        """Queue a removal for the thread."""
        self._jobs.append((time.monotonic(), removal))
        try:
            self._begun().wakes.put(_nothing)
        except RuntimeError as error:  # No further thread: the report itself is done.
            logger.warning("what nothing needs is removed later: %s", error)

    def wait(self) -> None:
        """Wait until everything is removed."""
        while self._jobs:
            done = threading.Event()
            try:
                self._begun().wakes.put(done.set)
            except RuntimeError:  # No further thread: this one makes them.
                return _make(self._jobs, self._turn)
            if done.wait(_LOOK_S):
                return None
        return None

    def wait_if_late(self) -> None:
        """Wait until everything is removed if the thread is far behind."""
        for since, _ in self._jobs.copy():
            if time.monotonic() - since > LATE_S:
                self.wait()
            return

    def close(self) -> None:
        """Remove what is left, and end the thread."""
        self._stop()

    def _begun(self) -> _Thread:
        """Return a thread that is alive; start one if there is none."""
        if self._threads and self._threads[-1].thread.is_alive():
            return self._threads[-1]
        wakes: Wakes = queue.SimpleQueue()
        thread = threading.Thread(
            target=_work,
            args=(self._jobs, self._turn, wakes),
            name=THREAD,
            daemon=True,
        )
        found = _Thread(thread, wakes)
        self._threads.append(found)  # Before it starts, so that `_end` will end it.
        if not self._stop.alive:
            self._stop = weakref.finalize(self, _end, self._threads)
        thread.start()
        return found


def remove(store: ParamsStore, paths: Iterable[str]) -> bool:
    """Remove paths in this thread; return whether the store has raised nothing."""
    is_done = True
    for path in paths:
        try:
            store.remove(path)
        except Exception:  # The store may be the user's; training must continue.
            logger.exception("params could not be removed")
            is_done = False
    return is_done


def _make(jobs: Jobs, turn: threading.Lock) -> None:
    """Make all removals that wait."""
    with turn:
        while jobs:
            try:
                jobs[0][1]()  # No variable may keep it, and what it refers to.
            except Exception:
                logger.exception("params could not be removed")
            finally:
                jobs.popleft()


def _work(jobs: Jobs, turn: threading.Lock, wakes: Wakes) -> None:
    while True:
        done = wakes.get()
        _make(jobs, turn)
        if done is None:
            return
        done()


def _end(threads: list[_Thread]) -> None:
    while threads:
        thread, wakes = threads[-1]
        wakes.put(None)
        if thread.is_alive() and thread is not threading.current_thread():
            thread.join()
        threads.pop()


def _nothing() -> None:
    """Do nothing: the item in the queue alone wakes the thread."""
