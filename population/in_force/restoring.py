"""How a training state comes back: what was saved, with what `init` puts in force.

One rule for every structure: a restored state is the saved tree, and the numbers of
each injected state in it are those that `init(meta_params)` has at the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from population import codec
from population.base import Checkpoint, Saved
from population.errors import MisfitError
from population.graph import CheckpointGraph
from population.in_force import injected
from population.in_force.injected import Number
from population.params import trees

Adapt = Callable[[Any, Any, Any], Any]


class Restored(NamedTuple):
    """A training state to go on from.

    Attributes:
        state: The state.
        wanted: The numbers that `init` put in force.
    """

    state: Any
    wanted: Sequence[Number]


def restored(
    params: Any,
    meta_params: Any,
    init: Callable[[Any], Any],
    load: Callable[[Any, Any], Any],
    donor: Callable[[], Checkpoint],
    keep: Collection[str],
    adapt: Adapt | None,
) -> Restored:
    """The fresh state, or the saved one with the slot's hyperparameters in force.

    Args:
        params: What was handed out.
        meta_params: The slot's.
        init: Makes a fresh state.
        load: Reads saved params into a tree of the wanted structure.
        donor: Finds the checkpoint for which the params were saved.
        keep: Names of injected numbers that stay as saved.
        adapt: Makes a state of a saved one that does not fit, the meta_params that it
            was saved under, and a fresh state.

    Raises:
        MisfitError: If the saved state is of another structure.
        ParamsError: If saved params are missing or damaged.
        ValueError: If the loop has saved the params itself, or `keep` names what is
            not there.
    """
    fresh = init(meta_params)
    wanted = injected.numbers(fresh)
    check_kept(keep, wanted)
    if params is None:
        return Restored(fresh, wanted)
    if not isinstance(params, Saved):
        raise ValueError(
            "restore needs params that worker.report saved, got "
            f"{params!r}, which the loop saved itself. Load it from "
            "worker.load_from instead."
        )
    try:
        saved = load(params, fresh)
    except MisfitError as error:
        theirs = donor().meta_params
        if adapt is None:
            raise MisfitError(_unfit(error, theirs, meta_params)) from error
        saved = _adapted(params, init, load, theirs, fresh, adapt)
    state = injected.carried(saved, wanted, lambda number: number.name in keep)
    return Restored(state, wanted)


def names_of(keep: object) -> frozenset[str]:
    """What `keep` names: one number, or several.

    Raises:
        TypeError: If it is neither a text nor some.
    """
    if isinstance(keep, str):
        return frozenset({keep})
    if isinstance(keep, Collection) and all(isinstance(name, str) for name in keep):
        return frozenset(keep)
    raise TypeError(
        "keep must be the name of an injected number, or several: "
        f"keep='learning_rate', got {keep!r}."
    )


def check_kept(keep: Collection[str], wanted: Sequence[Number]) -> None:
    """Refuse names of numbers that are not there.

    Raises:
        ValueError: Naming those that are.
    """
    known = sorted({number.name for number in wanted})
    unknown = sorted(set(keep) - set(known))
    if unknown:
        raise ValueError(
            f"keep must name numbers of optax.inject_hyperparams, got {unknown}; the "
            f"state that init makes has {known}."
        )


def _unfit(error: MisfitError, theirs: Any, ours: Any) -> str:
    """What to do about a saved state of another structure."""
    if codec.digest(theirs) == codec.digest(ours):
        why = (
            "It was saved under these very meta_params, of which init must make the "
            "same structure each time. If the program makes another one now, hand over "
            "what still fits"
        )
    else:
        why = (
            f"It was saved under meta_params {theirs!r}, and of {ours!r} init makes "
            "another structure. Hand over what fits both"
        )
    return (
        f"{error} {why}: worker.restore(init, adapt=f), where f(saved, "
        "donor_meta_params, fresh) returns the state to go on from, of the structure "
        "of fresh."
    )


def _adapted(
    params: Saved,
    init: Callable[[Any], Any],
    load: Callable[[Any, Any], Any],
    theirs: Any,
    fresh: Any,
    adapt: Adapt,
) -> Any:
    """What `adapt` makes of a saved state that does not fit."""
    try:
        saved = load(params, init(theirs))
    except MisfitError:  # The program has changed since.
        saved = load(params, None)
    state = adapt(saved, theirs, fresh)
    try:
        return trees.fitted(trees.by_path(state), fresh, "that adapt has returned")
    except MisfitError as error:
        raise MisfitError(
            f"{error} adapt must return a state of the structure that init makes of "
            "the slot's meta_params, its third argument."
        ) from error


def donor_of(graph: CheckpointGraph, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint for which a checkpoint's params were saved.

    A generation's first checkpoint has those of its parent.
    """
    while checkpoint.parent is not None:
        if checkpoint.ref != graph.root(checkpoint.generation_id).ref:
            break
        checkpoint = graph.checkpoint(checkpoint.parent)
    return checkpoint
