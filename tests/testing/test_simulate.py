"""A population that trains on a simulated clock, with stragglers and deaths."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from population import (
    Branch,
    Checkpoint,
    PopulationController,
    PopulationView,
    Report,
)
from population.journal.records import (
    CheckpointRecord,
    Generation,
    Loss,
)
from population.journal.sqlite import SqliteJournal
from population.mutators import (
    BranchingSingleMachine,
    FixedSchedule,
    PopulationBasedTraining,
    WinnerTakeAllGenetic,
)
from population.testing import Clock, Problem, simulate
from population.testing.perturb import perturb
from tests import probe
from tests.helpers import Scripted
from tests.testing import defects


def reports(controller: PopulationController, worker_id: int) -> list[Checkpoint]:
    """A worker's checkpoints with a value, in order."""
    history = controller.history()
    return [c for c in history if c.value is not None and c.worker_id == worker_id]


def value(found: PopulationController) -> float:
    """The best value of a run."""
    best = found.best()
    assert best is not None
    assert best.value is not None
    return best.value


def best_of(mutator: Any, **options: Any) -> float:
    """The best value that a mutator reaches."""
    return value(simulate(mutator, **options))


def test_every_worker_trains_its_steps_and_reports_every_so_many() -> None:
    """20 reports of 10 steps each, one every ten seconds."""
    found = simulate(FixedSchedule({0: {"learning_rate": 0.1}}), size=3)
    for worker_id in range(3):
        mine = reports(found, worker_id)
        assert [c.step for c in mine] == list(range(10, 201, 10))
        assert [c.time for c in mine] == [float(t) for t in range(10, 201, 10)]


def test_the_learning_rate_matters() -> None:
    """One is fast, one comes close; a falling schedule is better than both."""
    constant = [
        best_of(FixedSchedule({0: {"learning_rate": rate}}), size=1)
        for rate in (1.0, 0.1, 0.03, 0.001)
    ]
    falling = {step: {"learning_rate": 0.3 * 0.98**step} for step in range(0, 200, 10)}
    assert best_of(FixedSchedule(falling), size=1) < min(constant)


def test_a_learning_rate_that_is_too_large_diverges() -> None:
    """NaN and infinities occur, and do no harm."""
    metas = [{"learning_rate": rate} for rate in (1e200, 3.0, 0.1, 0.01)]
    found = simulate(WinnerTakeAllGenetic(perturb, 20), metas, steps=400)
    assert not all(c.value < 1e9 for c in reports(found, 0) if c.value is not None)
    assert value(found) < 0.5


def test_a_population_is_better_than_its_members() -> None:
    """The effect of a mutator can be seen in milliseconds."""
    alone = best_of(PopulationBasedTraining(None, 20, exploit=None))
    assert best_of(PopulationBasedTraining(perturb, 20)) < alone


def test_two_hundred_reports_take_no_time() -> None:
    """There is no sleep: an hour of training takes no time."""
    start = time.process_time()
    found = simulate(PopulationBasedTraining(perturb, 20), size=10, speeds=[0.01] * 10)
    assert time.process_time() - start < 2.0
    assert sum(len(reports(found, w)) for w in range(10)) == 200
    assert max(c.time for c in found.history()) == 20_000.0


def test_the_same_seed_gives_the_same_run() -> None:
    """Another seed gives another run."""

    def run(seed: int) -> list[Any]:
        found = simulate(PopulationBasedTraining(perturb, 20), seed=seed)
        return [(c.step, c.value, c.time, c.meta_params) for c in found.history()]

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_a_straggler_comes_late() -> None:
    """It reports more rarely, and the others do not wait unless the mutator says so."""
    found = simulate(PopulationBasedTraining(perturb, 20), speeds=[1.0, 1.0, 1.0, 0.1])
    assert [c.time for c in reports(found, 3)][:2] == [100.0, 200.0]
    assert len([c for c in reports(found, 0) if c.time <= 200]) == 20


def test_workers_wait_where_the_mutator_says_so() -> None:
    """With a straggler no worker passes the barrier before it."""
    found = simulate(
        WinnerTakeAllGenetic(perturb, 20, synchronous=True),
        steps=100,
        speeds=[1.0, 1.0, 1.0, 0.1],
    )
    for worker_id in range(4):
        mine = reports(found, worker_id)
        assert [c.step for c in mine] == list(range(10, 101, 10))
    assert [c.time for c in reports(found, 0)][:4] == [10.0, 20.0, 210.0, 220.0]


@pytest.mark.parametrize("synchronous", [False, True])
def test_a_death_holds_the_others_up_only_for_a_while(synchronous: bool) -> None:
    """They wait until its slot is given up, and rounds close without it."""
    found = simulate(
        WinnerTakeAllGenetic(perturb, 20, synchronous=synchronous),
        deaths={1: 45.0},
        give_up_after=30.0,
    )
    assert max(c.time for c in reports(found, 1)) == 40.0
    assert probe.live(found) == [0, 2, 3]
    late = [c for c in found.history() if c.reason and c.time > 70 and c.value is None]
    assert {c.worker_id for c in late if c.parent} == {0, 2, 3}
    assert max(c.time for c in reports(found, 0)) < 300.0


def test_everybody_may_die() -> None:
    """The run ends with the reports that it has."""
    deaths = {0: 0.0, 1: 15.0, 2: 25.0, 3: 35.0}
    for synchronous in (False, True):
        mutator = WinnerTakeAllGenetic(perturb, 20, synchronous=synchronous)
        found = simulate(mutator, deaths=deaths, give_up_after=1.0)
        assert [len(reports(found, w)) for w in range(4)][:2] == [0, 1]


def test_the_loop_of_a_retired_slot_ends() -> None:
    """The others do not wait for it, and train all of their steps."""
    found = simulate(
        PopulationBasedTraining(perturb, 20, synchronous=True),
        failures={1: [15.0, 17.0, 18.0]},
        max_failures=2,
    )
    assert probe.live(found) == [0, 2, 3]
    assert [len(reports(found, w)) for w in range(4)] == [20, 1, 20, 20]


def test_a_worker_that_fails_begins_again_where_it_has_reported() -> None:
    """What it has trained since is lost; the time is not."""
    mutator = PopulationBasedTraining(perturb, 1000)
    found = simulate(mutator, failures={0: [14.0, 15.0]}, steps=40)
    mine = reports(found, 0)
    assert [(c.step, c.time) for c in mine] == [
        (10, 10.0),
        (20, 25.0),
        (30, 35.0),
        (40, 45.0),
    ]
    assert mine[1].reason == "failed: a simulated failure"
    assert probe.live(found) == [0, 1, 2, 3]


def test_a_slot_that_a_decision_brings_back_is_trained_again() -> None:
    """Its loop has ended, and begins again with the branch."""

    class BringsBack(Scripted):
        def update(self, state: None, report: Report, view: PopulationView) -> Any:
            if report.worker_id == 0 and report.checkpoint.step == 50:
                return state, {1: Branch(report.checkpoint, {"learning_rate": 0.1})}
            return state, {}

    found = simulate(
        BringsBack(), size=2, steps=80, failures={1: [12.0]}, max_failures=1
    )
    assert [(c.step, c.time) for c in reports(found, 1)][:3] == [
        (10, 10.0),
        (60, 60.0),
        (70, 70.0),
    ]


def test_a_run_in_which_all_fail_too_often_is_an_error() -> None:
    """It is that of a run, with the reasons; without a limit nothing is retired."""
    failures = {w: [3.0, 4.0, 5.0] for w in range(2)}
    mutator = PopulationBasedTraining(perturb, 20)
    with pytest.raises(RuntimeError, match="worker 0, 1: a simulated failure"):
        simulate(mutator, size=2, failures=failures)
    found = simulate(mutator, size=2, failures=failures, max_failures=None)
    assert probe.live(found) == [0, 1]


def test_a_retired_slot_is_not_given_up() -> None:
    """Its loop is not waited for, dead or not."""
    journal = SqliteJournal()
    found = simulate(
        WinnerTakeAllGenetic(perturb, 20, synchronous=True),
        failures={1: [5.0]},
        deaths={1: 30.0},
        max_failures=1,
        journal=journal,
    )
    assert journal.all(Loss) == []
    assert len(reports(found, 0)) == 20


def test_a_mutator_that_lets_everybody_wait_is_no_endless_run() -> None:
    """No worker is trained past the barrier: the error says who waits, and where."""
    with pytest.raises(
        RuntimeError, match=r"slot 0 at step .* wait_at .*check_mutator"
    ):
        simulate(defects.WaitsTooEarly(), every=1, steps=20)


def test_nobody_is_trained_past_its_barrier_for_want_of_a_dead_one() -> None:
    """When its slot is given up, the last report of a live one closes the round."""
    mutator = PopulationBasedTraining(perturb, 10, synchronous=True)
    found = simulate(mutator, size=3, steps=60, deaths={2: 25.0})
    for worker_id in (0, 1):
        assert max(c.step for c in reports(found, worker_id)) >= 40
    assert probe.decisions(found) >= 4


def test_a_slot_is_given_up_as_the_controller_gives_it_up() -> None:
    """It is given up this long after its last report; the mutator is shown a value."""
    journal = SqliteJournal()
    found = simulate(
        PopulationBasedTraining(perturb, 20, synchronous=True),
        deaths={0: 45.0},
        speeds=[1.0, 1.0, 1.0, 0.5],
        give_up_after=100.0,
        journal=journal,
    )
    [loss] = journal.all(Loss)
    assert (loss.lost, loss.told, loss.time) == ("[0]", 1, 120.0)
    times = [c.time for c in reports(found, 1)]
    assert times[:6] == [10.0, 20.0, 50.0, 60.0, 130.0, 140.0]


RATES = [{"learning_rate": rate} for rate in (0.1, 0.01, 0.3)]


def by_hand(journal: SqliteJournal) -> None:
    """Three raw loops with a step a second; the last dies after its first report."""
    clock = Clock()
    run = PopulationController(
        RATES,
        PopulationBasedTraining(perturb, 2, synchronous=True),
        journal=journal,
        clock=clock,
    )
    work: list[Any] = [None] * 3

    def poll(worker_id: int) -> None:
        old = work[worker_id]
        name, step = (old[0], old[1]) if old else (None, 0)
        new = run.maybe_get_worker_data(worker_id, name, step, None, None)
        if new is not None:
            params = 100.0 if new.params is None else new.params
            work[worker_id] = [new.generation_id, new.step, params, new.meta_params]

    def report(worker_id: int) -> None:
        name, step, params, meta = work[worker_id]
        params = Problem().train(params, meta, 1)
        work[worker_id] = [name, step + 1, params, meta]
        found = Problem().evaluate(params)
        assert isinstance(found, tuple)
        run.set_eval(worker_id, name, step + 1, params, *found)

    for worker_id in range(3):
        poll(worker_id)
    for now, workers in ((1.0, (0, 1, 2)), (2.0, (0, 1))):
        clock.now = now
        for worker_id in workers:
            report(worker_id)
            if now == 1.0:
                poll(worker_id)
    clock.now = 6.0
    run.give_up(2)
    for worker_id in (0, 1):
        poll(worker_id)
    for now in (7.0, 8.0):
        clock.now = now
        for worker_id in (0, 1):
            report(worker_id)
            poll(worker_id)


def generations(journal: SqliteJournal) -> list[Generation]:
    """The generations of a run, without the run's token."""
    return [
        g._replace(generation_id=g.generation_id.partition("-")[2])
        for g in journal.all(Generation)
    ]


def test_it_records_what_raw_loops_and_a_driver_would() -> None:
    """Row by row: a policy that passes here never waits for ever there."""
    simulated, real = SqliteJournal(), SqliteJournal()
    simulate(
        PopulationBasedTraining(perturb, 2, synchronous=True),
        RATES,
        deaths={2: 1.5},
        every=1,
        steps=4,
        give_up_after=5.0,
        journal=simulated,
    )
    by_hand(real)
    for kind in (Loss, CheckpointRecord):
        assert simulated.all(kind) == real.all(kind)
    assert len(real.all(Loss)) == 1
    assert generations(simulated) == generations(real)
    assert {g.time for g in generations(real)} == {0.0, 6.0, 8.0}


def test_a_slot_that_nothing_gives_up_is_waited_for_for_ever() -> None:
    """It is as in a run; a worker for which no other waits may die without effect."""
    rounds = WinnerTakeAllGenetic(perturb, 20, synchronous=True)
    with pytest.raises(RuntimeError, match=r"Workers \[0, 3\] .* \[1, 2\], .*give_up"):
        simulate(rounds, deaths={1: 35.0, 2: 25.0}, give_up_after=None)
    found = simulate(
        PopulationBasedTraining(perturb, 20), deaths={1: 45.0}, give_up_after=None
    )
    assert probe.live(found) == [0, 1, 2, 3]
    assert [found.newest(w).step >= 40 for w in range(4)] == [True] * 4
    assert len(reports(found, 0)) == 20


@pytest.mark.parametrize("after", [None, 0.0, math.inf])
def test_a_run_in_which_all_die_ends(after: float | None) -> None:
    """No worker is left that could wait."""
    deaths = {0: 0.0, 1: 15.0, 2: 15.0, 3: 15.0}
    rounds = WinnerTakeAllGenetic(perturb, 20, synchronous=True)
    found = simulate(rounds, deaths=deaths, give_up_after=after)
    assert [len(reports(found, w)) for w in range(4)] == [0, 1, 1, 1]


def test_a_round_that_the_others_steps_end_before_is_no_error() -> None:
    """A worker without steps left sends no report: the run ends there."""

    class Uneven(Scripted):
        def wait_at(self, state: None, worker_id: int, view: PopulationView) -> int:
            return 10 if worker_id == 0 else 40

    found = simulate(Uneven(), size=2, steps=30)
    assert [found.newest(w).step for w in (0, 1)] == [10, 30]


def test_a_problem_of_ones_own() -> None:
    """It has three functions, and any mode."""
    problem = Problem(
        init=lambda meta_params: [0.0, meta_params],
        train=lambda params, meta_params, steps: [params[0] + meta_params, params[1]],
        evaluate=lambda params: params[0],
    )
    found = simulate(
        PopulationBasedTraining(None, 5),
        [1.0, 2.0, 3.0],
        problem=problem,
        every=5,
        steps=50,
        mode="max",
    )
    assert value(found) == 30.0
    best = found.best()
    assert best is not None
    assert best.params == [30.0, 3.0]


def test_a_problem_may_have_metrics() -> None:
    """They are recorded with the value, and a mutator sees them."""
    found = simulate(PopulationBasedTraining(perturb, 20), size=2, steps=40)
    for checkpoint in reports(found, 0):
        assert checkpoint.value is not None
        assert checkpoint.metrics == {"distance": math.sqrt(checkpoint.value)}
    seen: list[Any] = []

    class Looks(Scripted):
        def update(self, state: None, report: Report, view: PopulationView) -> Any:
            seen.append(report.checkpoint.metrics)
            return state, {}

    own = Problem(evaluate=lambda params: (params, {"latency": 2.0}))
    simulate(Looks(), size=1, steps=20, problem=own)
    simulate(Looks(), size=1, steps=10, problem=Problem(evaluate=float))
    assert seen == [{"latency": 2.0}] * 2 + [None]


def test_a_policy_that_goes_back_ends_too() -> None:
    """Steps that a branch discards count."""
    found = simulate(BranchingSingleMachine(perturb, 20, 20), size=1, steps=300)
    assert len(reports(found, 0)) == 30
    assert found.newest(0).step < 300


def test_a_simulation_can_be_recorded_and_gone_on_with() -> None:
    """On a journal that holds a run, that run continues."""
    journal = SqliteJournal()
    first = simulate(PopulationBasedTraining(perturb, 20), journal=journal)
    count = len(list(first.history()))
    second = simulate(PopulationBasedTraining(perturb, 20), journal=journal)
    assert len(list(second.history())) > count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a positive int"),
        ({"every": 1.5}, "every must be a positive int"),
        ({"speeds": [1.0]}, "speeds must be 4 positive numbers"),
        ({"speeds": [1.0, 1.0, 1.0, 0.0]}, "speeds must be 4 positive numbers"),
        ({"deaths": {4: 1.0}}, "deaths must name workers of a population of 4"),
        ({"failures": {-1: [1.0]}}, "failures must name workers of a population of 4"),
        ({"max_failures": 0}, "max_failures"),
        ({"give_up_after": -1.0}, "give_up_after must be 0 or more seconds, or None"),
        ({"give_up_after": math.nan}, "give_up_after must be 0 or more"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    """Nothing is trained before."""
    with pytest.raises(ValueError, match=message):
        simulate(PopulationBasedTraining(perturb, 20), **options)


def test_the_clock_moves_only_when_told() -> None:
    """It never moves backwards."""
    clock = Clock(5.0)
    assert [clock(), clock()] == [5.0, 5.0]
    clock.advance(1.5)
    assert clock() == clock.now == 6.5
    with pytest.raises(ValueError, match="0 or more"):
        clock.advance(-1.0)
