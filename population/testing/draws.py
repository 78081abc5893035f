"""Finds members that are changed alike, as one draw was used for all of them."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from population.base import codec
from population.base.types import Branch
from population.testing.observed import Move, Observation, Observations

Path = tuple[str | int, ...]
Plain = int | float | str | bool | None
Measure = Callable[[Move, Path], Plain]
_CLOSE = 1e-9


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
        # A few draws of an int or a text are often equal by chance.
        floats = _floats(changed[0])
        alike = sorted(floats.intersection(_alike(changed)), key=str)
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
    old, new = ([m.meta_params for m in moves] for moves in (seen.moves, seen.reseeded))
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
        if all(_is_alike(moves, path, measure) for moves in redrawn)
        and (
            (path in _floats(changed[0]) and _depends_on_seeds(seen))
            or any(
                not _are_equal([measure(m[0], path) for m in (changed, moves)])
                for moves in redrawn
            )
        )
    ]


def _is_alike(changed: Sequence[Move], path: Path, measure: Measure) -> bool:
    """Whether a hyperparameter is changed alike, in the copies of each donor at least.

    If no two copy the same one: in all.
    """
    donors = collections.defaultdict(list)
    for move in changed:
        donors[None if move.point is None else move.point.row].append(move)
    groups = [moves for moves in donors.values() if len(moves) > 1] or [[*changed]]
    return all(_are_equal([measure(m, path) for m in moves]) for moves in groups)


def _changed(seen: Observation, moves: Sequence[Move]) -> list[Move]:
    """Return the branches to hyperparameters that no slot had before."""
    return [
        move
        for move in moves
        if isinstance(move.decision, Branch)
        and codec.digest(move.meta_params) not in seen.present
    ]


def _alike(changed: Sequence[Move]) -> dict[Path, Measure]:
    """Return the hyperparameters that are changed alike, and by which measure."""
    return {
        path: measure
        for path in _plain(changed[0].meta_params)
        for measure in reversed(_MEASURES)
        if _is_alike(changed, path, measure)
        and not _are_equal([_value(changed[0], path), _donors(changed[0]).get(path)])
    }


def _floats(move: Move) -> set[Path]:
    new = _plain(move.meta_params)
    return {path for path, value in new.items() if isinstance(value, float)}


def _value(move: Move, path: Path) -> Plain:
    """Return a new value."""
    return _plain(move.meta_params).get(path)


def _ratio(move: Move, path: Path) -> Plain:
    """Return a new number relative to the donor's."""
    return _relative(_value(move, path), _donors(move).get(path))


def _distance(move: Move, path: Path) -> Plain:
    """Return how far a new number is from the donor's."""
    return _minus(_value(move, path), _donors(move).get(path))


def _own_ratio(move: Move, path: Path) -> Plain:
    """Return a new number relative to the slot's old one."""
    return _relative(_value(move, path), _plain(move.own.meta_params).get(path))


def _own_distance(move: Move, path: Path) -> Plain:
    """Return how far a new number is from the slot's old one."""
    return _minus(_value(move, path), _plain(move.own.meta_params).get(path))


_MEASURES: Sequence[Measure] = (_value, _ratio, _distance, _own_ratio, _own_distance)


def _donors(move: Move) -> dict[Path, Plain]:
    """Return the values of the checkpoint from which a slot continues."""
    base = move.own if move.point is None else move.point
    return _plain(base.meta_params)


def _relative(new: Plain, old: Plain) -> Plain:
    return new / old if _is_number(new) and _is_number(old) and old else None


def _minus(new: Plain, old: Plain) -> Plain:
    return new - old if _is_number(new) and _is_number(old) else None


def _is_number(value: Plain) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_equal(values: Sequence[Plain]) -> bool:
    """Whether all are known and equal, numbers up to rounding."""
    first = values[0]
    if first is None:
        return False
    if not _is_number(first):
        return all(type(other) is type(first) and other == first for other in values)
    return all(
        _is_number(other) and math.isclose(first, other, rel_tol=_CLOSE, abs_tol=_CLOSE)
        for other in values
    )


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


def _plain(tree: Any) -> dict[Path, Plain]:
    """Return the numbers, texts and bools of a tree by path."""
    return {
        path: value
        for path, value in _leaves(tree).items()
        if isinstance(value, (str, bool, int))
        or (isinstance(value, float) and math.isfinite(value))
    }
