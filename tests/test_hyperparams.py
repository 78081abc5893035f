"""Hyperparameters in a running optimiser: put, read, errors, no compilation."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen
from flax.training import train_state

from population import PopulationController, hyperparams
from population.mutators import FixedSchedule
from population.params import FileParams, MemoryParams
from population.testing.loop.trial import compiled

WEIGHTS = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
IN_FORCE = 1e-6  # float32(0.1) is not 0.1.


def adam_state(dtype: Any = None, **numbers: Any) -> Any:
    """A state of Adam with numbers that can be put."""
    make = optax.inject_hyperparams(optax.adam, hyperparam_dtype=dtype)
    return make(**{"learning_rate": 0.1, **numbers}).init(WEIGHTS)


def scaled_by(number: Any) -> Any:
    """An injected state with this number, as the user wrote it."""

    def scale(factor: Any) -> optax.GradientTransformation:
        return optax.scale(factor)

    return optax.inject_hyperparams(scale)(factor=number).init(WEIGHTS)


def kinds(tree: Any) -> Any:
    """The properties of a tree that a compiled step depends on."""
    leaves, structure = jax.tree.flatten(tree)
    shaped = [jax.typeof(leaf) for leaf in leaves]
    weak = [getattr(leaf, "weak_type", None) for leaf in leaves]
    return structure, shaped, weak


def test_what_was_put_is_in_force() -> None:
    """`read` returns the numbers of `put`, as Python numbers."""
    state = hyperparams.put(adam_state(), {"learning_rate": 0.02, "b1": 0.8})
    found = hyperparams.read(state)
    assert found["learning_rate"] == pytest.approx(0.02, rel=IN_FORCE)
    assert found["b1"] == pytest.approx(0.8, rel=IN_FORCE)
    assert found["b2"] == pytest.approx(0.999, rel=IN_FORCE)
    assert type(found["learning_rate"]) is float


def test_the_given_state_is_left_as_it_was() -> None:
    """`put` makes a copy; the old state has the old numbers."""
    before = adam_state()
    hyperparams.put(before, {"learning_rate": 0.5})
    assert hyperparams.read(before)["learning_rate"] == pytest.approx(0.1, rel=IN_FORCE)


def test_the_update_uses_the_new_number() -> None:
    """The optimiser trains with it."""
    optimiser = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
    state = hyperparams.put(optimiser.init(WEIGHTS), {"learning_rate": 2.0})
    updates, _ = optimiser.update(WEIGHTS, state, WEIGHTS)
    np.testing.assert_allclose(updates["w"], -2.0 * np.ones((3, 2)), rtol=IN_FORCE)


VALUES = [
    pytest.param(3, id="int"),
    pytest.param(0.25, id="float"),
    pytest.param(True, id="bool"),
    pytest.param(np.float32(0.25), id="np.float32"),
    pytest.param(np.float64(0.25), id="np.float64"),
    pytest.param(np.int64(3), id="np.int64"),
    pytest.param(np.array(0.25), id="np.array"),
    pytest.param(jnp.float32(0.25), id="jnp.float32"),
    pytest.param(jnp.asarray(0.25), id="weak jnp"),
    pytest.param(jnp.bfloat16(0.25), id="jnp.bfloat16"),
    pytest.param(jnp.float16(0.25), id="jnp.float16"),
]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("dtype", [None, jnp.float32, jnp.bfloat16, jnp.float16])
def test_dtype_and_weak_type_of_a_float_are_kept(value: Any, dtype: Any) -> None:
    """For each kind of number, a compiled step sees no difference."""
    before = adam_state(dtype)
    after = hyperparams.put(before, {"learning_rate": value})
    assert kinds(after) == kinds(before)
    found = hyperparams.read(after)["learning_rate"]
    assert found == pytest.approx(float(value), rel=0.01)


@pytest.mark.parametrize(
    "value", [3, True, 3.0, np.int32(3), np.float32(3), jnp.int32(3), jnp.float32(3)]
)
@pytest.mark.parametrize("number", [1, jnp.int32(1), jnp.uint8(1)])
def test_dtype_and_weak_type_of_an_int_are_kept(value: Any, number: Any) -> None:
    """An integral float is accepted for an int, too."""
    before = scaled_by(number)
    after = hyperparams.put(before, {"factor": value})
    assert kinds(after) == kinds(before)
    assert hyperparams.read(after) == {"factor": int(value)}
    assert type(hyperparams.read(after)["factor"]) is int


@pytest.mark.parametrize("number", [0.5, jnp.asarray(0.5), jnp.float32(0.5)])
def test_a_weak_float_stays_weak_and_a_strong_one_strong(number: Any) -> None:
    """Optimisers have both kinds; `put` changes neither into the other."""
    before = scaled_by(number)
    for value in (2, 0.25, np.float64(0.25)):
        assert kinds(hyperparams.put(before, {"factor": value})) == kinds(before)


def chained() -> Any:
    """Two injected states in a chain, one of them masked."""
    return optax.chain(
        optax.clip(1.0),
        optax.masked(
            optax.inject_hyperparams(optax.add_decayed_weights)(weight_decay=0.1),
            {"w": True, "b": False},
        ),
        optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
    )


def by_part() -> Any:
    """An optimiser for each part of the weights."""
    return optax.multi_transform(
        {
            "fast": optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
            "slow": optax.inject_hyperparams(optax.sgd)(learning_rate=0.01),
        },
        {"w": "fast", "b": "slow"},
    )


def in_steps() -> Any:
    """An injected optimiser inside of another transformation."""
    inner = optax.inject_hyperparams(optax.adam)(learning_rate=0.1)
    return optax.MultiSteps(inner, every_k_schedule=2)


def within_another() -> Any:
    """An injected optimiser whose factory injects once more."""

    def outer(scale: Any) -> optax.GradientTransformation:
        inner = optax.inject_hyperparams(optax.adam)(learning_rate=0.1)
        return optax.chain(inner, optax.scale(scale))

    return optax.inject_hyperparams(outer)(scale=1.0)


@pytest.mark.parametrize(
    ("make", "numbers"),
    [
        (chained, {"learning_rate": 0.5, "weight_decay": 0.2}),
        (by_part, {"learning_rate": 0.5}),
        (in_steps, {"learning_rate": 0.5}),
        (within_another, {"learning_rate": 0.5, "scale": 2.0}),
        (within_another, {"learning_rate": 0.5}),
        (within_another, {"scale": 2.0}),
    ],
)
def test_nested_states_are_found_at_any_depth(
    make: Callable[[], Any], numbers: dict[str, float]
) -> None:
    """They are found in chains, masks, parts, and injections within injections."""
    before = make().init(WEIGHTS)
    after = hyperparams.put(before, numbers)
    assert kinds(after) == kinds(before)
    found = hyperparams.read(after)
    assert {name: found[name] for name in numbers} == pytest.approx(numbers)


def test_a_name_is_set_in_every_state_that_has_it() -> None:
    """If two optimisers have a learning rate, both get it."""
    state = hyperparams.put(by_part().init(WEIGHTS), {"learning_rate": 0.5})
    parts = state.inner_states
    for part in ("fast", "slow"):
        inner = parts[part].inner_state
        assert float(inner.hyperparams["learning_rate"]) == 0.5


class Model(linen.Module):
    """A layer with a norm, so that the state has more than weights."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the prediction."""
        output: jax.Array = linen.Dense(1)(linen.LayerNorm()(x))
        return output


def test_a_train_state_of_flax_is_looked_through() -> None:
    """The optimiser state may be a field with any name."""
    model = Model()
    create: Any = train_state.TrainState.create
    state = create(
        apply_fn=model.apply,
        params=model.init(jax.random.key(0), jnp.ones((1, 3)))["params"],
        tx=optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    )
    after = hyperparams.put(state, {"learning_rate": 0.5})
    assert isinstance(after, train_state.TrainState)
    assert kinds(after) == kinds(state)
    assert hyperparams.read(after)["learning_rate"] == 0.5


class Loop(NamedTuple):
    """A user's own training state."""

    weights: Any
    opt_state: Any
    step: Any


def test_other_leaves_are_the_very_same_objects() -> None:
    """Only the numbers are copied, however large the weights are."""
    before = Loop(WEIGHTS, adam_state(), 7)
    after = hyperparams.put(before, {"learning_rate": 0.5})
    assert type(after) is Loop
    assert after.weights["w"] is before.weights["w"]
    assert (
        after.opt_state.inner_state[0].mu["w"]
        is before.opt_state.inner_state[0].mu["w"]
    )
    assert after.step == 7


def test_an_unknown_name_lists_the_known_ones() -> None:
    """A typo must not be a hyperparameter that is never used without an error."""
    with pytest.raises(ValueError, match=r"\['lr'\].*b1.*learning_rate"):
        hyperparams.put(adam_state(), {"lr": 0.1, "b1": 0.9})


def test_a_state_without_injection_says_how_to_wrap_it() -> None:
    """The message has the line that the user has to write."""
    with pytest.raises(ValueError, match="inject_hyperparams"):
        hyperparams.put(optax.adam(0.1).init(WEIGHTS), {"learning_rate": 0.1})


def test_a_scheduled_name_is_refused() -> None:
    """A schedule would overwrite the number at the next update."""
    schedule = optax.linear_schedule(0.1, 0.0, 10)
    state = optax.inject_hyperparams(optax.adam)(learning_rate=schedule).init(WEIGHTS)
    with pytest.raises(ValueError, match=r"'learning_rate'.*schedule"):
        hyperparams.put(state, {"learning_rate": 0.5})
    assert hyperparams.read(hyperparams.put(state, {"b1": 0.5}))["b1"] == 0.5


@pytest.mark.parametrize(
    "value", ["0.1", None, [0.1], np.ones(1), np.ones(2), 1j, {"a": 1}, object()]
)
@pytest.mark.parametrize("number", [0.5, 1])
def test_what_is_no_number_is_refused_by_name(value: Any, number: Any) -> None:
    """The message names the hyperparameter and has the value."""
    with pytest.raises(ValueError, match="factor must be a number"):
        hyperparams.put(scaled_by(number), {"factor": value})


@pytest.mark.parametrize("value", [2.5, math.nan, math.inf, -math.inf, 1e12, 10**12])
def test_what_does_not_fit_an_int_is_refused_by_name(value: float) -> None:
    """Neither a fraction nor a number too large for int32 is cut off."""
    for number in (1, jnp.int32(1)):
        with pytest.raises(ValueError, match="factor must be"):
            hyperparams.put(scaled_by(number), {"factor": value})


def test_a_negative_number_does_not_fit_an_unsigned_int() -> None:
    """Otherwise it would become 255."""
    with pytest.raises(ValueError, match="factor must be"):
        hyperparams.put(scaled_by(jnp.uint8(1)), {"factor": -1})


def test_what_is_not_strict_takes_what_the_state_knows() -> None:
    """meta_params may have more than the optimiser's numbers; others are ignored."""
    meta = {"learning_rate": 0.5, "batch_size": 32, "name": "wide"}
    state = hyperparams.put(adam_state(), meta, strict=False)
    assert hyperparams.read(state)["learning_rate"] == 0.5


@pytest.mark.parametrize("meta", [0.1, None, "text", [1, 2], (1, 2)])
@pytest.mark.parametrize("strict", [True, False])
def test_what_has_no_names_is_refused(meta: Any, strict: bool) -> None:
    """meta_params need not be a dict; but then nothing can be put."""
    with pytest.raises(TypeError, match="needs numbers by name"):
        hyperparams.put(adam_state(), meta, strict=strict)


def test_what_is_not_strict_leaves_schedules_in_charge() -> None:
    """A name that a schedule sets is ignored, others are put."""
    schedule = optax.linear_schedule(0.1, 0.0, 10)
    state = optax.inject_hyperparams(optax.adam)(learning_rate=schedule).init(WEIGHTS)
    meta = {"learning_rate": 0.5, "b1": 0.5}
    found = hyperparams.read(hyperparams.put(state, meta, strict=False))
    assert found["learning_rate"] == pytest.approx(0.1, rel=IN_FORCE)
    assert found["b1"] == 0.5


def test_reading_a_state_without_injection_finds_nothing() -> None:
    """To read such a state is not an error."""
    assert hyperparams.read(optax.adam(0.1).init(WEIGHTS)) == {}
    assert hyperparams.read({"nothing": None}) == {}


class Trainer:
    """A jitted step that counts how often it is traced.

    Args:
        optimiser: The optimiser.
        place: Applied to a fresh state, for example to put it on a device.
    """

    def __init__(
        self, optimiser: Any, place: Callable[[Any], Any] = lambda state: state
    ) -> None:
        self._optimiser = optimiser
        self._place = place
        self.traces = 0
        self.step = jax.jit(self._step, donate_argnums=0)

    @property
    def compilations(self) -> int:
        """How many programs were compiled for the step."""
        size: Any = self.step
        return int(size._cache_size())

    def init(self, meta: Any = None) -> Any:
        """A fresh state."""
        weights = jax.tree.map(jnp.copy, WEIGHTS)
        opt_state = self._optimiser.init(weights)
        opt_state = hyperparams.put(opt_state, meta or {}, strict=False)
        return self._place(Loop(weights, opt_state, jnp.zeros((), jnp.int32)))

    def _step(self, state: Loop, batch: jax.Array) -> Loop:
        self.traces += 1

        def loss(weights: Any) -> jax.Array:
            return jnp.mean((batch @ weights["w"] + weights["b"]) ** 2)

        gradients = jax.grad(loss)(state.weights)
        updates, opt_state = self._optimiser.update(
            gradients, state.opt_state, state.weights
        )
        weights = optax.apply_updates(state.weights, updates)
        return Loop(weights, opt_state, state.step + 1)


def mutations() -> list[dict[str, Any]]:
    """A hundred mutations, with all kinds of numbers."""
    makers: list[Callable[[float], Any]] = [
        float,
        np.float32,
        np.float64,
        jnp.float32,
        jnp.asarray,
        lambda x: np.asarray(x),
        lambda x: max(1, round(x)),
        lambda x: np.int64(max(1, round(x))),
        lambda x: x > 0.05,
        lambda x: jnp.asarray(np.float16(x)),
    ]
    rng = np.random.default_rng(0)
    return [
        {"learning_rate": makers[i % 10](float(rng.uniform(0.01, 0.1)))}
        for i in range(100)
    ]


def pinned(state: Any) -> Any:
    """On a named device, which a compiled step can see."""
    return jax.device_put(state, jax.devices()[0])


def free(state: Any) -> Any:
    """Where JAX puts it."""
    return state


@pytest.mark.parametrize(
    ("dtype", "kind", "place"),
    [
        (None, "none", free),
        (None, "none", pinned),
        (None, "file", free),
        (None, "file", pinned),
        (None, "memory", pinned),
        (jnp.bfloat16, "memory", free),
    ],
)
def test_a_hundred_mutations_compile_once(
    dtype: Any, kind: str, place: Callable[[Any], Any], tmp_path: pathlib.Path
) -> None:
    """Ints, floats, NumPy and JAX scalars, saves and restores need one compilation."""
    optimiser = optax.inject_hyperparams(optax.adam, hyperparam_dtype=dtype)(
        learning_rate=0.1
    )
    trainer = Trainer(optimiser, place)
    stores: dict[str, Any] = {
        "file": FileParams(tmp_path),
        "memory": MemoryParams(),
        "none": None,
    }
    store, batch = stores[kind], jnp.ones((4, 3))
    state = trainer.step(trainer.init(), batch)
    for number, meta in enumerate(mutations()):
        if store is not None and number % 10 == 5:
            saved = store.save("a", state)
            state = store.load(saved, trainer.init())
        elif number % 10 == 7:
            state = trainer.init()
        state = hyperparams.put(state, meta)
        state = trainer.step(state, batch)
    assert trainer.traces == 1
    assert trainer.compilations == 1


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_worker_compiles_once_whatever_the_branches(
    tmp_path: pathlib.Path, on_disk: bool
) -> None:
    """A loop that is branched and restored at every report is never traced again."""
    metas = {i: meta for i, meta in enumerate(mutations())}
    plain = {
        i: {"learning_rate": np.asarray(m["learning_rate"]).item()}
        for i, m in metas.items()
    }
    trainer = Trainer(optax.inject_hyperparams(optax.adam)(learning_rate=0.1))
    log_dir = tmp_path if on_disk else None
    controller = PopulationController([plain[0]], FixedSchedule(plain), log_dir)
    batch = jnp.ones((4, 3))
    with controller.worker() as worker:
        for _ in range(30):
            if worker.poll():
                state = worker.restore(trainer.init)
            in_force = hyperparams.read(state)["learning_rate"]
            expected = float(worker.meta_params["learning_rate"])
            assert in_force == pytest.approx(expected, rel=IN_FORCE)
            state = trainer.step(state, batch)
            worker.step += 1
            worker.report(1.0, state)
    controller.close()
    assert trainer.compilations == 1
    assert trainer.traces == 1


def test_what_is_in_force_as_assigned_is_no_mismatch() -> None:
    """Rounding to the state's dtype is no mismatch, and other keys are ignored."""
    for dtype in (None, jnp.float32, jnp.bfloat16, jnp.float16):
        for value in (0.1, 1e-3, 1.0 / 3, 1, np.float64(0.7), jnp.float32(0.1)):
            meta = {"learning_rate": value, "name": "wide", "batch_size": 32}
            state = hyperparams.put(adam_state(dtype), meta, strict=False)
            assert hyperparams.mismatches(state, meta) == []
    near = {"learning_rate": 0.1 * (1 + 5e-7)}  # Not the float32 of 0.1.
    assert hyperparams.mismatches(adam_state(), near) == []


@pytest.mark.parametrize("assigned", [0.2, 0.1 * (1 + 3e-6), -0.1, 0, math.nan])
def test_a_mismatch_names_key_assigned_and_applied(assigned: float) -> None:
    """The warning shows all three."""
    meta = {"b1": 0.9, "learning_rate": assigned}
    (found,) = hyperparams.mismatches({"opt": adam_state()}, meta)
    assert found.key == "learning_rate"
    assert found.assigned == pytest.approx(assigned, nan_ok=True)
    assert found.applied == pytest.approx(0.1, rel=IN_FORCE)
    assert type(found.applied) is float


def test_nan_in_force_is_the_nan_that_was_assigned() -> None:
    """It is not equal to itself, but it is no mismatch."""
    meta = {"learning_rate": math.nan}
    assert not hyperparams.mismatches(hyperparams.put(adam_state(), meta), meta)
    meta = {"learning_rate": math.inf}
    assert not hyperparams.mismatches(hyperparams.put(adam_state(), meta), meta)


def test_a_number_too_large_for_the_dtype_is_a_mismatch() -> None:
    """Infinity is in force although a million was assigned."""
    state = hyperparams.put(adam_state(jnp.float16), {"learning_rate": math.inf})
    (found,) = hyperparams.mismatches(state, {"learning_rate": 1e6})
    assert found.applied == math.inf


@pytest.mark.parametrize("make", [by_part, within_another])
def test_every_state_that_has_the_name_is_compared(make: Callable[[], Any]) -> None:
    """If one state was forgotten, there is one mismatch, wherever it is."""
    state = make().init(WEIGHTS)
    meta = {"learning_rate": 0.1, "scale": 1.0}
    expected = [0.01] if make is by_part else []
    found = hyperparams.mismatches(state, meta)
    assert [m.applied for m in found] == pytest.approx(expected)
    (found_once,) = hyperparams.mismatches(state, {"learning_rate": 0.5})
    assert found_once.assigned == 0.5


def test_what_a_schedule_applies_instead_is_a_mismatch() -> None:
    """The assigned number has no effect."""
    schedule = optax.linear_schedule(0.1, 0.0, 10)
    state = optax.inject_hyperparams(optax.adam)(learning_rate=schedule).init(WEIGHTS)
    meta = {"learning_rate": 0.5, "b1": 0.9}
    state = hyperparams.put(state, meta, strict=False)
    (found,) = hyperparams.mismatches(state, meta)
    assert found[:2] == ("learning_rate", 0.5)
    assert found.applied == pytest.approx(0.1, rel=IN_FORCE)
    assert not hyperparams.mismatches(state, {"learning_rate": 0.1})


def test_whole_numbers_and_bools_are_compared_as_such() -> None:
    """3.0 equals 3; 3 does not equal 4."""
    for number in (3, jnp.int32(3), jnp.uint8(3)):
        state = scaled_by(number)
        assert not hyperparams.mismatches(state, {"factor": 3.0})
        assert hyperparams.mismatches(state, {"factor": 4}) == [("factor", 4, 3)]
        assert hyperparams.mismatches(state, {"factor": 1e12})
        assert hyperparams.mismatches(state, {"factor": True})


@pytest.mark.parametrize("meta", [0.1, None, "text", [0.2], ({"learning_rate": 1},)])
def test_meta_params_without_names_have_no_mismatch(meta: Any) -> None:
    """Only a mapping assigns numbers by name."""
    assert hyperparams.mismatches(adam_state(), meta) == []


@pytest.mark.parametrize("value", ["fast", None, [0.2], {"a": 1}, 10**400, 1j])
def test_what_is_no_number_has_no_mismatch(value: Any) -> None:
    """It cannot be in force in an optimiser, so it is not reported."""
    assert hyperparams.mismatches(adam_state(), {"learning_rate": value}) == []


def test_looking_for_mismatches_compiles_nothing() -> None:
    """It happens once a generation, in the middle of training."""
    state = pinned(adam_state())
    with compiled() as names:
        hyperparams.mismatches(state, {"learning_rate": 0.2, "b1": 0.123})
    assert names == []
    assert not hyperparams.mismatches({"nothing": None}, {"learning_rate": 0.2})


def test_one_of_several_members_that_differs_is_a_mismatch() -> None:
    """A stacked state has one number for each member."""
    state = jax.vmap(lambda x: scaled_by(x))(jnp.array([0.5, 0.5, 0.25]))
    (found,) = hyperparams.mismatches(state, {"factor": 0.5})
    assert found.applied == 0.25
