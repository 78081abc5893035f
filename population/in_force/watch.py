"""Compares the numbers in a worker's state with the meta_params assigned to it."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from population.base.log_once import Notices
from population.in_force import injected
from population.in_force.findings import changed, found, not_restored, on_host
from population.in_force.injected import Number
from population.in_force.numeric import is_number
from population.in_force.probe import Probes
from population.in_force.restoring import USER_ERRORS, Restored, is_kept

logger = logging.getLogger("population")


class Watch:
    """Compares the numbers in one worker's state with the assigned meta_params.

    Args:
        notices: Logs hyperparameters that are not in force.
        probes: Remembers which numbers of the run's `init` depend on meta_params.
    """

    def __init__(self, notices: Notices, probes: Probes) -> None:
        self._notices = notices
        self._probes = probes
        self._generation_id = ""
        self._checked = ""
        self._put: list[Number] = []
        self._structure: Any = None  # The structure of the last reported state.
        self._there: list[tuple[int, Number]] = []  # Leaf positions of `_put`.

    def restored(
        self,
        generation_id: str,
        who: str,
        meta_params: Any,
        restored: Restored,
        init: Callable[[Any], Any],
        keep: Collection[str],
    ) -> None:
        """Remember the numbers that `restore` has put in force, and log others."""
        numbers = injected.numbers(restored.state)
        held = on_host([n for n in numbers if not is_kept(n, keep)])
        self._generation_id = generation_id
        self._put = [number for number in held if not number.driven]
        self._structure = None

        def changing(names: Collection[str]) -> Collection[str] | None:
            return self._probes.moving(
                (frozenset(n.place for n in restored.wanted), choices(meta_params)),
                lambda: places_that_change(
                    restored, lambda: init(moved(meta_params, names))
                ),
            )

        for notice in found(who, meta_params, held, changing):
            self._notices.say(notice)

    def reported(
        self, generation_id: str, who: str, meta_params: Any, state: Any
    ) -> None:
        """Log if other numbers are in force in a reported state."""
        if generation_id == self._generation_id:
            self._compare(who, meta_params, state)
        elif generation_id != self._checked:
            self._checked = generation_id
            for notice in not_restored(who, meta_params, state):
                self._notices.say(notice)

    def _compare(self, who: str, meta_params: Any, state: Any) -> None:
        if not self._put:
            return
        leaves, structure = jax.tree.flatten(state)
        if self._structure is None or structure != self._structure:
            pairs = enumerate(jax.tree_util.tree_leaves_with_path(state))
            at = {path: place for place, (path, _) in pairs}
            here = {number.path for number in injected.numbers(state)}
            there = [number for number in self._put if number.path in here]
            self._there = [(at[number.path], number) for number in there]
            self._structure = structure
        held = [np.asarray(leaves[place]) for place, _ in self._there]
        for (_, number), now in zip(self._there, held, strict=True):
            for notice in changed(who, meta_params, number, now):
                self._notices.say(notice)


def places_that_change(
    restored: Restored, other: Callable[[], Any]
) -> frozenset[str] | None:
    """Return the places where `init` makes another number of other meta_params.

    None if `init` fails, or makes other injected states.

    Args:
        restored: A state that was restored, with the numbers that `init` has made.
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
    # If the state contains its optimiser, it contains the optimiser's schedule.
    own = bool(jax.tree.structure(fresh) != restored.structure)
    return frozenset(
        number.place
        for number in on_host(restored.wanted)
        if not np.array_equal(number.leaf, now[number.place]) or (number.driven and own)
    )


def choices(meta_params: Any) -> str:
    """Return as text all but the numbers, as the structure may depend on it."""
    if isinstance(meta_params, Mapping):
        return repr([(key, choices(value)) for key, value in meta_params.items()])
    if isinstance(meta_params, (list, tuple)):
        return repr([choices(value) for value in meta_params])
    is_choice = isinstance(meta_params, bool) or not is_number(meta_params)
    return repr(meta_params) if is_choice else ""


def moved(meta_params: Any, names: Collection[str]) -> Any:
    """Return the meta_params with other numbers under these names.

    Each is changed by another factor, so that quotients of them change, too.
    """
    return _moved(meta_params, names, "", itertools.count(2))


def _moved(
    meta_params: Any, names: Collection[str], name: Any, share: Iterator[int]
) -> Any:
    if isinstance(meta_params, Mapping):
        return {k: _moved(v, names, k, share) for k, v in meta_params.items()}
    if isinstance(meta_params, (list, tuple)):
        kind = type(meta_params)
        return kind([_moved(value, names, "", share) for value in meta_params])
    if name not in names or not is_number(meta_params):
        return meta_params
    if isinstance(meta_params, bool):
        return not meta_params
    if isinstance(meta_params, int):
        return meta_params + 1
    if not math.isfinite(meta_params) or meta_params == 0:
        return 0.01
    # By much, as init may round; a number between 0 and 1 may be a probability.
    part = next(share)
    if 0 < meta_params < 1:
        return meta_params + (1 - meta_params) / part
    return meta_params / part
