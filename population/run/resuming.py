"""What is fixed about a run: recorded when it is made, checked when it is opened."""

from __future__ import annotations

import dataclasses
import math
import secrets
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any

import numpy as np

from population.base import codec
from population.base.errors import JournalError, RunMismatchError, damaged
from population.base.interfaces import Mutator
from population.base.types import MODES, Start, Stop
from population.core import facts as facts_module
from population.core.decoding import decode
from population.core.owners import owner_of
from population.core.retention import Keep
from population.core.state import RunState
from population.journal.records import Fact
from population.run import liveness, mutator_settings
from population.space import domains, grid, misfit, sample, to_data
from population.space.trees import check_space

DURABILITIES = ("process", "power")
_FILES = "population.params.files.FileParams"  # The default; its class loads JAX.
_OWN = "population."
_FOREIGN_S = 600.0  # After so long without a sign of life a host may be dead.


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
        "mutator": mutator_settings.name_of(type(mutator)),
        "settings": mutator_settings.settings(mutator),
    }
    return {key: codec.encode(value) for key, value in found.items()}


def check(recorded: dict[str, str], now: dict[str, str]) -> None:
    """Refuse to go on with a run under other rules.

    Raises:
        RunMismatchError: If the size, mode, seed or the class of the mutator differ.
    """
    known = facts_module.read(recorded)
    missing = {*now} - {*known}
    if missing:
        raise damaged(f"it does not say the run's {', '.join(sorted(missing))}")
    before = {key: known[key] for key in now}
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


def warn_of_settings(recorded: dict[str, str], now: dict[str, str]) -> None:
    """Say so if a run goes on with other arguments of its mutator, and with which."""
    before, given = (facts_module.read(found)["settings"] for found in (recorded, now))
    found = mutator_settings.changed(before, given)
    if found:
        _warn(f"The run goes on with other arguments of its mutator: {found}.")


def check_arguments(
    population: object,
    mutator: object,
    mode: str,
    seed: object,
    stop: object,
    space: object,
) -> None:
    """Refuse arguments of the controller that no run can have.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The population is empty, the space has no domain, the mode is
            unknown, or the seed is out of range.
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
    if space is not None:
        check_space(space)
    codec.integer(seed, "seed")


def check_faults(
    keep: object, worker_timeout: object, durability: object, on_event: object
) -> None:
    """Refuse arguments about faults that no run can have.

    Raises:
        TypeError, ValueError: An argument is invalid; the message names it.
    """
    if not isinstance(keep, Keep | None):
        raise TypeError(
            f"keep must be a population.Keep, got {type(keep).__name__}. "
            "Keep(everything=True) removes nothing."
        )
    if worker_timeout is not None:
        number = type(worker_timeout) in (int, float)
        if not number or not 0 < float(str(worker_timeout)) < math.inf:
            raise ValueError(
                "worker_timeout must be a positive number of seconds, got "
                f"{worker_timeout!r}. None waits for silent workers without limit."
            )
    if durability not in DURABILITIES:
        raise ValueError(
            f"durability must be one of {DURABILITIES}, got {durability!r}."
        )
    if on_event is not None and not callable(on_event):
        raise TypeError(
            f"on_event must be a function of an Event, got {type(on_event).__name__}."
        )


def check_host(state: RunState, now: float, timeout: float | None) -> None:
    """Refuse to share a run with a worker of another host that may be training.

    Raises:
        JournalError: Naming the host.
    """
    patience = max(_FOREIGN_S, 2 * (timeout or 0.0))
    for lease in state.leases.values():
        owner = owner_of(lease.owner) if lease.owner else None
        if owner is None or not liveness.is_foreign(owner):
            continue
        if min(abs(now - lease.renewed), abs(now - state.time)) < patience:
            raise JournalError(
                f"This run is in use on another host: {owner} holds worker "
                f"{lease.worker_id}. A SQLite journal serves the processes of one "
                "host; several hosts share a run through a PostgreSQL journal only. "
                f"If that worker is dead, open the run {patience:.0f} s after its last "
                "sign of life."
            )


def first_population(space: Any, size: Any, initial: str, seed: Any) -> list[Any]:
    """The first meta_params of each worker, drawn from a space.

    Raises:
        TypeError, ValueError: An argument is invalid; the message names it.
    """
    size = codec.integer(size, "size", low=1)
    check_space(space)
    if initial == "grid":
        return grid(space, size)
    if initial != "random":
        raise ValueError(f"initial must be 'random' or 'grid', got {initial!r}.")
    # Decisions are numbered [seed, d]: no decision draws these numbers.
    rng = np.random.default_rng([codec.integer(seed, "seed"), 0, 1])
    return [sample(space, rng) for _ in range(size)]


def check_within(space: Any, starts: Sequence[Start]) -> None:
    """Refuse first meta_params that are not of the space.

    Raises:
        ValueError: Naming the worker and the place.
    """
    if space is None:
        return
    for worker_id, start in enumerate(starts):
        wrong = misfit(space, codec.normalized(start.meta_params, "meta_params"))
        if wrong is not None:
            raise ValueError(
                f"initial_population[{worker_id}] is not of the space: {wrong}. Widen "
                "the space; the argument `start` of a domain keeps the first sample "
                "narrow."
            )


def check_explored(space: Any, mutator: Mutator[Any]) -> None:
    """Warn if `mutate_fn`, a `Perturb` say, moves in other domains than the run's."""
    explored = getattr(getattr(mutator, "mutate_fn", None), "space", None)
    if space is None or explored is None:
        return
    known = domains(space)
    others = [n for n, domain in domains(explored).items() if known.get(n) != domain]
    if others:
        _warn(
            f"mutate_fn explores {', '.join(others)} in another domain than the space "
            "of the run has there. Pass both the same space."
        )


def space_facts(recorded: Mapping[str, str], space: Any) -> list[Fact]:
    """What is to be recorded of a run's space; a warning if it goes on with another."""
    if space is None:
        return []
    text = codec.encode(to_data(space), "space")
    if "space" not in recorded:
        return [Fact("space", text)]
    if codec.digest(decode(recorded["space"])) != codec.digest(codec.decode(text)):
        _warn(
            "The run goes on with another space; the one that it began with stays "
            "recorded."
        )
    return []


def kept_params(
    recorded: Mapping[str, str],
    keep: Keep | None,
    store: object,
    is_given: bool,
) -> tuple[Keep, list[Fact]]:
    """What a run keeps of its params, and what is to be recorded of that.

    Args:
        recorded: The facts so far.
        keep: What is kept; None: as the run began. Else who goes on with it and forgets
            `Keep(everything=True)` would lose all.
        store: The store; None: the default one.
        is_given: Whether the store is elsewhere than in the run folder.
    """
    name = _FILES if store is None else mutator_settings.name_of(type(store))
    if "keep" not in recorded:
        kept = keep or Keep()
        facts = {"keep": dataclasses.asdict(kept), "store": name, "given": is_given}
        return kept, [Fact(key, codec.encode(value)) for key, value in facts.items()]
    known = facts_module.read(recorded)
    if "store" not in known:
        raise damaged("it does not say which store keeps the params")
    _warn_of_store(known, name, is_given)
    try:
        kept = Keep(**known["keep"])
    except (TypeError, ValueError) as error:
        raise damaged(f"what it keeps of the params is unknown: {error}") from error
    if keep is not None and keep != kept:
        _warn(f"The run goes on with {keep}; it began with {kept}.")
    return keep or kept, []


def _warn_of_store(known: Mapping[str, Any], name: str, is_given: bool) -> None:
    """Say so if the params are looked for elsewhere than where they were saved."""
    before = known["store"]
    if name != before:
        _warn(
            f"The run's params were saved by {before}, now they are read by {name}. "
            "Pass the same params= as before, else they will be missing."
        )
    elif known.get("given", is_given) != is_given:
        where = "in its folder" if is_given else "given (params=)"
        _warn(
            f"The run's params were saved in a store that was {where}, and now they "
            "are looked for elsewhere. Pass the same params= as before, else they will "
            "be missing."
        )


def _warn(text: str) -> None:
    """Warn at the line of the caller that has opened the run."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(_OWN):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)
