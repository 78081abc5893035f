"""Varies what must not matter to a mutator: global random numbers, and other clocks."""

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
# These use the current time when they are not given one.
_CALENDARS = ("localtime", "gmtime", "ctime")
_BEGIN_S = 1_000_000_000
_LEAP_S = 3607  # How far a clock has moved each time it is read.


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
    """Let every clock leap that Python or the mutators have, whenever it is read.

    Their times depend only on how often they were read. Other threads of the process
    see them leap, too.

    Args:
        mutators: Objects whose attributes and whose classes' modules are searched for
            references to the clocks.
    """
    seconds = itertools.count(_BEGIN_S, _LEAP_S)
    leaping: dict[int, Any] = {}
    for name in _CLOCKS:
        leaping[id(getattr(time, name))] = _leaping(seconds, name.endswith("_ns"))
    for name in _CALENDARS:
        original = getattr(time, name)
        leaping[id(original)] = _leaping_calendar(original, seconds)
    leaping[id(time.strftime)] = _leaping_strftime(time.strftime, time.gmtime, seconds)
    leaping[id(datetime.datetime)] = _leaping_datetime(seconds)
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


def _leaping(seconds: Iterator[int], in_ns: bool) -> Callable[[], Any]:
    if in_ns:
        return lambda: next(seconds) * 10**9
    return lambda: float(next(seconds))


def _leaping_calendar(original: Callable[..., Any], seconds: Iterator[int]) -> Any:
    def leaping(secs: float | None = None) -> Any:
        return original(next(seconds) if secs is None else secs)

    return leaping


def _leaping_strftime(
    original: Callable[..., str], gmtime: Callable[..., Any], seconds: Iterator[int]
) -> Any:
    def leaping(form: str, at: Any = None) -> str:
        return original(form, gmtime(next(seconds)) if at is None else at)

    return leaping


def _leaping_datetime(seconds: Iterator[int]) -> type[datetime.datetime]:
    original = datetime.datetime

    class Leaping(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return original.fromtimestamp(next(seconds), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(datetime.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Any:
            return cls.now()

    return Leaping
