"""Finds the effects of hyperparameters in the traced functions of a member."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from population.in_force import dataflow
from population.in_force.dataflow import NOTHING, Names


class Effects(NamedTuple):
    """The effects of hyperparameters on the states of a population and their values.

    Attributes:
        made: The arrays of a fresh state that depend on any hyperparameter.
        unused: The hyperparameters on which no value depends, after any number of
            steps.
    """

    made: set[int]
    unused: list[int]


def of(columns: int, fresh: Any, step: Any, evaluate: Any) -> Effects:
    """Find the effects of hyperparameters.

    Args:
        columns: The number of hyperparameters.
        fresh: The jaxpr of `(key, scalars) -> state`.
        step: That of `(state, scalars, ...) -> state`.
        evaluate: That of `(state, scalars, ...) -> value, ...`.
    """
    size = len(fresh.outvars)
    begun = _flow(fresh, len(fresh.invars) - columns, columns, named=False)
    stepped = _flow(step, size, columns)
    value = _flow(evaluate, size, columns)[0]
    unused = [c for c in range(columns) if not value & _reached(c, begun, stepped)]
    return Effects({leaf for leaf, names in enumerate(begun) if names}, unused)


def _reached(column: int, begun: Sequence[Names], stepped: Sequence[Names]) -> Names:
    """Return a column, and the arrays of a state that ever depend on it."""
    reached = NOTHING
    more: Names = frozenset({_column(column)})
    more |= {leaf for leaf, names in enumerate(begun) if names & more}
    while more != reached:
        reached = more
        more |= {leaf for leaf, names in enumerate(stepped) if names & reached}
    return reached


def _column(column: int) -> tuple[str, int]:
    return "column", column


def _flow(
    jaxpr: Any, first: int, columns: int, *, named: bool = True
) -> Sequence[Names]:
    """Return, for each result, the arrays of the state and columns it depends on.

    Args:
        jaxpr: Its inputs are `first` other ones, then the columns.
        first: The number of inputs before the columns.
        columns: The number of columns.
        named: Whether those before the columns are the arrays of a state.
    """
    inputs = [frozenset({leaf}) if named else NOTHING for leaf in range(first)]
    inputs += [frozenset({_column(column)}) for column in range(columns)]
    inputs += [NOTHING] * (len(jaxpr.invars) - len(inputs))
    return dataflow.uses(jaxpr, inputs)
