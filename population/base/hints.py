"""What the type of a container says of the types of what is in it."""

from __future__ import annotations

import types
import typing


def options(like: object) -> tuple[object, ...]:
    """The types that a type allows: those of a union, or itself."""
    union = isinstance(like, types.UnionType) or typing.get_origin(like) is typing.Union
    return typing.get_args(like) if union else (like,)


def arguments(like: object, container: type, count: int) -> tuple[object, ...]:
    """The types of what is in a container, as its type says them.

    Args:
        like: The type.
        container: What it must allow: list, dict or tuple.
        count: How many there are: one for all items of a list, two for the keys and the
            values of a dict, one for each item of a tuple.

    Returns:
        So many types; None for those not known.
    """
    for kind in options(like):
        origin = typing.get_origin(kind)
        if isinstance(origin, type) and issubclass(container, origin):
            found = typing.get_args(kind)
            if found[1:] == (Ellipsis,):
                found = found[:1] * count
            return found if len(found) == count else (None,) * count
    return (None,) * count
