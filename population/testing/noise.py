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

_CLOCKS = ("time", "monotonic", "perf_counter", "process_time")
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
        leaping[id(getattr(time, name))] = lambda: float(next(seconds))
        leaping[id(getattr(time, f"{name}_ns"))] = lambda: next(seconds) * 10**9
    gmtime = time.gmtime
    for name in _CALENDARS:
        calendar = getattr(time, name)
        leaping[id(calendar)] = _given_time(calendar, 0, lambda: next(seconds))
    leaping[id(time.strftime)] = _given_time(
        time.strftime, 1, lambda: gmtime(next(seconds))
    )
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


@contextlib.contextmanager
def other_seeds(*mutators: object) -> Iterator[None]:
    """Let each new generator of NumPy have another seed than the one it is given.

    Args:
        mutators: As in `leaping_clocks`.
    """
    seeds, original = itertools.count(), np.random.default_rng
    places = [vars(np.random), *_namespaces(mutators)]
    changed = []

    def reseeded(seed: Any = None) -> np.random.Generator:
        return original([next(seeds), 700])

    try:
        for place in places:
            for name, value in list(place.items()):
                if value is original:
                    changed.append((place, name))
                    place[name] = reseeded
        yield
    finally:
        for place, name in changed:
            place[name] = original


def _namespaces(mutators: tuple[object, ...]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for kind in (kind for mutator in mutators for kind in type(mutator).__mro__):
        module = sys.modules.get(kind.__module__)
        if module is not None:
            found[kind.__module__] = vars(module)
    return [*found.values(), *(vars(m) for m in mutators if hasattr(m, "__dict__"))]


def _given_time(
    original: Callable[..., Any], place: int, now: Callable[[], Any]
) -> Callable[..., Any]:
    """Return the function, with the time as the default for this argument."""

    def leaping(*arguments: Any) -> Any:
        if arguments[place:] in ((), (None,)):
            arguments = (*arguments[:place], now())
        return original(*arguments)

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
