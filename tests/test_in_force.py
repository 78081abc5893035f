"""`init` puts hyperparameters in force, and there is a warning for others."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization
from flax.training.train_state import TrainState

from population import (
    ParamsError,
    PopulationController,
    Stop,
    Worker,
    fork,
    hyperparams,
)
from population.engines import threads
from population.mutators import FixedSchedule, PopulationBasedTraining
from population.space import LogUniform, Perturb, Uniform

WEIGHTS = {"body": jnp.ones(3), "head": jnp.ones(2)}
CLOSE = 1e-6


def injected(make: Any = optax.adam, **numbers: Any) -> Any:
    """An optimiser with its numbers in its state."""
    return optax.inject_hyperparams(make)(**numbers)


def by_part(**parts: Any) -> Any:
    """An optimiser for each part of the weights."""
    return optax.multi_transform(parts, {"body": "body", "head": "head"})


class Kind(NamedTuple):
    """A way to make an optimiser from meta_params.

    Attributes:
        name: The special property of this kind.
        metas: The meta_params of two slots.
        init: Makes a state.
    """

    name: str
    metas: list[Any]
    init: Callable[[Any], Any]

    def __str__(self) -> str:
        return self.name


def _of(optimiser: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """An `init` with an optimiser that is made from meta_params."""

    def init(meta: Any) -> Any:
        return WEIGHTS, optimiser(meta).init(WEIGHTS)

    return init


def _created(meta: Any) -> Any:
    optimiser = injected(learning_rate=meta["learning_rate"])
    return TrainState.create(  # type: ignore[no-untyped-call]
        apply_fn=None, params=WEIGHTS, tx=optimiser
    )


def _plain(meta: Any) -> Any:
    state = injected(learning_rate=meta["learning_rate"]).init(WEIGHTS)
    return {"weights": WEIGHTS, "opt": serialization.to_state_dict(state)}


SHARED = injected(learning_rate=0.0)
GAN = {"g": injected(learning_rate=0.0), "d": injected(learning_rate=0.0, b1=0.0)}


def _adversaries(meta: Any) -> Any:
    return {
        name: hyperparams.put(GAN[name].init(WEIGHTS), meta[name], strict=False)
        for name in GAN
    }


KINDS = [
    Kind(
        "the very name",
        [{"learning_rate": 0.1, "b1": 0.5}, {"learning_rate": 0.2, "b1": 0.8}],
        _of(lambda m: injected(learning_rate=m["learning_rate"], b1=m["b1"])),
    ),
    Kind(
        "a shared optimiser",
        [{"learning_rate": 0.1}, {"learning_rate": 0.2}],
        lambda m: (WEIGHTS, hyperparams.put(SHARED.init(WEIGHTS), m, strict=False)),
    ),
    Kind(
        "another name",
        [{"lr": 0.1}, {"lr": 0.2}],
        _of(lambda m: injected(learning_rate=m["lr"])),
    ),
    Kind(
        "nested",
        [{"opt": {"learning_rate": 0.1}}, {"opt": {"learning_rate": 0.2}}],
        _of(lambda m: injected(learning_rate=m["opt"]["learning_rate"])),
    ),
    Kind(
        "a logarithm",
        [{"log_lr": -1.0}, {"log_lr": -2.0}],
        _of(lambda m: injected(learning_rate=10 ** m["log_lr"])),
    ),
    Kind(
        "a sum",
        [{"base": 0.1, "more": 0.01}, {"base": 0.1, "more": 0.05}],
        _of(lambda m: injected(learning_rate=m["base"] + m["more"])),
    ),
    Kind(
        "a tuple of betas",
        [{"betas": (0.5, 0.9)}, {"betas": (0.8, 0.99)}],
        _of(lambda m: injected(learning_rate=0.1, b1=m["betas"][0], b2=m["betas"][1])),
    ),
    Kind(
        "one rate, scaled for each group",
        [{"learning_rate": 0.1}, {"learning_rate": 0.2}],
        _of(
            lambda m: by_part(
                body=injected(learning_rate=0.1 * m["learning_rate"]),
                head=injected(learning_rate=m["learning_rate"]),
            )
        ),
    ),
    Kind(
        "a frozen group",
        [{"learning_rate": 0.1}, {"learning_rate": 0.2}],
        _of(
            lambda m: by_part(
                body=injected(learning_rate=0.0),
                head=injected(learning_rate=m["learning_rate"]),
            )
        ),
    ),
    Kind(
        "two optimisers with the same names",
        [
            {"g": {"learning_rate": 0.1}, "d": {"learning_rate": 0.3, "b1": 0.5}},
            {"g": {"learning_rate": 0.2}, "d": {"learning_rate": 0.4, "b1": 0.6}},
        ],
        _adversaries,
    ),
    Kind(
        "an injection within another",
        [{"scale": 0.5, "learning_rate": 0.1}, {"scale": 0.7, "learning_rate": 0.2}],
        _of(
            lambda m: injected(
                lambda scale: optax.chain(
                    injected(learning_rate=m["learning_rate"]), optax.scale(scale)
                ),
                scale=m["scale"],
            )
        ),
    ),
    Kind("a TrainState", [{"learning_rate": 0.1}, {"learning_rate": 0.2}], _created),
    Kind("a state dict", [{"learning_rate": 0.1}, {"learning_rate": 0.2}], _plain),
]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings about hyperparameters that are not in force."""
    return [m for m in caplog.messages if "was assigned" in m]


def numbers(state: Any) -> list[float]:
    """All numbers in its optimisers."""
    from population.in_force.injected import numbers as found

    return [float(number.leaf) for number in found(state)]


def trained(state: Any) -> Any:
    """The state with weights and moments that differ from any fresh ones."""

    def moved(path: Any, leaf: Any) -> Any:
        held = "hyperparams" in jax.tree_util.keystr(path)
        return leaf if held or np.ndim(leaf) == 0 else leaf + 1

    return jax.tree_util.tree_map_with_path(moved, state)


def copying(metas: list[Any]) -> PopulationBasedTraining:
    """At step 20 the worse of two members copies the better one."""
    other = {repr(meta): metas[1 - place] for place, meta in enumerate(metas)}
    return PopulationBasedTraining(lambda meta: other[repr(meta)], 20, synchronous=True)


def losing_to_worker_0(
    worker: Worker, init: Callable[[Any], Any], seen: list[Any], **how: Any
) -> None:
    """A loop that records each restored state with its meta_params."""
    while worker.running:
        if worker.poll():
            state = worker.restore(init, **how)
            seen.append((worker.meta_params, worker.params is not None, state))
            state = trained(state)
        worker.step += 10
        worker.report(float(worker.worker_id), state)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("how", ["loop", "disk", "threads"])
def test_a_copy_trains_with_what_init_makes_of_its_own_meta_params(
    kind: Kind, how: str, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights and moments are the donor's; numbers, structure and kinds are not."""
    run = PopulationController(
        kind.metas,
        copying(kind.metas),
        tmp_path if how == "disk" else None,
        stop=Stop(steps=60),
    )
    seen: list[Any] = []
    if how == "threads":
        threads.run(
            lambda worker: losing_to_worker_0(worker, kind.init, seen),
            run,
            progress=False,
        )
    else:
        with run.worker() as worker:
            losing_to_worker_0(worker, kind.init, seen)
    run.close()
    copies = [(meta, state) for meta, is_saved, state in seen if is_saved]
    assert len(copies) >= 2
    for meta, state in copies:
        fresh = kind.init(meta)
        assert numbers(state) == numbers(fresh)
        one, other = jax.tree.leaves(state), jax.tree.leaves(fresh)
        assert [jax.typeof(leaf) for leaf in one] == [jax.typeof(x) for x in other]
        same = [np.array_equal(a, b) for a, b in zip(one, other, strict=True)]
        assert not all(same), "the weights are the donor's"
    assert not told(caplog)


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_a_schedule_drives_stays_as_it_was_saved(
    tmp_path: pathlib.Path, on_disk: bool
) -> None:
    """Its count and its number continue; other numbers come from `init`."""
    schedule = optax.linear_schedule(0.1, 0.0, 10)

    def init(meta: Any) -> Any:
        optimiser = injected(learning_rate=schedule, b1=meta["b1"])
        return WEIGHTS, optimiser.init(WEIGHTS)

    run = PopulationController(
        [{"b1": 0.5}],
        FixedSchedule({0: {"b1": 0.5}, 4: {"b1": 0.8}}),
        tmp_path if on_disk else None,
    )
    optimiser = injected(learning_rate=schedule, b1=0.0)
    with run.worker() as worker:
        for _ in range(6):
            if worker.poll():
                weights, opt_state = worker.restore(init)
                found = hyperparams.read(opt_state)
                assert found["b1"] == pytest.approx(worker.meta_params["b1"])
                expected = 0.1 - 0.01 * max(worker.step - 1, 0)
                assert found["learning_rate"] == pytest.approx(expected)
            _, opt_state = optimiser.update(WEIGHTS, opt_state, weights)
            worker.step += 1
            worker.report(1.0, (weights, opt_state))
    run.close()


def test_meta_params_are_not_blamed_for_a_leaf_that_training_changes() -> None:
    """An integer that becomes a fraction is only an initial value."""
    metas = {0: {"a": 1.0}, 1: {"a": 2.0}}
    run = PopulationController([metas[0]], FixedSchedule(metas))
    with run.worker() as worker:
        worker.poll()
        worker.restore(lambda meta: {"loss": 0})
        worker.step = 1
        worker.report(1.0, {"loss": jnp.float32(0.5)})
        assert worker.poll()
        with pytest.raises(ParamsError, match=r"begin there with 0\.0") as error:
            worker.restore(lambda meta: {"loss": 0})
    assert "['loss']" in str(error.value)
    assert "does not fit what init makes of these either" in str(error.value)


# Numbers that the loop itself changes.


def annealing(worker: Worker, seen: list[float], **how: Any) -> None:
    """Halves its learning rate at each report."""

    def init(meta: Any) -> Any:
        state = hyperparams.put(SHARED.init(WEIGHTS), meta, strict=False)
        return WEIGHTS, state

    while worker.running:
        if worker.poll():
            weights, opt_state = worker.restore(init, **how)
            seen.append(hyperparams.read(opt_state)["learning_rate"])
        rate = hyperparams.read(opt_state)["learning_rate"] / 2
        opt_state = hyperparams.put(opt_state, {"learning_rate": rate})
        worker.step += 1
        worker.report(1.0, (weights, opt_state))


def annealed(**how: Any) -> list[float]:
    """The learning rates at the start and after two decisions."""
    metas = {0: {"learning_rate": 0.8}, 2: {"learning_rate": 0.4}}
    metas[4] = {"learning_rate": 0.2}
    run = PopulationController([metas[0]], FixedSchedule(metas), stop=Stop(steps=5))
    seen: list[float] = []
    with run.worker() as worker:
        annealing(worker, seen, **how)
    return seen


@pytest.mark.parametrize(
    "keep", ["learning_rate", ["learning_rate"], {"learning_rate"}]
)
def test_a_number_that_the_loop_anneals_is_named(
    keep: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It stays as saved, and there is no warning."""
    assert annealed(keep=keep) == pytest.approx([0.8, 0.2, 0.05])
    assert not told(caplog)


def test_a_number_that_is_annealed_and_not_named_is_put_back_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning has key, assigned and used number, and what to do."""
    assert annealed() == pytest.approx([0.8, 0.4, 0.2])
    (text,) = told(caplog)
    assert "worker 0" in text
    assert "learning_rate=0.8" in text
    assert "0.4" in text
    assert "keep='learning_rate'" in text


def test_what_keep_names_must_be_there() -> None:
    """A typo must not reset a number without an error."""
    with pytest.raises(ValueError, match=r"\['rate'\].*learning_rate"):
        annealed(keep="rate")
    with pytest.raises(TypeError, match="keep must be the name"):
        annealed(keep=3)


# Warnings.


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[..., list[str]]:
    """Train for a few reports, and return the warnings."""

    def run(meta: Any, init: Any, **how: Any) -> list[str]:
        caplog.clear()
        found = PopulationController([meta] * 2, FixedSchedule(lambda step: None))
        with caplog.at_level(logging.WARNING, "population"):
            for worker_id in range(2):
                with found.worker(worker_id) as worker:
                    assert worker.poll()
                    state = worker.restore(init, **how)
                    for _ in range(3):
                        worker.step += 1
                        worker.report(1.0, state)
        return told(caplog)

    return run


def test_a_forgotten_put_is_said_once(warned: Callable[..., list[str]]) -> None:
    """It has key, assigned and used number, and the line to write; once for all."""
    (text,) = warned(
        {"learning_rate": 0.3}, lambda meta: (WEIGHTS, SHARED.init(WEIGHTS))
    )
    assert "worker 0 was assigned learning_rate=0.3" in text
    assert "uses 0.0" in text
    assert "hyperparams.put(opt_state, meta_params, strict=False)" in text


def test_a_nested_number_is_named_by_its_way(warned: Callable[..., list[str]]) -> None:
    """The forgotten one of two optimisers is named, although the other is right."""

    def init(meta: Any) -> Any:
        right = hyperparams.put(GAN["g"].init(WEIGHTS), meta["g"], strict=False)
        return {"g": right, "d": GAN["d"].init(WEIGHTS)}

    meta = {"g": {"learning_rate": 0.1}, "d": {"learning_rate": 0.2}}
    (text,) = warned(meta, init)
    assert "d.learning_rate=0.2" in text


def test_a_schedule_is_named_as_the_cause(warned: Callable[..., list[str]]) -> None:
    """The warning has the recipe: inject a number, and scale by the schedule."""
    schedule = optax.linear_schedule(0.1, 0.0, 10)
    optimiser = injected(learning_rate=schedule)
    (text,) = warned(
        {"learning_rate": 0.3}, lambda meta: (WEIGHTS, optimiser.init(WEIGHTS))
    )
    assert "a schedule within inject_hyperparams drives it" in text
    assert "optax.scale_by_schedule" in text


@pytest.mark.parametrize(
    ("name", "value", "dtype", "is_said"),
    [
        ("b2", 0.9985, jnp.bfloat16, True),  # bfloat16 makes it 1.0.
        ("b2", 0.9985, jnp.float32, False),
        ("b2", 0.99, jnp.bfloat16, True),  # 0.98828125, which is 17 % further from one.
        ("b2", 0.5, jnp.bfloat16, False),
        ("learning_rate", 0.0003, jnp.bfloat16, True),
        ("learning_rate", 0.1, jnp.bfloat16, False),
        ("learning_rate", 0.1, jnp.float16, False),
        ("learning_rate", 0.1, jnp.float32, False),
        ("learning_rate", 1e-30, jnp.float16, True),  # bfloat16 makes it 0.
    ],
)
def test_rounding_that_makes_another_number_is_said(
    warned: Callable[..., list[str]],
    name: str,
    value: float,
    dtype: Any,
    is_said: bool,
) -> None:
    """The warning has the number in use, and the argument that prevents it."""
    make = optax.inject_hyperparams(optax.adam, hyperparam_dtype=dtype)

    def init(meta: Any) -> Any:
        return WEIGHTS, make(**{"learning_rate": 0.5, **meta}).init(WEIGHTS)

    texts = warned({name: value}, init)
    assert len(texts) == is_said, texts
    for text in texts:
        assert f"{name}={value!r}" in text
        assert "hyperparam_dtype=jnp.float32" in text


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_nothing_is_said_of_what_is_in_force(
    warned: Callable[..., list[str]], kind: Kind
) -> None:
    """After false alarms users ignore warnings."""
    for meta in kind.metas:
        assert not warned(meta, kind.init)


def test_init_is_called_once_more_once_a_run(warned: Callable[..., list[str]]) -> None:
    """This happens only if a number is not the assigned one."""
    calls: list[Any] = []

    def init(meta: Any) -> Any:
        calls.append(meta)
        rate = 0.1 * meta["learning_rate"]
        return WEIGHTS, injected(learning_rate=rate).init(WEIGHTS)

    assert not warned({"learning_rate": 0.3, "n": 2}, init)
    assert len(calls) == 3
    assert calls[1]["learning_rate"] != 0.3


def test_init_is_called_at_each_restore_alone_where_all_is_as_assigned(
    warned: Callable[..., list[str]],
) -> None:
    """The usual case has no further cost."""
    calls: list[Any] = []

    def init(meta: Any) -> Any:
        calls.append(meta)
        return KINDS[0].init(meta)

    assert not warned(KINDS[0].metas[0], init)
    assert len(calls) == 2


def test_an_init_that_refuses_other_numbers_is_no_finding(
    warned: Callable[..., list[str]],
) -> None:
    """Then the cause is unknown, and there is no warning."""

    def init(meta: Any) -> Any:
        if meta["learning_rate"] != 0.3:
            raise RuntimeError("not this one")
        return WEIGHTS, injected(learning_rate=0.03).init(WEIGHTS)

    assert not warned({"learning_rate": 0.3}, init)


def test_a_put_that_sets_nothing_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Optax has no name `lr`: a common mistake, and the rate would be zero."""
    state = SHARED.init(WEIGHTS)
    for _ in range(3):
        assert (
            hyperparams.put(state, {"lr": 0.1, "dropout": 0.5}, strict=False) is state
        )
    (text,) = caplog.messages
    assert "it was given lr, dropout" in text
    assert "{'learning_rate': ...}" in text
    caplog.clear()
    hyperparams.put(state, {}, strict=False)
    hyperparams.put(optax.sgd(0.1).init(WEIGHTS), {"lr": 0.1}, strict=False)
    hyperparams.put(state, {"learning_rate": 0.1, "dropout": 0.5}, strict=False)
    assert not caplog.messages


def test_a_quotient_of_two_numbers_changes(warned: Callable[..., list[str]]) -> None:
    """With independent weight decay the probe moves each number by another share."""

    def init(meta: Any) -> Any:
        decay = meta["weight_decay"] / meta["learning_rate"]
        return injected(
            optax.adamw, learning_rate=meta["learning_rate"], weight_decay=decay
        ).init(WEIGHTS)

    assert not warned({"learning_rate": 0.1, "weight_decay": 0.01}, init)


def test_one_choice_says_nothing_of_another(warned: Callable[..., list[str]]) -> None:
    """One category derives its rate, the other one forgets it at the same path."""

    def init(meta: Any) -> Any:
        derived = 0.5 * meta["learning_rate"]
        rate = derived if meta["kind"] == "derived" else 0.001
        return injected(optax.sgd, learning_rate=rate).init(WEIGHTS)

    metas = [{"kind": kind, "learning_rate": 0.1} for kind in ("derived", "forgotten")]
    run = PopulationController(metas, FixedSchedule(lambda step: None))
    assert not warned(metas[0], init)
    for worker_id in range(2):
        with run.worker(worker_id) as worker:
            worker.poll()
            worker.restore(init)
    (text,) = warned(metas[1], init)
    assert "learning_rate=0.1" in text


def test_numbers_that_are_put_after_restore_are_not_said_to_have_changed(
    warned: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    """The assigned number is in force, and only the line is at an unusual place."""
    run = PopulationController([{"learning_rate": 0.1}], FixedSchedule(lambda s: None))
    with run.worker() as worker:
        worker.poll()
        state = worker.restore(lambda meta: SHARED.init(WEIGHTS))
        state = hyperparams.put(state, worker.meta_params)
        worker.step = 1
        worker.report(1.0, state)
    (text,) = told(caplog)
    assert "in init, not after restore" in text


def test_what_a_narrow_dtype_makes_of_a_number_is_no_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Older releases of optax cast the numbers to the gradients' dtype."""
    run = PopulationController([{"learning_rate": 0.1}], FixedSchedule(lambda s: None))
    with run.worker() as worker:
        worker.poll()
        state = worker.restore(KINDS[1].init)[1]
        narrow = {k: v.astype(jnp.bfloat16) for k, v in state.hyperparams.items()}
        worker.step = 1
        worker.report(1.0, (WEIGHTS, state._replace(hyperparams=narrow)))
    assert not told(caplog)


def test_a_loop_that_restores_only_at_first_is_told_whatever_the_nesting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It trains with the old number."""
    metas = {0: {"opt": {"learning_rate": 0.1}}, 2: {"opt": {"learning_rate": 0.2}}}
    run = PopulationController([metas[0]], FixedSchedule(metas))
    with run.worker() as worker:
        for step in range(1, 6):
            if worker.poll() and step == 1:
                state = worker.restore(KINDS[3].init)
            worker.step = step
            worker.report(1.0, state)
    (text,) = told(caplog)
    assert "opt.learning_rate=0.2" in text
    assert "whenever poll returns True" in text


# States whose structure changes.


def of_category(meta: Any) -> Any:
    """An optimiser of another structure for each category, with or without EMA."""
    optimiser = {"sgd": optax.sgd, "adam": optax.adam}[meta["opt"]](meta["lr"])
    weights = jnp.zeros(2)
    state = {"w": weights, "opt": optimiser.init(weights)}
    return state | ({"ema": weights} if meta.get("ema") else {})


def swapped(meta: Any) -> Any:
    """The other optimiser."""
    return meta | {"opt": "adam" if meta["opt"] == "sgd" else "sgd"}


METAS = [{"opt": "sgd", "lr": 0.1}, {"opt": "sgd", "lr": 0.2}]


def across(tmp_path: pathlib.Path | None, adapt: Any) -> list[tuple[int, int]]:
    """Step and weight at which each copy begins; a step adds one to the weight."""
    run = PopulationController(
        METAS,
        PopulationBasedTraining(swapped, 20, synchronous=True),
        tmp_path,
        stop=Stop(steps=60),
    )
    copies = []
    with run.worker() as worker:
        while worker.running:
            if worker.poll():
                state = worker.restore(of_category, adapt=adapt)
                if worker.generation_id and worker.params is not None:
                    copies.append((worker.step, int(state["w"][0])))
            state = {**state, "w": state["w"] + 1.0}
            worker.step += 1
            if worker.step % 10 == 0:
                worker.report(float(worker.worker_id), state)
    run.close()
    return copies


@pytest.mark.parametrize("on_disk", [True, False])
def test_adapt_makes_a_state_of_a_donor_with_another_optimiser(
    tmp_path: pathlib.Path, on_disk: bool
) -> None:
    """It gets the donor's state, the donor's meta_params and a fresh state."""
    calls: list[Any] = []

    def adapt(saved: Any, donor: Any, fresh: Any) -> Any:
        calls.append((jax.tree.structure(saved), donor, jax.tree.structure(fresh)))
        return fresh | {"w": saved["w"]}

    copies = across(tmp_path if on_disk else None, adapt)
    assert copies
    assert all(step == weight for step, weight in copies)
    assert calls
    for saved, donor, fresh in calls:
        assert saved == jax.tree.structure(of_category(donor))
        assert fresh == jax.tree.structure(of_category(swapped(donor)))


def test_without_adapt_the_error_names_it() -> None:
    """It does not advise `reject`: the save is complete."""
    with pytest.raises(Exception, match=r"adapt=f.*saved, donor_meta_params, fresh"):
        across(None, None)


def test_what_is_no_function_is_refused_at_once() -> None:
    """This happens before the first state that does not fit."""
    with pytest.raises(TypeError, match="adapt must be a function"):
        across(None, "f")


def test_what_adapt_returns_must_fit() -> None:
    """The error names `adapt` and what does not fit."""
    with pytest.raises(Exception, match=r"adapt must return a state of the structure"):
        across(None, lambda saved, donor, fresh: saved)


def test_numbers_are_in_force_in_what_adapt_returns() -> None:
    """This holds for all that it takes from the donor."""
    metas = [{"learning_rate": 0.1, "ema": 0}, {"learning_rate": 0.2, "ema": 1}]

    def init(meta: Any) -> Any:
        state = {"opt": injected(learning_rate=meta["learning_rate"]).init(WEIGHTS)}
        return state | ({"ema": jnp.zeros(2)} if meta["ema"] else {})

    seen: list[Any] = []
    run = PopulationController(metas, copying(metas), stop=Stop(steps=60))
    with run.worker() as worker:
        losing_to_worker_0(
            worker,
            init,
            seen,
            adapt=lambda saved, donor, fresh: fresh | {"opt": saved["opt"]},
        )
    copies = [(meta, state) for meta, is_saved, state in seen if is_saved]
    assert copies
    for meta, state in copies:
        rate = hyperparams.read(state)["learning_rate"]
        assert rate == pytest.approx(meta["learning_rate"], rel=CLOSE)


def test_a_program_that_makes_another_structure_now_is_told_so(
    tmp_path: pathlib.Path,
) -> None:
    """The meta_params are the same; `adapt` takes over what was saved."""
    meta = [{"a": 1.0}]

    def opened() -> PopulationController:
        return PopulationController(meta, FixedSchedule(lambda step: None), tmp_path)

    run = opened()
    with run.worker() as worker:
        worker.poll()
        worker.step = 1
        worker.report(1.0, {"w": np.ones(2)})
    run.close()
    run = opened()

    def init(meta: Any) -> Any:
        return {"w": np.zeros(2), "ema": np.zeros(2)}

    with run.worker() as worker:
        assert worker.poll()
        with pytest.raises(Exception, match=r"of these either.*adapt=f"):
            worker.restore(init)
        state = worker.restore(
            init, adapt=lambda saved, donor, fresh: fresh | {"w": saved["w"]}
        )
    assert state["w"].tolist() == [1.0, 1.0]
    run.close()


def test_adapt_gives_each_leaf_a_buffer_of_its_own() -> None:
    """A step that donates accepts a state whose EMA is the array of the weights."""
    step = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)

    def init(meta: Any) -> Any:
        state = {"w": jnp.zeros(2)}
        return state | ({"ema": jnp.zeros(2)} if meta["ema"] else {})

    metas = [{"ema": 0}, {"ema": 1}]
    run = PopulationController(metas, copying(metas), stop=Stop(steps=40))
    copies = 0
    with run.worker() as worker:
        while worker.running:
            if worker.poll():
                state = worker.restore(
                    init,
                    adapt=lambda saved, donor, fresh: {
                        name: saved["w"] for name in fresh
                    },
                )
                copies += worker.params is not None
            state = step(state)
            worker.step += 10
            worker.report(float(worker.worker_id), state)
    assert copies


def test_adapt_goes_on_in_a_space_with_more_keys(tmp_path: pathlib.Path) -> None:
    """`init` cannot make the donor's structure any more: its leaves come by path."""
    rate = LogUniform(1e-3, 1e-1)
    policy = PopulationBasedTraining(Perturb({"lr": rate}), 20, synchronous=True)
    run = PopulationController.from_space(
        {"lr": rate}, 2, policy, tmp_path / "a", stop=Stop(steps=20)
    )
    optimiser = injected(learning_rate=0.0)

    def init(meta: Any) -> Any:
        opt_state = hyperparams.put(
            optimiser.init(WEIGHTS), {"learning_rate": meta["lr"]}
        )
        state = {"weights": WEIGHTS, "opt": opt_state}
        return state | ({"ema": WEIGHTS} if meta["ema"] >= 0 else {})

    def old(meta: Any) -> Any:
        return init({**meta, "ema": -1})

    with run.worker() as worker:
        while worker.running:
            if worker.poll():
                state = worker.restore(old)
            state = trained(state)
            worker.step += 10
            worker.report(float(worker.worker_id), state)
    run.close()
    space = {"lr": rate, "ema": Uniform(0.5, 1.0)}
    wider = PopulationBasedTraining(Perturb(space), 20, synchronous=True)
    fork(tmp_path / "a", tmp_path / "b", mutator=wider, space=space).close()
    run = PopulationController.from_space(
        space, 2, wider, tmp_path / "b", stop=Stop(steps=60)
    )
    seen = []

    def adapt(saved: Any, donor: Any, fresh: Any) -> Any:
        assert set(donor) == {"lr"}
        seen.append(saved["opt"]["inner_state"][0]["mu"]["head"])
        return {**fresh, "weights": saved["weights"]}

    with run.worker() as worker:
        while worker.running:
            if worker.poll():
                state = worker.restore(init, adapt=adapt)
                numbers_now = hyperparams.read(state)["learning_rate"]
                assert numbers_now == pytest.approx(worker.meta_params["lr"], rel=1e-6)
            state = trained(state)
            worker.step += 10
            worker.report(float(worker.worker_id), state)
    assert seen
    assert all(np.asarray(moments).tolist() == [2.0, 2.0] for moments in seen)
    run.close()


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ((), (0.3, 0.4)),
        ("learning_rate", (0.1, 0.2)),
        ("['g'].hyperparams['learning_rate']", (0.1, 0.4)),
        (["['d'].hyperparams['learning_rate']"], (0.3, 0.2)),
    ],
)
def test_a_name_keeps_a_number_in_all_optimisers_and_a_place_in_one(
    keep: Any, expected: tuple[float, float]
) -> None:
    """Errors show the paths."""
    metas = {
        0: {"g": {"learning_rate": 0.1}, "d": {"learning_rate": 0.2, "b1": 0.5}},
        2: {"g": {"learning_rate": 0.3}, "d": {"learning_rate": 0.4, "b1": 0.5}},
    }
    run = PopulationController([metas[0]], FixedSchedule(metas))
    with run.worker() as worker:
        for _ in range(3):
            if worker.poll():
                state = worker.restore(_adversaries, keep=keep)
            worker.step += 1
            worker.report(1.0, state)
    rates = [float(state[name].hyperparams["learning_rate"]) for name in "gd"]
    assert rates == pytest.approx(list(expected))


def test_what_is_kept_may_be_missing_in_some_structures() -> None:
    """With `adapt` structures differ, and each has its own numbers."""

    def init(meta: Any) -> Any:
        made = {"sgd": optax.sgd, "adam": optax.adam}[meta["opt"]]
        return {"opt": injected(made, learning_rate=meta["lr"]).init(WEIGHTS)}

    run = PopulationController(
        METAS,
        PopulationBasedTraining(swapped, 20, synchronous=True),
        stop=Stop(steps=60),
    )
    with run.worker() as worker:
        while worker.running:
            if worker.poll():
                state = worker.restore(
                    init, keep="b1", adapt=lambda saved, donor, fresh: fresh
                )
            worker.step += 10
            worker.report(float(worker.worker_id), state)
    assert len(run.graph) > 2


# What must not cause a warning.


def test_each_structure_is_asked_for_itself(caplog: pytest.LogCaptureFixture) -> None:
    """If optimisers differ, the numbers of one say nothing about the other's."""

    def init(meta: Any) -> Any:
        made = {"sgd": optax.sgd, "adam": optax.adam}[meta["opt"]]
        rate = 0.5 * meta["learning_rate"]
        return {"x": {meta["opt"]: injected(made, learning_rate=rate).init(WEIGHTS)}}

    metas = [{"opt": name, "learning_rate": 0.1} for name in ("adam", "sgd")]
    run = PopulationController(metas, FixedSchedule(lambda step: None))
    for worker_id in range(2):
        with run.worker(worker_id) as worker:
            worker.poll()
            worker.restore(init)
    assert not told(caplog)


@pytest.mark.parametrize("other", [{"depth": 3}, {"ema": False}])
def test_numbers_of_other_names_are_left_alone(
    warned: Callable[..., list[str]], other: Any
) -> None:
    """A depth or a switch may change the structure: it is not changed."""

    def init(meta: Any) -> Any:
        layers = {f"layer{i}": jnp.ones(2) for i in range(meta.get("depth", 1))}
        assert len(layers) < 4
        return layers, SHARED.init(layers)

    (text,) = warned({"learning_rate": 0.3, **other}, init)
    assert "learning_rate=0.3" in text


def test_a_state_of_another_structure_is_reported_in_peace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only numbers at the same path are compared, and a warning never raises."""
    run = PopulationController([{"learning_rate": 0.1}], FixedSchedule(lambda s: None))
    with run.worker() as worker:
        worker.poll()
        opt_state = worker.restore(KINDS[1].init)[1]
        others = [
            {"alpha": jnp.ones(()), "b": opt_state},
            {"a": "text", "b": opt_state, "c": "more"},
            {"nothing": 0},
        ]
        for other in others:
            worker.step += 1
            worker.report(1.0, other)
    assert not told(caplog)


def test_a_warm_up_of_ones_own_optimiser_is_no_finding(
    warned: Callable[..., list[str]],
) -> None:
    """A TrainState has the optimiser itself: its schedule belongs to the slot."""

    def init(meta: Any) -> Any:
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, meta["learning_rate"], 10, 100
        )
        return TrainState.create(  # type: ignore[no-untyped-call]
            apply_fn=None, params=WEIGHTS, tx=injected(learning_rate=schedule)
        )

    assert not warned({"learning_rate": 0.3}, init)


def test_a_dict_of_ones_own_is_not_taken_for_optax() -> None:
    """Numbers that a loop anneals stay as saved, even with names that optax uses."""

    def init(meta: Any) -> Any:
        return {
            "anneal": {"count": jnp.zeros(()), "hyperparams": {"heat": jnp.ones(())}}
        }

    metas = {0: {"a": 1}, 1: {"a": 2}}
    run = PopulationController([metas[0]], FixedSchedule(metas))
    with run.worker() as worker:
        for expected in (1.0, 0.5):
            assert worker.poll()
            state = worker.restore(init)
            assert float(state["anneal"]["hyperparams"]["heat"]) == expected
            state = jax.tree.map(lambda x: x / 2, state)
            worker.step += 1
            worker.report(1.0, state)
