"""One worker that searches its learning rate while it trains.

    python -m examples.simple_cnn.train --log_dir runs/explore

The worker tries a lower, a higher and the same rate from the same weights, and then
uses the best one for a while. Run the same command again to go on after an
interruption.
"""

from __future__ import annotations

import math

from examples.simple_cnn import arguments, model
from population import Keep, PopulationController, Stop
from population.mutators import BranchingSingleMachine
from population.report import progress

SIGN = {"neg": -1, "pos": 1}


def mutate(
    meta_params: dict[str, float], direction: str, cycle: int
) -> dict[str, float]:
    """The learning rate half a natural logarithm down or up."""
    del cycle
    factor = math.exp(0.5 * SIGN[direction])
    return {"learning_rate": meta_params["learning_rate"] * factor}


def main(argv: list[str] | None = None) -> PopulationController:
    """Train, then print the table and draw the pictures."""
    parser = arguments.parser("One worker that searches its learning rate.")
    parser.set_defaults(steps=600, every=5)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--explore_steps", type=int, default=20)
    parser.add_argument("--exploit_steps", type=int, default=40)
    options = parser.parse_args(argv)
    dataset = arguments.load(options)
    functions = model.make(dataset, options.width, options.seed)
    controller = PopulationController(
        [{"learning_rate": 1e-3}],
        BranchingSingleMachine(mutate, options.exploit_steps, options.explore_steps),
        options.log_dir,
        seed=options.seed,
        stop=Stop(steps=options.steps),
        keep=Keep(last=1),  # For the test accuracy of what each member has trained.
    )
    bars = progress.bars(controller, quiet=options.quiet)
    with bars, controller.worker() as worker:
        model.train_worker(
            worker, functions, dataset, options.batch_size, options.every
        )
    arguments.show(controller, functions, dataset)
    return controller


if __name__ == "__main__":
    main()
