"""Functions of a whole space: samples and grids, checks, and a form to be stored."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from population.base import codec
from population.space.choices import Categorical, Ordinal
from population.space.domain import Domain, spread
from population.space.numbers import Integer, LogUniform, OneMinusLogUniform, Uniform

_DOMAINS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Uniform,
        LogUniform,
        OneMinusLogUniform,
        Integer,
        Ordinal,
        Categorical,
    )
}

_MOST = 1_000_000  # A larger grid would only fill the memory.


def sample(space: Any, rng: np.random.Generator, *, first: bool = True) -> Any:
    """Return random meta_params.

    Args:
        space: The space.
        rng: The source of random numbers; the domains draw in the tree's order.
        first: Draw from the narrower range of the first sample where there is one.

    Returns:
        A tree of the space's structure; constants are copied.
    """
    return filled(space, lambda domain: domain.sample(rng, first=first))


def stratified(space: Any, size: int, rng: np.random.Generator) -> list[Any]:
    """Return random meta_params that cover the range of each domain evenly.

    Each domain's first range is cut into `size` parts that are equally wide on its
    scale, and each of these has one of the values: a Latin hypercube (McKay, Beckman
    and Conover 1979, https://doi.org/10.2307/1268522).

    Args:
        space: The space.
        size: The number of meta_params.
        rng: The source of random numbers; the domains draw in the tree's order.

    Raises:
        ValueError, TypeError: `size` is not a positive int.
    """
    size = codec.integer(size, "size", low=1)
    columns = [
        ((rng.permutation(size) + rng.random(size)) / size).tolist()
        for _ in _domains(space)
    ]
    rows = zip(*columns, strict=True) if columns else [()] * size
    return [_at_fractions(space, row) for row in rows]


def grid(space: Any, k: int | None = None, points: int | None = None) -> list[Any]:
    """Return the combinations of evenly spaced values of each domain, or k of them.

    Args:
        space: The space.
        k: The number of meta_params, evenly spaced among all combinations. None: all
            combinations.
        points: The number of values of each domain, both ends included; a domain that
            lists its values may have fewer. By default as few as give `k` combinations.

    Returns:
        The meta_params; the last domain of the tree changes fastest.

    Raises:
        ValueError: Neither `k` nor `points` is given, or one is not positive, or gives
            more than a million meta_params or values.
        TypeError: One is not an int.
    """
    if k is not None:
        k = _limited("k", k)
    if points is not None:
        points = _limited("points", points)
    elif k is None:
        raise ValueError("grid needs k, the number of meta_params, or points.")
    else:
        points = _fewest_points(space, k)
    axes = [domain.points(points) for _, domain in _domains(space)]
    size = math.prod(map(len, axes))
    if k is None and size > _MOST:
        raise ValueError(
            f"A grid must have at most {_MOST} combinations, got {size} of points="
            f"{points}. Give k, the number of meta_params to take from them."
        )
    chosen = range(size) if k is None else spread(size, k)
    return [_combination(space, axes, place) for place in chosen]


def combinations(space: Any, points: int) -> int:
    """Return the number of combinations of a grid with so many points."""
    points = _limited("points", points)
    return math.prod(len(domain.points(points)) for _, domain in _domains(space))


def _limited(name: str, value: Any) -> int:
    found = codec.integer(value, name, low=1)
    if found > _MOST:
        raise ValueError(f"{name} must be at most {_MOST}, got {found}.")
    return found


def contains(space: Any, meta_params: Any) -> bool:
    """Whether meta_params have the structure, the types and the ranges of a space.

    Further entries of a dict, which the space does not name, are allowed.
    """
    return misfit(space, meta_params) is None


def misfit(space: Any, meta_params: Any) -> str | None:
    """Describe the first place where meta_params are outside a space, or None."""

    def check(place: str, leaf: Any, value: Any) -> None:
        if isinstance(leaf, Domain):
            if not leaf.contains(value):
                raise ValueError(f"{place} is {value!r}, not in {leaf}")
        elif codec.digest(leaf) != codec.digest(value):
            raise ValueError(f"{place} is {value!r}, not {leaf!r}")

    try:
        map_leaves(space, meta_params, check)
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def domains(space: Any) -> dict[str, Domain]:
    """Return the domains of a space in order, by name; nested ones are named `a/b`.

    Where a slash in a key makes two names equal, the later one is named `a/b (2)`.
    """
    return dict(_domains(space))


def to_data(space: Any) -> Any:
    """Return the space as plain data that can be stored; `from_data` is the inverse.

    Raises:
        TypeError: The space has a domain that is not of this package, or a constant
            that cannot be stored.
    """
    if isinstance(space, Domain):
        if _DOMAINS.get(type(space).__name__) is not type(space):
            raise TypeError(
                f"A space's domains must be among {sorted(_DOMAINS)}, got {space!r}. "
                "To explore in another way pass a function as mutate_fn."
            )
        fields: dict[str, Any] = {
            field.name: getattr(space, field.name)
            for field in dataclasses.fields(space)  # type: ignore[arg-type]
        }
        return ("domain", type(space).__name__, fields)
    if isinstance(space, Mapping):
        return {key: to_data(inner) for key, inner in space.items()}
    if type(space) in (list, tuple):
        return (type(space).__name__, [to_data(inner) for inner in space])
    return ("constant", codec.normalized(space, "a constant of the space"))


def from_data(data: Any) -> Any:
    """Return the space that `to_data` has turned into data.

    Raises:
        ValueError: The data is not a space, or names an unknown domain.
        TypeError: The arguments of a domain are not those of its class.
    """
    match data:
        case dict():
            return {key: from_data(inner) for key, inner in data.items()}
        case ("domain", str(name), dict(fields)):
            if name not in _DOMAINS:
                raise ValueError(f"Unknown domain {name!r}; known: {sorted(_DOMAINS)}.")
            return _DOMAINS[name](**fields)
        case ("constant", constant):
            return constant
        case ("list", list(parts)):
            return [from_data(inner) for inner in parts]
        case ("tuple", list(parts)):
            return tuple(from_data(inner) for inner in parts)
    raise ValueError(f"Not the data of a space: {data!r}.")


def check_space(space: Any) -> None:
    """Refuse a tree that is not a space.

    Raises:
        ValueError: It has no domain, or the class of a domain in place of an object.
        TypeError: A constant cannot be stored.
    """
    checked_domains(space)
    to_data(space)


def checked_domains(space: Any, call: str = "") -> list[tuple[str, Domain]]:
    """Return the domains of a space; refuse a tree without one, as `check_space` does.

    Args:
        space: The space.
        call: How to call the function that needs it.
    """
    for place, leaf in leaves(space):
        if isinstance(leaf, type) and issubclass(leaf, Domain):
            raise ValueError(
                f"{place} must be a domain, got the class {leaf.__name__}. Call it "
                f"with its arguments: {leaf.__name__}(...)."
            )
    found = _domains(space)
    if not found:
        advice = f" The space comes first: {call}." if call else ""
        raise ValueError(
            "A space needs at least one domain, say {'learning_rate': LogUniform(1e-5, "
            f"1e-1)}}, got {space!r}.{advice}"
        )
    return found


def map_leaves(
    space: Any, tree: Any, function: Callable[[str, Any, Any], Any], place: str = ""
) -> Any:
    """Replace each leaf of a tree by `function(place, leaf of the space, value)`.

    Raises:
        ValueError: The tree does not have the structure of the space.
    """
    if isinstance(space, Mapping):
        given = tree if isinstance(tree, Mapping) else {}
        lacking = [key for key in space if key not in given]
        if given is not tree or lacking:
            needed = f" with {', '.join(map(repr, lacking))}" if lacking else ""
            raise ValueError(
                f"{place or 'meta_params'} must be a dict{needed}, as the space has "
                f"it, got {tree!r}"
            )
        return dict(tree) | {
            key: map_leaves(inner, tree[key], function, _inside(place, key))
            for key, inner in space.items()
        }
    if type(space) in (list, tuple):
        if type(tree) is not type(space) or len(tree) != len(space):
            raise ValueError(
                f"{place or 'meta_params'} must be a {type(space).__name__} of "
                f"{len(space)}, as the space has it, got {tree!r}"
            )
        return type(space)(
            map_leaves(inner, part, function, _inside(place, index))
            for index, (inner, part) in enumerate(zip(space, tree, strict=True))
        )
    return function(place or "meta_params", space, tree)


def leaves(tree: Any) -> list[tuple[str, Any]]:
    """Return the leaves in order, with names; 'a/b' may be the key b of a dict a."""
    found: list[tuple[str, Any]] = []
    map_leaves(tree, tree, lambda place, leaf, _: found.append((place, leaf)))
    return found


def _inside(place: str, key: object) -> str:
    return f"{place}/{key}" if place else str(key)


def _domains(space: Any) -> list[tuple[str, Domain]]:
    """Return the domains in order, each with a name of its own."""
    found: dict[str, Domain] = {}
    for name, leaf in leaves(space):
        if isinstance(leaf, Domain):
            numbers = itertools.count(2)
            own = name
            while own in found:
                own = f"{name} ({next(numbers)})"
            found[own] = leaf
    return list(found.items())


def filled(space: Any, value_of: Callable[[Domain], Any]) -> Any:
    """Return the space with a value for each domain, and its constants copied."""

    def value(place: str, leaf: Any, _: Any) -> Any:
        if isinstance(leaf, Domain):
            return value_of(leaf)
        return codec.normalized(leaf, "a constant of the space")

    return map_leaves(space, space, value)


def _at_fractions(space: Any, fractions: Sequence[float]) -> Any:
    """Return the values at these fractions of the domains' first ranges."""
    left = iter(fractions)
    return filled(space, lambda domain: domain.from_unit(next(left), first=True))


def _combination(space: Any, axes: Sequence[Sequence[Any]], place: int) -> Any:
    """Return the combination of this index; the last axis changes fastest."""
    chosen = []
    for axis in reversed(axes):
        place, index = divmod(place, len(axis))
        chosen.append(axis[index])
    return filled(space, lambda domain: chosen.pop())


def _fewest_points(space: Any, k: int) -> int:
    """Return the fewest points of each domain that give `k` combinations, if any do."""

    def count(points: int) -> int:
        return combinations(space, points)

    most = 1
    while most < k and count(most) < k:
        most = min(2 * most, k)
    return bisect.bisect_left(range(most), k, lo=1, key=count)
