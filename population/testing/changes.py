"""Compares new hyperparameters with those that they were made of."""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from population.base import codec
from population.base.types import Branch
from population.testing.observed import Move, Observation, Observations

Path = tuple[str | int, ...]
Measure = Callable[[Move, Path], float | None]
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
    """A hyperparameter of all members that a decision changes is changed alike.

    Whatever the random numbers are, in half of the decisions at least: in the others a
    limit may have kept one member's apart. Or each member is changed alone, by a
    generator that always begins with the same seed.
    """
    together = [seen for seen in found if len(_changed(seen, seen.moves)) > 1]
    of_one = [(seen, _of_one_draw(seen)) for seen in together]
    if together:
        counts = collections.Counter(path for _, paths in of_one for path in paths)
        often = {path for path, n in counts.items() if 2 * n >= len(together)}
        for seen, paths in of_one:
            if often & set(paths):
                yield _described(seen, sorted(often & set(paths), key=str))
        return
    alone = [s for s in found if s.reseeded and _changed(s, s.moves)]
    changed = [move for seen in alone for move in _changed(seen, seen.moves)]
    if len(changed) > 1 and all(_depends_on_seeds(seen) for seen in alone):
        alike = sorted(_alike(changed), key=str)
        if alike:
            yield from (_described(seen, alike) for seen in alone[1:])


def _described(seen: Observation, paths: Sequence[Path]) -> tuple[int, str]:
    workers = [move.worker_id for move in _changed(seen, seen.moves)]
    who = f"workers {workers}" if len(workers) > 1 else f"worker {workers[0]}"
    names = ", ".join(repr("/".join(map(str, path))) for path in paths[:3])
    return (
        seen.position,
        f"{who} at step {seen.moves[0].own.step} got the same change of {names} as all "
        "others, and so they do with other random numbers: one draw, or one seed, was "
        "used for all. Draw for each: call mutate_fn(..., rng=view.rng), or "
        "view.rng.uniform(), within the loop over the members.",
    )


def _depends_on_seeds(seen: Observation) -> bool:
    """Whether the mutator's own generators determine a decision."""
    old, new = ([_new(m) for m in moves] for moves in (seen.moves, seen.reseeded))
    return codec.digest(old) != codec.digest(new)


def are_alike(seen: Observation) -> bool:
    """Whether a decision changes a hyperparameter of several members, and alike."""
    changed = _changed(seen, seen.moves)
    return len(changed) > 1 and bool(_alike(changed))


def _of_one_draw(seen: Observation) -> list[Path]:
    """Return what other numbers change alike as well, and differently from these."""
    changed = _changed(seen, seen.moves)
    redrawn = [_changed(seen, moves) for moves in seen.redrawn]
    redrawn = [moves for moves in redrawn if len(moves) > 1]
    if not redrawn:
        return []
    return [
        path
        for path, measure in _alike(changed).items()
        if all(_are_equal([measure(m, path) for m in moves]) for moves in redrawn)
        and (
            _depends_on_seeds(seen)
            or any(
                not _are_equal([measure(m[0], path) for m in (changed, moves)])
                for moves in redrawn
            )
        )
    ]


def _changed(seen: Observation, moves: Sequence[Move]) -> list[Move]:
    """Return the branches to float hyperparameters that no slot had before."""
    return [
        move
        for move in moves
        if isinstance(move.decision, Branch)
        and codec.digest(_new(move)) not in seen.present
        and any(isinstance(v, float) for v in _leaves(_new(move)).values())
    ]


def _alike(changed: Sequence[Move]) -> dict[Path, Measure]:
    """Return the hyperparameters that are changed alike, and by which measure."""
    return {
        path: measure
        for path in _numbers(_new(changed[0]))
        for measure in reversed(_MEASURES)
        if _are_equal([measure(move, path) for move in changed])
        and not _are_equal([_value(changed[0], path), _donors(changed[0]).get(path)])
    }


def _value(move: Move, path: Path) -> float | None:
    """Return a new number."""
    return _numbers(_new(move)).get(path)


def _ratio(move: Move, path: Path) -> float | None:
    """Return a new number relative to the donor's."""
    return _relative(_value(move, path), _donors(move).get(path))


def _distance(move: Move, path: Path) -> float | None:
    """Return how far a new number is from the donor's."""
    return _minus(_value(move, path), _donors(move).get(path))


def _own_ratio(move: Move, path: Path) -> float | None:
    """Return a new number relative to the slot's old one."""
    return _relative(_value(move, path), _numbers(move.own.meta_params).get(path))


def _own_distance(move: Move, path: Path) -> float | None:
    """Return how far a new number is from the slot's old one."""
    return _minus(_value(move, path), _numbers(move.own.meta_params).get(path))


_MEASURES: Sequence[Measure] = (_value, _ratio, _distance, _own_ratio, _own_distance)


def _donors(move: Move) -> dict[Path, float]:
    """Return the numbers of the checkpoint from which a slot continues."""
    base = move.own if move.point is None else move.point
    return _numbers(base.meta_params)


def _relative(new: float | None, old: float | None) -> float | None:
    return None if new is None or not old else new / old


def _minus(new: float | None, old: float | None) -> float | None:
    return None if new is None or old is None else new - old


def _are_equal(measures: Sequence[float | None]) -> bool:
    """Whether all are known and equal, up to rounding."""
    first = measures[0]
    return all(
        first is not None
        and other is not None
        and math.isclose(first, other, rel_tol=_CLOSE, abs_tol=_CLOSE)
        for other in measures
    )


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
