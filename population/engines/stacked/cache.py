"""Compiled programs that outlive a run: another seed or sweep does not compile again.

A run uses the programs of an earlier one in this process if its functions are the same
objects and read the same variables, and if meta_params and batches have the same
structure, shapes and dtypes under the same settings of JAX. Programs get all arrays as
arguments, so nothing of the earlier run stays except the objects that its functions
hold; and the programs of a function are dropped together with the function.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from population.engines import jax_settings
from population.engines.stacked import captures
from population.engines.stacked.captures import Captures
from population.engines.stacked.columns import Columns
from population.engines.stacked.member import MemberFunctions
from population.engines.stacked.programs import Programs

_MOST = 16  # Sets of functions, shapes and settings.


class _Entry(NamedTuple):
    programs: Programs
    captures: Captures
    alive: list[Any]  # Weak references: they remove the entry.


_entries: dict[Any, _Entry] = {}  # In the order of their last use.
_lock = threading.Lock()


def programs(
    functions: tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]],
    columns: Columns,
    batch: Any,
    evaluation: Any,
    keep: Collection[str] = (),
) -> Programs:
    """Return the programs of these functions, from an earlier run if they fit.

    Args:
        functions: `init`, `step` and `evaluate`.
        columns: Converts meta_params to scalars.
        batch: One batch of one member, as `step` gets it.
        evaluation: The batch of `evaluate`.
        keep: Names of injected numbers that `step` changes by itself.

    Raises:
        ValueError, TypeError: `MemberFunctions` refuses the functions.
    """

    def made() -> Programs:
        return Programs(MemberFunctions(*functions, columns, batch, evaluation, keep))

    if not all(map(callable, functions)) or None in map(captures.reference, functions):
        return made()  # Without a reference it cannot notice a deleted function.
    shapes = columns.signature, _signature(batch), _signature(evaluation)
    key = (*map(captures.identity, functions), *shapes, frozenset(keep), _settings())
    with _lock:
        entry = _entries.pop(key, None)
        if entry is not None and entry.captures.same(functions):
            _entries[key] = entry
            return entry.programs
    found = made()
    with _lock:
        # Without the lock: the collector calls it anywhere, and one pop is atomic.
        alive = [
            captures.reference(function, lambda _: _entries.pop(key, None))
            for function in functions
        ]
        _entries[key] = _Entry(found, Captures(functions), alive)
        while len(_entries) > _MOST:
            _entries.pop(next(iter(list(_entries))), None)
    return found


def clear() -> None:
    """Drop all compiled programs."""
    with _lock:
        _entries.clear()


def _signature(tree: Any) -> Any:
    """Return a key of a pytree's structure, shapes and dtypes on the device."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple(map(_look, leaves))


def _look(leaf: Any) -> tuple[Any, ...]:
    if isinstance(leaf, (np.ndarray, np.generic)):
        return leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype), False
    array = jnp.asarray(leaf)
    return array.shape, array.dtype, getattr(array, "weak_type", False)


def _settings() -> Any:
    """Return a key of the settings of JAX under which the functions are traced."""
    values = jax_settings.values()
    return jax_settings.trace_context(), repr(sorted(values.items()))
