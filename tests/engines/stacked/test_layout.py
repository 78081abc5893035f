"""Which leaves of a state are arrays, which are constants, and how each may change."""

from __future__ import annotations

import enum
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from population import ParamsError
from population.engines.stacked.layout import Layout, Moved
from tests.engines.stacked import problems
from tests.engines.stacked.problems import PLAIN, Functions


class Colour(enum.IntEnum):
    """An int that no store keeps as it is."""

    RED = 1


def learned(state: Any) -> tuple[Layout, Any]:
    """A layout, and the shapes of a state's arrays."""
    layout = Layout()
    flat = layout.learn(state)
    return layout, jax.eval_shape(lambda: flat)


@pytest.mark.parametrize(
    ("first", "then"), [(1, 2), (1.0, 1), (0.5, math.nan), (1, jnp.int32(1))]
)
def test_a_number_that_changes_is_an_array_from_then_on(first: Any, then: Any) -> None:
    """It becomes one the next time a state is examined; until then it is a constant."""
    layout, _ = learned({"w": jnp.ones(2), "n": first})
    assert len(layout.flat({"w": jnp.ones(2), "n": first})) == 1
    with pytest.raises(Moved):
        layout.flat({"w": jnp.ones(2), "n": then})
    layout.learn({"w": jnp.ones(2), "n": first})
    assert len(layout.flat({"w": jnp.ones(2), "n": then})) == 2


def test_a_constant_that_is_no_number_stays_one() -> None:
    """NaN counts as equal to itself here."""
    layout, _ = learned([jnp.ones(2), math.nan])
    assert len(layout.flat([jnp.ones(2), math.nan])) == 1


def test_a_function_that_is_exchanged_is_refused() -> None:
    """All members share it, and a program has one function."""
    layout, _ = learned({"act": jnp.tanh, "w": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"\['act'\] was .* and became"):
        layout.flat({"act": jax.nn.relu, "w": jnp.ones(2)})


@pytest.mark.parametrize("constant", [Colour.RED, 2**70, 1j, object()])
def test_what_no_store_keeps_is_left_out_of_a_save(constant: Any) -> None:
    """It comes from `init`, as functions do."""
    state = {"w": jnp.ones(2), "c": constant}
    layout, shapes = learned(state)
    saved = layout.saved(layout.flat(state))
    assert saved["c"] is None
    assert layout.state(layout.restored(saved, shapes))["c"] is constant


def test_params_with_another_constant_are_refused() -> None:
    """The saved state was trained with it, and members cannot differ in it."""
    layout, shapes = learned({"w": jnp.ones(2), "t": 1.0})
    layout.restored({"w": np.ones(2, np.float32), "t": 1.0}, shapes)
    with pytest.raises(ParamsError, match=r"1.0 at \['t'\], got 2.0"):
        layout.restored({"w": np.ones(2, np.float32), "t": 2.0}, shapes)
    with pytest.raises(ParamsError, match=r"an array at \['w'\], got 'x'"):
        layout.restored({"w": "x", "t": 1.0}, shapes)


@pytest.mark.parametrize("tree", [{"v": np.ones(2)}, [np.ones(2)], {}])
def test_params_of_another_structure_are_refused(tree: Any) -> None:
    """The message has the library's words, and JAX's."""
    layout, shapes = learned({"w": jnp.ones(2)})
    with pytest.raises(ParamsError, match="structure that init gives"):
        layout.restored(tree, shapes)


@pytest.mark.parametrize("first", [0, 0.0, math.inf, math.nan])
@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_a_number_that_is_computed_from_the_weights_is_trained(
    first: float, batching: str
) -> None:
    """A running loss or the best so far: a traced value cannot be inspected."""

    def init(key: Any, meta: Any) -> Any:
        return {"weights": PLAIN.init(key, meta), "best": first}

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        weights = PLAIN.step(state["weights"], meta, batch, key)
        loss = PLAIN.evaluate(weights, meta, batch)
        best = jnp.where(first == 0, state["best"] + 1, jnp.fmin(state["best"], loss))
        return {"weights": weights, "best": best.astype(type(first))}

    def evaluate(state: Any, meta: Any, batch: Any) -> Any:
        return PLAIN.evaluate(state["weights"], meta, batch), {"best": state["best"]}

    found = problems.controller(problems.still(), steps=4)
    problems.run(found, Functions(init, step, evaluate), batching=batching)
    newest = found.newest(0)
    best = newest.metrics["best"]
    assert best == (4 if first == 0 else pytest.approx(newest.value, rel=1e-5))


def test_a_number_that_becomes_a_vector_is_refused() -> None:
    """The message names the path, as for every other change of shape."""

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        return {"n": jnp.ones(2)}

    functions = Functions(lambda k, m: {"n": 1.0}, step, lambda s, m, b: 0.0)
    with pytest.raises(ValueError, match=r"\['n'\] was float32\[\] and became"):
        problems.run(problems.controller(), functions)
