"""JAX's settings of the caller hold wherever an engine calls a user's function."""

from __future__ import annotations

import contextlib
import json
import logging
import pathlib
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.experimental.xla_metadata
import jax.numpy as jnp
import numpy as np
import pytest

from population import PopulationController, Worker
from population.engines import jax_settings, processes, threads
from population.engines.processes import settings
from population.engines.stacked.arguments import Source
from population.engines.stacked.prefetching import Prefetcher
from population.mutators import FixedSchedule
from tests.engines import settings_children as children
from tests.engines.releases import x64

SECONDS = 30  # Much longer than anything here waits.
Entering = Callable[[], AbstractContextManager[Any]]
newer: Any = jax


def mesh() -> jax.sharding.Mesh:
    """A mesh of one device."""
    return jax.sharding.Mesh(np.array(jax.local_devices()[:1]), ("x",))


def set_mesh() -> AbstractContextManager[Any]:
    """The mesh in force, by the name that this release gives it."""
    older: Any = jax.sharding
    found: Any = newer.set_mesh if hasattr(jax, "set_mesh") else older.use_mesh
    return found(mesh())  # type: ignore[no-any-return]


CONTEXTS: dict[str, Entering] = {
    "enable_x64": lambda: x64(True),
    "default_matmul_precision": lambda: jax.default_matmul_precision("float32"),
    "numpy_rank_promotion": lambda: jax.numpy_rank_promotion("raise"),
    "numpy_dtype_promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "checking_leaks": jax.checking_leaks,
    "default_prng_impl": lambda: jax.default_prng_impl("rbg"),
    "threefry_partitionable": lambda: jax.threefry_partitionable(
        not jax.config.values["jax_threefry_partitionable"]
    ),
    "transfer_guard": lambda: jax.transfer_guard("log"),
    "transfer_guard_device_to_host": lambda: jax.transfer_guard_device_to_host("log"),
    "log_compiles": lambda: jax.log_compiles(True),
    "disable_jit": jax.disable_jit,
    "default_device": lambda: jax.default_device(jax.local_devices()[0]),
    "set_xla_metadata": lambda: jax.experimental.xla_metadata.set_xla_metadata(a="b"),
    "set_mesh": set_mesh,
    "with mesh": mesh,
}


@pytest.fixture
def mesh_may_be_entered() -> Iterator[None]:
    """Newer releases warn of `with mesh`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*with mesh", DeprecationWarning)
        yield


def opened(size: int = 2, log_dir: pathlib.Path | None = None) -> PopulationController:
    """A population whose members have nothing to do."""
    policy = FixedSchedule({0: {"h": 1.0}})
    return PopulationController([{"h": 1.0}] * size, policy, log_dir)


def train_under(seen: list[Any]) -> Callable[[Worker], None]:
    """A training function that writes down the settings under which it runs."""

    def train(worker: Worker) -> None:
        del worker
        seen.append(jax_settings.values() | {"jax_default_device": None})

    return train


def in_a_thread(call: Callable[[], Any]) -> Any:
    """The settings in a new thread."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join(SECONDS)
    return found[0]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings of the library."""
    found = [r for r in caplog.records if r.name == "population"]
    return [r.getMessage() for r in found if r.levelno >= logging.WARNING]


@pytest.mark.usefixtures("mesh_may_be_entered")
@pytest.mark.parametrize("name", CONTEXTS)
def test_threads_train_under_each_context_of_the_caller(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What holds in a plain loop holds in each thread, and there is no warning."""
    fresh = in_a_thread(jax_settings.values)
    loop: list[Any] = []
    thread: list[Any] = []
    with CONTEXTS[name]():
        with opened().worker() as worker:
            train_under(loop)(worker)
        threads.run(train_under(thread), opened(), progress=False)
    assert len(thread) == 2
    assert all(one == loop[0] for one in loop + thread)
    if name != "default_device":  # The engine sets it for each worker.
        assert loop[0] != fresh | {"jax_default_device": None}
    assert not warnings_of(caplog)
    assert in_a_thread(jax_settings.values) == fresh


def test_what_is_entered_acts_in_the_threads() -> None:
    """Dtypes, and NaNs that raise: the effect is carried over, not only the value."""
    dtypes = set()

    def train(worker: Worker) -> None:
        dtypes.add(jnp.asarray(np.ones(3)).dtype)
        jnp.log(jnp.full(3, -1.0)).block_until_ready()

    with (
        x64(True),
        jax.debug_nans(True),
        pytest.raises(FloatingPointError, match="nan"),
    ):
        threads.run(train, opened(), progress=False)
    assert dtypes == {np.dtype("float64")}


def test_the_innermost_of_nested_contexts_holds() -> None:
    """This includes a context that resets a setting of an outer one, or the process."""
    seen: list[Any] = []
    with (
        jax.default_matmul_precision("float32"),
        x64(True),
        jax.transfer_guard("log"),
        x64(False),
        jax.default_matmul_precision("bfloat16"),
        jax.transfer_guard_device_to_host("allow"),
    ):
        threads.run(train_under(seen), opened(), progress=False)
        with x64(True), jax.transfer_guard_host_to_device(None):
            threads.run(train_under(seen), opened(), progress=False)
    guards = "transfer_guard_device_to_host", "transfer_guard_host_to_device"
    names = "enable_x64", "default_matmul_precision", *guards
    found = {tuple(one[f"jax_{name}"] for name in names) for one in seen}
    assert found == {
        (False, "bfloat16", "allow", "log"),
        (True, "bfloat16", "allow", None),
    }


def test_a_context_can_take_back_what_holds_for_the_process() -> None:
    """`jax.config.update` says True, the caller's context False: it is False."""
    seen: list[Any] = []
    jax.config.update("jax_debug_infs", True)
    try:
        with jax.debug_infs(False):
            threads.run(train_under(seen), opened(), progress=False)
    finally:
        jax.config.update("jax_debug_infs", False)
    assert {one["jax_debug_infs"] for one in seen} == {False}


def test_an_exception_leaves_every_context() -> None:
    """Neither the caller's thread nor a later one keeps the settings of a worker."""
    before = jax_settings.values()

    def train(worker: Worker) -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"), x64(True), set_mesh():
        threads.run(train, opened(), progress=False)
    assert jax_settings.values() == before == in_a_thread(jax_settings.values)


def test_applied_is_left_when_its_block_raises() -> None:
    """The thread continues with its own settings."""
    with x64(True), jax.default_matmul_precision("float32"), set_mesh():
        found = jax_settings.taken("train")
    assert found
    before = jax_settings.values()
    within = before
    with contextlib.suppress(KeyError), jax_settings.applied(found):
        within = jax_settings.values()
        raise KeyError
    assert jax_settings.values() == before != within


def test_nothing_is_taken_where_nothing_differs() -> None:
    """The settings of the process hold in every thread anyway."""
    jax.config.update("jax_debug_infs", True)
    try:
        assert jax_settings.examined() == ({}, [])
    finally:
        jax.config.update("jax_debug_infs", False)


def test_what_cannot_be_entered_is_one_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the settings and says what to do; the other settings are in force."""

    def refuse(value: Any) -> Any:
        raise TypeError(value)

    prng, promotion = jax.default_prng_impl("rbg"), jax.numpy_rank_promotion("raise")
    monkeypatch.setattr(jax, "default_prng_impl", refuse)
    monkeypatch.setattr(jax, "numpy_rank_promotion", contextlib.nullcontext)
    seen: list[Any] = []
    with prng, promotion, x64(True):
        threads.run(train_under(seen), opened(4), progress=False)
    (warned,) = warnings_of(caplog)
    assert "jax_default_prng_impl, jax_numpy_rank_promotion. Enter" in warned
    assert "within train" in warned
    assert {one["jax_enable_x64"] for one in seen} == {True}
    assert {one["jax_default_prng_impl"] for one in seen} == {"threefry2x32"}


USER_CONTEXT: Any = getattr(jax, "make_user_context", None)


@pytest.mark.skipif(USER_CONTEXT is None, reason="an older JAX")
def test_a_context_of_the_user_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """JAX does not say which context it is, so no other thread can enter it."""
    with USER_CONTEXT(0)(1), x64(True):
        threads.run(train_under([]), opened(), progress=False)
    (warned,) = warnings_of(caplog)
    assert "jax.make_user_context" in warned


def test_a_default_device_that_others_train_beside_is_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers train on all devices, unless `devices` says otherwise."""
    (only, *_), another = jax.local_devices(), object()
    monkeypatch.setattr(jax, "local_devices", lambda backend=None: [only, another])
    assert threads._all_devices() == [only, another]
    assert not warnings_of(caplog)
    for named in (only, "cpu"):
        with jax.default_device(named):
            assert threads._all_devices() == [only, another]
            threads.run(train_under([]), opened(), devices=[only], progress=False)
    assert len(warnings_of(caplog)) == 2
    assert "pass devices=[...]" in warnings_of(caplog)[0]
    monkeypatch.setattr(jax, "local_devices", lambda backend=None: [only])
    with jax.default_device(only):
        threads._all_devices()
    assert len(warnings_of(caplog)) == 2


@pytest.mark.usefixtures("mesh_may_be_entered")
@pytest.mark.parametrize("name", CONTEXTS)
def test_batches_are_made_ahead_under_the_settings_of_the_caller(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread that prepares batches has the settings of the caller's thread."""
    seen: list[tuple[str, Any]] = []
    ahead = threading.Event()

    def batches(seed: int, worker_id: int, step: int) -> Any:
        here = threading.current_thread().name
        seen.append((here, jax_settings.values()))
        if here == "population-feed":
            ahead.set()
        return np.ones(2)

    with CONTEXTS[name]():
        source = Source("batches", batches)
        made = Prefetcher(source, 0, range(1), 1, lambda tree: tree, ahead_s=0.0)
        made.take([0])
        assert ahead.wait(SECONDS)
        made.take([1])
        made.close()
        expected = jax_settings.values()
    assert [one for _, one in seen if one != expected] == []
    assert not warnings_of(caplog)


def test_batches_of_64_bits_are_made_ahead_as_they_are() -> None:
    """In the thread that prepares them, they are float64 too."""
    with x64(True):
        source = Source("shared_batches", lambda seed, step: jnp.ones(2))
        made = Prefetcher(source, 0, range(1), 1, jnp.asarray, ahead_s=0)
        dtypes = [made.take([step]).dtype for step in range(3)]
        made.close()
    assert dtypes == [np.dtype("float64")] * 3


def test_processes_train_under_the_settings_of_the_caller(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Contexts and updates; arrays that travel keep their dtypes; a mesh is named."""
    jax.config.update("jax_debug_infs", True)
    try:
        with (
            x64(True),
            jax.default_matmul_precision("float32"),
            jax.numpy_dtype_promotion("strict"),
            set_mesh(),
        ):
            train = children.train(tmp_path, jnp.ones(1))
            processes.run(train, opened(2, tmp_path / "run"), progress=False)
    finally:
        jax.config.update("jax_debug_infs", False)
    found = [json.loads(file.read_text()) for file in tmp_path.glob("*.json")]
    assert len(found) == 2
    for one in found:
        assert one["enable_x64"] == one["debug_infs"] == "True"
        assert one["default_matmul_precision"] == "float32"
        assert one["numpy_dtype_promotion"].lower().endswith("strict")
        assert one["made"] == one["brought"] == "float64"
    (warned,) = warnings_of(caplog)
    assert "called: a mesh. Enter or set them within train" in warned


def test_a_process_that_loads_jax_late_finds_the_settings(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine does not load JAX there, and warns of nothing that is in force."""
    with x64(True), jax.default_matmul_precision("float32"):
        run = opened(1, tmp_path / "run")
        processes.run(children.train(tmp_path), run, progress=False)
    (file,) = tmp_path.glob("*.json")
    found = json.loads(file.read_text())
    assert not found["had jax"]
    assert found["made"] == "float64"
    assert found["default_matmul_precision"] == "float32"
    assert not warnings_of(caplog)


def test_what_is_sent_is_plain_and_not_of_one_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Devices are only compared; addresses of processes are left out."""
    with (
        jax.numpy_dtype_promotion("strict"),
        jax.default_device(jax.local_devices()[0]),
    ):
        found = settings.sent()
    kinds = {type(value) for value in found.options.values()}
    assert kinds <= {bool, int, float, str, type(None)}
    assert found.options["jax_numpy_dtype_promotion"] == "strict"
    assert {"jax_platforms", "jax_default_device"} <= set(found.compared)
    assert not any("cross_host" in name for name in found.options)
    assert not found.others
    monkeypatch.setattr(jax_settings, "is_loaded", lambda: False)
    assert settings.sent() == ({}, {}, ())


def test_a_process_tells_what_is_not_in_force() -> None:
    """Settings that JAX refuses, and other devices; not an option still unknown."""
    told: list[list[str]] = []
    before = jax_settings.values()
    received = settings.Received(settings.sent())
    received.put_early()
    jax.config.update("jax_debug_infs", True)  # Like a module does when it loads.
    received.put(told.append)
    assert jax_settings.values() == before
    assert not told
    sent = settings.Sent(
        {
            "jax_no_such": True,
            "jax_numpy_rank_promotion": "no such",
            "jax_debug_nans": True,
        },
        {"jax_platforms": "'abacus'"},
        ["compute_on_context_manager"],
    )
    try:
        settings.Received(sent).put(told.append)
        assert jax.config.values["jax_debug_nans"]
    finally:
        jax.config.update("jax_debug_nans", False)
    lost = ["jax_numpy_rank_promotion", "jax_platforms", "compute_on_context_manager"]
    assert told == [lost]
    assert jax_settings.values() == before
