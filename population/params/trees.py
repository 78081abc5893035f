"""Pytrees of params: checks before a save, and restoring the kinds of the leaves.

A store keeps the leaves of any pytree by their path, and the structure of a tree that
consists of dicts, lists and tuples. For other structures a tree `like` is needed, into
which the leaves are put. Functions among the leaves, such as the activation of a
module, are not stored: they are taken from `like`.
"""

from __future__ import annotations

import re
import types
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr

from population.base import codec
from population.base.errors import MisfitError, ParamsError
from population.base.refusals import DEEPEST, refuse_lossy, shortly, too_deep
from population.params import references

_PLAIN_LEAVES = (bool, int, float, str, bytes)
# No bound methods, no partials: they may hold weights.
_FUNCTIONS = (
    type,
    np.ufunc,
    jax.custom_jvp,
    jax.custom_vjp,
    type(jax.jit(abs)),
)


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
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    for path, leaf in leaves:
        if not functions and is_function(leaf):
            raise TypeError(
                f"params{keystr(path)} cannot be stored: it is a function, which can "
                "only be taken from a fresh tree. Use controller.worker(), whose "
                "restore(init) makes one."
            )
    for place, leaf in by_path(tree).items():
        if type(leaf) is str and not leaf.isascii() and codec.readable(leaf) != leaf:
            raise TypeError(
                f"params{place} cannot be stored: it must be Unicode, got {leaf!a}. "
                "Write it with escapes."
            )
        if codec.is_array(leaf):
            refuse_lossy(leaf, f"params{place}")
        if not is_storable(leaf):
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
    if plain and layout(tree) is None:
        raise TypeError(
            "params must be dicts, lists and tuples of arrays to come back after a "
            f"restart, got {type(tree).__name__}. Report them with "
            "flax.serialization.to_state_dict(params), save them yourself and report "
            "the path, or use controller.worker(): its restore(init) rebuilds any tree."
        )


def _refuse_deep(tree: Any) -> None:
    """Refuse a tree that is so deep that JAX would fail with an internal error."""
    rest = [(tree, "params", 0)]
    while rest:
        node, place, depth = rest.pop()
        if isinstance(node, dict):
            below: Iterable[tuple[Any, Any]] = node.items()
        elif isinstance(node, (list, tuple)):
            below = enumerate(node)
        else:
            continue
        if depth >= DEEPEST:
            raise TypeError(too_deep(place))
        rest += [
            (child, f"{place}[{shortly(key)}]", depth + 1)
            for key, child in below
            if isinstance(child, (dict, list, tuple))
        ]


def layout(tree: Any) -> str | None:
    """Return the structure of a tree of dicts, lists and tuples as text; else None."""
    if any(map(is_function, jax.tree.leaves(tree))):
        return None
    try:
        text = codec.encode(jax.tree.map(kind, tree))
        codec.decode(text)  # Refuses dataclasses: their types are not in the text.
    except (TypeError, ValueError):
        return None
    return text


def kind(leaf: Any) -> str:
    """Return the kind of a leaf: "jax", "key:...", "numpy", "scalar" or "plain"."""
    if isinstance(leaf, jax.Array):
        if is_key(leaf):
            return f"key:{jax.random.key_impl(leaf)}"
        return "jax"
    if isinstance(leaf, np.generic):
        return "scalar"
    return "numpy" if isinstance(leaf, np.ndarray) else "plain"


def as_kind(leaf: Any, what: str) -> Any:
    """Convert a stored leaf back to its kind; `what` is the result of `kind`."""
    if what.startswith("key:"):
        return jax.random.wrap_key_data(jnp.array(leaf), impl=what[4:])
    if what == "jax":
        return jnp.array(leaf)
    if what == "scalar":
        return np.asarray(leaf)[()]
    return np.array(leaf) if what == "numpy" else leaf


def to_host(leaf: Any) -> Any:
    """Return a copy on the host, which stays valid if the leaf's buffer is donated."""
    if is_key(leaf):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, np.generic) or not codec.is_array(leaf):
        return leaf
    copy = np.array(leaf)
    return copy.astype(copy.dtype.newbyteorder("="), copy=False)


def _is_data(leaf: Any) -> bool:
    """Whether a leaf can be a stored one; else it is taken from the tree itself."""
    return hasattr(leaf, "dtype") or isinstance(leaf, _PLAIN_LEAVES)


def is_storable(leaf: Any) -> bool:
    """Whether a store keeps a leaf."""
    if not codec.is_array(leaf):
        limited = type(leaf) is not int or -(2**63) <= leaf < 2**64
        return type(leaf) in _PLAIN_LEAVES and limited
    return is_key(leaf) or _is_numeric(leaf.dtype)


def _is_numeric(dtype: Any) -> bool:
    # Longer floats than 64 bits mean different things on different machines.
    long = np.dtype(dtype).char in "gG"
    return not long and (jnp.issubdtype(dtype, np.number) or dtype == np.bool_)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of new-style PRNG keys."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )


def is_function(leaf: Any) -> bool:
    """Whether a leaf is a function that holds no arrays in its closure or defaults."""
    if isinstance(leaf, types.BuiltinFunctionType):
        return isinstance(leaf.__self__, types.ModuleType)
    if isinstance(leaf, types.FunctionType):
        cells = [cell for cell in leaf.__closure__ or () if _is_filled(cell)]
        held = [cell.cell_contents for cell in cells] + [*(leaf.__defaults__ or ())]
        return not any(map(codec.is_array, jax.tree.leaves(held)))
    return isinstance(leaf, _FUNCTIONS)


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # A name that gets its value later.
        return False


def by_path(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by their path, without functions."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {keystr(path): leaf for path, leaf in leaves if not is_function(leaf)}


def rebuilt(leaves: Mapping[str, Any], plain: str | None, path: str) -> Any:
    """Return the stored tree of dicts, lists and tuples.

    Args:
        leaves: The leaves by their path.
        plain: The tree's `layout`.
        path: The name of the save, for the message.

    Raises:
        ParamsError: `plain` is None: the tree had other containers.
    """
    if plain is None:
        raise ParamsError(
            f"The params {path} hold more than dicts, lists and tuples. Pass a "
            "tree of their structure: worker.restore(init), or "
            "controller.load(checkpoint, like)."
        )
    return jax.tree_util.tree_map_with_path(
        lambda place, what: as_kind(leaves[keystr(place)], what),
        codec.decode(plain),
    )


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


def fitted(leaves: Mapping[str, Any], like: Any, path: str) -> Any:
    """Return the tree `like` with these leaves, in its kinds, dtypes and weak types.

    For `AS_SAVED` in place of a tree, the leaves are `nested`.

    Raises:
        MisfitError: A leaf does not fit; the message names its place.
    """
    if like is AS_SAVED:
        return nested(leaves)
    models = matched(leaves.keys(), like, path)
    fit = {
        place: fit_leaf(leaves[place], model, f"{path}, {place}")
        for place, model in models.items()
    }
    return references.mapped(lambda place, model: fit.get(keystr(place), model), like)


def matched(places: Collection[str], like: Any, path: str) -> dict[str, Any]:
    """Return the leaf of `like` at each of these places.

    Raises:
        MisfitError: The tree has places without a leaf, or a leaf has no place in it.
    """
    if like is AS_SAVED:
        return {}
    whole = by_path(like)
    models = {k: leaf for k, leaf in whole.items() if k in places or _is_data(leaf)}
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


def sharding_of(model: Any) -> jax.sharding.Sharding | None:
    """Return the sharding that an array was explicitly given; None if JAX may choose.

    For PRNG keys it is the sharding of their key data, which is what stores keep.
    """
    if is_key(model):
        model = jax.random.key_data(model) if model.committed else None
    pinned = isinstance(model, jax.Array) and model.committed
    if not (pinned or isinstance(model, jax.ShapeDtypeStruct)):
        return None
    sharding: jax.sharding.Sharding | None = model.sharding
    return sharding


def fit_leaf(leaf: Any, model: Any, place: str) -> Any:
    """Return a leaf, as a store keeps it, in the kind of a model.

    Raises:
        MisfitError: It does not fit; the message names the place.
    """
    try:
        return _converted(leaf, model)
    except (TypeError, ValueError, OverflowError) as error:
        raise MisfitError(
            f"The params {place}, do not fit the given tree: {error}."
        ) from error


def _converted(leaf: Any, model: Any) -> Any:
    """Convert a leaf to the model's type, so that compiled functions do not retrace."""
    if is_key(model):
        return _keys(leaf, model)
    if isinstance(leaf, (str, bytes)) or isinstance(model, (str, bytes)):
        if type(leaf) is not type(model):
            raise TypeError(
                f"{type(leaf).__name__} was saved where the tree has "
                f"{type(model).__name__}"
            )
        return leaf
    array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
    _refuse_others(array, model)
    if not codec.is_array(model):
        return array.item()
    if isinstance(model, np.generic):
        return np.asarray(array).astype(model.dtype)[()]
    if isinstance(model, jax.Array) or sharding_of(model) is not None:
        return _placed(array, model)
    return np.array(array, dtype=model.dtype)


def _keys(leaf: Any, model: jax.Array) -> jax.Array:
    found: jax.Array = jax.random.wrap_key_data(
        jnp.array(leaf), impl=jax.random.key_impl(model)
    )
    if found.shape != model.shape:
        raise ValueError(
            f"keys of shape {found.shape} were saved where the tree has {model.shape}"
        )
    if model.committed:
        found = jax.device_put(found, model.sharding)
    return found


def _refuse_others(array: Any, model: Any) -> None:
    """Refuse an array that cannot be converted to the model's dtype without a loss."""
    if array.shape != np.shape(model):
        raise ValueError(
            f"an array of shape {array.shape} was saved where the tree has "
            f"{np.shape(model)}; begin there with the shape that training makes of it"
        )
    if jnp.issubdtype(array.dtype, np.inexact) and _is_whole(model):
        begin = f"jnp.zeros({np.shape(model)}, jnp.{array.dtype})"
        raise TypeError(
            "fractions were saved where the tree has whole numbers; begin there with "
            f"{begin if codec.is_array(model) else '0.0'}"
        )
    if np.iscomplexobj(array) and not np.iscomplexobj(model):
        raise TypeError("complex numbers were saved where the tree has real ones")


def _placed(array: Any, model: Any) -> jax.Array:
    """Return the array in the model's dtype, shard by shard on the model's devices."""
    sharding = sharding_of(model)
    if isinstance(model, jax.Array) and model.weak_type:
        found: jax.Array = model.at[...].set(array)  # Keeps the weak type: no retrace.
    elif isinstance(array, jax.Array):
        found = array.astype(model.dtype)
    elif sharding is None:
        found = jnp.array(array, dtype=model.dtype)
    else:
        # A copy: on the CPU the new array would share the memory of the old one.
        array = np.array(array, dtype=model.dtype)
        found = jax.device_put(array, sharding)
    if sharding is not None:
        found = jax.device_put(found, sharding)
    return found


def _is_whole(model: Any) -> bool:
    dtype = model.dtype if codec.is_array(model) else np.asarray(model).dtype
    return bool(jnp.issubdtype(dtype, np.integer) or dtype == np.bool_)
