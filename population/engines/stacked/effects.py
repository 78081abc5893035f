"""Which hyperparameters reach what, read from the traced functions of a member."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from population.in_force import dataflow
from population.in_force.dataflow import NOTHING, Names


class Effects:
    """What hyperparameters do to the states of a population, and to their values.

    Args:
        columns: How many hyperparameters there are.
        fresh: The jaxpr of `(key, scalars) -> state`.
        step: That of `(state, scalars, ...) -> state`.
        evaluate: That of `(state, scalars, ...) -> value, ...`.
    """

    def __init__(self, columns: int, fresh: Any, step: Any, evaluate: Any) -> None:
        size = len(fresh.outvars)
        self._columns = columns
        self._fresh = _flow(fresh, len(fresh.invars) - columns, columns, named=False)
        self._step = _flow(step, size, columns)
        self._value = _flow(evaluate, size, columns)[0]

    def makes(self, leaf: int) -> bool:
        """Whether this array of a fresh state depends on any hyperparameter."""
        return bool(self._fresh[leaf])

    def unused(self) -> list[int]:
        """The hyperparameters on which no value depends, after any number of steps."""
        return [c for c in range(self._columns) if not self._reaches_value(c)]

    def _reaches_value(self, column: int) -> bool:
        name = _column(column)
        pairs = list(enumerate(zip(self._fresh, self._step, strict=True)))
        reached = {name} | {leaf for leaf, found in pairs if name in found[0]}
        while True:
            more = {leaf for leaf, (_, uses) in pairs if uses & reached}
            if more <= reached:
                return bool(self._value & reached)
            reached |= more


def _column(column: int) -> tuple[str, int]:
    return "column", column


def _flow(
    jaxpr: Any, first: int, columns: int, *, named: bool = True
) -> Sequence[Names]:
    """What each result depends on: arrays of the state by place, and columns.

    Args:
        jaxpr: Its inputs are `first` other ones, then the columns.
        first: How many inputs come before the columns.
        columns: How many columns there are.
        named: Whether those before the columns are the arrays of a state.
    """
    inputs = [frozenset({leaf}) if named else NOTHING for leaf in range(first)]
    inputs += [frozenset({_column(column)}) for column in range(columns)]
    inputs += [NOTHING] * (len(jaxpr.invars) - len(inputs))
    return dataflow.uses(jaxpr, inputs)
