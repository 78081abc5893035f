"""The interface of a domain: the values of one hyperparameter, and moves among them.

A number moves on its domain's own scale: linear, logarithmic, or the logarithm of its
distance from one. Up and down are equally far there, so that no value drifts or sticks
at zero. A move that would leave the range stops at its bound. `to_unit` gives the place
of a value on that scale as a number from 0 to 1, and `from_unit` the value of a place.
"""

from __future__ import annotations

import abc
import math
from typing import Any

import numpy as np

from population.base import codec
from population.base.refusals import shortly


class Domain(abc.ABC):
    """The values that one hyperparameter may have; immutable.

    A space may only have the domains of this package: a run records its space, and
    later versions must be able to read it.
    """

    @property
    def log(self) -> bool:
        """Whether plots should show it on a logarithmic axis."""
        return False

    @abc.abstractmethod
    def sample(self, rng: np.random.Generator, *, first: bool = True) -> Any:
        """Return a random value.

        Args:
            rng: The source of random numbers.
            first: Whether to draw from `start`, the narrower range of a first
                population, where there is one; else from the whole range, as
                `from_unit` does by default.
        """

    @abc.abstractmethod
    def from_unit(self, fraction: float, *, first: bool = False) -> Any:
        """Return the value at a fraction of the range, on the domain's scale.

        A uniform fraction is a random value, distributed as those of `sample` with the
        same `first`, which is True there by default. An integer, or a place in a list
        of values, has an equal share of the range (of the scale, if that is
        logarithmic); a fraction between two shares belongs to the higher one. 0 and 1
        are exactly the first and the last value.

        Args:
            fraction: From 0 to 1, both included.
            first: Whether of `start`, the range of a first population. By default of
                the whole range, as that of `to_unit` is.

        Raises:
            ValueError: The fraction is not from 0 to 1.
            TypeError: It is not a number.
        """

    @abc.abstractmethod
    def to_unit(self, value: Any) -> float:
        """Return the place of a value in the whole range, as a fraction from 0 to 1.

        The inverse of `from_unit`; NumPy and JAX scalars count as Python's. A float
        comes back but for rounding, its bounds are exactly 0 and 1. An integer (if the
        bounds are below 2**40) and a listed value come back exactly: their fraction is
        the middle of their share. For `Integer` it is therefore never 0 or 1, and for
        `Categorical` the order means nothing.

        Raises:
            ValueError: The value is not in this domain.
        """

    @abc.abstractmethod
    def points(self, count: int) -> list[Any]:
        """At most `count` different, evenly spaced values of a first sample."""

    @abc.abstractmethod
    def contains(self, value: Any) -> bool:
        """Whether a value is in this domain, and of its type.

        A NumPy or JAX scalar counts as the Python scalar that a run would record.
        """

    @abc.abstractmethod
    def times(self, value: Any, factor: float, rng: np.random.Generator) -> Any:
        """Return the value moved by a factor: above 1 up, below 1 down, 1 nowhere."""

    @abc.abstractmethod
    def shifted(self, value: Any, fraction: float, rng: np.random.Generator) -> Any:
        """Return the value moved by a fraction of the range on the domain's scale."""

    def moves(self, value: Any) -> bool:
        """Whether `times` and `shifted` take a value; it may lie outside the range."""
        del value
        return True


def checked_fraction(fraction: Any) -> float:
    """Return a fraction of a range as a float, after a check.

    Raises:
        ValueError: It is not from 0 to 1.
        TypeError: It is not a number.
    """
    if type(fraction) is float and 0 <= fraction <= 1:
        return fraction
    if isinstance(fraction, (list, tuple)) or _size(fraction) != 1:
        raise TypeError(
            f"A fraction of a range must be one number, got {type(fraction).__name__} "
            f"{shortly(fraction)}. For the vector of a space: "
            "population.space.from_unit(space, vector)."
        )
    found = plain(fraction.reshape(()) if codec.is_array(fraction) else fraction)
    if not is_number(found):
        raise TypeError(
            "A fraction of a range must be a number from 0 to 1, got "
            f"{type(found).__name__} {shortly(found)}."
        )
    if not 0 <= found <= 1:
        raise ValueError(
            f"A fraction of a range must be from 0 to 1, got {shortly(found)}."
        )
    return float(found)


def _size(value: Any) -> int:
    return math.prod(value.shape) if codec.is_array(value) else 1


def check_inside(domain: Domain, value: Any, advice: str) -> None:
    """Refuse a value that has no place in a domain's range.

    Args:
        domain: The domain.
        value: The value, a Python scalar if it is a scalar.
        advice: What to do.

    Raises:
        ValueError: The value is not in the domain.
    """
    if not domain.contains(value):
        raise ValueError(
            f"to_unit needs a value in {domain}, got {type(value).__name__} "
            f"{shortly(value)}. {advice}"
        )


def plain(value: Any) -> Any:
    """Return a NumPy or JAX scalar as Python's, and any other value unchanged."""
    if type(value) in (float, int, str) or not codec.is_array(value) or value.shape:
        return value
    try:
        return codec.normalized(value, "value")
    except TypeError:  # A masked one, or a traced one: no number that is known.
        return value


def spread(size: int, count: int) -> list[int]:
    """Return `count` evenly spaced indices below `size`; a single one is the middle.

    They differ if there are enough; else each comes equally often, or nearly so.
    """
    if count == 1:
        return [(size - 1) // 2]
    if count > size:
        return [i * size // count for i in range(count)]
    gaps = count - 1  # In ints: a float cannot hold every large size.
    return [(2 * i * (size - 1) + gaps) // (2 * gaps) for i in range(count)]


def is_number(value: Any) -> bool:
    """Whether a value is an int or a float, but not a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether a value is a number that fits into a finite float."""
    try:
        return is_number(value) and math.isfinite(value)
    except OverflowError:  # An int beyond all floats.
        return False
