"""The metrics of each slot's newest report with a value, as arrays by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from population.core.recent import Floats


class NewestMetrics:
    """The metrics of the newest report with a value on each slot's lineage.

    A name has an array from the time when it is first asked for; then only the slots
    that have reported since are looked at.

    Args:
        trees: The metrics of each slot's report, or None, by worker id; kept up to date
            by the caller.
    """

    def __init__(self, trees: Sequence[Any]) -> None:
        self._trees = trees
        self._arrays: dict[str, Floats] = {}
        self._changed: set[int] = set()

    def note(self, worker_id: int) -> None:
        """Note that a slot has other metrics."""
        self._changed.add(worker_id)

    def column(self, name: str) -> Floats:
        """Return `[N]`: one of the metrics of each slot; NaN where it is missing."""
        if self._changed:
            for known, array in self._arrays.items():
                self._fill(array, known, self._changed)
            self._changed.clear()
        found = self._arrays.get(name)
        if found is None:
            found = self._arrays[name] = np.full(len(self._trees), math.nan)
            self._fill(found, name, range(len(self._trees)))
        return found

    def _fill(self, array: Floats, name: str, slots: Iterable[int]) -> None:
        for worker_id in slots:
            array[worker_id] = _number(_leaf(self._trees[worker_id], name))


def _leaf(tree: Any, name: str) -> Any:
    """Return the leaf of a name, such as `a/b` for b within a; None if there is none.

    Of several with one name it is the last, as in the columns of a recorded run.
    """
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(tree, Mapping):
        items = tree.items()
    elif isinstance(tree, (list, tuple)):
        items = enumerate(tree)
    found = None
    for key, inner in items:
        if isinstance(inner, (Mapping, list, tuple)):
            if name.startswith(f"{key}/"):
                deeper = _leaf(inner, name[len(f"{key}/") :])
                found = found if deeper is None else deeper
        elif str(key) == name:
            found = inner
    return found


def _number(leaf: Any) -> float:
    """Return a leaf as a float; NaN if it is not a number."""
    if type(leaf) not in (int, float):
        return math.nan
    try:
        return float(leaf)
    except OverflowError:  # An int beyond the largest float.
        return math.inf if leaf > 0 else -math.inf
