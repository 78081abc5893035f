"""What a fault costs a stacked population, and what it does not cost."""

from __future__ import annotations

import logging
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from population import Branch, PopulationController, Stop
from population.base import NoProgressError
from population.base.types import InMemory
from population.core.leases import LeaseRules
from population.core.step import Step
from population.engines.stacked import autotune, prefetching
from population.engines.stacked.rounds import PopulationTrainer
from population.engines.stacked.states import StackedStates
from population.mutators import (
    FixedSchedule,
    PopulationBasedTraining,
    WinnerTakeAllGenetic,
)
from population.run.open_run import OpenRun
from population.space import Categorical
from tests import probe
from tests.engines import regression
from tests.engines.stacked import problems
from tests.engines.stacked.problems import PLAIN
from tests.helpers import Clock


def points(found: PopulationController) -> list[int]:
    """The steps from which the slots continue."""
    size = range(len(found.workers))
    return [found.graph.resume_point(found.newest(w)).step for w in size]


def schedule() -> FixedSchedule:
    """No member ever branches."""
    return FixedSchedule({0: regression.metas(1)[0]})


# Bad batches.


def in_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit chunks to the batches of one step."""
    monkeypatch.setattr(prefetching, "chunk_length", lambda steps, size: 1)


@pytest.mark.parametrize(("at", "left"), [(25, 25), (28, 20)])
def test_batches_that_fail_within_a_round_cost_the_rounds_since_the_last_save(
    at: int, left: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batches of a round cost nothing; the run continues as after a kill."""
    in_small_chunks(monkeypatch)

    def bad(seed: int, worker_id: int, step: int) -> Any:
        if step == at:
            raise OSError("a bad disk")
        return regression.batch(seed, worker_id, step)

    first = regression.controller(schedule(), 3, tmp_path)
    with pytest.raises(OSError, match="a bad disk"):
        regression.stacked(first, batches=bad, save_every=2)
    first.close()
    again = regression.controller(schedule(), 3, tmp_path)
    assert points(again) == [left] * 3
    regression.stacked(again, save_every=2)
    whole = regression.controller(schedule(), 3)
    regression.stacked(whole)
    best, expected = again.best(), whole.best()
    assert best is not None
    assert expected is not None
    assert best.value == pytest.approx(expected.value, rel=1e-4)


@pytest.mark.parametrize("second", [OSError, MemoryError, TypeError, ValueError])
def test_what_cannot_be_saved_then_is_said_beside_what_was_raised(
    second: type[Exception], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of the full disk does not hide the error that began the failure."""

    def bad(seed: int, worker_id: int, step: int) -> Any:
        if step == 10:
            raise OSError("a bad disk")
        return regression.batch(seed, worker_id, step)

    def full(*a: Any, **k: Any) -> Any:
        raise second("no space left")

    found = regression.controller(schedule(), 2, tmp_path)
    probe.fail_to_save(found, monkeypatch, full)
    with pytest.raises(OSError, match="a bad disk") as error:
        regression.stacked(found, batches=bad, save_every=1000)
    assert any("no space left" in note for note in error.value.__notes__)


def test_a_copy_that_fails_is_what_the_caller_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a failed copy, rows may hold anything: nothing is saved from them."""

    def failing(states: StackedStates, sources: Any) -> None:
        del sources
        states._flat = ()
        raise MemoryError("no memory for a copy")

    monkeypatch.setattr(StackedStates, "move", failing)
    found = regression.controller(problems.pbt(10))
    with pytest.raises(MemoryError, match="no memory for a copy"):
        regression.stacked(found, save_every=1000)
    assert probe.whole_claim(found) is None


# Leases.


def seconds_a_round(
    clock: Clock, seconds: list[float], monkeypatch: pytest.MonkeyPatch
) -> list[list[int]]:
    """Make rounds take this long; returns the slots that were free after each."""
    free: list[list[int]] = []
    whole = PopulationTrainer._round

    def slow(self: Any, active: Any) -> Any:
        values = whole(self, active)
        controller = self._lease.controller
        for _ in range(20):  # What other processes see, which look at intervals.
            clock.advance(seconds[self.rounds] / 20)
            probe.watch(controller)
        slots = range(len(active))
        free.append([w for w in slots if probe.is_free(controller, w)])
        return values

    monkeypatch.setattr(PopulationTrainer, "_round", slow)
    return free


def test_the_first_round_may_take_longer_than_the_time_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It compiles, and no other worker takes a slot. A later round has no such time."""
    clock = Clock()
    free = seconds_a_round(clock, [300.0, 1.0, 100.0, 1.0], monkeypatch)
    options: Any = {"clock": clock, "worker_timeout": 60.0}
    found = regression.controller(schedule(), 2, steps=20, **options)
    regression.stacked(found)
    assert found.finished
    assert free == [[], [], [0, 1], []]


def test_leases_are_renewed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One transaction renews all slots, also those that wait."""
    clock, alone = Clock(), [0]
    transact = OpenRun.transact

    def counted(run: OpenRun, work: Any, new: Any = ()) -> Any:
        alone[0] += not new
        return transact(run, work, new)

    options: Any = {"clock": clock, "worker_timeout": 60.0}
    found = regression.controller(problems.still(), 4, steps=20, **options)
    monkeypatch.setattr(OpenRun, "transact", counted)
    monkeypatch.setattr(LeaseRules, "heard", lambda *a: Step())
    seconds_a_round(clock, [30.0] * 4, monkeypatch)
    regression.stacked(found, save_every=1000)
    # The claim, its end and two facts; a renewal before each round except the first.
    assert alone == [4 + 3]


# What is counted and recorded.


@pytest.mark.parametrize("save_every", [1, 3, 1000])
def test_the_controllers_share_counts_rounds_that_save(
    save_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a report takes a second and a save a minute: only the former counts."""
    clock = Clock(0.0)
    submit, encode = OpenRun.submit, OpenRun.encode

    def committed(run: OpenRun, *a: Any) -> Any:
        clock.advance(1.0)
        return submit(run, *a)

    def saved(run: OpenRun, *a: Any, **k: Any) -> Any:
        clock.advance(0.0 if isinstance(a[3], InMemory) else 60.0)
        return encode(run, *a, **k)

    monkeypatch.setattr(OpenRun, "submit", committed)
    monkeypatch.setattr(OpenRun, "encode", saved)
    monkeypatch.setattr(time, "perf_counter", clock)
    found = regression.controller(schedule(), 2)
    summary = regression.stacked(found, save_every=save_every)
    assert summary.overhead_s == summary.rounds == 8


def categories(**given: list[str]) -> dict[str, Any]:
    """A run's arguments: one category."""
    return {"categories": given, "every": 1}


def category_run(log_dir: pathlib.Path, steps: int, value: str) -> PopulationController:
    """A population whose only hyperparameter is a string."""
    schedule = FixedSchedule({0: {"a": "x"}, 3: {"a": value}})
    return PopulationController(
        [{"a": "x"}, {"a": "x"}], schedule, log_dir, stop=Stop(steps)
    )


WORDS = problems.Functions(
    lambda key, meta: jnp.zeros(()),
    lambda state, meta, batch, key: state + 1.0 + meta["a"],
    lambda state, meta, batch: state,
)


def test_what_was_not_trained_with_is_not_recorded(tmp_path: pathlib.Path) -> None:
    """A typo in `step` does not fix the codes."""

    def typo(state: Any, meta: Any, batch: Any, key: Any) -> Any:
        return state + meta["b"]

    found = category_run(tmp_path, 2, "x")
    with pytest.raises(KeyError):
        problems.run(found, WORDS._replace(step=typo), **categories(a=["y", "x"]))
    problems.run(found, WORDS, **categories(a=["x", "y"]))
    assert [found.newest(w).value for w in range(2)] == [2.0, 2.0]


def test_values_may_be_added_at_the_end_of_categories(tmp_path: pathlib.Path) -> None:
    """This changes no code; a change of codes is refused and named."""
    first = category_run(tmp_path, 2, "z")
    problems.run(first, WORDS, **categories(a=["x", "y"]))
    first.close()
    again = category_run(tmp_path, 4, "z")
    for given in (categories(a=["y", "x"]), categories(a=["x"])):
        with pytest.raises(ValueError, match="categories must be those with which"):
            problems.run(again, WORDS, **given)
    problems.run(again, WORDS, **categories(a=["x", "y", "z"]))
    assert again.newest(0).value == 3 * 1.0 + 3.0
    again.close()
    third = category_run(tmp_path, 6, "z")  # The added values are fixed, too.
    with pytest.raises(ValueError, match="categories must be those with which"):
        problems.run(third, WORDS, **categories(a=["x", "y", "w", "z"]))
    problems.run(third, WORDS, **categories(a=["x", "y", "z", "w"]))
    assert third.newest(0).value == 6.0 + 2 * 3.0


@pytest.mark.parametrize(
    ("error", "keep"),
    [
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), False),
        (NotImplementedError("no rule for a batch"), True),
    ],
)
def test_a_choice_for_want_of_memory_is_made_again(
    error: Exception, keep: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Another program may have used the memory; the next start tries again."""
    clock = Clock()

    def make(name: str) -> Any:
        if name == "vmap":
            raise error
        return lambda: clock.advance(1.0)

    found = autotune.fastest(make, "", ("loop", "vmap"), clock)
    assert found == ("loop", keep)
    assert "cannot be batched by vmap" in caplog.text


@pytest.mark.parametrize(
    ("size", "steps", "ways"),
    [(1, 1, ["loop"]), (1, 2, ["loop", "vmap"]), (2, 1, ["loop", "vmap", "map"])],
)
def test_what_cannot_differ_is_not_tried(
    size: int, steps: int, ways: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """One member that makes one step is the same program for every way of batching."""
    caplog.set_level(logging.INFO)
    assert autotune.worth_trying(size, steps) == ways
    if len(ways) == 1:
        found = problems.controller(size=1, steps=2)
        assert problems.run(found, PLAIN, 1, batching="auto").batching == "loop"
        assert "no other way" in caplog.text
        assert not [f for f in probe.facts(found) if "batching" in f]


def test_the_data_are_on_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one copy also while ways are tried: data may fill most of the memory."""
    data = np.ones((1234, 7), np.float32)
    counts: list[int] = []

    def copies() -> int:
        arrays: list[Any] = jax.live_arrays()
        alike = [x for x in arrays if x.shape == data.shape]
        return len({x.unsafe_buffer_pointer() for x in alike})

    def fastest(make: Any, what: str, names: Any) -> Any:
        del what
        for name in names:
            make(name)()
            counts.append(copies())
        return autotune.Choice("loop", keep=True)

    monkeypatch.setattr(autotune, "fastest", fastest)
    monkeypatch.setattr(autotune, "pays", lambda left_s, compile_s, ways: True)
    problems.run(problems.controller(), PLAIN, data=data, batching="auto")
    assert counts == [1, 1, 1]


def test_held_stands_for_all_params_and_nothing_else() -> None:
    """As a metric it would be read back as weights."""
    found = PopulationController([1.0], FixedSchedule({0: 1.0}))
    at = found.workers[0]
    with pytest.raises(ValueError, match="metrics must be a value, got InMemory"):
        found.set_eval(0, at.generation_id, 1, None, 1.0, InMemory())


def test_a_round_that_can_only_be_cut_into_crumbs_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A prime number of steps needs a call for each step."""
    assert prefetching.chunk_length(101, 10, 500) == 1
    assert "50 steps fit" in caplog.text
    caplog.clear()
    assert prefetching.chunk_length(100, 10, 500) == 50
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["batches", "shared_batches"])
def test_keys_among_host_batches_are_refused(name: str) -> None:
    """The message says what NumPy can hold instead."""
    found = problems.controller()
    given: Any = {name: lambda *place: jax.random.key(place[-1])}
    with pytest.raises(TypeError, match=f"{name} must return .*key_data"):
        problems.run(found, PLAIN, **given)


def test_a_run_that_has_ended_says_so() -> None:
    """Nothing is tried, compiled or trained."""
    found = problems.controller()
    problems.run(found, PLAIN)
    summary = problems.run(found, PLAIN, batching="auto")
    assert (summary.rounds, summary.batching) == (0, "")


# Members that diverge.


def nan(state: Any, meta: Any, batch: Any) -> Any:
    """An `evaluate` that is broken."""
    return jnp.float32(jnp.nan)


@pytest.mark.parametrize("kind", ["pbt", "asynchronous", "winner"])
def test_a_population_that_only_diverges_ends(kind: str) -> None:
    """Resetting for ever is not training; what was recorded stays."""
    policies: dict[str, Any] = {
        "pbt": problems.pbt(2),
        "asynchronous": PopulationBasedTraining(problems.mutate, 2),
        "winner": WinnerTakeAllGenetic(problems.mutate, 2, synchronous=True),
    }
    found = problems.controller(policies[kind], 3, steps=20)
    with pytest.raises(NoProgressError, match="worker 0, 1, 2: diverged: nan"):
        problems.run(found, PLAIN._replace(evaluate=nan))
    assert found.diverged() == [3, 3, 3]
    assert probe.whole_claim(found) is None


def test_a_policy_that_never_goes_back_ends_as_ever() -> None:
    """A schedule continues, also with other numbers at each report."""
    metas = problems.metas(21)
    mutator = FixedSchedule({2 * i: meta for i, meta in enumerate(metas)})
    found = problems.controller(mutator, 3, steps=42)
    problems.run(found, PLAIN._replace(evaluate=nan))
    assert found.finished
    assert found.best() is None


def test_one_member_with_a_finite_value_keeps_a_population_going() -> None:
    """The others begin again as often as needed."""

    def evaluate(state: Any, meta: Any, batch: Any) -> Any:
        good = meta["learning_rate"] < 0.002
        return jnp.where(good, PLAIN.evaluate(state, meta, batch), jnp.nan)

    found = problems.controller(problems.pbt(1), 3, steps=60)
    problems.run(found, PLAIN._replace(evaluate=evaluate), 1)
    assert found.finished


def test_a_member_that_alone_diverges_for_ever_is_retired() -> None:
    """The others wait for a decision that this policy never makes, and the run ends."""

    def evaluate(state: Any, meta: Any, batch: Any) -> Any:
        return jnp.where(meta["bad"] > 0, jnp.nan, PLAIN.evaluate(state, meta, batch))

    def decide(report: Any, view: Any) -> Any:
        if not report.checkpoint.diverged:
            return {}
        return {report.worker_id: Branch(None, report.checkpoint.meta_params)}

    class Waiting(problems.Branching):
        """Members with a finite value wait after their first report."""

        def wait_at(self, state: None, worker_id: int, view: Any) -> int | None:
            return 2

    metas = [{**meta, "bad": float(i == 1)} for i, meta in enumerate(problems.metas(5))]
    found = problems.controller(Waiting(decide), starts=metas, steps=20)
    with pytest.raises(NoProgressError, match="slot 4 at step 2; slot 1, retired"):
        problems.run(found, PLAIN._replace(evaluate=evaluate))


def test_values_may_be_added_to_those_of_a_space(tmp_path: pathlib.Path) -> None:
    """The error that asks for them says so; another order is refused."""
    space = {"a": Categorical(["x", "y"])}

    def opened(steps: int) -> PopulationController:
        schedule = FixedSchedule({0: {"a": "x"}, 3: {"a": "z"}})
        metas = [{"a": "x"}, {"a": "x"}]
        return PopulationController(
            metas, schedule, tmp_path, stop=Stop(steps), space=space
        )

    first = opened(2)
    problems.run(first, WORDS, 1)
    first.close()
    again = opened(5)
    with pytest.raises(ValueError, match="categories must be those with which"):
        problems.run(again, WORDS, **categories(a=["y", "x", "z"]))
    problems.run(again, WORDS, **categories(a=["x", "y", "z"]))
    assert again.newest(0).value == 3 * 1.0 + 2 * 3.0
