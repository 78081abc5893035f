"""The CNN of `simple_cnn` on augmented images, compiled once for all its numbers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np
import optax

from examples.datasets import Dataset, Split, batch
from examples.simple_cnn.model import CNN, Functions, State
from population import Worker, hyperparams


class Numbers(NamedTuple):
    """The hyperparameters that the compiled step takes; the optimiser has the others.

    Attributes:
        hue: The largest turn of the hue, either way, in turns of the colour circle.
        contrast_low: The smallest factor of the contrast; 1 changes nothing.
        contrast_high: The largest.
        saturation_low: The smallest factor of the saturation; 1 changes nothing.
        saturation_high: The largest.
        label_smoothing: The share of a label that is spread evenly over all classes.
        batch_size: How many images count, the first of those that the step gets.
    """

    hue: jax.Array
    contrast_low: jax.Array
    contrast_high: jax.Array
    saturation_low: jax.Array
    saturation_high: jax.Array
    label_smoothing: jax.Array
    batch_size: jax.Array


def numbers(meta_params: Mapping[str, Any]) -> Numbers:
    """The numbers in meta_params, always of the types that the compiled step needs."""
    chosen = Numbers(*(jnp.float32(meta_params[name]) for name in Numbers._fields))
    return chosen._replace(batch_size=jnp.int32(meta_params["batch_size"]))


def adam(learning_rate: Any, beta1: Any, beta2: Any) -> Any:
    """Adam, its numbers named as in the meta_params, so that `init` can put them in."""
    return optax.adam(learning_rate, b1=beta1, b2=beta2)


# These values train nothing: `init` replaces them by the worker's values.
OPTIMIZER = optax.inject_hyperparams(adam)(learning_rate=0.0, beta1=0.0, beta2=0.0)


def minibatch(
    train: Split, size: int, max_batch: int, seed: int, worker_id: int, step: int
) -> Split:
    """A minibatch filled up with black images, as wide as the widest.

    Exactly `size` images are drawn: the first of a larger draw are no fair sample of
    the data, since `batch` does not shuffle it.
    """
    drawn = batch(train, size, seed, worker_id, step)
    images = np.zeros((max_batch, *train.images.shape[1:]), np.float32)
    labels = np.zeros(max_batch, np.int32)
    images[:size], labels[:size] = drawn
    return Split(images, labels)


def augmented(key: jax.Array, image: Any, strength: Numbers) -> jax.Array:
    """One image in other colours, within 0 and 1."""
    hue, saturation, contrast = jax.random.split(key, 3)
    image = pix.random_hue(hue, image, strength.hue)
    image = pix.random_saturation(
        saturation, image, strength.saturation_low, strength.saturation_high
    )
    image = pix.random_contrast(
        contrast, image, strength.contrast_low, strength.contrast_high
    )
    return jnp.clip(image, 0, 1)


def centred(images: Any) -> Any:
    """Images as the CNN gets them, of mean about 0 and deviation about 1."""
    return 4 * (images - 0.5)


def training_loss(
    weights: Any, model: CNN, split: Split, chosen: Numbers, key: jax.Array
) -> jax.Array:
    """The mean over the first `batch_size` images, whatever the others are."""
    keys = jax.random.split(key, len(split.labels))
    images = jax.vmap(augmented, (0, 0, None))(keys, split.images, chosen)
    targets = jax.nn.one_hot(split.labels, model.num_classes)
    targets = optax.smooth_labels(targets, chosen.label_smoothing)
    logits: Any = model.apply(weights, centred(images))
    losses = optax.softmax_cross_entropy(logits, targets)
    counts = jnp.arange(len(losses)) < chosen.batch_size
    mean: jax.Array = jnp.where(counts, losses, 0).sum() / chosen.batch_size
    return mean


def make(dataset: Dataset, width: int, seed: int) -> Functions:
    """The functions of one member; compiled once, whatever the hyperparameters."""
    model = CNN(dataset.num_classes, width)
    first_weights = model.init(jax.random.key(seed), dataset.train.images[:1])

    def init(meta_params: dict[str, float]) -> State:
        weights = jax.tree.map(jnp.copy, first_weights)  # The step donates them.
        opt_state = OPTIMIZER.init(weights)
        return State(weights, hyperparams.put(opt_state, meta_params, strict=False))

    return Functions(init, *compiled(model))


@functools.cache
def compiled(model: CNN) -> tuple[Any, Any]:
    """The `step` and `evaluate` of all runs with such a model, whatever their seeds."""

    @functools.partial(jax.jit, donate_argnums=0)
    def step(
        state: State, split: Split, chosen: Numbers, key: jax.Array
    ) -> tuple[State, jax.Array]:
        loss, gradient = jax.value_and_grad(training_loss)(
            state.weights, model, split, chosen, key
        )
        updates, opt_state = OPTIMIZER.update(gradient, state.opt_state, state.weights)
        return State(optax.apply_updates(state.weights, updates), opt_state), loss

    @jax.jit
    def evaluate(state: State, split: Split) -> tuple[jax.Array, jax.Array]:
        logits: Any = model.apply(state.weights, centred(split.images))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, split.labels)
        right = jnp.argmax(logits, axis=-1) == split.labels
        return losses.mean(), right.mean()

    return step, evaluate


def train_worker(
    worker: Worker, functions: Functions, dataset: Dataset, max_batch: int, every: int
) -> None:
    """The training loop: what every user of the library writes.

    Args:
        worker: The library's handle.
        functions: The model.
        dataset: Decisions rest on its validation set, without augmentation.
        max_batch: The largest batch size; each step costs as much as one of this size.
        every: Steps between two reports.
    """
    while worker.running:
        if worker.poll():
            state = worker.restore(functions.init)
            chosen = numbers(worker.meta_params)
        images = minibatch(
            dataset.train,
            int(chosen.batch_size),
            max_batch,
            worker.seed,
            worker.worker_id,
            worker.step,
        )
        state, loss = functions.step(state, images, chosen, worker.key)
        worker.step += 1
        if worker.step % every == 0:
            value, accuracy = functions.evaluate(state, dataset.validation)
            metrics = {"train_loss": loss, "validation_accuracy": accuracy}
            worker.report(value, state, metrics)
