"""The kit finds a defect and names it, and accepts right mutators."""

from __future__ import annotations

import datetime
import logging
import math
import random
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from population import Branch, Mutator, PopulationView, Report
from population.base.codec import digest
from population.mutators import (
    REGISTRY,
    BranchingSingleMachine,
    PopulationBasedTraining,
)
from population.testing import BrokenPromise, check_mutator
from population.testing.perturb import perturb
from population.testing.runner import Case, Played, ScriptEvent, ScriptRunner
from population.testing.script import (
    Again,
    AllReport,
    Earlier,
    Fails,
    GivenUp,
    LateValue,
    OldReport,
    Revives,
    ScriptedReport,
)
from population.testing.scripts import scripts
from tests.mutators.factories import FACTORIES
from tests.testing import defects

CASES = [
    pytest.param(make, size, id=f"{name}-{number}")
    for name, examples in FACTORIES.items()
    for number, (make, size) in enumerate(examples)
]
DEFECTS: list[tuple[type[Mutator[Any]], str]] = [
    (defects.StateInPlace, "leaves its arguments"),
    (defects.MetaParamsInPlace, "leaves its arguments"),
    (defects.NumPyNumbers, "random numbers only from view.rng"),
    (defects.PythonNumbers, "random numbers only from view.rng"),
    (defects.OperatingSystemNumbers, "random numbers only from view.rng"),
    (defects.OwnClock, "time only from view.now"),
    (defects.OwnMonotonicClock, "time only from view.now"),
    (defects.OwnCalendar, "time only from view.now"),
    (defects.Counts, "when it is asked again"),
    (defects.Remembers, "after a restart"),
    (defects.NanIsBest, "no checkpoint that has diverged"),
    (defects.DeadDonor, "whose params are kept"),
    (defects.History, "does not grow with the history"),
    (defects.EqualCopy, "same state object"),
    (defects.RawValues, "minds the mode"),
    (defects.Fails, "without an exception"),
    (defects.Unstorable, "plain data that can be stored"),
    (defects.AnotherType, "plain data that can be stored"),
    (defects.Untyped, "plain data that can be stored"),
    (defects.OtherBeginnings, "when it is asked again"),
    (defects.WaitsElsewhere, "when it is asked again"),
    (defects.WaitsAndWrites, "leaves its arguments"),
    (defects.SlowRounds, "cost per report that is bounded"),
    (defects.Scans, "does not look at every worker"),
    (defects.WaitsForTheDead, "never has all live workers wait"),
    (defects.CountsOnTheDead, "rounds without workers that were given up or retired"),
    (defects.WaitsTooEarly, "never has all live workers wait"),
    (defects.FailedInPlace, "leaves its arguments"),
    (defects.FailedCounts, "when it is asked again"),
    (defects.FailedEqualCopy, "same state object"),
    (defects.FailedRaises, "without an exception"),
    (defects.FirstInPlace, "leaves its arguments"),
    (defects.FirstCounts, "when it is asked again"),
    (defects.FirstUnstorable, "without an exception"),
]
ONE_ROUND = [AllReport(4, (3.0, 1.0, math.nan, 2.0), saved=True)]


def broken(make: Callable[..., Mutator[Any]], **options: Any) -> BrokenPromise:
    """The broken promise of a mutator."""
    with pytest.raises(BrokenPromise) as caught:
        check_mutator(make, **options)
    return caught.value


def test_every_mutator_of_the_registry_has_example_arguments() -> None:
    """No mutator can be added without being checked."""
    assert FACTORIES.keys() == REGISTRY.keys()
    for name, examples in FACTORIES.items():
        assert all(type(make(perturb)) is REGISTRY[name] for make, _ in examples)


@pytest.mark.parametrize(("make", "size"), CASES)
def test_every_mutator_of_the_registry_keeps_its_promises(
    make: Callable[[Any], Mutator[Any]], size: int
) -> None:
    """It is checked with different arguments, at a size that it accepts."""
    report = check_mutator(lambda mutate_fn: make(mutate_fn), size=size)
    assert not report, str(report)


@pytest.mark.parametrize(
    "make",
    [
        defects.Right,
        defects.Barrier,
        defects.RefDonor,
        defects.Rescues,
    ],
    ids=lambda make: make.__name__,
)
def test_what_is_right_passes(make: type[Mutator[Any]]) -> None:
    """The mutator from which the defects derive is right, so it does not fail."""
    assert not check_mutator(make, size=3, allow="older checkpoints")


def test_what_is_foolish_breaks_no_promise() -> None:
    """It is only a likely mistake."""
    report = check_mutator(defects.RetiresTheBest, size=3, allow="best replaced")
    assert not report
    assert report.tried.retirements > 10


@pytest.mark.parametrize(
    ("make", "promise"), DEFECTS, ids=[make.__name__ for make, _ in DEFECTS]
)
def test_a_defect_is_found_and_shown_by_a_few_reports(
    make: type[Mutator[Any]], promise: str
) -> None:
    """The promise is named, and the sequence that is shown breaks it again."""
    error = broken(make, size=3)
    assert promise in error.promise
    text = str(error)
    assert text.startswith(f"{make.__name__} does not keep the promise that it ")
    assert "seed 0, mode 'min', 3 workers" in text
    assert len(error.script) <= 12
    for number, event in enumerate(error.script, 1):
        assert f"  {number}. {event}\n" in text
    again = broken(make, population=error.population, script=error.script)
    assert again.promise == error.promise
    assert again.script == error.script


@pytest.mark.parametrize("event", [GivenUp, Fails])
def test_a_round_that_needs_a_worker_that_is_away_is_found(
    event: type[GivenUp] | type[Fails],
) -> None:
    """Whether it was given up, or has failed until it was retired."""
    away = [event(2)] * (3 if event is Fails else 1)
    script = [*away, *(ScriptedReport(w, 4, float(w), saved=True) for w in (0, 1))]
    error = broken(defects.CountsOnTheDead, size=3, script=script)
    assert "given up or retired" in error.promise
    assert [type(found) for found in error.script][:-2] == [event] * len(away)


def test_a_round_that_waits_for_a_retired_worker_is_shown_by_its_failures() -> None:
    """No worker is given up: some fail three times, the others are at barriers."""
    error = broken(defects.WaitsForTheDead, size=3)
    kinds = [type(event) for event in error.script]
    assert kinds.count(Fails) in (3, 6)
    assert GivenUp not in kinds


def played(make: Callable[[], Mutator[Any]], *script: ScriptEvent) -> Played:
    """The run of a script with three workers."""
    return ScriptRunner(Case(make, [{"h": 0.0}] * 3, script, 0)).run()


def test_retirements_are_listed_beside_generations() -> None:
    """By failures, by divergences and by decisions; a restart is no decision."""
    failing = played(defects.Right, *[Fails(1)] * 4)
    kinds = [[r.kind for r in o.retirements] for o in failing.outcomes]
    assert kinds == [[], [], ["failed"], []]
    restarts = [[g.reason for g in o.generations] for o in failing.outcomes]
    assert restarts == [["failed: an exception"], ["failed: an exception"], [], []]
    assert failing.decisions == []
    assert "worker 1 is retired, failed" in str(failing.outcomes[2])
    good = AllReport(4, (1.0, 2.0, 3.0), saved=True)
    [outcome] = played(defects.RetiresTheBest, good).outcomes
    assert [(r.worker_id, r.kind, r.reason) for r in outcome.retirements] == [
        (0, "retired", "too good"),
    ]
    bad = AllReport(4, (math.nan, 2.0, 1.0), saved=True)
    diverging = played(defects.Right, bad, bad, bad, bad)
    assert [r.kind for o in diverging.outcomes for r in o.retirements] == ["diverged"]


def test_a_retired_worker_does_nothing_until_it_is_revived() -> None:
    """Its events are left out; afterwards it reports again."""
    report = ScriptedReport(1, 2, 1.0, saved=True)
    away = (report, *[Fails(1)] * 3)
    left_out: list[ScriptEvent] = [
        report,
        ScriptedReport(1, 3, None),
        Again(1),
        LateValue(1, 3.0),
        Earlier(1, 2.0),
        OldReport(1, 2, 2.0),
        Fails(1),
        GivenUp(1),
    ]
    without = ScriptRunner(Case(defects.Right, [{}] * 3, away, 0))
    without.run()
    for event in left_out:
        run = ScriptRunner(Case(defects.Right, [{}] * 3, (*away, event), 0))
        played = run.run()
        assert played.error is None
        assert played.outcomes[-1].generations == ()
        assert played.outcomes[-1].retirements == ()
        assert _places(run) == _places(without)
    run = ScriptRunner(Case(defects.Right, [{}] * 3, (*away, Revives(1), report), 0))
    run.run()
    assert run.newest[1].step == 4


def _places(run: ScriptRunner) -> list[tuple[str, int]]:
    return [(ref.generation_id.partition("-")[2], ref.step) for ref in run.newest]


def test_a_run_whose_workers_have_all_failed_is_no_error_of_the_mutator() -> None:
    """The run has ended; the script goes on without effect."""
    script = [Fails(w) for w in range(3) for _ in range(3)]
    run = played(defects.Right, *script, AllReport(4, (1.0,)), Revives(0))
    assert run.error is None
    assert sum(len(outcome.retirements) for outcome in run.outcomes) == 3
    check_mutator(defects.Right, size=3, script=script)


def test_an_exception_is_shown_with_its_reports_and_kept_as_the_cause() -> None:
    """A reader of the error finds both the script and the traceback."""
    error = broken(defects.Fails)
    assert isinstance(error.__cause__, TypeError)
    assert str(error.__cause__) in str(error)
    assert [str(event) for event in error.script] == [str(error.script[0])]
    assert "no value" in str(error)


class _FailsAtOnce(defects.Right):
    def init(self, view: PopulationView) -> Any:
        raise KeyError("no such thing")


def test_a_mutator_that_cannot_begin_breaks_a_promise_without_any_report() -> None:
    """An exception of `init` other than ValueError is a defect."""
    error = broken(_FailsAtOnce)
    assert isinstance(error.__cause__, KeyError)
    assert error.script == ()
    assert "(no report is needed)" in str(error)


def test_a_size_that_init_refuses_is_an_error_of_the_caller() -> None:
    """The mutator's own ValueError says which sizes it accepts."""
    with pytest.raises(ValueError, match="trains one worker"):
        check_mutator(lambda mutate_fn: BranchingSingleMachine(mutate_fn, 2, 3))


class _Never(Mutator[None]):
    def init(self, view: PopulationView) -> None:
        pass

    def update(
        self, state: None, report: Report, view: PopulationView
    ) -> tuple[None, Mapping[int, Branch]]:
        return state, {}


def test_a_mutator_that_never_decides_does_not_pass_unnoticed() -> None:
    """It would test nothing; for a grid search this can be allowed."""
    error = broken(_Never, size=1)
    assert error.promise == "branches now and then"
    assert "every 3 steps" in error.seen
    check_mutator(_Never, size=1, branches=False)


def test_the_same_mutator_for_every_restart_is_refused() -> None:
    """A restart that keeps the object would hide its memory."""
    mutator = defects.Remembers()
    with pytest.raises(ValueError, match="same one twice"):
        check_mutator(lambda: mutator)


@pytest.mark.parametrize("wrong", [defects.Right(), lambda one, two: None])
def test_what_makes_no_mutator_is_refused(wrong: Any) -> None:
    """`make_mutator` takes no argument, or a mutate_fn."""
    with pytest.raises(TypeError, match="make_mutator must"):
        check_mutator(wrong)


def test_the_given_population_is_what_is_trained() -> None:
    """Its meta_params reach the mutator, and its length is the size."""
    seen: list[Any] = []

    class Looks(defects.Right):
        def init(self, view: PopulationView) -> Any:
            seen.append([work.meta_params for work in view.workers])
            return super().init(view)

    metas = [{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3}]
    check_mutator(Looks, metas, script=ONE_ROUND)
    assert metas in seen
    assert {len(each) for each in seen} == {3, 16, 64, 256}
    assert str(broken(defects.Fails, population=metas)).endswith("{'lr': 0.3}")


@pytest.mark.parametrize("make", [defects.Right, defects.Fails, defects.OwnCalendar])
def test_the_kit_leaves_no_trace(make: type[Mutator[Any]]) -> None:
    """Trace function, clocks, random numbers and logging are as before."""

    def trace(*arguments: object) -> None:
        del arguments

    random.seed(3)
    np.random.seed(3)
    numbers, numpy_numbers = random.getstate(), np.random.get_state()
    clocks = {name: getattr(time, name) for name in dir(time)}
    kind, known = datetime.datetime, dict(vars(defects))
    logger = logging.getLogger("population")
    logs = logger.disabled, logger.level, list(logger.handlers)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        check_mutator(make, script=ONE_ROUND)
    except BrokenPromise:
        pass
    finally:
        kept = sys.gettrace()
        sys.settrace(before)
    assert kept is trace
    assert random.getstate() == numbers
    assert str(np.random.get_state()) == str(numpy_numbers)
    assert {name: getattr(time, name) for name in dir(time)} == clocks
    assert datetime.datetime is kind
    assert dict(vars(defects)) == known
    assert (logger.disabled, logger.level, list(logger.handlers)) == logs


def test_the_reports_depend_on_the_seed_alone() -> None:
    """A failure can be repeated, and another seed tries something else."""
    assert repr(scripts(4, 7)) == repr(scripts(4, 7))
    assert repr(scripts(4, 7)) != repr(scripts(4, 8))
    first, second = (str(broken(defects.NumPyNumbers, seed=7)) for _ in range(2))
    assert first == second
    assert "seed 7" in first


def test_the_reports_hold_all_that_can_happen() -> None:
    """Every kind of event, with and without params, good, bad and missing values."""
    events = [event for script in scripts(4, 0) for event in script]
    kinds = {type(event).__name__ for event in events}
    assert kinds == {
        "ScriptedReport",
        "AllReport",
        "Earlier",
        "Again",
        "LateValue",
        "OldReport",
        "Fails",
        "Revives",
        "GivenUp",
        "Passes",
    }
    reports = [event for event in events if type(event).__name__ == "ScriptedReport"]
    values = {str(getattr(event, "value", 0)) for event in reports}
    assert {"None", "nan", "inf", "-inf"} < values
    assert {getattr(event, "saved", None) for event in reports} == {False, True}
    assert all(str(event) and "\n" not in str(event) for event in events)


@pytest.mark.parametrize("size", [1, 4, 8])
def test_mutators_with_longer_intervals_decide_too(size: int) -> None:
    """In most scripts a worker trains 10 steps further."""
    played = [
        ScriptRunner(Case(lambda: _every(10), [0.0] * size, script, 0)).run()
        for script in scripts(size, 0)
    ]
    assert sum(bool(run.decisions) for run in played) > len(played) / 2


def _every(steps: int) -> Mutator[Any]:
    return PopulationBasedTraining(perturb, steps, exploit=None)


def test_perturb_moves_every_number_a_bit() -> None:
    """It keeps the structure of any meta_params."""
    rng = np.random.default_rng(0)
    meta = {"lr": 0.1, "n": [1, (2.0, None)], "on": True, "name": "adam"}
    for moved in (perturb(meta, "neg", 3, rng=rng), perturb(meta, rng), perturb(meta)):
        assert moved.keys() == meta.keys()
        assert moved["lr"] != 0.1
        assert math.isclose(moved["lr"], 0.1, rel_tol=0.2)
        assert type(moved["n"][0]) is int
        assert type(moved["n"][1]) is tuple
        assert moved["n"][1][1] is None
        assert moved["on"] is True
        assert moved["name"] == "adam"
    assert digest(perturb(meta)) == digest(perturb(meta))
    assert meta["lr"] == 0.1


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"metrics": 5}, TypeError, "metrics must be a name or a list of .* got 5"),
        ({"metrics": [1]}, TypeError, r"metrics must be a name or .* got \[1\]"),
        ({"allow": 5}, TypeError, "allow must be a name or a list of names, got 5"),
        ({"allow": [[1]]}, TypeError, r"allow must be a name or .* got \[\[1\]\]"),
        ({"size": 0}, ValueError, "size must be 1 or more, got 0"),
        ({"size": 2.0}, TypeError, "size must be an int, got float 2.0"),
        ({"seed": "x"}, TypeError, "seed must be an int, got str 'x'"),
        ({"seed": -1}, ValueError, "seed must be 0 or more, got -1"),
        ({"population": 3}, TypeError, "population must be a list .* got int 3"),
        ({"population": "ab"}, TypeError, "population must be a list .* got str 'ab'"),
        ({"population": {"a": 1}}, TypeError, "population must be a list .* got dict"),
        ({"population": []}, ValueError, "population must .* least one worker, got no"),
        ({"script": [1]}, TypeError, r"script must be a list of events, .* got \[1\]"),
        ({"script": 5}, TypeError, "script must be a list of events, .* got 5"),
    ],
)
def test_an_argument_that_is_invalid_is_named(
    arguments: dict[str, Any], error: type[Exception], said: str
) -> None:
    """The mutator is not to blame: the message says what was given and what to do."""
    with pytest.raises(error, match=said):
        check_mutator(defects.Right, **arguments)


def test_the_size_and_the_seed_may_be_ints_of_numpy() -> None:
    """As in a controller."""
    count: Any = np.int64(3)
    report = check_mutator(defects.Right, size=count, seed=count, script=ONE_ROUND)
    assert not report
