"""Restores a training state: the saved one, with the hyperparameters of `init`.

There is one rule for every structure: a restored state is the saved tree, but each
injected number in it is the one that `init(meta_params)` has at the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from population.base.errors import MisfitError
from population.base.types import Saved
from population.in_force import injected
from population.in_force.injected import Number
from population.params import references, trees

Adapt = Callable[[Any, Any, Any], Any]
# Exceptions that a user's code may raise if it is called with unexpected numbers.
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
    """A training state from which to continue.

    Attributes:
        state: The state.
        wanted: The numbers that `init` put in force.
        structure: The structure of a fresh state.
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
    """Return a fresh state, or the saved one with the slot's hyperparameters in force.

    Args:
        params: The params of the slot's work.
        meta_params: The slot's meta_params.
        init: Makes a fresh state.
        load: Reads saved params into a tree of the wanted structure.
        donor: Finds the meta_params under which the params were saved.
        keep: Names or places of injected numbers that stay as saved.
        adapt: Called if the saved state does not fit, with that state, the meta_params
            under which it was saved, and a fresh state; returns the state to train.

    Raises:
        MisfitError: The saved state has another structure.
        ParamsError: The saved params are missing or damaged.
        ValueError: The loop has saved the params itself, or `keep` names a number that
            the state does not have.
        TypeError: `adapt` is not a function.
    """
    if adapt is not None and not callable(adapt):
        raise TypeError(
            "adapt must be a function of a saved state, the donor's meta_params and a "
            f"fresh state, got {adapt!r}."
        )
    fresh = init(meta_params)
    wanted, structure = injected.numbers(fresh), jax.tree.structure(fresh)
    if adapt is None:  # Else the saved structure may have numbers that this one lacks.
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
    """Return the names in `keep`, which may be a single one.

    Raises:
        TypeError: `keep` is neither a str nor a collection of them.
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
    """Whether `keep` has the name of a number, or its place in one optimiser."""
    return number.name in keep or number.place in keep


def check_kept(keep: Collection[str], wanted: Sequence[Number]) -> None:
    """Refuse names of numbers that a state does not have.

    Raises:
        ValueError: A name is unknown; the message lists the known ones.
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
    """Load the saved state in the structure of `init(donor's meta_params)`.

    None if it does not fit that either, or `init` fails: the program or the space may
    have changed since.
    """
    try:
        return load(params, init(theirs))
    except (MisfitError, *USER_ERRORS):
        return None


def _cause(theirs: Any, ours: Any, *, fits_donor: bool) -> str:
    """Describe why a saved state does not fit, and what to do."""
    if not fits_donor:
        return (
            f"It was saved under meta_params {theirs!r}, and does not fit what init "
            "makes of these either. Let init return the structure, shapes and dtypes "
            f"that the loop reports. If the program has changed since: {_ADAPT}"
        )
    return (
        f"It was saved under meta_params {theirs!r}, and of {ours!r} init makes "
        f"another structure. Convert the one into the other: {_ADAPT}"
    )


def _fitted(state: Any, fresh: Any) -> Any:
    """Return the state from `adapt`, converted to the dtypes of a fresh state."""
    try:
        fit = trees.fitted(trees.by_path(state), fresh, "that adapt has returned")
    except MisfitError as error:
        raise MisfitError(
            f"{error} adapt must return a state of the structure that init makes of "
            "the slot's meta_params, its third argument."
        ) from error
    return _unshared(fit)


def _unshared(state: Any) -> Any:
    """Return the state with its own buffer for each leaf, as a step may donate it."""
    seen: set[int] = set()

    def own(_: Any, leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and id(leaf) in seen:
            return jnp.copy(leaf)
        seen.add(id(leaf))
        return leaf

    return references.mapped(own, state)
