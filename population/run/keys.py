"""PRNG keys that depend on the run's seed, the slot and the step alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jax


@functools.lru_cache(maxsize=1024)
def _base_key(seed: int, worker_id: int) -> jax.Array:
    import jax

    return jax.random.fold_in(jax.random.key(seed), worker_id)


def key(seed: int, worker_id: int, step: int) -> jax.Array:
    """The key of a slot at a step of a run."""
    import numpy as np

    return _fold_in()(_base_key(seed, worker_id), np.uint32(step))


@functools.cache
def _fold_in() -> Callable[..., jax.Array]:
    import jax

    return jax.jit(jax.random.fold_in)
