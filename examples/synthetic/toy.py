"""The toy of the PBT paper (Jaderberg et al. 2017, figure 2): no worker can win alone.

Two parameters theta are trained by gradient ascent on a surrogate, which has two
hyperparameters h; what counts is an objective that training never sees:

    surrogate(theta, h) = 1.2 - h0 * theta0^2 - h1 * theta1^2
    objective(theta)    = 1.2 - theta0^2 - theta1^2

A worker with h = (1, 0) never moves theta1. By copying each other's weights two
workers with (1, 0) and (0, 1) get nearly as far as one with (1, 1).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import population
from population.mutators import PopulationBasedTraining
from population.mutators.exploit import Exploit
from population.space import Uniform

OPTIMUM = 1.2
LEARNING_RATE = 0.01
SPACE = {"h": [Uniform(0, 1), Uniform(0, 1)]}
Pair = list[float]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the workers exploit and explore.

    Attributes:
        mutate_fn: Moves the hyperparameters of a copy.
        steps_per_exploit: Training steps between two decisions.
        exploit: The rule that says which worker copies which.
        copy_meta_params: Whether a copy takes the donor's h too, or theta only.
    """

    mutate_fn: Any
    steps_per_exploit: int
    exploit: Exploit
    copy_meta_params: bool


def objective(theta: Pair) -> float:
    """The objective: at most 1.2, where theta is zero."""
    return OPTIMUM - theta[0] ** 2 - theta[1] ** 2


def train_one_step(theta: Pair, h: Pair) -> Pair:
    """A step of gradient ascent on the surrogate."""
    return [t - LEARNING_RATE * 2 * k * t for t, k in zip(theta, h, strict=True)]


def policy(
    settings: Settings, exploit: bool = True, explore: bool = True
) -> PopulationBasedTraining:
    """PBT, or an ablation without exploiting, exploring or both."""
    return PopulationBasedTraining(
        settings.mutate_fn if explore else None,
        settings.steps_per_exploit,
        exploit=settings.exploit if exploit else None,
        copy_meta_params=settings.copy_meta_params,
        synchronous=True,
    )


def train(
    starts: list[tuple[Pair, Pair]],
    mutator: population.Mutator[Any],
    steps: int,
    every: int,
    seed: int,
) -> population.PopulationController:
    """Train a population to a number of steps.

    Args:
        starts: The first theta and h of each worker.
        mutator: The policy.
        steps: Training steps of each worker.
        every: Steps between two reports.
        seed: Of the policy.
    """
    controller = population.PopulationController(
        [population.Start({"h": h}, params=theta) for theta, h in starts],
        mutator,
        mode="max",
        seed=seed,
    )
    work = controller.workers
    for step in range(every, steps + 1, every):
        for worker_id, (theta, meta_params, generation_id, _, _) in enumerate(work):
            for _ in range(every):
                theta = train_one_step(theta, meta_params["h"])
            controller.set_eval(worker_id, generation_id, step, theta, objective(theta))
            work[worker_id] = work[worker_id]._replace(params=theta, step=step)
        for worker_id, (theta, meta_params, generation_id, _, _) in enumerate(work):
            other = controller.maybe_get_worker_data(
                worker_id, generation_id, step, theta, meta_params
            )
            if other is not None:
                work[worker_id] = other
    return controller


def result(controller: population.PopulationController, steps: int) -> float:
    """The best objective among the workers at the last step."""
    last = (c.value for c in controller.history() if c.step == steps)
    return max(value for value in last if value is not None)


def random_starts(size: int, seed: int) -> list[tuple[Pair, Pair]]:
    """Theta and h of so many workers, each number uniform in [0, 1]."""
    rng = np.random.default_rng([seed, size])
    return [(pair[:2], pair[2:]) for pair in rng.uniform(size=(size, 4)).tolist()]
