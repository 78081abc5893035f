"""Which results of a step depend on which arguments, by its jaxpr."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from population.in_force import dataflow
from population.testing.loop.dependence import BESIDE, KEY, META, Flow, flow
from population.testing.loop.trial import Loop

Step = Callable[..., Any]

STATE = {"a": 1.0, "b": 2.0, "c": 3.0}
# Older releases do not declare the name.
CHECKPOINT: Callable[[Step], Step] = vars(jax)["checkpoint"]
A, B, C = "['a']", "['b']", "['c']"


def of(step: Callable[..., Any], meta_params: Any = 0.5) -> Flow:
    """The flow of a step from `STATE`."""
    loop = Loop(lambda meta: dict(STATE), step, 1, 0)
    found = flow(loop, loop.start(meta_params), meta_params, ())
    assert found is not None
    return found


def uses(found: Flow) -> dict[str, set[str]]:
    """By output, as plain sets."""
    return {name: set(inputs) for name, inputs in found.outputs.items()}


def in_a_scan(s: Any, m: Any) -> Any:
    """`a` takes the value of `b` in the second iteration, and `b` that of `c`."""

    def body(carried: Any, _: Any) -> Any:
        a, b = carried
        return (b, s["c"]), a

    (a, b), seen = jax.lax.scan(body, (s["a"], s["b"]), None, length=3)
    return {"a": a, "b": b, "c": m * 1.0}, seen


def in_a_loop(s: Any, m: Any) -> Any:
    """A `while`: every output may depend on every input."""
    count, a = jax.lax.while_loop(
        lambda carried: carried[0] < s["b"],
        lambda carried: (carried[0] + 1, carried[1] * 2),
        (0.0, s["a"]),
    )
    return {"a": a, "b": s["b"] + 0 * count, "c": s["c"] * m}


def in_a_branch(s: Any, m: Any) -> Any:
    """A `cond` depends on its condition, too."""
    a = jax.lax.cond(s["b"] > 0, lambda x: x, lambda x: -x, s["a"])
    return {"a": a, "b": s["b"], "c": s["c"] + 0 * m}


def in_a_function(s: Any, m: Any) -> Any:
    """Nested `jit`, `checkpoint` and derivatives are followed."""

    @CHECKPOINT
    def inner(a: Any, b: Any) -> Any:
        return jnp.sin(a), b

    a, b = jax.jit(inner)(s["a"], m)
    return {"a": jax.grad(lambda x: x**2)(a), "b": b, "c": jax.nn.relu(s["c"])}


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (in_a_scan, {A: {A, B, C}, B: {B, C}, C: {META}, BESIDE: {A, B, C}}),
        (in_a_loop, {A: {A, B}, B: {A, B}, C: {C, META}}),
        (in_a_branch, {A: {A, B}, B: {B}, C: {C, META}}),
        (in_a_function, {A: {A}, B: {META}, C: {C}}),
        (lambda s, m: {"a": 1.0, "b": s["b"], "c": 0.0}, {A: set(), B: {B}, C: set()}),
    ],
)
def test_results_depend_on_what_goes_into_them(
    step: Callable[..., Any], expected: dict[str, set[str]]
) -> None:
    """Too few would accuse a hyperparameter that is used; all would find nothing."""
    assert uses(of(step)) == expected


def test_what_is_reached_takes_several_steps() -> None:
    """A number may first enter one leaf, and from there another."""
    found = of(lambda s, m: {"a": m * 1.0, "b": s["a"], "c": s["c"]})
    assert found.reached({META}) == {A, B}
    assert found.reached({C}) == {C}


def test_draws_are_found_wherever_they_are() -> None:
    """They are found in scans, branches and nested functions, with what keys need."""

    def step(s: Any, m: Any, key: Any) -> Any:
        fixed = jax.random.key(0)

        def body(carried: Any, x: Any) -> Any:
            inner = jax.random.fold_in(key, x)
            return carried + jax.random.normal(inner), None

        a, _ = jax.lax.scan(body, s["a"], jnp.arange(2))
        b = jax.lax.cond(m > 0, lambda: jax.random.gamma(fixed, 1.0), lambda: 0.0)
        folded = jax.random.fold_in(fixed, s["c"].astype(int))
        return {"a": a, "b": b, "c": jax.jit(jax.random.uniform)(folded)}

    seen = {draw.uses for draw in of(step).draws}
    assert seen == {frozenset({KEY}), frozenset({META}), frozenset({C})}


def test_a_step_that_looks_at_values_cannot_be_traced() -> None:
    """Then nothing is said, instead of something wrong."""
    loop = Loop(lambda meta: dict(STATE), lambda s: {**s, "a": float(s["a"])}, 1, 0)
    assert flow(loop, loop.start(0.5), 0.5) is None


def test_a_scan_that_cannot_be_read_depends_on_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A later JAX may describe it differently: then nothing counts as independent."""
    monkeypatch.setattr(dataflow, "_carry", lambda params: None)
    everything = {A, B, C}
    uses_of_all = {A: everything, B: everything, BESIDE: everything}
    assert uses(of(in_a_scan)) == {**uses_of_all, C: {META}}
