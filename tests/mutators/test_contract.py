"""Promises of every mutator in the registry that `check_mutator` does not check.

`tests/testing/test_check_mutator.py` runs the scripts of `population.testing` on each.
The tests here use real files, and reports that no correct loop sends.
"""

from __future__ import annotations

import itertools
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from population import Mutator
from population.mutators import (
    BranchingSingleMachine,
    FixedSchedule,
    WinnerTakeAllGenetic,
)
from population.testing.perturb import perturb
from tests.mutators.factories import FACTORIES, RETIRING
from tests.mutators.helpers import Run, count_statements

Make = Callable[[Any], Mutator[Any]]


def _nudged(meta: float, rng: np.random.Generator) -> float:
    return meta + float(rng.normal())


CASES = [
    pytest.param(make, size, id=f"{name}-{number}")
    for name, examples in FACTORIES.items()
    for number, (make, size) in enumerate(examples)
    if f"{name}-{number}" not in RETIRING
]
every_mutator = pytest.mark.parametrize(("make", "size"), CASES)


class Ticks:
    """A clock that goes on by a second at each report."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time; reading it changes nothing."""
        return self.now


def population(size: int) -> list[float]:
    """The meta_params of this many workers."""
    return [float(worker_id) for worker_id in range(size)]


def values() -> Iterator[float | None]:
    """Values of all kinds: good, bad, missing and diverged."""
    return itertools.cycle(
        [3.0, 1.0, None, 2.5, math.nan, 0.5, math.inf, 2.0, -math.inf, 1.5, 4.0]
    )


def train(run: Run, clock: Ticks, size: int, reports: int = 60) -> None:
    """Workers of unequal speed report in turns."""
    order = itertools.cycle([*range(size), 0, *range(size)])
    for worker_id, value, _ in zip(order, values(), range(reports), strict=False):
        clock.now += 1.0
        run.advance(worker_id, value)


@every_mutator
def test_a_restart_between_any_two_calls_changes_no_decision(
    make: Make, size: int, tmp_path: pathlib.Path
) -> None:
    """A run that is opened again before each call makes the same decisions."""
    results = []
    for reopen in (False, True):
        clock, folder = Ticks(), tmp_path / str(reopen)
        with Run(
            lambda: make(perturb), population(size), folder, reopen=reopen, clock=clock
        ) as run:
            train(run, clock, size, 40)
            results.append(run.decisions())
    assert results[0] == results[1]
    assert len(results[0]) > size


@every_mutator
def test_more_workers_than_reports_is_no_error(make: Make, size: int) -> None:
    """Slots that have not reported yet delay no other slot's report."""
    clock = Ticks()
    with Run(
        lambda: make(perturb), population(10 * size if size > 1 else 1), clock=clock
    ) as run:
        train(run, clock, size, 5)


@every_mutator
def test_reports_out_of_order_move_no_slot_back(make: Make, size: int) -> None:
    """Older steps of a generation may come late; the slots do not move."""
    clock = Ticks()
    with Run(lambda: make(perturb), population(size), clock=clock) as run:
        for _ in range(15):
            for worker_id in range(size):
                newest = run.newest(worker_id)
                for ahead in (2, 1):
                    clock.now += 1.0
                    step = newest.step + ahead
                    value = float(worker_id)
                    run.report(worker_id, step, value, None, newest.generation_id)
                after = run.newest(worker_id)
                if after.generation_id == newest.generation_id:
                    assert after.step == newest.step + 2
        assert len(run.roots()) > size


@every_mutator
def test_an_old_generation_decides_nothing(make: Make, size: int) -> None:
    """The report of a worker with a superseded generation is a side branch."""
    clock = Ticks()
    with Run(lambda: make(perturb), population(size), clock=clock) as run:
        train(run, clock, size)
        old = run.roots(0)[0]
        before, slots = run.decisions(), [run.newest(w).ref for w in range(size)]
        clock.now += 100.0
        for step in (1000, 2000):
            run.report(0, step, -1e9, None, old.generation_id)
        assert run.decisions() == before
        assert [run.newest(w).ref for w in range(size)] == slots
        told = run.controller.maybe_get_worker_data(0, old.generation_id, 2000, "p", 0)
        assert told is not None
        assert told.generation_id == run.newest(0).generation_id != old.generation_id


@every_mutator
def test_meta_params_come_back_as_they_went_in(make: Make, size: int) -> None:
    """The population's own entries are never changed in place."""
    clock, entries = Ticks(), population(size)
    with Run(lambda: make(perturb), entries, clock=clock) as run:
        train(run, clock, size)
        begun = [make(perturb).first(w, 0, m) for w, m in enumerate(population(size))]
        assert [run.roots(w)[0].meta_params for w in range(size)] == begun
    assert entries == population(size)


@pytest.mark.parametrize("synchronous", [False, True])
def test_while_somebody_is_late_nothing_is_looked_up(synchronous: bool) -> None:
    """4,096 workers: a report that decides nothing reads nothing from the journal."""
    size = 4096

    def make() -> Mutator[Any]:
        return WinnerTakeAllGenetic(_nudged, 10, synchronous=synchronous)

    with Run(make, population(size)) as run:
        ids = [work.generation_id for work in run.controller.workers]
        statements: list[str] = []
        count_statements(run.controller, statements)
        for worker_id in range(size):  # All have arrived except the first.
            run.report(worker_id, 10 if worker_id else 9, 1.0, None, ids[worker_id])
        assert sum(s.startswith("INSERT INTO checkpoints") for s in statements) == size
        assert [s for s in statements if "SELECT" in s.upper()] == []
        assert len(run.roots(0)) == 1


@pytest.mark.parametrize(("synchronous", "lookups"), [(False, 0), (True, 1)])
def test_a_round_looks_at_each_slot_once(synchronous: bool, lookups: int) -> None:
    """When one late slot after the other arrives, no slot is looked at again."""
    size = 256

    def make() -> Mutator[Any]:
        return WinnerTakeAllGenetic(_nudged, 10, synchronous=synchronous)

    with Run(make, population(size)) as run:
        ids = [work.generation_id for work in run.controller.workers]
        statements: list[str] = []
        count_statements(run.controller, statements)
        for step in (3, 6, 10):
            for worker_id in range(size - 1):
                run.report(worker_id, step, 1.0, None, ids[worker_id])
        reads = [s for s in statements if "SELECT" in s.upper()]
        assert len(reads) <= lookups * 2 * size  # A lookup is two statements.


def test_a_scheduled_report_without_news_reads_nothing() -> None:
    """FixedSchedule asks the view for the newest checkpoint, not the journal."""
    with Run(lambda: FixedSchedule({0: 0.0, 1000: 1.0}), [0.0] * 8) as run:
        ids = [work.generation_id for work in run.controller.workers]
        statements: list[str] = []
        count_statements(run.controller, statements)
        for step in range(1, 20):
            for worker_id in range(8):
                run.report(worker_id, step, 1.0, None, ids[worker_id])
        assert [s for s in statements if "SELECT" in s.upper()] == []


def test_within_a_phase_nothing_is_looked_up_in_the_graph() -> None:
    """BranchingSingleMachine reads the journal only when a phase is over."""
    with Run(lambda: BranchingSingleMachine(perturb, 100, 100), [0.0]) as run:
        generation_id = run.newest(0).generation_id
        statements: list[str] = []
        count_statements(run.controller, statements)
        for step in range(1, 100):
            run.report(0, step, 1.0, None, generation_id)
        assert [s for s in statements if "SELECT" in s.upper()] == []
