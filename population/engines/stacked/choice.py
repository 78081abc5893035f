"""Which way of batching the members is the fastest here: tried on copies of them."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

logger = logging.getLogger("population")
BATCHINGS = ("vmap", "map", "loop")
_GIVE_UP = 3.0  # Slower by this factor than the best: no more time is spent on it.
_SHORT = 4
_ROUNDS = 3
_LEAST_S, _ENOUGH_S = 0.1, 2.0

Round = Callable[[], Any]  # Returns once the values are there.


def fastest(
    make: Callable[[str, int], Round], length: int, names: Sequence[str] = BATCHINGS
) -> str:
    """The way of batching that takes the least time.

    Each is compiled and timed for a few steps first. Those within three times the best
    are then timed for a whole chunk.

    Args:
        make: For a way and a number of steps, a function that trains copies of all
            members for so many steps and evaluates them.
        length: The steps of a whole chunk.
        names: The ways.
    """
    short = min(length, _SHORT)
    found = _timed(make, short, names)
    if length > short:
        best = min(found.values())
        near = [name for name in names if found[name] <= _GIVE_UP * best]
        if len(near) > 1:
            found = found | _timed(make, length, near)
            names = near
    chosen = min(names, key=lambda name: found[name])
    told = ", ".join(f"{name} {1e3 * s:.3g} ms a step" for name, s in found.items())
    logger.info("members are batched by %s (%s)", chosen, told)
    return chosen


def _timed(
    make: Callable[[str, int], Round], steps: int, names: Sequence[str]
) -> dict[str, float]:
    """Seconds a step of each."""
    found: dict[str, float] = {}
    for name in names:
        run = make(name, steps)
        run()  # It is compiled now.
        first = _seconds(run)
        best = min([*found.values(), first / steps])
        spent, taken = [first], first
        while taken < _ENOUGH_S and (len(spent) < _ROUNDS or taken < _LEAST_S):
            if first / steps > _GIVE_UP * best:
                break
            spent.append(_seconds(run))
            taken += spent[-1]
        found[name] = statistics.median(spent) / steps
    return found


def _seconds(run: Round) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
