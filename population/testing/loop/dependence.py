"""What depends on what in a step, read from its jaxpr.

Nothing is run. Where the jaxpr does not tell, a result counts as dependent on all that
goes into it, so that "depends on nothing of that" can be believed.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import jax

from population.testing.loop import trees
from population.testing.loop.trial import USER_ERRORS, Loop

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

Names: TypeAlias = frozenset[str]
_NOTHING: Names = frozenset()


@dataclasses.dataclass(frozen=True)
class Draw:
    """Random numbers that a step draws.

    Attributes:
        uses: The inputs that they depend on.
        where: File, line and function; empty if the jaxpr does not tell.
    """

    uses: Names
    where: str


@dataclasses.dataclass(frozen=True)
class Flow:
    """What depends on what in a step.

    Attributes:
        outputs: The inputs that each place of the next state depends on: places of the
            state, `KEY` and `META`. `BESIDE` is what is returned beside the state.
        draws: All random numbers.
    """

    outputs: dict[str, Names]
    draws: list[Draw]

    def reached(self, sources: set[str]) -> set[str]:
        """The outputs that depend on the sources after any number of steps."""
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
    """The `Flow` of a step, or None if JAX cannot trace it.

    Args:
        loop: The user's functions.
        state: Where to begin.
        meta_params: The hyperparameters.
        path: The one of them that is an input of its own.
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
    uses = _walk(closed.jaxpr, inputs, draws, "")
    joined: dict[str, Names] = {}
    for name, names in zip(outputs, uses, strict=True):
        joined[name] = joined.get(name, _NOTHING) | names
    return Flow(joined, draws)


def _walk(
    jaxpr: Any, inputs: Sequence[Names], draws: list[Draw], where: str
) -> list[Names]:
    """What each result of a jaxpr depends on."""
    known: dict[Any, Names] = dict(zip(jaxpr.invars, inputs, strict=True))

    def uses(atom: Any) -> Names:
        # A literal is not hashable; a constant is not among the inputs.
        return _NOTHING if hasattr(atom, "val") else known.get(atom, _NOTHING)

    for equation in jaxpr.eqns:
        given = [uses(atom) for atom in equation.invars]
        place = _place(equation) or where
        if equation.primitive.name in _DRAWS:
            draws.append(Draw(_NOTHING.union(*given), place))
        results = _through(equation, given, draws, place)
        known.update(zip(equation.outvars, results, strict=True))
    return [uses(atom) for atom in jaxpr.outvars]


def _through(
    equation: Any, given: list[Names], draws: list[Draw], where: str
) -> list[Names]:
    """What each result of an equation depends on."""
    inner = list(_jaxprs(equation.params.values()))
    count = len(equation.outvars)
    everything = _NOTHING.union(*given)
    if equation.primitive.name == "scan" and (carry := _carry(equation.params)):
        return _scan(carry, inner[0], given, draws, where)
    if len(inner) == 1 and equation.primitive.name not in {"scan", "while"}:
        if len(inner[0].invars) == len(given) and len(inner[0].outvars) == count:
            return _walk(inner[0], given, draws, where)
    for jaxpr in inner:
        _walk(jaxpr, [everything] * len(jaxpr.invars), draws, where)
    return [everything] * count


def _carry(params: Any) -> tuple[int, int] | None:
    """Where among the inputs of a scan those that it carries begin and end."""
    if "num_carry" in params:
        first = params["num_consts"]
        return first, first + params["num_carry"]
    if "ft_in" in params:  # Since JAX 0.12: trees of constants, of carried, of others.
        constants, carried, _ = map(list, params["ft_in"].unpack())
        return len(constants), len(constants) + len(carried)
    return None


def _scan(
    carry: tuple[int, int],
    body: Any,
    given: list[Names],
    draws: list[Draw],
    where: str,
) -> list[Names]:
    """Go round until what is carried depends on nothing new."""
    first, last = carry
    while True:
        seen: list[Draw] = []
        results = _walk(body, given, seen, where)
        carried = [
            old | new for old, new in zip(given[first:last], results, strict=False)
        ]
        if carried == given[first:last]:
            draws += seen
            return [*carried, *results[len(carried) :]]
        given = [*given[:first], *carried, *given[last:]]


def _jaxprs(values: Any) -> Iterator[Any]:
    """The jaxprs among the parameters of an equation."""
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _jaxprs(value)
        elif hasattr(value, "jaxpr") and hasattr(value, "consts"):
            yield value.jaxpr
        elif hasattr(value, "eqns") and hasattr(value, "invars"):
            yield value


def _place(equation: Any) -> str:
    """The line of the user's own code that an equation comes from."""
    traceback = getattr(equation.source_info, "traceback", None)
    for frame in getattr(traceback, "frames", ()):
        file = frame.file_name
        if _PACKAGES not in file and not file.startswith(_NOT_THE_USERS):
            return f"{os.path.basename(file)}:{frame.line_num} ({frame.function_name})"
    return ""
