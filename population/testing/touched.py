"""Counts the work of a call in C: bytes that it allocates, or that methods go through.

A count, not a time: it is the same on every machine. It sees NumPy's arrays, sorted
lists and copies. It does not see a loop of `sum` or `in` over a list that exists.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

import numpy as np

Result = TypeVar("Result")
_ITEM = 8  # Bytes of a reference in a list.
# Methods of arrays, lists, sets, dicts and strings that go through all of it.
_HEAVY = frozenset(
    "all any argmax argmin argpartition argsort astype clip copy count cumsum "
    "difference dot extend fill flatten index insert intersection join max mean "
    "min nonzero partition prod remove repeat replace reverse round searchsorted "
    "sort split std sum take tobytes tolist union update var".split()
)
_DEEPEST = 4


class ByteCounter:
    """Counts the bytes of calls.

    Attributes:
        passed: The bytes that methods of containers have gone through.
        bytes: The bytes of the last call: allocated at once, and gone through.
    """

    def __init__(self) -> None:
        self.passed = 0
        self.bytes = 0

    def call(self, function: Callable[[], Result]) -> Result:
        """Call a function, and count."""
        self.passed = 0
        profile, was_tracing = sys.getprofile(), tracemalloc.is_tracing()
        if not was_tracing:
            tracemalloc.start()  # Only here: it makes every allocation slow.
        tracemalloc.reset_peak()
        start, _ = tracemalloc.get_traced_memory()
        sys.setprofile(self._profile)
        try:
            return function()
        finally:
            sys.setprofile(profile)
            _, peak = tracemalloc.get_traced_memory()
            if not was_tracing:
                tracemalloc.stop()
            self.bytes = max(peak - start, 0) + self.passed

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        del frame
        if event == "c_call" and getattr(argument, "__name__", "") in _HEAVY:
            self.passed += _size(getattr(argument, "__self__", None))


def held(thing: Any, depth: int = 0) -> int:
    """Return the bytes of the containers in the attributes of an object."""
    size = _size(thing)
    if depth < _DEEPEST:
        if isinstance(thing, dict):
            size += sum(held(v, depth + 1) for v in (*thing.keys(), *thing.values()))
        elif isinstance(thing, (list, tuple, set, frozenset)):
            size += sum(held(v, depth + 1) for v in thing)
        elif (
            hasattr(thing, "__dict__")
            and not isinstance(thing, type)
            and not callable(thing)
        ):
            size += held(vars(thing), depth + 1)
    return size


def _size(thing: Any) -> int:
    if isinstance(thing, np.ndarray):
        return thing.nbytes
    if isinstance(thing, (str, bytes)):
        return len(thing)
    if isinstance(thing, (list, tuple, dict, set, frozenset)):
        return _ITEM * len(thing)
    return 0
