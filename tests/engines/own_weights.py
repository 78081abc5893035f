"""A loop that keeps its weights at each decision, for threads and processes."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from population import PopulationController, Stop, Worker, hyperparams
from population.mutators import FixedSchedule, PopulationBasedTraining
from tests.params.stores import CountedFiles

OPTIMIZER = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0, momentum=0.9)
Meta = dict[str, float]


def rates(step: int) -> Meta:
    """Another learning rate after each report."""
    return {"learning_rate": 0.1 / (1 + step)}


def mutated(meta: Meta) -> Meta:
    """A lower learning rate."""
    return {"learning_rate": 0.9 * meta["learning_rate"]}


POLICIES: dict[str, Callable[[], Any]] = {
    "schedule": lambda: FixedSchedule({step: rates(step) for step in range(0, 12, 2)}),
    "explore": lambda: PopulationBasedTraining(mutated, 2, exploit=None),
}


def opened(
    folder: pathlib.Path, policy: str, size: int
) -> tuple[PopulationController, CountedFiles]:
    """A run on disk, and its store, which counts loads."""
    store = CountedFiles(folder / "weights")
    run = PopulationController(
        [rates(worker_id) for worker_id in range(size)],
        POLICIES[policy](),
        folder / "run",
        params=store,
        stop=Stop(steps=12),
    )
    return run, store


def init(meta: Meta) -> Any:
    """Weights with the optimiser's state."""
    weights = jnp.ones(3)
    opt_state = hyperparams.put(OPTIMIZER.init(weights), meta, strict=False)
    return weights, opt_state


@jax.jit
def step(state: Any) -> Any:
    """One step towards zero."""
    weights, opt_state = state
    updates, opt_state = OPTIMIZER.update(2 * weights, opt_state)
    return optax.apply_updates(weights, updates), opt_state


def train(worker: Worker) -> None:
    """Train to the end, with a report after every second step."""
    while worker.running:
        if worker.poll():
            state = worker.restore(init)
        if not worker.running:
            break
        state = step(state)
        worker.step += 1
        if worker.step % 2 == 0:
            worker.report(float(jnp.sum(state[0] ** 2)), state)
