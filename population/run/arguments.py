"""Checks the arguments of a controller before anything is opened."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from population.base import codec
from population.base.interfaces import Mutator, ParamsStore
from population.base.types import MODES, Start, Stop
from population.core.retention import Keep
from population.journal.base import Journal
from population.run.events import OnEvent
from population.run.warned import warn
from population.space import grid, sample, stratified
from population.space.trees import check_space, combinations

DURABILITIES = ("process", "power")


@dataclasses.dataclass(frozen=True)
class Options:
    """The arguments of a controller for the time that it has a run open.

    Attributes: See the arguments of `PopulationController`.

    Raises:
        TypeError, ValueError: One is invalid; the message names it.
    """

    mutator: Mutator[Any]
    mode: str = "min"
    seed: int = 0
    stop: Stop | None = None
    params: ParamsStore | None = None
    journal: Journal | None = None
    space: Any = None
    keep: Keep | None = None
    worker_timeout: float | None = None
    max_failures: int | None = 3
    durability: str = "process"
    on_event: OnEvent | None = None
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        given: Mapping[str, Any] = vars(self)  # Callers may pass any type.
        for name, kind, advice in (
            ("mutator", Mutator, " population.mutators has some to begin with."),
            ("stop", Stop | None, ""),
            ("keep", Keep | None, " Keep(everything=True) removes nothing."),
            ("journal", Journal | None, ""),
        ):
            if not isinstance(given[name], kind):
                what = name.capitalize()
                raise TypeError(
                    f"{name} must be a population.{what}, got "
                    f"{type(given[name]).__name__}.{advice}"
                )
        for name, known in (("mode", MODES), ("durability", DURABILITIES)):
            if given[name] not in known:
                raise ValueError(f"{name} must be one of {known}, got {given[name]!r}.")
        if self.space is not None:
            check_space(self.space)
        codec.integer(self.seed, "seed")
        if self.max_failures is not None:
            codec.integer(self.max_failures, "max_failures", low=1)
        timeout = given["worker_timeout"]
        is_number = type(timeout) in (int, float)
        if timeout is not None and not (is_number and 0 < timeout < math.inf):
            raise ValueError(
                "worker_timeout must be a positive number of seconds, got "
                f"{timeout!r}. None waits for silent workers without limit."
            )
        for name, what in (("on_event", " of an Event"), ("clock", "")):
            if given[name] is not None and not callable(given[name]):
                raise TypeError(
                    f"{name} must be a function{what}, got "
                    f"{type(given[name]).__name__}."
                )
        methods = ("save", "load", "remove")
        store = given["params"]
        if store is not None and not all(hasattr(store, name) for name in methods):
            raise TypeError(
                "params must be a store, as population.params.FileParams(folder) is, "
                f"got {type(store).__name__}."
            )


def starts_of(population: object) -> list[Start]:
    """Return the start of each slot of an `initial_population`.

    Raises:
        TypeError: `population` is not a list or another iterable.
        ValueError: `population` is empty.
    """
    if isinstance(population, (str, Mapping)) or not isinstance(population, Iterable):
        raise TypeError(
            "initial_population must be a list with the meta_params of each worker, "
            f"got {type(population).__name__}. For one worker: [meta_params]."
        )
    starts = [e if isinstance(e, Start) else Start(e) for e in population]
    if not starts:
        raise ValueError(
            "initial_population must have at least one entry, got none. It holds the "
            "meta_params of each worker, in order."
        )
    return starts


def first_population(
    space: Any, size: Any, initial: str, seed: Any, points: Any = None
) -> list[Any]:
    """Draw the first meta_params of each slot from a space.

    Args:
        space: The space.
        size: The number of slots.
        initial: "stratified", "random" or "grid".
        seed: The seed of the run.
        points: With "grid", the number of values of each domain, or None.

    Raises:
        TypeError, ValueError: An argument is invalid; the message names it.
    """
    size = codec.integer(size, "size", low=1)
    check_space(space)
    if points is not None:
        if initial != "grid":
            raise ValueError(
                f'points= is for initial="grid", got initial={initial!r}. It is the '
                "number of values of each domain of the grid."
            )
        count = combinations(space, points)
        if count < size:
            warn(
                f"points={points} gives {count} different meta_params for {size} "
                f"members, so that some begin as copies. Pass size={count}, more "
                "points, or leave points out."
            )
    if initial == "grid":
        return grid(space, size, points)
    if initial not in ("random", "stratified"):
        raise ValueError(
            f"initial must be 'random', 'stratified' or 'grid', got {initial!r}."
        )
    # Decisions are numbered [seed, d]: no decision draws these numbers.
    rng = np.random.default_rng([codec.integer(seed, "seed"), 0, 1])
    if initial == "stratified":
        return stratified(space, size, rng)
    return [sample(space, rng) for _ in range(size)]
