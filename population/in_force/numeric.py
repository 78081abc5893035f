"""Checks whether a value is a number, and whether it is another one, rounded."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_RTOL = 1e-6  # float32(0.1) is not 0.1.


def is_cast(wanted: float, value: Any) -> bool:
    """Whether a number is the wanted one, rounded to its dtype."""
    if np.isclose(float(value), wanted, rtol=_RTOL, atol=0.0, equal_nan=True):
        return True
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return False
    with np.errstate(over="ignore", under="ignore"):
        rounded = np.asarray(wanted).astype(value.dtype)
    return bool(value == rounded) and bool(np.isfinite(float(value)))


def is_number(value: Any) -> bool:
    """Whether a value is a single number or bool, of Python, NumPy or JAX."""
    if not isinstance(value, (bool, int, float, np.generic, np.ndarray, jax.Array)):
        return False
    array = np.asarray(value)
    return array.ndim == 0 and is_real(array.dtype)


def is_real(dtype: Any) -> bool:
    """Whether a dtype is one of floats, ints or bools."""
    whole = jnp.issubdtype(dtype, jnp.integer) or dtype == np.bool_
    return bool(whole or jnp.issubdtype(dtype, jnp.floating))
