"""Whether what a function reads beside its arguments has changed since it was traced.

A compiled function keeps the values that it read when it was traced: variables of the
enclosing function, globals, attributes of `self`. A later run may use it again only
while these are the same. `Captures` finds those that the function names, those of
functions of the same module that it uses, and the items of lists, tuples and dicts
among them. What it reads in other modules is taken to be constant, as in `jax.jit`.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

_DEEPEST, _LONGEST = 3, 64
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def reference(function: Callable[..., Any]) -> Callable[[], Any] | None:
    """A weak reference to a function; None if its type does not support one."""
    try:
        if isinstance(function, types.MethodType):
            return weakref.WeakMethod(function)
        return weakref.ref(function)
    except TypeError:
        return None


def identity(function: Callable[..., Any]) -> tuple[int, ...]:
    """A key for a function while it lives; Python makes a bound method anew each time.

    Args:
        function: Any callable.
    """
    if isinstance(function, types.MethodType):
        return id(function.__self__), id(function.__func__)
    return (id(function),)


class Captures:
    """What some functions read, without keeping large objects alive.

    Args:
        functions: The callables.
    """

    def __init__(self, functions: tuple[Callable[..., Any], ...]) -> None:
        self._marks = [_mark(value) for value in _values(functions)]

    def same(self, functions: tuple[Callable[..., Any], ...]) -> bool:
        """Whether the functions would read the same objects now."""
        values = _values(functions)
        pairs = zip(self._marks, values, strict=False)
        return len(self._marks) == len(values) and all(_is(*pair) for pair in pairs)


def _values(functions: tuple[Callable[..., Any], ...]) -> list[Any]:
    found: list[Any] = []
    seen: set[int] = set()
    for function in functions:
        found += _read(function, seen, None)
    return found


def _read(value: Any, seen: set[int], module: Any) -> Iterator[Any]:
    """What a callable reads; of functions, those of the same module are followed."""
    if isinstance(value, functools.partial):
        yield from (*value.args, *value.keywords.items())
        yield from _read(value.func, seen, module)
    elif isinstance(value, types.MethodType):
        yield from getattr(value.__self__, "__dict__", {}).items()
        yield from _read(value.__func__, seen, module)
    elif isinstance(value, types.FunctionType):
        if id(value) in seen or (
            module is not None and value.__globals__ is not module
        ):
            return
        seen.add(id(value))
        for inner in _named(value):
            yield inner
            yield from _read(inner, seen, value.__globals__)
    elif hasattr(value, "__wrapped__"):  # As jax.jit returns it.
        yield from _read(value.__wrapped__, seen, module)
    elif module is None and hasattr(value, "__dict__"):  # An object that is called.
        yield from vars(value).items()
        yield from _read(type(value).__call__, seen, module)


def _named(function: types.FunctionType) -> Iterator[Any]:
    """The values of variables that a function names: closed over, defaults, globals."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # It is not assigned yet.
            yield None
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for name in sorted(_names(function.__code__)):
        if name in function.__globals__:
            yield function.__globals__[name]


def _names(code: types.CodeType) -> set[str]:
    """The names in a function and in those that are defined inside it."""
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


class _Items:
    """The content of a list, tuple or dict, which may change in place."""

    def __init__(self, value: Any, depth: int) -> None:
        self.kind = type(value)
        self.marks = [_mark(item, depth + 1) for item in _items(value)]


def _items(value: Any) -> list[Any]:
    return [*value, *value.values()] if type(value) is dict else list(value)


def _mark(value: Any, depth: int = 0) -> Any:
    """Stands for an object: a weak reference, the items of a container, or itself."""
    is_container = type(value) in (list, tuple, dict)
    if is_container and depth < _DEEPEST and len(value) <= _LONGEST:
        return _Items(value, depth)
    try:
        return weakref.ref(value)
    except TypeError:
        return value


def _is(mark: Any, value: Any) -> bool:
    if isinstance(mark, _Items):
        if type(value) is not mark.kind or len(_items(value)) != len(mark.marks):
            return False
        return all(map(_is, mark.marks, _items(value)))
    if isinstance(mark, weakref.ref):
        return mark() is value
    same = type(mark) is type(value) and isinstance(mark, _PLAIN)
    return mark is value or bool(same and mark == value)
