"""Whether plain data is of the types that a state's class says."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

_NUMBERS = (int, float)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value may stand where a type was announced; True if that says nothing.

    Args:
        value: What was read.
        hint: The type, as `typing.get_type_hints` gives it.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, types.UnionType) or origin is typing.Union:
        return any(fits(value, kind) for kind in inner)
    if hint in _NUMBERS:
        return type(value) in _NUMBERS
    kind = origin or hint
    if not isinstance(kind, type) or kind is Any:
        return True
    if not isinstance(value, kind):
        return False
    if dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"):
        hints = typing.get_type_hints(kind)
        return all(fits(getattr(value, name), hints[name]) for name in hints)
    return all(fits(x, kind) for x, kind in _items(value, inner))


def _items(value: Any, inner: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    """What a container holds, and the type of each."""
    if isinstance(value, Mapping) and len(inner) == 2:
        keys = [(key, inner[0]) for key in value]
        return keys + [(item, inner[1]) for item in value.values()]
    if isinstance(value, tuple) and inner and inner[-1] is not Ellipsis:
        if len(value) == len(inner):
            return list(zip(value, inner, strict=True))
        return [(value, type(None))]  # It is too short or too long.
    if isinstance(value, Sequence) and not isinstance(value, str) and inner:
        return [(item, inner[0]) for item in value]
    return []
