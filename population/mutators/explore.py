"""How a user's `mutate_fn` is called."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

MutateFn = Callable[..., Any]


def mutated(
    mutate_fn: MutateFn, rng: Callable[[], np.random.Generator], *arguments: Any
) -> Any:
    """Call `mutate_fn` on a copy of its arguments, so that it may change them in place.

    Args:
        mutate_fn: The user's; returns new meta_params.
        rng: Gives the generator that is passed, by keyword, to a parameter `rng`.
        *arguments: The meta_params first.

    Returns:
        The new meta_params.
    """
    given = copy.deepcopy(arguments)
    if _takes_rng(mutate_fn):
        return mutate_fn(*given, rng=rng())
    return mutate_fn(*given)


def check(mutate_fn: object) -> None:
    """Refuse what cannot be called.

    Raises:
        TypeError: If it is not callable.
    """
    if not callable(mutate_fn):
        raise TypeError(
            "mutate_fn must be a function of meta_params, got "
            f"{type(mutate_fn).__name__}."
        )


@functools.lru_cache(maxsize=64)
def _takes_rng(mutate_fn: MutateFn) -> bool:
    try:
        parameters = inspect.signature(mutate_fn).parameters
    except (TypeError, ValueError):
        return False
    return "rng" in parameters
