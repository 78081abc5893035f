"""Each program is traced and compiled once a run, whatever the policies do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from population import Mutator, PopulationController, Stop
from population.engines import vectorized
from population.mutators import (
    BranchingSingleMachine,
    FixedSchedule,
    WinnerTakeAllGenetic,
)
from tests.engines.regression import EVERY, GoBack
from tests.engines.stacked import problems
from tests.engines.stacked.problems import Functions, Traced

_TRACED = "/jax/core/compile/jaxpr_trace_duration"
_COMPILED = "/jax/core/compile/backend_compile_duration"
_counts: Counter[str] = Counter()
_kept: list[Any] = []  # JAX never forgets a listener: one is enough.


def _listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
    del duration_secs, kwargs
    _counts[event] += event in (_TRACED, _COMPILED)


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[Counter[str]]:
    """What had been traced and compiled when each round began, and at the end."""
    if not _kept:
        _kept.append(_listen)
        jax.monitoring.register_event_duration_secs_listener(_listen)
    found: list[Counter[str]] = []
    prepare = vectorized._Population._prepare

    def prepared(population: Any) -> list[int]:
        found.append(_counts.copy())
        return prepare(population)

    monkeypatch.setattr(vectorized._Population, "_prepare", prepared)
    return found


def pbt() -> Mutator[Any]:
    """Members that copy each other."""
    return problems.pbt(10)


def winner() -> Mutator[Any]:
    """The best goes to all."""
    return WinnerTakeAllGenetic(problems.mutate, steps_per_exploit=10, synchronous=True)


def explorer() -> Mutator[Any]:
    """One that tries both directions from one checkpoint."""

    def direction(meta: Any, way: str, cycle: int) -> Any:
        factor = {"neg": 0.5, "pos": 2.0}[way]
        return {**meta, "learning_rate": meta["learning_rate"] * factor}

    return BranchingSingleMachine(direction, 10, 10)


POLICIES: dict[str, tuple[Callable[[], Mutator[Any]], int]] = {
    "pbt": (pbt, 5),
    "winner": (winner, 4),
    "explorer": (explorer, 1),
    "back": (GoBack, 3),
}


@pytest.mark.parametrize("batching", problems.BATCHINGS)
@pytest.mark.parametrize("name", POLICIES)
def test_nothing_is_compiled_after_the_first_round(
    name: str, batching: str, rounds: list[Counter[str]]
) -> None:
    """Copies, snapshots and saves included: all programs are there by then."""
    make, size = POLICIES[name]
    found = problems.controller(make(), size, steps=60)
    traced = Traced(problems.STATES["linen and injected"]())
    options: Any = {"batching": batching, "save_every": 1000}
    problems.run(found, traced.functions, EVERY, **options)
    assert len(found.graph) > size
    assert len(rounds) > 8
    # Shapes are found by a first trace of each, and the optimiser's numbers of a branch
    # by another one of `init`. A loop has a program that only steps,
    # and who begins anew needs `init` by itself, which a loop has at hand.
    alone = batching == "loop"
    anew = name == "explorer" and not alone
    assert traced.counts == {"init": 3 + anew, "step": 2 + alone, "evaluate": 2}
    assert rounds[-1] == rounds[6 if name == "explorer" else 1]


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "explorer"])
def test_nothing_is_compiled_after_the_first_round_of_a_run_that_has_chosen(
    name: str, rounds: list[Counter[str]]
) -> None:
    """What was tried for fewer steps is compiled once more, and no more."""
    make, size = POLICIES[name]
    found = problems.controller(make(), size, steps=60)
    options: Any = {"batching": "auto", "save_every": 1000}
    problems.run(found, problems.STATES["linen and injected"](), EVERY, **options)
    assert len(found.graph) > size
    assert rounds[-1] == rounds[1]


@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_what_is_loaded_is_compiled_once(
    batching: str, rounds: list[Counter[str]]
) -> None:
    """Members that begin anew, and saves that are loaded, need one `init` alone."""
    found = problems.controller(explorer(), 1, steps=60)
    traced = Traced(problems.STATES["linen and injected"]())
    options: Any = {"batching": batching, "save_every": 1}
    problems.run(found, traced.functions, EVERY, **options)
    alone = batching == "loop"
    inits = 3 if alone else 4
    assert traced.counts == {"init": inits, "step": 2 + alone, "evaluate": 2}
    # By then they have begun anew, and gone on from saves.
    assert rounds[-1] == rounds[len(rounds) // 2]


def test_values_of_all_kinds_change_without_compiling(
    rounds: list[Counter[str]],
) -> None:
    """Ints where floats were, NumPy scalars, bools, categories and batch sizes."""

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        rate = meta["rate"] * jnp.array([1.0, 2.0])[meta["act"]]
        rate = jnp.where(meta["on"], rate, 0.0)
        return state + rate * jnp.sum(vectorized.mask(meta["batch_size"], 8))

    functions = Functions(
        lambda key, meta: jnp.zeros(()), step, lambda state, meta, batch: state
    )
    begin = {"rate": 0.5, "on": True, "act": "relu", "batch_size": 8, "deep": [1, 2]}
    schedule = {
        0: begin,
        2: {**begin, "rate": 1},
        4: {**begin, "rate": np.float32(0.25), "on": np.bool_(False)},
        6: {**begin, "act": "gelu", "batch_size": np.int64(2)},
        8: {**begin, "deep": [3, np.int32(4)], "batch_size": 1.0},
    }
    found = PopulationController([begin], FixedSchedule(schedule), stop=Stop(10))
    traced = Traced(functions)
    problems.run(
        found, traced.functions, categories={"act": ["relu", "gelu"]}, max_batch=8
    )
    values = {c.step: c.value for c in found.history() if c.value is not None}
    assert values == {2: 8.0, 4: 24.0, 6: 24.0, 8: 28.0, 10: 29.0}
    assert traced.counts == {"init": 2, "step": 2, "evaluate": 2}
    assert rounds[-1] == rounds[1]
