"""A file at the place of a journal is never mistaken for the journal."""

from __future__ import annotations

import gc
import hashlib
import os
import pathlib
import shutil
import sqlite3
import threading
from typing import Any

import numpy as np
import pytest

import population
from population import JournalError, PopulationController
from population.journal import sqlite_schema
from population.journal.sqlite import SqliteJournal
from population.mutators import FixedSchedule
from population.params import FileParams, OrbaxParams
from tests import probe
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
    """A database of another program; returns its digest."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mails (x)")
    connection.commit()
    connection.close()
    return digest(path)


def digest(path: pathlib.Path) -> bytes:
    """The digest of a file's content."""
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
    """A later file with the inode of a dropped controller's journal is not trusted."""
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
            return  # If inodes are not reused, there is nothing to confuse.


@pytest.mark.parametrize("is_dropped", [True, False])
def test_a_foreign_file_that_was_copied_in_place_is_left_untouched(
    is_dropped: bool, tmp_path: pathlib.Path
) -> None:
    """It has the inode of the journal, but not its content."""
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
    """Without them, the last process to close would delete a log that is in use."""
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
    """A report that nobody would find again is refused."""
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
    """It would wait for ever: no process can write to that file any more."""
    controller = opened(tmp_path / "run")
    held = controller.worker(0)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(JournalError, match="removed"):
        controller.worker()  # Every slot is held, so this worker waits.
    probe.disown(held)
    controller.close()


def test_a_file_with_two_names_is_refused(tmp_path: pathlib.Path) -> None:
    """Each name would have its own log: the second one overwrites the first."""
    controller = opened(tmp_path / "run")
    report(controller)
    controller.close()
    (tmp_path / "copy").mkdir()
    os.link(tmp_path / "run" / JOURNAL, tmp_path / "copy" / JOURNAL)
    before = digest(tmp_path / "run" / JOURNAL)
    for folder in ("run", "copy"):
        with pytest.raises(JournalError, match=r"2 names \(hard links\).*copy it"):
            opened(tmp_path / folder)
    assert digest(tmp_path / "run" / JOURNAL) == before
    shutil.copy(tmp_path / "run" / JOURNAL, tmp_path / "new")
    (tmp_path / "new").replace(tmp_path / "run" / JOURNAL)
    again = opened(tmp_path / "run")
    assert again.workers[0].step == 1
    again.close()


def test_a_link_to_the_run_that_is_turned_elsewhere_is_noticed(
    tmp_path: pathlib.Path,
) -> None:
    """Otherwise the journal would be in one folder and the weights in another."""
    link = tmp_path / "latest"
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    link.symlink_to(tmp_path / "first")
    controller = opened(link)
    report(controller, {"w": np.ones(2)})
    link.unlink()
    link.symlink_to(tmp_path / "second")
    with pytest.raises(JournalError, match=r"removed or moved|replaced"):
        report(controller, {"w": np.ones(2)})
    controller.close()
    for name, step in (("first", 1), ("second", 0)):
        again = opened(tmp_path / name)
        assert again.workers[0].step == step
        again.close()


def test_a_file_that_was_copied_over_an_open_journal_is_not_written_to_at_the_end(
    tmp_path: pathlib.Path,
) -> None:
    """Closing would merge this run's log into the other program's database."""
    controller = opened(tmp_path / "run")
    report(controller)
    foreign(tmp_path / "other")
    content = (tmp_path / "other").read_bytes()
    (tmp_path / "run" / JOURNAL).write_bytes(content)
    controller.close()
    assert (tmp_path / "run" / JOURNAL).read_bytes() == content


@pytest.mark.parametrize("beside", ["journal", "wal", "shm"])
def test_what_lies_beside_a_journal_is_looked_at_before_sqlite_does(
    beside: str, tmp_path: pathlib.Path
) -> None:
    """SQLite would wait for a pipe for ever."""
    opened(tmp_path).close()
    os.mkfifo(tmp_path / f"{JOURNAL}-{beside}")
    with pytest.raises(JournalError, match=r"is not a file\. Remove it"):
        opened(tmp_path)


@pytest.mark.parametrize("left", ["params", "own", "log"])
@pytest.mark.parametrize("journal", ["missing", "empty"])
def test_a_run_without_its_journal_is_not_begun_anew(
    left: str, journal: str, tmp_path: pathlib.Path
) -> None:
    """Otherwise the rest would be removed, or its log truncated."""
    run = tmp_path / "run"
    controller = opened(run)
    if left == "params":
        report(controller, {"w": np.ones(2)})
    elif left == "own":
        with controller.worker() as worker:
            assert worker.poll()
            assert worker.save_to is not None
            pathlib.Path(worker.save_to).write_text("1.0")
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


@pytest.mark.parametrize("left", ["params", "own"])
def test_a_young_run_that_was_copied_without_its_log_is_not_begun_anew(
    left: str, tmp_path: pathlib.Path
) -> None:
    """All that it has recorded is in the log: the file alone has no tables."""
    controller = opened(tmp_path / "run")
    report(controller, {"w": np.ones(2)})
    if left == "own":
        shutil.rmtree(tmp_path / "run" / "params")
        with controller.worker() as worker:
            assert worker.save_to is not None
            pathlib.Path(worker.save_to).write_text("1.0")
    (tmp_path / "copy").mkdir()
    shutil.copytree(tmp_path / "run" / left, tmp_path / "copy" / left)
    shutil.copy(tmp_path / "run" / JOURNAL, tmp_path / "copy" / JOURNAL)
    before = (tmp_path / "copy" / JOURNAL).read_bytes()
    with pytest.raises(JournalError, match="is empty, but a run was recorded"):
        opened(tmp_path / "copy")
    assert (tmp_path / "copy" / JOURNAL).read_bytes() == before
    controller.close()


@pytest.mark.parametrize("content", [b"", None])
def test_a_file_without_a_run_is_left_as_it_is_by_whoever_looks_back(
    content: bytes | None, tmp_path: pathlib.Path
) -> None:
    """Otherwise the next controller would take it for a new run."""
    file = tmp_path / JOURNAL
    file.write_bytes(content or b"")
    mutator = FixedSchedule({0: 1.0})
    for _ in range(2):
        with pytest.raises(JournalError, match="holds no run yet"):
            population.replay(tmp_path, mutator)
        with pytest.raises(JournalError, match="holds no run yet"):
            population.fork(tmp_path, tmp_path / "new", mutator=mutator)
    assert file.read_bytes() == b""
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [JOURNAL]


def test_a_newer_format_that_is_still_in_the_log_is_refused(
    tmp_path: pathlib.Path,
) -> None:
    """It is not converted to the present format."""
    controller = opened(tmp_path)
    report(controller)
    probe.connection(controller).execute("PRAGMA user_version=99")
    with pytest.raises(JournalError, match=r"has the format 99.*newer version"):
        opened(tmp_path)
    version = probe.connection(controller).execute("PRAGMA user_version").fetchone()
    assert version == (99,)
    controller.close()


@pytest.mark.parametrize("looks", ["opens", "looks back"])
def test_a_run_that_another_process_is_just_making_is_waited_for(
    looks: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log has content before its tables can be seen: it is no lost run."""
    is_half_made, was_looked_at = threading.Event(), threading.Event()
    make, look = sqlite_schema.prepare, sqlite_schema.has_tables
    choose = sqlite_schema.choose_settings

    def slowly(connection: sqlite3.Connection, path: pathlib.Path | None) -> None:
        make(connection, path)
        connection.execute("PRAGMA cache_spill=1")
        connection.execute("CREATE TABLE filler (x)")
        for _ in range(400):  # More than the cache holds, so that the log gets some.
            connection.execute("INSERT INTO filler VALUES (zeroblob(100000))")
        connection.execute("DROP TABLE filler")
        is_half_made.set()
        assert was_looked_at.wait(60)

    def looked(connection: sqlite3.Connection) -> bool:
        found = look(connection)
        if is_half_made.is_set():
            was_looked_at.set()
        return found

    def chosen(connection: sqlite3.Connection, durability: str) -> None:
        choose(connection, durability)
        if is_half_made.is_set():  # Next it waits for the maker's transaction.
            was_looked_at.set()

    maker = threading.Thread(target=opened, args=(tmp_path,))
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_schema, "prepare", slowly)
        patch.setattr(sqlite_schema, "has_tables", looked)
        patch.setattr(sqlite_schema, "choose_settings", chosen)
        maker.start()
        assert is_half_made.wait(60)
        assert (tmp_path / f"{JOURNAL}-wal").stat().st_size > 0
        if looks == "opens":
            opened(tmp_path).close()
        else:
            SqliteJournal(tmp_path / JOURNAL, must_exist=True).close()
        maker.join()


def test_folders_that_a_person_has_made_are_no_run(tmp_path: pathlib.Path) -> None:
    """Folders without weights, which a removed run may have left, are allowed, too."""
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "config.yaml").write_text("lr: 0.1")
    (tmp_path / "own" / "abc123-0-1").mkdir(parents=True)
    opened(tmp_path).close()


def test_a_journal_behind_a_link_is_like_any_other(tmp_path: pathlib.Path) -> None:
    """Its log is where the link leads, and is merged there."""
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


# Two copies of a run with one params store.


def trained(log_dir: pathlib.Path, store: pathlib.Path) -> PopulationController:
    """A run that keeps its weights outside of its folder."""
    controller = opened(log_dir, params=FileParams(store))
    report(controller, {"w": np.full(2, 7.0)})
    return controller


def test_a_copy_does_not_remove_the_weights_of_the_original(
    tmp_path: pathlib.Path,
) -> None:
    """Both name the same files; the copy is refused with an explanation."""
    store = tmp_path / "store"
    trained(tmp_path / "run", store).close()
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    with pytest.raises(JournalError, match=r"is a copy of .*store of its own"):
        opened(tmp_path / "copy", params=FileParams(store))
    again = opened(tmp_path / "run", params=FileParams(store))
    assert again.load(again.newest(0))["w"].tolist() == [7.0, 7.0]
    again.close()


def test_a_refused_host_does_not_mark_the_store(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store still names the journal of the host that trains the run."""
    store = tmp_path / "store"
    run = opened(tmp_path / "run", params=FileParams(store))
    worker = run.worker(0)
    worker.poll()
    worker.step = 1
    worker.report(1.0, {"w": np.ones(3)})
    marks = {path: path.read_bytes() for path in (store / ".runs").iterdir()}
    assert marks
    shutil.copytree(tmp_path / "run", tmp_path / "mounted there")
    (tmp_path / "run").rename(tmp_path / "not mounted there")
    probe.pretend_host(monkeypatch)
    with pytest.raises(JournalError, match="on another host"):
        opened(tmp_path / "mounted there", params=FileParams(store))
    assert marks == {path: path.read_bytes() for path in (store / ".runs").iterdir()}


@pytest.mark.parametrize("copied_too", [True, False])
def test_a_run_may_be_moved_beside_its_store(
    copied_too: bool, tmp_path: pathlib.Path
) -> None:
    """This holds also if only the copy is left, or its store was copied with it."""
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


@pytest.mark.parametrize("how", ["damaged", "foreign", "empty"])
def test_an_original_that_cannot_be_read_is_not_taken_for_gone(
    how: str, tmp_path: pathlib.Path
) -> None:
    """If the library cannot tell, it refuses, with the reason."""
    store = tmp_path / "store"
    trained(tmp_path / "run", store).close()
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    file = tmp_path / "run" / JOURNAL
    if how == "damaged":
        file.write_bytes(file.read_bytes()[:2000])
    elif how == "empty":
        file.write_bytes(b"")
    else:
        file.unlink()
        foreign(file)
    with pytest.raises(JournalError, match=r"may be a copy of .*store of its own"):
        opened(tmp_path / "copy", params=FileParams(store))
    shutil.rmtree(tmp_path / "run")
    copy = opened(tmp_path / "copy", params=FileParams(store))
    assert copy.load(copy.newest(0))["w"].tolist() == [7.0, 7.0]
    copy.close()


@pytest.mark.parametrize("log", [bytes(32), b"", None], ids=["head", "empty", "none"])
def test_a_run_that_was_killed_before_its_first_commit_can_be_made(
    log: bytes | None, tmp_path: pathlib.Path
) -> None:
    """The file is still empty, and its log has nothing that was committed."""
    file = tmp_path / "journal.sqlite"
    raw = sqlite3.connect(file, isolation_level=None)
    sqlite_schema.choose_settings(raw, "process")
    raw.close()
    if log is not None:
        file.with_name("journal.sqlite-wal").write_bytes(log)
    controller = PopulationController([0.1], FixedSchedule({0: 0.1}), tmp_path)
    controller.set_eval(0, generation(controller), 1, None, 1.0)
    controller.close()
    again = PopulationController([0.1], FixedSchedule({0: 0.1}), tmp_path)
    assert again.newest(0).step == 1
    again.close()


def test_a_run_under_two_names_is_one_run(tmp_path: pathlib.Path) -> None:
    """Only its path has two names."""
    store = tmp_path / "store"
    trained(tmp_path / "run", store).close()
    (tmp_path / "alias").symlink_to(tmp_path / "run")
    again = opened(tmp_path / "alias", params=FileParams(store))
    assert again.load(again.newest(0))["w"].tolist() == [7.0, 7.0]
    again.close()


def test_a_bucket_is_not_asked_before_it_is_needed(tmp_path: pathlib.Path) -> None:
    """A run with weights in a bucket can be read without the bucket."""
    store = OrbaxParams("gs://bucket/run")
    controller = opened(tmp_path, params=store)
    report(controller)
    controller.close()


@pytest.mark.parametrize("before", [True, False])
def test_a_forgotten_store_is_a_warning(before: bool, tmp_path: pathlib.Path) -> None:
    """A loop that rejects what it cannot load would reject all weights."""
    stores = (FileParams(tmp_path / "store"), None)
    first, second = stores if before else stores[::-1]
    controller = opened(tmp_path / "run", params=first)
    report(controller, {"w": np.ones(2)})
    controller.close()
    with pytest.warns(UserWarning, match="Pass the same params= as before"):
        opened(tmp_path / "run", params=second).close()


def test_a_store_that_does_not_know_the_run_is_a_warning(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a folder other than the one with the weights."""
    trained(tmp_path / "run", tmp_path / "store").close()
    assert not caplog.records
    opened(tmp_path / "run", params=FileParams(tmp_path / "other")).close()
    assert "does not know this run" in caplog.text


def test_the_moved_original_is_not_taken_for_gone(tmp_path: pathlib.Path) -> None:
    """A copy in the old place has taken over the store; the original gets an error."""
    store = tmp_path / "store"
    trained(tmp_path / "run", store).close()
    (tmp_path / "run").rename(tmp_path / "archive")
    shutil.copytree(tmp_path / "archive", tmp_path / "run")
    copy = opened(tmp_path / "run", params=FileParams(store))
    assert generation(copy)
    copy.close()
    with pytest.raises(JournalError, match="is a copy of"):
        opened(tmp_path / "archive", params=FileParams(store))
