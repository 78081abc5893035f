"""Refuses params that a store cannot keep, or cannot restore."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
from jax.tree_util import keystr

from population.base import codec
from population.base.refusals import DEEPEST, refuse_lossy, shortly, too_deep
from population.params import forms, kinds, trees


def check(tree: Any, *, plain: bool, functions: bool = True) -> None:
    """Refuse params that a store cannot keep, or cannot restore.

    Args:
        tree: The params.
        plain: Whether they must be dicts, lists and tuples of arrays.
        functions: Whether leaves may be functions, which are not stored.

    Raises:
        TypeError: A leaf cannot be stored; the message names its place.
    """
    _refuse_deep(tree)
    known = forms.recent(*jax.tree.flatten(tree))
    if known is not None and (known.layout is not None or not plain):
        return
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    for path, leaf in leaves:
        if not functions and kinds.is_function(leaf):
            raise TypeError(
                f"params{keystr(path)} cannot be stored: it is a function, which can "
                "only be taken from a fresh tree. Use controller.worker(), whose "
                "restore(init) makes one."
            )
    places = trees.by_path(tree)
    functions_left_out = sum(kinds.is_function(leaf) for _, leaf in leaves)
    if len(places) + functions_left_out < len(leaves):
        raise TypeError(
            "params cannot be stored: two leaves have one path. Register the class of "
            "their node with other keys."
        )
    for place, leaf in places.items():
        if type(leaf) is str and not leaf.isascii() and codec.readable(leaf) != leaf:
            raise TypeError(
                f"params{place} cannot be stored: it must be Unicode, got {leaf!a}. "
                "Write it with escapes."
            )
        if codec.is_array(leaf):
            refuse_lossy(leaf, f"params{place}")
        if not kinds.is_storable(leaf):
            what = getattr(leaf, "dtype", "")
            raise TypeError(
                f"params{place} cannot be stored: got {type(leaf).__name__} {what}. "
                "Params are a path, or a tree of arrays, numbers and strings."
            )
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            raise TypeError(
                f"params{place} cannot be stored: a process saves only what is on its "
                f"own devices, got {leaf.sharding}. Save them yourself and report the "
                "path."
            )
    if plain and trees.layout(tree) is None:
        raise TypeError(
            "params must be dicts, lists and tuples of arrays to come back after a "
            f"restart, got {type(tree).__name__}. Report them with "
            "flax.serialization.to_state_dict(params), save them yourself and report "
            "the path, or use controller.worker(): its restore(init) rebuilds any tree."
        )


def _refuse_deep(tree: Any) -> None:
    """Refuse a tree that is so deep that JAX would fail with an internal error."""
    rest: list[tuple[Any, tuple[Any, ...]]] = [(tree, ())]
    while rest:
        node, keys = rest.pop()
        if isinstance(node, dict):
            below: Iterable[tuple[Any, Any]] = node.items()
        elif isinstance(node, (list, tuple)):
            below = enumerate(node)
        else:
            continue
        if len(keys) >= DEEPEST:
            raise TypeError(too_deep("params" + "".join(map(_index, keys))))
        rest += [
            (child, (*keys, key))
            for key, child in below
            if isinstance(child, (dict, list, tuple))
        ]


def _index(key: Any) -> str:
    return f"[{shortly(key)}]"
