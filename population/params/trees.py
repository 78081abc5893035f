"""Pytrees of params: their leaves by path, their structure, and trees made of them.

A store keeps the leaves of any pytree by their path, and the structure of a tree that
consists of dicts, lists and tuples. For other structures a tree `like` is needed, into
which the leaves are put. Functions among the leaves, such as the activation of a
module, are not stored: they are taken from `like`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import jax
from jax.tree_util import keystr

from population.base import codec
from population.base.errors import MisfitError, ParamsError
from population.params import kinds, references


def layout(tree: Any) -> str | None:
    """Return the structure of a tree of dicts, lists and tuples as text; else None."""
    if any(map(kinds.is_function, jax.tree.leaves(tree))):
        return None
    try:
        text = codec.encode(jax.tree.map(kinds.kind, tree))
        codec.decode(text)  # Refuses dataclasses: their types are not in the text.
    except (TypeError, ValueError):
        return None
    return text


def by_path(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by their path, without functions."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {keystr(path): leaf for path, leaf in leaves if not kinds.is_function(leaf)}


def rebuilt(
    leaves: Mapping[str, Any], plain: str | None, path: str, *, owned: bool = False
) -> Any:
    """Return the stored tree of dicts, lists and tuples.

    Args:
        leaves: The leaves by their path.
        plain: The tree's `layout`.
        path: The name of the save, for the message.
        owned: Whether nothing else uses the memory of the leaves: they need no copy.

    Raises:
        ParamsError: `plain` is None: the tree had other containers.
    """
    if plain is None:
        raise ParamsError(
            f"The params {path} hold more than dicts, lists and tuples. Pass a "
            "tree of their structure: worker.restore(init), or "
            "controller.load(checkpoint, like)."
        )
    pairs, structure = jax.tree_util.tree_flatten_with_path(codec.decode(plain))
    found = kinds.as_kinds(
        [leaves[keystr(place)] for place, _ in pairs],
        [what for _, what in pairs],
        owned=owned,
    )
    return jax.tree.unflatten(structure, found)


AS_SAVED = object()  # In place of a tree `like`: any saved structure, as nested dicts.
_KEYS = re.compile(r"\['(.*?)'\]|\[(\d+)\]|\.(\w+)")


def nested(leaves: Mapping[str, Any]) -> Any:
    """Return leaves in nested dicts by the keys of their paths; indices are ints."""
    found: dict[Any, Any] = {}
    for place, leaf in leaves.items():
        keys = [int(n) if n else t or a for t, n, a in _KEYS.findall(place)] or [""]
        inner = found
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[-1]] = leaf
    return found.get("", found) if len(found) == 1 else found


def fitted(
    leaves: Mapping[str, Any], like: Any, path: str, *, owned: bool = False
) -> Any:
    """Return the tree `like` with these leaves, in its kinds, dtypes and weak types.

    For `AS_SAVED` in place of a tree, the leaves are `nested`.

    Args:
        leaves: The leaves by their path.
        like: The tree.
        path: The name of the save, for messages.
        owned: Whether nothing else uses the memory of the leaves: they need no copy.

    Raises:
        MisfitError: A leaf does not fit; the message names its place.
    """
    if like is AS_SAVED:
        return nested(leaves)
    models = matched(leaves.keys(), like, path)
    fit = kinds.fit_leaves(leaves, models, path, owned=owned)
    return references.mapped(lambda place, model: fit.get(keystr(place), model), like)


def matched(places: Collection[str], like: Any, path: str) -> dict[str, Any]:
    """Return the leaf of `like` at each of these places.

    Raises:
        MisfitError: The tree has places without a leaf, or a leaf has no place in it.
    """
    if like is AS_SAVED:
        return {}
    whole = by_path(like)
    models = {
        k: leaf for k, leaf in whole.items() if k in places or kinds.is_data(leaf)
    }
    if models.keys() != set(places):
        differ = sorted(models.keys() ^ set(places))
        sides = ("the tree", models.keys()), ("what was saved", set(places))
        lacking = [
            f"only {side} has {', '.join(own[:3])}{' ...' if len(own) > 3 else ''}"
            for side, there in sides
            if (own := [place for place in differ if place in there])
        ]
        raise MisfitError(
            f"The params {path} do not fit the given tree: {'; '.join(lacking)}."
        )
    return models
