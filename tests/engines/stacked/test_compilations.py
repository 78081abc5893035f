"""Each program is traced and compiled once a run, for every policy."""

from __future__ import annotations

import gc
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from population import Mutator, PopulationController, Stop
from population.engines import vectorized
from population.engines.stacked import cache
from population.engines.stacked.columns import Columns
from population.engines.stacked.rounds import PopulationTrainer
from population.mutators import (
    BranchingSingleMachine,
    FixedSchedule,
    WinnerTakeAllGenetic,
)
from tests.engines import releases
from tests.engines.regression import EVERY, GoBack
from tests.engines.stacked import problems
from tests.engines.stacked.problems import Functions, Traced

_TRACED = "/jax/core/compile/jaxpr_trace_duration"
_COMPILED = "/jax/core/compile/backend_compile_duration"
_counts: Counter[str] = Counter()
_kept: list[Any] = []  # JAX keeps listeners for ever: one is enough.


def _listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
    del duration_secs, kwargs
    _counts[event] += event in (_TRACED, _COMPILED)


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[Counter[str]]:
    """What was traced and compiled before each round began, and at the end."""
    if not _kept:
        _kept.append(_listen)
        jax.monitoring.register_event_duration_secs_listener(_listen)
    found: list[Counter[str]] = []
    prepare = PopulationTrainer._prepare

    def prepared(population: Any) -> list[int]:
        found.append(_counts.copy())
        return prepare(population)

    monkeypatch.setattr(PopulationTrainer, "_prepare", prepared)
    return found


def pbt() -> Mutator[Any]:
    """Members that copy each other."""
    return problems.pbt(10)


def winner() -> Mutator[Any]:
    """All members copy the best one."""
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
    """Copies, snapshots and saves are included: all programs exist by then."""
    make, size = POLICIES[name]
    found = problems.controller(make(), size, steps=60)
    traced = Traced(problems.STATES["linen and injected"]())
    options: Any = {"batching": batching, "save_every": 1000}
    problems.run(found, traced.functions, EVERY, **options)
    assert len(found.graph) > size
    assert len(rounds) > 8
    # Shapes are found by a first trace of each, and the optimiser's numbers of a branch
    # by another one of `init`. A loop has a program that only steps,
    # and a member that begins again needs `init` alone, which a loop has already.
    alone = batching == "loop"
    anew = name == "explorer" and not alone
    assert traced.counts == {"init": 3 + anew, "step": 2 + alone, "evaluate": 2}
    assert rounds[-1] == rounds[6 if name == "explorer" else 1]


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "explorer"])
def test_nothing_is_compiled_after_the_first_round_of_a_run_that_has_chosen(
    name: str, rounds: list[Counter[str]]
) -> None:
    """Only the chosen way, which was tried with fewer steps, is compiled once more."""
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
    """Members that begin again, and saves that are loaded, need only one `init`."""
    found = problems.controller(explorer(), 1, steps=60)
    traced = Traced(problems.STATES["linen and injected"]())
    options: Any = {"batching": batching, "save_every": 1}
    problems.run(found, traced.functions, EVERY, **options)
    alone = batching == "loop"
    inits = 3 if alone else 4
    assert traced.counts == {"init": inits, "step": 2 + alone, "evaluate": 2}
    # By then members have begun again, and continued from saves.
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


def again(functions: Functions, batching: str, seed: int = 3) -> Counter[str]:
    """What a run of some functions has traced and compiled."""
    before = _counts.copy()
    found = problems.controller(pbt(), 4, steps=40, seed=seed)
    problems.run(found, functions, EVERY, batching=batching)
    assert len(found.graph) > 4
    return _counts - before


@pytest.mark.parametrize("batching", [*problems.BATCHINGS, "auto"])
@pytest.mark.parametrize("state", ["linen and injected", "nnx module", "dict"])
def test_a_second_run_of_the_same_functions_compiles_nothing(
    state: str, batching: str, rounds: list[Counter[str]]
) -> None:
    """With another seed, policy and numbers the functions are not even traced."""
    traced = Traced(problems.STATES[state]())
    first = again(traced.functions, batching)
    assert first[_COMPILED]
    counts = traced.counts.copy()
    second = again(traced.functions, batching, seed=4)
    assert traced.counts == counts
    assert not second[_COMPILED]
    values = [0.2, 0.1, 0.02, 0.01]
    other = PopulationController(
        [{"learning_rate": rate} for rate in values], winner(), stop=Stop(40)
    )
    before = _counts.copy()
    problems.run(other, traced.functions, EVERY, batching=batching)
    assert traced.counts == counts
    assert not (_counts - before)[_COMPILED]


def test_a_second_run_with_other_data_of_the_same_shape_sees_them(
    rounds: list[Counter[str]],
) -> None:
    """Data are arguments of the programs; another shape is compiled again."""
    functions = Functions(
        lambda key, meta: jnp.zeros(()),
        lambda state, meta, batch, key: state + batch.sum(),
        lambda state, meta, batch: state + batch,
    )
    traced = Traced(functions)

    def trained(data: Any, evaluation: Any) -> float:
        found = problems.controller(problems.still(), 2, steps=4)
        given: Any = {"data": data, "evaluation": evaluation}
        problems.run(found, traced.functions, 2, **given)
        value = found.newest(0).value
        assert value is not None
        return value

    assert trained(np.ones(3, np.float32), np.float32(0.5)) == 4 * 3 + 0.5
    counts, before = traced.counts.copy(), _counts.copy()
    assert trained(np.full(3, 2, np.float32), np.float32(0.25)) == 4 * 6 + 0.25
    assert traced.counts == counts
    assert not (_counts - before)[_COMPILED]
    assert trained(np.ones(4, np.float32), np.float32(0.5)) == 4 * 4 + 0.5
    assert traced.counts["step"] > counts["step"]


SCALE = 1.0


def scaled(state: Any, meta: Any, batch: Any, key: Any) -> Any:
    """A step that reads a global variable, through a function of this module."""
    return state + factor()


def factor() -> float:
    """The factor that the step reads."""
    return SCALE


def test_what_a_function_reads_is_read_again_when_it_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A global with a new value, or a closed-over dict that was changed in place."""
    config = {"more": [1.0]}

    def evaluate(state: Any, meta: Any, batch: Any) -> Any:
        return state + config["more"][0]

    def init(key: Any, meta: Any) -> Any:
        return jnp.zeros(())

    def trained() -> Any:
        found = problems.controller(problems.still(), 2, steps=4)
        problems.run(found, Functions(init, scaled, evaluate))
        return found.newest(0).value

    assert trained() == 4 + 1
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert trained() == 8 + 1
    config["more"][0] = 3.0
    assert trained() == 8 + 3


def test_settings_of_jax_have_programs_of_their_own() -> None:
    """A second run under 64 bits does not use programs that were traced under 32."""
    functions = Functions(
        lambda key, meta: jnp.zeros(()),
        lambda state, meta, batch, key: state + 1e-9 + 0 * meta["learning_rate"],
        lambda state, meta, batch: 1 + state,
    )

    def trained() -> Any:
        found = problems.controller(problems.still(), 2, steps=4)
        problems.run(found, functions)
        return found.newest(0).value

    assert trained() == 1
    with releases.x64(True):
        assert trained() == pytest.approx(1 + 4e-9, rel=1e-12)
    assert trained() == 1


def test_nothing_of_a_run_is_kept_but_programs_and_these_go_with_their_functions() -> (
    None
):
    """No array outlives its run, and no program outlives the functions that it runs."""
    held_out = np.zeros(7654, np.float32)

    def trained() -> None:
        data = np.zeros((1234, 7), np.float32)
        offset = jnp.full((4321,), 0.5)

        def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
            return state + batch[0, 0] + offset[0]

        functions = Functions(
            lambda key, meta: jnp.zeros(2345),
            step,
            lambda state, meta, batch: state.sum() + batch.sum(),
        )
        options: Any = {"data": data, "evaluation": held_out}
        found = problems.controller(pbt(), 2, steps=20)
        problems.run(found, functions, EVERY, **options)
        assert len(cache._entries) == 1
        found.close()
        del found
        gc.collect()
        sizes = {math.prod(x.shape) for x in jax.live_arrays()}
        assert not sizes & {1234 * 7, 2 * 2345, 2345, 7654}

    trained()
    gc.collect()
    assert not cache._entries


def test_few_programs_are_kept() -> None:
    """The programs that were used last are kept."""
    functions = [
        Functions(
            lambda key, meta: jnp.zeros(()),
            lambda state, meta, batch, key: state + 1,
            lambda state, meta, batch: state,
        )
        for _ in range(cache._MOST + 2)
    ]
    columns = Columns(problems.metas(1), None, None, None)
    found = [cache.programs((*each,), columns, None, None) for each in functions]
    assert len(cache._entries) == cache._MOST
    assert cache.programs((*functions[-1],), columns, None, None) is found[-1]
    assert cache.programs((*functions[0],), columns, None, None) is not found[0]


class Trainer:
    """Functions that are methods.

    Args:
        by: What each step adds.
    """

    def __init__(self, by: float) -> None:
        self.by = by

    def init(self, key: Any, meta: Any) -> Any:
        """Zero."""
        return jnp.zeros(())

    def step(self, state: Any, meta: Any, batch: Any, key: Any) -> Any:
        """Add."""
        return state + self.by

    def evaluate(self, state: Any, meta: Any, batch: Any) -> Any:
        """The sum."""
        return state


def test_methods_are_the_same_functions_as_long_as_their_object_is_as_it_was(
    rounds: list[Counter[str]],
) -> None:
    """Python makes a method object each time; its object's attributes may change."""
    trainer = Trainer(1.0)

    def trained() -> Any:
        found = problems.controller(problems.still(), 2, steps=4)
        functions = Functions(trainer.init, trainer.step, trainer.evaluate)
        problems.run(found, functions)
        return found.newest(0).value

    assert trained() == 4
    before = _counts.copy()
    assert trained() == 4
    assert not (_counts - before)[_COMPILED]
    trainer.by = 2.0
    assert trained() == 8
    assert len(cache._entries) == 1
