"""Finds meta_params that are not in force; the warnings are the same in every engine.

Only `init` knows which numbers should be in force. But an injected number that has the
name of one in meta_params, differs from it and does not change with it was forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from population.base.log_once import Notice
from population.in_force import injected
from population.in_force.injected import Number
from population.in_force.numeric import is_cast, is_number, is_real

NOT_IN_FORCE = "not in force"
ROUNDED = "rounded"
_LARGEST_ERROR = 1e-3  # Relative.
_LARGEST_ERROR_FROM_ONE = 1e-2  # Relative to 1 - x, for a decay like 0.999.
_RESOLUTION = 1e-6  # Relative; float32 is not more precise.


class Assigned(NamedTuple):
    """A number of meta_params.

    Attributes:
        key: Its place: "learning_rate", "optimizer.betas[0]".
        name: The last key of that; "" for an entry of a list or tuple.
        value: The number.
    """

    key: str
    name: str
    value: float


def assigned(meta_params: Any, key: str = "", name: str = "") -> Iterator[Assigned]:
    """Yield the numbers of meta_params that have names."""
    if isinstance(meta_params, Mapping):
        for inner, value in meta_params.items():
            yield from assigned(value, f"{key}.{inner}" if key else str(inner), inner)
    elif isinstance(meta_params, (list, tuple)):
        for place, value in enumerate(meta_params):
            yield from assigned(value, f"{key}[{place}]", "")
    elif isinstance(name, str) and name and is_number(meta_params):
        yield Assigned(key, name, meta_params)


def changed(who: str, meta_params: Any, number: Number, now: Any) -> Iterator[Notice]:
    """Yield a notice if the loop has replaced a number that `restore` put in force.

    None if it now equals the number assigned under its name, perhaps rounded to a
    narrower dtype.
    """
    before, after = np.ravel(number.leaf), np.ravel(now)
    if before.shape != after.shape or np.array_equal(before, after):
        return
    if not (is_real(before.dtype) and is_real(after.dtype)):
        return
    leaves = [leaf for leaf in assigned(meta_params) if leaf.name == number.name]
    if _equal(leaves, number._replace(leaf=after)):
        yield from _rounded(who, leaves, number._replace(leaf=after))
        return
    for one, other in zip(before, after, strict=True):
        if not is_cast(one.item(), other):
            text = changed_text(who, number.name, one.item(), other.item())
            yield Notice("changed", number.name, text)
            return


def not_restored(who: str, meta_params: Any, state: Any) -> Iterator[Notice]:
    """Yield notices for a state that was not restored, by the names of its numbers."""
    numbers = on_host(injected.numbers(state))
    for leaf in assigned(meta_params):
        places = [number for number in numbers if number.name == leaf.name]
        if places and not any(_equal([leaf], number) for number in places):
            used = np.ravel(places[0].leaf)[0].item()
            text = by_name_text(who, leaf.key, leaf.value, used)
            yield Notice("not restored", leaf.key, text)


def on_host(numbers: Sequence[Number]) -> list[Number]:
    """Return the numbers as NumPy arrays, all fetched from the device at once."""
    leaves = jax.device_get([number.leaf for number in numbers])
    pairs = zip(numbers, leaves, strict=True)
    return [number._replace(leaf=np.asarray(leaf)) for number, leaf in pairs]


def found(
    who: str,
    meta_params: Any,
    numbers: Sequence[Number],
    changing: Callable[[Collection[str]], Collection[str] | None],
) -> Iterator[Notice]:
    """Yield notices for numbers of meta_params not in force under their name.

    Args:
        who: The worker, as the notices name it.
        meta_params: The assigned meta_params.
        numbers: The injected numbers of the state, on the host, without those that
            `keep` names.
        changing: Called with names; returns the places where `init` makes another
            number if the meta_params with these names change. None: unknown.
    """
    everything = list(assigned(meta_params))
    for name in dict.fromkeys(each.name for each in everything):
        leaves = [each for each in everything if each.name == name]
        places = [number for number in numbers if number.name == name]
        there = [number for number in places if _equal(leaves, number)]
        for number in there:
            yield from _rounded(who, leaves, number)
        rest = [number for number in places if number not in there]
        if not rest or len(there) >= len(leaves):
            continue  # A parameter group may have another number on purpose.
        held = {number.name for number in numbers}
        moving = changing({each.name for each in everything} & held)
        if moving is None:
            continue
        still = [number for number in rest if number.place not in moving]
        if still and len(places) - len(still) < len(leaves):
            yield _not_in_force(who, _first_unused(leaves, there), still[0])


def rounded_text(who: str, key: str, wanted: float, used: float, dtype: Any) -> str:
    """Return the text for a number that its dtype cannot hold."""
    if np.dtype(dtype).itemsize < 4:
        advice = (
            "Keep the optimiser's numbers in float32: "
            "optax.inject_hyperparams(..., hyperparam_dtype=jnp.float32)."
        )
    else:
        advice = "Assign numbers that this dtype can distinguish."
    return (
        f"{who} was assigned {key}={wanted!r}, and its optimiser uses {used!r}: "
        f"{dtype} cannot hold it. {advice}"
    )


def changed_text(who: str, name: str, wanted: float, used: float) -> str:
    """Return the text for a number that the loop has replaced."""
    return (
        f"{who} was assigned {name}={wanted!r} by what init put in force, and reports "
        f"a state whose optimiser uses {used!r}. Train the state that restore returns. "
        f"If the loop changes this number on purpose, pass keep={name!r} to "
        "worker.restore or vectorized.run."
    )


def by_name_text(who: str, key: str, wanted: float, used: float) -> str:
    """Return the text for a state that was never restored."""
    return (
        f"{who} was assigned {key}={wanted!r}, but its optimiser uses {used!r}. Call "
        "worker.restore(init) whenever poll returns True, and train the state that it "
        "returns."
    )


def _not_in_force(who: str, leaf: Assigned, number: Number) -> Notice:
    used = np.ravel(number.leaf)[0].item()
    seen = f"{who} was assigned {leaf.key}={leaf.value!r}, but its optimiser uses "
    if number.driven:
        text = (
            f"{seen}{used!r}: a schedule within inject_hyperparams drives it, and "
            "overwrites every other value. Inject a number, and add the schedule as a "
            "factor: optax.chain(optax.inject_hyperparams(optax.sgd)("
            f"{number.name}=...), optax.scale_by_schedule(...))."
        )
    else:
        text = (
            f"{seen}{used!r}, whatever number is assigned: init does not put it in "
            "force. Write opt_state = hyperparams.put(opt_state, meta_params, "
            "strict=False) in init, not after restore, or make the optimiser of "
            "meta_params there. If the number is meant for something else, give it "
            "another name."
        )
    return Notice(NOT_IN_FORCE, leaf.key, text)


def _equal(leaves: Sequence[Assigned], number: Number) -> bool:
    """Whether each element of an injected number was assigned under its name."""
    values = np.ravel(number.leaf)
    return len(values) > 0 and all(
        is_real(value.dtype) and any(is_cast(leaf.value, value) for leaf in leaves)
        for value in values
    )


def _rounded(who: str, leaves: Sequence[Assigned], number: Number) -> Iterator[Notice]:
    for value in np.ravel(number.leaf):
        used = float(value)
        near = [leaf for leaf in leaves if is_cast(leaf.value, value)]
        leaf = min(near, key=lambda leaf: abs(leaf.value - used), default=None)
        if leaf is not None and _is_far(float(leaf.value), used):
            text = rounded_text(who, leaf.key, leaf.value, used, number.leaf.dtype)
            yield Notice(ROUNDED, leaf.key, text)
            return


def _is_far(wanted: float, used: float) -> bool:
    """Whether rounding has changed a number so much that it matters."""
    if not math.isfinite(wanted) or wanted == used:
        return False
    error = abs(used - wanted)
    if error > _LARGEST_ERROR * abs(wanted):
        return True
    if error <= _RESOLUTION * abs(wanted):
        return False
    return 0.5 < wanted < 1 and error > _LARGEST_ERROR_FROM_ONE * (1 - wanted)


def _first_unused(leaves: Sequence[Assigned], there: Sequence[Number]) -> Assigned:
    values = [value for number in there for value in np.ravel(number.leaf)]
    for leaf in leaves:
        if not any(is_cast(leaf.value, value) for value in values):
            return leaf
    return leaves[0]
