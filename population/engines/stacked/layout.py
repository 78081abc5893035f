"""The structure of states: which leaves are arrays, and the constants in the others.

Programs train tuples of arrays. Other leaves of a state, such as the activation
function of a module or its rate of dropout, are constants of all members: they are read
when `init` is traced, and put back wherever a function is called. A Python number is
such a constant unless a step changes it; then it is an array.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from population.base.errors import MisfitError
from population.params import kinds, references

Flat = tuple[Any, ...]
_LONGEST = 200


class Moved(Exception):
    """A step changes a Python number of the state: it must become an array."""


class Layout:
    """The structure that all states of a population share, learned from `init`."""

    def __init__(self) -> None:
        self._tree: Any = None
        self._rest: list[Any] = []  # By leaf: `_ARRAY`, or its constant.
        self._moving: set[int] = set()  # Python numbers that a step changes.
        self._skeleton: Any = (
            None  # For nnx: the state with places as leaves, shared objects once.
        )

    def learn(self, state: Any) -> Flat:
        """Learn the structure of a fresh state, and return its arrays."""
        leaves, self._tree = jax.tree.flatten(state)
        if references.has_any(state):
            places = iter(range(len(leaves)))
            numbered = jax.tree.unflatten(self._tree, places)
            by_path = dict(jax.tree_util.tree_leaves_with_path(numbered))
            self._skeleton = references.mapped(lambda path, _: by_path[path], state)
        self._rest = [
            _ARRAY if is_array(leaf) or place in self._moving else leaf
            for place, leaf in enumerate(leaves)
        ]
        return self._arrays(leaves)

    def flat(self, state: Any) -> Flat:
        """Return the arrays of a state.

        Raises:
            Moved: A number that was a constant has changed; it becomes an array when
                `learn` is called again.
            ValueError: The state has another structure than a fresh one.
        """
        leaves, tree = jax.tree.flatten(state)
        if tree != self._tree:
            raise self._unlike(tree, leaves)
        pairs = list(zip(self._rest, leaves, strict=True))
        moved = {i for i, (ours, leaf) in enumerate(pairs) if _has_moved(ours, leaf)}
        if moved:
            self._moving |= moved
            raise Moved
        if not all(_alike(ours, leaf) for ours, leaf in pairs):
            raise self._unlike(tree, leaves)
        return self._arrays(leaves)

    def state(self, flat: Sequence[Any]) -> Any:
        """Return the state as the user's functions see it."""
        return self._filled(flat, self._rest)

    def saved(self, flat: Sequence[Any]) -> Any:
        """Return the state for a params store, with None for leaves it cannot keep."""
        return self._filled(flat, [r if _is_kept(r) else None for r in self._rest])

    def restored(self, tree: Any, shapes: Flat) -> Flat:
        """Return the arrays of a saved state.

        Args:
            tree: The tree from the params store, as `saved` has made it.
            shapes: Shapes and dtypes of the arrays of a state.

        Raises:
            MisfitError: The tree is not a state of a member of this population.
        """
        try:
            leaves = self._tree.flatten_up_to(tree)
        except ValueError as error:  # Its words are those of JAX.
            raise MisfitError(
                "Saved params must have the structure that init gives a state: "
                f"{error}."
            ) from error
        for place, leaf, ours in zip(self._places(), leaves, self._rest, strict=True):
            self._check_same(place, leaf, ours)
        flat = self._arrays(leaves)
        found = [(x.shape, x.dtype) for x in flat]
        if found != [(x.shape, x.dtype) for x in shapes]:
            raise MisfitError(
                "Saved params must have the shapes and dtypes that init gives, "
                f"{[shown(x) for x in shapes]}, got {[shown(x) for x in flat]}."
            )
        return flat

    def names(self) -> list[str]:
        """Return the place of each array in the state."""
        pairs = zip(self._places(), self._rest, strict=True)
        return [place for place, rest in pairs if rest is _ARRAY]

    def _places(self) -> list[str]:
        """Return the place of each leaf in the state."""
        places = jax.tree_util.tree_flatten_with_path(
            jax.tree.unflatten(self._tree, range(len(self._rest)))
        )[0]
        return [jax.tree_util.keystr(path) or "the state" for path, _ in places]

    def _check_same(self, place: str, leaf: Any, ours: Any) -> None:
        """Refuse a saved constant that differs from the present one."""
        if ours is _ARRAY:
            fits = is_array(leaf) or _is_number(leaf)
        else:
            fits = leaf is None or not kinds.is_storable(ours) or _is_same(leaf, ours)
        if not fits:
            what = "an array" if ours is _ARRAY else repr(ours)
            raise MisfitError(
                f"Saved params must have what init gives a state, {what} at {place}, "
                f"got {leaf!r}. What is no array is the same for all members, and "
                "fixed: make it jnp.asarray(...) in init, or have init give the other."
            )

    def _arrays(self, leaves: Sequence[Any]) -> Flat:
        pairs = zip(leaves, self._rest, strict=True)
        return tuple(_strong(leaf) for leaf, rest in pairs if rest is _ARRAY)

    def _filled(self, flat: Sequence[Any], rest: Sequence[Any]) -> Any:
        arrays = iter(flat)
        leaves = [
            next(arrays) if ours is _ARRAY else other
            for ours, other in zip(self._rest, rest, strict=True)
        ]
        if self._skeleton is not None:
            return references.mapped(lambda _, place: leaves[place], self._skeleton)
        return jax.tree.unflatten(self._tree, leaves)

    def _unlike(self, tree: Any, leaves: Sequence[Any]) -> ValueError:
        ours = jax.tree.unflatten(self._tree, map(_kind, self._rest))
        kinds = [_kind(_ARRAY if is_array(leaf) else leaf) for leaf in leaves]
        theirs = jax.tree.unflatten(tree, kinds)
        return ValueError(
            "step must return a state of the structure that init gave it; "
            f"{_difference(ours, theirs)}. Have init make all that step adds; True "
            "and False are fixed switches, what changes is jnp.bool_(True)."
        )


class _Array:
    """Marks the place of an array in a state."""


_ARRAY = _Array()


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array, 0-d ones and NumPy's scalars included."""
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))


def shown(leaf: Any) -> str:
    """Return the dtype and shape of an array as text; the repr of other objects."""
    if not isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)):
        return repr(leaf)
    return f"{leaf.dtype}{list(leaf.shape)}"


def _is_number(leaf: Any) -> bool:
    return type(leaf) in (int, float, complex)


def _has_moved(ours: Any, leaf: Any) -> bool:
    """Whether a number has changed, or was computed from arrays."""
    if not _is_number(ours):
        return False
    return not _is_same(leaf, ours) and (_is_number(leaf) or is_array(leaf))


def _is_same(leaf: Any, ours: Any) -> bool:
    """Whether two constants are equal; NaN equals NaN."""
    if type(leaf) is not type(ours):  # A traced one cannot be compared.
        return False
    return bool(leaf == ours or (leaf != leaf and ours != ours))


def _alike(ours: Any, leaf: Any) -> bool:
    """Whether a leaf fits a fresh state's constant; some types have no equality."""
    if ours is _ARRAY:
        return is_array(leaf) or _is_number(leaf)
    if is_array(leaf):
        return False
    if kinds.is_function(ours):
        return leaf is ours
    return bool(leaf == ours) if isinstance(leaf, (bool, str, bytes)) else True


def _is_kept(rest: Any) -> bool:
    """Whether a params store keeps a constant, or restores it from `init`."""
    return rest is not _ARRAY and (kinds.is_storable(rest) or kinds.is_function(rest))


def _strong(leaf: Any) -> Any:
    """Return a leaf as an array without a weak type, which a step could change."""
    array = jnp.asarray(leaf)
    weak = getattr(array, "weak_type", False)  # PRNG keys do not have it.
    return array.astype(array.dtype) if weak else array


def _kind(rest: Any) -> str:
    return "an array" if rest is _ARRAY else _shortly(repr(rest))


def _difference(ours: Any, theirs: Any) -> str:
    """Describe the first difference between two trees."""
    if type(ours) is not type(theirs):
        hint = ""
        if type(theirs) is tuple and theirs and type(theirs[0]) is type(ours):
            hint = " (does step return more than the state?)"
        return f"it was {_container(ours)} and became {_container(theirs)}{hint}"
    flatten = jax.tree_util.tree_flatten_with_path
    sides = [
        {jax.tree_util.keystr(path): leaf for path, leaf in flatten(tree)[0]}
        for tree in (ours, theirs)
    ]
    for place in [*sides[0], *sides[1]]:
        before, after = (side.get(place, "missing") for side in sides)
        if before != after:
            return f"{place or 'the state'} was {before} and became {after}"
    return (
        "what in it is no leaf has changed, a module's switch or size say: it was "
        f"{_shortly(repr(ours))} and became {_shortly(repr(theirs))}"
    )


def _container(tree: Any) -> str:
    if isinstance(tree, str):
        return tree  # A leaf, in words already.
    if type(tree) in (tuple, list, dict):
        return f"a {type(tree).__name__} of {len(tree)}"
    return "None" if tree is None else f"a {type(tree).__name__}"


def _shortly(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
