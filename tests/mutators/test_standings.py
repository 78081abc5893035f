"""Which members are compared, and by which scores."""

from __future__ import annotations

import dataclasses
import fractions
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from population import Branch, Mutator, PopulationController, PopulationView, Report
from population.mutators.rounds import Latecomer, check_steps
from population.mutators.standings import Standings, at_equal_step, portion, samples
from tests import probe
from tests.mutators.helpers import Run

INF = math.inf


@dataclasses.dataclass(frozen=True)
class Nothing:
    """A state without content."""


class Asking(Mutator[Nothing]):
    """Never branches; calls a function at every report."""

    def __init__(self, question: Callable[[PopulationView], Any]) -> None:
        self._question = question
        self._answer: Any = None

    @property
    def answer(self) -> Any:
        """The result of the last call."""
        return self._answer

    def init(self, view: PopulationView) -> Nothing:
        """Remember nothing."""
        return Nothing()

    def update(
        self, state: Nothing, report: Report, view: PopulationView
    ) -> tuple[Nothing, Mapping[int, Branch]]:
        """Call the function, and decide nothing."""
        self._answer = self._question(view)
        return state, {}


def asked(
    question: Callable[[PopulationView], Any],
    reports: list[tuple[int, int, Any]],
    lost: tuple[int, ...] = (),
    size: int = 3,
    **options: Any,
) -> Any:
    """The result after these reports of (worker, step, value)."""
    runs: list[PopulationController] = []

    def ask(view: PopulationView) -> Any:
        probe.pretend_lost(runs[0], lost)  # Even the member that has just reported.
        return question(view)

    mutator = Asking(ask)
    with Run(lambda: mutator, [0.0] * size, **options) as run:
        runs.append(run.controller)
        for report in reports:
            run.report(*report)
    return mutator.answer


def equal_step(worker_id: int, step: int) -> Callable[[PopulationView], Any]:
    """A function that compares members at a step, as plain data."""

    def question(view: PopulationView) -> Any:
        members, scores = at_equal_step(worker_id, step, view)
        return dict(zip(members.tolist(), scores.tolist(), strict=True))

    return question


@pytest.mark.parametrize(
    ("fraction", "size", "expected"),
    [
        (0.2, 1, 1),
        (0.2, 5, 1),
        (0.2, 6, 2),
        (0.2, 8, 2),
        (0.2, 10, 2),
        (0.2, 11, 3),
        (0.1, 30, 3),
        (0.07, 100, 7),
        (0.28, 25, 7),
        (0.7, 10, 7),
        (1 / 3, 3, 1),
        (1 / 3, 9, 3),
        (1 / 3, 10, 4),
        (1.0, 7, 7),
        (1e-12, 7, 1),
        (0.2, 0, 0),
    ],
)
def test_a_portion_is_rounded_up(fraction: float, size: int, expected: int) -> None:
    """It is rounded up, except for errors of floats; at least one, if there is any."""
    assert portion(fraction, size) == expected


@pytest.mark.parametrize("size", [1, 7, 25, 30, 64, 100, 1000, 4096, 9999])
def test_a_portion_is_exact_for_whole_per_cents(size: int) -> None:
    """The result is that of exact arithmetic."""
    for percent in range(1, 101):
        exact = math.ceil(fractions.Fraction(percent, 100) * size)
        assert portion(percent / 100, size) == exact


@pytest.mark.parametrize(
    ("scores", "ranks"),
    [
        ([5.0], [0]),
        ([2.0, 1.0], [1, 0]),
        ([1.0, 1.0], [0, 1]),
        ([3.0, 1.0, 3.0, 2.0, INF, 1.0, INF], [3, 0, 4, 2, 5, 1, 6]),
        ([INF, INF], [0, 1]),
    ],
)
def test_ranks_are_a_permutation(scores: list[float], ranks: list[int]) -> None:
    """The lower position goes first on ties; diverged members come last."""
    them = Standings(np.array(scores))
    assert len(them) == len(scores)
    assert [them.rank(me) for me in range(len(them))] == ranks


@pytest.mark.parametrize(
    ("fraction", "scores", "best"),
    [
        (0.2, [5.0], [0]),
        (0.2, [INF], []),
        (0.2, [3, 1, 2], [1]),
        (0.5, [3, 1, 2], [1, 2]),
        (0.5, [2, 1, 2], [0, 1, 2]),
        (1.0, [2, INF, 1], [0, 2]),
        (0.5, [INF, INF, INF, 1], [3]),
        (0.2, [], []),
    ],
)
def test_the_best_are_finite_and_all_as_good_as_the_last_of_them(
    fraction: float, scores: list[float], best: list[int]
) -> None:
    """A tie at the cut includes all tied members; diverged members are left out."""
    assert Standings(np.array(scores, float)).best(fraction).tolist() == best


def test_without_samples_there_are_none() -> None:
    """A rule that asks for earlier scores where there are none gets an empty list."""
    assert list(Standings(np.array([1.0, 2.0])).samples(0, 10)) == []


def test_members_are_compared_by_what_they_had_at_the_step() -> None:
    """Each by its newest report at or before it, however far it has trained since."""
    reports = [(0, 2, 9.0), (0, 4, 4.0), (0, 5, 1.0), (1, 3, 7.0), (2, 4, 8.0)]
    assert asked(equal_step(2, 4), reports) == {0: 4.0, 1: 7.0, 2: 8.0}
    assert asked(equal_step(1, 3), reports) == {0: 9.0, 1: 7.0}
    assert asked(equal_step(0, 1), reports) == {}


def test_a_report_without_a_value_is_no_report_to_compare_by() -> None:
    """If the newest report has no value, the one before it counts."""
    reports = [(0, 2, 9.0), (0, 3, None), (1, 3, None), (2, 3, 1.0)]
    assert asked(equal_step(2, 3), reports) == {0: 9.0, 2: 1.0}


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("bad", [math.nan, INF, -INF])
def test_who_has_diverged_since_is_compared_as_diverged(bad: float, mode: str) -> None:
    """It was good at the step, but what could be copied now is not."""
    sign = 1 if mode == "min" else -1
    reports = [(0, 2, 1.0), (0, 3, bad), (1, 2, bad), (2, 2, 5.0)]
    answer = asked(equal_step(2, 2), reports, mode=mode)
    assert answer == {0: INF, 1: INF, 2: sign * 5.0}


def test_who_has_recovered_since_is_compared_by_its_score_at_the_step() -> None:
    """The loop went through NaN and recovered: at the step it was diverged."""
    reports = [(0, 2, math.nan), (0, 3, 1.0), (1, 2, 5.0)]
    assert asked(equal_step(1, 2), reports) == {0: INF, 1: 5.0}
    assert asked(equal_step(1, 3), reports) == {0: 1.0, 1: 5.0}


def test_lost_slots_are_not_compared_but_for_the_one_that_asks() -> None:
    """A member that reports is alive."""
    reports = [(0, 2, 1.0), (1, 2, 2.0), (2, 2, 3.0)]
    assert asked(equal_step(2, 2), reports, lost=(0,)) == {1: 2.0, 2: 3.0}
    assert asked(equal_step(2, 2), reports, lost=(0, 2)) == {1: 2.0, 2: 3.0}
    assert asked(equal_step(2, 2), reports, lost=(0, 1, 2)) == {2: 3.0}


def test_looking_does_not_change_what_is_looked_at() -> None:
    """A rule cannot change the scores for the members that decide after it."""

    def question(view: PopulationView) -> Any:
        before = view.scores.tolist()
        _, scores = at_equal_step(0, 2, view)
        with pytest.raises(ValueError, match="read-only"):
            scores[:] = -1
        return before == view.scores.tolist() == view.as_of(9)[1].tolist()

    assert asked(question, [(0, 2, 1.0), (1, 2, 2.0), (1, 3, 4.0)])


def newest_samples(
    step: int, window: int, worker_id: int = 0
) -> Callable[[PopulationView], Any]:
    """A function that returns a slot's samples."""
    return lambda view: list(samples(view.newest(worker_id), step, window, view))


def test_samples_are_the_newest_values_up_to_the_step() -> None:
    """There are at most as many as the window; reports without a value are skipped."""
    values = [1.0, 2.0, None, 4.0, math.nan, 6.0, None]
    reports = [(0, step, value) for step, value in enumerate(values, start=1)]
    assert asked(newest_samples(7, 3), reports) == [6.0, INF, 4.0]
    assert asked(newest_samples(4, 2), reports) == [4.0, 2.0]
    assert asked(newest_samples(99, 99), reports) == [6.0, INF, 4.0, 2.0, 1.0]
    assert asked(newest_samples(0, 3), reports) == []
    assert asked(newest_samples(7, 3), [(1, 1, 1.0)]) == []


def test_samples_are_scores_whatever_the_mode() -> None:
    """Lower is better: in max mode the values are negated."""
    reports = [(0, 1, 1.0), (0, 2, 2.0)]
    assert asked(newest_samples(2, 9), reports, mode="max") == [-2.0, -1.0]


def test_samples_are_those_of_the_lineage() -> None:
    """Reports of the donor before the branch count, later ones do not."""

    class Copying(Asking):
        def update(
            self, state: Nothing, report: Report, view: PopulationView
        ) -> tuple[Nothing, Mapping[int, Branch]]:
            super().update(state, report, view)
            if report.checkpoint.value == -1.0:
                return state, {1: Branch(view.newest(0), 0.0)}
            return state, {}

    mutator = Copying(newest_samples(9, 9, worker_id=1))
    with Run(lambda: mutator, [0.0, 0.0]) as run:
        for report in ((0, 1, 10.0), (0, 2, 11.0), (1, 1, -1.0)):
            run.report(*report)
        run.report(0, 3, 12.0)
        run.report(1, 3, 5.0)
        run.report(1, 4, 4.0)
    assert mutator.answer == [4.0, 5.0, 11.0, 10.0]


def test_only_the_late_one_is_asked_again() -> None:
    """Each report looks at one slot; the one that completes the round looks at each."""
    questions: list[int] = []
    here: set[int] = set()

    def has_arrived(worker_id: int) -> bool:
        questions.append(worker_id)
        return worker_id in here

    latecomer, state, live = Latecomer(), object(), range(10)
    for worker_id in (9, 8, 7, 6, 5, 4, 3, 2, 1):
        here.add(worker_id)
        assert latecomer.is_late(state, live, has_arrived)
    assert questions == [0] * 9
    here.add(0)
    questions.clear()
    assert not latecomer.is_late(state, live, has_arrived)
    assert questions == list(live)


def test_in_the_order_of_the_slots_nobody_is_asked_three_times() -> None:
    """A slot that has arrived is skipped until the last has; then each is looked at."""
    questions: list[int] = []
    here: set[int] = set()

    def has_arrived(worker_id: int) -> bool:
        questions.append(worker_id)
        return worker_id in here

    latecomer, state = Latecomer(), object()
    late = []
    for worker_id in range(100):
        here.add(worker_id)
        late.append(latecomer.is_late(state, range(100), has_arrived))
    assert late == [True] * 99 + [False]
    assert len(questions) <= 300


@pytest.mark.parametrize("live", [[0, 2], [2], [0, 1, 2, 3]])
def test_another_state_or_population_is_looked_at_anew(live: list[int]) -> None:
    """What was remembered of one state or set of slots is not used for another."""
    latecomer, state = Latecomer(), object()
    assert latecomer.is_late(state, range(4), lambda worker_id: worker_id < 3)
    assert not latecomer.is_late(state, live, lambda worker_id: True)
    assert latecomer.is_late(object(), live, lambda worker_id: worker_id != live[0])
    assert latecomer.is_late(state, [], lambda worker_id: True)  # No slot has arrived.


@pytest.mark.parametrize("steps", [0, -1, 1.0, True, "1", None])
def test_a_number_of_steps_is_a_positive_int(steps: object) -> None:
    """Any other value is refused with the name of the argument."""
    with pytest.raises(ValueError, match="burn_in must be a positive int, got"):
        check_steps(steps, "burn_in")
    assert check_steps(3) == 3
