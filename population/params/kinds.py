"""The leaves of params: which a store keeps, and how they get their kinds again."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from population.base import codec
from population.base.errors import MisfitError

_PLAIN = (bool, int, float, str, bytes)
# No bound methods, no partials: they may hold weights.
_FUNCTIONS = (
    type,
    np.ufunc,
    jax.custom_jvp,
    jax.custom_vjp,
    type(jax.jit(abs)),
)


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


def as_kinds(leaves: Sequence[Any], kinds: Sequence[str], *, owned: bool) -> list[Any]:
    """Convert stored leaves back to their kinds, and put arrays on the device at once.

    Args:
        leaves: The leaves, as a store keeps them.
        kinds: The result of `kind` for each.
        owned: Whether nothing else uses the memory of the leaves: they need no copy.
    """
    found: list[Any] = []
    for leaf, what in zip(leaves, kinds, strict=True):
        if what == "jax" and not isinstance(leaf, jax.Array):
            found.append(_ToPlace(np.array(leaf, copy=None if owned else True), None))
        elif what == "numpy" and owned and type(leaf) is np.ndarray:
            found.append(leaf)
        else:
            found.append(as_kind(leaf, what))
    return _all_placed(found)


def to_host(leaf: Any) -> Any:
    """Return a copy on the host, which stays valid if the leaf's buffer is donated."""
    if is_key(leaf):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, np.generic) or not codec.is_array(leaf):
        return leaf
    copy = np.array(leaf)
    return copy.astype(copy.dtype.newbyteorder("="), copy=False)


def is_storable(leaf: Any) -> bool:
    """Whether a store keeps a leaf."""
    if not codec.is_array(leaf):
        limited = type(leaf) is not int or -(2**63) <= leaf < 2**64
        return type(leaf) in _PLAIN and limited
    return is_key(leaf) or is_numeric(leaf.dtype)


def is_data(leaf: Any) -> bool:
    """Whether a leaf can be a stored one; else it is taken from the tree itself."""
    return hasattr(leaf, "dtype") or isinstance(leaf, _PLAIN)


def is_numeric(dtype: Any) -> bool:
    """Whether a store keeps arrays of this dtype."""
    # Longer floats than 64 bits mean different things on different machines.
    long = np.dtype(dtype).char in "gG"
    return not long and (jnp.issubdtype(dtype, np.number) or dtype == np.bool_)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of new-style PRNG keys."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or isinstance(dtype, np.dtype):
        return False
    return isinstance(leaf, jax.Array) and jnp.issubdtype(dtype, jax.dtypes.prng_key)


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


class _ToPlace(NamedTuple):
    """An array that will be put on a device; its memory is used for nothing else.

    Attributes:
        array: The array, in its dtype there.
        sharding: Where to put it; None if JAX may choose.
    """

    array: np.ndarray[Any, Any]
    sharding: jax.sharding.Sharding | None

    def placed(self) -> Any:
        """Return the array on its device."""
        return jax.device_put(self.array, self.sharding)


def _all_placed(leaves: Sequence[Any]) -> list[Any]:
    """Return leaves with arrays on their devices, with few calls of JAX for all."""
    found = list(leaves)
    for pinned in (False, True):
        chosen = [
            place
            for place, leaf in enumerate(leaves)
            if type(leaf) is _ToPlace and (leaf.sharding is not None) == pinned
        ]
        arrays = [leaves[place].array for place in chosen]
        where = [leaves[place].sharding for place in chosen] if pinned else None
        if arrays:
            for place, array in zip(chosen, jax.device_put(arrays, where), strict=True):
                found[place] = array
    return found


def fit_leaf(leaf: Any, model: Any, place: str) -> Any:
    """Return a leaf, as a store keeps it, in the kind of a model.

    Raises:
        MisfitError: It does not fit; the message names the place.
    """
    try:
        found = _converted(leaf, model, owned=False)
        return found.placed() if type(found) is _ToPlace else found
    except (TypeError, ValueError, OverflowError) as error:
        raise _misfit(place, error) from error


def fit_leaves(
    leaves: Mapping[str, Any], models: Mapping[str, Any], path: str, *, owned: bool
) -> dict[str, Any]:
    """Return leaves, as a store keeps them, in the kinds of models.

    Args:
        leaves: The leaves by their place.
        models: The leaves of the wanted kinds by their place.
        path: The name of the save, for messages.
        owned: Whether nothing else uses the memory of the leaves: they need no copy.

    Raises:
        MisfitError: A leaf does not fit; the message names its place.
    """
    found = []
    for place, model in models.items():
        try:
            found.append(_converted(leaves[place], model, owned=owned))
        except (TypeError, ValueError, OverflowError) as error:
            raise _misfit(f"{path}, {place}", error) from error
    try:
        return dict(zip(models, _all_placed(found), strict=True))
    except (TypeError, ValueError):
        pass  # It does not say which of them: place one after the other.
    for number, place in enumerate(models):
        if type(found[number]) is _ToPlace:
            try:
                found[number] = found[number].placed()
            except (TypeError, ValueError) as error:
                raise _misfit(f"{path}, {place}", error) from error
    return dict(zip(models, found, strict=True))


def _misfit(place: str, error: Exception) -> MisfitError:
    return MisfitError(f"The params {place}, do not fit the given tree: {error}.")


def _converted(leaf: Any, model: Any, *, owned: bool) -> Any:
    """Convert a leaf to the model's type, so that compiled functions do not retrace.

    Returns:
        The leaf, or a `_ToPlace` with the array of a leaf that belongs on a device.
    """
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
    sharding = sharding_of(model)
    if not isinstance(model, jax.Array) and sharding is None:
        return np.array(array, dtype=model.dtype, copy=None if owned else True)
    if isinstance(array, jax.Array) or getattr(model, "weak_type", False):
        return _placed(array, model, sharding)
    copied = np.array(array, dtype=model.dtype, copy=None if owned else True)
    return _ToPlace(copied, sharding)


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
    if array.dtype == getattr(model, "dtype", None):
        return
    if jnp.issubdtype(array.dtype, np.inexact) and _is_whole(model):
        begin = f"jnp.zeros({np.shape(model)}, jnp.{array.dtype})"
        raise TypeError(
            "fractions were saved where the tree has whole numbers; begin there with "
            f"{begin if codec.is_array(model) else '0.0'}"
        )
    if np.iscomplexobj(array) and not np.iscomplexobj(model):
        raise TypeError("complex numbers were saved where the tree has real ones")


def _placed(
    array: Any, model: Any, sharding: jax.sharding.Sharding | None
) -> jax.Array:
    """Return a JAX array, or one for a weakly typed model, on the model's devices."""
    if isinstance(model, jax.Array) and model.weak_type:
        found: jax.Array = model.at[...].set(array)  # Keeps the weak type: no retrace.
    else:
        found = jnp.asarray(array).astype(model.dtype)
    if sharding is not None:
        found = jax.device_put(found, sharding)
    return found


def _is_whole(model: Any) -> bool:
    dtype = model.dtype if codec.is_array(model) else np.asarray(model).dtype
    return bool(jnp.issubdtype(dtype, np.integer) or dtype == np.bool_)
