"""Reads the cost of a member's step from its jaxpr."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from population.in_force import dataflow


class StepCost(NamedTuple):
    """The part of a step that decides how members are best batched.

    Attributes:
        convolves: Whether it has a convolution.
        multiply_adds: The number in its matrix products; a loop in a loop counts once.
    """

    convolves: bool
    multiply_adds: int


def of(jaxpr: Any) -> StepCost:
    """Return the cost of a traced step."""
    names: set[str] = set()
    products = [0]

    def seen(equation: Any, _: Any, within: Any) -> None:
        names.add(equation.primitive.name)
        if equation.primitive.name == "dot_general":
            times = within.params.get("length", 1) if within is not None else 1
            products.append(times * _multiply_adds(equation))

    dataflow.uses(jaxpr, [dataflow.NOTHING] * len(jaxpr.invars), seen)
    return StepCost("conv_general_dilated" in names, sum(products))


def _multiply_adds(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape: tuple[int, ...] = equation.invars[0].aval.shape
    result: tuple[int, ...] = equation.outvars[0].aval.shape
    summed: int = math.prod(shape[axis] for axis in contracted)
    return summed * math.prod(result)
