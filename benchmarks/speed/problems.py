"""The problems of the benchmark of whole populations: functions of one member."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from examples import datasets
from examples.datasets import Split
from examples.simple_cnn import train_vectorized as simple_cnn
from examples.synthetic import train_vectorized as toy
from population import hyperparams
from population.space import LogUniform, Uniform

BATCH_SIZE, SIZES = 128, (64, 64, 64, 10)
RATES = {"learning_rate": LogUniform(1e-4, 1e-1)}


class Problem(NamedTuple):
    """A model, its data and its hyperparameters.

    Attributes:
        init: Maps a key and meta_params to a state.
        step: Maps a state, meta_params, the data and a key to the next state.
        evaluate: Maps a state, meta_params and the held-out data to a value.
        data: The data of each step.
        evaluation: The data of `evaluate`.
        space: The search space of the meta_params.
    """

    init: Callable[..., Any]
    step: Callable[..., Any]
    evaluate: Callable[..., Any]
    data: Any
    evaluation: Any
    space: Any


@functools.cache
def named(name: str) -> Problem:
    """The problem of that name: "mlp", "cnn", "cnn lax.conv" or "toy"."""
    if name.startswith("cnn"):
        return cnn(16, 64, patches=name == "cnn")
    return _toy() if name == "toy" else _mlp()


def _mlp() -> Problem:
    """Two hidden layers of 64 on digits, Adam, batches of 128."""
    data = datasets.digits()
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=0.0)

    def init(key: jax.Array, meta_params: Any) -> Any:
        shapes = list(itertools.pairwise(SIZES))
        keys = jax.random.split(key, len(shapes))
        weights = [
            (jax.random.normal(k, shape) / np.sqrt(shape[0]), jnp.zeros(shape[1]))
            for k, shape in zip(keys, shapes, strict=True)
        ]
        opt_state = optimizer.init(weights)
        return weights, hyperparams.put(opt_state, meta_params, strict=False)

    def loss(weights: Any, images: Any, labels: Any) -> jax.Array:
        x = images.reshape(len(labels), -1)
        for matrix, bias in weights[:-1]:
            x = jax.nn.relu(x @ matrix + bias)
        logits = x @ weights[-1][0] + weights[-1][1]
        losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(
            logits, labels
        )
        return losses.mean()

    def step(state: Any, meta_params: Any, train: Split, key: jax.Array) -> Any:
        del meta_params
        weights, opt_state = state
        chosen = jax.random.randint(key, (BATCH_SIZE,), 0, len(train.labels))
        gradient = jax.grad(loss)(weights, train.images[chosen], train.labels[chosen])
        updates, opt_state = optimizer.update(gradient, opt_state, weights)
        return optax.apply_updates(weights, updates), opt_state

    def evaluate(state: Any, meta_params: Any, held_out: Split) -> jax.Array:
        del meta_params
        return loss(state[0], held_out.images, held_out.labels)

    return Problem(init, step, evaluate, data.train, data.validation, RATES)


def cnn(width: int, batch_size: int, *, patches: bool) -> Problem:
    """Four convolutions on digits."""
    data = datasets.digits()
    functions = simple_cnn.make(data, width, batch_size, patches=patches)

    def evaluate(state: Any, meta_params: Any, held_out: Split) -> jax.Array:
        value: jax.Array = functions.evaluate(state, meta_params, held_out)[0]
        return value

    parts = functions.init, functions.step, evaluate
    return Problem(*parts, data.train, data.validation, RATES)


def _toy() -> Problem:
    """Figure 2 of the PBT paper: two numbers a member."""
    space = {"h": [Uniform(0, 1), Uniform(0, 1)]}
    return Problem(toy.init, toy.step, toy.evaluate, None, None, space)
