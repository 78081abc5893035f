"""Makes the tree that a store would load of the arrays that a loop has just reported.

A slot that continues from its own report need not read it: its loop still has the
arrays. Only what cannot change is used: JAX arrays that no step has donated, and single
numbers and strings.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path

from population.base.errors import MisfitError
from population.params import kinds, references, trees

_UNCHANGING = (bool, int, float, str, bytes, np.generic)


class ReportedState:
    """The leaves of a reported state; of arrays only weak references.

    So it keeps no array alive, and finds only those that the loop still has.

    Args:
        state: The state, which a store has saved.
    """

    def __init__(self, state: Any) -> None:
        leaves, self._structure = jax.tree.flatten(state)
        self._leaves = [_reference(leaf) for leaf in leaves]

    def fitted(self, like: Any) -> Any:
        """Return the state as a store would load it.

        Args:
            like: A tree of the wanted structure and kinds of leaves.

        Raises:
            MisfitError: It must be loaded: an array is gone, was donated, may have been
                changed in place, or is not as a loaded one would be.
        """
        places = jax.tree.unflatten(self._structure, range(len(self._leaves)))
        leaves = {
            keystr(path): reference()
            for path, place in tree_leaves_with_path(places)
            if (reference := self._leaves[place]) is not None
        }
        trees.matched(leaves.keys(), like, "that were reported")
        local = jnp.array(0).sharding
        used: set[int] = set()

        def own(path: Any, model: Any) -> Any:
            place = keystr(path)
            if place not in leaves:  # A function.
                return model
            leaf = leaves[place]
            if isinstance(leaf, jax.Array) and leaf.is_deleted():
                leaf = None
            # Else a step could not donate both.
            if id(leaf) not in used and _is_as_loaded(leaf, model, local):
                used.add(id(leaf))
                return leaf
            if leaf is None or np.shape(leaf):
                raise MisfitError(f"The reported leaf {place} must be loaded.")
            return kinds.fit_leaf(kinds.to_host(leaf), model, place)

        return references.mapped(own, like)


def _reference(leaf: Any) -> Callable[[], Any] | None:
    """Return a function that returns a leaf, or None if it may differ or is gone.

    Returns:
        The function; None for a leaf that is a function, which no store keeps.
    """
    if isinstance(leaf, jax.Array):
        return weakref.ref(leaf)
    if kinds.is_function(leaf):
        return None
    kept = leaf if isinstance(leaf, _UNCHANGING) else None
    return lambda: kept


def _is_as_loaded(leaf: Any, model: Any, local: jax.sharding.Sharding) -> bool:
    """Whether loading a leaf in the kind of a model would make an equal array.

    Args:
        leaf: A reported leaf.
        model: The leaf of the wanted kind.
        local: Where JAX puts arrays by default.
    """
    if not (isinstance(leaf, jax.Array) and isinstance(model, jax.Array)):
        return False
    place = model.sharding if model.committed else local
    is_there = leaf.committed == model.committed and leaf.sharding == place
    return is_there and bool(jax.typeof(leaf) == jax.typeof(model))
