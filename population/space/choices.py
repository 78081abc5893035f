"""Domains that list their values, with and without an order."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from population.base import codec
from population.space.domain import (
    Domain,
    check_inside,
    checked_fraction,
    plain,
    spread,
)


@dataclasses.dataclass(frozen=True)
class _Choice(Domain):
    """One of some values; a subclass defines how it moves among them."""

    values: Sequence[Any]
    start: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        kind = type(self).__name__
        for name in ("values", "start"):
            given = getattr(self, name)
            if given is None and name == "start":
                continue
            if not isinstance(given, (list, tuple)) or not given:
                raise ValueError(f"{kind} needs a list of {name}, got {given!r}.")
            own = codec.normalized(list(given), f"{kind}'s {name}")
            object.__setattr__(self, name, tuple(own))
            if len({codec.digest(value) for value in own}) < len(own):
                raise ValueError(
                    f"{kind}'s {name} must differ, got {given!r}. List each value once."
                )
        outside = [value for value in self._first if not self.contains(value)]
        if outside:
            raise ValueError(f"{kind}'s start must be among its values: {outside!r}.")

    def sample(self, rng: np.random.Generator, *, first: bool = True) -> Any:
        """Return a random value, each equally likely."""
        values = self._first if first else self.values
        return copy.deepcopy(values[int(rng.integers(len(values)))])

    def from_unit(self, fraction: float, *, first: bool = False) -> Any:
        """Return the value at a fraction of the list; each has an equal share.

        Raises:
            ValueError, TypeError: The fraction is not a number from 0 to 1.
        """
        values = self._first if first else self.values
        index = min(int(checked_fraction(fraction) * len(values)), len(values) - 1)
        return copy.deepcopy(values[index])

    def to_unit(self, value: Any) -> float:
        """Return the middle of a value's share of the list: (place + 1/2) / length.

        Raises:
            ValueError: The value is not one of them.
        """
        check_inside(
            self, plain(value), "It must be one of those listed, and of the same type."
        )
        return ((self._index(value) or 0) + 0.5) / len(self.values)

    def points(self, count: int) -> list[Any]:
        """Return `count` evenly spaced values, or all if there are fewer."""
        values = copy.deepcopy(self._first)
        return [values[i] for i in spread(len(values), min(count, len(values)))]

    def contains(self, value: Any) -> bool:
        """Whether a value is one of them; 1, 1.0 and True are different."""
        return self._index(value) is not None

    @property
    def _first(self) -> Sequence[Any]:
        return self.values if self.start is None else self.start

    def _step(self, value: Any, places: int, rng: np.random.Generator) -> Any:
        """Return the value `places` further in the list; a random one if not listed."""
        index = self._index(value)
        if index is None:
            return self.sample(rng, first=False)
        place = min(max(index + places, 0), len(self.values) - 1)
        return copy.deepcopy(self.values[place])

    def _index(self, value: Any) -> int | None:
        try:
            key = codec.digest(value)
        except TypeError:
            return None
        return next(
            (i for i, v in enumerate(self.values) if codec.digest(v) == key), None
        )


@dataclasses.dataclass(frozen=True)
class Ordinal(_Choice):
    """One of some values that have an order; a move goes to a neighbour.

    A value that is not among them, such as one of a hand-written configuration, is
    replaced by a random one.

    Args:
        values: The values in their order, all different.
        start: Those of the first sample, or None for all.

    Raises:
        ValueError: There is no value, two are equal, or `start` has one that is not
            among `values`.
        TypeError: A value cannot be stored.
    """

    def times(self, value: Any, factor: float, rng: np.random.Generator) -> Any:
        """Return the next value if the factor is above 1, the previous one if below."""
        return self._step(value, (factor > 1) - (factor < 1), rng)

    def shifted(self, value: Any, fraction: float, rng: np.random.Generator) -> Any:
        """Return the value that fraction of all places away, but at least one place."""
        distance = min(max(fraction, -1.0), 1.0) * (len(self.values) - 1)
        least = (distance > 0) - (distance < 0)
        return self._step(value, round(distance) or least, rng)


@dataclasses.dataclass(frozen=True)
class Categorical(_Choice):
    """One of some values that have no order; a move draws a random one.

    Args:
        values: The values, all different.
        start: Those of the first sample, or None for all.

    Raises:
        ValueError: There is no value, two are equal, or `start` has one that is not
            among `values`.
        TypeError: A value cannot be stored.
    """

    def times(self, value: Any, factor: float, rng: np.random.Generator) -> Any:
        """Return a random value; the same one if the factor is 1."""
        return self.shifted(value, factor - 1, rng)

    def shifted(self, value: Any, fraction: float, rng: np.random.Generator) -> Any:
        """Return a random value; the same one if the fraction is 0."""
        if fraction == 0:
            return self._step(value, 0, rng)
        return self.sample(rng, first=False)
