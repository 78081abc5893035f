"""Refuses to open a run with meta_params or a space of another structure.

Values, ranges and priors may change whenever a run is opened. Another structure (a key
more or less, a longer tuple) would fail at the first decision or in the user's `init`:
so the opening refuses it. `fork(space=...)` makes a run that continues with it.
"""

from __future__ import annotations

import contextlib
import itertools
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from population.base.errors import JournalError, RunMismatchError, damaged
from population.base.interfaces import Mutator
from population.core import facts
from population.core.decoding import decode
from population.core.state import RunState
from population.journal.base import Journal
from population.journal.records import Generation
from population.journal.sqlite_file import JOURNAL_NAME
from population.run.arguments import Options
from population.space import from_data
from population.space.explore import explored_space, immovable
from population.space.structure import differences
from population.space.trees import misfit

_DOMAINS = "population.space."


def check_new(
    mutator: Mutator[Any], space: Any, metas: Sequence[Any], made: Collection[int]
) -> None:
    """Refuse first meta_params outside the space, or that `mutate_fn` cannot explore.

    Args:
        mutator: The policy.
        space: The space of valid meta_params, or None.
        metas: The meta_params of each worker.
        made: The workers whose meta_params are of the policy, from its `first`.

    Raises:
        ValueError: The meta_params of a worker do not fit; the message names the place.
    """
    for worker_id, meta_params in enumerate(metas if space is not None else ()):
        wrong = misfit(space, meta_params)
        if wrong is not None:
            raise ValueError(
                f"{_source(mutator, worker_id, made)} is not of the space: {wrong}. "
                "Widen the space; the argument `start` of a domain keeps the first "
                "sample narrow."
            )
    for worker_id, why, _ in _not_explored(mutator, metas):
        raise ValueError(
            f"mutate_fn cannot explore {_source(mutator, worker_id, made)}: {why}. "
            "Give each worker all that the space of mutate_fn names, or leave that "
            "out of this space."
        )


def _source(mutator: Mutator[Any], worker_id: int, made: Collection[int]) -> str:
    """Return where the first meta_params of a worker come from."""
    if worker_id in made:
        return f"what {type(mutator).__name__}.first gives worker {worker_id}"
    return f"initial_population[{worker_id}]"


def check_forked(mutator: Mutator[Any], state: RunState) -> None:
    """Refuse the policy of a fork if its `mutate_fn` cannot explore the meta_params.

    Raises:
        ValueError: It cannot explore those of a worker; the message names the place.
    """
    for worker_id, _, why in _not_explored(mutator, _present(state)):
        raise ValueError(
            f"mutate_fn cannot explore what worker {worker_id} has at this point of "
            f"the run: {why}. Pass fork(..., space=space) with the space of mutate_fn: "
            "what is missing is drawn from it."
        )


def check_resumed(
    journal: Journal,
    state: RunState,
    recorded: Mapping[str, Any],
    options: Options,
    metas: Sequence[Any],
    log_dir: pathlib.Path | None,
) -> None:
    """Refuse to continue a run with another structure of meta_params.

    Args:
        journal: The journal of the run.
        state: The state of the run.
        recorded: The facts of the run.
        options: The arguments of the controller.
        metas: The present `initial_population`; an entry may be None.
        log_dir: The run folder, or None.

    Raises:
        RunMismatchError: The structures differ; the message names the places, and how
            to fork the run.
    """
    present = _present(state)
    for wrong in itertools.chain(
        _other_space(recorded, options.space, present),
        _other_explored(options.mutator, present),
        _other_population(journal, recorded, options, metas, present),
    ):
        raise RunMismatchError(f"{wrong}{_instead(log_dir)}")


def recorded_space(recorded: Mapping[str, Any]) -> Any:
    """Return the space of a run with these facts; None if it has no space."""
    if "space" not in recorded:
        return None
    try:
        return from_data(recorded["space"])
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise damaged(f"its space cannot be read: {error}") from error


def former_space(recorded: Mapping[str, Any]) -> Any:
    """Return the recorded space of a run, or else the space of its `mutate_fn`.

    The latter has None in the place of each domain. None if neither is recorded.
    """
    space = recorded_space(recorded)
    if space is not None:
        return space
    explored = recorded.get("settings", {}).get("mutate_fn")
    return _names(explored.get("space")) if type(explored) is dict else None


def _other_space(
    recorded: Mapping[str, Any], space: Any, present: Sequence[Any]
) -> Iterator[str]:
    """Yield an error message if a space has another structure than the run's."""
    if space is None:
        return
    before = recorded_space(recorded)
    if before is not None:
        found = differences(before, space)
        what = "whose space has another structure"
    else:
        others = (differences(known, space, partial=True) for known in present)
        found = next(filter(None, others), [])
        what = "whose meta_params have another structure than the space"
    if found:
        yield (
            f"This log_dir holds a run {what}: {', '.join(found)}. Pass the space that "
            "it began with"
        )


def _other_explored(mutator: Mutator[Any], present: Sequence[Any]) -> Iterator[str]:
    """Yield an error message for each slot on which `mutate_fn` would fail."""
    for worker_id, _, why in _not_explored(mutator, present):
        yield (
            f"mutate_fn cannot explore what worker {worker_id} of this run has: {why}. "
            "Give mutate_fn the space that the run began with"
        )


def _not_explored(
    mutator: Mutator[Any], metas: Sequence[Any]
) -> Iterator[tuple[int, str, str]]:
    """Find the slots on whose meta_params `mutate_fn` would fail.

    Yields:
        The slot, the error of `mutate_fn`, and how the structures differ, if they do.
    """
    explored = _explored(mutator)
    for worker_id, meta_params in enumerate(metas if explored is not None else ()):
        why = immovable(explored, meta_params)
        if why is not None:
            found = differences(meta_params, explored, partial=True)
            yield worker_id, why, ", ".join(found) or why


def _explored(mutator: Mutator[Any]) -> Any:
    """Return the space in which a policy explores, or None."""
    return explored_space(getattr(mutator, "mutate_fn", None))


def _other_population(
    journal: Journal,
    recorded: Mapping[str, Any],
    options: Options,
    metas: Sequence[Any],
    present: Sequence[Any],
) -> Iterator[str]:
    """Yield a message for each entry with a structure that no slot has or had first.

    None and an empty dict are placeholders and always fit, and so does an entry for
    which the mutator's `first` returns what the slot began with. If the slots began
    with different structures, any is accepted. A list equals a tuple: files have none.
    """
    if all(entry is None for entry in metas):
        return
    given, leaves = _listed(metas), _listed(_leaves(recorded, options))
    begun = facts.begun(journal)
    firsts = [_listed(decode(first.meta_params)) for first in begun]
    if any(differences(firsts[0], other, leaves) for other in firsts[1:]):
        return
    pending = [w for w, entry in enumerate(given) if _is_like(firsts[w], entry)]
    for known in (*firsts, *_listed(present)):
        pending = [w for w in pending if differences(known, given[w], leaves)]
    made = {w: _listed(_first(options, begun[w], metas[w])) for w in pending}
    for known in (*firsts, *_listed(present)):
        pending = [w for w in pending if differences(known, made[w], leaves)]
    for worker_id in pending:
        found = differences(firsts[worker_id], given[worker_id], leaves)
        yield (
            f"initial_population[{worker_id}] has another structure than the "
            "meta_params with which the run in this log_dir began: "
            f"{', '.join(found)}. Pass what it began with, or None for each worker to "
            "go on with what is recorded"
        )


def _first(options: Options, begun: Generation, meta_params: Any) -> Any:
    """Return what the run would make of an entry of its first population.

    The entry may be of another run, so that the mutator's `first` cannot read it.
    """
    try:
        return options.mutator.first(begun.worker_id, begun.step, meta_params)
    except (TypeError, ValueError, LookupError, AttributeError):
        return meta_params


def _is_like(known: Any, entry: Any) -> bool:
    """Whether both are dicts with keys, or both a list."""
    return type(entry) is type(known) and type(entry) in (dict, list) and len(entry) > 0


def _listed(tree: Any) -> Any:
    """Return the tree with a list for each tuple."""
    if isinstance(tree, dict):
        return {key: _listed(inner) for key, inner in tree.items()}
    return [*map(_listed, tree)] if isinstance(tree, (list, tuple)) else tree


def _leaves(recorded: Mapping[str, Any], options: Options) -> Any:
    """Return the space that shows which subtrees are one hyperparameter's value."""
    found = options.space
    if found is None:
        with contextlib.suppress(JournalError):  # Its other readers raise this.
            found = recorded_space(recorded)
    return _explored(options.mutator) if found is None else found


def _present(state: RunState) -> list[Any]:
    """Return the present meta_params of each slot."""
    return [slot.meta_params for slot in state.slots]


def _instead(log_dir: pathlib.Path | None) -> str:
    """Return the end of an error message: the alternatives to the old structure."""
    if log_dir is None or not (log_dir / JOURNAL_NAME).exists():
        return ", or start a new run in another log_dir."
    return (
        ", or go on in a new folder, where what is new is drawn and what is missing is "
        f"dropped: population.fork({str(log_dir)!r}, {f'{log_dir}-forked'!r}, "
        "mutator=mutator, space=space)."
    )


def _names(described: Any) -> Any:
    """Return the structure of a space from its description in `settings`."""
    if type(described) is list:
        return [_names(inner) for inner in described]
    if type(described) is not dict:
        return None
    if str(described.get("class", "")).startswith(_DOMAINS):
        return None
    return {key: _names(inner) for key, inner in described.items()}
