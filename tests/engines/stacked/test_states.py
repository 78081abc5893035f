"""Small whole runs with states of all kinds and all ways of batching."""

from __future__ import annotations

import pathlib

import jax
import numpy as np
import pytest

from population.base.types import Saved
from tests.engines.stacked import problems

META = {"learning_rate": 0.01}


@pytest.mark.parametrize("kind", problems.STATES)
def test_a_state_of_any_kind_trains_alike_however_members_are_batched(
    kind: str,
) -> None:
    """All three ways give the same decisions and values, with copies among members."""
    functions = problems.STATES[kind]()
    runs = []
    for batching in problems.BATCHINGS:
        found = problems.controller()
        problems.run(found, functions, batching=batching)
        assert found.finished
        runs.append(found)
    assert len(runs[0].graph) > 4
    firsts = [v for (_, step), v in problems.values(runs[0]).items() if step == 2]
    best = runs[0].best()
    assert best is not None
    assert best.value is not None
    assert best.value < min(firsts)
    for other in runs[1:]:
        problems.assert_alike(runs[0], other)


@pytest.mark.parametrize("kind", problems.STATES)
def test_the_best_state_loads_into_a_fresh_one(
    kind: str, tmp_path: pathlib.Path
) -> None:
    """`controller.load` returns the best state, for a model of the same kind."""
    functions = problems.STATES[kind]()
    found = problems.controller(log_dir=tmp_path)
    problems.run(found, functions)
    best = found.best()
    assert best is not None
    assert isinstance(best.params, Saved)
    state = found.load(best, functions.init(jax.random.key(9), META))
    told = functions.evaluate(state, best.meta_params, None)
    value = told[0] if isinstance(told, tuple) else told
    np.testing.assert_allclose(value, best.value or 0.0, rtol=1e-5)
    found.close()


def test_the_numbers_of_meta_params_are_in_force_in_injected_optimisers() -> None:
    """Each report shows the rate in the optimiser: the rate of its generation."""
    found = problems.controller()
    problems.run(found, problems.STATES["linen and injected"]())
    told = [c.metrics for c in found.history() if c.value is not None]
    assert len({metrics["rate"] for metrics in told}) > 4
    for metrics in told:
        assert metrics["rate"] == pytest.approx(metrics["assigned"])


def test_metrics_are_plain_numbers() -> None:
    """Narrow floats, ints and bools become what a journal can keep."""
    found = problems.controller(size=1, steps=4, mutator=problems.still())
    problems.run(found, problems.STATES["narrow"]())
    last = found.newest(0).metrics
    assert last == {"count": 4, "on": True, "half": 0.5}
    assert [type(last[name]) for name in ("count", "on", "half")] == [int, bool, float]


@pytest.mark.parametrize("batching", problems.BATCHINGS)
def test_python_numbers_of_a_fresh_state_count_and_keep_their_types(
    batching: str,
) -> None:
    """A count that begins as 0 is an int32 that has counted all steps."""
    found = problems.controller(size=2, steps=4, mutator=problems.still())
    problems.run(found, problems.STATES["python scalars"](), batching=batching)
    params = found.newest(1).params
    assert isinstance(params, Saved)
    state = found.load(found.newest(1))
    assert int(state["count"]) == 4
    assert np.asarray(state["count"]).dtype == np.int32
    np.testing.assert_allclose(state["scale"], 0.9**4, rtol=1e-6)


def test_members_with_keys_in_their_states_draw_different_numbers() -> None:
    """Each member begins with its own key."""
    found = problems.controller(size=3, steps=2, mutator=problems.still())
    problems.run(found, problems.STATES["key"]())
    keys = [
        np.asarray(jax.random.key_data(found.load(found.newest(w))["key"]))
        for w in range(3)
    ]
    assert len({key.tobytes() for key in keys}) == 3


@pytest.mark.parametrize("name", problems.STATES)
def test_a_state_of_any_kind_is_gone_on_from(name: str, tmp_path: pathlib.Path) -> None:
    """Saved, loaded by a later run and trained further, it gives the same values."""

    def values(
        functions: problems.Functions, steps: int, log_dir: pathlib.Path | None
    ) -> list[float | None]:
        mutator = problems.still()
        found = problems.controller(
            mutator, size=2, steps=steps, log_dir=log_dir, starts=[META] * 2
        )
        problems.run(found, functions, batching="vmap")
        told = [found.newest(w).value for w in range(2)]
        found.close()
        return told

    values(problems.STATES[name](), 4, tmp_path)
    later = problems.STATES[name]()  # As in another process.
    np.testing.assert_allclose(
        np.array(values(later, 8, tmp_path), float),
        np.array(values(later, 8, None), float),
        rtol=1e-5,
    )
