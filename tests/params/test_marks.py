"""The mark of a run in a store: what `claim` writes and `claimed` reads."""

from __future__ import annotations

import json
import os
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys
from concurrent import futures
from typing import Any

import numpy as np
import pytest

from population.base import durable
from population.params import OrbaxParams
from tests.params.stores import ON_DISK

TREE = {"w": np.ones(1)}


def test_what_was_claimed_is_found(on_disk: Any, tmp_path: pathlib.Path) -> None:
    """Each run has its last text, for every process that opens the folder."""
    assert on_disk.claimed("ab") is None
    for text in ("first", "second", 'any "text" é \udcff\n' * 100):
        on_disk.claim("ab", text)
        again = type(on_disk)(tmp_path)
        assert again.claimed("ab") == text
        assert pickle.loads(pickle.dumps(on_disk)).claimed("ab") == text
    on_disk.claim("cd", "other")
    assert on_disk.claimed("ab") == text
    assert on_disk.claimed("cd") == "other"
    assert sorted(os.listdir(tmp_path / ".runs")) == ["ab.json", "cd.json"]


def test_the_marks_are_no_saves(on_disk: Any) -> None:
    """They are neither listed nor removed, and nothing is saved among them."""
    on_disk.claim("ab", "x")
    saved = on_disk.save("g/1", TREE)
    assert on_disk.names("") == on_disk.names(".runs") == on_disk.names("./.runs") == []
    suffix = pathlib.Path(saved).suffix
    for path in (".runs", ".runs/ab.json", f".runs/x-01234567{suffix}", "./.runs"):
        on_disk.remove(path)
    for name in (".runs/1", "./.runs/1", ".runs"):
        with pytest.raises(ValueError, match="must stay within"):
            on_disk.save(name, TREE)
    assert on_disk.claimed("ab") == "x"


@pytest.mark.parametrize("run", ["", "a/b", "../x", "a b", "a\n", "é", ".", None, 3])
def test_another_word_is_no_token(on_disk: Any, run: Any, tmp_path: Any) -> None:
    """The token becomes the name of a file."""
    with pytest.raises(ValueError, match="run must be a token"):
        on_disk.claim(run, "x")
    with pytest.raises(ValueError, match="run must be a token"):
        on_disk.claimed(run)
    assert not list(tmp_path.iterdir())


def test_a_copied_store_has_no_claims(on_disk: Any, tmp_path: pathlib.Path) -> None:
    """A copied mark does not count for the copy."""
    make = type(on_disk)
    store = make(tmp_path / "store")
    store.claim("ab", "x")
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    copy = make(tmp_path / "copy")
    assert (store.claimed("ab"), copy.claimed("ab")) == ("x", None)
    copy.claim("ab", "y")
    assert (store.claimed("ab"), copy.claimed("ab")) == ("x", "y")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"\xff",
        b"\x00" * 100,
        b"[" * 100_000,
        b'{"text": "x"}',
        b'{"text": 3, "root": []}',
        b'{"text": "x", "root": null}',
    ],
)
def test_a_mark_that_cannot_be_read_is_none(
    on_disk: Any, content: bytes, tmp_path: pathlib.Path
) -> None:
    """The next claim replaces it."""
    on_disk.claim("ab", "x")
    (tmp_path / ".runs" / "ab.json").write_bytes(content)
    assert on_disk.claimed("ab") is None
    on_disk.claim("ab", "y")
    assert on_disk.claimed("ab") == "y"


def test_a_text_of_another_kind_is_none(on_disk: Any, tmp_path: pathlib.Path) -> None:
    """The rest of the mark may be valid."""
    on_disk.claim("ab", "x")
    file = tmp_path / ".runs" / "ab.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "text": 3}))
    assert on_disk.claimed("ab") is None


@pytest.mark.parametrize("what", ["folder", "pipe"])
def test_a_mark_that_cannot_be_read_is_not_taken_for_none(
    on_disk: Any, what: str, tmp_path: pathlib.Path
) -> None:
    """Otherwise a copy would take over the store; and a pipe must not block."""
    (tmp_path / ".runs").mkdir()
    place = tmp_path / ".runs" / "ab.json"
    place.mkdir() if what == "folder" else os.mkfifo(place)
    with pytest.raises(OSError, match=r"regular|directory"):
        on_disk.claimed("ab")


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_failed_claim_leaves_the_last_one(
    function: str, on_disk: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new mark is written beside the old one and then replaces it."""
    on_disk.claim("ab", "x")

    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="No space left"):
        on_disk.claim("ab", "y")
    assert on_disk.claimed("ab") == "x"
    assert os.listdir(tmp_path / ".runs") == ["ab.json"]


KILLED = """
import os, pickle, signal, sys
store = pickle.load(open(sys.argv[1], "rb"))
os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
store.claim("ab", "y")
"""


@pytest.mark.parametrize("kind", ON_DISK)
def test_a_kill_in_the_middle_of_a_claim_leaves_the_last_one(
    kind: str, tmp_path: pathlib.Path
) -> None:
    """It does not block the next claim."""
    store = ON_DISK[kind](tmp_path / "store")
    store.claim("ab", "x")
    (tmp_path / "pickled").write_bytes(pickle.dumps(store))
    root = str(pathlib.Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "pickled")],
        env={**os.environ, "PYTHONPATH": root, "JAX_PLATFORMS": "cpu"},
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL
    assert store.claimed("ab") == "x"
    store.claim("ab", "z")
    assert store.claimed("ab") == "z"


def test_claims_at_once_leave_one_of_them(on_disk: Any) -> None:
    """A reader at that time finds one of the texts, complete."""
    texts = [str(number) * 2000 for number in range(8)]
    on_disk.claim("ab", texts[0])
    with futures.ThreadPoolExecutor(4) as pool:
        found = pool.map(
            lambda text: (on_disk.claim("ab", text), on_disk.claimed("ab"))[1], texts
        )
        assert set(found) <= set(texts)


def test_in_a_bucket_the_mark_keeps_its_url(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no inode; here the bucket is a folder in which nothing is renamed."""
    store = OrbaxParams(tmp_path / "bucket")
    monkeypatch.setattr(store, "in_bucket", True)
    monkeypatch.setattr(os, "replace", None)
    monkeypatch.setattr(durable, "sync", None)
    assert store.claimed("ab") is None
    store.claim("ab", "x")
    assert store.claimed("ab") == "x"
    shutil.copytree(tmp_path / "bucket", tmp_path / "copy")
    copy = OrbaxParams(tmp_path / "copy")
    monkeypatch.setattr(copy, "in_bucket", True)
    assert copy.claimed("ab") is None
    assert store.names(".runs") == store.names("") == []
