"""Put meta_params into the state of an optax optimiser, and read those in force.

`optax.inject_hyperparams` keeps an optimiser's numbers in its state. To replace them
there compiles nothing, as long as dtype, shape and weak type stay the same: a Python
int or a NumPy scalar in place of a float would retrace the training step.

`init(meta_params)` decides which numbers are in force: `Worker.restore` copies them
from its state into the restored one. So a loop whose optimiser is shared by all members
has this line in its `init`:

    opt_state = hyperparams.put(optimizer.init(weights), meta_params, strict=False)

Injected states are found at any depth of a tree: in tuples, dicts, dataclasses, a
`TrainState`, an `nnx.Optimizer`. `put` also works within `jax.jit`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from population.in_force import injected
from population.in_force.numeric import is_cast, is_number, is_real

logger = logging.getLogger("population")


def put(state: Any, hyperparams: Mapping[str, Any], *, strict: bool = True) -> Any:
    """Return a copy of a state with other hyperparameters.

    Args:
        state: A pytree that holds states of `optax.inject_hyperparams`, at any depth.
        hyperparams: Numbers by name; a name is set in every injected state that has
            it. They may be traced, and so may the state.
        strict: Whether every name must be in the state. If not, this skips unknown
            names and those that a schedule drives, so that you can pass the whole
            `meta_params`; if it knows no name, it logs a warning.

    Returns:
        The tree with the same structure, shapes, dtypes and weak types.

    Raises:
        ValueError: A value does not fit; or, if `strict`, a name is unknown (the
            message lists the known ones) or driven by a schedule.
        TypeError: `hyperparams` is not a mapping.
    """
    if not isinstance(hyperparams, Mapping):
        raise TypeError(
            "hyperparams.put needs numbers by name, as in {'learning_rate': 0.1}, got "
            f"{hyperparams!r}."
        )
    known = injected.numbers(state)
    if strict:
        _check_names(hyperparams, known)
    new = {
        number.path: _cast(hyperparams[number.name], number.leaf, number.name)
        for number in known
        if number.name in hyperparams and not number.driven
    }
    if hyperparams and not new and not all(number.driven for number in known):
        names = sorted({number.name for number in known})
        _warn_of_nothing(", ".join(map(str, hyperparams)), ", ".join(names))
    return injected.replaced(state, new)


@functools.lru_cache(maxsize=128)  # Logged once: init is called at each restore.
def _warn_of_nothing(given: str, known: str) -> None:
    logger.warning(
        "hyperparams.put has put nothing: it was given %s, and the optimiser's state "
        "has %s. Use the optimiser's names: hyperparams.put(opt_state, {%r: ...}).",
        given,
        known,
        known.rpartition(", ")[2],
    )


def _check_names(hyperparams: Mapping[str, Any], known: list[injected.Number]) -> None:
    names = {number.name for number in known}
    unknown = sorted(set(hyperparams) - names, key=str)
    if unknown:
        raise ValueError(
            f"Unknown hyperparameters {unknown}; this state has {sorted(names)}. Wrap "
            "the optimiser: optax.inject_hyperparams(optax.adam)(learning_rate=...). "
            "With strict=False other names are left out."
        )
    driven = sorted({n.name for n in known if n.driven} & set(hyperparams))
    if driven:
        raise ValueError(
            f"{driven} follow optax schedules, which overwrite what is put there. Give "
            "the optimiser a number, and add the schedule behind it: "
            "optax.scale_by_schedule(...)."
        )


def read(state: Any) -> dict[str, Any]:
    """Return the hyperparameters in force, as Python numbers by name.

    If several injected states have the same name, the outermost one counts, and of
    those at the same depth the first.
    """
    found: dict[str, Any] = {}
    for number in injected.numbers(state):
        array = np.asarray(number.leaf)
        found.setdefault(number.name, array.item() if array.ndim == 0 else array)
    return found


class Mismatch(NamedTuple):
    """A hyperparameter that was assigned but is not in force.

    Attributes:
        key: Its name.
        assigned: The number in meta_params.
        applied: The number in the optimiser's state.
    """

    key: str
    assigned: float
    applied: float


def mismatches(state: Any, meta_params: Any) -> list[Mismatch]:
    """Return the numbers of meta_params that differ from those in an optimiser's state.

    This compiles nothing, and fetches all numbers from the device at once.

    Args:
        state: A pytree that holds states of `optax.inject_hyperparams`, at any depth.
        meta_params: The assigned ones; only the numbers of a mapping are compared.

    Returns:
        A mismatch for each key that differs in any injected state, those driven by a
        schedule included, with the first number that differs. A difference of 1e-6, or
        by rounding to the dtype of the state, does not count; NaN equals NaN.
    """
    if not isinstance(meta_params, Mapping):
        return []
    assigned = {k: v for k, v in meta_params.items() if is_number(v)}
    held = [number for number in injected.numbers(state) if number.name in assigned]
    applied = jax.device_get([number.leaf for number in held])
    found: dict[str, Mismatch] = {}
    for number, values in zip(held, applied, strict=True):
        name = number.name
        wanted = np.asarray(assigned[name]).item()
        for value in np.ravel(values):
            differs = is_real(value.dtype) and not is_cast(wanted, value)
            if differs and name not in found:
                found[name] = Mismatch(name, wanted, value.item())
    return list(found.values())


def _cast(value: Any, old: Any, name: str) -> jax.Array:
    """Return the value as an array with the old one's dtype, weak type and device."""
    old = jnp.asarray(old)
    if isinstance(old, jax.core.Tracer) or isinstance(value, jax.core.Tracer):
        return _traced(value, old, name)
    number = np.asarray(value)
    numeric = jnp.issubdtype(number.dtype, np.number) or number.dtype == np.bool_
    if number.ndim or old.ndim or not numeric or np.iscomplexobj(number):
        raise _no_number(value, old, name)
    if jnp.issubdtype(old.dtype, jnp.integer):
        _check_whole(number.item(), old.dtype, name)
    if old.weak_type:
        kind = float if jnp.issubdtype(old.dtype, jnp.floating) else int
        new = jnp.asarray(kind(number.item()))
    else:
        new = jnp.asarray(number.item()).astype(old.dtype)
    return jax.device_put(new, old.sharding) if old.committed else new


def _traced(value: Any, old: jax.Array, name: str) -> jax.Array:
    """Do the work of `_cast` within `jax.jit`, where only dtypes are known."""
    known = isinstance(value, jax.core.Tracer) or is_number(value)
    given = jnp.result_type(value) if known else np.dtype(object)
    if not known or jnp.ndim(value) or old.ndim or not is_real(given):
        raise _no_number(value, old, name)
    whole = jnp.issubdtype(given, jnp.integer) or given == np.bool_
    if jnp.issubdtype(old.dtype, jnp.integer) and not whole:
        raise ValueError(
            f"{name} must be an int to go where the optimiser has {old.dtype}, got a "
            f"{given}. Begin with ints, or have the optimiser take a float."
        )
    if getattr(old, "weak_type", False):
        return old.at[...].set(value)  # The result stays weakly typed.
    return jnp.asarray(value).astype(old.dtype)


def _no_number(value: Any, old: jax.Array, name: str) -> ValueError:
    return ValueError(
        f"{name} must be a number to go where {old.dtype}{list(old.shape)} is, got "
        f"{value!r}."
    )


def _check_whole(number: float, dtype: Any, name: str) -> None:
    limits: Any = np.iinfo(dtype)
    if number != number // 1 or not limits.min <= number <= limits.max:
        raise ValueError(
            f"{name} must be a whole number from {limits.min} to {limits.max} to go "
            f"where {dtype} is, got {number!r}."
        )
