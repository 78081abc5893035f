"""What is assigned and not in force, in words; each word the same in every engine.

What `init` puts in force is in force, and only `init` knows what that should be. But an
injected number that has the very name of one in meta_params, differs from it and does
not change with it, was forgotten.
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
_LARGEST_ERROR_FROM_ONE = 1e-2  # Of a decay like 0.999, what it is short of one counts.
_RESOLUTION = 1e-6  # What float32 cannot tell apart either.


class Assigned(NamedTuple):
    """A number of meta_params.

    Attributes:
        key: Where it is: "learning_rate", "optimizer.betas[0]".
        name: The last key on the way.
        value: The number.
    """

    key: str
    name: str
    value: float


def assigned(meta_params: Any, key: str = "", name: str = "") -> Iterator[Assigned]:
    """The numbers of meta_params that have names."""
    if isinstance(meta_params, Mapping):
        for inner, value in meta_params.items():
            yield from assigned(value, f"{key}.{inner}" if key else str(inner), inner)
    elif isinstance(meta_params, (list, tuple)):
        for place, value in enumerate(meta_params):
            yield from assigned(value, f"{key}[{place}]", "")
    elif isinstance(name, str) and name and is_number(meta_params):
        yield Assigned(key, name, meta_params)


def changed(who: str, meta_params: Any, number: Number, now: Any) -> Iterator[Notice]:
    """What to say if a number, as it was put, is another one now.

    Nothing if it is what was assigned under its name, or what a narrower dtype makes
    of the one that was put.
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
    """What to say of a state that was not restored: its numbers go by their names."""
    numbers = on_host(injected.numbers(state))
    for leaf in assigned(meta_params):
        places = [number for number in numbers if number.name == leaf.name]
        if places and not any(_equal([leaf], number) for number in places):
            used = np.ravel(places[0].leaf)[0].item()
            text = by_name_text(who, leaf.key, leaf.value, used)
            yield Notice("not restored", leaf.key, text)


def on_host(numbers: Sequence[Number]) -> list[Number]:
    """The same with NumPy arrays, fetched in one go."""
    leaves = jax.device_get([number.leaf for number in numbers])
    pairs = zip(numbers, leaves, strict=True)
    return [number._replace(leaf=np.asarray(leaf)) for number, leaf in pairs]


def found(
    who: str,
    meta_params: Any,
    numbers: Sequence[Number],
    changing: Callable[[Collection[str]], Collection[str] | None],
) -> Iterator[Notice]:
    """What is assigned under the name of an injected number and not in force there.

    Args:
        who: The worker.
        meta_params: What was assigned.
        numbers: What the state holds, on the host, without what is to stay as saved.
        changing: Gets the names, and returns the places at which the number that
            `init` makes changes with meta_params; None: unknown.
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
            continue  # A group with a number of its own, frozen say, is no mistake.
        held = {number.name for number in numbers}
        moving = changing({each.name for each in everything} & held)
        if moving is None:
            continue
        still = [number for number in rest if number.place not in moving]
        if still and len(places) - len(still) < len(leaves):
            yield _not_in_force(who, _first_unused(leaves, there), still[0])


def rounded_text(who: str, key: str, wanted: float, used: float, dtype: Any) -> str:
    """The words for a number that its dtype cannot hold."""
    if np.dtype(dtype).itemsize < 4:
        advice = (
            "Keep the optimiser's numbers in float32: "
            "optax.inject_hyperparams(..., hyperparam_dtype=jnp.float32)."
        )
    else:
        advice = "Assign numbers that it can tell apart."
    return (
        f"{who} was assigned {key}={wanted!r}, and its optimiser uses {used!r}: "
        f"{dtype} cannot hold it. {advice}"
    )


def changed_text(who: str, name: str, wanted: float, used: float) -> str:
    """The words for a number that the loop has replaced."""
    return (
        f"{who} was assigned {name}={wanted!r} by what init put in force, and reports "
        f"a state whose optimiser uses {used!r}. Train on with what restore returns; "
        f"a number that the loop changes by itself is named: keep={name!r}, an "
        "argument of worker.restore and of vectorized.run."
    )


def by_name_text(who: str, key: str, wanted: float, used: float) -> str:
    """The words for a state that was never restored."""
    return (
        f"{who} was assigned {key}={wanted!r}, but its optimiser uses {used!r}. Call "
        "worker.restore(init) whenever poll returns True, and train on with what it "
        "returns."
    )


def _not_in_force(who: str, leaf: Assigned, number: Number) -> Notice:
    used = np.ravel(number.leaf)[0].item()
    seen = f"{who} was assigned {leaf.key}={leaf.value!r}, but its optimiser uses "
    if number.driven:
        text = (
            f"{seen}{used!r}: a schedule within inject_hyperparams drives it, and "
            "overwrites what is put there. Inject a number, and add the schedule as a "
            "factor: optax.chain(optax.inject_hyperparams(optax.sgd)("
            f"{number.name}=...), optax.scale_by_schedule(...))."
        )
    else:
        text = (
            f"{seen}{used!r}, and so it does when another number is assigned: init "
            "does not put it in force. Write opt_state = hyperparams.put(opt_state, "
            "meta_params, strict=False) in init, not after restore, or make the "
            "optimiser there of meta_params. If it is meant for something else, call "
            "it otherwise."
        )
    return Notice(NOT_IN_FORCE, leaf.key, text)


def _equal(leaves: Sequence[Assigned], number: Number) -> bool:
    """Whether all that a place holds was assigned under this name."""
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
    """Whether rounding has made another hyperparameter of a number."""
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
