"""Training loops for `check_loop`: right ones, and one for each defect."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from population import hyperparams

Function = Callable[..., Any]
SGD = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)
TARGET = jnp.array([1.0, 2.0, 3.0])
RATE = {"learning_rate": 0.1}


class State(NamedTuple):
    """A training state.

    Attributes:
        weights: The trained weights.
        opt_state: The state of the optimiser.
        more: Anything else that a loop keeps.
    """

    weights: Any
    opt_state: Any
    more: Any = None


class Case(NamedTuple):
    """A loop, and the expected report.

    Attributes:
        name: The special property of the loop.
        init: Makes a state.
        step: Trains the state.
        meta_params: The hyperparameters.
        kind: The kind of the finding; "" if the loop is right.
        place: The place of the finding.
        words: What the message must say.
        notes: What a note must say.
    """

    name: str
    init: Function
    step: Function
    meta_params: Any
    kind: str = ""
    place: str = ""
    words: str = ""
    notes: str = ""

    def __str__(self) -> str:
        return self.name


def loss(weights: jax.Array, offset: Any = 0.0) -> jax.Array:
    """A parabola."""
    return jnp.sum((weights + offset - TARGET) ** 2)


def init(meta_params: Any = None, optimizer: Any = SGD, more: Any = None) -> State:
    """Fresh weights; the optimiser has the meta_params that it knows."""
    opt_state = optimizer.init(jnp.zeros(3))
    opt_state = hyperparams.put(opt_state, meta_params or {}, strict=False)
    return State(jnp.zeros(3), opt_state, more)


def update(state: State, optimizer: Any = SGD, offset: Any = 0.0) -> State:
    """One step of gradient descent."""
    gradient = jax.grad(loss)(state.weights, offset)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.weights)
    weights = optax.apply_updates(state.weights, updates)
    return State(weights, opt_state, state.more)


@jax.jit
def step(state: State) -> State:
    """One step, compiled."""
    return update(state)


@functools.partial(jax.jit, donate_argnums=0)
def donating(state: State) -> State:
    """One compiled step that donates its state."""
    return update(state)


def with_key(meta_params: Any) -> State:
    """A state with its own key."""
    return init(meta_params, more=jax.random.key(7))


def noise(key: jax.Array) -> jax.Array:
    """Something random."""
    return 0.1 * jax.random.normal(key, (3,))


@jax.jit
def splitting(state: State) -> tuple[State, jax.Array]:
    """A step that draws from the state's key, and stores a new one there."""
    key, mine = jax.random.split(state.more)
    after = update(state, offset=noise(mine))
    return after._replace(more=key), loss(after.weights)


@jax.jit
def never_splitting(state: State) -> State:
    """A step that draws from the state's key at each call."""
    return update(state, offset=noise(state.more))


@jax.jit
def counting(state: State) -> State:
    """A fixed key, but folded with a counter."""
    key = jax.random.fold_in(jax.random.key(0), state.more)
    return update(state, offset=noise(key))._replace(more=state.more + 1)


@jax.jit
def fixed_in_a_scan(state: State) -> State:
    """Inner steps that all have the same noise."""

    def inner(carried: State, _: None) -> tuple[State, None]:
        return update(carried, offset=noise(jax.random.key(0))), None

    after, _ = jax.lax.scan(inner, state, None, length=2)
    return after


@functools.partial(jax.jit, donate_argnums=0)
def of_three(state: State, meta_params: Any, key: jax.Array) -> tuple[State, Any]:
    """A step with everything: meta_params as arguments, keys, donation, losses."""
    offset = meta_params["noise"] * noise(key)
    after = update(state, offset=offset)
    return after, {"loss": loss(after.weights), "tag": None}


def in_python(state: Any, meta_params: Any) -> Any:
    """A loop without arrays."""
    return state - 0.01 * (2 * (meta_params + state - 2) + 2 * (state - 1))


def in_numpy(state: Any, hyperparams: Any) -> Any:
    """A loop that JAX cannot trace."""
    weights = np.asarray(state["weights"])
    gradient = 2 * (weights - np.asarray(TARGET))
    velocity = hyperparams["momentum"] * state["velocity"] + gradient
    count = state["count"] + 1
    rate = hyperparams["learning_rate"] / count if float(weights[0]) < 9 else 0.0
    return {"weights": weights - rate * velocity, "velocity": velocity, "count": count}


def numpy_init(meta_params: Any) -> Any:
    """A state with NumPy's own dtypes."""
    del meta_params
    return {"weights": np.zeros(3), "velocity": np.zeros(3), "count": 0}


def numpy_ignoring(state: Any, hyperparams: Any) -> Any:
    """A loop that JAX cannot trace, and that does not use the momentum."""
    return in_numpy(state, {**hyperparams, "momentum": 0.5})


@functools.partial(jax.jit, static_argnums=1)
def of_text(state: State, name: str, scale: Any) -> State:
    """Another string needs another program."""
    return update(state, offset=scale * (1.0 if name == "up" else -1.0))


@functools.partial(jax.jit, static_argnums=1)
def static(state: State, rate: float) -> State:
    """A learning rate that is a constant of the program."""
    weights = state.weights - rate * jax.grad(loss)(state.weights)
    return state._replace(weights=weights)


def jitting_anew(state: State) -> State:
    """A function that is made and compiled at each step."""
    after: State = jax.jit(lambda inner: update(inner))(state)
    return after


def stateless(optimizer: Function) -> Function:
    """A step that makes its optimiser from meta_params, and keeps its state."""

    def made(state: State, meta_params: Any) -> State:
        return update(state, optimizer(meta_params))

    return made


def sgd_of(meta_params: Any) -> Any:
    """An optimiser that gets its first learning rate from another name."""
    return optax.inject_hyperparams(optax.sgd)(learning_rate=meta_params["lr"])


def lr_init(meta_params: Any) -> State:
    """Fresh states are right with this name, too."""
    return init(optimizer=sgd_of(meta_params))


def nested_init(meta_params: Any) -> State:
    """Fresh states are right at this depth, too."""
    return init(optimizer=sgd_of(meta_params["optimizer"]))


def own_init(meta_params: Any) -> State:
    """The learning rate in a leaf of the user; a Python number, unchanged."""
    return State(jnp.zeros(3), None, meta_params["learning_rate"])


@jax.jit
def own_step(state: State) -> State:
    """Read it from there."""
    gradient = jax.grad(loss)(state.weights)
    return state._replace(weights=state.weights - state.more * gradient)


@jax.jit
def own_unread(state: State) -> State:
    """Do not read it from there."""
    return state._replace(weights=state.weights - 0.1 * jax.grad(loss)(state.weights))


@jax.jit
def noted(state: State, meta_params: Any) -> State:
    """The state only records the first value; the step uses the new one."""
    gradient = jax.grad(loss)(state.weights)
    rate = meta_params["learning_rate"]
    return state._replace(weights=state.weights - rate * gradient)


@jax.jit
def warming_up(state: State, meta_params: Any) -> State:
    """It has no effect in three steps, but it is read."""
    late = state.more > 100
    offset = jnp.where(late, meta_params["late"], 0.0)
    return update(state, offset=offset)._replace(more=state.more + 1)


@jax.jit
def clipped(state: State, meta_params: Any) -> State:
    """A limit that a small change does not reach, but a larger one does."""
    after = update(state)
    limit = meta_params["limit"]
    return after._replace(weights=jnp.clip(after.weights, -limit, limit))


SCHEDULED = optax.inject_hyperparams(optax.sgd)(
    learning_rate=optax.linear_schedule(0.1, 0.0, 100)
)
PLAIN = optax.sgd(0.1)


def sharing() -> Function:
    """Weights that every state shares, and that the first step donates."""
    weights = jnp.zeros(3)

    def made(meta_params: Any) -> State:
        return init(meta_params)._replace(weights=weights)

    return made


def keeping(state: State) -> State:
    """The old weights are kept as a target after they were donated."""
    after: State = donating(state)
    return after._replace(more=state.weights)


def using(state: State) -> State:
    """The old weights are used after they were donated."""
    after: State = donating(state)
    return after._replace(weights=(after.weights + state.weights) / 2)


def twice(meta_params: Any) -> State:
    """A target network that is the array of the weights."""
    fresh = init(meta_params)
    return fresh._replace(more=fresh.weights)


def with_target(meta_params: Any) -> State:
    """A target network with its own array."""
    fresh = init(meta_params)
    return fresh._replace(more=jnp.copy(fresh.weights))


def growing(state: Any) -> Any:
    """A history in the state."""
    return {"weights": state["weights"] + 1, "history": [*state["history"], 1.0]}


def wide_init(meta_params: Any) -> Any:
    """Weights whose width is a hyperparameter."""
    return {"weights": jnp.zeros(meta_params["width"])}


def halved(state: Any) -> Any:
    """A step that leaves float32."""
    return {"weights": (state["weights"] + 1).astype(jnp.bfloat16)}


def doubled(state: Any) -> Any:
    """Weights that depend only on the last ones."""
    return {"weights": 2 * state["weights"]}


def one_leaf(meta_params: Any) -> Any:
    """Only weights."""
    del meta_params
    return {"weights": jnp.zeros(3)}


def from_batches() -> Function:
    """Batches from an iterator: no two runs are equal, and none is wrong."""
    batches = itertools.count()

    @jax.jit
    def on_batch(state: State, offset: Any) -> State:
        return update(state, offset=offset)

    return lambda state: on_batch(state, float(next(batches)))


def from_counter() -> Function:
    """Keys that the loop itself counts, outside of the traced step."""
    numbers = itertools.count()

    @jax.jit
    def with_key(state: State, key: jax.Array) -> State:
        return update(state, offset=noise(key))

    return lambda state: with_key(state, jax.random.key(next(numbers)))


def scaled_init(meta_params: Any) -> Any:
    """A hyperparameter that only the first weights use."""
    return {"weights": meta_params["scale"] * jnp.ones(3)}


def diverging(state: State, meta_params: Any) -> State:
    """It takes the root of a negative number."""
    return state._replace(weights=jnp.sqrt(state.weights - meta_params["shift"]))


MANY = {"learning_rate": 0.1, "noise": 0.5}
LR = {"lr": 0.1}
TEXTS = {"learning_rate": 0.1, "name": "up", "scale": 1.0}
BOTH = {"learning_rate": 0.1, "momentum": 0.9}

RIGHT = [
    Case("the loop of the README", init, step, RATE),
    Case("donated buffers", init, donating, RATE),
    Case("all arguments and losses", init, of_three, MANY),
    Case("a key in the state", with_key, splitting, RATE, notes=r"more.*worker\.key"),
    Case(
        "a fixed key and a count",
        lambda meta: init(meta, more=0),
        counting,
        RATE,
        notes=r"loops\.py.* depends on state\.more, which a branch copies",
    ),
    Case("a rate under another name", lr_init, step, LR),
    Case("a rate under another name, donated", lr_init, donating, LR),
    Case("a nested rate", nested_init, step, {"optimizer": LR}),
    Case("plain Python", lambda meta: 0.0, in_python, 1.0),
    Case("NumPy", numpy_init, in_numpy, BOTH, notes="cannot trace"),
    Case("a rate of zero", init, step, {"learning_rate": 0.0}),
    Case("text", init, lambda s, m: of_text(s, m["name"], m["scale"]), TEXTS),
    Case("an optimiser for each", init, stateless(lambda m: SGD), RATE),
    Case("a note of the rate", own_init, noted, RATE),
    Case(
        "what acts later",
        lambda meta: init(meta, more=0),
        warming_up,
        {**RATE, "late": 0.5},
        notes="late is read",
    ),
    Case("a limit", init, clipped, {**RATE, "limit": 50.0}),
    Case("a target network", with_target, donating, RATE),
    Case("a size of the first weights", scaled_init, doubled, {"scale": 0.1}),
    Case("a counter", init, from_counter(), RATE, notes="Two runs"),
    Case("an iterator", init, from_batches(), RATE, notes="Two runs"),
]

WRONG = [
    Case("another name", init, step, LR, "no effect", "lr", "has learning_rate"),
    Case(
        "not injected",
        lambda meta: init(optimizer=PLAIN),
        lambda state: update(state, PLAIN),
        RATE,
        "no effect",
        "learning_rate",
        "inject_hyperparams",
    ),
    Case(
        "a schedule in charge",
        lambda meta: init(optimizer=SCHEDULED),
        lambda state: update(state, SCHEDULED),
        RATE,
        "no effect",
        "learning_rate",
        "schedule",
    ),
    Case(
        "another optimiser in the step",
        init,
        lambda state: update(
            state._replace(opt_state=PLAIN.init(state.weights)), PLAIN
        )._replace(opt_state=state.opt_state),
        RATE,
        "no effect",
        "learning_rate",
        r"hyperparams\['learning_rate'\], which the step does not read",
    ),
    Case("unread", own_init, own_unread, RATE, "no effect", "learning_rate", "more"),
    Case(
        "ignored in NumPy",
        numpy_init,
        numpy_ignoring,
        BOTH,
        "no effect",
        "momentum",
        "3 steps from each value end in the same",
    ),
    Case(
        "ignored beside an iterator",
        init,
        from_batches(),
        {**RATE, "noise": 0.1},
        "no effect",
        "noise",
        "nothing that a step computes",
    ),
    Case(
        "the old rate, one's own",
        own_init,
        own_step,
        RATE,
        "lost on restore",
        "learning_rate",
        r"state\.more.*argument of the step",
    ),
    Case(
        "a static argument",
        init,
        lambda state, meta: static(state, meta["learning_rate"]),
        RATE,
        "compiles again",
        "learning_rate",
        "static compiled anew.*not static",
    ),
    Case(
        "a closure",
        init,
        lambda state, meta: jax.jit(lambda s: static(s, meta["learning_rate"]))(state),
        RATE,
        "compiles again",
        "step",
        "<lambda> anew.*once, outside",
    ),
    Case("made anew", init, jitting_anew, RATE, "compiles again", "step", "anew"),
    Case(
        "never split",
        with_key,
        never_splitting,
        RATE,
        "constant key",
        r"loops.py:\d+ \(noise\)",
        r"state\.more, which no step changes.*split",
    ),
    Case(
        "a fixed key in a scan",
        init,
        fixed_in_a_scan,
        RATE,
        "constant key",
        r"loops.py:\d+ \(noise\)",
        "a fixed key.*Let step take a key",
    ),
    Case(
        "a key that is not passed on",
        init,
        lambda s, m, key: of_three(s, m, jax.random.key(0)),
        MANY,
        "constant key",
        r"loops.py:\d+ \(noise\)",
        "Draw them from the key",
    ),
    Case("shared", sharing(), donating, RATE, "donated", "init", "jnp.copy"),
    Case("kept", with_target, keeping, RATE, "donated", "step", r"state\.more"),
    Case("used", init, using, RATE, "donated", "step", "deleted"),
    Case(
        "one buffer twice",
        twice,
        donating,
        RATE,
        "donated",
        "init",
        r"state\.weights and state\.more",
    ),
    Case(
        "an object",
        lambda meta: init(meta, more=object()),
        step,
        RATE,
        "params",
        r"state\.more",
        "object, which cannot be saved",
    ),
    Case(
        "a growing state",
        lambda meta: {"weights": 0.0, "history": []},
        growing,
        {},
        "params",
        "step",
        r"only what was saved has \['history'\]\[0\]",
    ),
    Case(
        "another dtype",
        one_leaf,
        halved,
        {},
        "params",
        r"state\['weights'\]",
        "saved as bfloat16 and comes back as float32",
    ),
    Case(
        "a shape",
        wide_init,
        lambda state: {"weights": state["weights"] + 1},
        {"width": 8},
        "params",
        "width",
        r"from 8 to 9.*shape \(8,\)",
    ),
    Case("idle", one_leaf, lambda s: s, {}, "nothing trains", "step", "Return the new"),
    Case(
        "NaN",
        init,
        diverging,
        {"shift": 0.5},
        "not a number",
        r"state\.weights",
        "after step 1",
    ),
]
