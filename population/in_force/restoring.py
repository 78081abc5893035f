"""How a training state comes back: what was saved, with what `init` puts in force.

One rule for every structure: a restored state is the saved tree, and the numbers of
each injected state in it are those that `init(meta_params)` has at the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from population.base.errors import MisfitError
from population.base.interfaces import CheckpointGraph
from population.base.types import Checkpoint, Saved
from population.in_force import injected
from population.in_force.injected import Number
from population.params import references, trees

Adapt = Callable[[Any, Any, Any], Any]
# What the user's own code may raise when it is given numbers that it did not expect.
USER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Restored(NamedTuple):
    """A training state to go on from.

    Attributes:
        state: The state.
        wanted: The numbers that `init` put in force.
        structure: That of the fresh state.
    """

    state: Any
    wanted: Sequence[Number]
    structure: Any


def restored(
    params: Any,
    meta_params: Any,
    init: Callable[[Any], Any],
    load: Callable[[Any, Any], Any],
    donor: Callable[[], Any],
    keep: Collection[str],
    adapt: Adapt | None,
) -> Restored:
    """The fresh state, or the saved one with the slot's hyperparameters in force.

    Args:
        params: What was handed out.
        meta_params: The slot's.
        init: Makes a fresh state.
        load: Reads saved params into a tree of the wanted structure.
        donor: Finds the meta_params under which the params were saved.
        keep: Names or places of injected numbers that stay as saved.
        adapt: Makes a state of a saved one that does not fit, the meta_params that it
            was saved under, and a fresh state.

    Raises:
        MisfitError: If the saved state is of another structure.
        ParamsError: If saved params are missing or damaged.
        ValueError: If the loop has saved the params itself, or `keep` names what is
            not there.
        TypeError: If `adapt` is no function.
    """
    if adapt is not None and not callable(adapt):
        raise TypeError(
            "adapt must be a function of a saved state, the donor's meta_params and a "
            f"fresh state, got {adapt!r}."
        )
    fresh = init(meta_params)
    wanted, structure = injected.numbers(fresh), jax.tree.structure(fresh)
    if adapt is None:  # Else another structure may have what this one has not.
        check_kept(keep, wanted)
    if params is None:
        return Restored(fresh, wanted, structure)
    if not isinstance(params, Saved):
        raise ValueError(
            "restore needs params that worker.report saved, got "
            f"{params!r}, which the loop saved itself. Load it from "
            "worker.load_from instead."
        )
    try:
        saved = load(params, fresh)
    except MisfitError as error:
        theirs = donor()
        saved = _as_donor_made_it(params, init, load, theirs)
        if adapt is None:
            cause = _cause(theirs, meta_params, fits_donor=saved is not None)
            raise MisfitError(f"{error} {cause}") from error
        if saved is None:
            saved = load(params, trees.AS_SAVED)
        saved = _fitted(adapt(saved, theirs, fresh), fresh)
    state = injected.carried(saved, wanted, lambda number: is_kept(number, keep))
    return Restored(state, wanted, structure)


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


def is_kept(number: Number, keep: Collection[str]) -> bool:
    """Whether `keep` names a number: in all optimisers, or by its place in one."""
    return number.name in keep or number.place in keep


def check_kept(keep: Collection[str], wanted: Sequence[Number]) -> None:
    """Refuse names of numbers that are not there.

    Raises:
        ValueError: Naming those that are.
    """
    known = sorted({number.name for number in wanted})
    places = [number.place for number in wanted]
    unknown = sorted({*keep} - {*known, *places})
    if unknown:
        raise ValueError(
            f"keep must name numbers of optax.inject_hyperparams, got {unknown}; the "
            f"state that init makes has {known}, in one optimiser alone "
            f"{places}."
        )


_ADAPT = (
    "worker.restore(init, adapt=f), where f(saved, donor_meta_params, fresh) returns "
    "the state to go on from, of the structure of fresh."
)


def _as_donor_made_it(
    params: Saved,
    init: Callable[[Any], Any],
    load: Callable[[Any, Any], Any],
    theirs: Any,
) -> Any:
    """The saved state in the structure that `init` makes of the donor's meta_params.

    None if `init` cannot make it: the program has changed since, or the space.
    """
    try:
        return load(params, init(theirs))
    except (MisfitError, *USER_ERRORS):
        return None


def _cause(theirs: Any, ours: Any, *, fits_donor: bool) -> str:
    """Why a saved state does not fit, and what to do about it."""
    if not fits_donor:
        return (
            f"It was saved under meta_params {theirs!r}, and does not fit what init "
            "makes of these either: have init begin with the structure, shapes and "
            f"dtypes that are reported. If the program has changed since: {_ADAPT}"
        )
    return (
        f"It was saved under meta_params {theirs!r}, and of {ours!r} init makes "
        f"something else. Hand over what fits both: {_ADAPT}"
    )


def _fitted(state: Any, fresh: Any) -> Any:
    """What `adapt` has returned, in the structure and dtypes of a fresh state."""
    try:
        fit = trees.fitted(trees.by_path(state), fresh, "that adapt has returned")
    except MisfitError as error:
        raise MisfitError(
            f"{error} adapt must return a state of the structure that init makes of "
            "the slot's meta_params, its third argument."
        ) from error
    return _unshared(fit)


def _unshared(state: Any) -> Any:
    """The state with a buffer of its own for each leaf: a step may donate them."""
    seen: set[int] = set()

    def own(_: Any, leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and id(leaf) in seen:
            return jnp.copy(leaf)
        seen.add(id(leaf))
        return leaf

    return references.mapped(own, state)


def donor_of(graph: CheckpointGraph, checkpoint: Checkpoint) -> Any:
    """The meta_params under which a checkpoint's params were saved.

    A generation's first checkpoint has those of its parent.
    """
    while checkpoint.parent is not None:
        if checkpoint.ref != graph.root(checkpoint.generation_id).ref:
            break
        checkpoint = graph.checkpoint(checkpoint.parent)
    return checkpoint.meta_params
