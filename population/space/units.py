"""Meta_params as vectors of numbers from 0 to 1, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from population.base import codec
from population.base.refusals import shortly
from population.space.domain import Domain
from population.space.trees import checked_domains, filled, map_leaves


def to_unit(space: Any, meta_params: Any) -> npt.NDArray[np.float64]:
    """Return meta_params as a vector: the fraction of each domain's range.

    Args:
        space: The space, with D domains.
        meta_params: Values within it; entries that it does not name are left out.

    Returns:
        `[D]`: `to_unit` of each domain, from 0 to 1, in the order of `domains(space)`.

    Raises:
        ValueError: A value is not in its domain, which the message names, the
            meta_params do not have the structure of the space, or it has no domain.
    """
    checked_domains(space, "to_unit(space, meta_params)")
    found: list[float] = []

    def note(place: str, leaf: Any, value: Any) -> None:
        if isinstance(leaf, Domain):
            try:
                found.append(leaf.to_unit(value))
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from None

    map_leaves(space, meta_params, note)
    return np.array(found, np.float64)


def from_unit(space: Any, fractions: Any, like: Any = None) -> Any:
    """Return the meta_params of a vector; the inverse of `to_unit`.

    Args:
        space: The space, with D domains.
        fractions: `[D]`: a number from 0 to 1 for each, in the order of
            `domains(space)`.
        like: Meta_params whose constants and further entries are kept; None: the
            constants are those of the space.

    Raises:
        ValueError: There are not D fractions, one is not from 0 to 1, `like` does not
            have the structure of the space, or that has no domain.
        TypeError: `fractions` is no vector, or a fraction is not a number.
    """
    left = iter(_vector(space, fractions))

    def value(place: str, leaf: Any, kept: Any) -> Any:
        if not isinstance(leaf, Domain):
            return kept
        try:
            return leaf.from_unit(next(left))
        except (TypeError, ValueError) as error:
            raise type(error)(f"{place}: {error}") from None

    if like is None:
        tree = filled(space, lambda _: None)
    else:
        tree = codec.normalized(like, "meta_params")
    return map_leaves(space, tree, value)


def _vector(space: Any, fractions: Any) -> list[Any]:
    """Return the fractions, one for each domain of a space; refuse what is no vector.

    Raises:
        ValueError: There is another number of them, or the space has no domain.
        TypeError: They are not the entries of a vector.
    """
    names = [n for n, _ in checked_domains(space, "from_unit(space, fractions)")]
    needed = f"{len(names)} fractions, one for each of {', '.join(names)}"
    listed = isinstance(fractions, Iterable) and not _is_leaf(fractions)
    given = list(fractions) if listed else None
    if given is None or not all(map(_is_leaf, given)):
        raise TypeError(
            f"from_unit needs a vector of {needed}, got {type(fractions).__name__} "
            f"{shortly(fractions)}. Of a matrix pass one row."
        )
    if len(given) != len(names):
        raise ValueError(f"from_unit needs {needed}, got {len(given)}.")
    return given


def _is_leaf(value: Any) -> bool:
    """Whether a value is a single one: no list, and no array of some dimensions."""
    if codec.is_array(value):
        return bool(value.shape == ())
    return isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable)
