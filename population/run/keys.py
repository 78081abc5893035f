"""PRNG keys that depend on the run's seed, the slot and the step alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jax


def key(seed: int, worker_id: int, step: int) -> jax.Array:
    """Return the key of a slot at a step of a run."""
    import numpy as np

    fold_in, of_slot = _of_slot(seed, worker_id)
    return fold_in(of_slot, np.uint32(step))


@functools.lru_cache(maxsize=1024)
def _of_slot(seed: int, worker_id: int) -> tuple[Callable[..., jax.Array], jax.Array]:
    """Return the compiled `fold_in`, and the key from which it makes a slot's keys."""
    import jax

    fold_in = jax.jit(jax.random.fold_in)
    return fold_in, jax.random.fold_in(jax.random.key(seed), worker_id)
