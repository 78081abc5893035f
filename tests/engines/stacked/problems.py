"""Small problems for the stacked engine: one line is fitted, with states of all kinds.

Every problem's `train` and `score` separate the model from the kind of state, so that
runs with different states can be compared.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx
from flax.training.train_state import TrainState

from population import (
    Branch,
    Mutator,
    PopulationController,
    PopulationView,
    Ref,
    Report,
    Stop,
    hyperparams,
)
from population.engines import vectorized
from population.engines.vectorized import Summary
from population.mutators import PopulationBasedTraining

Meta = dict[str, Any]
BATCHINGS = ("vmap", "map", "loop")
INPUTS = np.array([[0.0, 1.0], [1.0, 0.5], [2.0, -1.0], [-1.0, 0.25]], np.float32)
TARGETS = INPUTS @ np.array([1.0, -2.0], np.float32) + 0.5


class Functions(NamedTuple):
    """What a user hands to `vectorized.run`."""

    init: Callable[..., Any]
    step: Callable[..., Any]
    evaluate: Callable[..., Any]


def metas(size: int) -> list[Meta]:
    """Learning rates from too small to good."""
    rates = np.geomspace(1e-3, 0.1, size).tolist()
    return [{"learning_rate": rate} for rate in rates]


def mutate(meta_params: Meta, rng: np.random.Generator) -> Meta:
    """Another learning rate."""
    factor = float(rng.choice([0.8, 1.25]))
    return {**meta_params, "learning_rate": meta_params["learning_rate"] * factor}


def pbt(every: int = 4) -> Mutator[Any]:
    """Members that copy each other every few steps."""
    return PopulationBasedTraining(mutate, every, synchronous=True)


def controller(
    mutator: Mutator[Any] | None = None,
    size: int = 4,
    steps: int = 8,
    log_dir: Any = None,
    starts: Any = None,
    **rest: Any,
) -> PopulationController:
    """A small population."""
    given = metas(size) if starts is None else starts
    mutator = pbt() if mutator is None else mutator
    options: dict[str, Any] = {"stop": Stop(steps=steps), "seed": 3} | rest
    return PopulationController(given, mutator, log_dir, **options)


def run(
    found: PopulationController, functions: Functions, every: int = 2, **options: Any
) -> Summary:
    """Train a population, by default with the one way of batching that compiles least.

    Args:
        found: The population.
        functions: The functions of one member.
        every: Steps between two reports.
        options: Further arguments of `vectorized.run`.
    """
    given: dict[str, Any] = {"batching": "vmap", "progress": False} | options
    return vectorized.run(found, *functions, every, **given)


def values(found: PopulationController) -> dict[tuple[str, int], float]:
    """All values by generation, without the run's token, and step."""
    return {
        (c.generation_id.split("-", 1)[1], c.step): c.value
        for c in found.history()
        if c.value is not None
    }


def assert_alike(one: PopulationController, other: PopulationController) -> None:
    """Two runs branched alike, and have the same values within float tolerance."""
    ours, theirs = values(one), values(other)
    assert ours.keys() == theirs.keys()
    assert _parents(one) == _parents(other)
    for place, value in ours.items():
        np.testing.assert_allclose(value, theirs[place], rtol=1e-5, atol=1e-6)


def _parents(found: PopulationController) -> list[tuple[Any, ...]]:
    def name(ref: Ref | None) -> Any:
        return None if ref is None else (ref.generation_id.split("-", 1)[1], ref.step)

    roots = [found.graph.root(generation_id) for generation_id in found.graph]
    told = [(name(root.ref), name(root.parent), root.meta_params) for root in roots]
    return sorted(told, key=lambda root: root[0])


class Traced:
    """Functions that count how often Python runs them: once for each trace.

    Args:
        functions: The functions to count.
    """

    def __init__(self, functions: Functions) -> None:
        self.counts: Counter[str] = Counter()
        wrapped = [
            self._counted(name, function)
            for name, function in functions._asdict().items()
        ]
        self.functions = Functions(*wrapped)

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def counted(*args: Any) -> Any:
            self.counts[name] += 1
            return function(*args)

        return counted


class Branching(Mutator[None]):
    """Branches as a function of the report and the view decides.

    Args:
        decide: The function.
    """

    def __init__(
        self, decide: Callable[[Report, PopulationView], Mapping[int, Branch]]
    ) -> None:
        self._decide = decide

    def init(self, view: PopulationView) -> None:
        """Remember nothing."""
        del view

    def update(
        self, state: None, report: Report, view: PopulationView
    ) -> tuple[None, Mapping[int, Branch]]:
        """Return the branches of the function."""
        return state, self._decide(report, view)


def still() -> Mutator[None]:
    """No member ever branches."""
    return Branching(lambda report, view: {})


# The model, and states of all kinds for it.


def _apply(weights: Any) -> Any:
    return INPUTS @ weights["w"] + weights["b"]


def _loss(predicted: Any) -> Any:
    return jnp.mean((jnp.reshape(predicted, (-1,)) - TARGETS) ** 2)


def _weights(key: Any) -> Any:
    return {"w": jax.random.normal(key, (2,)), "b": jnp.zeros(())}


def _score(weights: Any) -> Any:
    return _loss(_apply(weights))


def _descended(weights: Any, rate: Any) -> Any:
    gradient = jax.grad(_score)(weights)
    return jax.tree.map(lambda w, g: w - rate * g, weights, gradient)


def _plain() -> Functions:
    return Functions(
        lambda key, meta: _weights(key),
        lambda state, meta, batch, key: _descended(state, meta["learning_rate"]),
        lambda state, meta, batch: _score(state),
    )


PLAIN = _plain()


def _injected() -> Functions:
    model = linen.Dense(1)
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=0.0)

    def init(key: Any, meta: Any) -> Any:
        params = model.init(key, INPUTS)
        opt_state = hyperparams.put(optimizer.init(params), meta, strict=False)
        return {"params": params, "opt_state": opt_state}

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        gradient = jax.grad(lambda p: _loss(model.apply(p, INPUTS)))(state["params"])
        updates, opt_state = optimizer.update(gradient, state["opt_state"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "opt_state": opt_state}

    def evaluate(state: Any, meta: Any, batch: Any) -> Any:
        rate = state["opt_state"].hyperparams["learning_rate"]
        told = {"rate": rate, "assigned": meta["learning_rate"]}
        return _loss(model.apply(state["params"], INPUTS)), told

    return Functions(init, step, evaluate)


def _train_state() -> Functions:
    model = linen.Dense(1)

    def init(key: Any, meta: Any) -> Any:
        rate = meta["learning_rate"]
        optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=rate)
        params = model.init(key, INPUTS)
        created: Any = TrainState.create
        return created(apply_fn=model.apply, params=params, tx=optimizer)

    def score(params: Any, state: Any) -> Any:
        return _loss(state.apply_fn(params, INPUTS))

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        gradient = jax.grad(score)(state.params, state)
        return state.apply_gradients(grads=gradient)

    return Functions(init, step, lambda s, meta, batch: score(s.params, s))


def _nnx_split() -> Functions:
    def init(key: Any, meta: Any) -> Any:
        return nnx.split(nnx.Linear(2, 1, rngs=nnx.Rngs(key)))

    def score(state: Any, definition: Any) -> Any:
        return _loss(nnx.merge(definition, state)(INPUTS))

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        definition, weights = state
        gradient = jax.grad(score)(weights, definition)
        rate = meta["learning_rate"]
        return definition, jax.tree.map(lambda w, g: w - rate * g, weights, gradient)

    return Functions(init, step, lambda state, meta, batch: score(state[1], state[0]))


def _nnx_score(model: Any) -> Any:
    return _loss(model(INPUTS))


def _nnx_module() -> Functions:
    def init(key: Any, meta: Any) -> Any:
        return nnx.Linear(2, 1, rngs=nnx.Rngs(key))

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        gradient = nnx.grad(_nnx_score)(state)
        rate = meta["learning_rate"]
        weights = nnx.state(state, nnx.Param)
        nnx.update(state, jax.tree.map(lambda w, g: w - rate * g, weights, gradient))
        return state

    return Functions(init, step, lambda state, meta, batch: _nnx_score(state))


def _nnx_optimizer() -> Functions:
    def init(key: Any, meta: Any) -> Any:
        model = nnx.Linear(2, 1, rngs=nnx.Rngs(key))
        return model, nnx.Optimizer(model, optax.adam(0.05), wrt=nnx.Param)

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        model, optimizer = state
        optimizer.update(model, nnx.grad(_nnx_score)(model))
        return model, optimizer

    return Functions(init, step, lambda state, meta, batch: _nnx_score(state[0]))


@dataclasses.dataclass(frozen=True)
class Module:
    """A module like Equinox's: arrays and functions are leaves, sizes are not."""

    weight: Any
    bias: Any
    activation: Any
    width: int

    def __call__(self, inputs: Any) -> Any:
        """The outputs of one layer."""
        return self.activation(inputs @ self.weight + self.bias) * (2 / self.width)

    def tree_flatten_with_keys(self) -> tuple[Any, int]:
        """All fields but the width are leaves."""
        names = ("weight", "bias", "activation")
        keys = map(jax.tree_util.GetAttrKey, names)
        return [(k, getattr(self, n)) for k, n in zip(keys, names, strict=True)], (
            self.width
        )

    @classmethod
    def tree_unflatten(cls, width: int, leaves: Any) -> Module:
        """The module of these leaves."""
        weight, bias, activation = leaves
        return cls(weight, bias, activation, width)


jax.tree_util.register_pytree_with_keys_class(Module)


def _module() -> Functions:
    def init(key: Any, meta: Any) -> Any:
        weights = _weights(key)
        return Module(weights["w"], weights["b"], lambda x: jnp.arcsinh(x) + x, 2)

    def score(arrays: Any, activation: Any) -> Any:
        weight, bias = arrays
        return _loss(Module(weight, bias, activation, 2)(INPUTS))

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        arrays = state.weight, state.bias
        gradient = jax.grad(score)(arrays, state.activation)
        rate = meta["learning_rate"]
        weight, bias = jax.tree.map(lambda w, g: w - rate * g, arrays, gradient)
        return dataclasses.replace(state, weight=weight, bias=bias)

    return Functions(init, step, lambda state, meta, batch: _loss(state(INPUTS)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Numbered:
    """A module whose sizes and rates are leaves, like those of Equinox's layers."""

    weights: Any
    heads: int
    rate: float


def _numbered() -> Functions:
    def init(key: Any, meta: Any) -> Any:
        return Numbered(_weights(key), 1, 0.5)

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        shape = (state.heads, 2)  # The size must be a plain number.
        assert jnp.reshape(state.weights["w"], shape).shape == (1, 2)
        rate = meta["learning_rate"] * state.rate
        return dataclasses.replace(state, weights=_descended(state.weights, rate))

    def evaluate(state: Any, meta: Any, batch: Any) -> Any:
        told = {"heads": state.heads, "rate": state.rate}
        return _score(state.weights), told

    return Functions(init, step, evaluate)


def _with_key() -> Functions:
    def init(key: Any, meta: Any) -> Any:
        weights, rest = jax.random.split(key)
        return {"weights": _weights(weights), "key": rest, "raw": jnp.uint32(7)}

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        rest, now = jax.random.split(state["key"])
        rate = meta["learning_rate"] * jax.random.uniform(now)
        return {**state, "weights": _descended(state["weights"], rate), "key": rest}

    return Functions(init, step, lambda state, meta, batch: _score(state["weights"]))


def _narrow() -> Functions:
    def init(key: Any, meta: Any) -> Any:
        weights = _weights(key)
        small = jax.tree.map(lambda x: x.astype(jnp.bfloat16), weights)
        on = jnp.bool_(True)
        return {"weights": weights, "mean": small, "count": jnp.int8(0), "on": on}

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        weights = _descended(state["weights"], meta["learning_rate"])
        mean = jax.tree.map(
            lambda m, w: (m + w.astype(m.dtype)) / 2, state["mean"], weights
        )
        count, on = state["count"] + jnp.int8(1), ~state["on"]
        return {"weights": weights, "mean": mean, "count": count, "on": on}

    def evaluate(state: Any, meta: Any, batch: Any) -> Any:
        # A value of this type would show how each way of batching rounds.
        told = {"count": state["count"], "on": state["on"], "half": jnp.bfloat16(0.5)}
        return _score(state["weights"]), told

    return Functions(init, step, evaluate)


def _python_scalars() -> Functions:
    def init(key: Any, meta: Any) -> Any:
        return {"weights": _weights(key), "count": 0, "scale": 1.0, "fixed": True}

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        rate = meta["learning_rate"] * state["scale"]
        weights = _descended(state["weights"], rate)
        count, scale = state["count"] + 1, state["scale"] * 0.9
        assert state["fixed"] is True
        return {**state, "weights": weights, "count": count, "scale": scale}

    return Functions(init, step, lambda state, meta, batch: _score(state["weights"]))


def _array() -> Functions:
    def score(state: Any) -> Any:
        return _loss(INPUTS @ state[:2] + state[2])

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        return state - meta["learning_rate"] * jax.grad(score)(state)

    return Functions(
        lambda key, meta: jax.random.normal(key, (3,)),
        step,
        lambda state, meta, batch: score(state),
    )


STATES: dict[str, Callable[[], Functions]] = {
    "dict": _plain,
    "array": _array,
    "linen and injected": _injected,
    "train state": _train_state,
    "nnx split": _nnx_split,
    "nnx module": _nnx_module,
    "nnx optimizer": _nnx_optimizer,
    "module": _module,
    "module with numbers": _numbered,
    "key": _with_key,
    "narrow": _narrow,
    "python scalars": _python_scalars,
}
