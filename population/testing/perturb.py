"""A `mutate_fn` for any meta_params."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def perturb(
    meta_params: Any, *rest: Any, rng: np.random.Generator | None = None
) -> Any:
    """Change each number in meta_params a little: a `mutate_fn` for any of them.

    Args:
        meta_params: Nested dicts, lists and tuples of anything.
        *rest: Further arguments of the mutator; if one is a generator, it is used.
        rng: The source of random numbers; without one, each number grows.
    """
    if rng is None:
        rng = next((r for r in rest if isinstance(r, np.random.Generator)), None)
    if isinstance(meta_params, dict):
        return {key: perturb(inner, rng=rng) for key, inner in meta_params.items()}
    if isinstance(meta_params, (list, tuple)):
        return type(meta_params)([perturb(inner, rng=rng) for inner in meta_params])
    draw = 0.7 if rng is None else float(rng.uniform(-1, 1))
    if type(meta_params) is int:
        return meta_params + round(2 * draw)
    if type(meta_params) is float and math.isfinite(meta_params):
        return meta_params * (1 + 0.1 * draw)
    return meta_params
