"""Put meta_params into a running optax state, and read what is in force.

`optax.inject_hyperparams` keeps an optimiser's numbers in its state, where they can be
replaced without compiling anew as long as dtype, shape and weak type stay as they are:
a Python int or a NumPy scalar where a float was would retrace the training step. A
restored state brings its old numbers back; `Worker.restore` puts the right ones in.

The states are looked for as optax made them: keep them in tuples, dicts, dataclasses
or a `TrainState`. `nnx.split` takes them apart: use `put` before it.
All functions here but `put_traced` run outside of `jax.jit`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

_RTOL = 1e-6  # float32(0.1) is not 0.1.
_INJECTED = (optax.InjectHyperparamsState, optax.InjectStatefulHyperparamsState)


def put(state: Any, hyperparams: Mapping[str, Any]) -> Any:
    """A copy of a state with other hyperparameters.

    Args:
        state: A pytree that holds states of `optax.inject_hyperparams`, at any depth.
        hyperparams: Numbers by name; a name is set in every injected state that has it.

    Returns:
        The tree with equal structure, shapes, dtypes and weak types.

    Raises:
        ValueError: If a name is unknown (the message lists those that are known), is
            driven by a schedule, or if its value does not fit.
    """
    known = read(state)
    unknown = sorted(set(hyperparams) - set(known))
    if unknown:
        raise ValueError(
            f"Unknown hyperparameters {unknown}; this state has {sorted(known)}. Wrap "
            "the optimiser: optax.inject_hyperparams(optax.adam)(learning_rate=...)."
        )
    driven = sorted(set(hyperparams) & _scheduled(state))
    if driven:
        raise ValueError(
            f"{driven} follow optax schedules, which overwrite what is put there. Give "
            "the optimiser a number instead of a schedule."
        )

    def replaced(node: Any) -> Any:
        if not isinstance(node, _INJECTED):
            return node
        found = {
            name: _cast(hyperparams[name], old, name) if name in hyperparams else old
            for name, old in node.hyperparams.items()
        }
        # The wrapped optimiser may hold injected states of its own.
        inner = put_known(node.inner_state, hyperparams)
        return node._replace(hyperparams=found, inner_state=inner)

    return jax.tree.map(replaced, state, is_leaf=_is_injected)


def put_known(state: Any, hyperparams: Any) -> Any:
    """Like `put`, but leaves out what the state does not know or a schedule drives."""
    if not isinstance(hyperparams, Mapping):
        return state
    settable = set(read(state)) - _scheduled(state)
    return put(state, {k: v for k, v in hyperparams.items() if k in settable})


def put_traced(state: Any, numbers: Mapping[str, Any], when: Any) -> Any:
    """Like `put_known`, for traced numbers and within `jax.jit`.

    Args:
        state: A pytree that holds states of `optax.inject_hyperparams`, at any depth.
        numbers: Traced scalars by name.
        when: A traced bool: whether to put them in, or leave the state as it is.

    Raises:
        ValueError: If a float would have to go where an int is.
    """
    driven = _scheduled(state)

    def replaced(node: Any) -> Any:
        if not isinstance(node, _INJECTED):
            return node
        found = {
            name: jax.tree.map(
                functools.partial(_chosen, name, numbers[name], when), old
            )
            if name in numbers and name not in driven
            else old
            for name, old in node.hyperparams.items()
        }
        inner = put_traced(node.inner_state, numbers, when)
        return node._replace(hyperparams=found, inner_state=inner)

    return jax.tree.map(replaced, state, is_leaf=_is_injected)


def _chosen(name: str, number: Any, when: Any, old: Any) -> Any:
    """A traced number in the place of an old one, if `when` is true."""
    old = jnp.asarray(old)
    if old.ndim:
        return old
    if jnp.issubdtype(old.dtype, jnp.integer) and not jnp.issubdtype(
        number.dtype, jnp.integer
    ):
        raise ValueError(
            f"{name} must be an int to go where the optimiser has {old.dtype}, got a "
            f"{number.dtype}. Begin with ints, or have the optimiser take a float."
        )
    return jnp.where(when, number, old).astype(old.dtype)


def read(state: Any) -> dict[str, Any]:
    """The hyperparameters in force, as Python numbers by name.

    Where several injected states share a name, the outermost first one is read.
    """
    found: dict[str, Any] = {}
    for node in _injected(state):
        for name, value in node.hyperparams.items():
            array = np.asarray(value)
            found.setdefault(name, array.item() if array.ndim == 0 else array)
    return found


class Mismatch(NamedTuple):
    """A hyperparameter that was assigned and is not in force.

    Attributes:
        key: Its name.
        assigned: The number in meta_params.
        applied: The number in the optimiser's state.
    """

    key: str
    assigned: float
    applied: float


def mismatches(state: Any, meta_params: Any) -> list[Mismatch]:
    """The numbers of meta_params that an optimiser knows, and does not have in force.

    Nothing is compiled, and the numbers come from the device in one go.

    Args:
        state: A pytree that holds states of `optax.inject_hyperparams`, at any depth.
        meta_params: What was assigned; only the numbers of a mapping are looked at.

    Returns:
        One for each key that differs in any of the injected states, schedules
        included; the first number that does. What rounding to the dtype of the state
        makes of a number, or 1e-6 of it, is no difference; NaN equals NaN.
    """
    if not isinstance(meta_params, Mapping):
        return []
    assigned = {k: v for k, v in meta_params.items() if _is_number(v)}
    held = [
        (name, value)
        for node in _injected(state)
        for name, value in node.hyperparams.items()
        if name in assigned
    ]
    applied = jax.device_get([value for _, value in held])
    found: dict[str, Mismatch] = {}
    for (name, _), values in zip(held, applied, strict=True):
        wanted = np.asarray(assigned[name]).item()
        for value in np.ravel(values):
            differs = _is_real(value.dtype) and not _in_force(wanted, value)
            if differs and name not in found:
                found[name] = Mismatch(name, wanted, value.item())
    return list(found.values())


def _in_force(wanted: float, value: Any) -> bool:
    """Whether a number is what its dtype can hold of the wanted one."""
    if np.isclose(float(value), wanted, rtol=_RTOL, atol=0.0, equal_nan=True):
        return True
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return False
    with np.errstate(over="ignore", under="ignore"):
        rounded = np.asarray(wanted).astype(value.dtype)
    return bool(value == rounded) and bool(np.isfinite(float(value)))


def _is_number(value: Any) -> bool:
    if not isinstance(value, (bool, int, float, np.generic, np.ndarray, jax.Array)):
        return False
    array = np.asarray(value)
    return array.ndim == 0 and _is_real(array.dtype)


def _is_real(dtype: Any) -> bool:
    whole = jnp.issubdtype(dtype, jnp.integer) or dtype == np.bool_
    return bool(whole or jnp.issubdtype(dtype, jnp.floating))


def _is_injected(node: Any) -> bool:
    return isinstance(node, _INJECTED)


def _injected(state: Any) -> list[Any]:
    nodes = [n for n in jax.tree.leaves(state, is_leaf=_is_injected) if _is_injected(n)]
    return nodes + [inner for node in nodes for inner in _injected(node.inner_state)]


def _scheduled(state: Any) -> set[str]:
    return {
        name
        for node in _injected(state)
        for name in getattr(node, "hyperparams_states", {})
    }


def _cast(value: Any, old: Any, name: str) -> jax.Array:
    """The value as an array that a compiled step cannot tell from the old one."""
    old = jnp.asarray(old)
    number = np.asarray(value)
    is_number = jnp.issubdtype(number.dtype, np.number) or number.dtype == np.bool_
    if number.ndim or old.ndim or not is_number or np.iscomplexobj(number):
        raise ValueError(
            f"{name} must be a number to go where {old.dtype}{list(old.shape)} is, got "
            f"{value!r}."
        )
    if jnp.issubdtype(old.dtype, jnp.integer):
        _check_whole(number.item(), old.dtype, name)
    if old.weak_type:
        kind = float if jnp.issubdtype(old.dtype, jnp.floating) else int
        new = jnp.asarray(kind(number.item()))
    else:
        new = jnp.asarray(number.item()).astype(old.dtype)
    return jax.device_put(new, old.sharding) if old.committed else new


def _check_whole(number: float, dtype: Any, name: str) -> None:
    limits: Any = np.iinfo(dtype)
    if number != number // 1 or not limits.min <= number <= limits.max:
        raise ValueError(
            f"{name} must be a whole number from {limits.min} to {limits.max} to go "
            f"where {dtype} is, got {number!r}."
        )
