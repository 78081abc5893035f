"""Finds the inputs on which each result of a traced function depends, by its jaxpr.

It runs nothing. If the jaxpr does not show the dependence, a result counts as dependent
on all inputs, so that an input that is not named certainly has no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

Names: TypeAlias = frozenset[Any]
Seen: TypeAlias = Callable[[Any, list[Names], Any], None]
NOTHING: Names = frozenset()
# Their inputs and results are those of the jaxpr within. Those of a reducer are not.
_CALLS = {
    "checkpoint",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
    "jit",
    "pjit",
    "remat",
    "remat2",
    "shard_map",
    "xla_call",
}


def uses(
    jaxpr: Any, inputs: Sequence[Names], seen: Seen | None = None, within: Any = None
) -> list[Names]:
    """Return the names of the inputs that each result of a jaxpr depends on.

    Args:
        jaxpr: An open jaxpr.
        inputs: The names for each of its inputs.
        seen: Called once for each equation, with the names of its inputs and the
            equation that it is part of.
        within: The equation that the jaxpr is part of.
    """
    known: dict[Any, Names] = dict(zip(jaxpr.invars, inputs, strict=True))
    aside = NOTHING  # Names that may be passed on without a variable: in a JAX `Ref`.

    def of(atom: Any) -> Names:
        # Literals are not hashable; constants are not among the inputs.
        return NOTHING if hasattr(atom, "val") else known.get(atom, NOTHING)

    for equation in jaxpr.eqns:
        given = [of(atom) for atom in equation.invars]
        if seen is not None:
            seen(equation, given, within)
        if equation.effects and "debug" not in equation.primitive.name:
            aside |= NOTHING.union(*given)
        results = [names | aside for names in _through(equation, given, seen)]
        known.update(zip(equation.outvars, results, strict=True))
    return [of(atom) for atom in jaxpr.outvars]


def _through(equation: Any, given: list[Names], seen: Seen | None) -> list[Names]:
    """Return the names that each result of an equation depends on."""
    inner = list(_jaxprs(equation.params.values()))
    count = len(equation.outvars)
    everything = NOTHING.union(*given)
    if equation.primitive.name == "scan" and (carry := _carry(equation.params)):
        return _scan(carry, inner[0], given, seen, equation)
    if len(inner) == 1 and equation.primitive.name in _CALLS:
        if len(inner[0].invars) == len(given) and len(inner[0].outvars) == count:
            return uses(inner[0], given, seen, equation)
    for jaxpr in inner:
        uses(jaxpr, [everything] * len(jaxpr.invars), seen, equation)
    return [everything] * count


def _carry(params: Any) -> tuple[int, int] | None:
    """Return the first and the end index of a scan's carry among its inputs."""
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
    seen: Seen | None,
    equation: Any,
) -> list[Names]:
    """Return the names for a scan, repeated until those of its carry stay the same."""
    first, last = carry
    while True:
        results = uses(body, given)
        carried = [
            old | new for old, new in zip(given[first:last], results, strict=False)
        ]
        if carried == given[first:last]:
            break
        given = [*given[:first], *carried, *given[last:]]
    if seen is not None:
        uses(body, given, seen, equation)
    return [*carried, *results[len(carried) :]]


def _jaxprs(values: Any) -> Iterator[Any]:
    """Yield the jaxprs among the parameters of an equation."""
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _jaxprs(value)
        elif hasattr(value, "jaxpr") and hasattr(value, "consts"):
            yield value.jaxpr
        elif hasattr(value, "eqns") and hasattr(value, "invars"):
            yield value
