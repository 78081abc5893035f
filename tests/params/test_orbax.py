"""The store of Orbax: shardings, buckets, failures of TensorStore."""

from __future__ import annotations

import json
import os
import pathlib
import pickle
import re
import resource
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from population import ParamsError
from population.params import OrbaxParams, disk, orbax
from tests.params import sharded
from tests.params.trees import TREES, assert_alike, linen_state

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The error of each check in `tests.params.sharded`."""
    folder = tmp_path_factory.mktemp("sharded")
    store = OrbaxParams(folder / "here")
    tree = {"w": jnp.asarray(sharded.TREE["w"]), "n": sharded.TREE["n"]}
    (folder / "store").write_bytes(pickle.dumps((store, store.save("g/1", tree))))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.params.sharded", str(folder)],
        cwd=ROOT,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["devices"] == 8
    errors: dict[str, str] = found["errors"]
    return errors


@pytest.mark.parametrize("check", sharded.CHECKS)
def test_on_eight_devices(check: str, errors: dict[str, str]) -> None:
    """The promise is the docstring of the check in `tests.params.sharded`."""
    assert not errors[check], errors[check]


def test_other_processes_arrays_are_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process cannot save arrays of other processes; the message says where."""
    array = jnp.ones(2)
    monkeypatch.setattr(type(array), "is_fully_addressable", False)
    with pytest.raises(TypeError, match=r"params\['w'\] cannot be stored.*own devices"):
        OrbaxParams(tmp_path).save("a", {"w": array})


def test_orbax_is_loaded_only_for_its_store() -> None:
    """Users of files or memory do not wait for the import."""
    code = (
        "import sys, population.params as p; p.FileParams('x'); p.MemoryParams();"
        "assert 'orbax.checkpoint' not in sys.modules; p.OrbaxParams('x');"
        "assert 'orbax.checkpoint' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_a_full_disk_is_an_os_error(tmp_path: pathlib.Path) -> None:
    """It has TensorStore's message, and nothing that looks like a save is left."""
    store = OrbaxParams(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    tree = {"w": jax.random.normal(jax.random.key(0), (50_000,))}
    store.save("g/0", {"w": jnp.ones(2)})
    kept = store.names("g")
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"cannot be written.*large"):
            store.save("g/1", tree)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert store.names("g") == kept
    store.load(store.save("g/1", tree), tree)


def test_a_save_that_vanishes_under_a_reader_is_a_params_error(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process removed it after its files were looked at."""
    store = OrbaxParams(tmp_path)
    saved = store.save("g/1", {"w": jnp.ones(2)})
    check = OrbaxParams._check

    def check_and_remove(*arguments: Any) -> None:
        check(*arguments)
        store.remove(saved)

    monkeypatch.setattr(OrbaxParams, "_check", check_and_remove)
    with pytest.raises(ParamsError, match="are missing"):
        store.load(saved)


def test_a_reader_without_memory_calls_nothing_damaged(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The save is complete: the error has the original one as its cause."""
    store = OrbaxParams(tmp_path)
    saved = store.save("g/1", {"w": jnp.ones(2)})

    def fail(*arguments: Any) -> None:
        raise ValueError("too many open files")

    monkeypatch.setattr(orbax, "_read", fail)
    with pytest.raises(ParamsError, match="cannot be read: too many open") as raised:
        store.load(saved)
    assert "damaged" not in str(raised.value)
    assert isinstance(raised.value.__cause__, ValueError)


def test_two_may_remove_at_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another process removed a file first, this is not an error."""
    store = OrbaxParams(tmp_path)
    saved = store.save("g/1", {"w": jnp.ones(2)})
    remove, times = os.unlink, []

    def slow(*arguments: Any, **named: Any) -> None:
        remove(*arguments, **named)
        times.append(arguments)
        if len(times) == 3:
            raise FileNotFoundError(2, "No such file", str(arguments[0]))

    monkeypatch.setattr(os, "unlink", slow)
    store.remove(saved)
    assert len(times) >= 3
    assert store.names("g") == []


def test_orbax_itself_can_read_the_arrays(tmp_path: pathlib.Path) -> None:
    """The arrays are a checkpoint in Orbax's own form."""
    import orbax.checkpoint as ocp

    saved = OrbaxParams(tmp_path).save("g/1", {"w": jnp.arange(3.0)})
    with ocp.PyTreeCheckpointer() as checkpointer:
        args = ocp.args.PyTreeRestore(
            item={"0": 0}, restore_args={"0": ocp.RestoreArgs(restore_type=np.ndarray)}
        )
        found = checkpointer.restore(tmp_path / saved / "arrays", args=args)
    np.testing.assert_array_equal(found["0"], np.arange(3.0))


@pytest.fixture
def bucket(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> OrbaxParams:
    """A store that must not rename, as in a bucket; here the bucket is a folder."""
    store = OrbaxParams(tmp_path)
    monkeypatch.setattr(store, "in_bucket", True)
    monkeypatch.setattr(os, "replace", None)
    return store


def test_a_url_is_kept_as_it_is() -> None:
    """A bucket is not a folder of this machine, and its store can be sent too."""
    store = pickle.loads(pickle.dumps(OrbaxParams("gs://bucket/run")))
    assert os.fspath(store._root) == "gs://bucket/run"
    assert store.in_bucket
    # A URL that pathlib has changed means the same, and makes no folder `gs:`.
    assert os.fspath(OrbaxParams(pathlib.Path("gs://bucket/run"))._root) == (
        "gs://bucket/run"
    )


@pytest.mark.parametrize("name", ["linen", "python", "keys", "nothing"])
def test_a_bucket_gives_back_what_it_was_given(bucket: OrbaxParams, name: str) -> None:
    """It works without a rename, and without other features of local disks."""
    saved = bucket.save("g/1", TREES[name](2.0))
    assert_alike(bucket.load(saved, TREES[name](1.0)), TREES[name](2.0))
    assert bucket.names("g") == [saved]
    bucket.remove(saved)
    bucket.remove(saved)
    assert bucket.names("g") == []


def test_in_a_bucket_the_head_is_written_last(
    bucket: OrbaxParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then there are files, but no save; `names` lists it, `remove` works."""
    seen = []
    packed = disk.packed

    def before_the_head(content: dict[str, Any]) -> Any:
        (path,) = bucket.names("g")
        seen.append((path, content["files"].keys()))
        with pytest.raises(ParamsError, match="not whole"):
            bucket.load(path)
        return packed(content)

    monkeypatch.setattr(disk, "packed", before_the_head)
    saved = bucket.save("g/1", linen_state(1.0))
    ((path, files),) = seen
    assert path == saved
    assert any(re.search("manifest", file) for file in files)


def test_a_cut_file_in_a_bucket_is_damage(
    bucket: OrbaxParams, tmp_path: pathlib.Path
) -> None:
    """Sizes are compared; the bucket itself has checksums of its bytes."""
    saved = bucket.save("g/1", {"w": jnp.arange(300.0)})
    files = sorted(
        (tmp_path / saved / "arrays").rglob("*"), key=lambda f: f.stat().st_size
    )
    os.truncate(next(file for file in reversed(files) if file.is_file()), 10)
    with pytest.raises(ParamsError, match="are damaged"):
        bucket.load(saved)
