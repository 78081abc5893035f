"""A process of a population as its parent sees it: start, messages, end."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from multiprocessing import resource_tracker
from typing import Any

from population.engines.processes import child, pickling


class ChildProcess:
    """One process of a population, seen by the one that starts it.

    Args:
        name: Of the process.
        tells_events: Whether it is to tell what happens.

    Attributes:
        process: The process.
        news: Brings its messages.
        ended: Whether it has ended and all its messages were read.
        told: Whether it reported how it ended.
    """

    def __init__(self, name: str, tells_events: bool) -> None:
        context = multiprocessing.get_context("spawn")
        orders, self._orders = context.Pipe(duplex=False)
        self.news, news = context.Pipe(duplex=False)
        self._theirs = (orders, news)
        self._lock = threading.Lock()
        self.process = context.Process(
            target=child.main, args=(orders, news, tells_events), name=name
        )
        self.ended = False
        self.told = False

    def start(self, environment: Mapping[str, str]) -> None:
        """Start it; whatever it imports finds this environment."""
        try:
            with _set(environment), _interrupts_blocked():
                self.process.start()
        finally:
            for end in self._theirs:
                end.close()  # So that theirs are the only ones.

    def begin(self, payload: bytes) -> None:
        """Have it train."""
        with contextlib.suppress(OSError):  # It died; that is seen soon enough.
            self._orders.send_bytes(payload)

    def stop(self) -> None:
        """Have it stop at its next step."""
        with self._lock:
            self._orders.close()

    def signs(self) -> list[Any]:
        """What to wait for: its messages, or after the last its exit."""
        return [self.process.sentinel, *([] if self.news.closed else [self.news])]

    def listen(self) -> Iterator[object]:
        """Its new messages; then see whether it has ended."""
        exited = self.process.exitcode is not None  # Before: its last words are there.
        try:
            while not self.news.closed and self.news.poll():
                message = self.news.recv()
                self.told |= isinstance(message, (pickling.Done, pickling.Failed))
                yield message
        except (EOFError, OSError):  # It has ended, perhaps in the middle of a word.
            self.news.close()
        self.ended = exited

    def how_it_ended(self) -> str:
        """How it ended, in words, if it sent no message about that."""
        exitcode = self.process.exitcode
        if exitcode is None or exitcode >= 0:
            return f"ended with exit code {exitcode}"
        known = {number.value: number.name for number in signal.Signals}
        return f"was killed by {known.get(-exitcode, f'signal {-exitcode}')}"

    def __str__(self) -> str:
        return f"process {self.process.name} (pid {self.process.pid})"


@contextlib.contextmanager
def _set(environment: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for what is started within."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Have a process that is started within not hear Ctrl-C until it can ignore it."""
    resource_tracker.ensure_running()  # Else its start would lift the block.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
