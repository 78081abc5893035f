"""PopulationBasedTraining: intervals, comparisons, copies, barriers, ablations."""

from __future__ import annotations

import collections
import itertools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from population import Mutator, Start
from population.mutators import PopulationBasedTraining, WinnerTakeAllGenetic
from population.mutators.exploit import (
    BinaryTournament,
    Exploit,
    Threshold,
    TopFraction,
    Truncation,
    WelchTTest,
    Winner,
)
from population.mutators.standings import Standings
from population.space import LogUniform, Perturb
from population.testing import Problem, simulate
from tests import probe
from tests.mutators.helpers import Run, count_statements, halve, name, nudged

NAN = math.nan
BAD = [math.nan, math.inf, -math.inf]


def pbt(steps: int = 2, **options: Any) -> PopulationBasedTraining:
    """The policy with a mutation that is easy to follow."""
    return PopulationBasedTraining(halve, steps, **options)


def pbt_run(population: Sequence[Any], steps: int = 2, **options: Any) -> Run:
    """A run under that policy."""
    ours = {"exploit", "synchronous", "burn_in", "keep_best", "copy_meta_params"}
    given = {key: options.pop(key) for key in ours & options.keys()}
    return Run(lambda: pbt(steps, **given), population, **options)


def parents(run: Run) -> list[Any]:
    """Where each slot's present generation began: slot, generation, step."""
    graph, works = run.controller.graph, run.controller.workers
    return [name(graph.root(work.generation_id).parent) for work in works]


def play(run: Run, reports: Sequence[tuple[Any, ...]]) -> None:
    """Report each of (worker, step, value)."""
    for report in reports:
        run.report(*report)


class Fixed:
    """A user's rule: which member copies which, by position."""

    def __init__(self, donors: dict[int, Any]) -> None:
        self.donors = donors
        self.asked: list[int] = []

    def donor(
        self, me: int, standings: Standings, rng: np.random.Generator
    ) -> int | None:
        """The donor as given."""
        self.asked.append(me)
        found: int | None = self.donors.get(me)
        return found


# Asynchronous decisions: when, compared with which members, from where.


def test_a_member_decides_after_so_many_steps_of_its_own_and_not_before() -> None:
    """Only its own steps since its last decision count, whichever members report."""
    with pbt_run([1.0, 10.0], steps=3) as run:
        for step in (1, 2, 3, 4, 5):
            run.report(0, step, 1.0)
        run.report(1, 1, 5.0)
        run.report(1, 2, 5.0)
        assert len(run.roots()) == 2
        run.report(1, 3, 5.0)
        assert parents(run) == [None, (0, 0, 5)]
        run.report(1, 7, 5.0)
        assert len(run.roots()) == 3
        run.report(1, 8, 5.0)
        assert len(run.roots()) == 4


def test_an_interval_that_ended_late_does_not_shorten_the_next_one() -> None:
    """The next one counts from the report on which the decision was based."""
    rule = Fixed({})
    with pbt_run([1.0, 10.0], steps=2, exploit=rule) as run:
        run.report(0, 1, 1.0)
        for step in (1, 7, 8, 9, 10, 11):
            run.report(1, step, 5.0)
    assert len(rule.asked) == 3  # The reports at 7, 9 and 11.


def test_a_start_above_zero_counts_from_its_own_step() -> None:
    """A slot that begins with trained weights does not decide at once."""
    with pbt_run([1.0, Start(10.0, step=100)]) as run:
        play(run, [(0, 1, 1.0), (1, 101, 5.0)])
        assert len(run.roots()) == 2
        run.report(1, 102, 5.0)
        assert run.metas() == [1.0, 0.5]


def test_a_report_without_a_value_decides_nothing() -> None:
    """An interval ends with a value; a late value ends it then."""
    with pbt_run([1.0, 10.0]) as run:
        play(run, [(0, 2, 1.0), (1, 2, None), (1, 3, None)])
        assert len(run.roots()) == 2
        run.report(1, 2, 5.0)
        assert parents(run) == [None, (0, 0, 2)]


def test_nobody_decides_during_the_burn_in() -> None:
    """The first decision is at that step or after; then the intervals are as usual."""
    with pbt_run([1.0, 10.0], burn_in=5) as run:
        play(run, [(0, s, 1.0) for s in range(1, 10)])
        play(run, [(1, s, 5.0) for s in (2, 4)])
        assert len(run.roots()) == 2
        run.report(1, 5, 5.0)
        assert len(run.roots()) == 3
        assert run.work(1).step == 9
        run.report(1, 10, 5.0)
        assert len(run.roots()) == 3
        run.report(1, 11, 5.0)
        assert len(run.roots()) == 4


def test_a_copy_goes_on_from_the_donors_newest_checkpoint_mutated_once() -> None:
    """Weights, step and hyperparameters are the donor's; the reason names the donor."""
    with pbt_run([1.0, 10.0]) as run:
        run.report(0, 1, 1.0, "a1")
        run.report(0, 3, 2.0, "a3")
        run.report(1, 2, 5.0, "b2")
        work = run.work(1)
        assert (work.params, work.step, work.meta_params) == ("a3", 3, 0.5)
        assert run.metas() == [1.0, 0.5]
        reason = run.roots(1)[-1].reason
        assert reason == "copied worker 0, whose value was 1, not 5"


def test_the_donors_newest_is_copied_also_if_it_has_no_value_yet() -> None:
    """The copy gets the present weights, if they are saved."""
    with pbt_run([1.0, 10.0]) as run:
        play(run, [(0, 2, 1.0, "a2"), (0, 3, None, "a3"), (0, 4, None)])
        run.report(1, 2, 5.0, "b2")
        assert (run.work(1).params, run.work(1).step) == ("a3", 3)


def test_a_mutation_gets_the_donors_meta_params_and_the_runs_generator() -> None:
    """It is called once for each copy, with random numbers from the seed."""
    calls: list[Any] = []

    def recorded(meta: float, rng: np.random.Generator) -> float:
        calls.append(meta)
        return meta + float(rng.normal())

    def metas(seed: int) -> list[Any]:
        mutator = PopulationBasedTraining(recorded, 2)
        with Run(lambda: mutator, [1.0, 10.0], seed=seed) as run:
            play(run, [(0, 2, 1.0), (1, 2, 2.0)])
            return run.metas()

    first = metas(0)
    assert calls == [1.0]
    assert metas(0) == first
    assert metas(1) != first
    assert first[0] == 1.0 != first[1]


def test_the_members_of_a_round_are_mutated_each_by_its_own_numbers() -> None:
    """Two copies of one donor, made at once, differ."""
    mutator = PopulationBasedTraining(nudged, 2, exploit=Winner(), synchronous=True)
    with Run(lambda: mutator, [1.0, 10.0, 100.0]) as run:
        play(run, [(w, 2, float(w)) for w in range(3)])
        assert len({*run.metas()}) == 3


def test_without_the_donors_hyperparameters_only_its_weights_are_copied() -> None:
    """`copy_meta_params=False`: the copy explores from what it had."""
    with pbt_run([1.0, 10.0], copy_meta_params=False) as run:
        play(run, [(0, 2, 1.0, "a2"), (1, 2, 5.0, "b2")])
        assert run.metas() == [1.0, 5.0]
        assert run.work(1).params == "a2"


def test_a_slow_member_is_compared_with_what_the_fast_one_had_then() -> None:
    """The fast one is better now, but was worse at this step: it is not copied."""
    with pbt_run([1.0, 10.0]) as run:
        play(run, [(0, 2, 9.0), (0, 3, 1.0), (1, 2, 5.0)])
        assert len(run.roots()) == 2


def test_who_was_better_at_that_step_is_copied_though_worse_now() -> None:
    """The reverse case; the third is the best at present, so the second is not."""
    with pbt_run([1.0, 10.0, 100.0]) as run:
        play(run, [(2, 2, 3.0), (0, 2, 1.0), (0, 3, 9.0)])
        assert len(run.roots()) == 3
        run.report(1, 2, 5.0)
        assert parents(run) == [None, (0, 0, 3), None]
        assert run.metas() == [1.0, 0.5, 100.0]


def test_the_newest_report_before_the_step_counts_where_there_is_none_at_it() -> None:
    """Members that report at other steps are compared, too."""
    with pbt_run([1.0, 10.0]) as run:
        play(run, [(0, 1, 1.0), (0, 4, 9.0), (0, 5, 1.0), (1, 3, 5.0)])
        assert parents(run) == [None, (0, 0, 5)]
    with pbt_run([1.0, 10.0]) as run:
        play(run, [(0, 1, 9.0), (0, 4, 1.0), (1, 3, 5.0)])
        assert len(run.roots()) == 2


def test_the_comparison_follows_the_lineage_into_the_generation_before() -> None:
    """What a copy had at a step before its branch is what its donor had there."""
    with pbt_run([1.0, 10.0, 100.0]) as run:
        play(run, [(0, 1, 1.0), (0, 6, 1.0), (1, 3, 50.0)])
        assert parents(run) == [None, (0, 0, 6), None]  # Lineage of 1: 1.0 at step 1.
        run.report(1, 7, 0.5)
        run.report(2, 2, 5.0)
        assert parents(run)[2] in {(0, 0, 6), (1, 1, 7)}


def test_a_member_without_a_report_at_or_before_the_step_is_not_compared() -> None:
    """It is not a donor, and makes no other member a loser."""
    with pbt_run([1.0, 10.0, 100.0]) as run:
        play(run, [(0, 5, 1.0), (1, 3, 2.0), (2, 2, 9.0)])
        assert len(run.roots()) == 3
        run.report(2, 4, 9.0)
        assert parents(run) == [None, None, (1, 0, 3)]


def test_the_present_best_is_never_overwritten() -> None:
    """Although it is the worst of all at equal step, it continues unchanged."""
    with pbt_run([1.0, 10.0, 100.0], exploit=Winner()) as run:
        play(run, [(0, 2, 1.0), (0, 3, 9.0), (1, 2, 2.0), (1, 3, 8.0)])
        branches = len(run.roots())
        run.report(2, 2, 5.0)
        assert len(run.roots()) == branches
        assert run.metas()[2] == 100.0


def test_not_even_by_a_rule_that_knows_nothing_of_ranks() -> None:
    """The rule is not asked about the best, neither at its step nor at present."""
    rule = Fixed({0: 1, 1: 0})
    with pbt_run([1.0, 10.0], exploit=rule) as run:
        play(run, [(0, 2, 1.0), (1, 2, 5.0)])
        assert parents(run) == [None, (0, 0, 2)]
        play(run, [(0, s, 1.0) for s in range(3, 30)])
        assert parents(run) == [None, (0, 0, 2)]


def test_the_best_at_its_step_is_not_asked_about_though_others_are_better_now() -> None:
    """A slow member that leads at equal step has no better member to copy yet."""
    rule = Fixed({1: 0})
    with pbt_run([1.0, 10.0], exploit=rule) as run:
        play(run, [(0, 2, 9.0), (0, 3, 1.0), (1, 2, 5.0)])
        assert (rule.asked, len(run.roots())) == ([], 2)


def test_the_t_test_is_of_the_reports_up_to_the_step_of_the_comparison() -> None:
    """Later reports of a fast member do not count."""
    slow = [(1, 1, 5.0), (1, 2, 5.1), (1, 3, 5.0), (1, 4, 5.1)]
    for then, now, copied in ((1.0, 5.0, True), (5.0, 1.0, False)):
        fast = [(0, step, then + step / 100) for step in range(1, 5)]
        fast += [(0, step, now + step / 100) for step in range(5, 9)]
        with pbt_run([1.0, 10.0], 4, exploit=WelchTTest(window=4)) as run:
            play(run, [*fast, *slow])
            assert (parents(run)[1] is not None) == copied


@pytest.mark.parametrize("bad", BAD)
def test_a_donor_that_has_diverged_since_is_none(bad: float) -> None:
    """It was the best at that step, but its weights have diverged since."""
    with pbt_run([1.0, 10.0, 100.0], exploit=Winner()) as run:
        play(run, [(0, 2, 1.0), (0, 3, bad), (2, 2, 3.0), (1, 2, 5.0)])
        assert parents(run)[1] == (2, 0, 2)


def test_ties_are_decided_by_the_worker_id_not_by_who_came_first() -> None:
    """If two are equally good, truncation lets neither copy the other."""
    for order in ((0, 1), (1, 0)):
        with pbt_run([1.0, 10.0]) as run:
            play(run, [(w, s, 1.0) for s in range(1, 9) for w in order])
            assert len(run.roots()) == 2
        with pbt_run([1.0, 10.0, 100.0], exploit=Winner()) as run:
            play(run, [(w, 2, 1.0) for w in (*order, 2)])
            assert parents(run)[2] == (0, 0, 2)


@pytest.mark.parametrize("synchronous", [False, True])
def test_a_single_worker_goes_on_as_it_is(synchronous: bool) -> None:
    """It is the best; it goes back only if it diverges."""
    with pbt_run([1.0], synchronous=synchronous) as run:
        play(run, [(0, step, 10.0 * step) for step in range(1, 9)])
        assert len(run.roots()) == 1
        run.report(0, 10, NAN)
        assert parents(run) == [(0, 0, 8)]
        assert run.metas() == [0.5]


@pytest.mark.parametrize(
    "rule",
    [
        Truncation(0.2),
        BinaryTournament(),
        WelchTTest(window=2),
        TopFraction(1 / 3),
        Winner(),
        Threshold(),
    ],
)
@pytest.mark.parametrize("synchronous", [False, True])
def test_of_two_workers_the_worse_copies_the_better(
    rule: Exploit, synchronous: bool
) -> None:
    """This holds for every rule, in the smallest population with a donor."""
    with pbt_run([1.0, 10.0], exploit=rule, synchronous=synchronous) as run:
        play(run, [(0, 1, 1.0), (1, 1, 5.0), (0, 2, 1.1), (1, 2, 5.1)])
        assert parents(run) == [None, (0, 0, 2)]
        assert run.metas() == [1.0, 0.5]


# The ablations of the paper.


def test_without_a_mutation_copies_keep_the_donors_meta_params() -> None:
    """They only exploit."""
    mutator = PopulationBasedTraining(None, 2)
    with Run(lambda: mutator, [{"lr": 1.0}, {"lr": 10.0}]) as run:
        play(run, [(0, 2, 1.0), (1, 2, 5.0)])
        assert run.metas() == [{"lr": 1.0}, {"lr": 1.0}]
        assert parents(run) == [None, (0, 0, 2)]


@pytest.mark.parametrize("synchronous", [False, True])
def test_without_a_rule_each_member_explores_on_its_own_way(synchronous: bool) -> None:
    """All only explore: each from its own newest checkpoint, the best one too."""
    with pbt_run([1.0, 10.0], exploit=None, synchronous=synchronous) as run:
        play(run, [(0, 1, 1.0), (1, 1, 5.0)])
        assert len(run.roots()) == 2
        play(run, [(0, 2, 1.0), (1, 2, 5.0)])
        assert parents(run) == [(0, 0, 2), (1, 0, 2)]
        assert run.metas() == [0.5, 5.0]
        assert run.roots(0)[-1].reason == "explored"
        play(run, [(0, 4, 1.0), (1, 4, 5.0)])
        assert run.metas() == [0.25, 2.5]


@pytest.mark.parametrize("synchronous", [False, True])
def test_with_neither_nothing_ever_happens(synchronous: bool) -> None:
    """It is grid or random search: no branch, no waiting, and no state is written."""
    mutator = PopulationBasedTraining(None, 2, exploit=None, synchronous=synchronous)
    with Run(lambda: mutator, [1.0, 10.0]) as run:
        statements: list[str] = []
        count_statements(run.controller, statements)
        play(run, [(w, s, v) for s in range(1, 9) for w, v in ((0, 1.0), (1, NAN))])
        assert [work.wait_at for work in run.controller.workers] == [None, None]
        assert len(run.roots()) == 2
        assert not [s for s in statements if "state" in s.split("(")[0]]


def test_the_best_explores_too_where_it_is_not_kept() -> None:
    """`keep_best=False` mutates its hyperparameters, and it keeps its weights."""
    with pbt_run([1.0, 10.0], keep_best=False) as run:
        play(run, [(0, 2, 1.0), (1, 2, 5.0)])  # The copy of 0 is not a donor yet.
        assert parents(run) == [(0, 0, 2), (1, 0, 2)]
        assert run.metas() == [0.5, 5.0]


# Members that diverge.


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("synchronous", [False, True])
def test_a_diverged_member_copies_and_is_never_copied(
    bad: float, mode: str, synchronous: bool
) -> None:
    """NaN and the infinities are the worst, in both modes."""
    with pbt_run([1.0, 10.0], mode=mode, synchronous=synchronous) as run:
        play(run, [(0, 2, bad), (1, 2, 7.0)])
        if not synchronous:  # It had no other member to compare with, and went back.
            assert parents(run) == [(0, 0, 0), None]
            play(run, [(0, 2, bad)])
        assert parents(run) == [(1, 0, 2), None]
        assert run.metas() == [5.0, 10.0]


@pytest.mark.parametrize("synchronous", [False, True])
def test_a_diverged_member_without_a_donor_goes_back_and_explores(
    synchronous: bool,
) -> None:
    """It goes to its last finite ancestor, whatever the rule says."""
    with pbt_run([1.0, 10.0], 3, exploit=Fixed({}), synchronous=synchronous) as run:
        play(run, [(0, 1, 9.0), (0, 2, NAN), (1, 3, 1.0)])
        assert len(run.roots()) == 2
        run.report(0, 3, math.inf)
        assert parents(run) == [(0, 0, 1), None]
        assert run.metas() == [0.5, 10.0]
        assert run.roots(0)[-1].reason == "went back, having diverged"


def test_without_a_mutation_it_goes_back_as_it_was() -> None:
    """A repeated attempt is better than further training of NaN."""
    mutator = PopulationBasedTraining(None, 2)
    with Run(lambda: mutator, [1.0]) as run:
        play(run, [(0, 1, 1.0), (0, 2, NAN)])
        assert (parents(run), run.metas()) == ([(0, 0, 1)], [1.0])


def test_the_ancestor_may_lie_in_the_donors_generation() -> None:
    """Its hyperparameters, not those of the copy that diverged at once, are mutated."""
    rule = Fixed({1: 0})
    with pbt_run([1.0, 10.0], exploit=rule) as run:
        play(run, [(0, 2, 1.0), (1, 2, 5.0)])
        assert (parents(run), run.metas()) == ([None, (0, 0, 2)], [1.0, 0.5])
        rule.donors = {}
        play(run, [(0, 3, NAN), (1, 2, NAN), (1, 4, NAN)])
        assert (parents(run), run.metas()) == ([None, (0, 0, 2)], [1.0, 0.5])
        assert len(run.roots(1)) == 3


def test_what_came_after_a_divergence_is_left_too() -> None:
    """The NaN comes late, when the loop has saved two more checkpoints."""
    with pbt_run([1.0]) as run:
        play(run, [(0, 1, 3.0, "1"), (0, 2, None, "2"), (0, 3, None, "3")])
        assert len(run.roots()) == 1
        run.report(0, 2, NAN)
        assert parents(run) == [(0, 0, 1)]
        assert run.work(0).params == "1"


@pytest.mark.parametrize("exploit", [Truncation(), Winner(), WelchTTest(), None])
def test_if_all_diverge_each_goes_back_on_its_own_way(exploit: Exploit | None) -> None:
    """At the barrier no member has anything to copy."""
    with pbt_run([1.0, 10.0], 3, exploit=exploit, synchronous=True) as run:
        play(run, [(0, 2, 1.0), (1, 1, 1.0), (0, 3, NAN), (1, 3, -math.inf)])
        assert parents(run) == [(0, 0, 2), (1, 0, 1)]
        assert run.metas() == [0.5, 5.0]
        assert [work.wait_at for work in run.controller.workers] == [5, 4]


def test_if_all_diverge_without_waiting_each_goes_back_when_it_decides() -> None:
    """One goes back after the other; its score is then that of the earlier step."""
    with pbt_run([1.0, 10.0], 3) as run:
        play(run, [(0, 2, 1.0), (1, 2, NAN), (0, 3, NAN)])
        assert (parents(run), run.metas()) == ([(0, 0, 2), None], [0.5, 10.0])
        run.report(1, 3, NAN)  # Worker 0 has not reported its new generation yet.
        assert (parents(run), run.metas()) == ([(0, 0, 2), (1, 0, 0)], [0.5, 5.0])


def in_mode(mode: str, synchronous: bool) -> list[Any]:
    """A run with unequal speeds and divergence, described in one mode."""
    sign = 1.0 if mode == "min" else -1.0
    mutator = PopulationBasedTraining(
        nudged, 2, exploit=Truncation(0.5), synchronous=synchronous
    )
    with Run(lambda: mutator, [1.0, 2.0, 3.0, 4.0], mode=mode) as run:
        for tick, worker_id in enumerate([0, 1, 2, 3, 0, 2, 3, 1, 0] * 12):
            meta = run.newest(worker_id).meta_params
            value = NAN if tick % 7 == 5 else math.sin(tick + 10 * meta)
            run.advance(worker_id, sign * value)
        # Without the reasons, which contain the values.
        return [(place, meta, parent) for place, meta, _, parent in run.decisions()]


@pytest.mark.parametrize("synchronous", [False, True])
def test_maximising_is_minimising_the_negative(synchronous: bool) -> None:
    """The decisions are equal one by one, and so are the reasons, which name scores."""
    decisions = in_mode("min", synchronous)
    assert decisions == in_mode("max", synchronous)
    assert len(decisions) > 12


# Synchronous.


def test_at_a_barrier_all_wait_and_are_compared_at_once() -> None:
    """No member is decided about before the last one has arrived."""
    with pbt_run([1.0, 2.0, 3.0, 4.0], 3, exploit=Winner(), synchronous=True) as run:
        assert [work.wait_at for work in run.controller.workers] == [3] * 4
        play(run, [(3, 3, 9.0), (0, 3, 8.0), (2, 3, 7.0), (1, 2, 1.0)])
        assert len(run.roots()) == 4
        run.report(1, 3, 1.0)
        assert parents(run) == [(1, 0, 3), None, (1, 0, 3), (1, 0, 3)]
        assert run.metas() == [1.0, 2.0, 1.0, 1.0]
        assert [work.wait_at for work in run.controller.workers] == [6] * 4


def test_asynchronous_members_never_wait() -> None:
    """Without synchronous= no slot waits, also during the burn-in."""
    with pbt_run([1.0, 10.0], burn_in=5) as run:
        run.report(0, 9, 1.0)
        assert [work.wait_at for work in run.controller.workers] == [None, None]


def test_the_first_barrier_is_not_before_the_burn_in() -> None:
    """After it, barriers are an interval apart."""
    with pbt_run([1.0, 10.0], 2, synchronous=True, burn_in=5) as run:
        assert [work.wait_at for work in run.controller.workers] == [5, 5]
        play(run, [(w, s, w + 1.0) for s in range(1, 5) for w in range(2)])
        assert len(run.roots()) == 2
        play(run, [(0, 5, 1.0), (1, 5, 2.0)])
        assert parents(run) == [None, (0, 0, 5)]
        assert [work.wait_at for work in run.controller.workers] == [7, 7]
    with pbt_run([1.0], 8, synchronous=True, burn_in=5) as run:
        assert run.work(0).wait_at == 8


def test_what_was_trained_past_the_barrier_is_neither_judged_nor_copied() -> None:
    """Raw loops that ignore `wait_at` train further; a copy starts at the barrier."""
    with pbt_run([1.0, 10.0], synchronous=True) as run:
        play(run, [(0, 2, 1.0), (0, 3, 100.0), (0, 4, NAN), (1, 2, 5.0)])
        assert parents(run) == [None, (0, 0, 2)]
        assert run.work(1).step == 2
        assert run.newest(0).step == 4  # The best is not reset to the barrier, either.
        assert [work.wait_at for work in run.controller.workers] == [4, 4]


def test_a_barrier_needs_params_where_weights_are_saved() -> None:
    """A value without a checkpoint to branch from does not close the round."""
    with pbt_run([1.0, 10.0], synchronous=True) as run:
        play(run, [(0, 2, 1.0, "a2"), (1, 2, 5.0)])
        assert len(run.roots()) == 2
        run.report(1, 3, 5.0, "b3")
        assert parents(run) == [None, (0, 0, 2)]
        assert run.work(1).params == "a2"


def test_a_value_that_comes_late_closes_the_barrier() -> None:
    """Another job evaluates the saves, while the loop trains further."""
    with pbt_run([1.0, 10.0], synchronous=True) as run:
        play(run, [(1, 2, 5.0, "b2"), (0, 2, None, "a2"), (0, 3, None, "a3")])
        assert len(run.roots()) == 2
        run.report(0, 2, 1.0)
        assert parents(run) == [None, (0, 0, 2)]


def synchronous_decisions(order: list[int], rule: Exploit) -> list[Any]:
    """The decisions for four raw workers that pass the barrier, in this order."""
    mutator = PopulationBasedTraining(nudged, 3, exploit=rule, synchronous=True)
    with Run(lambda: mutator, [1.0, 2.0, 3.0, 4.0]) as run:
        closed = 0
        for worker_id in itertools.cycle(order):
            count = probe.decisions(run.controller)
            if closed == 6:
                break
            newest = run.newest(worker_id)
            score = math.sin(newest.step + 1 + 10 * newest.meta_params)
            run.advance(worker_id, NAN if score > 0.95 else score)
            closed += probe.decisions(run.controller) > count
        return run.by_slot()


@pytest.mark.parametrize(
    "rule", [Truncation(0.5), BinaryTournament(), TopFraction(0.5), WelchTTest(p=0.6)]
)
def test_timing_cannot_change_a_synchronous_run(rule: Exploit) -> None:
    """Raw loops that pass the barrier, in any order, give the same branches."""
    orders = [[0, 1, 2, 3], [3, 2, 1, 0], [0, 0, 0, 0, 1, 2, 2, 3], [3, 1, 1, 1, 0, 2]]
    results = [synchronous_decisions(order, rule) for order in orders]
    assert all(result == results[0] for result in results)
    assert sum(map(len, results[0])) > 6


def test_a_lost_slot_does_not_hold_up_the_barrier() -> None:
    """The others are compared without it; it continues unchanged."""
    with pbt_run([1.0, 10.0, 100.0], synchronous=True) as run:
        probe.give_up(run.controller, {1})
        play(run, [(0, 2, 1.0), (2, 2, 5.0)])
        assert parents(run) == [None, None, (0, 0, 2)]
        assert [work.wait_at for work in run.controller.workers] == [4, 2, 4]


def test_a_slot_that_comes_back_is_waited_for_again() -> None:
    """Its interval continues where it was, and it takes part in the next round."""
    with pbt_run([1.0, 10.0, 100.0], exploit=Winner(), synchronous=True) as run:
        run.report(1, 1, 0.1)
        probe.give_up(run.controller, {1})
        play(run, [(0, 2, 1.0), (2, 2, 5.0), (0, 4, 1.0)])
        probe.give_up(run.controller, ())
        run.report(2, 4, 5.0)
        assert parents(run) == [None, None, (0, 0, 2)]
        run.report(1, 2, 0.1)
        assert parents(run) == [(1, 0, 2), None, (1, 0, 2)]
        assert [work.wait_at for work in run.controller.workers] == [4, 4, 4]


def test_an_asynchronous_member_is_not_compared_with_lost_ones() -> None:
    """A member that may be dead is not a donor."""
    with pbt_run([1.0, 10.0, 100.0]) as run:
        play(run, [(0, 2, 2.0), (1, 2, 1.0)])
        probe.give_up(run.controller, {1})
        run.report(2, 2, 5.0)
        assert parents(run)[2] == name(run.newest(0).ref)


# This one is equal to others.


def winners(make: Callable[[], Mutator[Any]], seed: int) -> list[Any]:
    """Parents and hyperparameters of all decisions; sometimes some or all are NaN.

    In any order, the last report of each round closes it.
    """
    rng = np.random.default_rng(seed)
    with Run(make, [1.0, 2.0, 3.0, 4.0, 5.0]) as run:
        for number in range(25):
            for worker_id in rng.permutation(5).tolist():
                newest = run.newest(worker_id)
                value = round(math.sin(10 * newest.meta_params + number), 1)
                bad = number % 8 == 7 or rng.uniform() < 0.15
                run.report(worker_id, newest.step + 1, value)
                run.report(
                    worker_id,
                    newest.step + 2,
                    NAN if bad else value + 0.1,
                    None,
                    newest.generation_id,
                )
        return [(ref, meta, parent) for ref, meta, _, parent in run.decisions()]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_winner_take_all_comes_out_of_the_same_class(keep: bool, seed: int) -> None:
    """The rule `Winner` at a barrier decides exactly like `WinnerTakeAllGenetic`."""
    by_rule = winners(
        lambda: PopulationBasedTraining(
            nudged, 2, exploit=Winner(), synchronous=True, keep_best=keep
        ),
        seed,
    )
    by_name = winners(
        lambda: WinnerTakeAllGenetic(nudged, 2, synchronous=True, keep_winner=keep),
        seed,
    )
    assert by_rule == by_name
    assert len(by_rule) > 100


def test_sherpas_generations() -> None:
    """Every member except the best is drawn from the last top third, and perturbed."""
    size, rounds = 12, 60
    drawn: collections.Counter[int] = collections.Counter()
    mutator = PopulationBasedTraining(
        nudged, 1, exploit=TopFraction(1 / 3), synchronous=True
    )
    with Run(lambda: mutator, [float(w) for w in range(size)]) as run:
        rng = np.random.default_rng(0)
        for _ in range(rounds):
            values = rng.permutation(size).tolist()
            before = run.metas()
            top = np.argsort(values).tolist()[:4]
            for worker_id, value in enumerate(values):
                run.advance(worker_id, float(value))
            after = run.metas()
            best = top[0]
            assert after[best] == before[best]
            found = parents(run)
            for worker_id in set(range(size)) - {best}:
                donor = found[worker_id][0]
                assert donor in top
                assert donor != worker_id
                assert after[worker_id] not in before
                drawn[top.index(donor)] += 1
    expected = rounds * (size - 1) / 4
    assert sum(drawn.values()) == 4 * expected
    assert all(abs(drawn[k] - expected) < 0.2 * expected for k in range(4))


# Rules of users, wrong arguments, settings.


def test_any_object_with_a_method_donor_is_a_rule() -> None:
    """It need not be a dataclass or inherit from anything."""
    rule = Fixed({1: 2, 2: 1})
    with pbt_run([1.0, 10.0, 100.0], exploit=rule, synchronous=True) as run:
        play(run, [(0, 2, 1.0), (1, 2, 2.0), (2, 2, 3.0)])
        assert parents(run) == [None, (2, 0, 2), (1, 0, 2)]
        assert run.metas() == [1.0, 50.0, 5.0]


@pytest.mark.parametrize("synchronous", [False, True])
@pytest.mark.parametrize("wrong", [2, 1, -1, 3])
def test_a_rule_that_names_no_donor_is_an_error_that_loses_nothing(
    synchronous: bool, wrong: int
) -> None:
    """Itself, a diverged member, or an invalid position; a corrected run continues."""
    rule = Fixed({2: wrong})
    with pbt_run(
        [1.0, 10.0, 100.0], 2, exploit=rule, synchronous=synchronous, burn_in=4
    ) as run:
        play(run, [(0, 4, 1.0), (1, 3, NAN), (2, 3, 5.0)])
        if synchronous:
            run.report(1, 4, NAN)
        before = run.decisions()
        with pytest.raises(ValueError, match=f"named position {wrong} for member 2: a"):
            run.report(2, 4, 5.0)
        assert run.newest(2).step == 3
        assert run.decisions() == before
        rule.donors = {2: 0}
        run.report(2, 4, 5.0)
        assert parents(run)[2] == (0, 0, 4)


def test_a_rule_that_raises_is_the_users_to_mend() -> None:
    """Its exception reaches the caller, and the report can be made again."""

    class Broken(Fixed):
        def donor(
            self, me: int, standings: Standings, rng: np.random.Generator
        ) -> int | None:
            raise LookupError("mine")

    with pbt_run([1.0, 10.0], exploit=Broken({})) as run:
        run.report(0, 2, 1.0)
        with pytest.raises(LookupError, match="mine"):
            run.report(1, 2, 5.0)
        assert run.newest(1).step == 0


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "message"),
    [
        ((halve, 0), {}, ValueError, "steps_per_exploit must be a positive int, got 0"),
        ((halve, 2.0), {}, ValueError, "steps_per_exploit must be a positive int, got"),
        ((halve, None), {}, ValueError, "steps_per_exploit must be .* got None"),
        ((halve, True), {}, ValueError, "steps_per_exploit must be .* got True"),
        (
            (halve, 2),
            {"burn_in": -1},
            ValueError,
            "burn_in must be an int of 0 or more",
        ),
        ((halve, 2), {"burn_in": 0.0}, ValueError, "burn_in must be .* got 0.0"),
        ((halve, 2), {"burn_in": False}, ValueError, "burn_in must be .* got False"),
        ((halve, 2), {"burn_in": None}, ValueError, "burn_in must be .* got None"),
        ((0.5, 2), {}, TypeError, "mutate_fn must be a function.* got float"),
        (({}, 2), {}, TypeError, "mutate_fn must be a function.* got dict"),
        ((halve, 2), {"exploit": 0.2}, TypeError, r"say Truncation\(0.2\).* got 0.2"),
        ((halve, 2), {"exploit": "truncation"}, TypeError, "exploit must be a rule"),
        (
            (halve, 2),
            {"exploit": Winner},
            TypeError,
            "exploit must be a rule, an objec",
        ),
    ],
)
def test_wrong_arguments_are_refused_by_name(
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    kind: type[Exception],
    message: str,
) -> None:
    """The constructor says what is needed and what was given."""
    with pytest.raises(kind, match=message):
        PopulationBasedTraining(*arguments, **options)


def test_the_options_are_passed_by_name_only() -> None:
    """A third positional argument would be ambiguous."""
    with pytest.raises(TypeError):
        PopulationBasedTraining(halve, 2, Winner())  # type: ignore[call-arg]


def perturbing(factor: float = 2.0, **options: Any) -> PopulationBasedTraining:
    """The policy with objects that are made again at each call."""
    space = {"lr": LogUniform(1e-4, 1.0)}
    return PopulationBasedTraining(
        Perturb(space, factors=(1 / factor, factor)), **options
    )


def test_equal_arguments_are_recognised_when_a_run_is_opened_again(
    tmp_path: pathlib.Path,
) -> None:
    """A new `Perturb` and a new rule with the same arguments are equal to the old."""

    def make() -> PopulationBasedTraining:
        return perturbing(steps_per_exploit=2, exploit=Truncation(0.25))

    with Run(make, [{"lr": 0.1}, {"lr": 0.01}], tmp_path) as run:
        run.restart()
        play(run, [(0, 2, 1.0), (1, 2, 5.0)])
        assert parents(run) == [None, (0, 0, 2)]


@pytest.mark.parametrize(
    "options",
    [
        {"steps_per_exploit": 3},
        {"exploit": Truncation(0.3)},
        {"exploit": Winner()},
        {"exploit": None},
        {"synchronous": True},
        {"burn_in": 1},
        {"keep_best": False},
        {"factor": 3.0},
    ],
)
def test_other_arguments_are_a_warning_when_a_run_is_opened_again(
    tmp_path: pathlib.Path, options: dict[str, Any]
) -> None:
    """All of them are recorded with the run."""
    given: dict[str, Any] = {"steps_per_exploit": 2}
    with Run(lambda: perturbing(**given), [{"lr": 0.1}], tmp_path) as run:
        given |= options
        with pytest.warns(UserWarning, match="other arguments of its mutator"):
            run.restart()


# Restarts, and what a report costs.


def restarted(tmp_path: pathlib.Path | None, make: Callable[[], Any]) -> list[Any]:
    """The decisions of a run that is opened again before each call, or never."""
    with Run(make, [1.0, 2.0, 3.0, 4.0], tmp_path, reopen=tmp_path is not None) as run:
        for tick, worker_id in enumerate([0, 1, 2, 3, 0, 2, 3, 1] * 6):
            meta = run.newest(worker_id).meta_params
            value = NAN if tick % 7 == 5 else math.sin(tick + 10 * meta)
            run.advance(worker_id, value)
        return run.decisions()


@pytest.mark.parametrize("synchronous", [False, True])
@pytest.mark.parametrize("rule", [Truncation(0.5), WelchTTest(3, 0.6), TopFraction()])
def test_a_restart_between_any_two_calls_changes_no_decision(
    tmp_path: pathlib.Path, rule: Exploit, synchronous: bool
) -> None:
    """The journal has everything on which a decision depends."""

    def make() -> PopulationBasedTraining:
        return PopulationBasedTraining(
            nudged, 2, exploit=rule, synchronous=synchronous, burn_in=3
        )

    never = restarted(None, make)
    assert restarted(tmp_path, make) == never
    assert len(never) > 6


@pytest.mark.parametrize("synchronous", [False, True])
def test_between_decisions_nothing_is_looked_up(synchronous: bool) -> None:
    """4,096 workers: a report that decides nothing reads nothing from the journal."""
    size = 4096
    with pbt_run([float(w) for w in range(size)], 10, synchronous=synchronous) as run:
        ids = [work.generation_id for work in run.controller.workers]
        statements: list[str] = []
        count_statements(run.controller, statements)
        for worker_id in range(size):  # At the barrier all arrive except the first.
            step = 10 if synchronous and worker_id else 9
            run.report(worker_id, step, 1.0, None, ids[worker_id])
        assert sum(s.startswith("INSERT INTO checkpoints") for s in statements) == size
        assert [s for s in statements if "SELECT" in s.upper()] == []
        assert not [s for s in statements if "INTO state" in s]


def statements_of_a_decision(size: int, rule: Exploit) -> int:
    """The number of SQL statements of a report by which the last worker copies."""
    last = size - 1
    starts = [Start(1.0, step=20)] * last + [Start(2.0, step=15)]
    with pbt_run(starts, 9, exploit=rule) as run:
        ids = [work.generation_id for work in run.controller.workers]
        probe.as_of(run.controller, 0)  # After the first look all is kept.
        for step in (21, 22, 23, 27, 28):
            for worker_id in range(last):
                if step <= 23 or worker_id % 2:  # Half of them are at later steps.
                    run.report(worker_id, step, step / 100, None, ids[worker_id])
        for step in (16, 17):
            run.report(last, step, 99.0 + step / 100, None, ids[last])
        probe.give_up(run.controller, {0})
        statements: list[str] = []
        count_statements(run.controller, statements)
        run.report(last, 24, 99.0, None, ids[last])
        spent = len(statements)
        assert len(run.roots(last)) == 2
        return spent


@pytest.mark.parametrize("rule", [Truncation(), WelchTTest(2), TopFraction()])
def test_an_asynchronous_decision_costs_the_same_whatever_the_size(
    rule: Exploit,
) -> None:
    """Members are compared in memory; one slot's branch is recorded.

    The t-test reads earlier reports; how many depends on the member that it meets.
    """
    few, many = (statements_of_a_decision(size, rule) for size in (64, 1024))
    assert abs(few - many) <= (2 if isinstance(rule, WelchTTest) else 0)
    assert max(few, many) < 20


def statements_of_a_round(size: int) -> float:
    """How many SQL statements a member's part in a synchronous round takes."""
    with pbt_run([float(w) for w in range(size)], 2, synchronous=True) as run:
        ids = [work.generation_id for work in run.controller.workers]
        statements: list[str] = []
        count_statements(run.controller, statements)
        for worker_id in range(size):
            run.report(worker_id, 2, float(worker_id), None, ids[worker_id])
        assert len(run.roots()) == size + math.ceil(0.2 * size)
        return len(statements) / size


def test_a_synchronous_round_costs_each_member_the_same_whatever_the_size() -> None:
    """The cost of the whole round is linear in the number of members."""
    assert statements_of_a_round(1000) == pytest.approx(
        statements_of_a_round(50), rel=0.1
    )


# Progress.


@pytest.mark.parametrize("interval", [10, 20])
@pytest.mark.parametrize(
    "rule", [Truncation(0.2), BinaryTournament(), TopFraction(), Winner(), Threshold()]
)
def test_training_gets_on_though_what_was_early_looks_best(
    rule: Any, interval: int
) -> None:
    """Members do not copy each other's untried copies for ever."""
    problem = Problem(
        init=lambda meta: 0,
        train=lambda params, meta, steps: params + steps,
        evaluate=lambda params: abs(params - 10.0),
    )
    mutator = PopulationBasedTraining(halve, interval, exploit=rule)
    metas = [1.0, 2.0, 3.0, 4.0]
    controller = simulate(mutator, metas, problem=problem, steps=400, every=10)
    assert max(checkpoint.step for checkpoint in controller.history()) > 150


@pytest.mark.parametrize(
    "options",
    [
        {"exploit": None},
        {"exploit": Winner(), "keep_best": False},
        {"exploit": Truncation(0.2)},
        {"exploit": BinaryTournament()},
    ],
)
def test_training_gets_on_though_params_are_saved_rarely(
    options: dict[str, Any],
) -> None:
    """A decision waits for a checkpoint from which training can continue."""
    with Run(
        lambda: PopulationBasedTraining(nudged, 5, **options), [1.0, 2.0, 3.0, 4.0]
    ) as run:
        for _ in range(200):
            for worker_id in range(4):
                step = run.newest(worker_id).step + 1
                value = 1 / (step + run.newest(worker_id).meta_params)
                run.report(worker_id, step, value, "saved" if step % 20 == 0 else None)
        assert max(run.newest(worker_id).step for worker_id in range(4)) >= 180


def test_a_copy_is_no_donor_before_it_has_reported() -> None:
    """Its score is its donor's: its hyperparameters were not tried yet."""
    with pbt_run([1.0, 10.0, 100.0], exploit=Winner()) as run:
        play(run, [(0, 2, 1.0), (1, 2, 2.0)])
        assert parents(run) == [None, (0, 0, 2), None]
        run.advance(0, 3.0, 2)  # Worker 1 has the better 1.0 of 0.
        assert parents(run) == [None, (0, 0, 2), None]


def test_a_donor_has_saved_something() -> None:
    """Without params there would be nothing to copy."""
    with pbt_run([1.0, 10.0], exploit=Winner()) as run:
        run.report(1, 1, 5.0, "saved")
        play(run, [(0, 2, 1.0)])
        run.report(1, 2, 5.0, "saved")
        assert parents(run) == [None, None]


def test_reasons_name_values_as_they_were_reported() -> None:
    """This holds also if more is better."""
    with pbt_run([1.0, 10.0], mode="max") as run:
        play(run, [(0, 2, 3.0), (1, 2, 2.0)])
        reason = run.roots(1)[-1].reason
        assert reason == "copied worker 0, whose value was 3, not 2"


@pytest.mark.parametrize("wrong", [0.5, "0", [0]])
def test_a_rule_that_names_no_position_is_named(wrong: Any) -> None:
    """The message has the result and the rule."""

    class Wrong:
        def donor(self, me: int, standings: Any, rng: Any) -> Any:
            return wrong

    with pbt_run([1.0, 10.0], exploit=Wrong()) as run:
        run.report(0, 2, 1.0)
        with pytest.raises(TypeError, match=r"Wrong.* position, an int"):
            run.report(1, 2, 2.0)


def test_a_mutate_fn_that_returns_nothing_is_an_error() -> None:
    """One that changes its argument and has no `return` would lose everything."""

    def doubled(meta: dict[str, float]) -> None:
        meta["rate"] *= 2

    mutator = PopulationBasedTraining(doubled, 2, exploit=None)
    with Run(lambda: mutator, [{"rate": 1.0}]) as run:
        with pytest.raises(TypeError, match=r"must return .* got None for {'rate': 1"):
            run.report(0, 2, 1.0)
        assert run.metas() == [{"rate": 1.0}]


def test_a_class_is_no_mutate_fn() -> None:
    """A class instead of an instance is refused at once."""
    with pytest.raises(TypeError, match=r"got the class Perturb.*Perturb\(\.\.\.\)"):
        PopulationBasedTraining(Perturb, 2)
