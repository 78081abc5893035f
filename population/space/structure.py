"""Compares the structures of spaces and meta_params; makes meta_params fit a space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from population.base import codec
from population.base.refusals import shortly
from population.space.choices import Categorical, Ordinal
from population.space.domain import Domain

_ABSENT = object()


def differences(
    before: Any, now: Any, space: Any = None, *, partial: bool = False
) -> list[str]:
    """Return where the structures of two spaces, or of two meta_params, differ.

    A domain is a leaf. If it lists values that are trees, and the other structure has a
    dict, list or tuple there, all of them must have that structure.

    Args:
        before: A space or meta_params.
        now: The space or meta_params to compare with it.
        space: A space that defines the leaves: all below a domain is one value.
        partial: Whether `now` may lack entries of a dict.

    Returns:
        Each difference in words, such as "net.depth is new" or "layers[2] is missing".
    """
    return list(_differences(before, now, space, partial, ""))


def refitted(
    space: Any, meta_params: Any, former: Any, rng: np.random.Generator
) -> Any:
    """Return the meta_params of a slot, made to fit another space.

    An entry that they lack is drawn, as for a first population. So is one that cannot
    be moved in its new domain, or that is not among its values any more. A number
    outside its range becomes the nearest bound. Constants are those of the new space.

    Args:
        space: The new space.
        meta_params: The meta_params of a slot.
        former: Their former space: entries that neither space names stay. None: only
            entries that the new space names stay.
        rng: The source of random numbers; drawn in the tree's order.
    """
    if isinstance(space, Mapping):
        given = meta_params if isinstance(meta_params, Mapping) else {}
        stays = {
            key: value
            for key, value in given.items()
            if key in space or not (former is None or key in _parts(former))
        }
        return stays | {
            key: refitted(inner, given.get(key, _ABSENT), _part(former, key), rng)
            for key, inner in space.items()
        }
    if type(space) in (list, tuple):
        parts = [*meta_params] if type(meta_params) in (list, tuple) else []
        parts += [_ABSENT] * len(space)
        return type(space)(
            refitted(inner, parts[index], _part(former, index), rng)
            for index, inner in enumerate(space)
        )
    if not isinstance(space, Domain):
        return codec.normalized(space, "a constant of the space")
    if meta_params is _ABSENT or not space.moves(meta_params):
        return space.sample(rng)
    if space.contains(meta_params):
        return meta_params
    return space.times(meta_params, 1.0, rng)


def inside(place: str, key: object) -> str:
    """Return the name of an entry of a container: "net.depth", "layers[2]"."""
    if type(key) is not str:
        return f"{place}[{key!r}]"
    return f"{place}.{key}" if place else key


def _differences(
    before: Any, now: Any, space: Any, partial: bool, place: str
) -> Iterator[str]:
    if isinstance(space, Domain):
        return
    kind = _kind(before)
    if kind != _kind(now):
        if not (_fits(before, now) or _fits(now, before)):
            what = place or "meta_params"
            yield f"{what} was {_described(before)}, is now {_described(now)}"
    elif kind is not None:
        old, new = _parts(before), _parts(now)
        lacks = [key for key in old if key not in new]
        if kind != "dict" or not partial:
            yield from (f"{inside(place, key)} is missing" for key in lacks)
        for key, inner in new.items():
            at = inside(place, key)
            if key in old:
                yield from _differences(old[key], inner, _part(space, key), partial, at)
            else:
                yield f"{at} is new"


def _kind(tree: Any) -> str | None:
    """Return the type of a container: "dict", "list" or "tuple"; None for a leaf."""
    if isinstance(tree, Mapping):
        return "dict"
    return type(tree).__name__ if type(tree) in (list, tuple) else None


def _parts(tree: Any) -> dict[Any, Any]:
    """Return the items of a container by key or index; {} for a leaf."""
    if _kind(tree) is None:
        return {}
    return dict(tree if isinstance(tree, Mapping) else enumerate(tree))


def _part(space: Any, key: object) -> Any:
    """Return the part of a space below a key; an empty dict if it has none."""
    if space is None or isinstance(space, Domain):
        return None
    return _parts(space).get(key, {})


def _fits(choice: Any, tree: Any) -> bool:
    """Whether all values that a domain lists have the structure of a tree."""
    if not isinstance(choice, (Categorical, Ordinal)) or isinstance(tree, Domain):
        return False
    return not any(differences(value, tree) for value in choice.values)


def _described(tree: Any) -> str:
    kind = _kind(tree)
    return shortly(tree) if kind is None else f"a {kind} of {len(tree)}"
