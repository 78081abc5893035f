"""Checks a mutator against all of its promises."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from population.base.interfaces import Mutator
from population.testing.broken import BrokenPromise
from population.testing.perturb import perturb
from population.testing.promises import PROMISES, Breach, Promise
from population.testing.runner import Case, Make, ScriptEvent, quiet
from population.testing.scripts import long_script, one_round, scripts, scripts_with_gap
from population.testing.shrink import shrink

BRANCHES = "branches now and then"
_NO_BRANCH = (
    "It never branched nor retired a slot, so little was tested. Let it decide every 3 "
    "steps or so, or pass branches=False if it never does."
)


def check_mutator(
    make_mutator: Callable[..., Mutator[Any]],
    population: Sequence[Any] | None = None,
    *,
    size: int = 4,
    seed: int = 0,
    branches: bool = True,
    script: Sequence[ScriptEvent] | None = None,
) -> None:
    """Send reports of every kind to a mutator, and check all of its promises.

    Let it decide often, such as every 3 steps or 5 seconds: workers train only about 24
    steps and a report takes a second, so that an interval of more than 10 steps is
    hardly tested.

    Args:
        make_mutator: Makes a new mutator for each restart. If it has a parameter, it
            gets a `mutate_fn` that changes the numbers in any meta_params.
        population: The first meta_params of each worker; by default nested ones.
        size: The number of workers, if no population is given.
        seed: The seed of the runs and of the reports.
        branches: Whether the mutator ever branches or retires slots; False, for
            example, for a grid.
        script: The only script to play, such as that of a `BrokenPromise`.

    Raises:
        TypeError: `make_mutator` is not a function, or does not make a mutator.
        BrokenPromise: The mutator breaks a promise; the error names it and has the
            smallest script that shows it.
        ValueError: The mutator refuses a population of this size, or `make_mutator`
            returns the same mutator twice.
    """
    make = _maker(make_mutator)
    if not isinstance(make(), Mutator):
        raise TypeError(f"make_mutator must make a population.Mutator, got {make()!r}.")
    if make() is make():
        raise ValueError(
            "make_mutator must make a new mutator at each call, got the same one "
            "twice: a restart begins with a new one."
        )
    metas = _nested(size) if population is None else list(population)
    kind = type(make()).__name__
    with quiet():
        opened = Case(make, metas, (), seed).plain
        if opened.refused and opened.error is not None:
            raise opened.error
        cases = _cases(make, metas, seed, script)
        for case_kind, some in cases.items():
            for case in some:
                for promise in PROMISES:
                    if promise.kind == case_kind:
                        _check(promise, case, kind)
        if branches and script is None:
            if not any(case.plain.decisions for case in cases["usual"]):
                raise BrokenPromise(kind, BRANCHES, _NO_BRANCH, (), metas, seed)


def _maker(make_mutator: Callable[..., Mutator[Any]]) -> Make:
    """`make_mutator` as a function without parameters."""
    if not callable(make_mutator):
        raise TypeError(
            "make_mutator must be a function that makes a mutator, got "
            f"{type(make_mutator).__name__}. Pass lambda: {make_mutator!r}."
        )
    signature = inspect.signature(make_mutator)
    for arguments in ((), (perturb,)):
        with contextlib.suppress(TypeError):
            signature.bind(*arguments)
            return functools.partial(make_mutator, *arguments)
    raise TypeError(
        "make_mutator must take no argument, or a mutate_fn, got a function of "
        f"{', '.join(signature.parameters)}."
    )


def _nested(size: int) -> list[Any]:
    return [
        {
            "optimizer": {"learning_rate": 0.1 / (1 + i), "betas": (0.9, 0.99)},
            "layers": [1, 2 + i],
            "name": "adam",
        }
        for i in range(size)
    ]


def _cases(
    make: Make, metas: Sequence[Any], seed: int, script: Sequence[ScriptEvent] | None
) -> dict[str, list[Case]]:
    """Return the cases of each kind of script."""
    if script is not None:
        only = [Case(make, metas, tuple(script), seed)]
        return {promise.kind: only for promise in PROMISES}
    size = len(metas)
    played = {
        "usual": scripts(size, seed),
        "gap": [s for w in {0, size - 1} for s in scripts_with_gap(size, w, seed)],
        "long": [long_script(size, seed)],
        "idle": [one_round(1)],
        "round": [one_round(10)],
    }
    cases = {
        kind: [Case(make, metas, events, seed) for events in some]
        for kind, some in played.items()
    }
    if size > 1 and not Case(make, metas[:1], (), seed).plain.refused:
        alone = scripts(1, seed)[::4]
        cases["usual"] += [Case(make, metas[:1], events, seed) for events in alone]
    return cases


def _check(promise: Promise, case: Case, kind: str) -> None:
    found = promise.find(case)
    if found is not None:
        script, found = _shortest(promise, case, found)
        raise BrokenPromise(
            kind, promise.sentence, found.seen, script, case.population, case.seed
        ) from found.error


def _shortest(
    promise: Promise, case: Case, found: Breach
) -> tuple[tuple[ScriptEvent, ...], Breach]:
    """Return the smallest script that still breaks the promise, and what it shows."""
    findings = {case.script: found}

    def breaks(script: tuple[ScriptEvent, ...]) -> bool:
        again = promise.find(dataclasses.replace(case, script=script))
        if again is not None:
            findings[script] = again
        return again is not None

    script = case.script[: found.position + 1]
    if script not in findings and not breaks(script):
        script = case.script
    shortest = shrink(script, breaks, lambda one, two: one.joined(two))
    return shortest, findings[shortest]
