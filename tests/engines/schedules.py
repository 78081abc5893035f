"""A population whose batches depend on the step alone, for each engine."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from population import Checkpoint, PopulationController, Stop, Worker
from population.base import Mutator
from population.mutators import FixedSchedule, PopulationBasedTraining
from population.mutators.exploit import TopFraction
from population.space import LogUniform, Perturb, Uniform

SPACE = {"learning_rate": LogUniform(1e-3, 0.3), "momentum": Uniform(0.0, 0.95)}
OTHER = {"learning_rate": 0.01, "momentum": 0.5}
SIZE, STEPS, EVERY = 4, 60, 5
SEED = 0


def searching() -> PopulationBasedTraining:
    """Waits for all members, so that timing changes nothing."""
    return PopulationBasedTraining(
        Perturb(SPACE), 10, exploit=TopFraction(0.5), synchronous=True
    )


def searched(log_dir: Any = None, **options: Any) -> PopulationController:
    """A run that searches."""
    stop = Stop(steps=STEPS)
    arguments = SPACE, SIZE, searching(), log_dir
    return PopulationController.from_space(
        *arguments, initial="random", seed=SEED, stop=stop, mode="min", **options
    )


def again(
    controller: PopulationController, log_dir: Any = None, start: Any = OTHER
) -> PopulationController:
    """A run from scratch by the schedule of the best of another run."""
    best = controller.best()
    assert best is not None
    policy: Mutator[Any] = FixedSchedule(controller.schedule(best))
    stop = Stop(steps=best.step)
    return PopulationController([start] * SIZE, policy, log_dir, stop=stop)


def check_searched(controller: PopulationController) -> Checkpoint:
    """The best checkpoint; its lineage must have branches and several donors."""
    best = controller.best()
    assert best is not None
    lineage = controller.lineage(best)
    assert len(controller.schedule(best)) >= 4
    assert len({checkpoint.worker_id for checkpoint in lineage}) >= 3
    return best


def check_again(controller: PopulationController, best: Checkpoint) -> None:
    """Every slot has the best value again, to the bit, at the step of the best."""
    found = controller.best()
    assert found is not None
    assert (found.value, found.step) == (best.value, best.step)
    last = [c.value for c in controller.history() if c.step == best.step]
    assert {value for value in last if value is not None} == {best.value}


def batch(step: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The batch of a step; not of a slot."""
    rng = np.random.default_rng(step)
    x = rng.normal(size=(8, 3)).astype(np.float32)
    return x, np.tanh(x @ np.array([1.0, -2.0, 3.0], np.float32))


def shared_batch(seed: int, step: int) -> Any:
    """The batch of all members."""
    del seed
    return batch(step)


HELD_OUT = batch(10**6)


def loss(weights: Any, x: Any, y: Any) -> Any:
    """The error of a small network."""
    hidden = jnp.tanh(x @ weights["in"])
    return jnp.mean((hidden @ weights["out"] - y) ** 2)


def optimiser(meta_params: Any) -> Any:
    """Momentum; its numbers are injected."""
    return optax.inject_hyperparams(optax.sgd)(
        learning_rate=meta_params["learning_rate"], momentum=meta_params["momentum"]
    )


def init(meta_params: Any) -> Any:
    """The same weights for each slot."""
    rng = np.random.default_rng(0)
    weights = {
        "in": jnp.asarray(rng.normal(size=(3, 5)), jnp.float32),
        "out": jnp.asarray(rng.normal(size=5), jnp.float32),
    }
    return {"weights": weights, "opt": optimiser(meta_params).init(weights)}


def update(state: Any, x: Any, y: Any) -> Any:
    """One step."""
    gradients = jax.grad(loss)(state["weights"], x, y)
    # The optimiser's numbers are those in its state.
    changes, opt = optimiser(OTHER).update(gradients, state["opt"], state["weights"])
    return {"weights": optax.apply_updates(state["weights"], changes), "opt": opt}


@functools.cache
def compiled() -> tuple[Any, Any]:
    """The step and the loss as programs."""
    return jax.jit(update), jax.jit(loss)


def train(worker: Worker) -> None:
    """The loop of threads and processes."""
    step, evaluate = compiled()
    state: Any = None
    while worker.running:
        if worker.poll():
            state = worker.restore(init)
        if state is None:
            continue  # Another worker has ended the run.
        state = step(state, *batch(worker.step))
        worker.step += 1
        if worker.step % EVERY == 0:
            worker.report(float(evaluate(state["weights"], *HELD_OUT)), state)


def stacked_init(key: Any, meta_params: Any) -> Any:
    """As `init`, whatever the slot."""
    del key
    return init(meta_params)


def stacked_step(state: Any, meta_params: Any, batch: Any, key: Any) -> Any:
    """As `update`."""
    del meta_params, key
    return update(state, *batch)


def stacked_evaluate(state: Any, meta_params: Any, batch: Any) -> Any:
    """As `loss`."""
    del meta_params
    return loss(state["weights"], *batch)
