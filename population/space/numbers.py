"""Domains of numbers: a range and a scale.

A factor and its inverse move a value equally far on the scale, so that a random walk
does not drift. A move that would leave the range stops at its bound.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any

import numpy as np

from population.space.domain import (
    Domain,
    check_inside,
    checked_fraction,
    is_finite,
    is_number,
    plain,
)

_MOST_EXACT = 2**53  # Beyond, two integers may be the same float.


@dataclasses.dataclass(frozen=True)
class _Number(Domain):
    """A number of a range; a subclass defines the scale on which it moves."""

    low: float
    high: float
    start: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        kind = type(self).__name__
        pair = (None, None) if self.start is None else self.start
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueError(f"{kind}'s start must be (low, high), got {self.start!r}.")
        for bound in (self.low, self.high, *self._first):
            self._check_bound(bound)
        object.__setattr__(self, "low", self._typed(self.low))
        object.__setattr__(self, "high", self._typed(self.high))
        if self.start is not None:
            object.__setattr__(self, "start", tuple(map(self._typed, self.start)))
        if not self.low < self.high:
            raise ValueError(
                f"{kind} needs low < high, got {self.low!r} and {self.high!r}. For a "
                "constant, write the value itself into the space."
            )
        if not self.low <= self._first[0] <= self._first[1] <= self.high:
            raise ValueError(
                f"{kind}'s start must be a range within [{self.low!r}, {self.high!r}], "
                f"got {self.start!r}."
            )
        if not math.isfinite(self._width):
            raise ValueError(f"{kind} is too wide: [{self.low!r}, {self.high!r}].")

    def sample(self, rng: np.random.Generator, *, first: bool = True) -> Any:
        """Return a random value, uniform on the scale."""
        return self.from_unit(rng.random(), first=first)

    def from_unit(self, fraction: float, *, first: bool = False) -> Any:
        """Return the value at a fraction of the range, on the scale.

        Raises:
            ValueError, TypeError: The fraction is not a number from 0 to 1.
        """
        fraction = checked_fraction(fraction)
        low, high = self._first if first else (self.low, self.high)
        if fraction in (0, 1):  # Exactly the bound, without a rounding error.
            return self._typed(high if fraction else low)
        bottom, top = self._scaled(low), self._scaled(high)
        at = bottom + (top - bottom) * fraction
        return self._typed(min(max(self._unscaled(at), low), high))

    def to_unit(self, value: Any) -> float:
        """Return the place of a value on the scale: `low` is at 0, `high` at 1.

        Raises:
            ValueError: The value is not a number within the range.
        """
        value = self._inside(value)
        if value in (self.low, self.high):  # Exactly, without a rounding error.
            return float(value == self.high)
        return _share(self._scaled(value), self._scaled(self.low), self._width)

    def points(self, count: int) -> list[Any]:
        """Values evenly spaced on the scale, ends included; one value is the middle."""
        return list(dict.fromkeys(self._spaced(count)))

    def contains(self, value: Any) -> bool:
        """Whether a value is an int or float within the range."""
        value = plain(value)
        return is_number(value) and bool(self.low <= value <= self.high)

    def times(self, value: Any, factor: float, rng: np.random.Generator) -> Any:
        """Return the value moved on the scale by the logarithm of the factor."""
        del rng
        direction = (factor > 1) - (factor < 1)
        return self._moved(value, math.log(factor) * self._unit, direction)

    def shifted(self, value: Any, fraction: float, rng: np.random.Generator) -> Any:
        """Return the value moved by that fraction of the scale's width."""
        del rng
        direction = (fraction > 0) - (fraction < 0)
        distance = min(max(fraction, -1.0), 1.0) * self._width
        return self._moved(value, distance, direction)

    def moves(self, value: Any) -> bool:
        """Whether a value is a number other than NaN."""
        value = plain(value)
        return is_number(value) and bool(value == value)

    @abc.abstractmethod
    def _scaled(self, value: float) -> float:
        """Return the place of a value on the scale; larger for larger values."""

    @abc.abstractmethod
    def _unscaled(self, at: float) -> float:
        """Return the value at a place on the scale."""

    @property
    def _unit(self) -> float:
        """The distance on the scale of a factor of e."""
        return 1.0

    @property
    def _width(self) -> float:
        return self._scaled(self.high) - self._scaled(self.low)

    @property
    def _first(self) -> tuple[Any, Any]:
        """The range of the first sample."""
        return (self.low, self.high) if self.start is None else self.start

    def _inside(self, value: Any) -> Any:
        """Return a value as a Python number; refuse one that is not in the range."""
        value = plain(value)
        check_inside(self, value, self._advice(value))
        return value

    def _advice(self, value: Any) -> str:
        """Return what to do about a value that is not in the range."""
        if not is_number(value):
            return "It must be a float or an int."
        if value != value:
            return "NaN has no place in a range."
        return f"For the nearest one: min(max(value, {self.low}), {self.high})."

    def _spaced(self, count: int) -> list[Any]:
        """Return `count` ascending values for a first sample; some may be equal."""
        low, high = self._first
        ends = self._scaled(low), self._scaled(high)
        # One value is the middle of three.
        inner = np.linspace(*ends, 3 if count == 1 else count)[1:-1].tolist()
        found = [min(max(self._value(at), low), high) for at in inner]
        return found if count == 1 else [low, *found, high]

    def _moved(self, value: float, distance: float, direction: int) -> Any:
        """Return the value moved, by the smallest step if rounding loses the move."""
        before = self._typed(min(max(plain(value), self.low), self.high))
        if not direction:
            return before
        after = self._value(self._scaled(before) + distance)
        if (after - before) * direction <= 0:
            after = self._next(before, direction)
        return min(max(after, self.low), self.high)

    def _next(self, value: Any, direction: int) -> Any:
        """Return the next larger value if `direction` is 1, the next smaller if -1."""
        return math.nextafter(value, direction * math.inf)

    def _value(self, at: float) -> Any:
        low, high = self._scaled(self.low), self._scaled(self.high)
        if at <= low or at >= high:  # Exactly the bound, without a rounding error.
            return self._typed(self.low if at <= low else self.high)
        return self._typed(min(max(self._unscaled(at), self.low), self.high))

    def _typed(self, value: float) -> Any:
        return float(value)

    def _check_bound(self, value: Any) -> None:
        if not is_finite(value):
            raise ValueError(
                f"{type(self).__name__}'s bounds must be finite numbers, got {value!r}."
            )


@dataclasses.dataclass(frozen=True)
class Uniform(_Number):
    """A float on a linear scale.

    A factor f adds log(f) times half the width of the range. For the middle of a range
    that begins at zero this is multiplication by f, to first order.

    Args:
        low: The least value.
        high: The greatest value.
        start: The narrower range of the first sample, or None.

    Raises:
        ValueError: A bound is not finite, or the bounds are out of order.
    """

    def _scaled(self, value: float) -> float:
        return float(value)

    def _unscaled(self, at: float) -> float:
        return at

    @property
    def _unit(self) -> float:
        return self._width / 2


@dataclasses.dataclass(frozen=True)
class LogUniform(_Number):
    """A positive float on a logarithmic scale: learning rates, weight decay.

    Args:
        low: The least value, above zero.
        high: The greatest value.
        start: The narrower range of the first sample, or None.

    Raises:
        ValueError: A bound is not finite and positive, or the bounds are out of order.
    """

    @property
    def log(self) -> bool:
        """True."""
        return True

    def _scaled(self, value: float) -> float:
        return math.log(value)

    def _unscaled(self, at: float) -> float:
        return math.exp(at)

    def _check_bound(self, value: Any) -> None:
        super()._check_bound(value)
        if value <= 0:
            raise ValueError(
                f"LogUniform's bounds must be above 0, got {value!r}. For a range that "
                "includes zero use Uniform."
            )


@dataclasses.dataclass(frozen=True)
class OneMinusLogUniform(_Number):
    """A float below one, on the logarithmic scale of its distance from one.

    For momentum and the betas of Adam: 0.9 is as far from 0.99 as that is from 0.999. A
    factor divides the distance from one, so that a factor above 1 increases the value,
    as in every domain.

    Args:
        low: The least value.
        high: The greatest value, below one.
        start: The narrower range of the first sample, or None.

    Raises:
        ValueError: A bound is not finite and below one, or the bounds are out of order.
    """

    def _scaled(self, value: float) -> float:
        return -math.log1p(-value)

    def _unscaled(self, at: float) -> float:
        return -math.expm1(-at)

    def _check_bound(self, value: Any) -> None:
        super()._check_bound(value)
        if value >= 1:
            raise ValueError(
                f"OneMinusLogUniform's bounds must be below 1, got {value!r}."
            )


@dataclasses.dataclass(frozen=True)
class Integer(_Number):
    """A whole number, bounds included; a move changes it by at least one.

    Args:
        low: The least value.
        high: The greatest value.
        start: The narrower range of the first sample, or None.
        logarithmic: Whether its scale is logarithmic; then `low` must be 1 or more.

    Raises:
        ValueError: A bound is not an int, or the bounds are out of order.
    """

    low: int
    high: int
    start: tuple[int, int] | None = None
    logarithmic: bool = False

    @property
    def log(self) -> bool:
        """Whether its scale is logarithmic."""
        return self.logarithmic

    def sample(self, rng: np.random.Generator, *, first: bool = True) -> int:
        """Return a random value, each as likely as its share of the scale."""
        low, high = self._first if first else (self.low, self.high)
        if not self.logarithmic:
            return int(rng.integers(low, high + 1))
        return self.from_unit(rng.random(), first=first)

    def from_unit(self, fraction: float, *, first: bool = False) -> int:
        """Return the value at a fraction; each has its share of the scale.

        Raises:
            ValueError, TypeError: The fraction is not a number from 0 to 1.
        """
        fraction = checked_fraction(fraction)
        low, high = self._first if first else (self.low, self.high)
        if not self.logarithmic or fraction in (0, 1):
            return min(low + int(fraction * (high - low + 1)), high)
        bottom, top = math.log(low - 0.5), math.log(high + 0.5)
        at = math.exp(bottom + (top - bottom) * fraction)
        return min(max(self._typed(at), low), high)

    def to_unit(self, value: Any) -> float:
        """Return the middle of a value's share of the scale.

        Raises:
            ValueError: The value is not an int within the range.
        """
        value = self._inside(value)
        if not self.logarithmic:
            return float((value - self.low + 0.5) / (self.high - self.low + 1))
        bottom, top = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return _share(math.log(value), bottom, top - bottom)

    def points(self, count: int) -> list[int]:
        """Different values, evenly spaced on the scale; one value is the middle."""
        low, high = self._first
        count = min(count, high - low + 1)
        found: list[int] = []
        for place, value in enumerate(self._spaced(count)):
            least = found[-1] + 1 if found else low
            most = high - (count - 1 - place)  # Leaves room for those that follow.
            found.append(min(max(value, least), most))
        return found

    def contains(self, value: Any) -> bool:
        """Whether a value is an int within the range; a float is not."""
        value = plain(value)
        return type(value) is int and bool(self.low <= value <= self.high)

    def _advice(self, value: Any) -> str:
        if type(value) is not int:
            return "It must be an int."
        return super()._advice(value)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.logarithmic else float(value)

    def _unscaled(self, at: float) -> float:
        return math.exp(at) if self.logarithmic else at

    @property
    def _unit(self) -> float:
        return 1.0 if self.logarithmic else self._width / 2

    def _next(self, value: int, direction: int) -> int:
        return value + direction

    def _typed(self, value: float) -> int:
        return round(value)  # Rounds halves to even: as often up as down.

    def _check_bound(self, value: Any) -> None:
        if type(value) is not int or abs(value) > _MOST_EXACT:
            raise ValueError(
                f"Integer's bounds must be ints of at most 2**53, got {value!r}."
            )
        if self.logarithmic and value < 1:
            raise ValueError(
                "Integer's bounds must be 1 or more on a logarithmic scale, got "
                f"{value!r}."
            )


def _share(at: float, bottom: float, width: float) -> float:
    """Return a place on a scale as a fraction, which rounding keeps from 0 to 1."""
    return min(max((at - bottom) / width, 0.0), 1.0)
