"""Nothing is removed before what replaces it, and the journal, are synced."""

from __future__ import annotations

import errno
import pathlib
import threading
from typing import Any

import numpy as np
import pytest

from population import Keep, PopulationController
from population.journal.sqlite import SqliteJournal
from population.params import FileParams
from population.run import remover
from population.run.params_manager import ParamsManager
from tests import probe
from tests.helpers import Scripted, generation, work


class Traced(FileParams):
    """A store that notes what is done with it, and can be told to fail.

    Args:
        folder: The folder for the files.
        log: The list to note it in.
    """

    def __init__(self, folder: pathlib.Path, log: list[tuple[str, Any, int]]) -> None:
        super().__init__(folder)
        self.log = log
        self.fails: OSError | None = None
        self.full_after: int | None = None

    def note(self, what: str, about: Any) -> None:
        """Note a call and its thread."""
        self.log.append((what, about, threading.get_ident()))

    def save(self, name: str, tree: Any) -> str:
        """Save, unless the disk is full."""
        if self.full_after is not None and len(self.files()) >= self.full_after:
            raise OSError(errno.ENOSPC, "No space left on device")
        path = super().save(name, tree)
        self.note("save", path)
        return path

    def sync(self, paths: Any) -> None:
        """Sync, or fail."""
        paths = list(paths)
        if self.fails is not None:
            raise self.fails
        super().sync(paths)
        self.note("sync", paths)

    def remove(self, path: str) -> None:
        """Remove."""
        super().remove(path)
        self.note("remove", path)

    def files(self) -> list[str]:
        """The names of all saves."""
        found = pathlib.Path(self.folder).glob("*-*/*-*")
        return sorted(file.name for file in found if not file.name.startswith("."))


class Journal(SqliteJournal):
    """A journal that notes its syncs."""

    def __init__(self, path: pathlib.Path, durability: str) -> None:
        self.noted: list[tuple[str, Any, int]] = []
        super().__init__(path, durability=durability)

    def sync(self) -> None:
        """Sync, and note it."""
        super().sync()
        self.noted.append(("journal", None, threading.get_ident()))


Log = list[tuple[str, Any, int]]


def opened(
    folder: pathlib.Path, durability: str = "process", **options: Any
) -> tuple[PopulationController, Traced, Log]:
    """A run of one slot, its store, and what both note."""
    log: Log = []
    journal = Journal(folder / "journal.sqlite", durability)
    journal.noted = log
    store = Traced(folder / "params", log)
    controller = PopulationController(
        [1.0], Scripted(), folder, params=store, journal=journal, **options
    )
    return controller, store, log


def report(controller: PopulationController, count: int = 1) -> None:
    """Report that many further steps, with arrays."""
    step = controller.workers[0].step
    for number in range(step + 1, step + 1 + count):
        tree = {"w": np.full(4, float(number))}
        controller.set_eval(0, generation(controller), number, tree, -float(number))


@pytest.mark.parametrize("durability", ["process", "power"])
def test_what_replaces_a_save_is_synced_before_its_removal(
    durability: str, tmp_path: pathlib.Path
) -> None:
    """First the save, then the journal with its report, then the other one goes."""
    controller, store, log = opened(tmp_path, durability)
    report(controller)
    probe.settle()
    log.clear()
    report(controller, 3)
    probe.settle()
    synced: set[str] = set()
    saved: list[str] = []
    since_journal: set[str] = set()
    for what, about, _ in log:
        if what == "save":
            saved.append(about)
        elif what == "sync":
            synced.update(about)
            since_journal.update(about)
        elif what == "journal":
            since_journal.clear()
        else:
            after = saved[saved.index(about) + 1] if about in saved else saved[0]
            assert after in synced
            assert after not in since_journal
    assert [what for what, *_ in log].count("remove") == 3
    assert len(store.files()) == 1
    controller.close()


def test_a_report_waits_for_no_sync(tmp_path: pathlib.Path) -> None:
    """With durability="process" another thread syncs, for many removals at once."""
    controller, _, log = opened(tmp_path)
    log.clear()
    report(controller, 50)
    controller.close()
    here = threading.get_ident()
    assert {what for what, _, thread in log if thread == here} == {"save"}
    assert [what for what, *_ in log].count("remove") == 49


def test_with_power_each_save_is_synced_before_its_report(
    tmp_path: pathlib.Path,
) -> None:
    """In the thread that reports."""
    controller, _, log = opened(tmp_path, "power")
    log.clear()
    report(controller, 5)
    own = [(w, about) for w, about, thread in log if thread == threading.get_ident()]
    assert [what for what, _ in own] == ["save", "sync"] * 5
    assert all(
        one[1] == other[1][0] for one, other in zip(own[::2], own[1::2], strict=True)
    )
    controller.close()


def test_looks_are_a_second_apart_and_the_end_makes_the_last(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So removal costs a loop of many reports nothing, and nothing stays for ever."""
    monkeypatch.setattr(remover, "EVERY_S", 3600.0)
    controller, store, log = opened(tmp_path)
    report(controller, 100)
    probe.settle()
    assert len(store.files()) == 100
    assert not [what for what, *_ in log if what == "remove"]
    controller.close()
    assert [name.split("-")[0] for name in store.files()] == ["100"]
    assert [what for what, *_ in log].count("journal") == 2  # At its making, and here.
    again, store, _ = opened(tmp_path)
    assert np.all(work(again).params["w"] == 100.0)
    again.close()


def test_what_a_process_without_an_end_leaves_the_next_one_removes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that never calls `close` may leave a second's saves behind."""
    with monkeypatch.context() as patch:
        patch.setattr(remover, "EVERY_S", 3600.0)
        controller, store, _ = opened(tmp_path)
        report(controller, 20)
        assert len(store.files()) == 20
        controller.open_run.journal.close()
    again, store, _ = opened(tmp_path)
    report(again)
    probe.settle()
    assert [name.split("-")[0] for name in store.files()] == ["21"]
    again.close()


def test_if_a_sync_fails_nothing_is_removed_until_one_succeeds(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Training goes on, and the log says why the disk fills up."""
    controller, store, _ = opened(tmp_path)
    store.fails = OSError(errno.EIO, "Input/output error")
    report(controller, 5)
    probe.settle()
    assert len(store.files()) == 5
    assert "could not be removed" in caplog.text
    assert "Input/output error" in caplog.text
    store.fails = None
    report(controller)
    probe.settle()
    assert len(store.files()) == 1
    controller.close()


def test_a_full_disk_is_cleared_of_what_nothing_needs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that would come later is made at once, and the save is tried again."""
    monkeypatch.setattr(remover, "EVERY_S", 3600.0)
    controller, store, log = opened(tmp_path)
    store.full_after = 10
    report(controller, 30)
    assert controller.workers[0].step == 30
    assert len(store.files()) <= 10
    assert [what for what, *_ in log].count("remove") >= 20
    controller.close()


def test_a_disk_that_is_full_of_what_is_needed_is_an_error(
    tmp_path: pathlib.Path,
) -> None:
    """Nothing is recorded; once there is room, the same report is."""
    controller, store, _ = opened(tmp_path, keep=Keep(everything=True))
    report(controller, 2)
    store.full_after = 2
    with pytest.raises(OSError, match="No space left"):
        report(controller)
    assert controller.workers[0].step == 2
    store.full_after = None
    report(controller)
    assert controller.workers[0].step == 3
    controller.close()


def test_a_store_that_is_slow_to_remove_holds_no_report_up_for_a_while(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a store that falls behind for long: else the disk could fill up."""
    monkeypatch.setattr(ParamsManager, "queue", lambda m, r: m._remover.put(r))
    controller, store, _ = opened(tmp_path)
    go_on = threading.Event()

    def slow(path: str) -> None:
        assert go_on.wait(60)
        FileParams.remove(store, path)

    monkeypatch.setattr(store, "remove", slow)
    report(controller, 20)
    assert len(store.files()) == 20
    monkeypatch.setattr(remover, "LATE_S", 0.0)
    waits = threading.Thread(target=report, args=(controller,))
    waits.start()
    waits.join(0.2)
    assert waits.is_alive()
    go_on.set()
    waits.join(60)
    probe.settle()
    assert len(store.files()) == 1
    controller.close()


@pytest.mark.parametrize("damage", ["missing", "torn"])
def test_a_later_session_removes_no_save_behind_one_that_is_lost(
    damage: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut one slot may report before another finds its save lost."""
    with monkeypatch.context() as patch:
        patch.setattr(remover, "EVERY_S", 3600.0)
        first = PopulationController([1.0, 2.0], Scripted(), tmp_path)
        for step in range(1, 6):
            for slot in range(2):
                tree = {"w": np.full(4, float(step))}
                first.set_eval(slot, generation(first, slot), step, tree, 1.0 / step)
        newest = first.newest(1).params
        first.open_run.journal.close()  # As if the power had been cut.
    file = tmp_path / "params" / newest.path
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-7])
    again = PopulationController([1.0, 2.0], Scripted(), tmp_path)
    for step in range(6, 9):
        again.set_eval(0, work(again).generation_id, step, {"w": np.ones(4)}, 0.1)
        probe.settle()
    left = sorted((tmp_path / "params").glob("*-1-0/*-*"))
    assert [file.name[0] for file in left] == ["4", "5"] if damage == "torn" else ["4"]
    found = work(again, 1)
    assert found.step == 4
    assert np.all(found.params["w"] == 4.0)
    again.close()
