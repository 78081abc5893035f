"""Trees of many kinds, and what it means that a tree is restored unchanged."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx, struct
from flax.training import train_state


def assert_alike(found: Any, expected: Any) -> None:
    """Equal structure, kinds of leaves, dtypes, weak types, devices and numbers."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (found, expected)]
    assert structures[0] == structures[1]
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for one, other in pairs:
        if isinstance(other, jax.Array):
            assert isinstance(one, jax.Array)
            assert jax.typeof(one) == jax.typeof(other)  # The weak type counts, too.
            if jnp.issubdtype(other.dtype, jax.dtypes.prng_key):
                one, other = jax.random.key_data(one), jax.random.key_data(other)
        else:
            assert type(one) is type(other)
        if isinstance(other, (np.ndarray, np.generic)):
            assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


class Pair(NamedTuple):
    """A node that is not a plain container."""

    left: Any
    right: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Registered:
    """A dataclass that is registered with JAX."""

    weights: Any
    name: str = dataclasses.field(metadata={"static": True}, default="static")


static: Any = functools.partial(struct.field, pytree_node=False)


@struct.dataclass
class OfFlax:
    """A dataclass of Flax."""

    weights: Any
    count: int = static(default=3)


class Model(linen.Module):
    """A layer with a norm and statistics."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the prediction."""
        x = linen.BatchNorm(use_running_average=False)(x)
        output: jax.Array = linen.Dense(2, param_dtype=jnp.bfloat16)(x)
        return output


def filled(fill: float, shape: Any = (), dtype: Any = jnp.float32) -> jax.Array:
    """An array that is not weakly typed."""
    return jnp.full(shape, fill, dtype)


def weights(fill: float) -> dict[str, Any]:
    """Several arrays."""
    return {"w": filled(fill, (3, 2)), "b": filled(fill, 2, jnp.bfloat16)}


MODEL = Model()
INJECTED = optax.inject_hyperparams(optax.adamw)(learning_rate=0.1)


def linen_state(fill: float) -> Any:
    """Flax's training state, with an optimiser whose numbers can be put."""
    variables = MODEL.init(jax.random.key(0), jnp.ones((4, 3)))
    create: Any = train_state.TrainState.create
    state = create(
        apply_fn=Model.apply,
        params=variables["params"],
        tx=INJECTED,
    )
    params = jax.tree.map(lambda leaf: jnp.full_like(leaf, fill), state.params)
    return {"state": state.replace(params=params), "stats": variables["batch_stats"]}


def optax_states(fill: float) -> Any:
    """Optimisers of several shapes."""
    tree = weights(fill)
    parts = optax.multi_transform(
        {"a": optax.adam(0.1), "b": optax.sgd(0.1, momentum=0.9)}, {"w": "a", "b": "b"}
    )
    steps: Any = optax.MultiSteps(optax.lion(0.1), 2)
    masked = optax.masked(optax.adam(1.0), {"w": True, "b": False})
    chain = optax.chain(optax.clip(1.0), optax.ema(0.9), masked)
    return [parts.init(tree), steps.init(tree), chain.init(tree)]


def nnx_state(fill: float) -> Any:
    """The state of an nnx module without its definition; with its own keys."""

    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.layer = nnx.Linear(3, 2, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

    _, state = nnx.split(Net(nnx.Rngs(0)))

    def changed(leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        return jnp.full_like(leaf, fill)

    return jax.tree.map(changed, state)


TREES: dict[str, Callable[[float], Any]] = {
    "linen": linen_state,
    "optax": optax_states,
    "nnx": nnx_state,
    "named tuple": lambda fill: Pair(weights(fill), Pair(None, filled(fill))),
    "registered dataclass": lambda fill: Registered(weights(fill)),
    "flax dataclass": lambda fill: OfFlax(weights(fill)),
    "ordered dict": lambda fill: collections.OrderedDict(z=filled(fill), a=weights(1)),
    "one array": lambda fill: filled(fill, 3),
    "one scalar": lambda fill: filled(fill),
    "nothing": lambda fill: {},
    "weak scalar": lambda fill: {"weak": jnp.asarray(fill), "strong": filled(fill)},
    "weak array": lambda fill: {"weak": jnp.full((3, 2), fill), "other": filled(fill)},
    "python": lambda fill: {"step": int(fill), "rate": fill, "on": fill > 1, "s": "x"},
    "key": lambda fill: {"key": jax.random.key(int(fill))},
    "keys": lambda fill: jax.random.split(jax.random.key(int(fill)), 3),
    "rbg key": lambda fill: jax.random.key(int(fill), impl="rbg"),
    "old key": lambda fill: jax.random.PRNGKey(int(fill)),
    "numpy": lambda fill: {"a": np.full(3, fill), "b": np.array(fill, np.float16)},
    "numpy scalars": lambda fill: {"a": np.float32(fill), "b": np.int8(fill)},
}


PLAIN: dict[str, Any] = {
    "dict": {"w": np.arange(6.0).reshape(2, 3)},
    "jax": {"w": jnp.arange(6.0).reshape(2, 3), "n": np.arange(3)},
    "nested": [({"a": (np.ones(1),)}, [np.zeros(2)]), ()],
    "int keys": {1: np.ones(1), 2: {10: np.zeros(1)}},
    "tuple keys": {(0, 1): np.ones(1), (1, 0): np.zeros(1)},
    "odd keys": {"!tuple": np.ones(1), "a/b": np.zeros(1), "": np.ones(2)},
    "none": {"a": None, "b": (None, np.ones(1))},
    "python": {
        "a": 1,
        "b": 2.5,
        "c": True,
        "d": "text",
        "e": b"bytes",
        "w": np.ones(1),
    },
    "extreme python": [2**63 - 1, -(2**63), 1e-300, float("inf"), np.ones(1)],
    "numpy scalars": (np.float32(1.5), np.int16(3), np.bool_(True), np.float64(2)),
    "bfloat16": {"a": jnp.ones(3, jnp.bfloat16), "b": np.ones(2, jnp.bfloat16)},
    "float8": {"a": jnp.ones(3, jnp.float8_e4m3fn)},
    "int4": {"a": jnp.ones(3, jnp.int4)},
    "complex": {"a": jnp.ones(3, jnp.complex64), "b": np.ones(2, np.complex128)},
    "bool": {"a": np.array([True, False])},
    "0-d": {"a": np.array(1.5), "b": jnp.float32(2.5), "c": np.array(3, np.int8)},
    "empty": {"a": np.zeros((0, 3), np.float32), "b": jnp.zeros((2, 0))},
    "key": {"key": jax.random.key(1), "keys": jax.random.split(jax.random.key(2), 3)},
    "no keys": {"keys": jax.random.split(jax.random.key(2), 3)[:0]},
    "rbg key": [jax.random.key(1, impl="rbg")],
    "old key": [jax.random.PRNGKey(1)],
    "not contiguous": {"a": np.arange(12).reshape(3, 4).T[::2]},
    "big endian": {"a": np.arange(3, dtype=">f8").astype(">f8")},
    "nan": {"a": np.array([np.nan, np.inf, -np.inf])},
    "one array": np.arange(3),
}
