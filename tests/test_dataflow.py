"""Which results of a jaxpr depend on which arguments: none is missed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from population.in_force import dataflow


def uses(function: Callable[..., Any], *arguments: Any) -> list[set[int]]:
    """The numbers of the arguments that each result depends on."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    inputs = [frozenset({number}) for number in range(len(jaxpr.invars))]
    return [set(names) for names in dataflow.uses(jaxpr, inputs)]


ONE = jnp.ones(3)
REMAT: Any = vars(jax)["remat"]  # Older versions do not export its type.


def test_what_goes_its_own_way_is_told_apart() -> None:
    """Through calls and through a scan."""

    def function(a: Any, b: Any, c: Any) -> Any:
        def body(carry: Any, x: Any) -> Any:
            return carry + x, carry

        total, _ = lax.scan(body, c[0], a)
        return jax.jit(jnp.sin)(a), b * 2, total

    assert uses(function, ONE, ONE, ONE) == [{0}, {1}, {0, 2}]


def _reduced(a: Any, b: Any, c: Any) -> Any:
    """An associative fold in which one operand enters another's result."""

    def fold(one: Any, two: Any) -> Any:
        return one[0] + two[0], one[1] + two[1], one[2] + two[2] + one[0] * two[1]

    return lax.reduce((a, b, c), (0.0, 0.0, 0.0), fold, (0,))


def test_a_fold_of_several_operands_depends_on_all() -> None:
    """The second half of a reducer's inputs are elements, too."""
    assert uses(_reduced, ONE, ONE, ONE) == [{0, 1, 2}] * 3


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: lax.while_loop(lambda x: x[0] < b[0], lambda x: x + 1, a),
        lambda a, b: lax.cond(a[0] > 0, lambda: b, lambda: b + 1),
        lambda a, b: lax.fori_loop(0, 3, lambda i, x: x * b, a),
        lambda a, b: jax.nn.relu(a) * b,  # This function has a custom derivative.
        lambda a, b: REMAT(lambda x, y: x * y)(a, b),
        lambda a, b: jnp.linalg.solve(jnp.eye(3) * b[:, None], a),
    ],
)
def test_nothing_is_missed(function: Callable[..., Any]) -> None:
    """Loops, branches, and derivative rules are followed."""
    assert uses(function, ONE, ONE) == [{0, 1}]
