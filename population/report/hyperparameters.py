"""Hyperparameters as text and numbers by name, for tables and plots."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from population.base import codec
from population.space.trees import leaves


def flattened(meta_params: Any) -> dict[str, Any]:
    """Return the hyperparameters by name; nested ones are named `a/b`."""
    return dict(leaves(meta_params))


def numbers(meta_params: Any) -> dict[str, float]:
    """Return the numeric hyperparameters by name."""
    return {
        name: float(value)
        for name, value in flattened(meta_params).items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }


def short(value: Any) -> str:
    """Return a value in a line; a float with three significant digits.

    A float that would then read 1 although it is less has three digits of its distance
    to 1, as 0.99985 of a momentum says something else than 0.9998.
    """
    if not isinstance(value, Real) or isinstance(value, Integral):
        return codec.readable(" ".join(str(value).split()))
    number = float(value)
    text, distance = f"{number:.3g}", 1 - number
    if text != "1" or distance < 1e-12:
        return text
    decimals = 2 - math.floor(math.log10(distance))
    return f"{number:.{decimals}f}".rstrip("0")


def one_line(meta_params: Any) -> str:
    """Return all hyperparameters in a line."""
    return "  ".join(f"{k} {short(v)}" for k, v in flattened(meta_params).items())
