"""A journal's log is merged into its file, even while others read."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import threading
from collections.abc import Iterator

import pytest

import population
from population import PopulationController
from population.mutators import FixedSchedule
from tests import probe
from tests.helpers import generation

MANY = 200  # Reports of 50 kB: more than twice the length at which a log is merged.


class Time:
    """A clock that moves only when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """The time."""
        return self.now


def opened(log_dir: pathlib.Path) -> PopulationController:
    """A run of one worker."""
    return PopulationController([1.0], FixedSchedule({0: 1.0}), log_dir)


def report(controller: PopulationController, count: int = MANY) -> None:
    """Report long params."""
    name, step = generation(controller), controller.workers[0].step
    for number in range(step + 1, step + 1 + count):
        controller.set_eval(0, name, number, "x" * 50_000, 1.0)


def length(log_dir: pathlib.Path) -> int:
    """Bytes of the log."""
    return (log_dir / "journal.sqlite-wal").stat().st_size


@contextlib.contextmanager
def reader(log_dir: pathlib.Path) -> Iterator[None]:
    """Another program that reads in one long transaction."""
    person = sqlite3.connect(log_dir / "journal.sqlite", isolation_level=None)
    person.execute("BEGIN")
    person.execute("SELECT count(*) FROM checkpoints").fetchone()
    yield
    person.execute("ROLLBACK")
    person.close()


def test_a_log_that_nobody_reads_stays_short(tmp_path: pathlib.Path) -> None:
    """It is restarted once it has four megabytes."""
    controller = opened(tmp_path)
    report(controller)
    probe.wait_for_merge(controller)
    assert length(tmp_path) < 8_000_000
    controller.close()


def test_no_report_waits_for_a_merge(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread merges the log, as that waits for the disk; the end waits."""
    controller, threads = opened(tmp_path), set[int]()
    merges = probe.merges(monkeypatch, lambda: threads.add(threading.get_ident()))
    report(controller)
    controller.close()
    assert merges
    assert threading.get_ident() not in threads
    assert not (tmp_path / "journal.sqlite-wal").exists()


def test_merging_is_not_tried_at_each_turn_while_a_reader_is_in_the_way(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt syncs: one a second, and none waits with the write lock."""
    controller, time = opened(tmp_path), Time()
    probe.merge_by(monkeypatch, time)
    tries = probe.merges(monkeypatch)
    with reader(tmp_path):
        for second in range(1, 4):
            time.now = 2.0 * second
            report(controller)
            probe.wait_for_merge(controller)
            assert tries == ["PRAGMA wal_checkpoint(PASSIVE)"] * second
        assert length(tmp_path) > 20_000_000
    time.now = 100.0
    report(controller)
    probe.wait_for_merge(controller)
    assert length(tmp_path) < 8_000_000
    assert 2 <= len(tries[3:]) <= 6
    controller.close()


def test_a_replay_does_not_hold_up_the_log_of_a_run_that_goes_on(
    tmp_path: pathlib.Path,
) -> None:
    """It reads page by page, however long the mutator takes."""
    controller = opened(tmp_path)
    report(controller, 5)

    class Meanwhile(FixedSchedule):
        def update(self, state, report_, view):  # type: ignore[no-untyped-def]
            if report_.checkpoint.step == 3:
                report(controller)
            return super().update(state, report_, view)

    found = population.replay(tmp_path, Meanwhile({0: 1.0}))
    assert found.updates == 5
    probe.wait_for_merge(controller)
    assert length(tmp_path) < 8_000_000
    assert controller.workers[0].step == 5 + MANY
    controller.close()
