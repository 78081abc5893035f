"""What every mutator of the registry promises."""

from __future__ import annotations

import copy
import itertools
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from population import Branch, Mutator, PopulationView, Report
from population.mutators import (
    REGISTRY,
    BranchingSingleMachine,
    FixedSchedule,
    WinnerTakeAllGenetic,
)
from tests.mutators.helpers import Run, count_statements

Make = Callable[[], Mutator[Any]]


def _nudged(meta: float, rng: np.random.Generator) -> float:
    return meta + float(rng.normal())


def _stepped(meta: float, direction: str, cycle: int, rng: Any) -> float:
    del cycle
    return meta + {"neg": -1.0, "pos": 1.0}[direction] * float(rng.uniform())


def _by_step(step: int) -> float:
    return float(step // 4)


# Each name of the registry: example arguments, and the size of a population.
FACTORIES: dict[str, list[tuple[Make, int]]] = {
    "winner": [
        (lambda: WinnerTakeAllGenetic(_nudged, 3), 3),
        (lambda: WinnerTakeAllGenetic(_nudged, 3, synchronous=True), 3),
        (lambda: WinnerTakeAllGenetic(_nudged, 3, keep_winner=True), 3),
        (lambda: WinnerTakeAllGenetic(_nudged, 3, average_over_samples=False), 3),
        (lambda: WinnerTakeAllGenetic(_nudged, seconds_per_exploit=5), 3),
    ],
    "fixed": [
        (lambda: FixedSchedule({0: 0.0, 4: 1.0, 8: 0.5}), 3),
        (lambda: FixedSchedule(_by_step), 3),
    ],
    "explore": [(lambda: BranchingSingleMachine(_stepped, 2, 3), 1)],
}
CASES = [
    pytest.param(make, size, id=f"{name}-{number}")
    for name, examples in FACTORIES.items()
    for number, (make, size) in enumerate(examples)
]
every_mutator = pytest.mark.parametrize(("make", "size"), CASES)


class Ticks:
    """A clock that goes on by a second whenever a report is made."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time; reading it changes nothing."""
        return self.now


class Guarded(Mutator[Any]):
    """Another mutator, whose arguments are compared before and after each call."""

    def __init__(self, mutator: Mutator[Any]) -> None:
        self.mutator = mutator

    def init(self, view: PopulationView) -> Any:
        """As the other's."""
        return self.mutator.init(view)

    def update(
        self, state: Any, report: Report, view: PopulationView
    ) -> tuple[Any, Mapping[int, Branch]]:
        """As the other's, twice, on the same arguments."""
        before = copy.deepcopy((state, report)), _seen(view)
        following, branches = self.mutator.update(state, report, view)
        assert ((state, report), _seen(view)) == before
        if following is not state:
            assert following != state
        return following, branches


def _seen(view: PopulationView) -> Any:
    """All that a mutator could spoil."""
    workers = copy.deepcopy(list(view.workers))
    newest = [copy.deepcopy(view.newest(w)) for w in view.live]
    # NaN is not equal to itself.
    return repr((workers, newest, list(view.steps), list(view.scores), view.now))


def population(size: int) -> list[float]:
    """The meta_params of so many workers."""
    return [float(worker_id) for worker_id in range(size)]


def values() -> Iterator[float | None]:
    """What training may bring: good, bad, missing and diverged."""
    return itertools.cycle(
        [3.0, 1.0, None, 2.5, math.nan, 0.5, math.inf, 2.0, -math.inf, 1.5, 4.0]
    )


def train(run: Run, clock: Ticks, size: int, reports: int = 60) -> None:
    """Workers of unequal speed report, each in its turn."""
    order = itertools.cycle([*range(size), 0, *range(size)])
    for worker_id, value, _ in zip(order, values(), range(reports), strict=False):
        clock.now += 1.0
        run.advance(worker_id, value)


def test_every_mutator_of_the_registry_has_example_arguments_here() -> None:
    """None can be added without being held to this contract."""
    assert FACTORIES.keys() == REGISTRY.keys()
    for name, examples in FACTORIES.items():
        assert all(type(make()) is REGISTRY[name] for make, _ in examples)


@every_mutator
def test_arguments_are_left_as_they_were(make: Make, size: int) -> None:
    """`update` changes neither its state, nor the report, nor what the view shows."""
    clock = Ticks()
    with Run(lambda: Guarded(make()), population(size), clock=clock) as run:
        train(run, clock, size)
        assert len(run.roots()) > size


@every_mutator
def test_a_restart_between_any_two_calls_changes_no_decision(
    make: Make, size: int, tmp_path: pathlib.Path
) -> None:
    """Reopened before each call, the run decides as if nothing had happened."""
    results = []
    for reopen in (False, True):
        clock, folder = Ticks(), tmp_path / str(reopen)
        with Run(make, population(size), folder, reopen=reopen, clock=clock) as run:
            train(run, clock, size, 40)
            results.append(run.decisions())
    assert results[0] == results[1]
    assert len(results[0]) > size


@every_mutator
def test_the_seed_decides_and_nothing_else_does(make: Make, size: int) -> None:
    """Two runs with one seed make the same decisions, whatever NumPy drew before."""
    results = []
    for noise in (0, 1):
        np.random.seed(noise)
        clock = Ticks()
        with Run(make, population(size), clock=clock, seed=7) as run:
            train(run, clock, size)
            results.append(run.decisions())
    assert results[0] == results[1]


@every_mutator
def test_one_worker_is_a_population(make: Make, size: int) -> None:
    """Every policy runs with one slot, and decides something."""
    del size
    clock = Ticks()
    with Run(make, [0.0], clock=clock) as run:
        train(run, clock, 1)
        assert len(run.roots()) > 1


@every_mutator
def test_more_workers_than_reports_is_no_error(make: Make, size: int) -> None:
    """Slots that have not reported yet hold nobody's report up."""
    clock = Ticks()
    with Run(make, population(10 * size if size > 1 else 1), clock=clock) as run:
        train(run, clock, size, 5)


@every_mutator
@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_what_diverged_is_never_a_donor(
    make: Make, size: int, bad: float | None, mode: str
) -> None:
    """None, NaN and infinities go through; no branch begins at a non-finite value."""
    clock = Ticks()
    with Run(make, population(size), clock=clock, mode=mode) as run:
        for number in range(20):
            for worker_id in range(size):
                clock.now += 1.0
                run.advance(worker_id, bad if (number + worker_id) % 2 else 1.0)
        graph = run.controller.graph
        for root in run.roots():
            if root.parent is not None:
                assert not graph.checkpoint(root.parent).diverged
        best = run.controller.best()
        assert best is not None
        assert best.value == 1.0


@every_mutator
@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -math.inf])
def test_nothing_but_bad_values_is_no_crash(
    make: Make, size: int, bad: float | None
) -> None:
    """All of them at once, from the first report to the last."""
    clock = Ticks()
    with Run(make, population(size), clock=clock) as run:
        for _ in range(20):
            for worker_id in range(size):
                clock.now += 1.0
                run.advance(worker_id, bad)
        assert run.controller.best() is None


@every_mutator
def test_the_same_report_twice_decides_once(make: Make, size: int) -> None:
    """At-least-once delivery is safe: a repetition changes nothing."""
    results = []
    for times in (1, 3):
        clock = Ticks()
        with Run(make, population(size), clock=clock) as run:
            for worker_id, value in zip(
                itertools.cycle(range(size)),
                itertools.islice(values(), 40),
                strict=False,
            ):
                clock.now += 1.0
                newest = run.newest(worker_id)
                for _ in range(times):
                    run.report(
                        worker_id, newest.step + 1, value, None, newest.generation_id
                    )
            results.append(run.decisions())
    assert results[0] == results[1]
    assert len(results[0]) > size


@every_mutator
def test_reports_out_of_order_move_no_slot_back(make: Make, size: int) -> None:
    """Older steps of a generation may come late; the slots stand where they stood."""
    clock = Ticks()
    with Run(make, population(size), clock=clock) as run:
        for _ in range(15):
            for worker_id in range(size):
                newest = run.newest(worker_id)
                for ahead in (2, 1):
                    clock.now += 1.0
                    step = newest.step + ahead
                    run.report(worker_id, step, 1.0, None, newest.generation_id)
                after = run.newest(worker_id)
                if after.generation_id == newest.generation_id:
                    assert after.step == newest.step + 2
        assert len(run.roots()) > size


@every_mutator
def test_an_old_generation_decides_nothing(make: Make, size: int) -> None:
    """A worker that comes back with a generation long gone is a side branch."""
    clock = Ticks()
    with Run(make, population(size), clock=clock) as run:
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
def test_a_value_that_comes_late_counts_as_if_it_had_come_in_time(
    make: Make, size: int
) -> None:
    """A loop saves, an evaluation job reports the value: something is decided."""
    clock = Ticks()
    with Run(make, population(size), clock=clock) as run:
        for _ in range(15):
            for worker_id in range(size):
                newest = run.newest(worker_id)
                for value in (None, 1.0):
                    clock.now += 1.0
                    step = newest.step + 1
                    run.report(worker_id, step, value, None, newest.generation_id)
        assert len(run.roots()) > size


@every_mutator
def test_meta_params_come_back_as_they_went_in(make: Make, size: int) -> None:
    """The population's own entries are never changed in place."""
    clock, entries = Ticks(), population(size)
    with Run(make, entries, clock=clock) as run:
        train(run, clock, size)
        assert [run.roots(w)[0].meta_params for w in range(size)] == population(size)
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
        for worker_id in range(size):  # All arrive but the first.
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
    with Run(lambda: BranchingSingleMachine(_stepped, 100, 100), [0.0]) as run:
        generation_id = run.newest(0).generation_id
        statements: list[str] = []
        count_statements(run.controller, statements)
        for step in range(1, 100):
            run.report(0, step, 1.0, None, generation_id)
        assert [s for s in statements if "SELECT" in s.upper()] == []
