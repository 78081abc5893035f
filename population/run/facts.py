"""The facts of a run: recorded when it is created, checked when it is opened."""

from __future__ import annotations

import dataclasses
import pathlib
import secrets
from collections.abc import Mapping
from typing import Any

from population.base import codec
from population.base.errors import RunMismatchError, damaged
from population.base.interfaces import Mutator
from population.core.retention import Keep
from population.run import mutator_settings
from population.run.arguments import Options
from population.run.mutator_settings import name_of
from population.run.warned import warn
from population.space import domains, to_data

_FILES = "population.params.files.FileParams"  # The default; its class loads JAX.
_OF_STORE = {"keep", "store", "given"}  # A fork has none of these until it is opened.
Facts = Mapping[str, Any]


def new_token() -> str:
    """Return a random token, which makes the generation ids of a run unique."""
    return secrets.token_hex(3)


def facts_of(options: Options, size: int, own: pathlib.Path | None) -> Facts:
    """Return the facts that a new run with these arguments would have.

    Args:
        options: The arguments of the controller.
        size: The number of slots.
        own: The folder of the run's own params store; None: it has none.
    """
    store, mutator = options.params, options.mutator
    found = {
        "run": new_token(),
        "size": size,
        "mode": options.mode,
        "seed": options.seed,
        "mutator": name_of(type(mutator)),
        "settings": mutator_settings.settings(mutator),
        "keep": _recorded(options.keep or Keep()),
        "store": _FILES if store is None else name_of(type(store)),
        "given": store is not None and getattr(store, "folder", None) != own,
    }
    if options.space is not None:
        found["space"] = to_data(options.space)
    return {key: codec.normalized(value, key) for key, value in found.items()}


def check(recorded: Facts, now: Facts) -> None:
    """Refuse to continue a run whose recorded facts differ from the arguments.

    Args:
        recorded: The facts of the run.
        now: The facts that a new run with these arguments would have.

    Raises:
        JournalError: A fact is missing.
        RunMismatchError: The size, mode, seed or class of the mutator differs.
    """
    may_lack = {"space", "given"} if "keep" in recorded else {"space", *_OF_STORE}
    missing = {*now} - {*recorded} - may_lack
    if missing:
        raise damaged(f"it does not say the run's {', '.join(sorted(missing))}")
    for key in ("size", "mode", "seed", "mutator"):
        if recorded[key] != now[key]:
            what = "workers" if key == "size" else key
            raise RunMismatchError(
                f"This log_dir holds a run with {what} {recorded[key]!r}, got "
                f"{now[key]!r}. Pass what the run began with, or start a new run in "
                "another log_dir."
            )


def unrecorded(recorded: Facts, now: Facts) -> Facts:
    """Return the facts that the run has not recorded yet."""
    known = {*recorded}
    if "keep" in recorded:
        known.add("given")  # Old journals lack it, and it cannot be found out later.
    return {key: value for key, value in now.items() if key not in known}


def warn_of_settings(recorded: Facts, now: Facts) -> None:
    """Warn if a run continues with other arguments of its mutator; name them."""
    changed = mutator_settings.changed(recorded["settings"], now["settings"])
    if changed:
        warn(f"The run goes on with other arguments of its mutator: {changed}.")


def warn_of_changes(recorded: Facts, now: Facts) -> None:
    """Warn if a run continues with another space or params store than before."""
    space = now.get("space", recorded.get("space"))
    if "space" in recorded and codec.digest(space) != codec.digest(recorded["space"]):
        warn(
            "The run goes on with another space; the one that it began with stays "
            "recorded."
        )
    before, is_given = recorded.get("store", now["store"]), now["given"]
    if now["store"] != before:
        warn(
            f"The run's params were saved by {before}, now they are read by "
            f"{now['store']}. Pass the same params= as before, else they will be "
            "missing."
        )
    elif recorded.get("given", is_given) != is_given:
        where = "in its folder" if is_given else "given (params=)"
        warn(
            f"The run's params were saved in a store that was {where}, and now they "
            "are looked for elsewhere. Pass the same params= as before, else they will "
            "be missing."
        )


def keep_of(recorded: Facts, keep: Keep | None) -> Keep:
    """Return the rules for the params that a run keeps.

    Args:
        recorded: The facts of the run.
        keep: The rules from now on; None: those with which the run began, so that a
            later script without `Keep(everything=True)` does not remove all.
    """
    try:
        known = Keep(**recorded["keep"])
    except (TypeError, ValueError) as error:
        raise damaged(f"what it keeps of the params is unknown: {error}") from error
    if keep is not None and keep != known:
        warn(f"The run goes on with {keep}; it began with {known}.")
    return keep or known


def warn_of_domains(space: Any, mutator: Mutator[Any]) -> None:
    """Warn if `mutate_fn`, such as a `Perturb`, has other domains than the space."""
    explored = getattr(getattr(mutator, "mutate_fn", None), "space", None)
    if space is None or explored is None:
        return
    known = domains(space)
    others = [n for n, domain in domains(explored).items() if known.get(n) != domain]
    if others:
        warn(
            f"mutate_fn explores {', '.join(others)} in another domain than the space "
            "of the run has there. Pass both the same space."
        )


def _recorded(keep: Keep) -> dict[str, Any]:
    """Return rules as they are recorded: as older versions do, where these suffice."""
    found = dataclasses.asdict(keep)
    if not keep.spare:
        del found["spare"]
    return found
