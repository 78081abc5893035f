"""`check_mutator` finds likely mistakes, and none in policies of authors."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from population import Mutator
from population.mutators import PopulationBasedTraining
from population.mutators.exploit import Threshold, TopFraction, Winner
from population.testing import (
    BrokenPromise,
    MutatorReport,
    MutatorWarning,
    check_mutator,
)
from population.testing.examination import Check
from population.testing.growth import growth, untested
from population.testing.mistakes import KINDS
from population.testing.perturb import perturb
from population.testing.prices import history_cost, idle_cost, state_cost
from population.testing.report import LikelyMistake
from population.testing.runner import Case, ScriptRunner
from population.testing.scripts import long_scripts, many_rounds, one_round
from tests.testing import authors, planted

Make = Callable[[], Mutator[Any]]
METAS = [
    {
        "optimizer": {"learning_rate": 0.1 / w, "betas": (0.9, 0.99)},
        "layers": [1, 1 + w],
        "weight_decay": 0.0,
        "name": "adam",
    }
    for w in range(1, 5)
]
PLANTED: list[tuple[type[Mutator[Any]], str, str]] = [
    (
        planted.WrongSign,
        "worse donors",
        r"\d became a copy of worker \d at step 3",
    ),
    (planted.WorstWins, "worse donors", "Lower is better in view.scores in every mode"),
    (planted.AnyDonor, "worse donors", r"their scores were -?\d"),
    (planted.AllReplaced, "best replaced", "worker 3 was replaced by worker 2"),
    (planted.BestBeginsAnew, "best replaced", "replaced by fresh params at step 3"),
    (planted.RetiresFromTheFront, "best replaced", "worker 3 was retired at step 3"),
    (planted.FromTheRoundsStart, "older checkpoints", r"resume_point\(view.newest\("),
    (planted.FromTheRoot, "older checkpoints", "3 steps of training are lost"),
    (planted.GoesBackByItself, "older checkpoints", "has params at step 3 by now"),
    (planted.AllSlots, "slots not live", r"worker 0 .* view.live is \[1, 2, 3\]"),
    (planted.AllSlotsCopy, "slots not live", "Decide only for workers in view.live"),
    (planted.Places, "places for ids", r"live\[order\], not order"),
    (planted.PlaceOfTheCopy, "places for ids", r"with \(1, \d\) for \(0, \d\)"),
    (planted.PlaceOfTheDonor, "places for ids", "a copy of worker 0"),
    (planted.IdsForPlaces, "places for ids", "view.live was"),
    (planted.LosesText, "lost hyperparameters", "without 'name'"),
    (planted.LosesNested, "lost hyperparameters", "without 'optimizer/betas'"),
    (planted.LosesAll, "lost hyperparameters", "gets {'weight_decay': 0.0} only"),
    (planted.ReturnsNothing, "lost hyperparameters", "gets None only"),
    (planted.OneDraw, "same draw", r"workers \[\d, \d, \d\] at step \d"),
    (planted.OneFactor, "same draw", "within the loop over the members"),
    (planted.OneSeed, "same draw", "one seed, was used for all"),
    (planted.OneSeedInTurn, "same draw", "worker . at step .* as all others"),
    (planted.OneKeyOfJax, "same draw", "same change of 'optimizer/learning_rate'"),
    (planted.OneStateOfNumpy, "same draw", "one seed, was used for all"),
    (planted.OneGeneratorOfPython, "same draw", "one seed, was used for all"),
    (planted.OneFactorClipped, "same draw", "same change of 'optimizer/learning_rate'"),
    (planted.OneText, "same draw", "same change of 'name'"),
    (planted.Ratio, "best replaced", "scores? "),
    (planted.NearestToZero, "worse donors", "their scores were"),
    (planted.ZeroIsNothing, "best replaced", "with score 0, the best of all"),
    (planted.DivergedIsZero, "worse donors", "which is worse: their scores"),
    (planted.BackWhenBetter, "older checkpoints", "although it is better by now"),
    (planted.EmptiesList, "lost hyperparameters", "without 'layers'"),
    (planted.ShortensTuple, "lost hyperparameters", "without 'optimizer/betas'"),
    (
        planted.Flattens,
        "lost hyperparameters",
        "without 'optimizer/betas', 'optimizer/l",
    ),
    (planted.NaNForRate, "lost hyperparameters", "without 'optimizer/learning_rate'"),
    (planted.EachThirdRound, "worse donors", r"became a copy of worker \d"),
    (planted.EachThirdRoundTheSecond, "best replaced", "the best of all, and no slot"),
]
# Through the public call: those that the checks of the promises, which come first,
# might blame for something else; the others are slow.
IN_PUBLIC = {
    planted.FromTheRoundsStart,
    planted.OneSeed,
    planted.OneKeyOfJax,
    planted.EachThirdRound,
}


def case_of(make: Make, script: Any = (), **options: Any) -> Case:
    """A case with four workers."""
    return Case(make, METAS, script, 0, **options)


def mistakes_of(
    make: Make, *allow: str, shortest: bool = False
) -> dict[str, LikelyMistake]:
    """The mistakes that are found, without the check of the promises."""
    with warnings.catch_warnings():
        check = Check(case_of(make), None, frozenset(allow))
        return {found.kind: found for found in check.mistakes(shortest=shortest)}


@pytest.mark.parametrize(
    ("make", "kind", "words"), PLANTED, ids=[make.__name__ for make, _, _ in PLANTED]
)
def test_a_planted_mistake_is_named(make: Make, kind: str, words: str) -> None:
    """Its kind, the workers and the steps, what to write, and how to excuse it."""
    found = mistakes_of(make)
    assert next(iter(found)) == kind, found
    message = found[kind].message
    assert re.search(words, message), message
    assert re.search(r"workers? \[?\d.* step \d", message), message
    assert f"pass allow={kind!r}" in message


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        pytest.param(make, kind, marks=[] if make in IN_PUBLIC else pytest.mark.slow)
        for make, kind, _ in PLANTED
        if make not in (planted.ReturnsNothing, planted.OneSeedInTurn)
    ],
)
def test_a_planted_mistake_breaks_no_promise(make: Make, kind: str) -> None:
    """It is in the report, and not an error for another reason."""
    with pytest.warns(MutatorWarning):
        report = check_mutator(make)
    assert report[0].kind == kind


@pytest.mark.parametrize("make", [planted.OwnGenerators, planted.FixedNumbers])
def test_generators_of_a_policys_own_are_no_mistake(make: Make) -> None:
    """Its decisions follow from what it is given: they are random for nobody."""
    report = check_mutator(make)
    assert not report, str(report)


def test_what_breaks_a_promise_too_is_named_with_it() -> None:
    """None is refused by the run; a look at all slots at each report costs too much."""
    for make, promise, kind in (
        (planted.ReturnsNothing, "takes any reports", "lost hyperparameters: worker"),
        (planted.OneSeedInTurn, "does not look at every", "same draw: worker"),
    ):
        with pytest.raises(BrokenPromise, match=promise) as caught:
            check_mutator(make)
        assert f"may be the reason:\n  {kind}" in str(caught.value)


def test_there_is_a_planted_mistake_of_each_kind() -> None:
    """Every kind is tested, and at least fifteen mistakes are planted."""
    assert {kind for _, kind, _ in PLANTED} == set(KINDS)
    assert len(PLANTED) > 15


@pytest.mark.parametrize("make", [planted.Halves, planted.WinnerTakesAll])
def test_no_mistake_is_found_in_what_they_derive_from(make: Make) -> None:
    """So what is found is the planted one."""
    assert mistakes_of(make) == {}


def test_what_is_falsy_is_not_missing_from_the_kits_own() -> None:
    """The hyperparameters that are used by default have a zero and a False."""
    report = check_mutator(planted.DropsFalse, allow="lost hyperparameters")
    (found,) = report.allowed
    assert "without 'nesterov', 'weight_decay'" in found.message


def test_a_first_that_loses_hyperparameters_is_named() -> None:
    """It is called where the library begins a generation by itself."""
    found = mistakes_of(planted.FirstIsPart)["lost hyperparameters"]
    assert "`first` returned {'optimizer': {'learning_rate': " in found.message
    assert "begins at step" in found.message


def test_copies_of_each_donor_are_compared_with_each_other() -> None:
    """Though those of another donor differ."""
    metas = [{"lr": 0.1 * (1 + w)} for w in range(8)]
    check = Check(Case(planted.OneChildOfEachDonor, metas, (), 0), None, frozenset())
    assert "same draw" in [found.kind for found in check.mistakes(shortest=False)]


def test_places_among_those_with_a_finite_score_are_no_ids() -> None:
    """As those in `view.live`, where a slot is missing."""
    metas = [{"lr": 0.1 * (1 + w)} for w in range(6)]
    check = Check(Case(planted.PlacesOfTheFinite, metas, (), 0), None, frozenset())
    found = {found.kind: found for found in check.mistakes(shortest=False)}
    assert {"places for ids", "worse donors"} & found.keys()


RULES = [TopFraction(), Threshold(), Winner()]


@pytest.mark.parametrize("exploit", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("synchronous", [False, True])
def test_no_mistake_is_found_in_other_rules(exploit: Any, synchronous: bool) -> None:
    """Those that the examples of all mutators leave out."""
    options = {"exploit": exploit, "synchronous": synchronous}
    assert mistakes_of(lambda: PopulationBasedTraining(perturb, 2, **options)) == {}


AUTHORS: list[tuple[str, Callable[[Any], Mutator[Any]], tuple[str, ...]]] = [
    ("generational", lambda fn: authors.Generational(fn, 3), ("worse donors",)),
    ("windowed", lambda fn: authors.Windowed(fn, 3), ()),
    ("backtracking", lambda fn: authors.Backtracking(fn, 2), ()),
    ("hall", lambda fn: authors.HallOfFame(fn, 3), ("older checkpoints",)),
]


@pytest.mark.parametrize(
    ("make", "allow"), [case[1:] for case in AUTHORS], ids=[case[0] for case in AUTHORS]
)
def test_a_right_policy_of_an_author_passes(
    make: Callable[[Any], Mutator[Any]], allow: tuple[str, ...]
) -> None:
    """What it means is all that needs to be allowed, and nothing is a false alarm."""
    report = check_mutator(lambda mutate_fn: make(mutate_fn), allow=allow)
    assert not report, str(report)
    assert {found.kind for found in report.allowed} == set(allow)
    assert report.tried.copies + report.tried.explorations > 20


@pytest.mark.parametrize(
    "make",
    [
        lambda: authors.Generational(perturb, 2, elite=0),
        lambda: authors.Backtracking(perturb, 2, share=True),
        lambda: authors.Brackets(2),
        lambda: authors.Restarts(perturb, 3),
    ],
)
def test_further_policies_need_no_other_excuse(make: Make) -> None:
    """An evolution without an elite, sharing of places, halving, random restarts."""
    meant = {"worse donors", "older checkpoints"}
    assert mistakes_of(make).keys() <= meant


def test_a_mistake_is_returned_warned_of_and_can_be_replayed() -> None:
    """It blocks nobody, and is not silent."""
    with pytest.warns(
        MutatorWarning, match="AllReplaced: best replaced: worker"
    ) as got:
        report = check_mutator(planted.AllReplaced, METAS)
    assert len(got) == 1
    assert got[0].filename == __file__
    assert isinstance(report, MutatorReport)
    [found] = report
    assert len(found.script) == 1
    assert str(found) in str(report)
    assert "Seen with 4 workers, seed 0:\n    1. all report step +3" in str(found)
    check = Check(case_of(planted.AllReplaced), found.script, frozenset())
    assert [again.kind for again in check.mistakes()] == ["best replaced"]


def test_what_is_allowed_is_listed_and_nothing_else_is_excused() -> None:
    """An argument for each kind."""
    allowed = mistakes_of(planted.WrongSign, "worse donors")
    assert set(allowed) == {"worse donors", "best replaced"}
    report = check_mutator(planted.AllReplaced, METAS, allow="best replaced")
    assert not report
    assert [found.kind for found in report.allowed] == ["best replaced"]
    assert "allowed: best replaced: worker 3 was replaced" in str(report)
    assert "No mistake was found.\n" in str(report)


@pytest.mark.parametrize("allow", ["worse donor", ["best replaced", "x"]])
def test_an_unknown_kind_is_refused(allow: Any) -> None:
    """The error lists those that exist."""
    with pytest.raises(ValueError, match=r"kinds of mistakes, got .* 'older"):
        check_mutator(planted.Halves, allow=allow)


@pytest.mark.parametrize("bounded", [-1, 2.0, True])
def test_a_bound_is_a_count(bounded: Any) -> None:
    """It is the number of items."""
    with pytest.raises(ValueError, match="bounded must be an int of 0 or more"):
        check_mutator(planted.Halves, bounded=bounded)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (planted.WritesTable, r"writes \d{5} bytes of the state .*bounded=N"),
        (planted.CopiesTable, r"C code goes through, \d{8} bytes"),
        (planted.SortsInPlace, r"C code goes through, \d{7} bytes"),
        (planted.ComparesPairs, "gone through by C code, with 256 workers"),
    ],
)
def test_bytes_that_are_written_and_work_in_c_are_counted(
    make: Make, words: str
) -> None:
    """A count is the same on every machine, however busy it is."""
    case = case_of(make, one_round(1))
    found = state_cost(case)
    assert found is not None
    assert re.search(words, found.seen), found.seen
    again = state_cost(case_of(make, one_round(1)))
    assert again is not None
    assert re.sub(r"\d+", "", again.seen) == re.sub(r"\d+", "", found.seen)


def test_work_that_grows_with_the_history_is_counted() -> None:
    """In NumPy, and what is kept in the object for it."""
    found = history_cost(case_of(planted.SortsHistory, many_rounds(0)))
    assert found is not None
    assert "view.last(k)" in found.seen
    found = history_cost(case_of(planted.WritesScores, many_rounds(0)))
    assert found is not None
    assert "With 24 workers a report that branches nothing writes" in found.seen
    for make in (planted.Halves, lambda: authors.Windowed(perturb, 3)):
        assert history_cost(case_of(make, many_rounds(0))) is None


def test_a_wait_at_that_reads_the_history_is_counted() -> None:
    """As `update` is: each report asks it."""
    found = idle_cost(case_of(planted.WaitsAndLooks, one_round(1)))
    assert found is not None
    assert "instructions in update and wait_at" in found.seen


def test_without_idle_reports_nothing_is_compared() -> None:
    """Zero instructions are no measure for those of a larger population."""

    class Counts(planted.Halves):
        def init(self, view: Any) -> Any:
            return [0, 0]

        def update(self, state: Any, report: Any, view: Any) -> Any:
            if len(view.steps) > 16 and report.worker_id > 100:
                return state, {}
            start, branches = super().update(state[0], report, view)
            return [start, state[1] + 1], branches

    assert idle_cost(case_of(Counts, one_round(1))) is None


def grows(make: Make, bounded: int = 0, size: int = 4) -> list[int]:
    """The numbers of the scripts in which the state is said to grow."""
    growing = []
    for number, script in enumerate(long_scripts(size, 0)):
        case = case_of(make, script, bounded=bounded)
        found = growth(dataclasses.replace(case, population=METAS[:size]))
        if found is not None:
            assert "pass bounded=N" in found.seen
            growing.append(number)
    return growing


def test_what_grows_with_progress_or_with_failures_is_found() -> None:
    """Random values seldom set a record, and most runs have no failures."""
    assert 1 in grows(planted.KeepsRecords)
    assert grows(planted.CountsFailures) == [2]
    assert not grows(planted.Halves)


def test_signs_digits_windows_and_rungs_are_no_growth() -> None:
    """Nor is a hall of fame, which is full at last."""
    assert not grows(lambda: authors.Windowed(perturb, 3))
    assert not grows(lambda: authors.Windowed(perturb, 3, 200))
    assert not grows(lambda: authors.HallOfFame(perturb, 3, 10))
    assert not grows(lambda: authors.Brackets(1))


def test_a_slow_window_needs_to_be_named() -> None:
    """It cannot be told from a state that grows for ever."""

    def slow() -> Mutator[Any]:
        return authors.Windowed(perturb, 3, 2_000)

    script = long_scripts(4, 0)[0]
    case = dataclasses.replace(case_of(slow, script), population=METAS[:2])
    assert growth(case)
    assert growth(dataclasses.replace(case, bounded=20))
    assert not growth(dataclasses.replace(case, bounded=2_000))
    assert untested(case_of(slow, bounded=300)) == ""
    assert "bounded=301 is more than" in untested(case_of(slow, bounded=301))
    notes = check_mutator(planted.Halves, bounded=2_000).notes
    assert ["growing was not tested" in note for note in notes] == [True]


def test_the_order_of_a_set_is_called_what_it_is() -> None:
    """It is neither a random number nor a restart."""
    with pytest.raises(AssertionError, match="the order of strings in a set") as error:
        check_mutator(planted.FirstOfASet)
    assert "Sort them by worker id and step" in str(error.value)


def test_a_broken_promise_names_the_mistake_that_may_be_the_reason() -> None:
    """With a wrong sign, one that has diverged is the best."""

    class TakesInfinity(planted.WinnerTakesAll):
        def decide(self, view: Any) -> Any:
            order = self.order(view)[::-1]
            return {w: self.branch(order[0], w, view) for w in order[1:]}

        def point(self, good: int, view: Any) -> Any:
            return view.newest(good)

    with pytest.raises(
        AssertionError, match="no checkpoint that has diverged"
    ) as error:
        check_mutator(TakesInfinity)
    assert "A likely mistake, which may be the reason:" in str(error.value)
    assert "worse donors: worker" in str(error.value)


def test_reports_have_the_metrics_that_are_asked_for() -> None:
    """Each report with a value has them all, the same in every run."""
    seen: list[Any] = []

    class Looks(planted.Halves):
        def update(self, state: Any, report: Any, view: Any) -> Any:
            seen.append(report.checkpoint.metrics)
            return super().update(state, report, view)

    for metrics in (("loss", "accuracy"), ("latency",)):
        seen.clear()
        case = case_of(Looks, long_scripts(4, 0)[0][:2], metrics=metrics)
        ScriptRunner(case).run()
        assert len(seen) == 8
        assert all(tuple(sorted(found)) == tuple(sorted(metrics)) for found in seen)
        assert all(0 <= value <= 1 for found in seen for value in found.values())


def test_the_report_says_what_was_tried() -> None:
    """An author sees whether the policy has decided anything."""
    report = check_mutator(lambda fn: PopulationBasedTraining(fn, 3), size=3)
    tried = report.tried
    assert tried.events > 300
    assert tried.copies > tried.compared > 5
    assert 0 < tried.written_bytes < tried.state_bytes < 100
    assert str(tried) in str(report)
    assert report.notes == ()
