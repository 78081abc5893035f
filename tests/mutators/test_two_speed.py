"""TwoSpeedPBT: groups and councils, adoption, the gate, divergence, lost slots."""

from __future__ import annotations

import functools
import math
import pathlib
import random
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from benchmarks.quality import lockstep
from benchmarks.quality.tasks import Noisy, Problem, Static, Toy, Track
from population import PopulationController, Stop
from population.mutators import TwoSpeedPBT
from population.space import Ordinal, Perturb
from population.testing import simulate
from tests.helpers import work
from tests.mutators.helpers import Run, halve, name
from tests.mutators.two_speed_by_the_book import ByTheBook

NAN = math.nan
Branched = dict[int, tuple[tuple[int, int, int] | None, Any]]


def two_run(size: int, slow: int, **options: Any) -> Run:
    """A run whose members begin with 1, 2, 4, ...; a mutation halves."""
    arguments = options.pop("arguments", {})
    population = [float(2**worker_id) for worker_id in range(size)]
    return Run(
        lambda: TwoSpeedPBT(halve, 1, slow=slow, **arguments), population, **options
    )


def round_of(run: Run, values: Sequence[float | None]) -> Branched:
    """All slots report; returns parents and new hyperparameters of the branched."""
    work = run.controller.workers
    steps = [run.newest(worker_id).step for worker_id in range(len(values))]
    for worker_id, value in enumerate(values):
        if value is not None:
            generation_id = work[worker_id].generation_id
            run.report(worker_id, steps[worker_id] + 1, value, None, generation_id)
    graph = run.controller.graph
    return {
        worker_id: (name(graph.root(now.generation_id).parent), now.meta_params)
        for worker_id, now in enumerate(run.controller.workers)
        if now.generation_id != work[worker_id].generation_id
    }


def test_a_group_of_eight_by_hand() -> None:
    """One donor, three copies of its weights, and four that adopt what it trains with.

    Without three reports in a row the noise is unknown: each difference counts.
    """
    with two_run(8, 1) as run:
        found = round_of(run, [3.0, 8.0, 1.0, 7.0, 2.0, 6.0, 5.0, 4.0])
        copies = {w: ((2, 0, 1), 2.0) for w in (1, 3, 5)}
        adopted = {w: ((w, 0, 1), 4.0) for w in (0, 4, 6, 7)}
        assert found == copies | adopted
        reasons = [run.newest(worker_id).reason for worker_id in (1, 4)]
        assert reasons == [
            "copied worker 2",
            "adopted the hyperparameters of worker 2",
        ]
        # Who has the donor's hyperparameters already goes on without a branch.
        found = round_of(run, [3.0, 8.0, 1.0, 7.0, 2.0, 6.0, 5.0, 4.0])
        assert found == {w: ((2, 0, 2), 2.0) for w in (1, 3, 5)}


def test_larger_values_may_be_better() -> None:
    """The mode decides."""
    for mode, worker_id in (("min", 1), ("max", 0)):
        with two_run(2, 1, mode=mode) as run:
            assert round_of(run, [1.0, 2.0]).keys() == {worker_id}


def test_fast_members_each_round_slow_ones_every_other_and_then_all() -> None:
    """Of eight two are fast and four the core; a council is each second time."""
    with two_run(8, 2, arguments={"z": 0.0}) as run:
        first = [1.0, 2.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0]
        assert round_of(run, first) == {1: ((0, 0, 1), 0.5)}
        # Both groups. Of the slow ones 7 is best by the mean of two reports.
        second = [2.0, 1.0, 9.0, 8.0, 7.0, 6.0, 2.9, 3.1]
        slow = round_of(run, second)
        assert slow.pop(0) == ((1, 1, 2), 0.25)
        assert slow == {
            **{w: ((7, 0, 2), 64.0) for w in (2, 3, 4)},
            **{w: ((w, 0, 2), 128.0) for w in (5, 6)},
        }
        assert round_of(run, first).keys() == {1}
        # The council: 0 is the best of all. The core, 4 to 7, does as the slow do.
        council = round_of(run, [0.0, 0.1, 9.0, 8.0, 7.0, 6.0, 4.0, 3.0])
        own = council.pop(1), council.pop(2), council.pop(3)
        assert own[0][0] == (1, 2, 4)
        assert own[0][1] == run.metas()[0]
        assert own[1] == own[2] == ((0, 1, 4), run.metas()[0] / 2)
        assert all(parent[0] >= 4 for parent, _ in council.values() if parent)
        # 2 and 3 have become as fast as their donor, and have its hyperparameters.
        last = round_of(run, [4.0, 3.0, 1.0, 2.0, 9.0, 9.0, 9.0, 9.0])
        assert last == {w: ((2, 2, 5), run.metas()[2] / 2) for w in (0, 1)}


def test_the_noise_of_reports_decides_what_counts() -> None:
    """Twice the standard error of a difference is not enough evidence to copy."""

    def reports(number: int, gap: float) -> list[float]:
        noise = [0.1, -0.1, 0.1, -0.1, 0.1, -0.1, 0.1, -0.1]
        sign = -1 if number % 2 else 1
        return [sign * n + gap * (w > 0) for w, n in enumerate(noise)]

    for gap, is_clear in ((0.25, False), (0.4, True)):
        with two_run(8, 8, arguments={"fast": 0.0, "core": 0.0}) as run:
            found: Branched = {}
            for number in range(8):
                assert not found
                found = round_of(run, reports(number, gap))
            assert bool(found) == is_clear


def test_a_trend_is_no_noise() -> None:
    """Second differences of straight curves are zero: the smallest gap counts."""
    with two_run(4, 4, arguments={"fast": 0.0, "core": 0.0}) as run:
        for number in range(4):
            found = round_of(run, [-5.0 * number + 0.001 * w for w in range(4)])
        assert found.keys() == {1, 2, 3}


@pytest.mark.parametrize("window", [1, 2, 3])
def test_scores_of_a_window_are_averaged(window: int) -> None:
    """The best of the last report is not the best of the last three."""
    arguments = {"fast": 0.0, "core": 0.0, "z": 0.0, "window": window}
    with two_run(2, 3, arguments=arguments) as run:
        round_of(run, [0.0, 9.0])
        round_of(run, [5.0, 1.0])
        found = round_of(run, [2.0, 1.0])
        best = {1: 1, 2: 1, 3: 0}[window]
        assert found.keys() == {1 - best}


@pytest.mark.parametrize("slow", [1, 4])
def test_a_diverged_member_copies_at_once(slow: int) -> None:
    """Also where its group decides later, and where it would have adopted."""
    values = [1.0, 2.0, 3.0, NAN, 5.0, 6.0, NAN, NAN]
    with two_run(8, slow) as run:
        found = round_of(run, values)
        for worker_id in (3, 6, 7):
            parent, _ = found[worker_id]
            assert parent is not None
            assert parent[0] == (0 if slow == 1 else 2)
        assert slow == 1 or found.keys() == {1, 3, 6, 7}


def test_a_member_with_no_donor_goes_back_and_explores() -> None:
    """Alone, or if all have diverged: from its last checkpoint that did not."""
    for size in (1, 3):
        with two_run(size, 1) as run:
            if size == 3:
                round_of(run, [1.0, 2.0, 3.0])
            found = round_of(run, [NAN] * size)
            assert found.keys() == set(range(size))
            # Copies go back to the donor, and explore from what it was trained with.
            assert run.metas() == [0.5] * size
            assert run.newest(0).reason == "went back, having diverged"


def test_a_fast_member_alone_copies_a_slow_one_if_it_diverges() -> None:
    """Its group has no donor, the population has."""
    with two_run(4, 4) as run:
        assert round_of(run, [NAN, 3.0, 2.0, 1.0]) == {0: ((3, 0, 1), 4.0)}


@pytest.mark.parametrize("size", range(1, 10))
def test_any_number_of_members_trains_to_its_end(size: int) -> None:
    """Each slot reports each round; nobody waits for ever."""
    controller = simulate(
        TwoSpeedPBT(lambda meta: {**meta}, 10, slow=2), size=size, steps=100
    )
    assert {controller.newest(w).step for w in range(size)} == {100}


@pytest.mark.parametrize("slow", [1, 2, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 16, 22])
@pytest.mark.parametrize("problem", [Toy(0.2), Noisy(), Static(3), Track(4)])
def test_it_decides_by_the_book(problem: Problem, size: int, slow: int) -> None:
    """Hyperparameters and reports of a run are those of the rule written plainly."""
    explore = Perturb(problem.space, share=0.5)
    found = [
        lockstep.Lockstep(
            mutator, lockstep.first_members(problem, size, 5, "random"), seed=5
        )
        for mutator in (TwoSpeedPBT(explore, 1, slow=slow), ByTheBook(explore, slow))
    ]
    ends = [
        lockstep.train(run, problem, np.random.default_rng(6))[1].tolist()
        for run in found
    ]
    assert ends[0] == ends[1]
    assert found[0].settings == found[1].settings


@pytest.mark.parametrize("core", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("fast", [0.0, 0.25, 1.0])
def test_who_is_in_the_core_is_never_fast(fast: float, core: float) -> None:
    """Whatever the shares are, from the first round to the last."""
    policy = TwoSpeedPBT(halve, 1, slow=2, fast=fast, core=core)
    first = [float(2**worker_id) for worker_id in range(8)]
    run = lockstep.Lockstep(policy, first, seed=0)
    rng = np.random.default_rng(0)
    inside = int(8 * core)
    for number in range(9):
        assert sum(run.state.fast) <= 8 - inside
        assert not any(run.state.fast[8 - inside :])
        assert number or sum(run.state.fast) == min(round(8 * fast), 8 - inside)
        run.report(rng.random(8).tolist())


def test_equal_members_are_left_as_they_are() -> None:
    """Where all report the same, nobody has shown to be better."""
    with two_run(8, 1) as run:
        for _ in range(4):
            assert not round_of(run, [0.5] * 8)


def test_a_diverged_member_is_no_donor_and_copies_one() -> None:
    """Also if so many have diverged that it is among the best eighth."""
    with two_run(16, 1) as run:
        values = [NAN] * 16
        values[5] = 1.0
        found = round_of(run, values)
        assert found.keys() == set(range(16)) - {5}
        assert {parent for parent, _ in found.values()} == {(5, 0, 1)}


def test_rounds_follow_the_live_slots() -> None:
    """One is given up, one dies by failures: the others decide without them."""
    with two_run(4, 1) as run:
        run.controller.give_up(3)
        assert round_of(run, [1.0, 2.0, 3.0, None]).keys() == {1, 2}
        for _ in range(3):
            run.controller.fail(2, "broken")
        assert 2 in run.controller.retired
        assert round_of(run, [1.0, 2.0, None, None]).keys() == {1}


def test_loops_that_do_not_wait_are_compared_where_they_should_have_waited() -> None:
    """Reports beyond the end of a round do not change what is decided for it."""
    with two_run(3, 1) as run, two_run(3, 1) as ahead:
        round_of(run, [3.0, 2.0, 1.0])
        for step, value in ((1, 3.0), (2, 0.0), (3, 0.0)):
            ahead.report(0, step, value)
        ahead.report(1, 1, 2.0)
        ahead.report(2, 1, 1.0)
        assert ahead.decisions() == run.decisions()


def test_a_copy_that_equals_another_member_is_drawn_again() -> None:
    """Equal weights with equal hyperparameters would find the same; five draws."""
    draws = [1.0, 1.0, 7.0, 7.0, 8.0, *[8.0] * 5]
    calls = iter(draws)
    run = Run(lambda: TwoSpeedPBT(lambda meta: next(calls), 1, slow=1), [1.0] * 8)
    with run:
        round_of(run, [float(worker_id) for worker_id in range(8)])
        assert run.metas() == [1.0] * 5 + [7.0, 8.0, 8.0]
    assert next(calls, None) is None


def test_a_window_may_be_longer_than_ten_reports() -> None:
    """The mean of twenty decides: not the last ten, which tell the opposite."""
    early, late = [100.0, 0.0], [0.0, 1.0]
    policy = functools.partial(TwoSpeedPBT, halve, 1, fast=0.0, core=0.0, z=0.0)
    for window, moved in ((10, 1), (20, 0)):
        run = Run(functools.partial(policy, slow=20, window=window), [1.0, 3.0])
        with run:
            for values in [early] * 10 + [late] * 10:
                round_of(run, values)
            assert [m != f for m, f in zip(run.metas(), [1.0, 3.0], strict=True)] == [
                worker_id == moved for worker_id in range(2)
            ]


def test_a_run_that_is_made_longer_gets_its_second_speed(
    tmp_path: pathlib.Path,
) -> None:
    """With one speed nobody is fast in effect, but it stays known who is to be."""
    choose = random.Random(0)
    for horizon in (6, 60):
        policy = TwoSpeedPBT(lambda meta: meta + 1.0, 1, horizon=horizon, z=0.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The setting `slow` has changed.
            run = PopulationController([float(i) for i in range(8)], policy, tmp_path)
        while work(run, 7).step < horizon:
            for worker_id in range(8):
                at = work(run, worker_id)
                place = worker_id, at.generation_id, at.step + 1
                run.set_eval(*place, None, choose.random())
        reasons = [(c.step, c.reason) for c in run.history() if c.value is None]
        decided = {step for step, reason in reasons if "worker" in reason}
        run.close()
    assert {step % 10 for step in decided if step > 6} == set(range(10))


def test_a_horizon_shorter_than_a_round_is_refused() -> None:
    """Such a run would end before the first decision."""
    with pytest.raises(ValueError, match="horizon must be at least a round, got 10"):
        TwoSpeedPBT(halve, 20, horizon=10)


@pytest.mark.parametrize(
    ("horizon", "slow"), [(1000, 8), (60, 1), (119, 1), (240, 2), (20, 1), (39, 1)]
)
def test_the_horizon_decides_how_rarely_slow_members_decide(
    horizon: int, slow: int
) -> None:
    """A sixth of the rounds, rounded down; at least one."""
    assert TwoSpeedPBT(halve, 20, horizon=horizon).slow == slow


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, r"needs horizon=, .* slow=, .* got neither"),
        ({"horizon": 10, "slow": 2}, "got both"),
        ({"horizon": 0}, "horizon must be a positive int, got 0"),
        ({"horizon": 10.0}, "horizon must be a positive int, got 10.0"),
        ({"slow": 0}, "slow must be a positive int"),
        ({"slow": 2, "window": 0}, "window must be a positive int"),
        ({"slow": 2, "donors": 0}, "donors must be above 0 and at most 1, got 0"),
        ({"slow": 2, "copies": 1.5}, "copies must be above 0 and at most 1"),
        ({"slow": 2, "fast": -0.1}, "fast must be from 0 to 1, got -0.1"),
        ({"slow": 2, "core": "half"}, "core must be a number, got 'half'"),
        ({"horizon": 0}, "horizon must be a positive int"),
        ({"slow": 2, "z": math.inf}, "z must be from 0 to 100"),
        ({"slow": 2, "z": 10**400}, "z must be from 0 to 100"),
        ({"slow": 2, "z": NAN}, "z must be from 0 to 100"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], said: str) -> None:
    """Each message says what is needed and what was given."""
    with pytest.raises(ValueError, match=said):
        TwoSpeedPBT(halve, 1, **arguments)


def test_members_that_only_take_hyperparameters_keep_their_weights() -> None:
    """An adopter continues from its own checkpoint, at its own step."""
    space = {"a": Ordinal([1, 2, 3])}
    controller = PopulationController(
        [{"a": 1}, {"a": 2}, {"a": 3}],
        TwoSpeedPBT(Perturb(space), 1, slow=1, copies=0.1),
        mode="max",
        stop=Stop(steps=9),
    )
    for worker_id, at in enumerate(controller.workers):
        controller.set_eval(worker_id, at.generation_id, 1, worker_id, worker_id)
    adopted = controller.workers[1]
    assert (adopted.params, adopted.meta_params, adopted.step) == (1, {"a": 3}, 1)
