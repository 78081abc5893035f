"""A population of CNNs in threads, each of ten hyperparameters found while it trains.

    python -m examples.complex_cnn.train_threads --log_dir runs/complex

Every ten seconds the best one is copied to all (`--mutator winner`), or every so many
steps the worst ones copy the best (`--mutator pbt`), or after each report a few members
do and the others adopt its hyperparameters (`--mutator two_speed`), or nobody copies
anybody (`--mutator random`). With `--curriculum` all follow one schedule instead, in
which the augmentation grows. Run the same command again to go on after an interruption.
"""

from __future__ import annotations

import argparse
from typing import Any

from examples.complex_cnn import model
from examples.complex_cnn.space import curriculum, space
from examples.datasets import Dataset
from examples.simple_cnn import arguments
from examples.simple_cnn.model import Functions
from population import Keep, Mutator, PopulationController, Stop
from population.engines import threads
from population.mutators import (
    FixedSchedule,
    PopulationBasedTraining,
    TwoSpeedPBT,
    WinnerTakeAllGenetic,
)
from population.mutators.exploit import Truncation
from population.space import Perturb


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = arguments.parser(
        "A population of CNNs with ten hyperparameters each.",
        names=("colour_digits", "cifar10"),
    )
    parser.set_defaults(steps=1200, every=25, width=16)
    parser.add_argument("--workers", type=int, default=6, help="the population's size")
    parser.add_argument("--threads", type=int, help="by default one for each worker")
    parser.add_argument("--max_batch", type=int, default=128, help="largest batch size")
    policy = parser.add_mutually_exclusive_group()
    policy.add_argument(
        "--mutator", choices=("winner", "two_speed", "pbt", "random"), default="winner"
    )
    policy.add_argument(
        "--curriculum",
        type=int,
        nargs="?",
        const=1000,
        metavar="STEPS",
        help="augmentation grows to full strength in so many steps (1000)",
    )
    parser.add_argument("--seconds_per_exploit", type=float, default=10, help="winner")
    parser.add_argument("--steps_per_exploit", type=int, default=100, help="pbt")
    return parser


def mutator_of(options: argparse.Namespace) -> Mutator[Any]:
    """The policy that the command line asks for."""
    if options.curriculum is not None:
        return FixedSchedule(curriculum(options.curriculum, options.max_batch))
    explore = Perturb(space(options.max_batch))
    if options.mutator == "winner":
        return WinnerTakeAllGenetic(
            explore, seconds_per_exploit=options.seconds_per_exploit
        )
    if options.mutator == "two_speed":
        some = Perturb(space(options.max_batch), share=0.5)
        return TwoSpeedPBT(some, options.every, horizon=options.steps)
    if options.mutator == "pbt":
        return PopulationBasedTraining(
            explore,
            options.steps_per_exploit,
            exploit=Truncation(0.2),
            synchronous=True,
        )
    return PopulationBasedTraining(None, options.steps_per_exploit, exploit=None)


def population_of(options: argparse.Namespace) -> PopulationController:
    """The run, its first hyperparameters drawn from the space or scheduled."""
    mutator, stop = mutator_of(options), Stop(steps=options.steps)
    keep = Keep(last=1)  # For the test accuracy of what each member has trained.
    within = space(options.max_batch)
    if options.curriculum is None:
        return PopulationController.from_space(
            within,
            options.workers,
            mutator,
            options.log_dir,
            seed=options.seed,
            stop=stop,
            keep=keep,
        )
    first = curriculum(options.curriculum, options.max_batch)[0]
    return PopulationController(
        [first] * options.workers,
        mutator,
        options.log_dir,
        seed=options.seed,
        stop=stop,
        keep=keep,
        space=within,
    )


def train(
    options: argparse.Namespace, functions: Functions, dataset: Dataset
) -> PopulationController:
    """Train the population."""
    controller = population_of(options)
    summary = threads.run(
        lambda worker: model.train_worker(
            worker, functions, dataset, options.max_batch, options.every
        ),
        controller,
        options.threads,
        progress=not options.quiet,
    )
    print(f"{summary.wall_s:.1f} s with {summary.num_workers} threads")
    return controller


def main(argv: list[str] | None = None) -> PopulationController:
    """Train, then print the table and draw the pictures."""
    options = flags().parse_args(argv)
    dataset = arguments.load(options)
    functions = model.make(dataset, options.width, options.seed)
    controller = train(options, functions, dataset)
    arguments.show(controller, functions, dataset, log=None)
    return controller


if __name__ == "__main__":
    main()
