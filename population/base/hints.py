"""What the type of a container says of the types of what is in it."""

from __future__ import annotations

import types
import typing


def options(like: object) -> tuple[object, ...]:
    """The types that a type allows: those of a union, or itself."""
    union = isinstance(like, types.UnionType) or typing.get_origin(like) is typing.Union
    return typing.get_args(like) if union else (like,)


def of_items(like: object) -> object:
    """The type of the items of a list; None if it is not known."""
    found = _arguments(like, list)
    return found[0] if len(found) == 1 else None


def of_pairs(like: object) -> tuple[object, object]:
    """The types of the keys and of the values of a dict; None for those not known."""
    found = _arguments(like, dict)
    return (found[0], found[1]) if len(found) == 2 else (None, None)


def of_tuple(like: object, length: int) -> tuple[object, ...]:
    """The type of each item of a tuple of this length; None for those not known."""
    found = _arguments(like, tuple)
    if len(found) == 2 and found[1] is Ellipsis:
        return (found[0],) * length
    return found if len(found) == length else (None,) * length


def _arguments(like: object, container: type) -> tuple[object, ...]:
    for kind in options(like):
        origin = typing.get_origin(kind)
        if isinstance(origin, type) and issubclass(container, origin):
            return typing.get_args(kind)
    return ()
