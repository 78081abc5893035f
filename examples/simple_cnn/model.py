"""Four 3x3 convolutions with Adam, and the training and evaluation of one worker."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from examples.datasets import Dataset, Split, batch
from population import ParamsError, Worker, hyperparams

Metrics = dict[str, float]


def _convolution(features: int, strides: int, name: str) -> nn.Module:
    return nn.Conv(features, (3, 3), strides=strides, name=name)


class CNN(nn.Module):
    """Four convolutions, the mean over all places, one linear layer.

    Attributes:
        num_classes: How many classes the images have.
        width: Channels of each convolution.
        convolution: Makes a layer, from its channels, strides and name.
    """

    num_classes: int
    width: int = 32
    convolution: Callable[..., Any] = _convolution

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Images `[B, H, W, C]` to logits `[B, num_classes]`."""
        x = images
        for layer, stride in enumerate((2, 1, 2, 1)):
            name = f"Conv_{layer}"
            x = nn.relu(self.convolution(self.width, strides=stride, name=name)(x))
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


class State(NamedTuple):
    """The training state of a worker.

    Attributes:
        weights: The weights of the model.
        opt_state: The state of the optimiser; it holds the learning rate in force.
    """

    weights: Any
    opt_state: Any


class Functions(NamedTuple):
    """The functions of the model that the training loop calls.

    Attributes:
        init: A fresh state.
        step: The state, the images and what else a model needs, to the next state and
            the training loss.
        evaluate: The mean loss and the accuracy on a split.
    """

    init: Callable[[dict[str, float]], State]
    step: Callable[..., tuple[State, jax.Array]]
    evaluate: Callable[[State, Split], tuple[jax.Array, jax.Array]]


def make(dataset: Dataset, width: int, seed: int) -> Functions:
    """The functions of one member; compiled once, whatever the learning rate."""
    model = CNN(dataset.num_classes, width)
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=0.0)
    first_weights = model.init(jax.random.key(seed), dataset.train.images[:1])

    def loss(weights: Any, split: Split) -> tuple[jax.Array, jax.Array]:
        logits: Any = model.apply(weights, split.images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, split.labels)
        right = jnp.argmax(logits, axis=-1) == split.labels
        return losses.mean(), right.mean()

    def init(meta_params: dict[str, float]) -> State:
        weights = jax.tree.map(jnp.copy, first_weights)  # The step donates them.
        opt_state = optimizer.init(weights)
        return State(weights, hyperparams.put(opt_state, meta_params, strict=False))

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: State, split: Split) -> tuple[State, jax.Array]:
        (value, _), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.weights, split
        )
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.weights)
        return State(optax.apply_updates(state.weights, updates), opt_state), value

    @jax.jit
    def evaluate(state: State, split: Split) -> tuple[jax.Array, jax.Array]:
        return loss(state.weights, split)

    return Functions(init, step, evaluate)


def train_worker(
    worker: Worker, functions: Functions, dataset: Dataset, batch_size: int, every: int
) -> None:
    """The training loop: what every user of the library writes.

    Args:
        worker: The library's handle.
        functions: The model.
        dataset: Decisions rest on its validation set.
        batch_size: Images a step.
        every: Steps between two reports.
    """
    while worker.running:
        if worker.poll():
            state = worker.restore(functions.init)
        images = batch(
            dataset.train, batch_size, worker.seed, worker.worker_id, worker.step
        )
        state, loss = functions.step(state, images)
        worker.step += 1
        if worker.step % every == 0:
            value, accuracy = functions.evaluate(state, dataset.validation)
            metrics = {"train_loss": loss, "validation_accuracy": accuracy}
            worker.report(value, state, metrics)


def test_accuracy(
    controller: Any, functions: Functions, dataset: Dataset
) -> list[float | None]:
    """Each worker's accuracy on the test set, which no decision has seen.

    None if the weights that it has reported last are not kept.
    """
    like = functions.init({})
    accuracies: list[float | None] = []
    for worker_id in range(len(controller.workers)):
        try:
            state = controller.load(controller.newest(worker_id), like)
        except ParamsError:
            accuracies.append(None)
            continue
        _, accuracy = functions.evaluate(state, dataset.test)
        accuracies.append(float(np.asarray(accuracy)))
    return accuracies
