"""Checks whether a function reads the same values as when it was traced.

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


def reference(
    function: Callable[..., Any], gone: Callable[[Any], object] | None = None
) -> Callable[[], Any] | None:
    """Return a weak reference to a function; None if its type does not support one.

    Args:
        function: Any callable.
        gone: Called with the reference when the function is deleted.
    """
    is_method = isinstance(function, types.MethodType)
    make: Any = weakref.WeakMethod if is_method else weakref.ref
    try:
        return make(function, gone)  # type: ignore[no-any-return]
    except TypeError:
        return None


def identity(function: Callable[..., Any]) -> tuple[int, ...]:
    """Return a key for a function while it lives; equal bound methods have equal keys.

    Args:
        function: Any callable.
    """
    if isinstance(function, types.MethodType):
        return id(function.__self__), id(function.__func__)
    return (id(function),)


class Captures:
    """The values that functions read, without keeping large objects alive.

    Args:
        functions: The callables.
    """

    def __init__(self, functions: tuple[Callable[..., Any], ...]) -> None:
        self._tests = [_is_still(value) for value in _values(functions)]

    def same(self, functions: tuple[Callable[..., Any], ...]) -> bool:
        """Whether the functions would read the same objects now."""
        return _all_pass(self._tests, _values(functions))


def _values(functions: tuple[Callable[..., Any], ...]) -> list[Any]:
    found: list[Any] = []
    seen: set[int] = set()
    for function in functions:
        found += _read(function, seen, None)
    return found


def _read(value: Any, seen: set[int], module: Any) -> Iterator[Any]:
    """Yield the values that a callable and functions of the same module in it read."""
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
    """Yield the values of a function's variables: closure, defaults and globals."""
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
    """Return the names in a function and in those that are defined inside it."""
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _items(value: Any) -> list[Any]:
    return [*value, *value.values()] if type(value) is dict else list(value)


def _is_still(value: Any, depth: int = 0) -> Callable[[Any], bool]:
    """Return a test whether an object is this one, which keeps no large one alive.

    A list, tuple or dict may change in place: its items are tested.
    """
    kind = type(value)
    if kind in (list, tuple, dict) and depth < _DEEPEST and len(value) <= _LONGEST:
        tests = [_is_still(item, depth + 1) for item in _items(value)]
        return lambda other: type(other) is kind and _all_pass(tests, _items(other))
    try:
        reference = weakref.ref(value)
    except TypeError:
        is_plain = isinstance(value, _PLAIN)
        return lambda other: (
            other is value or bool(is_plain and type(other) is kind and other == value)
        )
    return lambda other: reference() is other


def _all_pass(tests: list[Callable[[Any], bool]], values: list[Any]) -> bool:
    pairs = zip(tests, values, strict=False)
    return len(tests) == len(values) and all(test(value) for test, value in pairs)
