"""Refuses to train a run with meta_params or spaces that it cannot go on with.

Values, ranges and priors may change whenever a run is opened. Another structure (a key
more or less, a longer tuple) would fail at the first decision or in the user's `init`:
it is refused when the run is opened. `fork(space=...)` is the way to go on.
"""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from population.base import codec
from population.base.errors import JournalError, RunMismatchError, damaged
from population.base.interfaces import Mutator
from population.core import facts
from population.core.decoding import decode
from population.journal.base import Journal
from population.journal.records import Generation
from population.journal.sqlite_file import JOURNAL_NAME
from population.space import from_data
from population.space.explore import explored_space, immovable
from population.space.structure import differences

_DOMAINS = "population.space."


def check_new(mutator: Mutator[Any], metas: Sequence[str]) -> None:
    """Refuse first meta_params that `mutate_fn` could not explore.

    Args:
        mutator: The policy.
        metas: The meta_params of each worker, encoded.

    Raises:
        ValueError: Naming the worker and the place.
    """
    explored = explored_space(getattr(mutator, "mutate_fn", None))
    for worker_id, text in enumerate(metas if explored is not None else ()):
        why = immovable(explored, codec.decode(text))
        if why is not None:
            raise ValueError(
                f"mutate_fn cannot explore initial_population[{worker_id}]: {why}. "
                "Give each worker all that the space of mutate_fn names, or leave that "
                "out of this space."
            )


def check_forked(mutator: Mutator[Any], journal: Journal, size: int) -> None:
    """Refuse the policy of a fork whose `mutate_fn` could not explore.

    Raises:
        ValueError: Naming the worker and the place.
    """
    for worker_id, why in _not_explored(mutator, journal, size):
        raise ValueError(
            f"mutate_fn cannot explore what worker {worker_id} has at this point of "
            f"the run: {why}. Pass fork(..., space=space) with the space of mutate_fn: "
            "what is missing is drawn from it."
        )


def check_resumed(
    journal: Journal,
    mutator: Mutator[Any],
    space: Any,
    metas: Sequence[str],
    log_dir: pathlib.Path | None,
) -> None:
    """Refuse to go on with a run under another structure.

    Args:
        journal: Holds the run.
        mutator: The policy.
        space: What the meta_params may be now, or None.
        metas: The `initial_population` of now, encoded; null where it says nothing.
        log_dir: The run folder, or None.

    Raises:
        RunMismatchError: Naming the places, and how to fork the run.
    """
    recorded = facts.texts_of(journal)
    size = len(metas)
    wrong = (
        _other_space(journal, recorded, space, size)
        or _other_explored(mutator, journal, size)
        or _other_population(journal, recorded, mutator, space, metas)
    )
    if wrong is not None:
        raise RunMismatchError(f"{wrong}{_instead(log_dir)}")


def recorded_space(recorded: Mapping[str, str]) -> Any:
    """The space of a run; None if there is none."""
    if "space" not in recorded:
        return None
    try:
        return from_data(decode(recorded["space"]))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise damaged(f"its space cannot be read: {error}") from error


def former_space(recorded: Mapping[str, str]) -> Any:
    """What named the meta_params of a run: its space, or else that of `mutate_fn`.

    Domains of the latter are None. None if neither is known.
    """
    space = recorded_space(recorded)
    if space is not None:
        return space
    settings = facts.read(recorded).get("settings", {})
    explored = settings.get("mutate_fn")
    return _names(explored.get("space")) if type(explored) is dict else None


def _other_space(
    journal: Journal, recorded: Mapping[str, str], space: Any, size: int
) -> str | None:
    """That a space has not the structure of the run's."""
    if space is None:
        return None
    before = recorded_space(recorded)
    if before is not None:
        found = differences(before, space)
        what = "whose space has another structure"
    else:
        metas = (decode(g.meta_params) for g in _present(journal, size))
        found = next(
            filter(None, (differences(m, space, partial=True) for m in metas)), []
        )
        what = "whose meta_params have another structure than the space"
    if not found:
        return None
    return (
        f"This log_dir holds a run {what}: {', '.join(found)}. Pass the space that it "
        "began with"
    )


def _other_explored(mutator: Mutator[Any], journal: Journal, size: int) -> str | None:
    """That `mutate_fn` would fail on what a slot has."""
    for worker_id, why in _not_explored(mutator, journal, size):
        return (
            f"mutate_fn cannot explore what worker {worker_id} of this run has: {why}. "
            "Give mutate_fn the space that the run began with"
        )
    return None


def _not_explored(
    mutator: Mutator[Any], journal: Journal, size: int
) -> Iterator[tuple[int, str]]:
    """The slots on whose present meta_params `mutate_fn` would fail, and why."""
    explored = explored_space(getattr(mutator, "mutate_fn", None))
    if explored is None:
        return
    for generation in _present(journal, size):
        meta_params = decode(generation.meta_params)
        why = immovable(explored, meta_params)
        if why is not None:
            found = differences(meta_params, explored, partial=True)
            yield generation.worker_id, ", ".join(found) or why


def _other_population(
    journal: Journal,
    recorded: Mapping[str, str],
    mutator: Mutator[Any],
    space: Any,
    metas: Sequence[str],
) -> str | None:
    """That an entry has a structure that no slot of the run has, or began with.

    None and an empty dict only stand for a worker. Where slots began with different
    structures, others may come. A list is as good as a tuple: files know no tuples.
    """
    given = [_listed(codec.decode(text)) for text in metas]
    if all(entry is None for entry in given):
        return None
    leaves = _listed(_leaves(recorded, mutator, space))
    firsts = [_listed(decode(first.meta_params)) for first in facts.begun(journal)]
    if any(differences(firsts[0], other, leaves) for other in firsts[1:]):
        return None
    pending = [w for w, entry in enumerate(given) if _is_like(firsts[w], entry)]
    present = (_listed(decode(g.meta_params)) for g in _present(journal, len(metas)))
    for known in itertools.chain(firsts, present):
        pending = [w for w in pending if differences(known, given[w], leaves)]
        if not pending:
            return None
    worker_id = pending[0]
    found = differences(firsts[worker_id], given[worker_id], leaves)
    return (
        f"initial_population[{worker_id}] has another structure than the meta_params "
        f"with which the run in this log_dir began: {', '.join(found)}. Pass what it "
        "began with, or None for each worker to go on with what is recorded"
    )


def _is_like(known: Any, entry: Any) -> bool:
    """Whether both are dicts with keys, or both a list."""
    return type(entry) is type(known) and type(entry) in (dict, list) and len(entry) > 0


def _listed(tree: Any) -> Any:
    """The tree with a list for each tuple."""
    if isinstance(tree, dict):
        return {key: _listed(inner) for key, inner in tree.items()}
    return [*map(_listed, tree)] if isinstance(tree, (list, tuple)) else tree


def _leaves(recorded: Mapping[str, str], mutator: Mutator[Any], space: Any) -> Any:
    """A space that says which trees are the values of one hyperparameter."""
    if space is not None:
        return space
    try:
        found = recorded_space(recorded)
    except JournalError:  # Only who asks for the space needs to know.
        found = None
    if found is not None:
        return found
    return explored_space(getattr(mutator, "mutate_fn", None))


def _present(journal: Journal, size: int) -> Iterator[Generation]:
    """What each slot trains."""
    for worker_id in range(size):
        found = journal.generations(worker_id=worker_id)
        if not found:
            raise damaged(f"it holds no generation of worker {worker_id}")
        yield found[0]


def _instead(log_dir: pathlib.Path | None) -> str:
    """What to do about another structure but to leave it."""
    if log_dir is None or not (log_dir / JOURNAL_NAME).exists():
        return ", or start a new run in another log_dir."
    return (
        ", or go on in a new folder, where what is new is drawn and what is missing is "
        f"dropped: population.fork({str(log_dir)!r}, {f'{log_dir}-forked'!r}, "
        "mutator=mutator, space=space)."
    )


def _names(described: Any) -> Any:
    """The structure of a space of which `settings` holds the description."""
    if type(described) is list:
        return [_names(inner) for inner in described]
    if type(described) is not dict:
        return None
    if str(described.get("class", "")).startswith(_DOMAINS):
        return None
    return {key: _names(inner) for key, inner in described.items()}
