"""Checks a mutator against all of its promises."""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from population.base import codec
from population.base.interfaces import Mutator
from population.base.refusals import shortly
from population.testing.examination import Check
from population.testing.mistakes import KINDS
from population.testing.perturb import perturb
from population.testing.report import MutatorReport, MutatorWarning
from population.testing.runner import METRICS, Case, Make, ScriptEvent, quiet


def check_mutator(
    make_mutator: Callable[..., Mutator[Any]],
    population: Sequence[Any] | None = None,
    *,
    size: int = 4,
    seed: int = 0,
    branches: bool = True,
    script: Sequence[ScriptEvent] | None = None,
    allow: str | Collection[str] = (),
    bounded: int = 0,
    metrics: str | Collection[str] = METRICS,
) -> MutatorReport:
    """Send reports of every kind to a mutator, and check all of its promises.

    Let it decide often, such as every 3 steps or 5 seconds: workers train only about 24
    steps and a report takes a second, so that an interval of more than 10 steps is
    hardly tested. Meanwhile the clocks and random generators of the process are
    replaced at times: run nothing else in it.

    Args:
        make_mutator: Makes a new mutator for each restart. A parameter `mutate_fn`, or
            one without a default, gets one that changes all numbers in meta_params.
        population: The first meta_params of each worker; by default nested ones.
        size: The number of workers, if no population is given.
        seed: The seed of the runs and of the reports.
        branches: Whether the mutator ever branches or retires slots; False, for
            example, for a grid.
        script: The only script to play, such as that of a `BrokenPromise`.
        allow: Kinds of decisions that are likely mistakes, but meant by this policy:
            "worse donors", "best replaced", "older checkpoints", "slots not live",
            "lost hyperparameters", "same draw" or "places for ids".
        bounded: The most items that a window or a hall of fame in the state will hold,
            if it fills so slowly that it seems to grow; above 300 that is not tested.
        metrics: The names of the metrics of each report.

    Returns:
        The likely mistakes, of which a `MutatorWarning` tells, too; empty, and so
        false, if there are none.

    Raises:
        TypeError: `make_mutator` makes no mutator, or an argument has a wrong type.
        BrokenPromise: The mutator breaks a promise; the error names it and has the
            smallest script that shows it.
        ValueError: The mutator refuses a population of this size, `make_mutator`
            returns the same mutator twice, or an argument is out of its range.
    """
    make = _maker(make_mutator)
    _check_made(make)
    _check_bounded(bounded)
    allowed, metas = _allowed(allow), _population(population, size)
    names, seed = _names("metrics", metrics), codec.integer(seed, "seed")
    first = Case(make, metas, (), seed, names, bounded)
    with quiet():
        if first.plain.refused and first.plain.error is not None:
            raise first.plain.error
        report = Check(first, _script(script), allowed).run(branches=branches)
    if report:
        text = "\n".join(f"{type(make()).__name__}: {mistake}" for mistake in report)
        warnings.warn(text, MutatorWarning, stacklevel=2)
    return report


def _check_made(make: Make) -> None:
    """Refuse a function that does not make a new mutator at each call."""
    if not isinstance(make(), Mutator):
        raise TypeError(f"make_mutator must make a population.Mutator, got {make()!r}.")
    if make() is make():
        raise ValueError(
            "make_mutator must make a new mutator at each call, got the same one "
            "twice: a restart begins with a new one."
        )


def _allowed(allow: str | Collection[str]) -> frozenset[str]:
    """Return the kinds of mistakes that are allowed."""
    found = frozenset(_names("allow", allow))
    unknown = sorted(found - set(KINDS))
    if unknown:
        raise ValueError(
            f"allow must name kinds of mistakes, got {', '.join(map(repr, unknown))}. "
            f"There are {', '.join(map(repr, KINDS))}."
        )
    return found


def _names(argument: str, given: object) -> tuple[str, ...]:
    """Return the names that an argument has: one, or several.

    Raises:
        TypeError: They are no names.
    """
    found = tuple(given) if _is_listed(given) else (given,)
    names = tuple(name for name in found if isinstance(name, str))
    if names != found:
        raise TypeError(
            f"{argument} must be a name or a list of names, got {shortly(given)}."
        )
    return names


def _population(population: Any, size: Any) -> list[Any]:
    """Return the first meta_params of each worker.

    Raises:
        TypeError: `population` is not a list, or `size` no int.
        ValueError: There is no worker.
    """
    if population is None:
        return _nested(codec.integer(size, "size", low=1))
    if not _is_listed(population):
        raise TypeError(
            "population must be a list with the meta_params of each worker, got "
            f"{type(population).__name__} {shortly(population)}. For nested "
            "ones of size workers leave it out."
        )
    found = [*population]
    if not found:
        raise ValueError(
            "population must have the meta_params of at least one worker, got none. "
            "For nested ones of size workers leave it out."
        )
    return found


def _script(script: Any) -> list[ScriptEvent] | None:
    """Return the events of a script, or None.

    Raises:
        TypeError: It is not a list of events.
    """
    if script is None:
        return None
    events = [*script] if _is_listed(script) else [script]
    if not _is_listed(script) or not all(isinstance(e, ScriptEvent) for e in events):
        raise TypeError(
            "script must be a list of events, as the script of a BrokenPromise is, got "
            f"{shortly(script)}. Leave it out for reports of every kind."
        )
    return events


def _is_listed(given: object) -> TypeGuard[Iterable[Any]]:
    """Whether an argument is an iterable of entries, and neither a text nor a dict."""
    return isinstance(given, Iterable) and not isinstance(given, (str, Mapping))


def _check_bounded(bounded: object) -> None:
    if type(bounded) is not int or bounded < 0:
        raise ValueError(
            f"bounded must be an int of 0 or more, got {bounded!r}. It is the most "
            "items that a window in the state will hold."
        )


def _maker(make_mutator: Callable[..., Mutator[Any]]) -> Make:
    """`make_mutator` as a function without parameters."""
    if not callable(make_mutator):
        raise TypeError(
            "make_mutator must be a function that makes a mutator, got "
            f"{type(make_mutator).__name__}. Pass lambda: {make_mutator!r}."
        )
    signature = inspect.signature(make_mutator)
    if "mutate_fn" in signature.parameters:
        with contextlib.suppress(TypeError):
            signature.bind(mutate_fn=perturb)
            return functools.partial(make_mutator, mutate_fn=perturb)
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
            "weight_decay": 0.0,
            "layers": [1, 2 + i],
            "name": "adam",
            "nesterov": False,
        }
        for i in range(size)
    ]
