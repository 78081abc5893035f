"""Modules of Equinox, whose activations and rates are leaves of the tree."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

from population import ParamsError, PopulationController, Worker
from population.engines import threads
from population.engines.stacked.member import FRESH
from population.mutators import PopulationBasedTraining
from tests.engines.stacked import problems
from tests.engines.stacked.problems import INPUTS, TARGETS, Functions

DROPPED = 0.3
optimizer = optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.05))


class Net(eqx.Module):
    """A layer, an activation, dropout and another layer."""

    first: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    second: eqx.nn.Linear
    activation: Any

    def __init__(self, key: Any) -> None:
        one, two = jax.random.split(key)
        self.first = eqx.nn.Linear(2, 8, key=one)
        self.dropout = eqx.nn.Dropout(DROPPED)
        self.second = eqx.nn.Linear(8, "scalar", key=two)
        self.activation = jax.nn.softplus

    def __call__(self, x: Any, key: Any = None) -> Any:
        """One output."""
        hidden = self.activation(self.first(x))
        return self.second(self.dropout(hidden, key=key, inference=key is None))


def init(key: Any, meta: Any) -> Any:
    """Build it as in Equinox's own examples."""
    net = Net(key)
    return net, optimizer.init(eqx.filter(net, eqx.is_inexact_array))


def _loss(net: Any, key: Any = None) -> Any:
    keys = None if key is None else jax.random.split(key, len(INPUTS))
    outputs = jax.vmap(net)(INPUTS) if key is None else jax.vmap(net)(INPUTS, keys)
    return jnp.mean((outputs - TARGETS) ** 2)


def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
    """Train as in Equinox's own examples; the rate scales the updates."""
    net, opt_state = state
    grad: Any = eqx.filter_grad(_loss)
    gradient = grad(net, key)
    params = eqx.filter(net, eqx.is_inexact_array)
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    updates = jax.tree.map(lambda u: 10 * meta["learning_rate"] * u, updates)
    return eqx.apply_updates(net, updates), opt_state


FUNCTIONS = Functions(init, step, lambda state, meta, batch: _loss(state[0]))


def opened(log_dir: Any = None, steps: int = 20) -> PopulationController:
    """Four members that copy each other every five steps."""
    mutator = PopulationBasedTraining(problems.mutate, 5, synchronous=True)
    return problems.controller(mutator, 4, steps, log_dir)


def train(worker: Worker) -> None:
    """Train the population with the handle of a loop."""

    def fresh(meta: Any) -> Any:
        base = jax.random.fold_in(jax.random.key(worker.seed), worker.worker_id)
        return _init(jax.random.fold_in(base, FRESH), meta)

    while worker.running:
        if worker.poll():
            state = worker.restore(fresh)
        state = _step(state, worker.meta_params, None, worker.key)
        worker.step += 1
        if worker.step % 5 == 0:
            worker.report(_evaluate(state[0]), state)


# One operation after the other would be compiled by itself, which takes seconds.
_init: Any = eqx.filter_jit(init)
_step: Any = eqx.filter_jit(step)
_evaluate: Any = eqx.filter_jit(_loss)


@pytest.mark.parametrize("batching", problems.BATCHINGS)
def test_what_is_no_array_is_a_constant(batching: str, tmp_path: pathlib.Path) -> None:
    """The rate of a dropout is not trained, and the best model is loaded completely."""
    found = opened(tmp_path)
    problems.run(found, FUNCTIONS, 5, batching=batching)
    best = found.best()
    assert best is not None
    other = eqx.tree_at(lambda s: s[0].dropout.p, _init(jax.random.key(9), {}), 0.9)
    net, _ = found.load(best, other)
    assert net.dropout.p == DROPPED
    assert type(net.dropout.p) is float
    assert net.activation is jax.nn.softplus
    assert float(_evaluate(net)) == pytest.approx(best.value, rel=1e-5)
    with pytest.raises(ParamsError, match="Pass a tree of their structure"):
        found.load(best)


def test_a_run_of_modules_may_change_its_engine(tmp_path: pathlib.Path) -> None:
    """Threads continue from what a stack saved, and a stack from what threads saved."""
    whole = opened()
    problems.run(whole, FUNCTIONS, 5)
    by_stack = functools.partial(problems.run, functions=FUNCTIONS, every=5)
    by_threads = functools.partial(threads.run, train, progress=False)
    for number, order in enumerate(([by_stack, by_threads], [by_threads, by_stack])):
        for steps, engine in zip((10, 20), order, strict=True):
            found = opened(tmp_path / str(number), steps)
            engine(found) if engine is by_stack else by_threads(found)
            found.close()
        again = opened(tmp_path / str(number))
        problems.assert_alike(again, whole)
        again.close()


def test_a_stack_is_equal_to_threads() -> None:
    """Same seeds, same decisions, same values."""
    ours, theirs = opened(), opened()
    problems.run(ours, FUNCTIONS, 5)
    threads.run(train, theirs, progress=False)
    problems.assert_alike(ours, theirs)
