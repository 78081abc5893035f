"""Converters from a value of meta_params to a scalar; None if it does not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from population.base import codec

Convert = Callable[[Any], np.generic | None]


def floats(dtype: np.dtype[Any]) -> Convert:
    """Return a converter to floats of a dtype; NaN and infinities fit."""
    kind, largest = dtype.type, float(np.finfo(dtype).max)

    def convert(value: Any) -> Any:
        number = value if type(value) is float else plain(value)
        fits = type(number) in (float, int) and not largest < abs(number) < np.inf
        return kind(number) if fits else None

    return convert


def wholes(dtype: np.dtype[Any], low: int, high: int) -> Convert:
    """Return a converter to whole numbers from `low` to `high`."""
    kind = dtype.type

    def convert(value: Any) -> Any:
        number = value if type(value) is int else plain(value)
        if type(number) is float and number.is_integer():
            number = int(number)
        return kind(number) if type(number) is int and low <= number <= high else None

    return convert


def codes(values: Sequence[Any], kind: Callable[[int], np.generic]) -> Convert:
    """Return a converter from each of these values to its index."""
    codes = {codec.digest(value): kind(i) for i, value in enumerate(values)}
    # Most values have these types, and a digest would be slow.
    quick = {v: codes[codec.digest(v)] for v in values if type(v) in (str, bool)}

    def convert(value: Any) -> Any:
        if type(value) in (str, bool):
            return quick.get(value)
        try:
            return codes.get(codec.digest(value))
        except TypeError:  # A journal could not keep such a value.
            return None

    return convert


def plain(value: Any) -> Any:
    """Return NumPy and JAX scalars as Python's, other values unchanged."""
    if codec.is_array(value) and value.shape == ():
        return np.asarray(value).item()
    return value
