"""The toy of the PBT paper with thousands of members, trained as one program.

    python -m examples.synthetic.train_vectorized --members 4096

Half of the members see one of the two parameters, half the other: none can win alone.
With PBT the worst fifth copies the weights of others every ten steps, and then trains
the parameter that it sees. `toy.py` explains the problem.
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp

from examples.synthetic import toy
from population import PopulationController, Stop
from population.engines import vectorized
from population.mutators import PopulationBasedTraining
from population.mutators.exploit import Truncation


def init(key: jax.Array, meta_params: Any) -> jax.Array:
    """Return theta, slightly different for each: of equals, none would be better."""
    del meta_params
    return 0.9 + 0.01 * jax.random.normal(key, (2,))


def step(theta: jax.Array, meta_params: Any, batch: None, key: jax.Array) -> jax.Array:
    """A step of gradient ascent on the surrogate."""
    del batch, key

    def surrogate(at: jax.Array) -> jax.Array:
        return toy.OPTIMUM - jnp.dot(jnp.stack(meta_params["h"]), at**2)

    uphill: jax.Array = jax.grad(surrogate)(theta)
    return theta + toy.LEARNING_RATE * uphill


def evaluate(theta: jax.Array, meta_params: Any, batch: None) -> jax.Array:
    """The objective, which training never sees."""
    del meta_params, batch
    return toy.OPTIMUM - jnp.sum(theta**2)


def train(
    members: int,
    steps: int = 200,
    every: int = 10,
    log_dir: str | None = None,
    *,
    seed: int = 0,
    evolve: bool = True,
    batching: str = "auto",
) -> tuple[PopulationController, vectorized.Summary]:
    """Train the members; without `evolve` none copies another."""
    blind = [{"h": [1.0, 0.0]}, {"h": [0.0, 1.0]}]
    controller = PopulationController(
        [blind[member % 2] for member in range(members)],
        PopulationBasedTraining(
            None,
            every,
            exploit=Truncation(0.2) if evolve else None,
            copy_meta_params=False,
            synchronous=True,
        ),
        log_dir,
        mode="max",
        seed=seed,
        stop=Stop(steps=steps),
    )
    summary = vectorized.run(
        controller, init, step, evaluate, every, batching=batching, progress=False
    )
    return controller, summary


def main(argv: list[str] | None = None) -> None:
    """Train with PBT and without, and print both results."""
    parser = argparse.ArgumentParser(description="Figure 2's toy, stacked.")
    parser.add_argument("--members", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=10, help="steps between reports")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log_dir", help="the run folder; run again to go on there")
    options = parser.parse_args(argv)
    sizes = options.members, options.steps, options.every
    for evolve, log_dir in ((False, None), (True, options.log_dir)):
        controller, summary = train(*sizes, log_dir, seed=options.seed, evolve=evolve)
        best = controller.best()
        print(
            f"{'PBT' if evolve else 'no PBT':6}  "
            f"best {0.0 if best is None else best.value:.4f} of {toy.OPTIMUM}  "
            f"{summary.wall_s:.1f} s, of which reports and decisions "
            f"{summary.overhead_s:.1f} s"
        )
        controller.close()


if __name__ == "__main__":
    main()
