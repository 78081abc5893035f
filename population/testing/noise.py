"""What must not matter to a mutator: global random numbers, and clocks of its own."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_CLOCKS = (
    "time",
    "time_ns",
    "monotonic",
    "monotonic_ns",
    "perf_counter",
    "perf_counter_ns",
    "process_time",
    "process_time_ns",
)
_LEAP_S = 3607  # Each time somebody looks at a clock, an hour and some has passed.


@contextlib.contextmanager
def global_random_numbers(seed: int) -> Iterator[None]:
    """Seed NumPy's and Python's global generators; restore them at the end."""
    before, before_numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(before_numpy)


@contextlib.contextmanager
def leaping_clocks(*mutators: object) -> Iterator[None]:
    """Let every clock of the process leap, and those that the mutators refer to.

    Args:
        mutators: Objects whose attributes and whose classes' modules are searched for
            references to the clocks.
    """
    hours = itertools.count(1)
    leaping: dict[int, Any] = {}
    for name in _CLOCKS:
        clock = getattr(time, name)
        leaping[id(clock)] = _leaping(clock, hours, name.endswith("_ns"))
    leaping[id(datetime.datetime)] = _leaping_datetime(hours)
    places = [vars(time), vars(datetime), *_namespaces(mutators)]
    changed = []
    try:
        for place in places:
            for name, value in list(place.items()):
                if id(value) in leaping:
                    changed.append((place, name, value))
                    place[name] = leaping[id(value)]
        yield
    finally:
        for place, name, value in changed:
            place[name] = value


def _namespaces(mutators: tuple[object, ...]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for kind in (kind for mutator in mutators for kind in type(mutator).__mro__):
        module = sys.modules.get(kind.__module__)
        if module is not None:
            found[kind.__module__] = vars(module)
    return [*found.values(), *(vars(m) for m in mutators if hasattr(m, "__dict__"))]


def _leaping(
    clock: Callable[[], Any], hours: Iterator[int], in_ns: bool
) -> Callable[[], Any]:
    unit = 10**9 if in_ns else 1
    return lambda: clock() + next(hours) * _LEAP_S * unit


def _leaping_datetime(hours: Iterator[int]) -> type[datetime.datetime]:
    original = datetime.datetime

    class Leaping(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return original.now(tz) + _leap()

        @classmethod
        def utcnow(cls) -> Any:
            return original.now(datetime.timezone.utc).replace(tzinfo=None) + _leap()

        @classmethod
        def today(cls) -> Any:
            return original.now() + _leap()

    def _leap() -> datetime.timedelta:
        return datetime.timedelta(seconds=next(hours) * _LEAP_S)

    return Leaping
