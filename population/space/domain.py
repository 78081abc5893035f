"""What one hyperparameter may be: a type, a range and a scale, and moves inside it.

A number moves on its domain's own scale (linear, logarithmic, or the logarithm of its
distance from one), so that up and down are equally far and no value drifts, sticks at
zero or leaves its range. What would leave the range stops at its bound.
"""

from __future__ import annotations

import abc
import math
from typing import Any

import numpy as np


class Domain(abc.ABC):
    """The values that one hyperparameter may have; immutable.

    The kinds are those of this package: a run records its space, to be read for ever.
    """

    @property
    def log(self) -> bool:
        """Whether a picture should show it on a logarithmic axis."""
        return False

    @abc.abstractmethod
    def sample(self, rng: np.random.Generator, *, first: bool = True) -> Any:
        """A random value, of the first sample or of the whole range."""

    @abc.abstractmethod
    def points(self, count: int) -> list[Any]:
        """At most `count` evenly spaced different values of the first sample."""

    @abc.abstractmethod
    def contains(self, value: Any) -> bool:
        """Whether it is a value of this domain, of the right type."""

    @abc.abstractmethod
    def times(self, value: Any, factor: float, rng: np.random.Generator) -> Any:
        """The value moved by a factor: above 1 up, below 1 down, 1 not at all."""

    @abc.abstractmethod
    def shifted(self, value: Any, fraction: float, rng: np.random.Generator) -> Any:
        """The value moved by a fraction of the range on the domain's own scale."""

    def moves(self, value: Any) -> bool:
        """Whether a value that may lie outside can be moved; it is clipped first."""
        del value
        return True


def spread(size: int, count: int) -> list[int]:
    """`count` evenly spaced places among `size`, the middle one for a single place.

    More than there are come equally often, or nearly so; else all differ.
    """
    if count == 1:
        return [(size - 1) // 2]
    if count > size:
        return [i * size // count for i in range(count)]
    gaps = count - 1  # Whole numbers only: a size may be beyond what a float tells.
    return [(2 * i * (size - 1) + gaps) // (2 * gaps) for i in range(count)]


def is_number(value: Any) -> bool:
    """Whether it is an int or a float; a bool is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether it is a number that has a finite float."""
    try:
        return is_number(value) and math.isfinite(value)
    except OverflowError:  # An int beyond all floats.
        return False
