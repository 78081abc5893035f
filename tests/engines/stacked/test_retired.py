"""Retired members are trained along until the stack is compacted, which is exact."""

from __future__ import annotations

import logging
import pathlib
import signal
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import population
from population import Mutator, PopulationController, Stop
from population.base import NoProgressError
from population.base.types import InMemory
from population.engines import vectorized
from population.engines.stacked import prefetching
from population.engines.stacked.rounds import PopulationTrainer
from population.engines.stacked.stack import RowMap, Stack
from tests.engines import regression
from tests.engines.stacked import problems, retiring
from tests.engines.stacked.problems import Traced
from tests.engines.stacked.retiring import (
    BringingBack,
    Halving,
    HandingOn,
    StartAgain,
)

POLICIES: dict[str, tuple[Mutator[Any], list[int]]] = {
    "one half": (Halving(10), [8]),
    "halvings": (Halving(5, 10, 15), [8, 4, 2]),
    "handing on": (HandingOn(5, 15), [8, 4]),
    "bringing back": (BringingBack(5, 15), [8, 11]),
}


def retired(found: PopulationController) -> list[int]:
    """The slots that are retired."""
    return sorted(found.open_run.state().members.retired)


# The rows.


@pytest.mark.parametrize(
    ("size", "devices", "live", "expected"),
    [
        (16, 1, range(16), None),
        (16, 1, range(9), None),
        (16, 1, range(8, 16), tuple(range(8, 16))),
        (16, 3, (1, 4, 5, 7), (1, 4, 5, 7, 1, 1)),
        (8, 8, range(4), None),
        (1, 1, (), None),
    ],
)
def test_a_stack_shrinks_once_half_of_it_is_retired(
    size: int, devices: int, live: Any, expected: tuple[int, ...] | None
) -> None:
    """Each device has as many rows; a change that would save none is not made."""
    found = RowMap(range(size), devices).resized(list(live))
    assert (None if found is None else found.padded) == expected


def test_a_stack_grows_for_a_slot_without_a_row() -> None:
    """It then has the rows of all slots that are not retired."""
    small = RowMap([2, 5, 6], 2)
    assert small.resized([2, 5]) is None
    grown = small.resized([1, 2, 6])
    assert grown is not None
    assert grown.padded == (1, 2, 6, 1)
    assert [grown.row(w) for w in (1, 2, 6)] == [0, 1, 2]


# Compaction.


@pytest.mark.parametrize("batching", problems.BATCHINGS)
@pytest.mark.parametrize("name", POLICIES)
def test_members_train_as_without_compaction(name: str, batching: str) -> None:
    """Exactly so by "map" and "loop"; JAX does not promise it for "vmap"."""
    mutator, expected = POLICIES[name]
    save_every = 2 if name in ("halvings", "bringing back") else 1000
    runs = []
    for compacts in (True, False):
        found = regression.controller(mutator, 16, steps=25)
        with retiring.sizes(compacts=compacts) as sizes:
            regression.stacked(found, batching=batching, save_every=save_every)
        assert [len(ids) for ids in sizes] == (expected if compacts else [])
        assert found.finished
        runs.append(found)
    ours, theirs = runs
    assert regression.decisions(ours) == regression.decisions(theirs)
    assert retired(ours) == retired(theirs) != []
    if batching == "vmap":
        regression.assert_alike(ours, theirs)
    else:
        assert regression.values(ours) == regression.values(theirs)
    rtol, atol = (1e-4, 1e-6) if batching == "vmap" else (0.0, 0.0)
    for w in range(16):
        pair = [jax.tree.leaves(run.load(run.newest(w))) for run in runs]
        for one, other in zip(*pair, strict=True):
            np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


@pytest.mark.parametrize("source", ["batches", "shared_batches"])
def test_rounds_of_several_chunks_train_members_as_without_compaction(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its own batches, or with one batch for all."""
    monkeypatch.setattr(prefetching, "chunk_length", lambda steps, size: 1)
    given = {"batches": regression.batch, "shared_batches": regression.shared_batch}
    runs = []
    for compacts in (True, False):
        found = regression.controller(HandingOn(5), 8, steps=15)
        with retiring.sizes(compacts=compacts):
            regression.stacked(found, batching="map", **{source: given[source]})
        runs.append(found)
    assert regression.decisions(runs[0]) == regression.decisions(runs[1])
    assert regression.values(runs[0]) == regression.values(runs[1])


def test_no_batch_is_asked_for_members_that_have_left() -> None:
    """The others get the batches of their own worker ids and steps."""
    asked: list[tuple[int, int]] = []

    def batch(seed: int, worker_id: int, at: int) -> Any:
        asked.append((worker_id, at))
        return regression.batch(seed, worker_id, at)

    found = regression.controller(Halving(5), 8, steps=20)
    regression.stacked(found, batches=batch)
    left = retired(found)
    assert len(left) == 4
    late = {w for w, at in asked if at >= 10}
    assert late == set(range(8)) - set(left)


@pytest.mark.parametrize("batching", problems.BATCHINGS)
def test_a_compaction_compiles_each_program_once(batching: str) -> None:
    """A loop, whose programs have one member, compiles nothing at all."""
    found = problems.controller(Halving(4, 8), 8, steps=16)
    traced = Traced(problems.STATES["linen and injected"]())
    seen: list[Counter[str]] = []
    prepare = PopulationTrainer._prepare

    def noted(population: Any) -> list[int]:
        seen.append(traced.counts.copy())
        return prepare(population)

    with pytest.MonkeyPatch.context() as patch, retiring.sizes() as sizes:
        patch.setattr(PopulationTrainer, "_prepare", noted)
        problems.run(found, traced.functions, batching=batching)
    assert [len(ids) for ids in sizes] == [4, 2]
    more = traced.counts - seen[1]
    assert more["step"] == more["evaluate"] == (0 if batching == "loop" else 2)


def test_a_run_that_is_opened_again_begins_with_a_compact_stack(
    tmp_path: pathlib.Path,
) -> None:
    """It trains on as the one that went on."""
    whole = regression.controller(Halving(5), 8, steps=20)
    regression.stacked(whole, batching="map")
    for steps in (10, 20):
        found = regression.controller(Halving(5), 8, tmp_path, steps)
        with retiring.sizes() as sizes:
            regression.stacked(found, batching="map")
        assert len(sizes) == (steps == 10)
        if steps == 10:
            found.close()
    assert regression.values(found) == regression.values(whole)


# Revival.


@pytest.mark.parametrize("after", [2, 3])
@pytest.mark.parametrize("save_every", [1, 1000])
def test_a_revived_slot_continues_from_its_newest_weights(
    after: int, save_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it has left the stack or not, its weights are within reach."""
    report = PopulationTrainer._report
    runs = []
    for compacts in (True, False):
        found = regression.controller(Halving(10), 6, steps=30)

        def reviving(self: Any, *a: Any, found: PopulationController = found) -> None:
            report(self, *a)
            if self.rounds + 1 == after:
                found.revive(retired(found)[0])

        with monkeypatch.context() as patch, retiring.sizes(compacts=compacts) as new:
            patch.setattr(PopulationTrainer, "_report", reviving)
            regression.stacked(found, batching="map", save_every=save_every)
        assert [len(ids) for ids in new] == ([3, 4] if compacts and after == 3 else [])
        runs.append(found)
    ours, theirs = runs
    assert len(retired(ours)) == 2
    steps = [ours.newest(w).step for w in range(6)]
    assert sorted(steps) == [10, 10, 30, 30, 30, 30]
    assert regression.decisions(ours) == regression.decisions(theirs)
    assert regression.values(ours) == regression.values(theirs)


def test_weights_of_retired_slots_are_saved_when_they_leave(
    tmp_path: pathlib.Path,
) -> None:
    """They need no memory on the device, and another engine can revive them."""
    found = regression.controller(Halving(5), 6, tmp_path, steps=15)
    seen: list[int] = []
    prepare = PopulationTrainer._prepare

    def noted(population: Any) -> list[int]:
        active = prepare(population)
        left = [found.newest(w).params for w in retired(found)]
        seen.append(len(left) - sum(isinstance(params, InMemory) for params in left))
        return active

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PopulationTrainer, "_prepare", noted)
        regression.stacked(found, save_every=1000)
    assert seen == [0, 3, 3]
    found.revive(retired(found)[0])
    regression.by_threads(found)
    assert sorted(found.newest(w).step for w in range(6)) == [5, 5, 15, 15, 15, 15]


# Faults.


@pytest.mark.parametrize("place", ["picked", "set_rows"])
def test_an_error_while_compacting_loses_nothing(
    place: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The present stack is whole until the new one is complete: it is saved."""
    used = getattr(Stack, place)

    def failing(stack: Stack, *a: Any) -> Any:
        if place == "picked" or len(stack.rows) < 8:
            raise OSError("no luck")
        return used(stack, *a)

    found = regression.controller(Halving(10), 8, tmp_path, steps=30)
    with monkeypatch.context() as patch:
        patch.setattr(Stack, place, failing)
        with pytest.raises(OSError, match="no luck"):
            regression.stacked(found, save_every=1000)
    found.close()
    again = regression.controller(Halving(10), 8, tmp_path, steps=30)
    assert {again.newest(w).step for w in range(8)} == {10}
    regression.stacked(again, batching="map")
    whole = regression.controller(Halving(10), 8, steps=30)
    regression.stacked(whole, batching="map")
    regression.assert_alike(again, whole)


def test_an_interrupt_while_compacting_ends_the_run_after_the_round(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The members that are left have trained it, and all states are saved."""
    picked = Stack.picked

    def interrupted(stack: Stack, rows: RowMap) -> Any:
        signal.raise_signal(signal.SIGINT)
        return picked(stack, rows)

    monkeypatch.setattr(Stack, "picked", interrupted)
    found = regression.controller(Halving(10), 8, tmp_path, steps=30)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        summary = regression.stacked(found, batching="map", save_every=1000)
    finally:
        signal.signal(signal.SIGINT, before)
    assert summary.interrupted
    newest = [found.newest(w) for w in range(8)]
    assert sorted(c.step for c in newest) == [10] * 4 + [15] * 4
    assert not any(isinstance(c.params, InMemory) for c in newest)


def test_without_memory_for_a_second_stack_the_present_one_stays(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """This is tried once."""
    tried: list[int] = []

    def full(stack: Stack, rows: RowMap) -> Any:
        tried.append(len(rows))
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(Stack, "picked", full)
    found = regression.controller(Halving(5, 10), 8, steps=20)
    with caplog.at_level(logging.WARNING, "population"):
        regression.stacked(found)
    assert tried == [4]
    assert "retired members stay in the stack" in caplog.text
    monkeypatch.undo()
    whole = regression.controller(Halving(5, 10), 8, steps=20)
    regression.stacked(whole)
    regression.assert_alike(found, whole)


# Failures.

DOOMED = (3, 17, 40, 71, 99)
_HALF, _END = 4, 8


def _init(key: Any, meta_params: Any) -> Any:
    return jnp.zeros(())


def _step(state: Any, meta_params: Any, batch: Any, key: Any) -> Any:
    fails = (meta_params["fate"] < 0.3) | batch
    return jnp.where(fails, jnp.nan, state + 1.0)


def _evaluate(state: Any, meta_params: Any, batch: Any) -> Any:
    return state


def _doomed(seed: int, worker_id: int, at: int) -> Any:
    return np.bool_(worker_id in DOOMED)


def of_fates(
    most: int, log_dir: Any = None, size: int = 100, starts: Any = None
) -> PopulationController:
    """Slots whose starts fail with probability 0.3, and some whose starts all do."""
    metas = [{"fate": retiring.fate(w, 0)} for w in range(size)]
    options: Any = {"stop": Stop(steps=_END), "max_failures": most, "mode": "max"}
    metas = metas if starts is None else starts
    return PopulationController(metas, StartAgain(_HALF), log_dir, **options)


def train(found: PopulationController, **options: Any) -> vectorized.Summary:
    """Train such a population."""
    rest: Any = {"batches": _doomed, "progress": False, "batching": "vmap", **options}
    return vectorized.run(found, _init, _step, _evaluate, 2, **rest)


def is_retired(worker_id: int, most: int) -> bool:
    """Whether so many starts in a row fail, before the half time or after it."""
    start = 0
    for _ in range(2):
        failures = 0
        while worker_id in DOOMED or retiring.fate(worker_id, start) < 0.3:
            failures, start = failures + 1, start + 1
            if failures == most:
                return True
        start += 1
    return False


@pytest.mark.parametrize("most", [12, 3])
def test_members_that_fail_again_and_again_are_retired(
    most: int, tmp_path: pathlib.Path
) -> None:
    """All others reach the end, and no step is trained twice."""
    found = of_fates(most, tmp_path)
    train(found, save_every=1000)
    assert found.finished
    expected = [w for w in range(100) if is_retired(w, most)]
    assert retired(found) == expected
    assert expected == list(DOOMED) if most == 12 else len(expected) > len(DOOMED)
    rest = [w for w in range(100) if w not in expected]
    assert {(found.newest(w).step, found.newest(w).value) for w in rest} == {(8, 8.0)}
    finite = [c for c in found.history() if c.value is not None and not c.diverged]
    assert max(Counter((c.worker_id, c.step) for c in finite).values()) == 1
    found.close()
    again = population.replay(tmp_path, StartAgain(_HALF))
    assert again.first_difference is None, str(again)


def test_a_run_whose_members_have_all_failed_names_the_reasons(
    tmp_path: pathlib.Path,
) -> None:
    """So does another attempt, until a slot is revived."""
    bad = [{"fate": 0.0}] * 3
    found = of_fates(1, tmp_path, starts=bad)
    for _ in range(2):
        with pytest.raises(NoProgressError, match="diverged: nan at step 2"):
            train(found)
        assert found.finished
        found.close()
        found = of_fates(1, tmp_path, starts=bad)
    found.revive(1)
    assert not found.finished
    with pytest.raises(NoProgressError, match="worker 0, 1, 2: diverged"):
        train(found)


def test_a_run_whose_members_are_retired_by_decisions_has_ended() -> None:
    """That is no failure."""
    found = regression.controller(AllAtOnce(5), 4, steps=20)
    assert regression.stacked(found).rounds == 1
    assert found.finished
    assert regression.stacked(found).rounds == 0


class AllAtOnce(Halving):
    """Retires all slots."""

    def decided(self, live: Any, view: Any) -> retiring.Decisions:
        """All of them."""
        return {w: population.Retire("enough") for w in live}
