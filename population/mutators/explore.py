"""How a user's `mutate_fn` is called."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from population.base import PopulationView

MutateFn = Callable[..., Any]


class Explore:
    """A user's `mutate_fn`, called on copies, so that it may change them in place.

    Args:
        mutate_fn: `mutate_fn(meta_params, ...)`; the decision's random generator is
            passed by keyword to a parameter of the name `rng`, if there is one.

    Raises:
        TypeError: If it is not callable.
    """

    def __init__(self, mutate_fn: MutateFn) -> None:
        if not callable(mutate_fn):
            raise TypeError(
                "mutate_fn must be a function of meta_params, got "
                f"{type(mutate_fn).__name__}."
            )
        self._mutate_fn = mutate_fn
        self._takes_rng = _takes_rng(mutate_fn)

    def __call__(self, view: PopulationView, *arguments: Any) -> Any:
        """New meta_params; the old ones are the first argument after the view."""
        given = copy.deepcopy(arguments)
        if self._takes_rng:
            return self._mutate_fn(*given, rng=view.rng)
        return self._mutate_fn(*given)


def _takes_rng(mutate_fn: MutateFn) -> bool:
    try:
        return "rng" in inspect.signature(mutate_fn).parameters
    except (TypeError, ValueError):  # A built-in function may have no signature.
        return False
