"""Behaviour that must not change by accident: what 300 scripts record.

`python -m tests.golden.record` has recorded the journals; it says when this may
be done again.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from tests.golden import recording
from tests.golden.scripts import play
from tests.golden.tables import Tables

_CHUNK = 30
_LONGEST_S = 30.0  # A script takes a tenth of a second.


@functools.cache
def recorded() -> dict[int, Tables]:
    """All recorded journals."""
    return recording.load()


@contextlib.contextmanager
def no_longer_than(seconds: float, seed: int) -> Iterator[None]:
    """A script that waits for ever is a failure that names it."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"script {seed} did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("first", range(0, recording.SCRIPTS, _CHUNK))
def test_scripts_leave_the_journals_that_they_always_left(
    first: int, tmp_path: pathlib.Path
) -> None:
    """Every call answers as before, and every row is the same."""
    failures = []
    for seed in range(first, first + _CHUNK):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with no_longer_than(_LONGEST_S, seed):
            now = play(seed, folder)
        text = recording.difference(recorded()[seed], now)
        if text:
            failures.append(f"script {seed}\n{text}")
    assert not failures, "\n".join(
        [f"{len(failures)} of {_CHUNK} scripts differ", *failures[:3]]
    )


def test_every_script_is_recorded() -> None:
    """No script is left out of the comparison, and no script has a lost slot."""
    assert set(recorded()) == set(range(recording.SCRIPTS))
    for tables in recorded().values():
        assert tables["calls"]
        assert not tables.get("losses")


def test_a_difference_is_named_by_table_and_row() -> None:
    """The failure shows the first call and the first row that changed."""
    before: Tables = {
        "calls": [["poll", None, None, ""], ["set_eval", [0], None, "a"]],
        "best": [[3, 2, 1], [5, 4, 2]],
        "losses": [[1]],
    }
    after: Tables = {
        "calls": [["poll", None, None, ""], ["set_eval", [0], None, "b"]],
        "best": [[3, 2, 1.0]],
        "another": [],
    }
    assert recording.difference(before, {**before, "another": []}) == ""
    text = recording.difference(before, after)
    assert text.startswith('  calls 1:\n    was ["set_eval", [0], null, "a"]')
    assert "best 0:\n    was [3, 2, 1]\n    is  [3, 2, 1.0]" in text
    assert "best 1:\n    was [5, 4, 2]\n    is  no such row" in text
    assert "losses" not in text
    assert "best: the table is missing" in recording.difference(before, {"calls": []})
