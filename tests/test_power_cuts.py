"""What a power cut leaves of a run, at many moments of it and with every fate of data.

A run of three members is recorded: its saves, branches, removals, merges of the log and
two sessions. For each cut a disk is made that holds what the cut may have left, and the
run is opened there and trained further.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import random
import shutil
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from population.journal import sqlite_schema
from tests.helpers import missing
from tests.power_cut import child, disk, judging, record
from tests.power_cut.record import Event

REPORTS = 60
CUTS = {"power": 25, "process": 25}
SOAK = 1000
LOOKS = 20


class Cut(NamedTuple):
    """A run that was cut off.

    Attributes:
        log_dir: What is left of the run folder.
        moment: How many events the disk was told.
        begun: The reports that had begun.
        acknowledged: How many of them had returned.
        what: The cut, for messages.
    """

    log_dir: pathlib.Path
    moment: int
    begun: list[judging.Told]
    acknowledged: int
    what: str


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The compiled recorder."""
    found = record.compiled(tmp_path_factory.mktemp("recorder"))
    if found is None:
        missing("Linux with a C compiler (cc)")
    return found


class Runs:
    """The records of a run with each durability; each is made once.

    Args:
        folder: The place of the runs.
        recorder: The compiled recorder.
    """

    def __init__(self, folder: pathlib.Path, recorder: pathlib.Path) -> None:
        self._folder = folder
        self._recorder = recorder
        self._known: dict[str, list[Event]] = {}

    def folder(self, durability: str) -> pathlib.Path:
        """The recorded folder, as it is at the end."""
        return self._folder / durability

    def record(self, durability: str) -> list[Event]:
        """The record of a run."""
        if durability not in self._known:
            folder = self.folder(durability)
            folder.mkdir()
            command = child.command(folder, durability, REPORTS, self._recorder)
            found = record.recorded(command, folder, self._recorder)
            self._known[durability] = found
        return self._known[durability]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, recorder: pathlib.Path) -> Runs:
    """The recorded runs."""
    return Runs(tmp_path_factory.mktemp("runs"), recorder)


@pytest.fixture(autouse=True)
def no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts power while the test looks: its own syncs may be left out."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setitem(sqlite_schema.SYNCHRONOUS, "process", "OFF")


def cut_off(
    events: list[Event], count: int, seed: int, folder: pathlib.Path
) -> Iterator[Cut]:
    """Cut power this often; each cut is removed once it was looked at."""
    choose = random.Random(seed)
    for number, (moment, how, tree) in enumerate(disk.cuts(events, count, choose)):
        place = folder / str(number)
        disk.write(tree, place)
        begun, acknowledged = judging.told(events[:moment])
        what = f"cut {number} (seed {seed}) after event {moment}: {how}"
        yield Cut(place / child.RUN, moment, begun, acknowledged, what)
        shutil.rmtree(place)


@pytest.mark.parametrize("durability", CUTS)
def test_the_record_has_all_that_power_cuts_are_about(
    durability: str, runs: Runs
) -> None:
    """Saves, removals, merges and two sessions; and no write is missing in it."""
    events = runs.record(durability)
    begun, acknowledged = judging.told(events)
    assert len(begun) == acknowledged == REPORTS
    generations = {report.generation_id for report in begun}
    assert len(generations) > 2 * child.SLOTS
    removed = [e for e in events if e.kind == record.UNLINK and "params/" in e.name]
    assert len(removed) > REPORTS / 2
    logs = [e for e in events if e.name.endswith("-wal")]
    assert [e.kind for e in logs] == [record.CREATE, record.UNLINK] * 2
    merges = [e for e in events if e.kind == record.TRUNCATE and e.file == logs[0].file]
    assert len(merges) > 1
    model = disk.Disk()
    for event in events:
        model.apply(event)
    whole = model.after_cut(random.Random(0), disk.KEPT, disk.KEPT)
    assert whole == disk.read(runs.folder(durability))


def check_power(
    events: list[Event], count: int, seed: int, folder: pathlib.Path
) -> None:
    """Check cuts of a run with durability="power"."""
    for cut in cut_off(events, count, seed, folder):
        try:
            found = judging.go_on(cut.log_dir, cut.begun)
        except Exception as error:
            raise AssertionError(cut.what) from error
        assert found.reports >= cut.acknowledged, cut.what
        assert not found.rejected, cut.what
        assert cut.acknowledged < 2 * child.SLOTS or not found.fresh, cut.what


def check_process(
    events: list[Event], count: int, seed: int, folder: pathlib.Path
) -> None:
    """Check cuts of a run with durability="process"."""
    lost = 0
    for cut in cut_off(events, count, seed, folder):
        try:
            found = judging.go_on(cut.log_dir, cut.begun, may_lack=True)
        except Exception as error:
            raise AssertionError(cut.what) from error
        lost += found.reports < cut.acknowledged
    assert lost  # Else the other test would see no difference.


def test_with_power_a_cut_loses_no_report_and_no_weights(
    runs: Runs, tmp_path: pathlib.Path
) -> None:
    """Acknowledged reports are there, reachable saves load, and each slot goes on."""
    check_power(runs.record("power"), CUTS["power"], 0, tmp_path)


def test_with_process_a_cut_leaves_a_prefix_from_which_the_run_goes_on(
    runs: Runs, tmp_path: pathlib.Path
) -> None:
    """The journal has the first reports in their order; lost saves are noticed."""
    check_process(runs.record("process"), CUTS["process"], 0, tmp_path)


def synced_once(events: list[Event], folder: pathlib.Path) -> int:
    """The moment from which a save of each slot is on the disk, whatever survives.

    It is looked for on a disk that loses everything that was not synced.
    """
    model = disk.Disk()
    looks = disk.positions(len(events), LOOKS, random.Random(0))
    for before, moment in itertools.pairwise([0, *looks]):
        for event in events[before:moment]:
            model.apply(event)
        begun, acknowledged = judging.told(events[:moment])
        if acknowledged < child.SLOTS:
            continue
        place = folder / f"look-{moment}"
        disk.write(model.after_cut(random.Random(0), disk.LOST, disk.LOST), place)
        if not judging.go_on(place / child.RUN, begun, may_lack=True).fresh:
            return moment
    raise AssertionError("nothing was synced during the whole run")


def check_older_saves(
    events: list[Event], count: int, seed: int, folder: pathlib.Path
) -> None:
    """Check that no cut with durability="process" takes all saves of a slot."""
    begin = synced_once(events, folder)
    assert begin < len(events) / 2
    for cut in cut_off(events, count, seed, folder):
        if cut.moment >= begin:
            found = judging.go_on(cut.log_dir, cut.begun, may_lack=True)
            assert not found.fresh, f"{cut.what}: slots {set(found.fresh)} begin anew"


def test_with_process_a_cut_never_takes_the_older_saves_too(
    runs: Runs, tmp_path: pathlib.Path
) -> None:
    """Nothing is removed until what replaces it, and its row, are on the disk."""
    check_older_saves(runs.record("process"), CUTS["process"], 5, tmp_path)


def test_with_process_the_journal_may_reach_the_disk_before_the_saves(
    runs: Runs, tmp_path: pathlib.Path
) -> None:
    """Rows of removals count only once what replaces the removed saves is synced.

    The system writes files back in any order: here all of the journal, of the saves
    none that was not synced, and each removal.
    """
    events = runs.record("process")
    begin = synced_once(events, tmp_path)
    model, choose = disk.Disk(), random.Random(0)
    lost = []
    for number, event in enumerate(events):
        model.apply(event)
        if number < begin or event.data != b"acknowledged":
            continue
        tree = model.after_cut(choose, disk.LOST, disk.REMOVED)
        kept = model.after_cut(choose, disk.KEPT, disk.KEPT)
        tree |= {path: kept[path] for path in kept if "journal.sqlite" in path}
        place = tmp_path / str(number)
        disk.write(tree, place)
        begun, _ = judging.told(events[: number + 1])
        found = judging.go_on(place / child.RUN, begun, may_lack=True)
        if found.fresh:
            lost.append((number, sorted(found.fresh)))
    assert not lost, f"after these events these slots begin anew: {lost}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6, 10))
def test_with_process_no_cut_of_very_many_takes_the_older_saves_too(
    seed: int, runs: Runs, tmp_path: pathlib.Path
) -> None:
    """The same test with many more cuts."""
    check_older_saves(runs.record("process"), SOAK // 4, seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_with_power_no_cut_of_very_many_loses_anything(
    seed: int, runs: Runs, tmp_path: pathlib.Path
) -> None:
    """The same test with many more cuts."""
    check_power(runs.record("power"), SOAK // 4, seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_with_process_the_run_goes_on_after_every_cut_of_very_many(
    seed: int, runs: Runs, tmp_path: pathlib.Path
) -> None:
    """The same test with many more cuts."""
    check_process(runs.record("process"), SOAK // 4, seed, tmp_path)
