"""What is fixed about a run: recorded when it is made, checked when it is opened."""

from __future__ import annotations

import inspect
import secrets
import warnings
from collections.abc import Iterable, Mapping, Sized
from typing import Any

from population import codec
from population.base import MODES, Mutator, Stop
from population.errors import RunMismatchError
from population.graph import decode


def new_token() -> str:
    """A random token that tells the generation ids of different runs apart."""
    return secrets.token_hex(3)


def facts(
    mutator: Mutator[Any], size: int, mode: str, seed: int, run: str
) -> dict[str, str]:
    """The facts of a new run, encoded for the journal."""
    found = {
        "run": run,
        "size": size,
        "mode": mode,
        "seed": seed,
        "mutator": name_of(type(mutator)),
        "settings": settings(mutator),
    }
    return {key: codec.encode(value) for key, value in found.items()}


def check(recorded: dict[str, str], now: dict[str, str]) -> None:
    """Refuse to go on with a run under other rules.

    Raises:
        RunMismatchError: If the size, mode, seed or the class of the mutator differ.
    """
    before = {key: decode(recorded.get(key, "")) for key in now}
    given = {key: codec.decode(text) for key, text in now.items()}
    for key, what in (
        ("size", "workers"),
        ("mode", "mode"),
        ("seed", "seed"),
        ("mutator", "mutator"),
    ):
        if before[key] != given[key]:
            raise RunMismatchError(
                f"This log_dir holds a run with {what} {before[key]!r}, got "
                f"{given[key]!r}. Pass what the run began with, or start a new run in "
                "another log_dir."
            )
    if before["settings"] != given["settings"]:
        warnings.warn(
            "The run goes on with other arguments of its mutator: it began with "
            f"{before['settings']}, now has {given['settings']}.",
            stacklevel=5,
        )


def check_arguments(
    population: object, mutator: object, mode: str, seed: object, stop: object
) -> None:
    """Refuse arguments of the controller that no run can have.

    Raises:
        TypeError: If one is not of the kind that is needed.
        ValueError: If the population is empty, or the mode or seed are unknown.
    """
    if isinstance(population, (str, Mapping)) or not isinstance(population, Iterable):
        raise TypeError(
            "initial_population must be a list with the meta_params of each worker, "
            f"got {type(population).__name__}. For one worker: [meta_params]."
        )
    if isinstance(population, Sized) and not len(population):
        raise ValueError(
            "initial_population must have at least one entry, got none. It holds the "
            "meta_params of each worker, in order."
        )
    if not isinstance(mutator, Mutator):
        raise TypeError(
            f"mutator must be a population.Mutator, got {type(mutator).__name__}. "
            "population.mutators has some to begin with."
        )
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, got {mode!r}.")
    if not isinstance(stop, Stop | None):
        raise TypeError(f"stop must be a population.Stop, got {type(stop).__name__}.")
    codec.integer(seed, "seed")


def settings(mutator: Mutator[Any]) -> dict[str, Any]:
    """A mutator's arguments as plain data; functions by their names."""
    return {
        key: _described(value)
        for key, value in vars(mutator).items()
        if not key.startswith("_")
    }


def name_of(kind: Any) -> str:
    """The full name of a class or function."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _described(value: Any) -> Any:
    if inspect.isroutine(value) or isinstance(value, type):
        return name_of(value)
    try:
        return codec.normalized(value, "setting")
    except (TypeError, ValueError):
        return name_of(type(value))
