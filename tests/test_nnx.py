"""A module of Flax's nnx and its optimiser as the state, in every place."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from population import PopulationController, Stop
from population.engines import processes, threads, vectorized
from population.mutators import PopulationBasedTraining
from population.params import FileParams, MemoryParams, OrbaxParams
from population.testing import check_loop
from tests import nnx_loop, probe
from tests.nnx_loop import check, init, train, train_step


def lowered(meta_params: Any) -> Any:
    """A smaller learning rate."""
    return {"learning_rate": meta_params["learning_rate"] * 0.7}


def opened(log_dir: pathlib.Path | None, steps: int) -> PopulationController:
    """Three members; the worse ones copy every four steps."""
    return PopulationController(
        [{"learning_rate": 0.01 * (1 + i)} for i in range(3)],
        PopulationBasedTraining(lowered, 4, synchronous=True),
        log_dir,
        stop=Stop(steps=steps),
    )


@pytest.mark.parametrize("how", ["loop", "threads", "processes"])
def test_members_copy_restart_and_load(how: str, tmp_path: pathlib.Path) -> None:
    """The loop checks each state that is restored."""
    for steps in (8, 12):
        run = opened(tmp_path, steps)
        if how == "loop":
            with run.worker() as worker:
                train(worker)
        elif how == "threads":
            threads.run(train, run, progress=False)
        else:
            processes.run(train, run, 2, progress=False)
        assert run.finished
        copies = [c for c in run.history() if c.reason and "copied" in c.reason]
        assert copies
        for worker_id in range(3):
            newest = probe.newest(run)[worker_id]  # Weights of others may be gone.
            fresh = init(newest.meta_params)
            loaded = run.load(newest, fresh)
            trees: list[Any] = [jax.tree.structure(tree) for tree in (loaded, fresh)]
            assert trees[0] == trees[1]
            assert loaded[0].second.kernel is loaded[0].first.kernel
            train_step(*loaded)
        run.close()


@pytest.mark.parametrize("kind", ["memory", "files", "orbax"])
def test_each_store_gives_back_what_it_got(kind: str, tmp_path: pathlib.Path) -> None:
    """Weights, statistics, keys and counts; shared objects stay shared."""
    stores: dict[str, Any] = {
        "memory": MemoryParams,
        "files": lambda: FileParams(tmp_path),
        "orbax": lambda: OrbaxParams(tmp_path),
    }
    store = stores[kind]()
    state = init({"learning_rate": 0.01})
    for _ in range(3):
        train_step(*state)
    path = store.save("run-0-0/3", state)
    found = store.load(path, init({"learning_rate": 0.5}))
    check(found, {"learning_rate": 0.01})
    one, other = nnx.state(found), nnx.state(state)
    jax.tree.map(
        np.testing.assert_array_equal,
        *(jax.tree.map(_plain, tree) for tree in (one, other)),
    )
    # Both continue alike, the noise included.
    for _ in range(3):
        assert train_step(*found) == train_step(*state)


def _plain(leaf: Any) -> Any:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def _in_place(state: Any) -> None:
    train_step(*state)


def test_check_loop_finds_nothing_and_says_that_noise_is_copied() -> None:
    """A step that trains in place may return nothing."""
    meta = {"learning_rate": 0.01}
    for step in (nnx_loop.step, _in_place):
        report = check_loop(init, step, meta)
        assert not report, str(report)
        assert any("donor and copy then see the same noise" in n for n in report.notes)
    forgotten = check_loop(lambda meta: init({}), nnx_loop.step, meta)
    assert [found.kind for found in forgotten] == ["no effect"]


@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_a_stack_of_modules_trains(batching: str) -> None:
    """Tied weights stay tied in each program."""
    run = opened(None, 12)

    def step(state: Any, meta_params: Any, batch: Any, key: Any) -> Any:
        return nnx_loop.step(state)

    def evaluate(state: Any, meta_params: Any, batch: Any) -> Any:
        rate = state[1].opt_state.hyperparams["learning_rate"]
        return meta_params["learning_rate"], {"rate": rate[...]}

    vectorized.run(
        run,
        lambda key, meta: init(meta),
        step,
        evaluate,
        2,
        batching=batching,
        progress=False,
    )
    reports = [c for c in run.history() if c.metrics is not None]
    assert len({c.meta_params["learning_rate"] for c in reports}) > 3
    for report in reports:
        rate = report.meta_params["learning_rate"]
        assert report.metrics["rate"] == pytest.approx(rate, rel=1e-6)
