"""Varies what must not matter to a mutator: global random numbers, and other clocks."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

_CLOCKS = ("time", "monotonic", "perf_counter", "process_time")
# These use the current time when they are not given one.
_CALENDARS = ("localtime", "gmtime", "ctime")
_BEGIN_S = 1_000_000_000
_BITS = (np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64)
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
    with _in_place(places, leaping):
        yield


@contextlib.contextmanager
def other_seeds(*mutators: object) -> Iterator[None]:
    """Let each new generator or key have another seed than the one it is given.

    Those of NumPy, Python and, if it is loaded, JAX.

    Args:
        mutators: As in `leaping_clocks`.
    """
    seeds = itertools.count(700)
    originals: list[Callable[..., Any]] = [np.random.default_rng, *_BITS]
    places = [vars(np.random), vars(random), *_namespaces(mutators)]
    if "jax" in sys.modules:
        jax_random = sys.modules["jax"].random
        originals += [jax_random.key, jax_random.PRNGKey]
        places.append(vars(jax_random))

    def reseeded(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda seed=None, **others: original(next(seeds), **others)

    class OtherState(np.random.RandomState):
        def __init__(self, seed: Any = None) -> None:
            super().__init__(next(seeds))

    class OtherRandom(random.Random):
        def __init__(self, seed: Any = None) -> None:
            super().__init__(next(seeds))

    others: dict[int, Any] = {id(kind): reseeded(kind) for kind in originals}
    others[id(np.random.RandomState)] = OtherState
    others[id(random.Random)] = OtherRandom
    with _in_place(places, others):
        yield


@contextlib.contextmanager
def _in_place(
    places: Sequence[dict[str, Any]], others: Mapping[int, Any]
) -> Iterator[None]:
    """Put other objects, by the ids of those that are there, into namespaces."""
    changed = []
    try:
        for place in places:
            for name, value in list(place.items()):
                if id(value) in others:
                    changed.append((place, name, value))
                    place[name] = others[id(value)]
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
