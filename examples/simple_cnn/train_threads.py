"""A population of CNNs in threads; at intervals all copy the best one.

    python -m examples.simple_cnn.train_threads --log_dir runs/threads

The workers begin with the same weights and learning rates from too small to too large.
Run the same command again to go on after an interruption.
"""

from __future__ import annotations

import math

import numpy as np

from examples.simple_cnn import arguments, model
from population import Keep, PopulationController, Stop
from population.engines import threads
from population.mutators import WinnerTakeAllGenetic


def mutate(meta_params: dict[str, float], rng: np.random.Generator) -> dict[str, float]:
    """The learning rate times exp of half a standard normal number."""
    factor = math.exp(0.5 * float(rng.normal()))
    return {"learning_rate": meta_params["learning_rate"] * factor}


def main(argv: list[str] | None = None) -> PopulationController:
    """Train, then print the table and draw the pictures."""
    parser = arguments.parser("A population of CNNs in threads.")
    parser.set_defaults(steps=420, every=10)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=4, help="the population's size")
    parser.add_argument("--threads", type=int, help="by default one for each worker")
    parser.add_argument("--steps_per_exploit", type=int, default=50)
    parser.add_argument(
        "--asynchronous",
        action="store_true",
        help="do not wait for each other; timing then decides who goes on from where",
    )
    options = parser.parse_args(argv)
    dataset = arguments.load(options)
    functions = model.make(dataset, options.width, options.seed)
    rates = np.geomspace(3e-4, 3e-2, options.workers).tolist()
    controller = PopulationController(
        [{"learning_rate": rate} for rate in rates],
        WinnerTakeAllGenetic(
            mutate,
            steps_per_exploit=options.steps_per_exploit,
            synchronous=not options.asynchronous,
        ),
        options.log_dir,
        seed=options.seed,
        stop=Stop(steps=options.steps),
        keep=Keep(last=1),  # For the test accuracy of what each member has trained.
    )
    summary = threads.run(
        lambda worker: model.train_worker(
            worker, functions, dataset, options.batch_size, options.every
        ),
        controller,
        options.threads,
        progress=not options.quiet,
    )
    arguments.show(controller, functions, dataset)
    print(
        f"{summary.wall_s:.1f} s with {summary.num_workers} threads; the controller "
        f"took {summary.overhead:.2%} of their time"
    )
    return controller


if __name__ == "__main__":
    main()
