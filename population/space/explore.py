"""Ready-made `mutate_fn`s: they move meta_params within a space."""

from __future__ import annotations

import abc
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from population.space.domain import Domain, is_finite, is_number
from population.space.trees import check_space, leaves, map_leaves


class _Explorer(abc.ABC):
    """Draws each hyperparameter again or moves it; a subclass defines how far."""

    space: Any
    resample_probability: float
    share: float

    def __post_init__(self) -> None:
        check_space(self.space)
        if not is_number(self.share) or not 0 < self.share <= 1:
            raise ValueError(
                f"share must be above 0 and at most 1, got {self.share!r}."
            )
        chance = self.resample_probability
        if not is_number(chance) or not 0 <= chance <= 1:
            raise ValueError(
                f"resample_probability must be from 0 to 1, got {chance!r}."
            )

    def __call__(self, meta_params: Any, rng: np.random.Generator) -> Any:
        """Return new meta_params inside the space, even if the old ones are not."""
        chance = self.resample_probability
        changes = self._chosen(rng)

        def explored(place: str, leaf: Any, value: Any) -> Any:
            if not isinstance(leaf, Domain):
                return value
            if not next(changes):
                _check_moves(place, leaf, value)
                return leaf.times(value, 1.0, rng)
            if chance and rng.random() < chance:
                return leaf.sample(rng, first=False)
            _check_moves(place, leaf, value)
            return self._moved(leaf, value, rng)

        return map_leaves(self.space, meta_params, explored)

    def _chosen(self, rng: np.random.Generator) -> Iterator[bool]:
        """Return for each hyperparameter whether it changes; at least one does."""
        if self.share == 1:
            return itertools.repeat(True)
        count = self._count
        # The first that changes has the distribution of independent draws of which one
        # at least succeeded; those after it are independent.
        some = -math.expm1(count * math.log1p(-self.share))
        first = int(math.log1p(-some * rng.random()) / math.log1p(-self.share))
        chosen = rng.random(count) < self.share
        chosen[: first + 1] = [*[False] * first, True][:count]
        return iter(chosen.tolist())

    @functools.cached_property
    def _count(self) -> int:
        return sum(isinstance(leaf, Domain) for _, leaf in leaves(self.space))

    @abc.abstractmethod
    def _moved(self, domain: Domain, value: Any, rng: np.random.Generator) -> Any:
        """Return a value of a domain, moved by a random distance."""


@dataclasses.dataclass(frozen=True)
class Perturb(_Explorer):
    """A `mutate_fn`: moves each hyperparameter by a random factor, or draws it again.

    Independently for each: with `resample_probability` it becomes a random value of the
    whole range, else it is moved by one of the factors. A number moves on its own
    scale, an ordinal to a neighbour, and a categorical is drawn again. A factor of 1.0
    leaves the value as it is, so that (0.8, 1.0, 1.25) decreases, keeps or increases
    it. Constants, and entries that the space does not name, stay.

    This is the explore step of Jaderberg et al. 2017
    (https://arxiv.org/abs/1711.09846). Its factors were 0.8 and 1.2, with which a value
    falls by 0.9 decades in 100 moves.

    Args:
        space: The space of the meta_params.
        factors: The factors; each is equally likely.
        resample_probability: The probability that a hyperparameter is redrawn.
        share: The probability that a hyperparameter changes at all; at least one does.

    Raises:
        ValueError: A factor is not positive, or a probability is out of its range.
    """

    space: Any
    factors: Sequence[float] = (0.8, 1.25)
    resample_probability: float = 0.25
    share: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        factors = tuple(self.factors) if isinstance(self.factors, Sequence) else ()
        if not factors or not all(_is_positive(factor) for factor in factors):
            raise ValueError(
                f"factors must be positive numbers, got {self.factors!r}. Below 1 they "
                "decrease a value, above they increase it."
            )
        object.__setattr__(self, "factors", factors)

    def _moved(self, domain: Domain, value: Any, rng: np.random.Generator) -> Any:
        factor = self.factors[int(rng.integers(len(self.factors)))]
        return domain.times(value, factor, rng)


@dataclasses.dataclass(frozen=True)
class Gaussian(_Explorer):
    """A `mutate_fn`: adds normal noise to each hyperparameter, on its own scale.

    Otherwise it does what `Perturb` does.

    Args:
        space: The space of the meta_params.
        sigma: Standard deviation of the noise, as a fraction of the width of the whole
            range on the domain's scale.
        resample_probability: The probability that a hyperparameter is redrawn.
        share: The probability that a hyperparameter changes at all; at least one does.

    Raises:
        ValueError: `sigma` is not positive, or a probability is out of its range.
    """

    space: Any
    sigma: float = 0.1
    resample_probability: float = 0.0
    share: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _is_positive(self.sigma):
            raise ValueError(f"sigma must be a positive number, got {self.sigma!r}.")

    def _moved(self, domain: Domain, value: Any, rng: np.random.Generator) -> Any:
        return domain.shifted(value, self.sigma * float(rng.normal()), rng)


def explored_space(mutate_fn: object) -> Any:
    """Return the space of a `Perturb` or `Gaussian`; None for any other function."""
    known = type(mutate_fn) in (Perturb, Gaussian)
    return getattr(mutate_fn, "space", None) if known else None


def immovable(space: Any, meta_params: Any) -> str | None:
    """Return why `Perturb` and `Gaussian` cannot move meta_params; None if they can."""

    def check(place: str, leaf: Any, value: Any) -> None:
        if isinstance(leaf, Domain):
            _check_moves(place, leaf, value)

    try:
        map_leaves(space, meta_params, check)
    except ValueError as error:
        return str(error)
    return None


def _check_moves(place: str, leaf: Domain, value: Any) -> None:
    if not leaf.moves(value):
        raise ValueError(f"{place} must be a number to move in {leaf}: {value!r}")


def _is_positive(value: Any) -> bool:
    return is_finite(value) and bool(value > 0)
