"""Params that cannot be read are a ParamsError, for every content and cause."""

from __future__ import annotations

import os
import pathlib
import shutil
import struct
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

from population import ParamsError
from population.base import LostParamsError
from population.params import (
    FileParams,
    OrbaxParams,
    disk,
    folders,
    kinds,
    orbax,
    trees,
)
from tests.params.stores import ON_DISK, files_of
from tests.params.trees import PLAIN, assert_alike

TREE = {"w": jnp.arange(3.0), "n": np.ones(2), "s": "text"}


def assert_refused(store: Any, saved: str, match: str, *, lost: bool = False) -> None:
    """With and without a tree to fit; an error that may pass is the cause."""
    for like in (None, TREE):
        with pytest.raises(ParamsError, match=match) as raised:
            store.load(saved, like)
        assert (raised.value.__cause__ is None) == lost
        assert isinstance(raised.value, LostParamsError) == lost


def put_instead(file: pathlib.Path, what: str) -> None:
    """Replace a file by something that cannot be read."""
    file.unlink()
    match what:
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "device":
            file.symlink_to("/dev/zero")
        case "loop":
            file.symlink_to(file.name)
        case "broken disk":
            file.symlink_to("/proc/self/mem")  # To read it from the start is an EIO.


@pytest.mark.parametrize("what", ["folder", "pipe", "device", "loop", "broken disk"])
@pytest.mark.parametrize("kind", ON_DISK)
def test_what_is_no_readable_file_never_blocks(
    kind: str, what: str, tmp_path: pathlib.Path
) -> None:
    """A pipe without a writer would block a reader for ever, and so would a device."""
    store = ON_DISK[kind](tmp_path)
    saved = store.save("g/1", TREE)
    shutil.copytree(tmp_path / "g", tmp_path / "kept")
    for file in files_of(tmp_path, saved):
        put_instead(file, what)
        assert_refused(store, saved, r"cannot be read: .*Fix the cause")
        shutil.rmtree(tmp_path / "g")
        shutil.copytree(tmp_path / "kept", tmp_path / "g")
    store.load(saved, TREE)


@pytest.mark.parametrize("number", [5, 13, 24])
def test_an_error_of_the_system_is_chained(
    number: int, on_disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a permission, too many files or a failing disk it advises to try again."""
    saved = on_disk.save("g/1", TREE)
    error = OSError(number, os.strerror(number))

    def fail(*arguments: Any, **named: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(ParamsError, match=os.strerror(number)) as raised:
            on_disk.load(saved)
        assert raised.value.__cause__ is error
        assert not isinstance(raised.value, LostParamsError)
    on_disk.load(saved)


@pytest.mark.parametrize("path", ["g/\0-1.x", "g/\ud800.x", ".runs/ab.json", "/", ""])
def test_a_path_that_no_save_has_is_a_params_error(on_disk: Any, path: str) -> None:
    """A damaged journal may name any text."""
    on_disk.save("g/1", TREE)
    on_disk.claim("ab", "x")
    with pytest.raises(ParamsError):
        on_disk.load(path)
    on_disk.remove(path)
    assert on_disk.claimed("ab") == "x"
    if path:
        with pytest.raises(ValueError, match="must stay within"):
            on_disk.save(path, TREE)


def sealed(body: bytes) -> bytes:
    """Any bytes as the content of a file with a valid checksum."""
    return b"POPP" + struct.pack(">I", zlib.crc32(body)) + body


def told(**content: Any) -> bytes:
    """A head or file with an invalid entry."""
    return sealed(serialization.msgpack_serialize(content))


LEAVES = {"['w']": np.ones(1)}
ONE = '{"w":"numpy"}'
NONSENSE: dict[str, bytes] = {
    "nothing": sealed(b""),
    "none": sealed(b"\xc0"),
    "a number": sealed(b"\x01"),
    "a text": sealed(b"\xa1a"),
    "a list": sealed(b"\x93\x01\x02\x03"),
    "an empty map": sealed(b"\x80"),
    "never used": sealed(b"\xc1" * 10),
    "deep lists": sealed(b"\x91" * 5000 + b"\xc0"),
    "deep maps": sealed(b"\x81\xa1a" * 900 + b"\xc0"),
    "a huge list": sealed(b"\xdd\xff\xff\xff\xff"),
    "a huge text": sealed(b"\xdb\xff\xff\xff\xff"),
    "a huge map": sealed(b"\xdf\xff\xff\xff\xff"),
    "bytes as an array": sealed(b"\xc7\x03\x01abc"),
    "another extension": sealed(b"\xd4\x63\x00"),
    "a key that is a list": sealed(b"\x81\x91\x01\x01"),
    "more than one": sealed(b"\x80\x80"),
    "half a chunked array": told(__msgpack_chunked_array__=True, shape={"0": 2}),
    "no leaves": told(layout=None),
    "no layout": told(leaves=LEAVES),
    "a layout of another kind": told(layout=3, leaves=LEAVES),
    "a layout of another codec": told(layout='{"!x":1}', leaves=LEAVES),
    "a deep layout": told(layout="[" * 100_000 + "]" * 100_000, leaves=LEAVES),
    "a layout of numbers": told(layout='{"w":1}', leaves=LEAVES),
    "other leaves": told(layout='{"v":"numpy"}', leaves=LEAVES),
    "no key": told(layout='{"w":"key:fry"}', leaves=LEAVES),
    "a layout that jax cannot sort": told(
        layout='{"!dict":[[1,"numpy"],["w","numpy"]]}', leaves=LEAVES
    ),
    "leaves in a list": told(layout=None, leaves=[1]),
    "leaves by number": told(layout=ONE, leaves={1: np.ones(1)}),
    "a leaf that is a list": told(layout=ONE, leaves={"['w']": [1]}),
    "a leaf that is none": told(layout=ONE, leaves={"['w']": None}),
    "a leaf of texts": told(layout=ONE, leaves={"['w']": np.array(["a"])}),
    "a leaf of dates": told(layout=ONE, leaves={"['w']": np.zeros(1, "M8[s]")}),
    "a path of another kind": told(layout=ONE, leaves=LEAVES, path=3),
}


def file_of(root: pathlib.Path, saved: str) -> pathlib.Path:
    """The file of a save that describes the save."""
    place = root / saved
    return place if place.is_file() else place / "head.msgpack"


@pytest.mark.parametrize("kind", ON_DISK)
def test_nonsense_with_a_right_checksum_is_a_params_error(
    kind: str, tmp_path: pathlib.Path
) -> None:
    """Another program or version wrote it: the error is not that of a reader."""
    store = ON_DISK[kind](tmp_path)
    saved = store.save("g/1", TREE)
    if kind == "files":  # Of an earlier version.
        saved = "g/1-0123abcd.msgpack"
        (tmp_path / saved).write_bytes(b"")
    file = file_of(tmp_path, saved)
    for name, content in NONSENSE.items():
        file.write_bytes(content)
        likes = [None, TREE]
        if "layout" in name or name in ("other leaves", "no key"):
            likes = [None]  # The entry is not needed if there is a tree to fit.
        for like in likes:
            with pytest.raises(ParamsError) as raised:
                store.load(saved, like)
            assert str(file).removesuffix("/head.msgpack") in str(raised.value), name
            assert len(str(raised.value)) < 1000, name


HEADS: list[dict[str, Any]] = [
    {"arrays": None},
    {"arrays": [1]},
    {"arrays": {1: {"name": "0", "shape": [3]}}},
    {"arrays": {"['w']": None}},
    {"arrays": {"['w']": {"name": "0"}}},
    {"arrays": {"['w']": {"name": "../0", "shape": [3]}}},
    {"arrays": {"['w']": {"name": "7", "shape": [3]}}},
    {"arrays": {"['w']": {"name": ["0"], "shape": [3]}}},
    {"arrays": {"['w']": {"name": "0", "shape": "abc"}}},
    {"files": None},
    {"files": [1]},
    {"files": {1: [1, 2]}},
    {"files": {"arrays/gone": [1, 2]}},
]


@pytest.mark.parametrize("change", HEADS, ids=[str(head) for head in HEADS])
def test_a_head_that_tells_of_other_arrays_is_a_params_error(
    change: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    """The error of Orbax or TensorStore is in the message."""
    store = OrbaxParams(tmp_path)
    saved = store.save("g/1", TREE)
    file = file_of(tmp_path, saved)
    head = serialization.msgpack_restore(file.read_bytes()[8:])
    file.write_bytes(b"".join(disk.packed({**head, **change})))
    for like in (None, TREE):
        with pytest.raises(ParamsError, match=str(tmp_path)):
            store.load(saved, like)


@pytest.mark.parametrize("raised", [RuntimeError, KeyError, MemoryError, EOFError])
def test_whatever_the_reader_raises_is_chained(
    raised: type[Exception], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orbax and TensorStore raise errors of any class; none of them means damage."""
    store = OrbaxParams(tmp_path)
    saved = store.save("g/1", TREE)

    def fail(*arguments: Any) -> None:
        raise raised("no idea")

    monkeypatch.setattr(orbax, "_read", fail)
    with pytest.raises(ParamsError, match=r"cannot be read: .*no idea") as caught:
        store.load(saved)
    assert isinstance(caught.value.__cause__, raised)


def test_an_interruption_is_none_of_these(
    on_disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while params are read ends the program, as everywhere."""
    saved = on_disk.save("g/1", TREE)

    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folders, "opened", interrupt)
    with pytest.raises(KeyboardInterrupt):
        on_disk.load(saved)


@pytest.mark.parametrize("kind", ON_DISK)
def test_the_content_of_another_save_is_refused(
    kind: str, tmp_path: pathlib.Path
) -> None:
    """Two files were exchanged: each is complete, but not the one in the journal."""
    store = ON_DISK[kind](tmp_path)
    first, second = store.save("g/1", TREE), store.save("h/1", TREE)
    one, other = (file_of(tmp_path, saved) for saved in (first, second))
    one.rename(tmp_path / "kept")
    other.rename(one)
    (tmp_path / "kept").rename(other)
    assert_refused(store, first, f"not those .* but those of '{second}'", lost=True)
    assert_refused(store, second, f"not those .* but those of '{first}'", lost=True)


@pytest.mark.parametrize("kind", ON_DISK)
def test_saves_may_move_with_their_folder(kind: str, tmp_path: pathlib.Path) -> None:
    """A generation's folder is copied, and opened as another store."""
    saved = ON_DISK[kind](tmp_path / "store").save("g/1", TREE)
    shutil.copytree(tmp_path / "store" / "g", tmp_path / "best")
    name = pathlib.Path(saved).name
    assert_alike(ON_DISK[kind](tmp_path / "best").load(name, TREE), TREE)
    assert_alike(ON_DISK[kind](tmp_path).load(f"best/{name}", TREE), TREE)


def test_a_save_of_an_earlier_version_is_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no path, so no path is checked."""
    packed: Callable[[dict[str, Any]], Any] = disk.packed

    def as_before(content: dict[str, Any]) -> Any:
        return packed({key: content[key] for key in content.keys() - {"path"}})

    monkeypatch.setattr(disk, "packed", as_before)
    store = OrbaxParams(tmp_path)
    saved = store.save("g/1", TREE)
    monkeypatch.undo()
    assert b"path" not in file_of(tmp_path, saved).read_bytes()[:40]
    assert_alike(store.load(saved), TREE)
    assert_alike(store.load(saved, TREE), TREE)


def old_file(folder: pathlib.Path, tree: Any) -> str:
    """A file as the versions before this format wrote it."""
    path = "g/1-0123abcd.msgpack"
    leaves = {name: kinds.to_host(x) for name, x in trees.by_path(tree).items()}
    content = {"path": path, "layout": trees.layout(tree), "leaves": leaves}
    (folder / "g").mkdir(exist_ok=True)
    (folder / path).write_bytes(b"".join(disk.packed(content)))
    return path


@pytest.mark.parametrize("name", PLAIN)
def test_a_file_of_the_earlier_format_is_read_for_ever(
    name: str, tmp_path: pathlib.Path
) -> None:
    """With every kind of leaf, and it may be changed like a new one."""
    saved, store = old_file(tmp_path, PLAIN[name]), FileParams(tmp_path)
    new = store.save("g/1", PLAIN[name])
    for like in (None, PLAIN[name]):
        assert_alike(store.load(saved, like), store.load(new, like))
    for leaf in jax.tree.leaves(store.load(saved)):
        assert not isinstance(leaf, np.ndarray) or leaf.flags.writeable


def test_a_file_of_the_earlier_format_is_damaged_as_before(
    tmp_path: pathlib.Path,
) -> None:
    """Each flipped bit is found."""
    saved, store = old_file(tmp_path, TREE), FileParams(tmp_path)
    content = (tmp_path / saved).read_bytes()
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 1
        (tmp_path / saved).write_bytes(damaged)
        with pytest.raises(LostParamsError, match="are damaged"):
            store.load(saved)


def test_a_file_of_the_earlier_format_is_listed_synced_and_removed(
    tmp_path: pathlib.Path,
) -> None:
    """A run that began with an earlier version does not fill up the disk."""
    saved, store = old_file(tmp_path, TREE), FileParams(tmp_path)
    assert store.names("g") == [saved]
    store.sync([saved])
    store.remove(saved)
    assert store.names("g") == []


def test_an_earlier_file_is_read_byte_by_byte(tmp_path: pathlib.Path) -> None:
    """It is as version 0.1.0 wrote it: four letters, a checksum, and Flax's msgpack."""
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "1-0123abcd.msgpack").write_bytes(
        told(layout='{"w":"numpy"}', leaves={"['w']": np.arange(2.0)})
    )
    found = FileParams(tmp_path).load("g/1-0123abcd.msgpack")
    np.testing.assert_array_equal(found["w"], np.arange(2.0))
