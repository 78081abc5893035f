"""A schedule can be stored, sent and trained with again."""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import population
from population import PopulationController, Schedule, Stop
from population.mutators import FixedSchedule, PopulationBasedTraining
from population.space import LogUniform, Perturb

SPACE = {"learning_rate": LogUniform(1e-3, 0.5)}
TARGET = jnp.arange(1.0, 4.0)


def loss(weights: Any) -> Any:
    """A quadratic bowl."""
    return jnp.sum(jnp.array([1.0, 0.3, 0.1]) * (weights - TARGET) ** 2)


def trained(folder: pathlib.Path) -> population.reader.recorded_run.RecordedRun:
    """A run of four members, each an optax loop with a rate that decisions change."""
    mutator = PopulationBasedTraining(Perturb(SPACE), 5, synchronous=True)
    controller = PopulationController.from_space(
        SPACE, 4, mutator, folder, stop=Stop(steps=30)
    )
    step = jax.jit(lambda w, lr: w - lr * jax.grad(loss)(w))
    while not controller.finished:
        for worker_id, slot in enumerate(controller.workers):
            if slot.wait_at is not None and slot.step >= slot.wait_at:
                continue
            work = controller.maybe_get_worker_data(worker_id, None, 0, None, None)
            assert work is not None
            weights = jnp.zeros(3) if work.params is None else work.params["w"]
            weights = step(weights, work.meta_params["learning_rate"])
            report = worker_id, work.generation_id, work.step + 1
            controller.set_eval(*report, {"w": weights}, float(loss(weights)))
    controller.close()
    return population.read(folder)


def test_a_plain_optax_loop_reaches_the_winners_loss(tmp_path: pathlib.Path) -> None:
    """From the run folder alone, through JSON, with no controller."""
    run = trained(tmp_path / "run")
    best = run.best()
    assert best is not None
    text = run.schedule(best).to_json()
    schedule = Schedule.from_json(text)
    assert len(schedule) > 1  # Something was decided.
    optimizer = optax.sgd(schedule.to_optax("learning_rate"))

    @jax.jit
    def step(weights: Any, state: Any) -> Any:
        updates, state = optimizer.update(jax.grad(loss)(weights), state)
        return optax.apply_updates(weights, updates), state

    weights = jnp.zeros(3)
    state = optimizer.init(weights)
    for _ in range(best.step):
        weights, state = step(weights, state)
    assert float(loss(weights)) == pytest.approx(best.value, rel=1e-4)
    found = FixedSchedule(schedule)
    assert found.first(0, 0, {"learning_rate": 9.0}) == schedule.at(0)


def test_json_gives_the_same_schedule_back() -> None:
    """Plain values are plain JSON, and the others are not changed either."""
    entries = {
        0: {"lr": 0.1, "layers": [1, 2], "name": "a\n</script>"},
        7: {"lr": math.inf, "betas": (0.9, 0.999), "deep": {3: None}},
    }
    text = Schedule(entries).to_json()
    assert dict(Schedule.from_json(text)) == entries
    plain = json.loads(Schedule({5: {"lr": 0.1}}).to_json())
    assert plain == {
        "format": 1,
        "schedule": [{"step": 5, "meta_params": {"lr": 0.1}}],
    }
    assert dict(Schedule.from_json(Schedule({}).to_json())) == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "null",
        '{"format": 1}',
        '{"format": 2, "schedule": []}',
        '{"format": "x", "schedule": []}',
        '{"format": 1, "schedule": [{"step": -1, "meta_params": 1}]}',
        '{"format": 1, "schedule": [{"step": "0", "meta_params": 1}]}',
        '{"format": 1, "schedule": [{"step": [], "meta_params": 1}]}',
        '{"format": 1, "schedule": [{"step": 0, "meta_params": {"!no": 1}}]}',
        '{"format": 1, "schedule": [{"step": 0, "meta_params": '
        + "[" * 50_000
        + "]" * 50_000
        + "}]}",
        None,
    ],
)
def test_another_text_is_refused(text: Any) -> None:
    """With what was needed, and what was wrong."""
    with pytest.raises(ValueError, match=r"from_json needs|maps steps"):
        Schedule.from_json(text)


def test_an_optax_schedule_is_a_function_of_the_updates() -> None:
    """Constant between entries, also before the first; of arrays; under `jit`."""
    entries = {2: {"a": {"lr": 1}, "b": [5.0, 6.0]}, 4: {"a": {"lr": 0.5}, "b": [7, 8]}}
    schedule = Schedule(entries).to_optax("a/lr")
    expected = [1.0, 1.0, 1.0, 1.0, 0.5, 0.5]
    assert [float(schedule(count)) for count in range(6)] == expected
    assert jax.jit(schedule)(jnp.arange(6)).tolist() == expected
    assert schedule(np.int64(3)).dtype == jnp.float32
    assert [float(Schedule(entries).to_optax("b/1")(i)) for i in (0, 9)] == [6.0, 8.0]
    late = Schedule({0: {"lr": 1.0}, 9: {"lr": 2.0}, 2**40: {"lr": 3.0}})
    assert float(late.to_optax("lr")(10)) == 2.0


def test_what_is_no_schedule_of_a_number_is_refused() -> None:
    """With the names that there are."""
    schedule = Schedule({0: {"lr": 0.1, "name": "adam", "nan": math.nan, "on": True}})
    with pytest.raises(KeyError, match="there is no 'rate'; there are lr, name, nan"):
        schedule.to_optax("rate")
    with pytest.raises(KeyError, match="there is no 'lr/deep'; there are lr, name"):
        schedule.to_optax("lr/deep")
    odd = Schedule({0: {"opt": {"im/a b": 2.0}}}).to_optax("opt/im/a b")
    assert float(odd(0)) == 2.0
    for name in ("name", "nan", "on"):
        with pytest.raises(TypeError, match="must be a number"):
            schedule.to_optax(name)
    with pytest.raises(ValueError, match="needs a schedule with an entry"):
        Schedule({}).to_optax("lr")
