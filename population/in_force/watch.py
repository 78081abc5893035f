"""Says when a hyperparameter that was assigned is not the one that trains.

What `init` puts in force is in force; nobody else can know what it means to put. But an
injected number that has the very name of one in meta_params, differs from it and does
not change with it, was forgotten. Each such thing is said once a run.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from population import hyperparams
from population.in_force import injected
from population.in_force.injected import Number
from population.in_force.probe import Probes
from population.in_force.restoring import USER_ERRORS, Restored, is_kept
from population.once import Notice, Notices

logger = logging.getLogger("population")
NOT_IN_FORCE = "not in force"
ROUNDED = "rounded"
_LARGEST_ERROR = 1e-3  # Relative.
_LARGEST_ERROR_FROM_ONE = 1e-2  # Of a decay like 0.999, what it is short of one counts.


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


class Watch:
    """Compares what one worker trains with what it was assigned.

    Args:
        notices: Says what is not in force.
        probes: What the run's `init` was found to do.
    """

    def __init__(self, notices: Notices, probes: Probes) -> None:
        self._notices = notices
        self._probes = probes
        self._generation_id = ""
        self._checked = ""
        self._put: list[Number] = []

    def restored(
        self,
        generation_id: str,
        who: str,
        meta_params: Any,
        restored: Restored,
        init: Callable[[Any], Any],
        keep: Collection[str],
    ) -> None:
        """Note what `restore` has put in force, and say what is not."""
        numbers = injected.numbers(restored.state)
        held = on_host([n for n in numbers if not is_kept(n, keep)])
        self._generation_id = generation_id
        self._put = [number for number in held if not number.driven]

        def changing(names: Collection[str]) -> Collection[str] | None:
            return self._probes.moving(
                frozenset(number.place for number in restored.wanted),
                lambda: places_that_change(
                    restored, lambda: init(moved(meta_params, names))
                ),
            )

        for notice in found(who, meta_params, held, changing):
            self._notices.say(notice)

    def reported(
        self, generation_id: str, who: str, meta_params: Any, state: Any
    ) -> None:
        """Say if a state that is reported has other numbers in force."""
        if generation_id == self._generation_id:
            self._compare(who, state)
        elif generation_id != self._checked:
            self._checked = generation_id
            for key, wanted, used in hyperparams.mismatches(state, meta_params):
                text = by_name_text(who, key, wanted, used)
                self._notices.say(Notice("not restored", key, text))

    def _compare(self, who: str, state: Any) -> None:
        if not self._put:
            return
        now = {number.path: number for number in injected.numbers(state)}
        there = [number for number in self._put if number.path in now]
        held = on_host([now[number.path] for number in there])
        for before, after in zip(there, held, strict=True):
            for notice in changed(who, before, after.leaf):
                self._notices.say(notice)


def changed(who: str, number: Number, now: Any) -> Iterator[Notice]:
    """What to say if a number, as it was put, is another one now."""
    before, after = np.ravel(number.leaf), np.ravel(now)
    if before.shape != after.shape or np.array_equal(before, after):
        return
    if not (hyperparams.is_real(before.dtype) and hyperparams.is_real(after.dtype)):
        return
    before, after = before.astype(np.float64), after.astype(np.float64)
    if not np.allclose(before, after, rtol=1e-6, atol=0.0, equal_nan=True):
        at = int(np.argmax(before != after))
        text = changed_text(who, number.name, before[at].item(), after[at].item())
        yield Notice("changed", number.name, text)


def places_that_change(
    restored: Restored, other: Callable[[], Any]
) -> frozenset[str] | None:
    """Where `init` makes another number of other meta_params; None: nobody knows.

    Args:
        restored: What `init` has made.
        other: Makes a fresh state of other meta_params.
    """
    try:
        fresh = other()
        numbers = on_host(injected.numbers(fresh))
    except USER_ERRORS as error:
        logger.debug("init was not compared with itself: %r", error)
        return None
    now = {number.place: number.leaf for number in numbers}
    if now.keys() != {number.place for number in restored.wanted}:
        return None
    # Whose optimiser is part of the state, trains with the schedule of that one.
    own = bool(jax.tree.structure(fresh) != restored.structure)
    return frozenset(
        number.place
        for number in on_host(restored.wanted)
        if not np.array_equal(number.leaf, now[number.place]) or (number.driven and own)
    )


def assigned(meta_params: Any, key: str = "", name: str = "") -> Iterator[Assigned]:
    """The numbers of meta_params that have names."""
    if isinstance(meta_params, Mapping):
        for inner, value in meta_params.items():
            yield from assigned(value, f"{key}.{inner}" if key else str(inner), inner)
    elif isinstance(meta_params, (list, tuple)):
        for place, value in enumerate(meta_params):
            yield from assigned(value, f"{key}[{place}]", "")
    elif isinstance(name, str) and name and hyperparams.is_number(meta_params):
        yield Assigned(key, name, meta_params)


def moved(meta_params: Any, names: Collection[str], name: Any = "") -> Any:
    """meta_params with other numbers under these names."""
    if isinstance(meta_params, Mapping):
        return {k: moved(v, names, k) for k, v in meta_params.items()}
    if isinstance(meta_params, (list, tuple)):
        return type(meta_params)([moved(value, names) for value in meta_params])
    if name not in names or not hyperparams.is_number(meta_params):
        return meta_params
    if isinstance(meta_params, bool):
        return not meta_params
    if isinstance(meta_params, int):
        return meta_params + 1
    if not math.isfinite(meta_params) or meta_params == 0:
        return 0.01
    # Far, as init may round; what lies between 0 and 1 may be a probability.
    return (1 + meta_params) / 2 if 0 < meta_params < 1 else meta_params / 2


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
            `init` makes changes with meta_params; None: nobody knows.
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
            "meta_params, strict=False) in init, or make the optimiser there of "
            "meta_params. If it is meant for something else, call it otherwise."
        )
    return Notice(NOT_IN_FORCE, leaf.key, text)


def _equal(leaves: Sequence[Assigned], number: Number) -> bool:
    """Whether all that a place holds was assigned under this name."""
    values = np.ravel(number.leaf)
    return len(values) > 0 and all(
        hyperparams.is_real(value.dtype)
        and any(hyperparams.is_cast(leaf.value, value) for leaf in leaves)
        for value in values
    )


def _rounded(who: str, leaves: Sequence[Assigned], number: Number) -> Iterator[Notice]:
    for value in np.ravel(number.leaf):
        used = float(value)
        near = [leaf for leaf in leaves if hyperparams.is_cast(leaf.value, value)]
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
    return 0.5 < wanted < 1 and error > _LARGEST_ERROR_FROM_ONE * (1 - wanted)


def _first_unused(leaves: Sequence[Assigned], there: Sequence[Number]) -> Assigned:
    values = [value for number in there for value in np.ravel(number.leaf)]
    for leaf in leaves:
        if not any(hyperparams.is_cast(leaf.value, value) for value in values):
            return leaf
    return leaves[0]
