"""What a column of meta_params may hold: from a value to a scalar, or to None."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from population.base import codec

Convert = Callable[[Any], np.generic | None]


def floats(dtype: np.dtype[Any]) -> Convert:
    """Floats of a dtype; NaN and infinities are some."""
    kind, largest = dtype.type, float(np.finfo(dtype).max)

    def convert(value: Any) -> Any:
        number = value if type(value) is float else plain(value)
        fits = type(number) in (float, int) and not largest < abs(number) < np.inf
        return kind(number) if fits else None

    return convert


def wholes(dtype: np.dtype[Any], low: int, high: int) -> Convert:
    """Whole numbers from `low` to `high`."""
    kind = dtype.type

    def convert(value: Any) -> Any:
        number = value if type(value) is int else plain(value)
        if type(number) is float and number.is_integer():
            number = int(number)
        return kind(number) if type(number) is int and low <= number <= high else None

    return convert


def codes(values: Sequence[Any], kind: Callable[[int], np.generic]) -> Convert:
    """The places of values among those that there are."""
    codes = {codec.digest(value): kind(i) for i, value in enumerate(values)}
    # Most are of these types, and a digest would take longer than all the rest.
    quick = {v: codes[codec.digest(v)] for v in values if type(v) in (str, bool)}

    def convert(value: Any) -> Any:
        if type(value) in (str, bool):
            return quick.get(value)
        try:
            return codes.get(codec.digest(value))
        except TypeError:  # It is nothing that a journal could keep.
            return None

    return convert


def plain(value: Any) -> Any:
    """NumPy and JAX scalars as Python's."""
    if codec.is_array(value) and value.shape == ():
        return np.asarray(value).item()
    return value
