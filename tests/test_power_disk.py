"""The model of a disk forgets what was not synced; the recorder misses no write."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import random
import sqlite3
import sys
from collections.abc import Callable, Sequence

import pytest

from tests.helpers import missing
from tests.power_cut import disk, record
from tests.power_cut.record import Event

ROOT, FOLDER, FILE, OTHER = 1, 2, 3, 4
BEGIN = Event(record.MAKE_FOLDER, ROOT)
MANY = 300


def made(name: str, file: int = FILE) -> Event:
    """A new file."""
    return Event(record.CREATE, file, name=name)


def wrote(data: bytes, place: int = 0, file: int = FILE) -> Event:
    """A write."""
    return Event(record.WRITE, file, place, data=data)


def resized(size: int, file: int = FILE) -> Event:
    """A change of a file's size."""
    return Event(record.TRUNCATE, file, size)


def synced(file: int) -> Event:
    """A sync of a file or folder."""
    return Event(record.SYNC, file)


def renamed(name: str, other: str) -> Event:
    """A rename."""
    return Event(record.RENAME, name=name, other=other)


def unlinked(name: str) -> Event:
    """The removal of a name."""
    return Event(record.UNLINK, name=name)


def folder(name: str, file: int = FOLDER) -> Event:
    """A new folder."""
    return Event(record.MAKE_FOLDER, file, name=name)


def after(
    events: Sequence[Event],
    data: str = disk.TORN,
    names: str = disk.RANDOM,
    seed: int = 0,
    *,
    keeps_names: bool = False,
) -> disk.Tree:
    """What the disk holds after these events and a cut."""
    found = disk.Disk(keeps_names=keeps_names)
    for event in (BEGIN, *events):
        found.apply(event)
    return found.after_cut(random.Random(seed), data, names)


def outcomes(
    events: Sequence[Event], *, keeps_names: bool = False
) -> set[frozenset[str]]:
    """The names that the disk may have after a cut, in many tries."""
    return {
        frozenset(after(events, seed=seed, keeps_names=keeps_names))
        for seed in range(MANY)
    }


def contents(events: Sequence[Event]) -> set[bytes]:
    """The contents that a file may have after a cut, in many tries."""
    found = set()
    for seed in range(MANY):
        content = after(events, names=disk.KEPT, seed=seed)["f"]
        assert isinstance(content, bytes)
        found.add(content)
    return found


# Data.


def test_data_that_were_not_synced_may_be_lost_or_kept() -> None:
    """After the sync of a file only what was written later is in question."""
    events = [made("f"), wrote(b"old"), synced(FILE), wrote(b"NEW", 1)]
    assert after(events, disk.LOST, disk.KEPT) == {"f": b"old"}
    assert after(events, disk.KEPT, disk.KEPT) == {"f": b"oNEW"}


def test_a_new_file_without_a_sync_may_be_empty() -> None:
    """Its name may be on the disk before its content."""
    events = [made("f"), wrote(b"content")]
    assert after(events, disk.LOST, disk.KEPT) == {"f": b""}
    assert {b"", b"content", bytes(7)} <= contents(events)


@pytest.mark.parametrize("data", disk.DATA)
def test_a_synced_file_is_complete_whatever_happens(data: str) -> None:
    """No fate takes what was synced."""
    events = [made("f"), wrote(bytes(range(256)) * 40), synced(FILE), synced(ROOT)]
    for seed in range(20):
        found = after(events, data, disk.RANDOM, seed)
        assert found == {"f": bytes(range(256)) * 40}


def test_one_write_is_torn_between_blocks_and_between_sectors() -> None:
    """Each block of 4096 bytes survives by itself, the last one up to a sector."""
    events = [made("f"), wrote(b"o" * 9000), synced(FILE), wrote(b"n" * 9000)]
    found = contents(events)
    assert all(len(content) == 9000 for content in found)
    changed = [
        tuple(content.count(b"n", at, at + disk.BLOCK) for at in (0, 4096, 8192))
        for content in found
    ]
    assert {(4096, 0, 808), (0, 4096, 0), (4096, 4096, 808)} <= set(changed)
    assert all(
        count % disk.SECTOR in (0, 808 % 512) for part in changed for count in part
    )
    assert any(0 < part[0] < disk.BLOCK for part in changed)


def test_writes_to_one_block_survive_in_their_order() -> None:
    """The system writes back a page as it is: not a later write without an earlier."""
    events = [made("f"), wrote(b"...."), synced(FILE)]
    events += [wrote(b"a", 0), wrote(b"b", 1), wrote(b"c", 2)]
    assert contents(events) == {b"....", b"a...", b"ab..", b"abc."}


def test_writes_to_different_blocks_survive_in_any_order() -> None:
    """The later one may be on the disk without the earlier one."""
    events = [made("f"), wrote(bytes(8192)), synced(FILE)]
    events += [wrote(b"a", 0), wrote(b"b", 5000)]
    found = {
        (content[:1], content[5000:5001]) for content in contents(events) if content
    }
    assert found == {(a, b) for a in (b"\0", b"a") for b in (b"\0", b"b")}


def test_a_truncation_survives_as_a_whole_and_writes_after_it_only_with_it() -> None:
    """So the old content is never mixed with what was written after the truncation."""
    events = [made("f"), wrote(b"old content"), synced(FILE), resized(0), wrote(b"new")]
    assert contents(events) == {b"old content", b"", b"new", bytes(3)}


def test_a_file_that_grows_has_zeros_or_the_size_before() -> None:
    """Sizes are metadata: they are lost or kept apart from the data."""
    events = [made("f"), wrote(b"a"), synced(FILE), resized(4)]
    assert contents(events) == {b"a", b"a\0\0\0"}
    assert after([made("f"), wrote(b"x", 3)], disk.KEPT, disk.KEPT) == {"f": b"\0\0\0x"}


# Names.


def test_a_new_name_is_lost_or_kept_until_its_folder_is_synced() -> None:
    """A sync of the file alone does not keep its name: POSIX does not say that."""
    events = [made("f"), wrote(b"x"), synced(FILE)]
    assert outcomes(events) == {frozenset(), frozenset({"f"})}
    assert outcomes([*events, synced(ROOT)]) == {frozenset({"f"})}


def test_on_a_kinder_disk_a_synced_file_keeps_its_name() -> None:
    """As on ext4, with the names of the folders above it, and no other name."""
    events = [folder("d"), made("d/f"), made("g", OTHER), synced(FILE)]
    found = outcomes(events, keeps_names=True)
    assert found == {frozenset({"d", "d/f"}), frozenset({"d", "d/f", "g"})}


def test_a_folder_is_lost_with_all_that_is_in_it() -> None:
    """The name of a folder lies in the folder above it."""
    events = [folder("d"), made("d/f"), wrote(b"x"), synced(FILE), synced(FOLDER)]
    assert outcomes(events) == {frozenset(), frozenset({"d", "d/f"})}
    assert outcomes([*events, synced(ROOT)]) == {frozenset({"d", "d/f"})}


def test_of_a_rename_both_halves_may_be_lost_or_kept() -> None:
    """Both names may be there, each alone, or none."""
    events = [made("a"), wrote(b"x"), synced(FILE), synced(ROOT), renamed("a", "b")]
    assert outcomes(events) == {
        frozenset(names) for names in ((), ("a",), ("b",), ("a", "b"))
    }
    assert outcomes([*events, synced(ROOT)]) == {frozenset({"b"})}
    assert after(events, names=disk.KEPT) == {"b": b"x"}
    assert after(events, names=disk.LOST) == {"a": b"x"}


def test_a_rename_over_a_file_leaves_the_old_or_the_new_content() -> None:
    """A name always has one of the files that it has named."""
    events = [made("f"), wrote(b"old"), synced(FILE), synced(ROOT)]
    events += [made("draft", OTHER), wrote(b"new", file=OTHER), synced(OTHER)]
    events += [renamed("draft", "f")]
    found = {after(events, seed=seed)["f"] for seed in range(MANY)}
    assert found == {b"old", b"new"}


def test_an_unlink_may_survive_when_the_rename_that_replaces_it_does_not() -> None:
    """The case that a removal must wait for: what was removed and its successor."""
    events = [made("old"), synced(FILE), synced(ROOT)]
    events += [made("draft", OTHER), synced(OTHER), renamed("draft", "new")]
    events += [unlinked("old")]
    assert frozenset() in outcomes(events)
    assert after(events, names=disk.REMOVED) == {}
    kept = [*events[:-1], synced(ROOT), events[-1]]
    assert outcomes(kept) == {frozenset({"new"}), frozenset({"new", "old"})}


def test_what_was_done_to_one_name_survives_in_its_order() -> None:
    """Of a file, its removal and another file of that name: nothing out of turn."""
    events = [made("f"), wrote(b"1"), synced(FILE), unlinked("f")]
    events += [made("f", OTHER), wrote(b"2", file=OTHER), synced(OTHER)]
    found = {repr(after(events, seed=seed)) for seed in range(MANY)}
    assert found == {"{}", "{'f': b'1'}", "{'f': b'2'}"}
    assert after([*events, synced(ROOT)]) == {"f": b"2"}


def test_a_sync_of_everything_keeps_everything() -> None:
    """`sync` is for all files and folders."""
    events = [folder("d"), made("d/f"), wrote(b"x"), Event(record.SYNC_ALL)]
    assert after(events, disk.LOST, disk.LOST) == {"d": None, "d/f": b"x"}


def test_links_have_a_target_or_another_name() -> None:
    """A symbolic link is a file of its own; a hard link is a second name."""
    events = [made("f"), wrote(b"x"), Event(record.LINK, name="f", other="g")]
    events += [Event(record.SYMLINK, OTHER, name="s", data=b"f"), unlinked("f")]
    found = after(events, disk.KEPT, disk.KEPT)
    assert found == {"g": b"x", "s": pathlib.PurePosixPath("f")}


def test_an_operation_that_the_model_does_not_know_is_refused() -> None:
    """A gap in the record would be a promise that was never tested."""
    with pytest.raises(ValueError, match="does not know mmap"):
        after([Event(record.UNKNOWN, name="mmap for writing")])
    with pytest.raises(ValueError, match="no beginning"):
        after([wrote(b"x", file=99)])


def test_cuts_are_spread_evenly_and_meet_every_fate() -> None:
    """One in each part of the record, drawn anew for another seed."""
    events = [BEGIN, made("f"), *[wrote(b"x", at) for at in range(200)]]
    found = list(disk.cuts(events, 60, random.Random(1)))
    moments = [moment for moment, _, _ in found]
    assert moments == sorted(moments)
    assert max(b - a for a, b in itertools.pairwise(moments)) <= 8
    assert moments[0] <= 4
    assert moments[-1] >= len(events) - 4
    assert len({how for _, how, _ in found}) == len(disk.DATA) * len(disk.NAMES)
    assert moments != [
        moment for moment, _, _ in disk.cuts(events, 60, random.Random(2))
    ]


# The recorder.


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The compiled recorder."""
    found = record.compiled(tmp_path_factory.mktemp("recorder"))
    if found is None:
        missing("Linux with a C compiler (cc)")
    return found


Recorded = Callable[[str], list[Event]]


@pytest.fixture
def recorded(tmp_path: pathlib.Path, recorder: pathlib.Path) -> Recorded:
    """Runs code that knows its `folder` and the `recorder`; returns its events."""

    def run(code: str) -> list[Event]:
        place = tmp_path / f"recorded-{len(list(tmp_path.iterdir()))}"
        place.mkdir()
        head = (
            "import ctypes, os, pathlib, sqlite3, threading\n"
            f"folder = pathlib.Path({str(place)!r})\n"
            f"recorder = ctypes.CDLL({str(recorder)!r})\n"
        )
        events = record.recorded(["-c", head + code], place, recorder)
        found = disk.Disk()
        for event in events:
            found.apply(event)
        kept = found.after_cut(random.Random(0), disk.KEPT, disk.KEPT)
        assert kept == disk.read(place)
        return events

    return run


def told(events: Sequence[Event]) -> list[tuple[str, str, str, bytes]]:
    """The events without inodes; `place` is in the data of what has none."""
    return [(e.kind, e.name, e.other, e.data) for e in events]


def test_operations_on_files_are_recorded_in_their_order(recorded: Recorded) -> None:
    """Each call is one event, with its data and its place."""
    events = recorded(
        "file = os.open(folder / 'f', os.O_CREAT | os.O_RDWR)\n"
        "os.write(file, b'one')\n"
        "os.pwrite(file, b'two', 5)\n"
        "os.writev(file, [b'x', b'', b'yz'])\n"
        "os.pwritev(file, [b'p', b'q'], 20)\n"
        "os.fsync(file)\n"
        "os.ftruncate(file, 4)\n"
        "os.posix_fallocate(file, 0, 9)\n"
        "os.fdatasync(os.dup(file))\n"
        "os.close(file)\n"
        "os.close(os.open(folder / 'f', os.O_WRONLY | os.O_TRUNC))\n"
        "os.truncate(folder / 'f', 2)\n"
    )
    assert told(events[1:2]) == [(record.CREATE, "f", "", b"")]
    found = [(e.kind, e.place, e.data) for e in events[2:]]
    assert found == [
        (record.WRITE, 0, b"one"),
        (record.WRITE, 5, b"two"),
        (record.WRITE, 3, b"xyz"),
        (record.WRITE, 20, b"pq"),
        (record.SYNC, 0, b""),
        (record.TRUNCATE, 4, b""),
        (record.TRUNCATE, 9, b""),
        (record.SYNC, 0, b""),
        (record.TRUNCATE, 0, b""),
        (record.TRUNCATE, 2, b""),
    ]
    assert len({e.file for e in events[1:]}) == 1


def test_names_and_marks_are_recorded_in_their_order(recorded: Recorded) -> None:
    """Paths are those below the folder, however the program has named them."""
    events = recorded(
        "os.mkdir(folder / 'd')\n"
        "with open(folder / 'd' / 'a', 'ab') as file: file.write(b'text')\n"
        "recorder.power_cut_mark(b'half done')\n"
        "os.chdir(folder / 'd')\n"
        "os.replace('a', '../b')\n"
        "os.symlink('b', folder / 's')\n"
        "os.link(folder / 'b', folder / 'c')\n"
        "os.unlink('../d/../s')\n"
        "handle = os.open(folder, os.O_RDONLY)\n"
        "os.fsync(handle)\n"
        "os.rmdir('d', dir_fd=handle)\n"
        "pathlib.Path('/dev/null').write_bytes(b'elsewhere')\n"
        "os.sync()\n"
    )
    assert told(events) == [
        (record.MAKE_FOLDER, "", "", b""),
        (record.MAKE_FOLDER, "d", "", b""),
        (record.CREATE, "d/a", "", b""),
        (record.WRITE, "", "", b"text"),
        (record.MARK, "", "", b"half done"),
        (record.RENAME, "d/a", "b", b""),
        (record.SYMLINK, "s", "", b"b"),
        (record.LINK, "b", "c", b""),
        (record.UNLINK, "s", "", b""),
        (record.SYNC, "", "", b""),
        (record.UNLINK, "d", "", b""),
        (record.SYNC_ALL, "", "", b""),
    ]
    assert record.marks(events) == ["half done"]
    assert events[-3].file == events[0].file


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import mmap; mmap.mmap(file.fileno(), 4)", "mmap"),
        ("os.rename(folder / 'f', folder.parent / 'f')", "elsewhere"),
        (
            "os.sendfile(file.fileno(), os.open(__import__('os').__file__, 0), 0, 4)",
            "sendfile",
        ),
    ],
)
def test_what_the_model_does_not_know_is_not_overlooked(
    code: str, what: str, recorded: Recorded
) -> None:
    """A program that writes in another way makes the test fail, not pass."""
    begin = "file = open(folder / 'f', 'w+b', 0)\nfile.write(b'1234')\n"
    with pytest.raises(ValueError, match=what):
        recorded(begin + code)


def test_threads_are_recorded_as_they_have_changed_the_folder(
    recorded: Recorded,
) -> None:
    """No event of one thread is inside one of another, and none is missing."""
    events = recorded(
        "def work(number):\n"
        "    for _ in range(200):\n"
        "        with open(folder / 'f', 'ab') as file:\n"
        "            file.write(bytes([number]) * 100)\n"
        "threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]\n"
    )
    writes = [event for event in events if event.kind == record.WRITE]
    assert [event.place for event in writes] == list(range(0, 80_000, 100))


def test_what_sqlite_has_committed_survives_every_cut(
    recorded: Recorded, tmp_path: pathlib.Path
) -> None:
    """A database that syncs each commit loses none, and one that does not loses some.

    So the recorder sees all that SQLite writes, and the model keeps what disks promise.
    """
    lost = {}
    for setting in ("FULL", "OFF"):
        events = recorded(
            f"path = folder / {setting!r}\n"
            "link = sqlite3.connect(path, isolation_level=None)\n"
            "link.execute('PRAGMA journal_mode=WAL')\n"
            f"link.execute('PRAGMA synchronous={setting}')\n"
            "link.execute('CREATE TABLE t (n, text)')\n"
            "recorder.power_cut_mark(b'0')\n"
            "for number in range(40):\n"
            "    link.execute('INSERT INTO t VALUES (?, ?)', (number, 'x' * 999))\n"
            "    recorder.power_cut_mark(b'%d' % (number + 1))\n"
            "    if number % 15 == 14:\n"
            "        link.execute('PRAGMA wal_checkpoint(TRUNCATE)')\n"
            "link.close()\n"
        )
        begin = next(i for i, e in enumerate(events) if e.kind == record.MARK)
        lost[setting] = losses(events, begin, setting, tmp_path)
    assert not lost["FULL"]
    assert lost["OFF"]


def losses(
    events: list[Event], begin: int, name: str, tmp_path: pathlib.Path
) -> list[str]:
    """The cuts after which a database lacks a commit, or is damaged."""
    found = []
    for number, (moment, how, tree) in enumerate(
        disk.cuts(events, 120, random.Random(0))
    ):
        if moment <= begin:
            continue
        committed = int(record.marks(events[:moment])[-1])
        place = tmp_path / f"{name}-{number}"
        disk.write(tree, place)
        try:
            with contextlib.closing(sqlite3.connect(place / name)) as link:
                rows = link.execute("SELECT n FROM t ORDER BY rowid").fetchall()
                (state,) = link.execute("PRAGMA integrity_check").fetchone()
        except sqlite3.Error:
            rows, state = [], "damaged"
        if state != "ok" or [n for (n,) in rows][:committed] != list(range(committed)):
            found.append(f"{moment}: {how}")
    return found


def test_a_program_that_fails_is_reported(recorded: Recorded) -> None:
    """A record that ends early would test nothing."""
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        recorded("1 / 0")


def test_a_tree_is_written_as_it_is_read(tmp_path: pathlib.Path) -> None:
    """What a cut leaves is laid out for a program to open."""
    tree: disk.Tree = {"d": None, "d/f": b"x", "s": pathlib.PurePosixPath("d/f")}
    disk.write(tree, tmp_path / "new")
    assert disk.read(tmp_path / "new") == tree
    assert os.path.samefile(tmp_path / "new" / "s", tmp_path / "new" / "d" / "f")
    assert sys.platform != "linux" or (tmp_path / "new" / "s").is_symlink()
