"""Finds the numbers of `optax.inject_hyperparams` in a tree, and replaces them.

An injected state is recognised by its class; or by its fields where it was turned into
dicts, as `nnx.split` and `flax.serialization.to_state_dict` do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from population.params import references
from population.params.references import Path

_CLASSES = (optax.InjectHyperparamsState, optax.InjectStatefulHyperparamsState)
_ALWAYS = {"count", "hyperparams"}
_FIELDS = _ALWAYS | {"hyperparams_states", "inner_state"}


class Number(NamedTuple):
    """A hyperparameter that an optimiser's state holds.

    Attributes:
        path: Its path in the tree.
        name: Its name in the optimiser.
        driven: Whether a schedule writes it at each update.
        leaf: The number, as an array.
    """

    path: Path
    name: str
    driven: bool
    leaf: Any

    @property
    def place(self) -> str:
        """The path as text."""
        return jax.tree_util.keystr(self.path)


def _is_inner(outer: Any, node: Any) -> bool:
    """Whether a node is an injected state other than the one that is looked into."""
    return node is not outer and _is_injected(node)


def numbers(tree: Any) -> list[Number]:
    """Return all injected numbers, those of an outer state before inner ones."""
    found: list[Number] = []
    level: list[tuple[Path, Any]] = [((), tree)]
    while level:
        inner: list[tuple[Path, Any]] = []
        for base, node in level:
            is_leaf = functools.partial(_is_inner, node)
            pairs = jax.tree_util.tree_leaves_with_path(node, is_leaf=is_leaf)
            injected = _is_injected(node)
            driven = _driven(node) if injected else frozenset()
            for path, leaf in pairs:
                if _is_injected(leaf):
                    inner.append((base + path, leaf))
                elif injected and _name(path[0]) == "hyperparams":
                    name = _name(path[1])
                    found.append(Number(base + path, name, name in driven, leaf))
        level = inner
    return found


def replaced(tree: Any, new: Mapping[Path, Any]) -> Any:
    """Return the tree with other leaves at these paths."""
    if not new:
        return tree
    return references.mapped(lambda path, leaf: new.get(path, leaf), tree)


def carried(
    saved: Any,
    wanted: Sequence[Number],
    keep: Callable[[Number], bool] = lambda number: False,
    when: Any = None,
) -> Any:
    """Return a saved state with the injected numbers of a fresh one.

    Numbers that a schedule drives stay as saved.

    Args:
        saved: A state, such as a donor's.
        wanted: The injected numbers of a state that `init` has made.
        keep: Returns whether a further number stays as saved.
        when: A traced bool, whether to replace them at all; None: always.
    """
    new = {
        old.path: _taken(number.leaf, old.leaf, when)
        for old, number in zip(numbers(saved), wanted, strict=True)
        if not (number.driven or keep(number))
        and not (when is not None and isinstance(old.leaf, bool))
    }
    return replaced(saved, new)


def _taken(number: Any, old: Any, when: Any) -> Any:
    """Return the fresh number, or the old one; a copy, as a step may donate it."""
    if when is None:
        return jnp.copy(number) if isinstance(number, jax.Array) else number
    old = jnp.asarray(old)
    return jnp.where(when, number, old).astype(old.dtype)


def _is_injected(node: Any) -> bool:
    if isinstance(node, _CLASSES):
        return True
    if not isinstance(node, Mapping) or not _ALWAYS <= node.keys() <= _FIELDS:
        return False
    # A user's own dict may have these two keys; nnx leaves out empty fields.
    theirs = "inner_state" in node or references.has_any(node["count"])
    return theirs and isinstance(node["hyperparams"], Mapping)


def _driven(node: Any) -> frozenset[str]:
    if isinstance(node, Mapping):
        return frozenset(node.get("hyperparams_states") or ())
    return frozenset(getattr(node, "hyperparams_states", {}))


def _name(key: Any) -> str:
    """Return a key of a path as text, for every kind of container."""
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
