"""A loop with a module of Flax's nnx and its optimiser as the state."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from population import Worker, hyperparams
from population.in_force.injected import numbers

OPTIMIZER = optax.inject_hyperparams(optax.adam)(learning_rate=0.0)
INPUTS = jnp.linspace(-1.0, 1.0, 8).reshape(4, 2)


class Model(nnx.Module):
    """Tied weights, a norm with statistics, and noise with its own state."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(2, 2, rngs=rngs)
        self.second = nnx.Linear(2, 2, rngs=rngs)
        self.second.kernel = self.first.kernel
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.rngs = rngs

    def __call__(self, x: Any) -> Any:
        """Two layers."""
        x = self.dropout(self.norm(self.first(x)))
        noise = jax.random.normal(self.rngs.params(), x.shape)
        return self.second(x + 0.01 * noise)


def init(meta_params: Any) -> Any:
    """A new module, and a new optimiser."""
    model = Model(nnx.Rngs(0, dropout=1))
    optimizer = nnx.Optimizer(model, OPTIMIZER, wrt=nnx.Param)
    return model, hyperparams.put(optimizer, meta_params, strict=False)


@nnx.jit
def train_step(model: Any, optimizer: Any) -> Any:
    """One step, in place."""
    loss, gradient = nnx.value_and_grad(lambda m: jnp.mean((m(INPUTS) - 1.0) ** 2))(
        model
    )
    optimizer.update(model, gradient)
    return loss


def step(state: Any) -> Any:
    """A step as `check_loop` calls it."""
    train_step(*state)
    return state


def check(state: Any, meta_params: Any) -> None:
    """Refuse a state that differs from `init` in structure or numbers."""
    model, optimizer = state
    fresh = init(meta_params)
    trees: list[Any] = [jax.tree.structure(tree) for tree in (state, fresh)]
    assert trees[0] == trees[1]
    assert model.second.kernel is model.first.kernel
    assert isinstance(optimizer.opt_state.hyperparams["learning_rate"], nnx.Variable)
    pairs = zip(numbers(state), numbers(fresh), strict=True)
    assert all(np.array_equal(one.leaf, other.leaf) for one, other in pairs)


def train(worker: Worker) -> None:
    """Reports every two steps; worker 0 is the best."""
    while worker.running:
        if worker.poll():
            state = worker.restore(init)
            check(state, worker.meta_params)
        train_step(*state)
        worker.step += 1
        if worker.step % 2 == 0:
            worker.report(float(worker.worker_id), state)
