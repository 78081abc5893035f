"""Checks of the state: can it be saved, does it train, are its buffers its own?"""

from __future__ import annotations

import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from population import params
from population.base import codec
from population.base.errors import ParamsError
from population.testing.loop import trees
from population.testing.loop.finding import DONATED, NAN, NOT_TRAINING, PARAMS, Finding
from population.testing.loop.trial import (
    RETURNED,
    DonatedError,
    Loop,
    Run,
    check_kept,
    refusing_donated,
)


def not_storable(state: Any) -> list[Finding]:
    """Findings for leaves that no params store accepts."""
    found = []
    for place, leaf in trees.by_place(state).items():
        try:
            params.check(leaf, plain=False)
        except TypeError:
            what = f"{type(leaf).__name__} {getattr(leaf, 'dtype', '')}".rstrip()
            message = (
                f"It is a {what}, which cannot be saved. Keep arrays, numbers and "
                "strings in the state, in containers that JAX knows; close over the "
                "rest."
            )
            found.append(Finding(PARAMS, f"state{place}", message))
    return found


def not_coming_back(loop: Loop, meta_params: Any, run: Run) -> list[Finding]:
    """Findings for leaves that differ after a save and a restore."""
    with tempfile.TemporaryDirectory() as folder:
        store = params.FileParams(folder)
        path = store.save("state", run.last)
        try:
            loaded = store.load(path, trees.copied(loop.init(meta_params)))
        except ParamsError as error:
            message = (
                "What step returns cannot be restored into what init makes. "
                f"{plain_text(error, folder)} Let step return the structure and shapes "
                "of init."
            )
            return [Finding(PARAMS, "step", message)]
    after = trees.by_place(loaded)
    return [
        Finding(
            PARAMS,
            f"state{place}",
            f"It was {change}. Let init make what step returns: the same dtypes.",
        )
        for place, leaf in trees.by_place(run.last).items()
        if (change := _change(leaf, after[place]))
    ]


def not_training(run: Run) -> list[Finding]:
    """Return a finding for a step that changes nothing."""
    if run.still() != run.states[0].keys():
        return []
    message = (
        "It leaves every leaf of the state as it was. Return the new state: what is "
        "only assigned within the step is lost."
    )
    return [Finding(NOT_TRAINING, "step", message)]


def not_numbers(run: Run) -> list[Finding]:
    """Return a finding for places that become NaN in the first steps."""
    for number, state in enumerate(run.states[1:], 1):
        places = [
            f"state{place}"
            for place, leaf in state.items()
            if _has_nan(leaf) and not _has_nan(run.states[0].get(place, 0.0))
        ]
        if places:
            message = (
                f"NaN after step {number}, in {len(places)} leaves of the state. "
                "Begin with a smaller learning rate, or look at the loss and the data."
            )
            return [Finding(NAN, places[0], message)]
    return []


def kept_buffers(loop: Loop, meta_params: Any) -> list[Finding]:
    """Return a finding if the step donates buffers that are still used."""
    try:
        _train_twice(loop, meta_params)
    except DonatedError as error:
        return [donated(error)]
    except jax.errors.UnexpectedTracerError:
        return []  # A tracer of an earlier check is still in use: unknown.
    return []


def donated(error: DonatedError) -> Finding:
    """Return the finding for an error about donated buffers."""
    advice = "Keep copies of what a step donates: jax.tree.map(jnp.copy, ...)."
    return Finding(DONATED, error.place, f"{error.seen} {advice}")


def plain_text(error: ParamsError, folder: str = "") -> str:
    """Return the text of a store's error, without the file of the check."""
    return str(error).replace(f"{folder}/", "").replace("The params ", "Params ")


def _train_twice(loop: Loop, meta_params: Any) -> None:
    """Train, call `init` again as after a branch, and train; nothing is copied."""
    for _ in range(2):
        with refusing_donated("init"):
            state = loop.init(meta_params)
        check_kept(state, "init", "It returns again what a step has donated:")
        shared = _shared(state)
        for number in range(2):
            try:
                with refusing_donated("step"):
                    state, _ = loop.step(state, meta_params, loop.key(number))
            except DonatedError as error:
                if number or not shared:
                    raise
                seen = (
                    f"It has one buffer in two places, and step donates both: {shared}."
                )
                raise DonatedError("init", seen) from error
            check_kept(state, "step", RETURNED)


def _shared(state: Any) -> str:
    """Two places with the same buffer, as text; "" if there are none."""
    seen: dict[int, str] = {}
    for place, leaf in trees.by_place(state).items():
        other = seen.setdefault(id(leaf), place)
        if other != place and isinstance(leaf, jax.Array):
            return f"state{other} and state{place}"
    return ""


def _change(before: Any, after: Any) -> str:
    """How a leaf differs after a save and a restore, as text; "" if it does not."""
    both = codec.is_array(before) and codec.is_array(after)
    if both and trees.kind(before) != trees.kind(after):
        return f"saved as {before.dtype} and comes back as {after.dtype}"
    one, two = trees.on_host(before), trees.on_host(after)
    if not one and not two:
        return "" if before == after else f"saved as {before!r}, came back as {after!r}"
    if not np.array_equal(one[""], two[""], equal_nan=_may_be_nan(one[""])):
        return "saved, and comes back with another value"
    return ""


def _may_be_nan(array: Any) -> bool:
    return bool(jnp.issubdtype(array.dtype, np.inexact))


def _has_nan(leaf: Any) -> bool:
    array = np.asarray(leaf)
    return _may_be_nan(array) and bool(np.isnan(array).any())
