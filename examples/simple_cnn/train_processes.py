"""A population of CNNs in processes; at intervals all copy the best one.

    python -m examples.simple_cnn.train_processes --log_dir runs/processes

Kill one of the processes while they train: another one trains its member. Run the
same command again to go on after an interruption.
"""

from __future__ import annotations

import argparse
import functools
import math

import numpy as np

from examples.simple_cnn import arguments, model
from population import Keep, PopulationController, Stop, Worker
from population.engines import processes
from population.mutators import WinnerTakeAllGenetic


def mutate(meta_params: dict[str, float], rng: np.random.Generator) -> dict[str, float]:
    """The learning rate times exp of half a standard normal number."""
    factor = math.exp(0.5 * float(rng.normal()))
    return {"learning_rate": meta_params["learning_rate"] * factor}


def train(worker: Worker, options: argparse.Namespace) -> None:
    """The work of each process: load the data, make the model, train."""
    dataset = arguments.load(options)
    functions = model.make(dataset, options.width, options.seed)
    model.train_worker(worker, functions, dataset, options.batch_size, options.every)


def main(argv: list[str] | None = None) -> PopulationController:
    """Train, then print the table and draw the pictures."""
    parser = arguments.parser("A population of CNNs in processes.")
    parser.set_defaults(steps=420, every=10, log_dir="runs/processes")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=4, help="the population's size")
    parser.add_argument("--processes", type=int, help="by default one for each worker")
    parser.add_argument("--gpus_per_worker", type=float, help="such as 1, or 0.5")
    parser.add_argument("--steps_per_exploit", type=int, default=50)
    options = parser.parse_args(argv)
    dataset = arguments.load(options)
    rates = np.geomspace(3e-4, 3e-2, options.workers).tolist()
    controller = PopulationController(
        [{"learning_rate": rate} for rate in rates],
        WinnerTakeAllGenetic(
            mutate, steps_per_exploit=options.steps_per_exploit, synchronous=True
        ),
        options.log_dir,
        seed=options.seed,
        stop=Stop(steps=options.steps),
        keep=Keep(last=1),  # For the test accuracy of what each member has trained.
    )
    summary = processes.run(
        functools.partial(train, options=options),
        controller,
        options.processes,
        gpus_per_worker=options.gpus_per_worker,
        progress=not options.quiet,
    )
    # Only now, as JAX takes the memory of a GPU when it begins.
    functions = model.make(dataset, options.width, options.seed)
    arguments.show(controller, functions, dataset)
    print(
        f"{summary.wall_s:.1f} s with {summary.num_workers} processes, of which "
        f"{summary.died} died; the controller took {summary.overhead:.2%} of their time"
    )
    return controller


if __name__ == "__main__":
    main()
