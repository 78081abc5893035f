"""Reads the types of the items of a container from its type annotation."""

from __future__ import annotations

import types
import typing


def options(like: object) -> tuple[object, ...]:
    """Return the members of a union type; of another type, that alone."""
    union = isinstance(like, types.UnionType) or typing.get_origin(like) is typing.Union
    return typing.get_args(like) if union else (like,)


def arguments(like: object, container: type, count: int) -> tuple[object, ...]:
    """Return the types of the items of a container from its type.

    Args:
        like: The type of the container, or None.
        container: The kind of container that it must allow: list, dict or tuple.
        count: The number of types: one for all items of a list, two for the keys and
            the values of a dict, one for each item of a tuple.

    Returns:
        `count` types; None for each unknown one.
    """
    for kind in options(like):
        origin = typing.get_origin(kind)
        if isinstance(origin, type) and issubclass(container, origin):
            found = typing.get_args(kind)
            if found[1:] == (Ellipsis,):
                found = found[:1] * count
            return found if len(found) == count else (None,) * count
    return (None,) * count
