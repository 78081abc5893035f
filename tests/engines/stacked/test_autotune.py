"""Which way of batching is chosen, and that trials do not change a run."""

from __future__ import annotations

import logging
import pathlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from population.base import codec
from population.engines.stacked import autotune
from population.engines.stacked.builder import Builder
from population.engines.stacked.step_cost import StepCost, of
from tests import probe
from tests.engines.stacked import problems
from tests.engines.stacked.problems import PLAIN, Functions, Traced
from tests.helpers import Clock


class Bench:
    """Rounds that take a given time, by a simulated clock.

    Args:
        seconds: By name, the seconds of each run after the first.
        compiling: Additional seconds of each first run.
    """

    def __init__(self, seconds: dict[str, float], compiling: float = 0.0) -> None:
        self.clock = Clock()
        self.runs: Counter[str] = Counter()
        self._seconds, self._compiling = seconds, compiling

    def make(self, name: str) -> Callable[[], None]:
        """A function that lets time pass."""

        def run() -> None:
            self.runs[name] += 1
            first = self.runs[name] == 1
            self.clock.advance(self._seconds[name] + first * self._compiling)

        return run

    def fastest(self) -> str:
        """The choice."""
        ways = tuple(self._seconds)
        return autotune.fastest(self.make, "a moment", ways, self.clock).batching


@pytest.mark.parametrize("best", problems.BATCHINGS)
def test_the_fastest_is_chosen(best: str) -> None:
    """The order of the ways and the time of compiling do not matter."""
    seconds = dict.fromkeys(problems.BATCHINGS, 0.2) | {best: 0.1}
    assert Bench(seconds, compiling=5.0).fastest() == best


def test_one_that_is_much_slower_is_given_up() -> None:
    """If it takes three times as long as the best, it runs only twice."""
    bench = Bench({"vmap": 0.1, "map": 0.31, "loop": 0.29})
    assert bench.fastest() == "vmap"
    assert bench.runs["map"] == 2
    assert bench.runs["loop"] == bench.runs["vmap"] == 4


def test_a_single_hiccup_decides_nothing() -> None:
    """The median of several runs counts."""
    bench = Bench({"map": 0.12, "vmap": 0.1})

    def make(name: str) -> Callable[[], None]:
        run = bench.make(name)

        def slow_once() -> None:
            run()
            if name == "vmap" and bench.runs[name] == 3:
                bench.clock.advance(1)

        return slow_once

    chosen = autotune.fastest(make, "", ("map", "vmap"), bench.clock)
    assert chosen == ("vmap", True)


def test_short_rounds_are_repeated_until_they_say_something() -> None:
    """Rounds are repeated for a tenth of a second; a slow one runs once."""
    short = Bench({"vmap": 0.01, "map": 0.01})
    short.fastest()
    assert short.runs["vmap"] >= 10
    long = Bench({"vmap": 100.0, "map": 90.0})
    assert long.fastest() == "map"
    assert long.runs == {"vmap": 2, "map": 2}


def test_the_choice_is_logged_with_its_times(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the milliseconds of each way, and says of which run."""
    with caplog.at_level(logging.INFO, "population"):
        Bench({"vmap": 0.4, "loop": 0.8}).fastest()
    assert "batched by vmap" in caplog.text
    assert "a moment: vmap 400 ms" in caplog.text
    assert "loop 800 ms" in caplog.text


def favour(monkeypatch: pytest.MonkeyPatch, best: str) -> list[str]:
    """Make trials run and this way win; returns the ways that were tried."""
    tried: list[str] = []

    def fastest(make: Callable[[str], Callable[[], Any]], *rest: Any) -> Any:
        for name in problems.BATCHINGS:
            tried.append(name)
            make(name)()
        return autotune.Choice(best, keep=True)

    monkeypatch.setattr(autotune, "fastest", fastest)
    monkeypatch.setattr(autotune, "pays", lambda left_s, compile_s, ways: True)
    return tried


@pytest.mark.parametrize("best", problems.BATCHINGS)
def test_trying_changes_nothing_in_the_run(
    best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that changes its way is equal to a run with that way from the beginning."""
    options: Any = {"batches": lambda seed, worker_id, step: problems.INPUTS}
    chosen, named = problems.controller(steps=20), problems.controller(steps=20)
    problems.run(named, PLAIN, batching=best, **options)
    tried = favour(monkeypatch, best)
    summary = problems.run(chosen, PLAIN, batching="auto", **options)
    assert tried == list(problems.BATCHINGS)  # Once.
    assert (summary.batching, summary.rounds) == (best, 10)
    problems.assert_alike(chosen, named)


@pytest.mark.parametrize("kind", ["data", "shared_batches"])
def test_a_way_is_changed_whatever_the_batches_are(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The states move to the other rows, and the batches continue where they were."""
    given: dict[str, Any] = {
        "data": problems.INPUTS,
        "shared_batches": lambda seed, step: problems.INPUTS,
    }
    options = {kind: given[kind]}
    chosen, named = problems.controller(steps=20), problems.controller(steps=20)
    problems.run(named, PLAIN, batching="loop", **options)
    favour(monkeypatch, "loop")
    assert problems.run(chosen, PLAIN, batching="auto", **options).batching == "loop"
    problems.assert_alike(chosen, named)


def test_a_short_run_tries_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It compiles only the likely way, and records nothing."""
    traced = Traced(PLAIN)
    found = problems.controller(steps=8)
    with caplog.at_level(logging.INFO, "population"):
        summary = problems.run(found, traced.functions, batching="auto")
    assert summary.batching == "vmap"
    assert traced.counts == {"init": 2, "step": 2, "evaluate": 2}
    assert "batched by vmap, until it is known" in caplog.text
    assert not [f for f in probe.facts(found) if "batching" in f]


def test_trying_pays_where_the_time_that_is_left_outweighs_compiling() -> None:
    """A quarter of it must exceed compiling one program more than there are ways."""
    assert not autotune.pays(left_s=15.9, compile_s=0.9, ways=3)
    assert autotune.pays(left_s=16.1, compile_s=0.9, ways=3)


@pytest.mark.parametrize(
    ("ways", "platform", "cost", "way"),
    [
        (["loop"], "gpu", StepCost(False, 0), "loop"),
        (["loop", "vmap", "map"], "cpu", StepCost(False, 10**6), "vmap"),
        (["loop", "vmap", "map"], "cpu", StepCost(True, 0), "loop"),
        (["loop", "vmap", "map"], "cpu", StepCost(False, 10**8), "loop"),
        (["loop", "vmap", "map"], "gpu", StepCost(True, 10**8), "vmap"),
        (["loop", "vmap"], "cpu", StepCost(False, 0), "vmap"),
    ],
)
def test_a_run_begins_with_the_likely_way(
    ways: list[str], platform: str, cost: StepCost, way: str
) -> None:
    """Convolutions and large products decide on a CPU; elsewhere it is "vmap"."""
    assert autotune.likely(ways, platform, cost)[0] == way


def test_the_products_of_a_step_are_counted() -> None:
    """Products in a gradient count too, those in a scan once for each iteration."""

    def loss(weights: Any, inputs: Any) -> Any:
        return jnp.sum((inputs @ weights) ** 2)

    def scanned(weights: Any, inputs: Any) -> Any:
        def body(carry: Any, _: None) -> Any:
            return carry @ inputs, None

        return jax.lax.scan(body, weights, None, 5)[0]

    weights, inputs = jnp.ones((3, 2)), jnp.ones((4, 3))
    gradient = jax.make_jaxpr(jax.jit(jax.grad(loss)))(weights, inputs)
    assert of(gradient.jaxpr) == StepCost(False, 2 * 4 * 3 * 2)
    square = jax.make_jaxpr(scanned)(jnp.ones((4, 3)), jnp.ones((3, 3)))
    assert of(square.jaxpr) == StepCost(False, 5 * 4 * 3 * 3)


def test_a_step_with_a_convolution_is_looped_on_a_cpu() -> None:
    """A convolution is found anywhere in the step, also inside a gradient and a jit."""

    @jax.jit
    def loss(kernel: Any) -> Any:
        inputs = jnp.ones((1, 1, 8))
        return jnp.sum(jax.lax.conv(inputs, kernel, (1,), "SAME") ** 2)

    convolving = Functions(
        lambda key, meta: jax.random.normal(key, (1, 1, 3)),
        lambda state, meta, batch, key: state - 0.01 * jax.grad(loss)(state),
        lambda state, meta, batch: loss(state),
    )
    found = problems.controller(steps=4)
    assert problems.run(found, convolving, batching="auto").batching == "loop"


def test_where_the_likely_way_is_impossible_the_next_one_is_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A callback has no batching rule; if the user names the way, this is an error."""

    def step(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        look = jax.ShapeDtypeStruct((), np.float32)
        return jax.pure_callback(lambda x: np.float32(x + 1), look, state)

    functions = Functions(
        lambda key, meta: jnp.zeros(()), step, lambda state, meta, batch: -state
    )
    with pytest.raises(NotImplementedError, match="vmap"):
        problems.run(problems.controller(steps=4), functions, batching="vmap")
    found = problems.controller(steps=8)
    summary = problems.run(found, functions, batching="auto")
    assert (summary.batching, summary.rounds) == ("loop", 4)
    assert found.newest(0).value == -8
    assert "cannot be batched by vmap" in caplog.text


def test_without_room_for_copies_the_present_way_stays(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run continues, and a later one may try again."""

    def trial(builder: Builder, batching: str) -> Any:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(Builder, "trial", trial)
    monkeypatch.setattr(autotune, "pays", lambda left_s, compile_s, ways: True)
    found = problems.controller(steps=20)
    summary = problems.run(found, PLAIN, batching="auto")
    assert (summary.batching, summary.rounds) == ("vmap", 10)
    assert caplog.text.count("cannot be tried") == 1
    assert not [f for f in probe.facts(found) if "batching" in f]


def test_the_choice_is_recorded_and_kept(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that continues tries nothing again; a way named by the user wins."""
    tried = favour(monkeypatch, "map")
    found = problems.controller(log_dir=tmp_path, steps=8)
    assert problems.run(found, PLAIN, batching="auto").batching == "map"
    facts = probe.facts(found)
    fact = facts["batching on 1 cpu, 2 steps a report"]
    assert codec.decode(fact) == "map"
    found.close()
    tried.clear()
    again = problems.controller(log_dir=tmp_path, steps=10)
    assert problems.run(again, PLAIN, batching="auto").batching == "map"
    assert tried == []
    again.close()
    named = problems.controller(log_dir=tmp_path, steps=12)
    assert problems.run(named, PLAIN, batching="vmap").batching == "vmap"
    named.close()


def test_a_choice_by_name_is_kept_too(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that continues without a named way uses the one that it began with."""
    tried = favour(monkeypatch, "vmap")
    found = problems.controller(log_dir=tmp_path, steps=4)
    problems.run(found, PLAIN, batching="map")
    found.close()
    again = problems.controller(log_dir=tmp_path, steps=6)
    assert problems.run(again, PLAIN, batching="auto").batching == "map"
    assert tried == []
    again.close()


def test_the_choice_is_left_to_the_clock_where_trying_pays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All ways are tried, one is used, and a later run here uses it at once."""
    monkeypatch.setattr(autotune, "pays", lambda left_s, compile_s, ways: True)
    found = problems.controller(size=2, steps=8)
    summary = problems.run(found, PLAIN, batching="auto")
    assert summary.batching in problems.BATCHINGS
    assert found.finished
    tried = favour(monkeypatch, "none")
    again = problems.run(problems.controller(size=2), PLAIN, batching="auto")
    assert (again.batching, tried) == (summary.batching, [])


def test_without_room_for_both_stacks_the_present_way_stays(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory for a trial does not guarantee memory for the change."""
    favour(monkeypatch, "loop")
    states, made = Builder.stack, []

    def once(builder: Builder, batching: str) -> Any:
        made.append(batching)
        if len(made) > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return states(builder, batching)

    monkeypatch.setattr(Builder, "stack", once)
    found, named = problems.controller(steps=20), problems.controller(steps=20)
    summary = problems.run(found, PLAIN, batching="auto")
    assert made == ["vmap", "loop"]
    assert (summary.batching, summary.rounds) == ("vmap", 10)
    assert "cannot be batched by loop" in caplog.text
    assert not [f for f in probe.facts(found) if "batching" in f]
    monkeypatch.setattr(Builder, "stack", states)
    problems.run(named, PLAIN, batching="vmap")
    problems.assert_alike(found, named)
