"""Finds the fastest way of batching the members.

A run begins with the likely way: on a CPU "loop" if the step has a convolution or so
many multiplications that one member keeps the cores busy, else "vmap". Its first rounds
show how long compiling took, and how long the remaining rounds will take. It tries the
other ways, on copies of the members, once a quarter of the remaining time is more than
the time for compiling all trials: another way seldom saves more than that. A shorter
run keeps the likely way, and a run without a known end counts as half done.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from population.engines.stacked.step_cost import StepCost

logger = logging.getLogger("population")
BATCHINGS = ("loop", "vmap", "map")  # Tried in this order: the first always works.
SHORT = 4  # Steps of a trial: enough to measure what a loop in a program costs.
_GIVE_UP = 3.0  # A way that is slower than the best by this factor is timed once.
_ROUNDS = 3
_BUSY = 8_000_000  # Multiply-adds of a step above which "vmap" gains nothing.
_GAIN = 0.25  # The part of the remaining time that another way may save.
_LEAST_S, _ENOUGH_S = 0.1, 2.0
# Raised where a primitive has no batching rule, or where memory does not suffice.
IMPOSSIBLE = (NotImplementedError, ValueError, jax.errors.JaxRuntimeError)

Round = Callable[[], Any]  # Returns once the device is done.


class Choice(NamedTuple):
    """The chosen way of batching.

    Attributes:
        batching: "vmap", "map" or "loop".
        keep: Whether later runs may use it without a trial: there were others, and none
            of them ran out of memory, which another program may have used.
    """

    batching: str
    keep: bool


def worth_trying(num_members: int, steps_per_report: int) -> list[str]:
    """Return the ways of batching that differ, in the order of their trials."""
    if num_members > 1:
        return list(BATCHINGS)
    # One member that makes one step: the same program, and copies cost nothing.
    return ["loop"] if steps_per_report == 1 else ["loop", "vmap"]


def likely(ways: Sequence[str], platform: str, cost: StepCost) -> tuple[str, str]:
    """Return the way to begin with, and the reason in words.

    Args:
        ways: The ways that differ.
        platform: The platform of the devices: "cpu", "gpu" or "tpu".
        cost: The cost of a member's step.
    """
    if len(ways) == 1:
        return ways[0], "as there is no other way"
    if cost.convolves and platform == "cpu":
        return "loop", "as convolutions are slow in other ways on a CPU"
    if cost.multiply_adds > _BUSY and platform == "cpu":
        return "loop", "as one member keeps a CPU busy"
    return "vmap", "until it is known whether trying others pays"


def pays(left_s: float, compile_s: float, ways: int) -> bool:
    """Whether trying all ways costs less than another one may save.

    Args:
        left_s: Seconds of training that are left, in the present way.
        compile_s: Seconds that compiling one way takes.
        ways: How many to try; the fastest is compiled once more, for whole rounds.
    """
    return _GAIN * left_s > (ways + 1) * (compile_s + _LEAST_S)


def fastest(
    make: Callable[[str], Round],
    what: str,
    names: Sequence[str] = BATCHINGS,
    clock: Callable[[], float] = time.perf_counter,
) -> Choice:
    """Time the ways of batching, and return the fastest.

    Args:
        make: Returns, for a way, a function that trains copies of all members.
        what: A description of what such a function trains, for the log.
        names: The ways, in the order of their trials.
        clock: Returns seconds.
    """
    if len(names) == 1:
        logger.info("members are batched by %s, as there is no other way", *names)
        return Choice(names[0], keep=False)
    found: dict[str, float] = {}
    failed: Exception | None = None
    short_of_memory = False
    for name in names:
        run = None  # Frees the memory of the last trial before the next one.
        try:
            run = make(name)
            run()  # It is compiled now.
        except IMPOSSIBLE as error:
            logger.warning("members cannot be batched by %s: %s", name, error)
            short_of_memory |= _is_memory(error)
            # Its frames hold the states that did not fit, and others need the memory.
            failed = error.with_traceback(None)
            failed.__context__ = failed.__cause__ = None
            continue
        found[name] = _seconds(run, min(found.values(), default=None), clock)
    if failed is not None and not found:
        raise failed
    chosen = min(found, key=lambda name: found[name])
    times = ", ".join(f"{name} {1e3 * s:.3g} ms" for name, s in found.items())
    logger.info("members are batched by %s (%s: %s)", chosen, what, times)
    return Choice(chosen, not short_of_memory)


def _is_memory(error: Exception) -> bool:
    return "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()


def _seconds(run: Round, best: float | None, clock: Callable[[], float]) -> float:
    """Return the median of several runs; of one run if it is much too slow."""
    spent: list[float] = []
    while True:
        start = clock()
        run()
        spent.append(clock() - start)
        taken = sum(spent)
        if best is not None and spent[0] > _GIVE_UP * best:
            break
        if taken >= _ENOUGH_S or (len(spent) >= _ROUNDS and taken >= _LEAST_S):
            break
    return statistics.median(spent)
