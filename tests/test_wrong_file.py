"""What lies at the place of a journal is never mistaken for another file."""

from __future__ import annotations

import gc
import hashlib
import os
import pathlib
import shutil
import sqlite3
from typing import Any

import numpy as np
import pytest

from population import JournalError, PopulationController
from population.mutators import FixedSchedule
from population.params import FileParams
from tests.helpers import generation

JOURNAL = "journal.sqlite"


def opened(log_dir: pathlib.Path, **options: Any) -> PopulationController:
    """A run of one worker."""
    return PopulationController([1.0], FixedSchedule({0: 1.0}), log_dir, **options)


def report(controller: PopulationController, params: Any = "somewhere") -> None:
    """Report the next step."""
    at = controller.workers[0]
    controller.set_eval(0, at.generation_id, at.step + 1, params, 1.0)


def foreign(path: pathlib.Path) -> bytes:
    """A database of another program; its digest."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mails (x)")
    connection.commit()
    connection.close()
    return digest(path)


def digest(path: pathlib.Path) -> bytes:
    """Of a file's content."""
    return hashlib.sha256(path.read_bytes()).digest()


def dropped_at(log_dir: pathlib.Path) -> int:
    """The inode of a journal whose controller was dropped without being closed."""
    controller = opened(log_dir)
    inode = os.stat(log_dir / JOURNAL).st_ino
    del controller
    gc.collect()
    return inode


def test_a_foreign_file_on_a_reused_inode_is_left_untouched(
    tmp_path: pathlib.Path,
) -> None:
    """A dropped controller does not vouch for whatever gets its inode next."""
    for number in range(20):
        run, other = tmp_path / f"run-{number}", tmp_path / f"other-{number}"
        inode = dropped_at(run)
        shutil.rmtree(run)
        other.mkdir()
        before = foreign(other / JOURNAL)
        with pytest.raises(JournalError, match="another program"):
            opened(other)
        assert digest(other / JOURNAL) == before
        if os.stat(other / JOURNAL).st_ino == inode:
            return
    pytest.fail("no inode was used twice: this file system shows nothing")


@pytest.mark.parametrize("is_dropped", [True, False])
def test_a_foreign_file_that_was_copied_in_place_is_left_untouched(
    is_dropped: bool, tmp_path: pathlib.Path
) -> None:
    """The inode is the journal's; the content is not."""
    foreign(tmp_path / "other")
    controller = opened(tmp_path / "run")
    file = tmp_path / "run" / JOURNAL
    if is_dropped:
        del controller
        gc.collect()
    content = (tmp_path / "other").read_bytes()
    file.write_bytes(content)
    with pytest.raises(JournalError, match="another program"):
        opened(tmp_path / "run")
    if is_dropped:
        assert file.read_bytes() == content


def test_looking_at_a_file_keeps_the_locks_of_its_other_connections(
    tmp_path: pathlib.Path,
) -> None:
    """Were they lost, the last process to close would delete a log that is in use."""
    first = opened(tmp_path)
    report(first)
    for _ in range(3):
        opened(tmp_path).close()
    person = sqlite3.connect(tmp_path / JOURNAL, timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        person.execute("PRAGMA journal_mode=DELETE")  # As if it were the last one.
    person.close()
    report(first)
    assert first.workers[0].step == 2
    first.close()


@pytest.mark.parametrize("how", ["removed", "moved", "made anew", "replaced"])
def test_nothing_is_acknowledged_once_the_run_is_elsewhere(
    how: str, tmp_path: pathlib.Path
) -> None:
    """What would be written to a file that nobody finds again is refused."""
    run = tmp_path / "run"
    controller = opened(run)
    report(controller)
    if how == "moved":
        run.rename(tmp_path / "elsewhere")
    elif how == "replaced":
        (run / "copy").write_bytes((run / JOURNAL).read_bytes())
        (run / "copy").replace(run / JOURNAL)
    else:
        shutil.rmtree(run)
    if how == "made anew":
        opened(run).close()
    for _ in range(2):
        with pytest.raises(JournalError, match=r"was (removed or moved|replaced)"):
            report(controller)
    assert controller.workers[0].step == 1
    controller.close()
    if how == "moved":
        again = opened(tmp_path / "elsewhere")
        assert again.workers[0].step == 1
        again.close()


def test_a_waiting_worker_sees_that_the_run_was_removed(tmp_path: pathlib.Path) -> None:
    """It would wait for ever: nobody can write to that file any more."""
    controller = opened(tmp_path / "run")
    held = controller.worker(0)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(JournalError, match="removed"):
        controller.worker()  # Every slot is held, so this one waits.
    held._own = None
    controller.close()


@pytest.mark.parametrize("left", ["params", "own", "log"])
@pytest.mark.parametrize("journal", ["missing", "empty"])
def test_a_run_without_its_journal_is_not_begun_anew(
    left: str, journal: str, tmp_path: pathlib.Path
) -> None:
    """What is left of it would be removed, or its log wiped."""
    run = tmp_path / "run"
    controller = opened(run)
    if left == "params":
        report(controller, {"w": np.ones(2)})
    elif left == "own":
        (run / "own").mkdir()
        (run / "own" / "weights").write_text("1.0")
    report(controller)
    log = (run / f"{JOURNAL}-wal").read_bytes()
    controller.close()
    (run / JOURNAL).unlink()
    if left == "log":
        (run / f"{JOURNAL}-wal").write_bytes(log)
    if journal == "empty":
        (run / JOURNAL).touch()
    before = sorted((p, p.read_bytes()) for p in run.rglob("*") if p.is_file())
    with pytest.raises(JournalError, match=f"is {journal}, but a run was recorded"):
        opened(run)
    assert before == sorted((p, p.read_bytes()) for p in run.rglob("*") if p.is_file())


def test_folders_that_a_person_has_made_are_no_run(tmp_path: pathlib.Path) -> None:
    """Empty ones say nothing."""
    (tmp_path / "params").mkdir()
    opened(tmp_path).close()


def test_a_journal_behind_a_link_is_like_any_other(tmp_path: pathlib.Path) -> None:
    """Its log lies where the link leads; merging it finds it there."""
    (tmp_path / "run").mkdir()
    (tmp_path / "disk").mkdir()
    (tmp_path / "run" / JOURNAL).symlink_to(tmp_path / "disk" / "a journal")
    controller = opened(tmp_path / "run")
    for _ in range(200):
        report(controller)
    controller.close()
    again = opened(tmp_path / "run")
    assert again.workers[0].step == 200
    again.close()
    assert (tmp_path / "disk" / "a journal").stat().st_size > 4096


# One params store, two copies of a run.


def trained(log_dir: pathlib.Path, store: pathlib.Path) -> PopulationController:
    """A run that keeps its weights elsewhere."""
    controller = opened(log_dir, params=FileParams(store))
    report(controller, {"w": np.full(2, 7.0)})
    return controller


def test_a_copy_does_not_remove_the_weights_of_the_original(
    tmp_path: pathlib.Path,
) -> None:
    """Both name the same files; the copy is refused, in words."""
    store = tmp_path / "store"
    trained(tmp_path / "run", store).close()
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    with pytest.raises(JournalError, match=r"is a copy of .*store of its own"):
        opened(tmp_path / "copy", params=FileParams(store))
    again = opened(tmp_path / "run", params=FileParams(store))
    assert again.load(again.newest(0))["w"].tolist() == [7.0, 7.0]
    again.close()


@pytest.mark.parametrize("copied_too", [True, False])
def test_a_run_may_be_moved_beside_its_store(
    copied_too: bool, tmp_path: pathlib.Path
) -> None:
    """Also when the copy is what is left, and when its store was copied with it."""
    store = tmp_path / "store"
    trained(tmp_path / "run", store).close()
    if copied_too:
        shutil.copytree(tmp_path / "run", tmp_path / "there")
        store = pathlib.Path(shutil.copytree(store, tmp_path / "other store"))
    else:
        (tmp_path / "run").rename(tmp_path / "there")
    again = opened(tmp_path / "there", params=FileParams(store))
    assert again.load(again.newest(0))["w"].tolist() == [7.0, 7.0]
    report(again, {"w": np.zeros(2)})
    again.close()
    if copied_too:
        first = opened(tmp_path / "run", params=FileParams(tmp_path / "store"))
        assert first.load(first.newest(0))["w"].tolist() == [7.0, 7.0]
        first.close()


def test_the_moved_original_is_not_taken_for_gone(tmp_path: pathlib.Path) -> None:
    """A copy in the old place has taken the store over; the original hears of it."""
    store = tmp_path / "store"
    trained(tmp_path / "run", store).close()
    (tmp_path / "run").rename(tmp_path / "archive")
    shutil.copytree(tmp_path / "archive", tmp_path / "run")
    copy = opened(tmp_path / "run", params=FileParams(store))
    assert generation(copy)
    copy.close()
    with pytest.raises(JournalError, match="is a copy of"):
        opened(tmp_path / "archive", params=FileParams(store))
