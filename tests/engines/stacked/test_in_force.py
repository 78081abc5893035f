"""A stack trains with the numbers of `init(meta_params)`, and warns about others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from population import PopulationController, Stop, hyperparams
from population.engines import vectorized
from population.in_force.injected import numbers
from population.mutators import FixedSchedule, PopulationBasedTraining
from tests.test_in_force import KINDS, SHARED, WEIGHTS, Kind, copying, injected, told

FIRST = {"learning_rate": 0.1}
NARROW = optax.inject_hyperparams(optax.adam, hyperparam_dtype=jnp.bfloat16)(0.1)


def evaluated(state: Any, meta_params: Any, batch: Any) -> Any:
    """The score, and all numbers in force as metrics."""
    found = numbers(state)
    metrics = {number.place: number.leaf for number in found}
    total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(meta_params))
    return total + 0.0 * sum(metrics.values()), metrics


def train(
    run: PopulationController,
    init: Callable[[Any], Any],
    step: Callable[[Any], Any] = lambda state: state,
    **options: Any,
) -> None:
    """Ten steps a report."""
    vectorized.run(
        run,
        lambda key, meta: init(meta),
        lambda state, meta, batch, key: step(state),
        evaluated,
        10,
        progress=False,
        **{"batching": "vmap", **options},
    )


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_each_report_is_of_what_init_makes(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """This holds for every name, path and number of states; after copies, too."""
    run = PopulationController(kind.metas, copying(kind.metas), stop=Stop(steps=60))
    with caplog.at_level(logging.WARNING, "population"):
        train(run, kind.init)
    reports = [c for c in run.history() if c.metrics is not None]
    assert len({repr(c.meta_params) for c in reports}) == 2
    assert len({c.worker_id for c in reports if "copied" in c.reason}) >= 1
    for report in reports:
        wanted = {
            n.place: float(n.leaf) for n in numbers(kind.init(report.meta_params))
        }
        assert report.metrics == pytest.approx(wanted, rel=1e-5)
    assert not told(caplog)


@pytest.mark.parametrize("batching", ["map", "loop"])
def test_every_way_of_batching_does_so(batching: str) -> None:
    """Each kind of program puts the numbers into the state."""
    kind = KINDS[7]
    run = PopulationController(kind.metas, copying(kind.metas), stop=Stop(steps=60))
    train(run, kind.init, batching=batching)
    for report in run.history():
        if report.metrics is not None:
            made = numbers(kind.init(report.meta_params))
            wanted = {n.place: float(n.leaf) for n in made}
            assert report.metrics == pytest.approx(wanted, rel=1e-5)


def lowered(meta: Any) -> Any:
    """Half the learning rate."""
    return {"learning_rate": meta["learning_rate"] / 2}


def population(steps: int = 60) -> PopulationController:
    """Three members that decide every twenty steps."""
    return PopulationController(
        [{"learning_rate": 0.1 * (1 + i)} for i in range(3)],
        PopulationBasedTraining(lowered, 20, synchronous=True),
        stop=Stop(steps=steps),
    )


def test_what_init_makes_besides_is_not_computed_at_a_branch() -> None:
    """Weights that `init` reads from a file are read only when members begin."""
    calls = []

    def read(key: Any) -> Any:
        calls.append(0)
        return np.ones(3, np.float32)

    def init(key: Any, meta: Any) -> Any:
        shape = jax.ShapeDtypeStruct((3,), jnp.float32)
        weights = jax.pure_callback(
            read, shape, jax.random.key_data(key), vmap_method="sequential"
        )
        opt_state = SHARED.init(weights)
        return weights, hyperparams.put(opt_state, meta, strict=False)

    begun: list[int] = []

    def noting(event: Any) -> None:
        if event.kind == "report" and not begun:
            begun.append(len(calls))

    run = PopulationController(
        [{"learning_rate": 0.1 * (1 + i)} for i in range(3)],
        PopulationBasedTraining(lowered, 20, synchronous=True),
        stop=Stop(steps=100),
        on_event=noting,
    )
    vectorized.run(
        run,
        init,
        lambda state, meta, batch, key: state,
        evaluated,
        10,
        progress=False,
        batching="vmap",
    )
    assert len(run.graph) > 3
    assert begun[0] >= 3
    assert len(calls) == begun[0]


def test_what_a_schedule_drives_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """Its count and number are copied; a warning says that meta_params are not used."""
    schedule = optax.linear_schedule(1.0, 0.0, 100)
    optimizer = injected(optax.sgd, learning_rate=schedule)

    def init(meta: Any) -> Any:
        state = optimizer.init(WEIGHTS)
        return WEIGHTS, hyperparams.put(state, meta, strict=False)

    def step(state: Any) -> Any:
        weights, opt_state = state
        _, opt_state = optimizer.update(WEIGHTS, opt_state, weights)
        return weights, opt_state

    run = population()
    with caplog.at_level(logging.WARNING, "population"):
        train(run, init, step)
    for report in run.history():
        if report.metrics is not None:
            (rate,) = report.metrics.values()
            assert rate == pytest.approx(1.0 - 0.01 * (report.step - 1), abs=1e-5)
    (text,) = told(caplog)
    assert "a schedule within inject_hyperparams drives it" in text


def annealing(state: Any) -> Any:
    """Lowers its learning rate at each step."""
    weights, opt_state = state
    rate = opt_state.hyperparams["learning_rate"] * 0.9
    return weights, hyperparams.put(opt_state, {"learning_rate": rate})


def shared(meta: Any) -> Any:
    """One optimiser for all."""
    return WEIGHTS, hyperparams.put(SHARED.init(WEIGHTS), meta, strict=False)


def test_a_number_that_training_changes_is_put_back_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The words are those of the warning of `worker.report`."""
    with caplog.at_level(logging.WARNING, "population"):
        train(population(), shared, annealing)
    (text,) = told(caplog)
    assert "worker 0 was assigned learning_rate=0.1" in text
    assert "keep='learning_rate'" in text


def test_a_number_that_training_changes_late_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A drop on a plateau comes after many rounds."""

    def init(meta: Any) -> Any:
        return (*shared(meta), jnp.zeros((), jnp.int32))

    def late(state: Any) -> Any:
        weights, opt_state, count = state
        rate = opt_state.hyperparams["learning_rate"]
        rate = jnp.where(count == 45, rate / 10, rate)
        opt_state = hyperparams.put(opt_state, {"learning_rate": rate})
        return weights, opt_state, count + 1

    with caplog.at_level(logging.WARNING, "population"):
        train(population(), init, late)
    (text,) = told(caplog)
    assert "keep='learning_rate'" in text


def test_a_number_that_is_named_stays_as_it_was_saved(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A copy continues with the donor's number."""
    run = PopulationController(
        [{"learning_rate": 0.1, "number": i} for i in range(3)],
        PopulationBasedTraining(lambda m: {**m, **lowered(m)}, 20, synchronous=True),
        stop=Stop(steps=60),
    )
    with caplog.at_level(logging.WARNING, "population"):
        train(run, shared, annealing, keep="learning_rate")
    assert len(run.graph) > 3
    for report in run.history():
        if report.metrics is not None:
            rate = report.metrics["[1].hyperparams['learning_rate']"]
            assert rate == pytest.approx(0.1 * 0.9**report.step, rel=1e-4)
    assert not told(caplog)


def test_what_keep_names_must_be_there() -> None:
    """An unknown name is refused before anything is trained."""
    with pytest.raises(ValueError, match=r"\['rate'\].*learning_rate"):
        train(population(), shared, keep="rate")
    with pytest.raises(TypeError, match="keep must be the name"):
        train(population(), shared, keep=1)


@pytest.mark.parametrize(
    ("meta", "init", "words"),
    [
        (
            FIRST,
            lambda meta: (WEIGHTS, SHARED.init(WEIGHTS)),
            "uses 0.0, whatever number",
        ),
        (
            {"b2": 0.9985},
            lambda meta: hyperparams.put(NARROW.init(WEIGHTS), meta, strict=False),
            "bfloat16 cannot hold it",
        ),
    ],
)
def test_what_is_not_in_force_is_said_once(
    meta: Any, init: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The words are those of the warning of a worker."""
    run = PopulationController(
        [meta] * 3, FixedSchedule(lambda step: None), stop=Stop(steps=20)
    )
    with caplog.at_level(logging.WARNING, "population"):
        train(run, init)
    (text,) = told(caplog)
    (key,) = meta
    assert f"worker 0 was assigned {key}={meta[key]!r}" in text
    assert words in text


def unused(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings about hyperparameters without an effect."""
    return [m for m in caplog.messages if "have no effect" in m]


@pytest.mark.parametrize("reads", [True, False])
def test_a_hyperparameter_that_no_value_depends_on_is_named(
    reads: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """To be in the state is not enough: training must depend on it."""
    own = optax.sgd(0.1)

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        weights, opt_state = state
        gradient = jax.tree.map(jnp.ones_like, weights)
        if reads:
            updates, opt_state = SHARED.update(gradient, opt_state, weights)
        else:
            updates, _ = own.update(gradient, own.init(weights), weights)
        return optax.apply_updates(weights, updates), opt_state

    with caplog.at_level(logging.WARNING, "population"):
        vectorized.run(
            population(20),
            lambda key, meta: shared(meta),
            step,
            lambda state, meta, batch: jnp.sum(state[0]["body"]),
            10,
            progress=False,
            batching="vmap",
        )
    assert bool(unused(caplog)) is not reads
    assert not told(caplog)
