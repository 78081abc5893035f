"""The quick start of the seed's documents runs, with another import."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import population as pop_mod
from population.mutators import winner_take_all_genetic


# First we define how we want the population to be mutated.
# Let's just randomly perturb it.
def mutate_fn(hparams: dict[str, float]) -> dict[str, float]:
    """The seed's impure mutation, with NumPy's global random state."""
    return {"log_lr": hparams["log_lr"] + np.random.normal() * 0.1}


def init_params() -> Any:
    """Raw arrays."""
    return {"w": jnp.full((3,), 5.0), "count": jnp.zeros((), jnp.int32)}


def loss_fn(params: Any) -> Any:
    """A parabola."""
    return jnp.sum((params["w"] - 1.0) ** 2)


def plain_step(params: Any, lr: Any) -> Any:
    """A step of gradient descent."""
    gradient = jax.grad(lambda w: loss_fn({"w": w}))(params["w"])
    return {"w": params["w"] - lr * gradient, "count": params["count"] + 1}


STEPS: dict[str, Callable[[Any, Any], Any]] = {
    "plain": plain_step,
    "jitted": jax.jit(plain_step),
    "donating": jax.jit(plain_step, donate_argnums=0),
}


def loop(
    population: pop_mod.PopulationController,
    train_step: Callable[[Any, Any], Any],
    steps: int,
) -> list[float]:
    """The seed's loop, in which the workers take turns; returns the last losses."""
    # Now, on each worker, we train a model.
    workers: list[tuple[str, Any, Any, int]] = [("", None, None, 0)] * 2
    losses = [float("inf")] * 2
    for _ in range(steps):
        for worker_id in range(2):
            gen_id, hparams, params, step = workers[worker_id]
            # Get the current set of parameters and hparams to work on.
            new_data = population.maybe_get_worker_data(
                worker_id, gen_id, step, params, hparams
            )
            # If this is non-None then we obtained some new hparams and params.
            if new_data:
                params = new_data.params
                hparams = new_data.meta_params
                gen_id = new_data.generation_id
                step = new_data.step
                if params is None:
                    params = init_params()

            # Train the model one step
            params = train_step(params, np.exp(hparams["log_lr"]))
            step += 1  # accumulate step counter.

            # every 10 steps, send back an evaluation.
            if step % 10 == 0:
                loss = loss_fn(params)
                losses[worker_id] = float(loss)
                population.set_eval(worker_id, gen_id, step, params, loss)
            assert int(params["count"]) == step
            workers[worker_id] = gen_id, hparams, params, step
    return losses


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("name", STEPS)
def test_the_seeds_quick_start_trains_a_population(
    name: str, on_disk: bool, tmp_path: pathlib.Path
) -> None:
    """Arrays as params, an impure mutation, with and without a folder."""
    np.random.seed(0)
    # Select a mutator: it does a population wide selection every 20 steps.
    mutator = winner_take_all_genetic.WinnerTakeAllGenetic(
        mutate_fn, steps_per_exploit=20
    )
    # Construct the PopulationController which manages the population
    population = pop_mod.PopulationController(
        [{"log_lr": np.log(1e-2)} for i in range(2)],
        mutator,
        tmp_path if on_disk else None,
    )
    losses = loop(population, STEPS[name], 100)
    assert max(losses) < 2.0
    assert population.newest(0).step == 100
    numbers = [int(g.split("-")[2]) for g in population.graph]
    assert max(numbers) == 5
    population.close()


def test_the_quick_start_goes_on_where_it_was_killed(tmp_path: pathlib.Path) -> None:
    """An impure mutation is not called again: its decision is recorded."""
    np.random.seed(0)
    seen = []
    for _ in range(3):
        mutator = winner_take_all_genetic.WinnerTakeAllGenetic(
            mutate_fn, steps_per_exploit=20
        )
        population = pop_mod.PopulationController(
            [{"log_lr": np.log(1e-2)} for i in range(2)], mutator, tmp_path
        )
        seen.append([w.meta_params for w in population.workers])
        loop(population, STEPS["donating"], 40)
        steps = [w.step for w in population.workers]
        seen.append([w.meta_params for w in population.workers])
        population.close()
    assert seen[1] == seen[2]
    assert seen[3] == seen[4]
    assert steps == [120, 120]
