"""A population of CNNs as one program; at intervals all copy the best one.

    python -m examples.simple_cnn.train_vectorized --log_dir runs/vectorized

The states of all members are stacked and trained together. Run the same command again
to go on after an interruption.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from examples.datasets import Dataset, Split
from examples.simple_cnn import arguments, model
from examples.simple_cnn.patches import PatchConv
from population import ParamsError, PopulationController, Stop, hyperparams
from population.engines import vectorized
from population.mutators import PopulationBasedTraining
from population.space import LogUniform, Perturb

SPACE = {"learning_rate": LogUniform(1e-4, 1e-1)}


class Functions(NamedTuple):
    """The three functions of one member for `vectorized.run`.

    Attributes:
        init: A key and meta_params to a fresh state.
        step: A state, meta_params, the training data and a key to the next state.
        evaluate: A state, meta_params and the data to decide by, to the loss and
            further figures.
    """

    init: Any
    step: Any
    evaluate: Any


def make(
    dataset: Dataset, width: int, batch_size: int, *, patches: bool = True
) -> Functions:
    """The functions of one member.

    Args:
        dataset: Its images say what the model looks like.
        width: Channels of each convolution.
        batch_size: Images a step.
        patches: Whether convolutions are matrix products, which stack well on a CPU.
    """
    cnn = model.CNN(dataset.num_classes, width)
    if patches:
        cnn = cnn.copy(convolution=PatchConv)
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=0.0)
    first_images = dataset.train.images[:1]

    def init(key: jax.Array, meta_params: Any) -> model.State:
        weights = cnn.init(key, first_images)
        opt_state = hyperparams.put(optimizer.init(weights), meta_params, strict=False)
        return model.State(weights, opt_state)

    def step(
        state: model.State, meta_params: Any, data: Split, key: jax.Array
    ) -> model.State:
        del meta_params
        chosen = jax.random.randint(key, (batch_size,), 0, len(data.labels))
        images, labels = data.images[chosen], data.labels[chosen]

        def loss(weights: Any) -> jax.Array:
            losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(
                cnn.apply(weights, images), labels
            )
            return losses.mean()

        gradient = jax.grad(loss)(state.weights)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.weights)
        return model.State(optax.apply_updates(state.weights, updates), opt_state)

    def evaluate(
        state: model.State, meta_params: Any, data: Split
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        del meta_params
        logits: Any = cnn.apply(state.weights, data.images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, data.labels)
        right = jnp.argmax(logits, axis=-1) == data.labels
        return losses.mean(), {"validation_accuracy": right.mean()}

    return Functions(init, step, evaluate)


def print_test_table(
    controller: PopulationController, functions: Functions, dataset: Dataset
) -> None:
    """The final table; the test set is looked at here, and nowhere else.

    Without an accuracy: members that were branched at the very end; their own weights
    are gone.
    """
    judge = jax.jit(functions.evaluate)
    like = functions.init(jax.random.key(0), {})

    def accuracy(worker_id: int) -> float | None:
        try:
            state = controller.load(controller.newest(worker_id), like)
        except ParamsError:
            return None
        return float(judge(state, {}, dataset.test)[1]["validation_accuracy"])

    accuracies = list(map(accuracy, range(len(controller.workers))))
    arguments.show_results(controller, dataset, accuracies, log=None)


def options_of(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = arguments.parser("A population of CNNs as one program.")
    parser.set_defaults(steps=420, every=10, width=16)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--members", type=int, default=8, help="the population's size")
    parser.add_argument("--steps_per_exploit", type=int, default=50)
    parser.add_argument(
        "--batching", choices=("auto", "vmap", "map", "loop"), default="auto"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> PopulationController:
    """Train, then print the table and draw the pictures."""
    options = options_of(argv)
    dataset = arguments.load(options)
    functions = make(dataset, options.width, options.batch_size)
    rates = np.geomspace(1e-4, 1e-1, options.members).tolist()
    controller = PopulationController(
        [{"learning_rate": rate} for rate in rates],
        PopulationBasedTraining(
            Perturb(SPACE), options.steps_per_exploit, synchronous=True
        ),
        options.log_dir,
        seed=options.seed,
        space=SPACE,
        stop=Stop(steps=options.steps),
    )
    summary = vectorized.run(
        controller,
        *functions,
        options.every,
        data=dataset.train,
        evaluation=dataset.validation,
        batching=options.batching,
        progress=not options.quiet,
    )
    print_test_table(controller, functions, dataset)
    how = f"batched by {summary.batching}; " if summary.rounds else ""
    print(
        f"{summary.wall_s:.1f} s for {summary.rounds} rounds of "
        f"{summary.num_members} members, {how}the controller took "
        f"{summary.overhead:.2%} of the time"
    )
    return controller


if __name__ == "__main__":
    main()
