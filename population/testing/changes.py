"""Compares new hyperparameters with those that they were made of."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from population.base import codec
from population.base.types import Branch
from population.testing.observed import Move, Observation, Observations

Path = tuple[str | int, ...]
_CLOSE = 1e-9
_LIST = "a list"  # Its items are not compared.


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
                    f"generation gets {_new(move)!r} only. Branch.meta_params is the "
                    "whole set, nested parts as well: copy it, then change what you "
                    "mean: {**donor.meta_params, 'name': value}.",
                )


def same_draws(found: Observations) -> Iterator[tuple[int, str]]:
    """All members that a run changes together are changed alike, whatever the numbers.

    Or each is, alone, by a generator that always begins with the same seed.
    """
    together = [seen for seen in found if len(_changed(seen, seen.moves)) > 1]
    if together and all(seen.redrawn and _are_of_one_draw(seen) for seen in together):
        yield from map(_described, together)
        return
    alone = [s for s in found if s.reseeded and _changed(s, s.moves)]
    changed = [move for seen in alone for move in _changed(seen, seen.moves)]
    if together or len(changed) < 2 or _kind_of_likeness(changed) is None:
        return
    if all(_depends_on_seeds(seen) for seen in alone):
        yield from map(_described, alone[1:])


def _described(seen: Observation) -> tuple[int, str]:
    workers = [move.worker_id for move in _changed(seen, seen.moves)]
    who = f"workers {workers}" if len(workers) > 1 else f"worker {workers[0]}"
    return (
        seen.position,
        f"{who} at step {seen.moves[0].own.step} got the same change of "
        "hyperparameters as all others, and so they do with other random numbers: one "
        "draw, or one seed, was used for all. Draw for each: call mutate_fn(..., "
        "rng=view.rng), or view.rng.uniform(), within the loop over the members.",
    )


def _depends_on_seeds(seen: Observation) -> bool:
    """Whether the mutator's own generators determine a decision."""
    old, new = ([_new(m) for m in moves] for moves in (seen.moves, seen.reseeded))
    return codec.digest(old) != codec.digest(new)


def are_alike(seen: Observation) -> bool:
    """Whether a decision changes several members, and all of them alike."""
    changed = _changed(seen, seen.moves)
    return len(changed) > 1 and _kind_of_likeness(changed) is not None


def _are_of_one_draw(seen: Observation) -> bool:
    """Whether other numbers change all alike as well, and differently from these."""
    changed = _changed(seen, seen.moves)
    kind, differs = _kind_of_likeness(changed), False
    for moves in seen.redrawn:
        others = _changed(seen, moves)
        if len(others) > 1:
            if kind is None or not _are_equal([_measure(m, kind) for m in others]):
                return False
            pair = [_measure(m, kind) for m in (changed[0], others[0])]
            differs |= not _are_equal(pair)
    return differs or _depends_on_seeds(seen)


def _changed(seen: Observation, moves: Sequence[Move]) -> list[Move]:
    """Return the branches to float hyperparameters that no slot had before."""
    return [
        move
        for move in moves
        if isinstance(move.decision, Branch)
        and codec.digest(_new(move)) not in seen.present
        and any(isinstance(v, float) for v in _leaves(_new(move)).values())
    ]


def _kind_of_likeness(changed: Sequence[Move]) -> int | None:
    """Return by which measure the changes are equal, or None."""
    for kind in range(5):
        if _are_equal([_measure(move, kind) for move in changed]):
            return kind
    return None


def _measure(move: Move, kind: int) -> list[float] | None:
    """Return the new numbers, or their ratios or distances to the old ones.

    Args:
        move: A branch.
        kind: 0: the numbers; 1, 2: relative to the donor's; 3, 4: to the slot's.
    """
    new = _numbers(_new(move))
    if not kind:
        return list(new.values())
    base = move.own if move.point is None or kind > 2 else move.point
    old = _numbers(base.meta_params)
    if old.keys() != new.keys():
        return None
    pairs = zip(new.values(), old.values(), strict=True)
    return [n / o if kind % 2 and o else n - o for n, o in pairs]


def _are_equal(measures: Sequence[list[float] | None]) -> bool:
    """Whether all are equal, up to rounding."""
    first = measures[0]
    for other in measures:
        if first is None or other is None or len(first) != len(other):
            return False
        for a, b in zip(first, other, strict=True):
            if not math.isclose(a, b, rel_tol=_CLOSE, abs_tol=_CLOSE):
                return False
    return True


def _missing(move: Move) -> list[str]:
    """Return the names of the hyperparameters that a branch loses.

    None of them if it replaces all, or exchanges some for others, as a schedule or an
    optional part of a search space does.
    """
    if not isinstance(move.decision, Branch):
        return []
    new, own = _named(_new(move)), _named(move.own.meta_params)
    donor = own if move.point is None else _named(move.point.meta_params)
    had = own.keys() & donor.keys()
    kept = had & new.keys()
    gone = {p for p in had if new.get(p) is None and own[p] is not None}
    if _new(move) not in (None, {}, [], ()):
        chosen = any(
            isinstance(new[p], (str, bool)) and new[p] not in (own[p], donor[p])
            for p in kept
        )
        if chosen or not kept or new.keys() - own.keys() - donor.keys():
            return []
    return sorted(repr("/".join(path)) for path in gone)


def _new(move: Move) -> Any:
    return move.decision.meta_params if isinstance(move.decision, Branch) else None


def _named(tree: Any) -> dict[tuple[str, ...], Any]:
    """Return what a tree's keys name, by path; a list is one value."""
    found: dict[tuple[str, ...], Any] = {}
    for path, value in _leaves(tree).items():
        keys = tuple(str(k) for k in itertools.takewhile(_is_key, path))
        if keys:
            found[keys] = value if len(keys) == len(path) else _LIST
    return found


def _is_key(part: str | int) -> bool:
    return isinstance(part, str)


def _leaves(tree: Any, path: Path = ()) -> dict[Path, Any]:
    """Return the leaves of a tree by path; one that is empty is a leaf itself."""
    inner: list[tuple[str | int, Any]] = []
    if isinstance(tree, Mapping):
        inner = [(str(k), v) for k, v in sorted(tree.items(), key=str)]
    elif isinstance(tree, (list, tuple)):
        inner = list(enumerate(tree))
    if not inner:
        return {path: tree}
    return {
        place: value
        for key, part in inner
        for place, value in _leaves(part, (*path, key)).items()
    }


def _numbers(tree: Any) -> dict[Path, float]:
    """Return the finite floats of a tree by path."""
    return {
        path: value
        for path, value in _leaves(tree).items()
        if isinstance(value, float) and math.isfinite(value)
    }
