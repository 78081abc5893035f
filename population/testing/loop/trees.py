"""Functions of trees by place: compares states, and changes numbers of meta_params."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from population.base import codec
from population.params import references
from population.params.kinds import is_key

Path: TypeAlias = tuple[Any, ...]
Host: TypeAlias = dict[str, Any]


def by_place(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by their place, which is their path as text."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def on_host(tree: Any) -> Host:
    """Copies of the arrays and numbers of a tree, without its other leaves."""
    return {
        place: np.array(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        for place, leaf in by_place(tree).items()
        if is_data(leaf)
    }


def copied(tree: Any) -> Any:
    """Return the tree with new buffers, otherwise the same to a compiled step."""

    def copy(_: Any, leaf: Any) -> Any:
        if isinstance(leaf, jax.Array):
            return jnp.copy(leaf)
        return leaf.copy() if isinstance(leaf, np.ndarray) else leaf

    return references.mapped(copy, tree)


def with_leaves(tree: Any, leaves: Mapping[str, Any]) -> Any:
    """Return the tree with other leaves at these places."""
    return references.mapped(
        lambda path, leaf: leaves.get(jax.tree_util.keystr(path), leaf), tree
    )


def deleted(tree: Any) -> list[str]:
    """Return the places of arrays whose buffers were deleted."""
    return [
        place
        for place, leaf in by_place(tree).items()
        if isinstance(leaf, jax.Array) and leaf.is_deleted()
    ]


def is_data(leaf: Any) -> bool:
    """Whether a leaf is an array of numbers, a PRNG key, or a number."""
    if isinstance(leaf, (bool, int, float, complex)):
        return True
    if not codec.is_array(leaf):
        return False
    return is_key(leaf) or bool(
        jnp.issubdtype(leaf.dtype, np.number) or leaf.dtype == np.bool_
    )


def kind(leaf: Any) -> Any:
    """Return the dtype in a compiled step: float32 for float64, by JAX's default."""
    return leaf.dtype if is_key(leaf) else jax.dtypes.canonicalize_dtype(leaf.dtype)


def differing(one: Host, two: Host) -> set[str]:
    """Return places where two trees differ, also in dtype or shape; NaN equals NaN."""
    return {
        place
        for place in one.keys() | two.keys()
        if not (place in one and place in two and _same(one[place], two[place]))
    }


def shapes(tree: Host) -> dict[str, tuple[int, ...]]:
    """Return the shape of each leaf."""
    return {place: leaf.shape for place, leaf in tree.items()}


def leaves_of(meta_params: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the scalars of meta_params, each with the keys of its path."""
    if isinstance(meta_params, dict):
        inner: Iterable[tuple[Any, Any]] = meta_params.items()
    elif isinstance(meta_params, (list, tuple)):
        inner = enumerate(meta_params)
    else:
        yield path, meta_params
        return
    for key, child in inner:
        yield from leaves_of(child, (*path, key))


def replaced(meta_params: Any, path: Path, value: Any) -> Any:
    """Return the meta_params with another scalar at a path."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(meta_params, dict):
        return {**meta_params, key: replaced(meta_params[key], rest, value)}
    children = list(meta_params)
    children[key] = replaced(children[key], rest, value)
    return type(meta_params)(children)


def name_of(path: Path) -> str:
    """Return a path as text: "optimizer.betas[0]"."""
    text = "".join(f"[{key}]" if type(key) is int else f".{key}" for key in path)
    return text.removeprefix(".") or "meta_params"


def moved(value: Any) -> list[Any]:
    """Other values of the same type: first a near one, then far ones.

    For a value between 0 and 1 they are so, too: it may be a probability.
    """
    found: list[Any] = []
    if type(value) is int:
        found = [value + 1, value // 2, value * 2]
    elif type(value) is float and math.isfinite(value):
        if value == 0:
            found = [0.01, 1.0]
        elif 0 < value < 1:
            near = float(f"{value * (1.07 - 0.07 * value):.6g}")
            found = [near, value / 1000, 1 - value / 1000]
        elif value == 1:
            found = [0.93, 0.001]
        else:
            found = [float(f"{value * 1.07:.6g}"), value / 1000, value * 1000]
    return [other for other in found if other != value]


def _same(one: Any, two: Any) -> bool:
    """Whether two leaves are the same to a compiled step."""
    if one.shape != two.shape or kind(one) != kind(two):
        return False
    if one.dtype != two.dtype:
        one, two = one.astype(kind(one)), two.astype(kind(two))
    return bool(one.tobytes() == two.tobytes())
