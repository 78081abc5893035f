"""A reported state is fitted exactly as a store would load it, or not at all."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from population.base.errors import MisfitError
from population.params import MemoryParams
from population.params.reported import ReportedState
from tests import nnx_loop
from tests.params.trees import TREES, assert_alike, filled, weights

HERE = jax.devices()[0]
# Arrays: an equal one, made in the same way, is used as it is.
ARRAYS: dict[str, Callable[[float], Any]] = {
    "array": lambda fill: filled(fill, 2),
    "weak array": lambda fill: jnp.full(2, fill),
    "half precision": lambda fill: filled(fill, 2, jnp.bfloat16),
    "whole numbers": lambda fill: filled(fill, 2, jnp.int32),
    "another shape": lambda fill: filled(fill, (1, 2)),
    "on a device": lambda fill: jax.device_put(filled(fill, 2), HERE),
    "keys": lambda fill: jax.random.split(jax.random.key(int(fill)), 2),
    "other keys": lambda fill: jax.random.split(jax.random.key(1, impl="rbg"), 2),
    "keys on a device": lambda fill: jax.device_put(
        jax.random.split(jax.random.key(int(fill)), 2), HERE
    ),
    "number": lambda fill: filled(fill),
    "weak number": lambda fill: jnp.asarray(fill),
    "whole number": lambda fill: jnp.int32(fill),
    "number on a device": lambda fill: jax.device_put(filled(fill), HERE),
    "key": lambda fill: jax.random.key(int(fill)),
    "key on a device": lambda fill: jax.device_put(jax.random.key(int(fill)), HERE),
}
KINDS: dict[str, Callable[[float], Any]] = {
    **ARRAYS,
    "numpy": lambda fill: np.full(2, fill, np.float32),
    "numpy number": lambda fill: np.array(fill, np.float32),
    "numpy scalar": lambda fill: np.float32(fill),
    "bool": lambda fill: fill > 1,
    "int": int,
    "float": float,
    "str": str,
    "bytes": lambda fill: str(fill).encode(),
}


def assert_as_loaded(found: Any, loaded: Any) -> None:
    """Alike, and on the same devices in the same way."""
    assert_alike(found, loaded)
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(loaded), strict=True)
    for one, other in pairs:
        if isinstance(other, jax.Array):
            assert one.sharding == other.sharding
            assert one.committed == other.committed


@pytest.mark.parametrize("model", KINDS)
def test_a_leaf_of_any_kind_is_fitted_as_it_would_be_loaded(model: str) -> None:
    """Into a leaf of any kind; what would not fit a store is refused, too."""
    store = MemoryParams()
    for kind, make in KINDS.items():
        state, like = {"leaf": make(2.0)}, {"leaf": KINDS[model](1.0)}
        try:
            found = ReportedState(state).fitted(like)
        except MisfitError:
            assert kind != model or isinstance(state["leaf"], np.ndarray)
        else:
            assert_as_loaded(found, store.load(store.save("a", state), like))


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_of_the_wanted_kind_is_used_itself(kind: str) -> None:
    """It is neither copied nor read."""
    state, like = {"leaf": ARRAYS[kind](2.0)}, {"leaf": ARRAYS[kind](1.0)}
    assert ReportedState(state).fitted(like)["leaf"] is state["leaf"]


@pytest.mark.parametrize("name", TREES)
def test_a_tree_is_fitted_as_it_would_be_loaded(store: Any, name: str) -> None:
    """Whatever the store, and whatever the nodes of the tree."""
    tree, like = TREES[name](2.0), TREES[name](1.0)
    if any(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(tree)):
        with pytest.raises(MisfitError):
            ReportedState(tree).fitted(like)
        return
    found = ReportedState(tree).fitted(like)
    assert_as_loaded(found, store.load(store.save("a", tree), like))


def test_a_step_changes_no_kind() -> None:
    """What a jitted step makes of a state is used itself."""
    step = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + leaf, tree))
    state = step(weights(2.0))
    found = ReportedState(state).fitted(weights(1.0))
    assert found["w"] is state["w"]
    assert found["b"] is state["b"]


def test_a_counter_that_became_an_array_is_a_number_again() -> None:
    """A `TrainState` begins with the int 0, and a jitted step makes an array of it."""
    state = jax.jit(lambda tree: {**tree, "step": tree["step"] + 1})(
        {"w": filled(1.0, 3), "step": 0}
    )
    found = ReportedState(state).fitted({"w": filled(0.0, 3), "step": 0})
    assert type(found["step"]) is int
    assert found["step"] == 1
    assert found["w"] is state["w"]


def test_functions_come_from_the_fresh_tree() -> None:
    """Stores keep none either."""
    state = {"w": filled(2.0, 3), "act": jnp.tanh}
    found = ReportedState(state).fitted({"w": filled(1.0, 3), "act": jax.nn.relu})
    assert found["act"] is jax.nn.relu
    assert found["w"] is state["w"]


def test_tied_weights_stay_tied() -> None:
    """The modules are new, their arrays are those that were reported."""
    state, like = nnx_loop.init({}), nnx_loop.init({})
    nnx_loop.step(state)
    store = MemoryParams()
    saved = store.save("a", state)
    model, optimizer = found = ReportedState(state).fitted(like)
    assert_as_loaded(found, store.load(saved, like))
    assert model is not state[0]
    assert model.second.kernel is model.first.kernel
    nnx_loop.train_step(model, optimizer)


def _donated(state: dict[str, Any]) -> None:
    jax.jit(lambda x: x + 1, donate_argnums=0)(state["w"])


def _gone(state: dict[str, Any]) -> None:
    del state["w"]


@pytest.mark.parametrize("change", [_donated, _gone])
@pytest.mark.parametrize("shape", [(), 3])
def test_an_array_that_is_gone_must_be_loaded(
    change: Callable[[dict[str, Any]], None], shape: Any
) -> None:
    """Its buffer belongs to another array, or to none."""
    state = {"w": filled(2.0, shape), "b": filled(2.0)}
    reported = ReportedState(state)
    change(state)
    with pytest.raises(MisfitError):
        reported.fitted({"w": filled(1.0, shape), "b": filled(1.0)})


@pytest.mark.parametrize(
    "like",
    [
        {"w": filled(1.0, 3), "more": filled(1.0)},
        {},
        {"w": filled(1.0, 4)},
        {"w": filled(1.0, 3, jnp.bfloat16)},
        {"w": jnp.full(3, 1.0)},
        {"w": np.ones(3, np.float32)},
        {"w": jax.ShapeDtypeStruct((3,), jnp.float32)},
    ],
)
def test_another_structure_or_kind_must_be_loaded(like: Any) -> None:
    """The store decides what fits, and converts it."""
    state = {"w": filled(2.0, 3)}
    with pytest.raises(MisfitError):
        ReportedState(state).fitted(like)


def test_an_array_in_two_places_must_be_loaded() -> None:
    """A loaded tree has two, so that a step can donate both."""
    shared = filled(2.0, 3)
    with pytest.raises(MisfitError):
        ReportedState([shared, shared]).fitted([filled(1.0, 3), filled(1.0, 3)])


def test_a_number_in_two_places_is_copied() -> None:
    """A step can donate both."""
    shared = filled(2.0)
    one, other = ReportedState([shared, shared]).fitted([filled(1.0), filled(1.0)])
    assert one is shared
    assert other is not shared
    assert other == shared


@pytest.mark.parametrize("kind", ["array", "keys", "numpy", "number"])
def test_no_array_is_kept_alive(kind: str) -> None:
    """Not even until the next garbage collection."""
    leaf: Any = KINDS[kind](2.0)
    reported, alive = ReportedState({"leaf": leaf}), weakref.ref(leaf)
    del leaf
    assert alive() is None
    with pytest.raises(MisfitError):
        reported.fitted({"leaf": KINDS[kind](1.0)})
    assert alive() is None
