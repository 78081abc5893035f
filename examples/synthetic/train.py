"""The smallest use of the library: two calls in a loop, on a problem in one dimension.

A parameter `a` is trained by gradient descent on

    loss(a, b) = (b + a - 2)^2 + (a - 1)^2 + (b - 1)^2

with a hyperparameter `b`; what counts is the loss where b is 2, at best 1.5 at a = 0.5.
So the best b is 2, but training with another b never says so.

    python -m examples.synthetic.train --mutator explore
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import population
from population.mutators import (
    BranchingSingleMachine,
    FixedSchedule,
    WinnerTakeAllGenetic,
)

LEARNING_RATE = 0.01
STEPS_PER_EVALUATION = 5
SIGN = {"neg": -1, "pos": 1}


def loss(a: float, b: float) -> float:
    """The inner loss; with b = 2 the objective."""
    return (b + a - 2) ** 2 + (a - 1) ** 2 + (b - 1) ** 2


def train_one_step(a: float, b: float) -> float:
    """A step of gradient descent on `a`."""
    gradient = 2 * (b + a - 2) + 2 * (a - 1)
    return a - LEARNING_RATE * gradient


def move(meta_params: dict[str, float], direction: str, cycle: int) -> dict[str, float]:
    """Move `b` by a tenth down or up, for the single worker."""
    del cycle
    return {"b": meta_params["b"] + 0.1 * SIGN[direction]}


def perturb(
    meta_params: dict[str, float], rng: np.random.Generator
) -> dict[str, float]:
    """Move `b` by about a tenth in a random direction, for several workers."""
    return {"b": meta_params["b"] + 0.1 * float(rng.normal())}


def make_controller(
    mutator: str, log_dir: str | None, steps: int, seed: int
) -> population.PopulationController:
    """The population under one of the three policies."""
    policy: population.Mutator[Any]
    if mutator == "explore":
        workers, policy = 1, BranchingSingleMachine(move, 50, 30)
    elif mutator == "winner":
        workers, policy = 4, WinnerTakeAllGenetic(perturb, steps_per_exploit=50)
    else:
        workers, policy = (
            1,
            FixedSchedule({100 * k: {"b": 1 + 0.1 * k} for k in range(11)}),
        )
    return population.PopulationController(
        [{"b": 1.0}] * workers,
        policy,
        log_dir,
        seed=seed,
        stop=population.Stop(reports=steps // STEPS_PER_EVALUATION),
    )


def train(
    mutator: str = "explore",
    log_dir: str | None = None,
    steps: int = 5000,
    seed: int = 0,
) -> population.PopulationController:
    """Train `steps` steps of all workers together; run again to go on after a kill."""
    controller = make_controller(mutator, log_dir, steps, seed)
    workers = [Loop(controller, i) for i in range(len(controller.workers))]
    while not controller.finished:
        for worker in workers:
            worker.train_a_while()
    return controller


class Loop:
    """A worker's own loop around the two calls."""

    def __init__(self, controller: population.PopulationController, worker_id: int):
        self.controller = controller
        self.worker_id = worker_id
        self.generation_id = ""  # Nothing is being trained yet.
        self.meta_params: dict[str, float] = {}
        self.a: Any = None  # The first poll returns work.
        self.step = 0

    def train_a_while(self) -> None:
        """Train up to the next evaluation, and report it."""
        for _ in range(STEPS_PER_EVALUATION):
            data = self.controller.maybe_get_worker_data(
                self.worker_id, self.generation_id, self.step, self.a, self.meta_params
            )
            if data is not None:
                self.a = 0.0 if data.params is None else data.params
                self.meta_params = data.meta_params
                self.generation_id = data.generation_id
                self.step = data.step
            self.a = train_one_step(self.a, self.meta_params["b"])
            self.step += 1
        self.controller.set_eval(
            self.worker_id, self.generation_id, self.step, self.a, loss(self.a, 2.0)
        )


def main(arguments: list[str] | None = None) -> None:
    """Train, then print how close to the optimum the population came."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--mutator", choices=("explore", "winner", "fixed"), default="explore"
    )
    parser.add_argument("--log_dir", help="the run folder; run again to go on there")
    parser.add_argument(
        "--steps", type=int, default=5000, help="of all workers together"
    )
    parser.add_argument("--seed", type=int, default=0)
    controller = train(**vars(parser.parse_args(arguments)))
    for worker_id in range(len(controller.workers)):
        newest = controller.newest(worker_id)
        print(
            f"worker {worker_id}: step {newest.step}, a = {newest.params:.4f}, "
            f"b = {newest.meta_params['b']:.3f}"
        )
    best = controller.best()
    if best is not None:
        print(f"best objective {best.value:.5f} at step {best.step} (optimum 1.5)")


if __name__ == "__main__":
    main()
