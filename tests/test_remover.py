"""Params are removed in a thread, whatever interrupts the thread that asks for it."""

from __future__ import annotations

import functools
import logging
import pathlib
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from population import PopulationController, Worker
from population.params import MemoryParams
from population.run import remover
from population.run.remover import Remover
from tests.helpers import Scripted

SECONDS = 3  # Much longer than anything here waits.


class Noting(MemoryParams):
    """A store that notes what it removed."""

    def __init__(self) -> None:
        super().__init__()
        self.removed: list[str] = []

    def remove(self, path: str) -> None:
        """Note the path."""
        self.removed.append(path)


def removal(store: Noting, path: str) -> Callable[[], object]:
    """Return a removal of a path."""
    return functools.partial(remover.remove, store, [path])


def in_time(call: Any) -> bool:
    """Whether a call returns."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return not thread.is_alive()


def interrupted(call: Any, count: int) -> tuple[bool, bool]:
    """Call, with a Ctrl-C at one of the lines.

    Args:
        call: The call.
        count: The line, counted from 1 in the order of execution.

    Returns:
        Whether the call had so many lines, and whether it came to its end.
    """
    lines = 0

    def trace(frame: types.FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != remover.__file__:
            return None
        if event == "line":
            lines += 1
            if lines == count:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True, False
    finally:
        sys.settrace(before)
    return lines >= count, True


def check_after(tested: Remover, store: Noting) -> None:
    """Later removals, `wait` and `close` return; nothing is removed twice."""
    assert in_time(functools.partial(tested.put, removal(store, "after")))
    assert in_time(tested.wait)
    assert "after" in store.removed
    tested.put(removal(store, "last"))
    assert in_time(tested.close)
    assert store.removed[-1] == "last"
    assert len(store.removed) == len(set(store.removed))


@pytest.mark.parametrize("is_first", [True, False])
def test_an_interrupt_at_any_line_of_put_lets_the_rest_be_removed(
    is_first: bool,
) -> None:
    """What `put` has accepted is removed."""
    count, found = 0, True
    while found:
        count += 1
        tested, store = Remover(), Noting()
        if not is_first:
            tested.put(removal(store, "before"))
            tested.wait()
        put = functools.partial(tested.put, removal(store, "at"))
        found, accepted = interrupted(put, count)
        check_after(tested, store)
        assert not accepted or "at" in store.removed
    assert count > 5


@pytest.mark.parametrize("begins", ["never", "at once", "later"])
def test_an_interrupt_while_the_thread_begins_lets_the_rest_be_removed(
    begins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell then whether there is a thread: two of them do no harm."""
    tested, store = Remover(), Noting()
    start, late = threading.Thread.start, list[threading.Thread]()

    def interrupted_start(thread: threading.Thread) -> None:
        if begins == "at once":
            start(thread)
        late.append(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted_start)
        with pytest.raises(KeyboardInterrupt):
            tested.put(removal(store, "at"))
    if begins == "later":
        tested.put(removal(store, "between"))
        start(late[0])
    check_after(tested, store)


def test_an_interrupt_at_any_line_of_wait_lets_the_rest_be_removed() -> None:
    """Nothing is removed twice, and `close` returns."""
    count, found = 0, True
    while found:
        count += 1
        tested, store = Remover(), Noting()
        tested.put(removal(store, "before"))
        found, _ = interrupted(tested.wait, count)
        tested.put(removal(store, "after"))
        assert in_time(tested.close)
        assert store.removed == ["before", "after"]


def test_a_remover_that_was_closed_begins_again() -> None:
    """A thread that still reports after the end of a run can remove its save."""
    tested, store = Remover(), Noting()
    for path in "ab":
        tested.put(removal(store, path))
        tested.close()
        tested.close()
        assert not [t for t in threading.enumerate() if t.name == remover.THREAD]
    assert store.removed == ["a", "b"]


def test_a_store_that_raises_stops_no_removal(caplog: pytest.LogCaptureFixture) -> None:
    """The exception is logged."""

    class Broken(Noting):
        def remove(self, path: str) -> None:
            super().remove(path)
            raise OSError("no disk")

    tested, store = Remover(), Broken()
    for path in "abc":
        tested.put(removal(store, path))
    tested.close()
    assert store.removed == ["a", "b", "c"]
    assert caplog.text.count("could not be removed") == 3


def test_an_interrupted_training_can_be_closed(tmp_path: pathlib.Path) -> None:
    """The first save that removes another is interrupted; then training continues."""

    def train(worker: Worker, reports: int) -> None:
        for _ in range(reports):
            worker.step += 1
            worker.report(float(worker.step), {"w": np.ones(3)})

    controller = PopulationController([1.0], Scripted(), tmp_path)
    worker = controller.worker(0)
    worker.poll()
    interrupted(lambda: train(worker, 10), 20)
    train(worker, 20)
    worker.release()
    assert in_time(controller.close)


def test_without_a_further_thread_a_report_is_done(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The system may have no more threads: removals then wait for one."""
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == remover.THREAD:
            raise RuntimeError("can't start new thread")
        real(thread)

    made: list[int] = []
    removals = Remover()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with caplog.at_level(logging.WARNING, "population"):
            removals.put(lambda: made.append(1))
        assert "is removed later: can't start new thread" in caplog.text
        assert made == []
        removals.wait()
        assert made == [1]
        removals.put(lambda: made.append(2))
    removals.put(lambda: made.append(3))
    removals.wait()
    assert made == [1, 2, 3]
    removals.close()
