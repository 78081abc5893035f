"""Links in a store's folder: nothing outside is removed, written or listed."""

from __future__ import annotations

import os
import pathlib
import shutil

import numpy as np
import pytest

from population import ParamsError
from population.params import FileParams, OrbaxParams
from tests.params.stores import ON_DISK
from tests.params.test_disk import folders_and_files

TREE = {"w": np.arange(3.0)}


@pytest.fixture
def places(tmp_path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A store's folder, and one beside it."""
    (tmp_path / "store").mkdir()
    (tmp_path / "other").mkdir()
    return tmp_path / "store", tmp_path / "other"


@pytest.mark.parametrize("kind", ON_DISK)
@pytest.mark.parametrize("depth", ["g", "g/deep", "a/g"])
def test_a_folder_that_is_a_link_out_of_the_store_is_left_alone(
    kind: str, depth: str, places: tuple[pathlib.Path, pathlib.Path]
) -> None:
    """Two stores share a folder by a link: only the owner removes there."""
    root, other = places
    store, owner = ON_DISK[kind](root), ON_DISK[kind](other)
    saved = owner.save(f"{depth}/1", TREE)
    before = folders_and_files(other)
    link = root / depth.partition("/")[0]
    link.symlink_to(other / link.name)
    assert store.names(depth) == []
    store.remove(saved)
    assert folders_and_files(other) == before
    with pytest.raises(ParamsError, match=f"{link} is a link to .*real folder"):
        store.save(f"{depth}/2", TREE)
    with pytest.raises(ParamsError, match="is a link to"):
        store.save(f"{depth}/new/2", TREE)
    assert folders_and_files(other) == before
    np.testing.assert_array_equal(store.load(saved)["w"], TREE["w"])  # Unchanged.
    assert owner.names(depth) == [saved]


@pytest.mark.parametrize("kind", ON_DISK)
def test_a_link_in_the_place_of_a_save_is_removed_alone(
    kind: str, places: tuple[pathlib.Path, pathlib.Path]
) -> None:
    """Its target stays, whether it is a file, a folder or nothing."""
    root, other = places
    store, owner = ON_DISK[kind](root), ON_DISK[kind](other)
    saved = owner.save("g/1", TREE)
    before = folders_and_files(other)
    (root / "g").mkdir()
    for target in (other / saved, other / "g", other / "gone", root / saved):
        (root / saved).symlink_to(target)
        assert store.names("g") == [saved]
        store.remove(saved)
        assert not os.path.lexists(root / saved)
    assert folders_and_files(other) == before


def test_links_within_a_save_of_orbax_are_not_followed(
    places: tuple[pathlib.Path, pathlib.Path],
) -> None:
    """If its arrays and head are elsewhere, they stay there."""
    root, other = places
    store = OrbaxParams(root)
    tree = {"w": np.ones(3), "j": np.ones(2)}
    saved = store.save("g/1", tree)
    (other / "arrays").mkdir()
    (other / "arrays" / "mine").write_text("mine")
    shutil.move(root / saved / "head.msgpack", other / "head")
    (root / saved / "head.msgpack").symlink_to(other / "head")
    (root / saved / "arrays").symlink_to(other / "arrays")
    before = folders_and_files(other)
    np.testing.assert_array_equal(store.load(saved)["w"], np.ones(3))
    store.remove(saved)
    assert folders_and_files(other) == before
    assert store.names("g") == []


@pytest.mark.parametrize("kind", ON_DISK)
def test_the_folder_itself_may_be_a_link(
    kind: str, places: tuple[pathlib.Path, pathlib.Path]
) -> None:
    """Folders above it may be links too: only links below it are checked."""
    root, other = places
    (other / "here").mkdir()
    (root / "link").symlink_to(other)
    (root / "root").symlink_to(root / "link" / "here")
    for place in (root / "root", root / "link" / "here", root / "link" / "new"):
        store = ON_DISK[kind](place)
        saved = store.save("g/1", TREE)
        store.load(saved)
        store.claim("ab", "x")
        assert (store.names("g"), store.claimed("ab")) == ([saved], "x")
        store.remove(saved)
        assert store.names("g") == []


@pytest.mark.parametrize("kind", ON_DISK)
def test_a_link_to_another_place_within_the_store_is_a_folder_like_others(
    kind: str, places: tuple[pathlib.Path, pathlib.Path]
) -> None:
    """Its target is inside, so nothing is refused."""
    root, _ = places
    store = ON_DISK[kind](root)
    (root / "real").mkdir()
    (root / "g").symlink_to("real")
    saved = store.save("g/1", TREE)
    assert store.names("g") == [saved]
    store.remove(saved)
    assert store.names("real") == []


@pytest.mark.parametrize("kind", ON_DISK)
def test_a_link_that_leads_nowhere_is_no_folder(
    kind: str, places: tuple[pathlib.Path, pathlib.Path]
) -> None:
    """It leads to itself, or to a missing target outside: nothing is made there."""
    root, other = places
    store = ON_DISK[kind](root)
    (root / "g").symlink_to("g")
    (root / "h").symlink_to(other / "gone")
    for folder in "gh":
        assert store.names(folder) == []
        store.remove(f"{folder}/1-01234567.{'msgpack' if kind == 'files' else 'orbax'}")
        with pytest.raises(ParamsError, match="is a link to"):
            store.save(f"{folder}/1", TREE)
        with pytest.raises(ParamsError):
            store.load(f"{folder}/1-01234567.x")
    assert folders_and_files(other) == []


@pytest.mark.parametrize("kind", ON_DISK)
def test_a_claim_is_not_written_through_a_link(
    kind: str, places: tuple[pathlib.Path, pathlib.Path]
) -> None:
    """The marks of another store are not changed; a link as the mark is replaced."""
    root, other = places
    store, owner = ON_DISK[kind](root), ON_DISK[kind](other)
    owner.claim("ab", "theirs")
    (root / ".runs").symlink_to(other / ".runs")
    with pytest.raises(ParamsError, match=r"\.runs is a link to"):
        store.claim("ab", "mine")
    with pytest.raises(ParamsError, match=r"\.runs is a link to"):
        store.claimed("ab")
    (root / ".runs").unlink()
    (root / ".runs").mkdir()
    (root / ".runs" / "ab.json").symlink_to(other / ".runs" / "ab.json")
    store.claim("ab", "mine")
    assert (store.claimed("ab"), owner.claimed("ab")) == ("mine", "theirs")


def test_something_else_in_the_place_of_a_save_is_left_or_unlinked(
    places: tuple[pathlib.Path, pathlib.Path],
) -> None:
    """A folder is not a save of files; a file or pipe is half a save of Orbax."""
    root, other = places
    files, orbax = FileParams(root), OrbaxParams(other)
    (root / "g" / "1-01234567.msgpack" / "mine").mkdir(parents=True)
    files.remove("g/1-01234567.msgpack")
    assert files.names("g") == []
    assert (root / "g" / "1-01234567.msgpack" / "mine").is_dir()
    (other / "g").mkdir()
    (other / "g" / "1-01234567.orbax").write_text("")
    os.mkfifo(other / "g" / "2-01234567.orbax")
    (other / "g" / "3-01234567.orbax" / "head.msgpack").mkdir(parents=True)
    assert len(orbax.names("g")) == 3
    for name in orbax.names("g"):
        orbax.remove(name)
    assert orbax.names("g") == []
    (root / "f").write_text("")
    files.remove("f/1-01234567.msgpack")
    orbax.remove("f/1-01234567.orbax")
