"""The stores on a disk: damage, failures and kills lose nothing else."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pickle
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from population import ParamsError
from population.base import LostParamsError
from population.params import FileParams
from tests.params.stores import ON_DISK, complete, files_of


def tree_of(number: float) -> dict[str, Any]:
    """A tree with some leaves of each kind."""
    return {"w": jnp.full(300, number), "h": np.full(300, number), "s": "text"}


def test_missing_params_are_named(on_disk: Any) -> None:
    """The message says which are missing."""
    with pytest.raises(LostParamsError, match=r"gone-1\.x are missing"):
        on_disk.load("gone-1.x")


@pytest.mark.parametrize("name", ["../a", "g/../../a", "/tmp/a", ".."])
def test_a_name_that_leads_out_of_the_folder_is_refused(
    on_disk: Any, name: str, tmp_path: pathlib.Path
) -> None:
    """A generation's name never writes, reads or removes outside of the store."""
    with pytest.raises(ValueError, match="must stay within the folder"):
        on_disk.save(name, tree_of(1))
    with pytest.raises(ParamsError, match="not in this store"):
        on_disk.load(name)
    assert not list(tmp_path.iterdir())


def test_what_the_store_has_not_written_is_never_removed(
    on_disk: Any, tmp_path: pathlib.Path
) -> None:
    """A path of another form, or outside, is not touched, whatever a journal says."""
    saved = on_disk.save("g/1", tree_of(1))
    name = pathlib.Path(saved).name
    inner = type(on_disk)(tmp_path / "g" / "inner")
    foreign = [tmp_path / "g" / "notes.txt", tmp_path / "g" / f"{name}.bak"]
    for file in foreign:
        file.write_text("mine")
    for path in ("g/notes.txt", f"g/{name}.bak", "g", ".", "", str(tmp_path / saved)):
        on_disk.remove(path)
    inner.remove(f"../{name}")
    assert on_disk.names("g") == [saved]
    assert all(file.read_text() == "mine" for file in foreign)
    on_disk.load(saved)


def test_a_pickled_store_finds_the_saves(on_disk: Any) -> None:
    """A store is sent to other processes; paths are relative to its folder."""
    saved = on_disk.save("g/1", tree_of(1))
    assert not os.path.isabs(saved)
    found = pickle.loads(pickle.dumps(on_disk)).load(saved)
    np.testing.assert_array_equal(found["w"], np.ones(300))


def test_a_folder_may_be_moved(on_disk: Any, tmp_path: pathlib.Path) -> None:
    """Paths in a journal stay valid when the run folder is renamed."""
    make = type(on_disk)
    saved = make(tmp_path / "before").save("g/1", tree_of(1))
    (tmp_path / "before").rename(tmp_path / "after")
    found = make(tmp_path / "after").load(saved)
    np.testing.assert_array_equal(found["w"], np.ones(300))


def test_a_relative_folder_is_where_the_process_began(
    on_disk: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`OrbaxParams("params")` means the same as the absolute path."""
    monkeypatch.chdir(tmp_path)
    saved = type(on_disk)("params").save("g/1", tree_of(1))
    assert (tmp_path / "params" / saved).exists()


@pytest.mark.parametrize("folder", ["params", "./a/../params", "a/link/../params"])
def test_the_folder_stays_when_the_process_changes_its_own(
    folder: str, on_disk: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store with a relative path saves, loads and removes in the first folder."""
    (tmp_path / "a").mkdir()
    (tmp_path / "other" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "link").symlink_to(tmp_path / "other" / "deep")
    monkeypatch.chdir(tmp_path)
    store = type(on_disk)(folder)
    real = (tmp_path / folder).resolve()
    saved = store.save("g/1", tree_of(1))
    monkeypatch.chdir(tmp_path / "other" / "deep")
    assert (real / saved).exists()
    other = store.save("g/2", tree_of(2))
    store.claim("ab", "x")
    assert store.names("g") == sorted([saved, other])
    assert store.claimed("ab") == "x"
    store.load(saved)
    store.remove(saved)
    assert store.names("g") == [other]
    assert not list((tmp_path / "other" / "deep").iterdir())


def test_a_file_that_was_cut_or_lost_is_damage(
    on_disk: Any, tmp_path: pathlib.Path
) -> None:
    """This holds for each file of a save and each length: never a short tree."""
    saved = on_disk.save("g/1", tree_of(1))
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "g", kept)
    for file in files_of(tmp_path, saved):
        size = file.stat().st_size
        for end in (None, 0, size // 2, size - 1):
            if end is None:
                file.unlink()
            else:
                os.truncate(file, end)
            for like in (None, tree_of(0)):
                with pytest.raises(LostParamsError, match=r"damaged|missing|not whole"):
                    on_disk.load(saved, like)
            shutil.copytree(kept, tmp_path / "g", dirs_exist_ok=True)
    on_disk.load(saved, tree_of(0))


def test_a_flipped_bit_is_damage(on_disk: Any, tmp_path: pathlib.Path) -> None:
    """A save with changed bytes is not a checkpoint to continue from."""
    saved = on_disk.save("g/1", tree_of(1))
    choose = random.Random(0)
    for file in files_of(tmp_path, saved):
        content = file.read_bytes()
        for position in {
            0,
            len(content) - 1,
            *choose.choices(range(len(content)), k=9),
        }:
            damaged = bytearray(content)
            damaged[position] ^= 1 << choose.randrange(8)
            file.write_bytes(damaged)
            for like in (None, tree_of(0)):
                with pytest.raises(LostParamsError, match="are damaged"):
                    on_disk.load(saved, like)
        file.write_bytes(content)
    on_disk.load(saved, tree_of(0))


def folders_and_files(folder: pathlib.Path) -> list[str]:
    """All files and folders in a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("function", "number"), [("write", 1), ("replace", 1), ("open", 1)]
)
def test_a_failed_save_leaves_the_previous_params(
    function: str,
    number: int,
    on_disk: Any,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A writer that fails in the middle leaves neither a save nor a temporary file."""
    before = on_disk.save("g/1", tree_of(1))
    lies = folders_and_files(tmp_path)
    original, calls = getattr(os, function), []

    def failing(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        if len(calls) == number:
            raise OSError(28, "No space left on device")
        return original(*arguments, **named)

    monkeypatch.setattr(os, function, failing)
    with pytest.raises(OSError, match="No space left"):
        on_disk.save("g/1", tree_of(2))
    monkeypatch.undo()
    assert folders_and_files(tmp_path) == lies
    np.testing.assert_array_equal(on_disk.load(before)["w"], np.ones(300))


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files and folders that are synced, in their order."""
    order: list[str] = []
    sync = os.fsync

    def fsync(handle: int) -> None:
        order.append(os.readlink(f"/proc/self/fd/{handle}"))
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return order


def test_a_save_waits_for_no_disk(on_disk: Any, synced: list[str]) -> None:
    """Only `sync` does: a report of `durability="process"` needs none."""
    on_disk.save("deep/g/1", tree_of(1))
    assert synced == []


def test_a_synced_save_survives_a_power_cut_with_its_folders(
    on_disk: Any, tmp_path: pathlib.Path, synced: list[str]
) -> None:
    """Its content is synced, then its name and those of all folders down to it."""
    saved = on_disk.save("deep/g/1", tree_of(1))
    on_disk.sync([saved])
    files = {str(file) for file in files_of(tmp_path, saved)}
    folder = tmp_path / "deep" / "g"
    names = {str(folder), str(folder.parent), str(tmp_path), str(tmp_path.parent)}
    assert files | names <= set(synced)
    content = [n for n, place in enumerate(synced) if saved in place]
    assert max(content) < min(n for n, place in enumerate(synced) if place in names)
    assert len(synced) == len(set(synced))


def test_many_saves_of_a_folder_are_synced_with_one_sync_of_its_names(
    on_disk: Any, tmp_path: pathlib.Path, synced: list[str]
) -> None:
    """The names of the folders above are on the disk already."""
    on_disk.sync([on_disk.save("g/0", tree_of(1)), on_disk.save("h/0", tree_of(1))])
    saved = [on_disk.save(f"{folder}/1", tree_of(1)) for folder in "gghh"]
    synced.clear()
    on_disk.sync(saved)
    others = [place for place in synced if not any(path in place for path in saved)]
    assert sorted(others) == [str(tmp_path / "g"), str(tmp_path / "h")]
    synced.clear()
    on_disk.sync([on_disk.save("new/0", tree_of(1))])
    assert {str(tmp_path / "new"), str(tmp_path)} <= set(synced)


def test_folders_above_a_new_store_are_synced_too(
    on_disk: Any, tmp_path: pathlib.Path, synced: list[str]
) -> None:
    """The store has made them; those that were there before are not its business."""
    store = type(on_disk)(tmp_path / "a" / "b")
    store.sync([store.save("g/1", tree_of(1))])
    places = {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}
    assert {str(place) for place in places} <= set(synced)
    assert str(tmp_path.parent) not in synced


def test_what_is_missing_or_outside_is_not_synced(
    on_disk: Any, tmp_path: pathlib.Path, synced: list[str]
) -> None:
    """It may have been removed meanwhile."""
    gone, kept = on_disk.save("g/1", tree_of(1)), on_disk.save("g/2", tree_of(1))
    on_disk.remove(gone)
    on_disk.sync([gone, "h/1-01234567.x", "../x", "/etc/passwd", f"{kept}/x", kept])
    assert not [place for place in synced if "etc" in place]
    assert all(str(f) in synced for f in files_of(tmp_path, kept))


def test_a_failed_sync_is_an_error(
    on_disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The save itself stays; the caller knows that it may not survive a power cut."""
    saved = on_disk.save("g/1", tree_of(1))

    def fail(handle: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output"):
            on_disk.sync([saved])
    on_disk.sync([saved])
    on_disk.load(saved)


WRITER = """
import os, pickle, shutil, signal, sys
import jax.numpy as jnp
import numpy as np

store = pickle.load(open(sys.argv[1], "rb"))
place, when, name = (sys.argv[2].split() + [None] * 3)[:3]


def save(n):
    tree = {"n": n, "w": jnp.full(20_000, float(n)), "h": np.full(20_000, float(n))}
    return store.save(f"g/{n}", tree)


def die(*ignored, **named):
    os.kill(os.getpid(), signal.SIGKILL)


first = save(0)
if when:
    module = {"os": os, "shutil": shutil}[place]
    do = getattr(module, name)
    setattr(module, name, die if when == "before" else lambda *a: (do(*a), die()))
print("ready", flush=True)
if name == "rmtree":
    store.remove(first)
n = 0
while True:
    n += 1
    save(n)
    print(n, flush=True)
"""


@contextlib.contextmanager
def start_writer(store: Any, folder: pathlib.Path, point: str) -> Iterator[Any]:
    """A process that saves until it dies, at the latest when the test ends."""
    pickled = folder / f"{point}.store"
    pickled.write_bytes(pickle.dumps(store))
    root = str(pathlib.Path(__file__).resolve().parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(pickled), point],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root, "JAX_PLATFORMS": "cpu"},
    ) as writer:
        try:
            yield writer
        finally:
            writer.kill()


def assert_whole(store: Any) -> list[int]:
    """Everything with the name of a save can be loaded; returns the numbers."""
    numbers = []
    for path in complete(store, "g"):
        tree = store.load(path)
        for name in ("w", "h"):
            np.testing.assert_array_equal(tree[name], np.full(20_000, float(tree["n"])))
        numbers.append(tree["n"])
    return sorted(numbers)


def assert_goes_on(store: Any) -> None:
    """Temporary files are refused, may be removed, and block nothing."""
    drafts = set(store.names("g")) - set(complete(store, "g"))
    for draft in drafts:
        with pytest.raises(LostParamsError, match="not whole"):
            store.load(draft)
        store.remove(draft)
    assert store.names("g") == complete(store, "g")
    before = assert_whole(store)
    one = np.ones(20_000)
    store.save("g/1", {"n": 1, "w": one, "h": one})
    assert assert_whole(store) == sorted([*before, 1])


# Where the writer dies, and which saves are complete then: 0 was saved, 1 was begun.
POINTS = {
    "files": {
        "os before write": [0],
        "os before replace": [0],
        "os after replace": [0, 1],
    },
    "orbax": {
        "os before rename": [0],  # Orbax has not renamed its part yet.
        "os before write": [0],
        "os before replace": [0],
        "os after replace": [0, 1],
    },
}


@pytest.mark.parametrize("kind", ON_DISK)
def test_a_kill_in_the_middle_of_a_save_leaves_the_whole_or_nothing(
    kind: str, tmp_path: pathlib.Path
) -> None:
    """SIGKILL at named points: everything with the name of a save is complete."""
    with contextlib.ExitStack() as stack:
        stores = {point: ON_DISK[kind](tmp_path / point) for point in POINTS[kind]}
        writers = {
            point: stack.enter_context(start_writer(store, tmp_path, point))
            for point, store in stores.items()
        }
        for point, writer in writers.items():
            assert writer.communicate(timeout=120) == ("ready\n", None), point
            assert writer.returncode == -signal.SIGKILL
    for point, store in stores.items():
        assert assert_whole(store) == POINTS[kind][point]
        killed = point != "os after replace"
        assert len(store.names("g")) == len(complete(store, "g")) + killed
        assert_goes_on(store)


def test_a_kill_in_the_middle_of_a_removal_leaves_nothing_that_looks_whole(
    tmp_path: pathlib.Path,
) -> None:
    """A partly removed save is not loaded, and can be removed again."""
    store = ON_DISK["orbax"](tmp_path / "store")
    with start_writer(store, tmp_path, "shutil before rmtree") as writer:
        writer.communicate(timeout=120)
    assert writer.returncode == -signal.SIGKILL
    (path,) = store.names("g")
    with pytest.raises(LostParamsError, match="not whole"):
        store.load(path)
    store.remove(path)
    assert store.names("g") == []


@pytest.mark.parametrize("kind", ON_DISK)
def test_random_kills_leave_only_whole_saves(kind: str, tmp_path: pathlib.Path) -> None:
    """A process that is killed anywhere, many times, leaves what it had finished."""
    choose = random.Random(0)
    store = ON_DISK[kind](tmp_path / "store")
    for attempt in range(2):
        with start_writer(store, tmp_path, f"{attempt}") as writer:
            assert writer.stdout.readline() == "ready\n"
            for _ in range(choose.randrange(1, 20)):
                writer.stdout.readline()
            writer.kill()
            rest = writer.stdout.read().split()
        finished = int(rest[-1]) if rest else 0
        assert set(range(finished + 1)) <= set(assert_whole(store))
    assert_goes_on(store)


@pytest.mark.parametrize("how", ["removed", "moved", "made anew"])
def test_a_store_that_is_replaced_while_it_is_used_says_so_once(
    how: str, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Earlier saves are gone, and each save would make the folder again."""
    store = FileParams(tmp_path / "store")
    store.save("a", {"w": np.ones(1)})
    if how == "moved":
        (tmp_path / "store").rename(tmp_path / "elsewhere")
    else:
        (tmp_path / "store").rename(tmp_path / "gone")  # Its inode is not reused.
    if how == "made anew":
        (tmp_path / "store").mkdir()
    for _ in range(3):
        store.save("a", {"w": np.ones(1)})
    assert caplog.text.count("removed, moved or replaced") == 1
