"""Trees in which one object may be in several places, as in modules of Flax's nnx.

A `Variable` of nnx is a reference: two layers with tied weights hold the same object,
and an optimiser counts it once. `jax.tree.map` makes two objects of it, which the next
update refuses; `mapped` makes one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import tree_flatten_with_path, tree_map_with_path

Path = tuple[Any, ...]


def mapped(function: Callable[[Path, Any], Any], tree: Any) -> Any:
    """Return a tree with other leaves; an object in several places stays one object.

    Args:
        function: Called with the path of a leaf and the leaf; returns the new leaf. For
            a leaf that is in several places it is called once, with the first path.
        tree: Any pytree.
    """
    kinds = _kinds()
    if not has_any(tree):
        return tree_map_with_path(function, tree)
    made: dict[
        int, tuple[Any, Any]
    ] = {}  # Keeping the object keeps its id from being reused.

    def rebuilt(node: Any, base: Path) -> Any:
        if id(node) in made:
            return made[id(node)][1]
        pairs, structure = tree_flatten_with_path(
            node, is_leaf=lambda inner: inner is not node and isinstance(inner, kinds)
        )
        leaves = [
            rebuilt(leaf, base + path)
            if isinstance(leaf, kinds)
            else function(base + path, leaf)
            for path, leaf in pairs
        ]
        built = jax.tree.unflatten(structure, leaves)
        if isinstance(node, kinds):
            made[id(node)] = node, built
        return built

    return rebuilt(tree, ())


def has_any(tree: Any) -> bool:
    """Whether a tree has objects that are references."""
    kinds = _kinds()
    if not kinds:
        return False
    found = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kinds))
    return any(isinstance(leaf, kinds) for leaf in found)


def _kinds() -> tuple[type, ...]:
    """Return nnx's classes whose objects are references; none without nnx."""
    nnx = sys.modules.get("flax.nnx")
    names = ("Variable", "Object", "Pytree", "Module")
    found = [getattr(nnx, name, None) for name in names]
    return tuple(kind for kind in found if isinstance(kind, type))
