"""The parent's handle of a process of a population: start, messages, end."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from multiprocessing import resource_tracker
from typing import Any

from population.core.owners import Owner
from population.engines.processes import child, pickling


class ChildProcess:
    """The parent's handle of one process of a population.

    Args:
        name: The name of the process.
        environment: The environment variables to start it with.
        tells_events: Whether it sends events.

    Attributes:
        process: The process.
        environment: Its environment variables.
        messages: The pipe with its messages.
        owner: A holder of leases in it, once it has opened the run; else None.
        began: Whether it has had a slot.
        ended: Whether it has ended and all its messages were read.
        has_answered: Whether it has sent how it ended.
    """

    def __init__(
        self, name: str, environment: Mapping[str, str], tells_events: bool
    ) -> None:
        context = multiprocessing.get_context("spawn")
        orders, self._orders = context.Pipe(duplex=False)
        self.messages, messages = context.Pipe(duplex=False)
        self._theirs = (orders, messages)
        self._lock = threading.Lock()
        self.process = context.Process(
            target=child.main, args=(orders, messages, tells_events), name=name
        )
        self.environment = environment
        self.owner: Owner | None = None
        self.began = False
        self.ended = False
        self.has_answered = False
        self._is_sending = self._must_stop = False

    def start(self) -> None:
        """Start the process."""
        try:
            with _set(self.environment), _interrupts_blocked():
                self.process.start()
        finally:
            for end in self._theirs:
                end.close()  # So that only the child has these ends.

    def begin(self, payload: bytes) -> None:
        """Send the order to train."""
        try:
            with self._lock:
                self._is_sending = not self._must_stop
            with contextlib.suppress(OSError):  # It died: `listen` will notice.
                self._orders.send_bytes(payload)
        finally:
            with self._lock:
                self._is_sending = False
                if self._must_stop:
                    self._orders.close()

    def stop(self) -> None:
        """Stop its training at the next step."""
        with self._lock:
            self._must_stop = True
            if not self._is_sending:  # Another thread must not write to a closed pipe.
                self._orders.close()

    def signs(self) -> list[Any]:
        """Return the objects to wait for: its messages, and its exit."""
        return [
            self.process.sentinel,
            *([] if self.messages.closed else [self.messages]),
        ]

    def listen(self) -> Iterator[object]:
        """Yield its new messages; then set `ended` if it has exited."""
        exited = self.process.exitcode is not None  # First: then all messages are read.
        try:
            while not self.messages.closed and self.messages.poll():
                message = self.messages.recv()
                self.has_answered |= isinstance(
                    message, (pickling.Done, pickling.Failed)
                )
                self.began |= isinstance(message, pickling.Began)
                if isinstance(message, pickling.Joined):
                    self.owner = message.owner
                yield message
        except (EOFError, OSError):  # It has ended, perhaps within a message.
            self.messages.close()
        self.ended = exited

    def how_it_ended(self) -> str:
        """Describe how a process ended that sent no message about it."""
        exitcode = self.process.exitcode
        if exitcode is None or exitcode >= 0:
            return f"ended with exit code {exitcode}"
        known = {number.value: number.name for number in signal.Signals}
        return f"was killed by {known.get(-exitcode, f'signal {-exitcode}')}"

    def __str__(self) -> str:
        return f"process {self.process.name} (pid {self.process.pid})"


@contextlib.contextmanager
def _set(environment: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for processes that are started within."""
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
    """Block Ctrl-C in a process that is started within, until it ignores it itself."""
    resource_tracker.ensure_running()  # Else its start would lift the block.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
