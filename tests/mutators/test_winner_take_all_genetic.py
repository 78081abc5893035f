"""WinnerTakeAllGenetic: rounds, scores, donors, barriers, divergence, restarts."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pathlib
from typing import Any

import numpy as np
import pytest

from population import Start, Stop
from population.mutators import WinnerTakeAllGenetic
from tests import probe
from tests.mutators.helpers import Clock, Run, halve, name, nudged


def by_steps(steps: int = 2, **options: Any) -> WinnerTakeAllGenetic:
    """The policy with a mutation that is easy to follow."""
    return WinnerTakeAllGenetic(halve, steps, **options)


def test_the_best_worker_is_copied_to_all_the_winner_included() -> None:
    """When all have trained long enough, all copy the newest checkpoint of the best."""
    with Run(by_steps, [1.0, 10.0, 100.0]) as run:
        for worker_id, value in ((0, 3.0), (1, 1.0), (2, 2.0)):
            assert run.metas() == [1.0, 10.0, 100.0]
            run.report(worker_id, 2, value)
        assert run.metas() == [5.0, 5.0, 5.0]
        assert [name(run.newest(w).parent) for w in range(3)] == [(1, 0, 2)] * 3
        assert [work.step for work in run.controller.workers] == [2, 2, 2]


def test_each_copy_is_mutated_anew() -> None:
    """Random numbers are drawn for each slot, not once for all of them."""
    with Run(lambda: WinnerTakeAllGenetic(nudged, 1), [0.0] * 4) as run:
        for worker_id in range(4):
            run.report(worker_id, 1, 1.0)
        assert len(set(run.metas())) == 4


def test_a_round_ends_only_when_every_slot_has_come_far_enough() -> None:
    """One slow slot delays the decision, however far the others are."""
    with Run(lambda: by_steps(3), [1.0, 2.0]) as run:
        for step in range(1, 30):
            run.report(0, step, 1.0)
        run.report(1, 2, 1.0)
        assert run.metas() == [1.0, 2.0]
        run.report(1, 3, 2.0)
        assert run.metas() == [0.5, 0.5]
        assert [name(run.newest(w).parent) for w in range(2)] == [(0, 0, 29)] * 2


def test_the_next_round_counts_from_where_the_winner_stood() -> None:
    """After an exploit at step 29 the round of 3 steps ends at 32 for all."""
    with Run(lambda: by_steps(3), [1.0, 2.0]) as run:
        run.report(0, 29, 1.0)
        run.report(1, 3, 2.0)
        run.report(0, 31, 1.0)
        run.report(1, 31, 1.0)
        assert run.metas() == [0.5, 0.5]
        run.report(1, 32, 1.0)
        assert run.metas() == [0.5, 0.5]
        run.report(0, 32, 1.0)
        assert run.metas() == [0.25, 0.25]


def test_a_start_above_zero_counts_from_its_own_step() -> None:
    """A slot that begins with trained weights does not end its round at once."""
    with Run(lambda: by_steps(2), [Start(1.0, step=100), 2.0]) as run:
        run.report(0, 101, 1.0)
        run.report(1, 2, 2.0)
        assert run.metas() == [1.0, 2.0]
        run.report(0, 102, 1.0)
        assert run.metas() == [0.5, 0.5]
        assert [work.step for work in run.controller.workers] == [102, 102]


@pytest.mark.parametrize(("average", "winner"), [(True, 10.0), (False, 1.0)])
def test_a_score_is_the_mean_of_the_reports_or_the_last(
    average: bool, winner: float
) -> None:
    """A single good last report wins only without the mean."""
    mutator = WinnerTakeAllGenetic(halve, 2, None, average)
    with Run(lambda: mutator, [1.0, 10.0]) as run:
        run.report(0, 1, -1000.0)  # The round is not long enough: not counted.
        for step, value in ((2, 9.0), (3, 9.0), (4, 0.0)):
            run.report(0, step, value)
        run.report(1, 2, 5.0)
        assert run.metas() == [winner / 2] * 2


def test_the_last_report_is_the_one_with_most_steps() -> None:
    """A late report of an older step is not the last one, even if it comes last."""
    mutator = WinnerTakeAllGenetic(halve, 2, average_over_samples=False)
    with Run(lambda: mutator, [1.0, 10.0]) as run:
        run.report(0, 4, 9.0)
        run.report(0, 3, 0.0)
        run.report(1, 2, 5.0)
        assert run.metas() == [5.0, 5.0]


def test_in_max_mode_the_largest_value_wins() -> None:
    """The mode is the controller's; no mutator uses a sign."""
    with Run(by_steps, [1.0, 10.0], mode="max") as run:
        run.report(0, 2, 5.0)
        run.report(1, 2, 1.0)
        assert run.metas() == [0.5, 0.5]


def test_the_lowest_worker_wins_a_tie() -> None:
    """Equal scores are decided by the worker id, not by the order of reports."""
    with Run(by_steps, [1.0, 10.0, 100.0]) as run:
        for worker_id in (2, 1, 0):
            run.report(worker_id, 2, 1.0)
        assert run.metas() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("synchronous", [True, False])
def test_a_diverged_worker_never_wins(bad: float, mode: str, synchronous: bool) -> None:
    """NaN and the infinities are not donors, in both modes."""
    mutator = by_steps(synchronous=synchronous)
    with Run(lambda: mutator, [1.0, 10.0], mode=mode) as run:
        run.report(0, 2, bad)
        run.report(1, 2, 7.0)
        assert run.metas() == [5.0, 5.0]


def test_a_mean_with_one_diverged_report_does_not_win() -> None:
    """A worker that was NaN within the round is not judged by its other reports."""
    with Run(by_steps, [1.0, 10.0]) as run:
        for step, value in ((2, 0.0), (3, math.nan), (4, 0.0)):
            run.report(0, step, value)
        run.report(1, 2, 5.0)
        assert run.metas() == [5.0, 5.0]


@pytest.mark.parametrize("synchronous", [True, False])
def test_if_all_diverge_each_goes_on_from_its_own_last_finite_ancestor(
    synchronous: bool,
) -> None:
    """All values are NaN: each worker goes back to its own ancestor, and is mutated."""
    mutator = by_steps(3, synchronous=synchronous)
    with Run(lambda: mutator, [1.0, 10.0, 100.0]) as run:
        run.report(0, 1, 1.0)
        run.report(0, 3, math.nan)
        run.report(1, 1, 1.0)
        run.report(1, 2, 1.0)
        run.report(1, 3, math.inf)
        run.report(2, 3, math.nan)
        assert run.metas() == [0.5, 5.0, 50.0]
        parents = [name(run.newest(w).parent) for w in range(3)]
        assert parents == [(0, 0, 1), (1, 0, 2), (2, 0, 0)]
        assert {root.reason for root in run.roots()[3:]} == {"every worker diverged"}


def test_after_all_diverged_the_rounds_go_on() -> None:
    """The next round counts from where each went back to, and has a winner again."""
    with Run(lambda: by_steps(3), [1.0, 10.0]) as run:
        run.report(0, 2, 1.0)
        run.report(0, 3, math.nan)
        run.report(1, 3, math.nan)  # Back to 2, and back to 0.
        run.report(1, 3, 1.0)
        run.report(0, 4, 9.0)
        assert run.metas() == [0.5, 5.0]
        run.report(0, 5, 9.0)
        assert run.metas() == [2.5, 2.5]


def test_a_report_without_a_value_closes_no_round() -> None:
    """None is not a score; a value that comes later decides then."""
    with Run(by_steps, [1.0, 10.0]) as run:
        run.report(0, 2, None)
        run.report(1, 2, 5.0)
        assert run.metas() == [1.0, 10.0]
        run.report(0, 2, 1.0)
        assert run.metas() == [0.5, 0.5]


def test_reports_without_a_value_are_left_out_of_the_mean() -> None:
    """A checkpoint between two evaluations does not make a worker worse."""
    with Run(by_steps, [1.0, 10.0]) as run:
        for step, value in ((2, 4.0), (3, None), (4, 4.0)):
            run.report(0, step, value)
        run.report(1, 2, 5.0)
        assert run.metas() == [0.5, 0.5]


def test_one_worker_alone_wins_every_round() -> None:
    """A population of one is a worker that is sometimes mutated."""
    with Run(by_steps, [1.0]) as run:
        for step in range(1, 7):
            run.report(0, step, 1.0)
        assert run.metas() == [0.125]
        assert [root.step for root in run.roots()] == [0, 2, 4, 6]


def test_the_kept_winner_is_not_branched() -> None:
    """With keep_winner the best continues unchanged, in the same generation."""
    with Run(lambda: by_steps(keep_winner=True), [1.0, 10.0]) as run:
        before = run.controller.workers[0].generation_id
        run.report(0, 2, 1.0)
        run.report(1, 2, 2.0)
        assert run.metas() == [1.0, 0.5]
        assert run.controller.workers[0].generation_id == before


def test_the_round_of_a_kept_winner_begins_where_it_won() -> None:
    """The winner has to train a whole round again before the next decision."""
    with Run(lambda: by_steps(keep_winner=True), [1.0, 10.0]) as run:
        for step in range(1, 6):
            run.report(0, step, 1.0)
        run.report(1, 2, 2.0)
        assert run.newest(1).step == 5
        run.report(0, 6, 1.0)
        run.report(1, 7, 2.0)
        assert run.metas() == [1.0, 0.5]
        run.report(0, 7, 1.0)
        assert run.metas() == [1.0, 0.5]
        assert [root.step for root in run.roots(1)] == [0, 5, 7]


def test_a_kept_winner_is_judged_by_its_new_round_alone() -> None:
    """Its earlier reports do not count: the mean is that of the reports since."""
    with Run(lambda: by_steps(keep_winner=True), [1.0, 10.0]) as run:
        run.report(0, 2, -1000.0)
        run.report(1, 2, 2.0)
        run.report(0, 4, 5.0)
        run.report(1, 4, 3.0)
        assert run.metas() == [0.25, 0.5]


def test_seconds_count_by_the_times_of_the_reports() -> None:
    """A round of ten seconds closes with reports made after ten seconds."""
    clock = Clock()
    mutator = WinnerTakeAllGenetic(halve, seconds_per_exploit=10)
    with Run(lambda: mutator, [1.0, 10.0], clock=clock) as run:
        run.report(0, 1, 5.0)
        clock.now += 9.9
        run.report(1, 1, 1.0)
        run.report(0, 2, 1.0)
        assert run.metas() == [1.0, 10.0]
        clock.now += 0.1
        run.report(0, 3, 2.0)
        clock.now += 60
        assert run.metas() == [1.0, 10.0]  # Time alone makes no decision.
        run.report(1, 2, 3.0)
        assert run.metas() == [0.5, 0.5]


def test_reports_before_the_seconds_are_over_are_not_scored() -> None:
    """A good value early in the round does not count."""
    clock = Clock()
    mutator = WinnerTakeAllGenetic(halve, None, 10.0)
    with Run(lambda: mutator, [1.0, 10.0], clock=clock) as run:
        run.report(0, 1, -1000.0)
        clock.now += 10
        run.report(0, 2, 9.0)
        run.report(1, 1, 5.0)
        assert run.metas() == [5.0, 5.0]


def test_the_next_seconds_count_from_the_decision() -> None:
    """A round that took long does not shorten the next one."""
    clock = Clock()
    mutator = WinnerTakeAllGenetic(halve, seconds_per_exploit=10)
    with Run(lambda: mutator, [1.0, 10.0], clock=clock) as run:
        clock.now += 25
        run.report(0, 1, 1.0)
        run.report(1, 1, 2.0)
        assert run.metas() == [0.5, 0.5]
        for _ in range(9):
            clock.now += 1
            run.advance(0, 1.0)
            run.advance(1, 2.0)
        assert run.metas() == [0.5, 0.5]
        clock.now += 1
        run.advance(0, 1.0)
        run.advance(1, 2.0)
        assert run.metas() == [0.25, 0.25]


def test_a_clock_that_runs_backwards_does_not_stretch_a_round() -> None:
    """Times of reports never decrease, so a corrected clock closes no round early."""
    clock = Clock()
    mutator = WinnerTakeAllGenetic(halve, seconds_per_exploit=10)
    with Run(lambda: mutator, [1.0], clock=clock) as run:
        clock.now -= 500
        run.report(0, 1, 1.0)
        assert run.metas() == [1.0]
        clock.now += 510
        run.report(0, 2, 1.0)
        assert run.metas() == [0.5]


@pytest.mark.parametrize("value", [1.0, math.nan])
def test_a_restart_does_not_begin_the_seconds_anew(
    tmp_path: pathlib.Path, value: float
) -> None:
    """The journal, not the process, holds the beginning of the round."""
    clock = Clock()
    with Run(
        lambda: WinnerTakeAllGenetic(halve, seconds_per_exploit=10),
        [1.0, 10.0],
        tmp_path,
        clock=clock,
    ) as run:
        run.report(0, 1, value)
        clock.now += 6
        run.restart()
        clock.now += 4
        run.report(0, 2, value)
        run.restart()
        run.report(1, 1, 2.0)
        assert run.metas() != [1.0, 10.0]


def test_a_restart_does_not_begin_the_steps_anew(tmp_path: pathlib.Path) -> None:
    """Steps before a restart count: the round ends where it would have ended."""
    with Run(lambda: by_steps(4), [1.0, 10.0], tmp_path) as run:
        run.report(0, 2, 1.0)
        run.report(1, 3, 2.0)
        run.restart()
        run.report(0, 4, 1.0)
        run.restart()
        assert run.metas() == [1.0, 10.0]
        run.report(1, 4, 2.0)
        assert run.metas() == [0.5, 0.5]


def test_a_takeover_does_not_begin_the_round_anew() -> None:
    """Reports count along the lineage, also those of the last generation."""
    with Run(lambda: by_steps(4), [1.0, 10.0]) as run:
        first = run.controller.worker(0)
        first.poll()
        for step in (1, 2, 3):
            first.step = step
            first.report(1.0, f"at {step}")
        second = run.controller.worker(0)  # Takes over: a new generation at step 3.
        assert second.poll()
        assert (second.step, len(run.roots(0))) == (3, 2)
        run.report(1, 4, 2.0, "other")
        assert run.metas() == [1.0, 10.0]
        second.step = 4
        second.report(1.0, "at 4")
        assert run.metas() == [0.5, 0.5]


def test_a_takeover_after_the_end_of_the_round_keeps_what_was_reached() -> None:
    """A slot that had arrived has still arrived after another worker took it."""
    with Run(lambda: by_steps(2), [1.0, 10.0]) as run:
        first = run.controller.worker(0)
        first.poll()
        first.step = 2
        first.report(1.0, "at 2")
        second = run.controller.worker(0)
        second.poll()
        run.report(1, 2, 2.0, "other")
        assert run.metas() == [0.5, 0.5]


def synchronous_decisions(order: list[int]) -> list[Any]:
    """The decisions for four raw workers that pass the barrier, in this order."""
    mutator = WinnerTakeAllGenetic(nudged, 3, synchronous=True)
    with Run(lambda: mutator, [1.0, 2.0, 3.0, 4.0]) as run:
        closed = 0
        for worker_id in itertools.cycle(order):
            if closed == 5:
                break
            before = len(run.roots())
            step = run.newest(worker_id).step + 1
            meta = run.newest(worker_id).meta_params
            run.report(worker_id, step, math.sin(step + 10 * meta))
            closed += len(run.roots()) > before
        return run.by_slot()


def test_timing_cannot_change_a_synchronous_run() -> None:
    """Raw loops that pass the barrier, in any order, give the same branches."""
    orders = [[0, 1, 2, 3], [3, 2, 1, 0], [0, 0, 0, 0, 1, 2, 2, 3], [3, 1, 1, 1, 0, 2]]
    results = [synchronous_decisions(order) for order in orders]
    assert all(result == results[0] for result in results)
    assert len(results[0][0]) == 6


def test_a_synchronous_branch_starts_at_the_barriers_checkpoint() -> None:
    """What a raw loop trained after the barrier is neither judged nor copied."""
    with Run(lambda: by_steps(2, synchronous=True), [1.0, 10.0]) as run:
        for step, value in ((2, 1.0), (3, 100.0), (4, -100.0)):
            run.report(0, step, value)
        run.report(1, 2, 2.0)
        assert run.metas() == [0.5, 0.5]
        assert [name(run.newest(w).parent) for w in range(2)] == [(0, 0, 2)] * 2


def test_going_back_in_a_synchronous_run_starts_from_the_barrier() -> None:
    """If all diverge at the barrier, what was trained after it counts for nothing."""
    parents = []
    for ahead in (False, True):
        with Run(lambda: by_steps(2, synchronous=True), [1.0, 10.0]) as run:
            run.report(0, 1, 1.0)
            run.report(0, 2, math.nan)
            if ahead:
                run.report(0, 3, 5.0)
            run.report(1, 2, math.nan)
            parents.append([name(run.newest(w).parent) for w in range(2)])
    assert parents == [[(0, 0, 1), (1, 0, 0)]] * 2


def test_synchronous_workers_wait_at_the_end_of_their_round() -> None:
    """A poll returns where the slot waits; this changes with the rounds."""
    with Run(lambda: by_steps(3, synchronous=True), [1.0, 10.0]) as run:
        assert [work.wait_at for work in run.controller.workers] == [3, 3]
        run.report(0, 3, 1.0)
        assert run.work(1).wait_at == 3
        run.report(1, 3, 2.0)
        assert [work.wait_at for work in run.controller.workers] == [6, 6]


def test_asynchronous_workers_never_wait() -> None:
    """Without synchronous= no slot waits."""
    with Run(by_steps, [1.0, 10.0]) as run:
        run.report(0, 5, 1.0)
        assert [work.wait_at for work in run.controller.workers] == [None, None]


def test_a_synchronous_winner_that_is_kept_waits_one_round_later() -> None:
    """Its round starts at the barrier, even if it has trained further."""
    mutator = by_steps(2, synchronous=True, keep_winner=True)
    with Run(lambda: mutator, [1.0, 10.0]) as run:
        run.report(0, 2, 1.0)
        run.report(0, 3, 1.0)
        run.report(1, 2, 2.0)
        assert run.metas() == [1.0, 0.5]
        assert [work.wait_at for work in run.controller.workers] == [4, 4]


def test_a_barrier_needs_params_where_weights_are_saved() -> None:
    """A value without a checkpoint to branch from closes no synchronous round."""
    with Run(lambda: by_steps(2, synchronous=True), [1.0, 10.0]) as run:
        run.report(0, 2, 1.0, "a2")
        run.report(1, 2, 2.0)
        assert run.metas() == [1.0, 10.0]
        run.report(1, 3, 2.0, "b3")
        assert run.metas() == [0.5, 0.5]
        assert run.controller.workers[1].params == "a2"


def test_the_donor_is_the_winners_newest_with_params() -> None:
    """If weights are saved, a report without them is not a donor."""
    with Run(by_steps, [1.0, 10.0]) as run:
        run.report(0, 2, 1.0, "a2")
        run.report(0, 3, 1.0)
        run.report(1, 2, 2.0, "b2")
        assert [(w.step, w.params) for w in run.controller.workers] == [(2, "a2")] * 2


def test_the_generator_is_the_runs_own() -> None:
    """The same seed gives the same decisions; another seed gives others."""

    def metas(seed: int) -> list[Any]:
        mutator = WinnerTakeAllGenetic(nudged, 1)
        with Run(lambda: mutator, [1.0, 2.0], seed=seed) as run:
            for _ in range(5):
                run.advance(0, 1.0)
                run.advance(1, 2.0)
            return run.decisions()

    assert metas(0) == metas(0)
    assert metas(0) != metas(1)


def test_the_generator_goes_to_a_parameter_of_exactly_that_name() -> None:
    """`rng` is passed by keyword; a second parameter of another name gets nothing."""
    seen: list[tuple[float, Any]] = []

    def keyword_only(meta: float, scale: float = 2.0, *, rng: Any) -> float:
        seen.append((scale, rng))
        return meta

    def other_name(meta: float, generator: Any = None) -> float:
        seen.append((meta, generator))
        return meta

    for mutate_fn in (keyword_only, other_name):
        with Run(lambda fn=mutate_fn: WinnerTakeAllGenetic(fn, 1), [1.0]) as run:  # type: ignore[misc]
            run.report(0, 1, 1.0)
    assert seen[0][0] == 2.0
    assert isinstance(seen[0][1], np.random.Generator)
    assert seen[1] == (1.0, None)


@dataclasses.dataclass
class Multiply:
    """A mutation with settings; a dataclass with `==` has no hash."""

    factor: float

    def __call__(self, meta: float, rng: np.random.Generator) -> float:
        """Return the mutated meta_params."""
        del rng
        return meta * self.factor


def test_a_mutation_may_be_an_object_without_a_hash() -> None:
    """Any callable is valid, also an instance of a plain dataclass."""
    with Run(lambda: WinnerTakeAllGenetic(Multiply(3.0), 1), [1.0]) as run:
        run.report(0, 1, 1.0)
        assert run.metas() == [3.0]


def test_a_mutation_that_changes_its_argument_in_place_is_harmless() -> None:
    """It gets a copy: neither the donor nor the next slot's copy changes."""

    def in_place(meta: dict[str, Any]) -> dict[str, Any]:
        meta["lr"] *= 2
        meta["layers"].append(1)
        return meta

    population = [{"lr": 1.0, "layers": [0]}, {"lr": 10.0, "layers": [0]}]
    with Run(lambda: WinnerTakeAllGenetic(in_place, 1), population) as run:
        run.report(0, 1, 1.0)
        run.report(1, 1, 2.0)
        assert run.metas() == [{"lr": 2.0, "layers": [0, 1]}] * 2
        assert run.roots()[0].meta_params == {"lr": 1.0, "layers": [0]}
        root = run.controller.lineage(run.newest(1))[0]
        assert root.meta_params == {"lr": 1.0, "layers": [0]}
    assert population == [{"lr": 1.0, "layers": [0]}, {"lr": 10.0, "layers": [0]}]


def test_an_impure_mutation_is_called_once_for_each_branch(
    tmp_path: pathlib.Path,
) -> None:
    """The seed's mutation uses a global generator; a restart repeats no call."""
    calls = itertools.count(1)

    def impure(meta: float) -> float:
        del meta
        return float(next(calls))

    with Run(
        lambda: WinnerTakeAllGenetic(impure, 1), [0.0, 0.0], tmp_path, reopen=True
    ) as run:
        for _ in range(4):
            run.advance(0, 1.0)
            run.advance(1, 2.0)
        made = [root.meta_params for root in run.roots()[2:]]
        assert made == [float(n) for n in range(1, 9)]
    assert next(calls) == 9


def test_a_failing_mutation_leaves_everything_as_it_was() -> None:
    """The exception reaches the caller; the same report then closes the round."""
    broken = True

    def sometimes(meta: float) -> float:
        if broken:
            raise RuntimeError("no")
        return meta / 2

    with Run(lambda: WinnerTakeAllGenetic(sometimes, 1), [1.0, 10.0]) as run:
        run.report(0, 1, 1.0)
        with pytest.raises(RuntimeError, match="no"):
            run.report(1, 1, 2.0)
        assert run.metas() == [1.0, 10.0]
        assert run.newest(1).step == 0
        broken = False
        run.report(1, 1, 2.0)
        assert run.metas() == [0.5, 0.5]


def test_deciding_goes_on_where_training_has_stopped() -> None:
    """`Stop(steps=)` ends training, not decisions: the last round is still closed."""
    mutator = by_steps(2, synchronous=True)
    with Run(lambda: mutator, [1.0, 10.0], stop=Stop(steps=2)) as run:
        run.report(0, 2, 1.0)
        run.report(1, 2, 2.0)
        assert run.metas() == [0.5, 0.5]
        assert run.controller.finished


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((halve,), ValueError, "exactly one of steps_per_exploit and seconds_per"),
        ((halve, 1, 1.0), ValueError, "exactly one of"),
        ((halve, 0), ValueError, "steps_per_exploit must be a positive int, got 0"),
        ((halve, -1), ValueError, "steps_per_exploit must be a positive int"),
        ((halve, 1.5), ValueError, "steps_per_exploit must be a positive int"),
        ((halve, True), ValueError, "steps_per_exploit must be a positive int"),
        ((halve, None, 0), ValueError, "seconds_per_exploit must be a positive"),
        ((halve, None, -2.0), ValueError, "seconds_per_exploit must be a positive"),
        ((halve, None, math.nan), ValueError, "seconds_per_exploit must be a positi"),
        ((halve, None, "9"), ValueError, "seconds_per_exploit must be a positive"),
        ((halve, None, True), ValueError, "seconds_per_exploit must be a positive"),
        ((None, 1), TypeError, "mutate_fn must be a function"),
        (({"lr": 1}, 1), TypeError, "mutate_fn must be a function.* got dict"),
    ],
)
def test_wrong_arguments_are_refused_by_name(
    arguments: tuple[Any, ...], kind: type[Exception], message: str
) -> None:
    """The constructor says what is needed and what was given."""
    with pytest.raises(kind, match=message):
        WinnerTakeAllGenetic(*arguments)


def test_synchronous_rounds_cannot_be_told_by_seconds() -> None:
    """Workers do not reach a time together, so this is refused with advice."""
    with pytest.raises(ValueError, match="Pass steps_per_exploit"):
        WinnerTakeAllGenetic(halve, seconds_per_exploit=1, synchronous=True)


def test_the_options_are_passed_by_name_only() -> None:
    """The seed's four arguments keep their order; new ones need their names."""
    with pytest.raises(TypeError):
        WinnerTakeAllGenetic(halve, 1, None, True, True)  # type: ignore[call-arg]


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_seeds_figure_for_600_rounds(steps: int, seed: int) -> None:
    """Three workers with sigma 0.01 and value h**2 come from 1.0 under 0.1."""

    def drift(meta: float, rng: np.random.Generator) -> float:
        return meta + float(rng.normal()) * 0.01

    mutator = WinnerTakeAllGenetic(drift, steps)
    with Run(lambda: mutator, [1.0] * 3, seed=seed) as run:
        for _ in range(600 * steps):
            for worker_id in range(3):
                newest = run.newest(worker_id)
                value = newest.meta_params**2
                run.report(
                    worker_id, newest.step + 1, value, None, newest.generation_id
                )
        assert max(abs(meta) for meta in run.metas()) < 0.1


def test_the_seeds_figure_for_200_steps() -> None:
    """With two steps a round, +-0.05 and value |h|: under 0.3 after 200 steps."""

    def jump(meta: float, rng: np.random.Generator) -> float:
        return meta + float(rng.choice([-0.05, 0.05]))

    for seed in range(3):
        mutator = WinnerTakeAllGenetic(jump, 2)
        with Run(lambda m=mutator: m, [1.0] * 3, seed=seed) as run:  # type: ignore[misc]
            for _ in range(200):
                for worker_id in range(3):
                    run.advance(worker_id, abs(run.newest(worker_id).meta_params))
            assert max(abs(meta) for meta in run.metas()) < 0.3


@pytest.mark.parametrize("synchronous", [False, True])
def test_who_diverged_goes_back_behind_what_was_saved_since(synchronous: bool) -> None:
    """A loop that saves more often than it evaluates must not keep NaN for ever."""

    def make() -> WinnerTakeAllGenetic:
        return WinnerTakeAllGenetic(halve, 3, synchronous=synchronous)

    with Run(make, [1.0], max_failures=None) as run:
        run.report(0, 1, 1.0, "weights")
        for _ in range(3):
            step = run.newest(0).step
            run.report(0, step + 1, None, "weights")
            run.report(0, step + 2, None, "weights")
            run.report(0, step + 3, math.nan, "weights")
        parents = {root.parent.step for root in run.roots()[1:] if root.parent}
        assert parents == {1}


def test_a_slot_that_comes_back_when_all_were_lost_decides_for_itself() -> None:
    """The slot that reports is live again; no other is compared with it."""
    with Run(lambda: WinnerTakeAllGenetic(halve, 3), [1.0, 2.0]) as run:
        probe.give_up(run.controller, {0, 1})
        run.advance(0, 1.0, 3)
        assert [root.worker_id for root in run.roots()] == [0, 1, 0]
