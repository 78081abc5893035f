"""Finds the inputs of each result of a step, and the random numbers that it draws."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import jax

from population.in_force import dataflow
from population.in_force.dataflow import NOTHING, Names
from population.in_force.restoring import USER_ERRORS
from population.testing.loop import trees
from population.testing.loop.trial import Loop

KEY = "key"
META = "meta_params"
BESIDE = "beside"
_DRAWS = {
    "random_bits",
    "random_gamma",
    "rng_bit_generator",
    "rng_uniform",
    "threefry2x32",
}
_PACKAGES = f"{os.sep}site-packages{os.sep}"
_NOT_THE_USERS = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
    os.path.dirname(os.path.abspath(jax.__file__)),
    "<frozen",
)


@dataclasses.dataclass(frozen=True)
class Draw:
    """Random numbers that a step draws.

    Attributes:
        uses: The inputs that they depend on.
        where: File, line and function; "" if the jaxpr does not have them.
    """

    uses: Names
    where: str


@dataclasses.dataclass(frozen=True)
class Flow:
    """The dependence of each result of a step on its inputs.

    Attributes:
        outputs: The inputs that each place of the next state depends on: places of the
            state, `KEY` and `META`. `BESIDE` stands for all other results.
        draws: All random numbers that are drawn.
    """

    outputs: dict[str, Names]
    draws: list[Draw]

    def reached(self, sources: set[str]) -> set[str]:
        """Return the outputs that depend on the sources after any number of steps."""
        found: set[str] = set()
        while True:
            carried = sources | found
            more = {out for out, uses in self.outputs.items() if uses & carried}
            if more <= found:
                return found
            found |= more


def flow(
    loop: Loop, state: Any, meta_params: Any, path: trees.Path | None = None
) -> Flow | None:
    """Return the `Flow` of a step, or None if JAX cannot trace it.

    Args:
        loop: The user's functions.
        state: The state to begin with.
        meta_params: The hyperparameters.
        path: The hyperparameter that is traced as an input; None: none is.
    """
    data = {p: leaf for p, leaf in trees.by_place(state).items() if trees.is_data(leaf)}
    outputs: list[str] = []

    def traced(leaves: dict[str, Any], key: Any, number: Any) -> list[Any]:
        meta = meta_params
        if path is not None:
            meta = trees.replaced(meta_params, path, number)
        after, beside = loop.step(trees.with_leaves(state, leaves), meta, key)
        found = trees.by_place(after)
        rest = [leaf for leaf in jax.tree.leaves(beside) if trees.is_data(leaf)]
        names = [place for place, leaf in found.items() if trees.is_data(leaf)]
        outputs[:] = [*names, *(BESIDE for _ in rest)]
        return [found[place] for place in names] + rest

    number = 0.0 if path is None else dict(trees.leaves_of(meta_params))[path]
    try:
        closed = jax.make_jaxpr(traced)(data, loop.key(0), number)
    except USER_ERRORS:
        return None
    # A dict is flattened in the order of its sorted keys.
    inputs = [frozenset({name}) for name in (*sorted(data), KEY, META)]
    draws: list[Draw] = []
    places: dict[int, str] = {}  # By the id of an equation that contains a jaxpr.

    def seen(equation: Any, given: list[Names], within: Any) -> None:
        place = _place(equation) or places.get(id(within), "")
        places[id(equation)] = place
        if equation.primitive.name in _DRAWS:
            draws.append(Draw(NOTHING.union(*given), place))

    uses = dataflow.uses(closed.jaxpr, inputs, seen)
    joined: dict[str, Names] = {}
    for name, names in zip(outputs, uses, strict=True):
        joined[name] = joined.get(name, NOTHING) | names
    return Flow(joined, draws)


def _place(equation: Any) -> str:
    """Return the line of the user's own code that an equation comes from."""
    traceback = getattr(equation.source_info, "traceback", None)
    for frame in getattr(traceback, "frames", ()):
        file = frame.file_name
        if _PACKAGES not in file and not file.startswith(_NOT_THE_USERS):
            return f"{os.path.basename(file)}:{frame.line_num} ({frame.function_name})"
    return ""
