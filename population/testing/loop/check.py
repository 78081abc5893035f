"""Checks a user's training loop before a population is trained with it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from population.base import codec
from population.testing.loop.finding import LoopReport


def check_loop(
    init: Callable[..., Any],
    step: Callable[..., Any],
    meta_params: Any,
    *,
    mutated: Any = None,
    keep: str | Collection[str] = (),
    adapt: Callable[[Any, Any, Any], Any] | None = None,
    steps: int = 3,
    seed: int = 0,
) -> LoopReport:
    """Run a few training steps, and report what would go wrong in a population.

    Both functions are called many times, on copies of the state; only at the very end
    the step may donate what `init` has made.

    Args:
        init: As in `worker.restore`: `init(meta_params)` makes a fresh state.
        step: One step of training: `step(state)`, `step(state, meta_params)` or
            `step(state, meta_params, key)`, jitted or not. It returns the next state,
            or `(state, anything)`.
        meta_params: The hyperparameters to begin with.
        mutated: Other meta_params of the same structure; only what differs is tested.
            None: each number is changed, but no text or bool.
        keep: As in `worker.restore`.
        adapt: As in `worker.restore`.
        steps: The number of steps of each run.
        seed: The seed of the keys.

    Returns:
        The findings; empty, and so false, if nothing is wrong.

    Raises:
        TypeError: The functions do not take or return what they should, or meta_params
            are not plain data.
        ValueError: `steps` is not a positive int, or `mutated` has another structure.
    """
    # Imported here, because `check_mutator` and `simulate` do not need JAX.
    from population.in_force import restoring
    from population.testing.loop.examination import Examination
    from population.testing.loop.hyperparameters import changes
    from population.testing.loop.trial import Loop

    if type(steps) is not int or steps < 1:
        raise ValueError(f"steps must be a positive int, got {steps!r}.")
    meta_params = codec.normalized(meta_params, "meta_params")
    if mutated is not None:
        mutated = codec.normalized(mutated, "mutated")
    loop = Loop(init, step, steps, seed, restoring.names_of(keep), adapt)
    todo = changes(meta_params, mutated)
    return Examination(loop, meta_params, todo).report()
