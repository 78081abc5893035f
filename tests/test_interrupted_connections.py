"""Ctrl-C at any line of a connection leaves no lock."""

from __future__ import annotations

import functools
import gc
import linecache
import os
import pathlib
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from population import PopulationController
from population.journal import sqlite_open
from population.mutators import FixedSchedule
from tests.helpers import reporter

ROOM = os.path.dirname(sqlite_open.__file__)


def opened(log_dir: pathlib.Path) -> PopulationController:
    """A run of one worker."""
    return PopulationController([1.0], FixedSchedule({0: 1.0}), log_dir)


def interrupted(call: Callable[[], object], count: int) -> bool:
    """Whether a call had so many lines in `population.journal`; Ctrl-C at the last."""
    lines = 0
    entered: set[tuple[int, int]] = set()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(ROOM):
            return None
        if event == "line" and not leaves_a_block(frame):
            lines += 1
            if lines == count:
                raise KeyboardInterrupt
        return trace

    def leaves_a_block(frame: FrameType) -> bool:
        """At the end of `with` its line comes again; no signal is handled there."""
        file, number = frame.f_code.co_filename, frame.f_lineno
        if not linecache.getline(file, number).lstrip().startswith("with "):
            return False
        again = (id(frame), number) in entered
        entered.add((id(frame), number))
        return again

    before = sys.gettrace()
    gc.disable()  # Else an earlier run might be closed in the middle of this call.
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
        gc.enable()
    return lines >= count


# Python itself drops and prints an exception in a finalizer.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
# An opening has hundreds of lines, and each takes long.
@pytest.mark.parametrize(
    ("what", "stride"), [("opening", 7), ("reporting", 1), ("closing", 1)]
)
def test_an_interrupt_at_any_line_leaves_no_lock_behind(
    what: str, stride: int, tmp_path: pathlib.Path
) -> None:
    """The next opening of the run, in this thread, neither hangs nor fails."""
    count, found = 0, True
    while found:
        count += stride
        log_dir = tmp_path / str(count)
        controller = opened(log_dir)
        if what == "opening":
            controller.close()
            call: Callable[[], object] = functools.partial(opened, log_dir)
        elif what == "reporting":
            call = functools.partial(reporter(controller), 1.0)
        else:
            call = controller.close
        found = interrupted(call, count)
        assert not sqlite_open._GUARD._is_owned()  # Other threads would hang.
        del call, controller
        other = opened(log_dir)
        step = other.workers[0].step
        reporter(other)(1.0)
        assert other.workers[0].step == step + 1
        other.close()
    assert count > 10
