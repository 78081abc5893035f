"""The store of files: foreign contents, stale temporary files, damage."""

from __future__ import annotations

import pathlib
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from population import ParamsError
from population.params import FileParams
from tests.params.stores import complete
from tests.params.trees import linen_state


def test_one_save_is_one_file(tmp_path: pathlib.Path) -> None:
    """For every tree there is one file, and nothing beside it."""
    FileParams(tmp_path).save("g/1", linen_state(1.0))
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 1


@pytest.mark.parametrize(
    "url", ["gs://bucket/x", "s3://bucket/x", "file:///tmp/x", pathlib.Path("gs:/b/x")]
)
def test_a_bucket_is_no_folder_of_files(
    url: str | pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would make a local folder `gs:`; the message names the store to use."""
    monkeypatch.chdir(tmp_path)
    whole = "gs://b/x" if isinstance(url, pathlib.Path) else url
    with pytest.raises(ValueError, match=f"OrbaxParams\\('{whole}'\\)"):
        FileParams(url)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a:b", "C:/x", "g:/x", "a:/x", "1gs:/x", "x:y/z"])
def test_a_colon_alone_makes_no_url(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders may have any name."""
    monkeypatch.chdir(tmp_path)
    store = FileParams(name)
    store.load(store.save("g/1", {"a": 1}))
    assert (tmp_path / name / "g").is_dir()


@pytest.mark.parametrize("cut", [0, 1, 10, 0.25, 0.5, 0.9, -1])
def test_a_truncated_file_is_damaged(tmp_path: pathlib.Path, cut: float) -> None:
    """A short file is never a short tree."""
    store = FileParams(tmp_path)
    saved = store.save("a", {"w": np.arange(100.0), "b": np.ones(3)})
    file = tmp_path / saved
    content = file.read_bytes()
    end = int(cut * len(content)) if isinstance(cut, float) else cut
    file.write_bytes(content[:end])
    for like in (None, {"w": np.arange(100.0), "b": np.ones(3)}):
        with pytest.raises(ParamsError, match="are damaged"):
            store.load(saved, like)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 1000,
        b"not safetensors at all",
        b"\xc1" * 10,
        b"\x80",
        b"\x93\x01\x02\x03",
        b"\xc0",
        b"\x01",
        b"\x82\xa6layout\xc0\xa6leaves\xc0",
        b"\x82\xa6layout\x01\xa6leaves\x80",
        b"\x82\xa6layout\xa4oops\xa6leaves\x80",
        b'\x82\xa6layout\xa6"jax""\xa6leaves\x80',
        b'\x82\xa6layout\xa5"jax"\xa6leaves\x80',
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 5000,
    ],
)
def test_a_file_of_something_else_is_damaged(
    tmp_path: pathlib.Path, garbage: bytes
) -> None:
    """Whatever is in the file, the error is the library's and names the file."""
    store = FileParams(tmp_path)
    saved = store.save("a", {"w": np.ones(3)})
    (tmp_path / saved).write_bytes(garbage)
    for like in (None, {"w": np.ones(3)}):
        with pytest.raises(ParamsError, match="safetensors"):
            store.load(saved, like)


def test_a_flipped_bit_is_never_another_exception(tmp_path: pathlib.Path) -> None:
    """Each byte of a file is changed in turn: it loads, or it is a ParamsError."""
    store = FileParams(tmp_path)
    tree = {"w": jnp.arange(2.0), "k": (jax.random.key(1), np.float32(1)), "s": "x"}
    saved = store.save("a", tree)
    file = tmp_path / saved
    content = file.read_bytes()
    choose, others = random.Random(0), []
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << choose.randrange(8)
        file.write_bytes(damaged)
        for like in (None, tree):
            try:
                store.load(saved, like)
            except ParamsError:
                pass
            except Exception as error:
                others.append((position, like is None, repr(error)))
    assert others == []


def test_a_stale_temporary_does_not_block(tmp_path: pathlib.Path) -> None:
    """What a killed writer left is not a save."""
    store = FileParams(tmp_path)
    before = store.save("g/1", {"a": 1})
    for stale in (f".{pathlib.Path(before).name}.0.tmp", ".1.safetensors.tmp", "1.tmp"):
        (tmp_path / "g" / stale).write_bytes(b"half")
    after = store.save("g/1", {"a": 2})
    assert (store.load(before), store.load(after)) == ({"a": 1}, {"a": 2})
    assert complete(store, "g") == sorted([before, after])
