"""Describes the arguments of a mutator as plain data, and the changes as text."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

from population.base import codec
from population.base.interfaces import Mutator
from population.base.refusals import shortly
from population.space.structure import inside

_MOST = 10
_ABSENT = object()


def settings(mutator: Mutator[Any]) -> dict[str, Any]:
    """Return a mutator's arguments as plain data, with functions as their names."""
    public = {k: v for k, v in vars(mutator).items() if not k.startswith("_")}
    described: dict[str, Any] = _described(public)
    return described


def changed(before: Any, now: Any) -> str:
    """Describe how two settings differ, place by place; "" if they are equal.

    Args:
        before: The recorded result of `settings`.
        now: The result of `settings` for the present mutator.

    Returns:
        Text such as "steps_per_exploit: 20 -> 40, factors[0]: 0.8 -> 0.5".
    """
    found = [
        f"{place}: {_shown(old)} -> {_shown(new)}"
        for place, old, new in _changes(before, now, "")
    ]
    more = [f"and {len(found) - _MOST} more"] if len(found) > _MOST else []
    return ", ".join(found[:_MOST] + more)


def name_of(kind: Any) -> str:
    """Return the full name of a class or function."""
    module = kind.__module__
    if module == "__mp_main__":  # A spawned process names its parent's __main__ so.
        module = "__main__"
    return f"{module}.{kind.__qualname__}"


def _changes(before: Any, now: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    kinds = {type(before), type(now)}
    if kinds == {dict} and before.get("class") == now.get("class"):
        for key in before | now:
            old, new = before.get(key, _ABSENT), now.get(key, _ABSENT)
            yield from _changes(old, new, inside(place, key))
    elif kinds == {list} and len(before) == len(now):
        for index, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from _changes(old, new, inside(place, index))
    elif before != now and repr(before) != repr(now):  # NaN is not equal to itself.
        yield place, before, now


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "not given"
    if type(value) is not dict or type(value.get("class")) is not str:
        return shortly(value)
    name = value["class"].rpartition(".")[2]
    fields = ", ".join(f"{k}={shortly(v)}" for k, v in value.items() if k != "class")
    text = f"{name}({fields})"
    return text if len(text) <= 60 else text[:57] + "..."


def _described(value: Any) -> Any:
    if inspect.isroutine(value) or isinstance(value, type):
        return name_of(value)
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"class": name_of(type(value)), **_described(fields)}
    if type(value) is dict:
        return {key: _described(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return [_described(inner) for inner in value]
    try:
        return codec.normalized(value, "setting")
    except (TypeError, ValueError):
        return name_of(type(value))
