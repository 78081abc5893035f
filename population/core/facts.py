"""Reads and checks the facts of a run: size, mode, seed and more, fixed for ever."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from population.base.errors import damaged
from population.base.types import MODES
from population.core.decoding import decode
from population.journal.base import Journal
from population.journal.records import Fact, Generation

_TOKEN = re.compile(r"[0-9A-Za-z_]+")


def is_own(key: str) -> bool:
    """Whether the library itself records a fact under this key."""
    return key in _CHECKS or key == "space"


def texts_of(journal: Journal) -> dict[str, str]:
    """Return the facts of a run, encoded; empty for a new run."""
    return {fact.key: fact.value for fact in journal.all(Fact)}


def read(recorded: Mapping[str, str]) -> dict[str, Any]:
    """Decode the facts of a journal.

    Raises:
        JournalError: A fact has an invalid value.
    """
    found = {key: decode(text) for key, text in recorded.items()}
    for key, value in found.items():
        fits = _CHECKS.get(key)
        if fits is not None and not fits(value):
            raise damaged(f"its {key} is {repr(value)[:60]}")
    return found


def read_all(journal: Journal) -> dict[str, Any]:
    """Return the decoded facts of a run, after a check that it has all its slots.

    Raises:
        JournalError: A fact is missing or invalid, or a slot has no generation.
    """
    found = read(texts_of(journal))
    missing = {"size", "run", "mode", "seed"} - {*found}
    if missing:
        raise damaged(f"it does not say the run's {', '.join(sorted(missing))}")
    size = found["size"]
    fits = not journal.generations(worker_id=size)
    if not fits or not journal.generations(worker_id=size - 1):
        raise damaged(f"it does not hold the generations of {size} workers")
    return found


def begun(journal: Journal) -> list[Generation]:
    """Return the generation that each slot of a run began with, by worker id.

    In a fork into another space it is the one whose meta_params were made for that.

    Raises:
        JournalError: A generation is missing.
    """
    known = read_all(journal)
    size = known["size"]
    numbers = known.get("forked", {}).get("begun") or [0] * size
    ids = [f"{known['run']}-{worker_id}-{n}" for worker_id, n in enumerate(numbers)]
    found = [g for name in ids for g in journal.generations(id=name)]
    if len(found) != size:
        raise damaged("it does not hold the generations that its workers began with")
    return found


def lost(worker_ids: Any, size: int) -> list[int]:
    """Return the recorded lost slots, after a check.

    Raises:
        JournalError: `worker_ids` is not a list of ids of slots.
    """
    known = type(worker_ids) is list and all(
        type(w) is int and 0 <= w < size for w in worker_ids
    )
    if not known:
        raise damaged(f"its lost slots are {repr(worker_ids)[:60]}")
    return list(worker_ids)


def store_key(recorded: Mapping[str, str]) -> str | None:
    """Return the name of a run in its params store; None if it has none.

    A fork has another name than the run that it continues, although its generation ids
    have the same token: each run removes only its own saves.
    """
    found = read(recorded)
    if "forked" in found:
        token = found["forked"].get("token")
        return token if type(token) is str and _TOKEN.fullmatch(token) else None
    return found.get("run")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _is_origin(value: Any) -> bool:
    if type(value) is not dict or not _is_count(value.get("row")):
        return False
    begun = value.get("begun", [])
    return type(begun) is list and all(map(_is_count, begun))


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "run": lambda value: type(value) is str and bool(_TOKEN.fullmatch(value)),
    "size": lambda value: _is_count(value) and value > 0,
    "mode": lambda value: type(value) is str and value in MODES,
    "seed": lambda value: type(value) is int and value >= 0,
    "mutator": lambda value: type(value) is str,
    "settings": lambda value: type(value) is dict,
    "keep": lambda value: type(value) is dict,
    "store": lambda value: type(value) is str,
    "claimed": _is_count,
    "saved": lambda value: value is True,
    "held": lambda value: value is True,
    "given": lambda value: type(value) is bool,
    "forked": _is_origin,
}
