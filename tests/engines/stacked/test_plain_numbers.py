"""What the stacked engine says where a layer or a slice needs a plain number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from population import PopulationController, Stop
from population.engines import vectorized
from tests.engines.stacked import problems

X = jnp.arange(24.0).reshape(8, 3)
Y = np.ones((8, 3))
Step = Callable[[Any, Any], Any]


def run(step: Step, init: Callable[[Any], Any] | None = None) -> PopulationController:
    """A run of two members, with `step(meta, key)` added to a sum."""
    metas = [{"dropout": 0.1, "batch_size": 4}, {"dropout": 0.5, "batch_size": 8}]
    found = PopulationController(metas, problems.still(), stop=Stop(steps=2))
    vectorized.run(
        found,
        lambda key, meta: jnp.zeros(()) if init is None else init(meta),
        lambda state, meta, batch, key: (
            state + step(meta, key) if init is None else step(state, meta)
        ),
        lambda state, meta, batch: state if init is None else 0.0,
        2,
        max_batch=8,
        progress=False,
    )
    return found


def _linen(meta: Any, key: Any) -> Any:
    layer = linen.Dropout(meta["dropout"], deterministic=False)
    outputs: Any = layer.apply({}, X, rngs={"dropout": key})
    return jnp.sum(outputs)


def _nnx(meta: Any, key: Any) -> Any:
    return jnp.sum(nnx.Dropout(meta["dropout"])(X, rngs=nnx.Rngs(dropout=key)))


def _attention(meta: Any, key: Any) -> Any:
    layer: Any = linen.MultiHeadDotProductAttention(
        num_heads=1, dropout_rate=meta["dropout"], deterministic=False
    )
    outputs, _ = layer.init_with_output({"params": key, "dropout": key}, X)
    return jnp.sum(outputs)


@pytest.mark.parametrize("step", [_linen, _nnx, _attention])
def test_who_gives_a_layer_a_traced_rate_is_shown_how_to_drop(step: Step) -> None:
    """The message names the layer and the rate, and does not speak of shapes."""
    with pytest.raises(ValueError, match="plain number") as raised:
        run(step)
    message = str(raised.value)
    assert "step must not need dropout as a plain number" in message
    assert "flax." in message
    assert "jax.random.bernoulli(key, 1 - rate, x.shape)" in message
    for other in ("no shape", "range", "batch"):
        assert other not in message


def test_a_rate_in_the_state_is_told_as_well() -> None:
    """There no hyperparameter is to blame for the error that JAX raises."""

    def init(meta: Any) -> Any:
        return nnx.Dropout(meta["dropout"], rngs=nnx.Rngs(dropout=0))

    def step(state: Any, meta: Any) -> Any:
        state(X)
        return state

    with pytest.raises(ValueError, match="an array as its rate") as raised:
        run(step, init)
    message = str(raised.value)
    assert message.startswith("step must not give Dropout.__call__ of flax.nnx")
    assert "jax.random.bernoulli" in message
    assert "rate from meta_params" in message


def _by_hand(meta: Any, key: Any) -> Any:
    rate = meta["dropout"]
    keep = jax.random.bernoulli(key, 1 - rate, X.shape)
    return jnp.sum(jnp.where(keep, X / (1 - rate), 0))


def _equinox(meta: Any, key: Any) -> Any:
    return jnp.sum(eqx.nn.Dropout(meta["dropout"])(X, key=key))


@pytest.mark.parametrize("step", [_by_hand, _equinox])
def test_what_the_message_advises_trains(step: Step) -> None:
    """Each member drops with its own rate; Equinox's layer takes an array."""
    found = run(step)
    values = [found.newest(worker_id).value for worker_id in range(2)]
    assert None not in values
    assert values[0] != values[1]


def _slice(meta: Any, key: Any) -> Any:
    return jnp.sum(X[: meta["batch_size"]])


def _numpy_slice(meta: Any, key: Any) -> Any:
    return np.sum(Y[: meta["batch_size"]])


def _dynamic_slice(meta: Any, key: Any) -> Any:
    return jnp.sum(jax.lax.dynamic_slice_in_dim(X, 0, meta["batch_size"]))


def _choice(meta: Any, key: Any) -> Any:
    return jnp.sum(jax.random.choice(key, X, (meta["batch_size"],)))


@pytest.mark.parametrize("step", [_slice, _numpy_slice, _dynamic_slice, _choice])
def test_who_slices_by_a_batch_size_is_shown_the_mask(step: Step) -> None:
    """The message is code with the name of the hyperparameter."""
    with pytest.raises(ValueError, match="plain number") as raised:
        run(step)
    message = str(raised.value)
    assert "step must not need batch_size as a plain number" in message
    assert "vectorized.mask(n, size)" in message
    assert "jnp.mean(losses, where=counts), with batch_size as n" in message


def test_a_computed_size_is_hinted_at() -> None:
    """What JAX raises stays, as the size may come from elsewhere; a note is added."""

    def step(meta: Any, key: Any) -> Any:
        return jnp.sum(X[: jnp.minimum(meta["batch_size"], 4)])

    with pytest.raises(IndexError) as raised:
        run(step)
    assert any("vectorized.mask" in note for note in raised.value.__notes__)


def _reshape(meta: Any, key: Any) -> Any:
    return jnp.sum(X.reshape(meta["batch_size"], -1, 5))


def _computed_shape(meta: Any, key: Any) -> Any:
    return jnp.sum(jnp.zeros(jnp.minimum(meta["batch_size"], 4)))


@pytest.mark.parametrize("step", [_reshape, _computed_shape])
def test_a_shape_that_no_plain_number_explains_is_hinted_at(step: Step) -> None:
    """The first member's size does not divide the batch, or the size was computed."""
    with pytest.raises(TypeError, match="Shapes must be 1D") as raised:
        run(step)
    assert any(
        "If the shape depends on a batch size" in note and "vectorized.mask" in note
        for note in raised.value.__notes__
    )


def _float(meta: Any, key: Any) -> Any:
    return jnp.sum(X) * float(meta["batch_size"])


def _root(meta: Any, key: Any) -> Any:
    return jnp.sum(X) * math.sqrt(meta["batch_size"])


@pytest.mark.parametrize("step", [_float, _root])
def test_who_makes_a_float_of_a_batch_size_is_not_told_of_slices(step: Step) -> None:
    """It is a number to compute with: jax.numpy does."""
    with pytest.raises(ValueError, match="not need batch_size as a plain") as raised:
        run(step)
    message = str(raised.value)
    assert "jnp.sqrt(x) in place of math.sqrt(x)" in message
    assert "slice" not in message
    assert "mask" not in message


def _if(meta: Any, key: Any) -> Any:
    return jnp.sum(X) * (2 if meta["batch_size"] > 4 else 1)


def _numpy_root(meta: Any, key: Any) -> Any:
    return jnp.sum(X) * np.sqrt(meta["batch_size"])


@pytest.mark.parametrize(
    ("step", "said"),
    [(_if, "jnp.where or lax.cond"), (_numpy_root, "In place of NumPy use jax.numpy")],
)
def test_who_decides_by_a_batch_size_is_told_how(step: Step, said: str) -> None:
    """It may be a size as well, inside of a function of JAX: both are said."""
    with pytest.raises(ValueError, match="not need batch_size as a plain") as raised:
        run(step)
    assert said in str(raised.value)


def _by_mask(meta: Any, key: Any) -> Any:
    return jnp.sum(X[jnp.arange(8) < meta["batch_size"]])


def _by_rate(meta: Any, key: Any) -> Any:
    return jnp.sum(X[X > meta["dropout"]])


@pytest.mark.parametrize("step", [_by_mask, _by_rate])
def test_a_mask_is_no_index(step: Step) -> None:
    """It depends on values, not on a size: the advice is what to do with a mask."""
    with pytest.raises(IndexError) as raised:
        run(step)
    notes = raised.value.__notes__
    assert any("jnp.mean(losses, where=mask)" in note for note in notes)
    assert not any("vectorized.mask" in note for note in notes)
