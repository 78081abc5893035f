"""Domains of some given values, with and without an order."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from population.base import codec
from population.space.domain import Domain, spread


@dataclasses.dataclass(frozen=True)
class _Choice(Domain):
    """One of some values; the leaves say whether they have an order."""

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
                raise ValueError(f"{kind}'s {name} must differ, got {given!r}.")
        outside = [value for value in self._first if not self.contains(value)]
        if outside:
            raise ValueError(f"{kind}'s start must be among its values: {outside!r}.")

    def sample(self, rng: np.random.Generator, *, first: bool = True) -> Any:
        """All are equally likely."""
        values = self._first if first else self.values
        return copy.deepcopy(values[int(rng.integers(len(values)))])

    def points(self, count: int) -> list[Any]:
        """So many of the values, or all if there are no more."""
        values = copy.deepcopy(self._first)
        return [values[i] for i in spread(len(values), min(count, len(values)))]

    def contains(self, value: Any) -> bool:
        """Whether it is one of the values; 1, 1.0 and True are different."""
        return self._index(value) is not None

    @property
    def _first(self) -> Sequence[Any]:
        return self.values if self.start is None else self.start

    def _step(self, value: Any, places: int, rng: np.random.Generator) -> Any:
        """So many places further; a value that is none of them is drawn anew."""
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
    """One of some values in an order; it moves to a neighbour.

    A value that is not among them, say from a known configuration, is drawn anew.

    Args:
        values: The values in their order, all different.
        start: Those of the first sample, or None for all.

    Raises:
        ValueError: If there are none, two are equal, or `start` has others.
        TypeError: If one cannot be stored.
    """

    def times(self, value: Any, factor: float, rng: np.random.Generator) -> Any:
        """The neighbour in the direction of the factor."""
        return self._step(value, (factor > 1) - (factor < 1), rng)

    def shifted(self, value: Any, fraction: float, rng: np.random.Generator) -> Any:
        """That fraction of the places further, at least one."""
        distance = min(max(fraction, -1.0), 1.0) * (len(self.values) - 1)
        least = (distance > 0) - (distance < 0)
        return self._step(value, round(distance) or least, rng)


@dataclasses.dataclass(frozen=True)
class Categorical(_Choice):
    """One of some values without an order; a move draws it anew.

    Args:
        values: The values, all different.
        start: Those of the first sample, or None for all.

    Raises:
        ValueError: If there are none, two are equal, or `start` has others.
        TypeError: If one cannot be stored.
    """

    def times(self, value: Any, factor: float, rng: np.random.Generator) -> Any:
        """Drawn anew, but held by a factor of 1."""
        return self.shifted(value, factor - 1, rng)

    def shifted(self, value: Any, fraction: float, rng: np.random.Generator) -> Any:
        """Drawn anew, but held by a fraction of 0."""
        if fraction == 0:
            return self._step(value, 0, rng)
        return self.sample(rng, first=False)
