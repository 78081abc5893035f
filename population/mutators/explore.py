"""Calls a user's `mutate_fn`."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from population.base.interfaces import PopulationView
from population.base.types import Branch, Checkpoint

MutateFn = Callable[..., Any]


class Explore:
    """Calls a user's `mutate_fn` on copies, so that it may change them in place.

    Args:
        mutate_fn: `mutate_fn(meta_params, ...)`; a parameter named `rng` gets the
            decision's random generator, by keyword.

    Raises:
        TypeError: `mutate_fn` is not callable, or is a class.
    """

    def __init__(self, mutate_fn: MutateFn) -> None:
        if not callable(mutate_fn):
            raise TypeError(
                "mutate_fn must be a function of meta_params, got "
                f"{type(mutate_fn).__name__}."
            )
        if isinstance(mutate_fn, type):
            raise TypeError(
                f"mutate_fn must be a function of meta_params, got the class "
                f"{mutate_fn.__name__}. Make an object: {mutate_fn.__name__}(...)."
            )
        self._mutate_fn = mutate_fn
        self._takes_rng = _takes_rng(mutate_fn)

    def __call__(self, view: PopulationView, *arguments: Any) -> Any:
        """Return the new meta_params.

        Args:
            view: The view, with the decision's random generator.
            *arguments: The arguments of `mutate_fn`, the old meta_params first.

        Raises:
            TypeError: `mutate_fn` returned None.
        """
        given = copy.deepcopy(arguments)
        keywords = {"rng": view.rng} if self._takes_rng else {}
        changed = self._mutate_fn(*given, **keywords)
        if changed is None and arguments[0] is not None:
            raise TypeError(
                f"mutate_fn must return the new meta_params, got None for "
                f"{arguments[0]!r}. Does it change its argument and return nothing?"
            )
        return changed

    def back(self, view: PopulationView, checkpoint: Checkpoint) -> Branch:
        """Return a branch to the last checkpoint that did not diverge, explored."""
        # A checkpoint without a value may come after one that diverged.
        valued = view.graph.newest_value(checkpoint) or checkpoint
        point = view.graph.resume_point(valued)
        changed = self(view, point.meta_params)
        return Branch(point, changed, "went back, having diverged")


def _takes_rng(mutate_fn: MutateFn) -> bool:
    try:
        return "rng" in inspect.signature(mutate_fn).parameters
    except (TypeError, ValueError):  # A built-in function may have no signature.
        return False
