"""Two models of digits as stacks of members, each with three optimisers.

The functions describe one member, as `population.engines.vectorized` needs them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from examples.datasets import Dataset, Split, digits
from examples.simple_cnn.model import CNN, State
from examples.simple_cnn.patches import PatchConv
from population import hyperparams
from population.space import LogUniform, Uniform

SPACE = {
    "learning_rate": LogUniform(1e-4, 1e-1),
    "weight_decay": LogUniform(1e-4, 1.0),
    "input_noise": Uniform(0.0, 0.5),  # Its standard deviation; pixels are 0 to 1.
    "label_smoothing": Uniform(0.0, 0.3),
}
CLASSES = 10
TRAIN, HELD_OUT = 600, 400  # Images; the other 797 are the test set.

Rule = Callable[..., optax.GradientTransformation]


class MLP(nn.Module):
    """Two hidden layers.

    Attributes:
        num_classes: How many classes the images have.
        width: Units of each hidden layer.
    """

    num_classes: int
    width: int = 64

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Images `[B, H, W, C]` to logits `[B, num_classes]`."""
        x = images.reshape(len(images), -1)
        for _ in range(2):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.num_classes)(x)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A model, and how a population of it trains.

    Attributes:
        name: What the tables call it.
        model: Maps images to logits.
        members: The size of the population.
        steps: Training steps of each member.
        every: Steps between two reports.
        steps_per_exploit: Steps between two decisions of truncation selection.
        batch_size: Images a step.
        batching: How the engine batches members.
        validation: Images to decide by, at most 400.
    """

    name: str
    model: nn.Module
    members: int
    steps: int
    every: int
    steps_per_exploit: int
    batch_size: int
    batching: str
    validation: int = HELD_OUT


MLPS = Problem("MLP", MLP(CLASSES), 16, 1000, 20, 100, 64, "vmap")
FEW = dataclasses.replace(MLPS, name="MLP, 100 images to choose by", validation=100)
CNNS = Problem("CNN", CNN(CLASSES, 8, PatchConv), 16, 600, 20, 60, 32, "vmap")


class Functions(NamedTuple):
    """The functions of one member for `vectorized.run`, and one for the test set.

    Attributes:
        init: A key and meta_params to a fresh state.
        step: A state, meta_params, the training set and a key to the next state.
        evaluate: A state, meta_params and a set of images to the cross entropy.
        judge: A state and a set of images to the cross entropy and the error in per
            cent.
    """

    init: Callable[..., State]
    step: Callable[..., State]
    evaluate: Callable[..., jax.Array]
    judge: Callable[[State, Split], tuple[jax.Array, jax.Array]]


def adamw(learning_rate: Any, weight_decay: Any, steps: int) -> Any:
    """AdamW; the policy changes its numbers, or nobody does."""
    del steps
    return optax.adamw(learning_rate, weight_decay=weight_decay)


def cosine_adamw(learning_rate: Any, weight_decay: Any, steps: int) -> Any:
    """AdamW whose rate falls along a cosine from `learning_rate` to zero."""
    rate = optax.cosine_decay_schedule(learning_rate, steps)
    return optax.adamw(rate, weight_decay=weight_decay)


def schedule_free_adamw(learning_rate: Any, weight_decay: Any, steps: int) -> Any:
    """Schedule-free AdamW, with a warmup of a twentieth of the steps.

    Defazio et al. 2024, https://arxiv.org/abs/2405.15682.
    """
    return optax.contrib.schedule_free_adamw(
        learning_rate, warmup_steps=max(1, steps // 20), weight_decay=weight_decay
    )


@functools.cache  # The engine compiles nothing for functions that it knows.
def functions(problem: Problem, rule: Rule) -> Functions:
    """The functions of one member with an optimiser."""
    model = problem.model
    optimizer = optax.inject_hyperparams(rule, static_args="steps")(
        learning_rate=0.0, weight_decay=0.0, steps=problem.steps
    )

    def init(key: jax.Array, meta_params: Any) -> State:
        weights = model.init(key, jnp.zeros((1, 8, 8, 1)))
        opt_state = hyperparams.put(optimizer.init(weights), meta_params, strict=False)
        return State(weights, opt_state)

    def step(state: State, meta_params: Any, data: Split, key: jax.Array) -> State:
        key_of_rows, key_of_noise = jax.random.split(key)
        rows = jax.random.randint(
            key_of_rows, (problem.batch_size,), 0, len(data.labels)
        )
        images = data.images[rows]
        noise = jax.random.normal(key_of_noise, images.shape)
        images = images + meta_params["input_noise"] * noise
        targets = optax.smooth_labels(
            jax.nn.one_hot(data.labels[rows], CLASSES), meta_params["label_smoothing"]
        )

        def loss(weights: Any) -> Any:
            logits = model.apply(weights, images)
            return optax.softmax_cross_entropy(logits, targets).mean()

        gradient = jax.grad(loss)(state.weights)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.weights)
        return State(optax.apply_updates(state.weights, updates), opt_state)

    def judge(state: State, data: Split) -> tuple[jax.Array, jax.Array]:
        weights = state.weights
        if rule is schedule_free_adamw:  # It trains with other weights than these.
            weights = optax.contrib.schedule_free_eval_params(
                state.opt_state.inner_state, weights
            )
        logits: Any = model.apply(weights, data.images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, data.labels)
        wrong = jnp.argmax(logits, axis=-1) != data.labels
        return losses.mean(), 100 * wrong.mean()

    def evaluate(state: State, meta_params: Any, data: Split) -> jax.Array:
        del meta_params
        return judge(state, data)[0]

    return Functions(init, step, evaluate, jax.jit(judge))


def cut(seed: int, validation: int) -> Dataset:
    """The digits, for each seed in another order: 600, at most 400, and 797 images."""
    found = digits(seed)
    images, labels = (
        np.concatenate(parts)
        for parts in zip(found.train, found.validation, found.test, strict=True)
    )
    rest = TRAIN + HELD_OUT
    return Dataset(
        "digits",
        Split(images[:TRAIN], labels[:TRAIN]),
        Split(images[TRAIN:rest][:validation], labels[TRAIN:rest][:validation]),
        Split(images[rest:], labels[rest:]),
        CLASSES,
    )
