"""Finds hyperparameters that a decision loses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from population.base.types import Branch
from population.testing.observed import Move, Observations


class _Items(NamedTuple):
    """A list or a tuple, whose items are not compared.

    Attributes:
        length: The number of items.
        is_tuple: Whether it is a tuple, which never becomes shorter.
    """

    length: int
    is_tuple: bool


def lost(found: Observations) -> Iterator[tuple[int, str]]:
    """A hyperparameter of the slot and of its donor is missing afterwards."""
    for seen in found:
        for move in seen.moves:
            missing = _missing(move)
            if missing:
                names = ", ".join(missing)
                donor = f"worker {move.donor}" if move.donor >= 0 else "fresh params"
                yield (
                    seen.position,
                    f"worker {move.worker_id} at step {move.own.step} was branched to "
                    f"{donor} without {names}: of {move.own.meta_params!r} the new "
                    f"generation gets {move.meta_params!r} only. Branch.meta_params is "
                    "the whole set, nested parts as well: copy it, then change what "
                    "you mean: {**donor.meta_params, 'name': value}.",
                )
    for position, worker_id, step, given, first in found.firsts:
        missing = _missing_of(first, given, given)
        if missing:
            yield (
                position,
                f"worker {worker_id} begins at step {step} without "
                f"{', '.join(missing)}: of {given!r} `first` returned {first!r} only. "
                "It returns the whole set, nested parts as well.",
            )


def _missing(move: Move) -> list[str]:
    """Return the names of the hyperparameters that a branch loses."""
    if not isinstance(move.decision, Branch):
        return []
    own = move.own.meta_params
    donor = own if move.point is None else move.point.meta_params
    return _missing_of(move.meta_params, own, donor)


def _missing_of(found: Any, owned: Any, donated: Any) -> list[str]:
    """Return the names that two sets of hyperparameters have, and a third lacks.

    None of them if it replaces all, or exchanges some for others, as a schedule or an
    optional part of a search space does.

    Args:
        found: The third one.
        owned: Those of the slot before.
        donated: Those of its donor.
    """
    new, own, donor = map(_named, (found, owned, donated))
    had = own.keys() & donor.keys()
    kept = had & new.keys()
    gone = {p for p in had if _is_lost(new.get(p), own[p], donor[p])}
    if found not in (None, {}, [], ()):
        chosen = any(
            isinstance(new[p], (str, bool)) and new[p] not in (own[p], donor[p])
            for p in kept
        )
        known = {sep.join(p) for p in (*own, *donor) for sep in "/._"}
        others = [p for p in new.keys() - own.keys() - donor.keys()]
        known |= {p[-1] for p in (*own, *donor) if len(p) > 1}  # Without the branch.
        exchanged = any("/".join(p) not in known for p in others)
        if chosen or exchanged or not (kept or others):
            return []
    return sorted(repr("/".join(path)) for path in gone)


def _is_lost(new: Any, own: Any, donor: Any) -> bool:
    """Whether a hyperparameter is missing or NaN, or a list or tuple lacks items."""
    if new is None or new != new:
        return own is not None and own == own
    if not isinstance(own, _Items) or not isinstance(donor, _Items):
        return False
    length = new.length if isinstance(new, _Items) else 1
    least = min(own.length, donor.length)
    return length < least and (own.is_tuple or not length)


def _named(tree: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Return what a tree's keys name, by path; a list or a tuple is one value."""
    if isinstance(tree, Mapping) and tree:
        return {
            place: value
            for key, part in tree.items()
            for place, value in _named(part, (*path, str(key))).items()
        }
    if isinstance(tree, (list, tuple)):
        tree = _Items(len(tree), type(tree) is tuple)
    return {path: tree} if path else {}
