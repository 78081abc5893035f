"""MultiFrequencyPBT: quarters, migration, frequencies, divergence, lost slots."""

from __future__ import annotations

import itertools
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import pytest

from population import PopulationController
from population.mutators import MultiFrequencyPBT
from population.space import LogUniform, Perturb
from tests import probe
from tests.mutators.helpers import Run, count_statements, halve, name, nudged

NAN = math.nan
EIGHT = [1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0]


def mf_run(
    population: Sequence[Any] = EIGHT,
    frequencies: Sequence[int] = (1, 2),
    steps: int = 1,
    **options: Any,
) -> Run:
    """A run with a mutation that is easy to follow."""
    return Run(
        lambda: MultiFrequencyPBT(halve, steps, frequencies), population, **options
    )


def round_of(run: Run, values: Sequence[Any], steps: int = 1) -> dict[int, Any]:
    """All slots report; returns which were branched, and from where."""
    before = [work.generation_id for work in run.controller.workers]
    stands = [run.newest(worker_id).step for worker_id in range(len(values))]
    for worker_id, value in enumerate(values):
        if value is not None:
            step = stands[worker_id] + steps
            run.report(worker_id, step, value, None, before[worker_id])
    graph = run.controller.graph
    return {
        worker_id: name(graph.root(work.generation_id).parent)
        for worker_id, work in enumerate(run.controller.workers)
        if work.generation_id != before[worker_id]
    }


def reason(run: Run, worker_id: int) -> str:
    """Why the slot's present generation began."""
    return run.newest(worker_id).reason


def test_eight_workers_by_hand() -> None:
    """Two sub-populations of four; the slow one evolves every second round."""
    with mf_run() as run:
        # Home: winner 0, survivor 1, open 2, loser 3. Abroad the best is 5, with 3.
        first = round_of(run, [1.0, 2.0, 5.0, 9.0, 4.0, 3.0, 8.0, 7.0])
        assert first == {2: (5, 0, 1), 3: (0, 0, 1)}
        assert run.metas() == [1.0, 2.0, 20.0, 0.5, 10.0, 20.0, 30.0, 40.0]
        assert reason(run, 3) == "lost to worker 0"
        assert reason(run, 2) == (
            "taken over by worker 5 of a slower sub-population, with the "
            "hyperparameters of worker 5"
        )

        # Both are due. Fast: 1, 0, 2, 3 (a tie). Slow: 4, 7, 6, 5; the best of the
        # fast one, 1, is better than the open 6: weights of 1, what 4 trains with.
        second = round_of(run, [2.0, 1.0, 6.0, 6.0, 3.0, 9.0, 5.0, 4.0])
        assert second == {2: (4, 0, 2), 3: (1, 0, 2), 5: (4, 0, 2), 6: (1, 0, 2)}
        assert run.metas() == [1.0, 2.0, 10.0, 1.0, 10.0, 5.0, 10.0, 40.0]
        assert reason(run, 6) == (
            "taken over by worker 1 of a faster sub-population, with the "
            "hyperparameters of worker 4"
        )

        # Only the fast one; nobody abroad is better than its open 2.
        third = round_of(run, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
        assert third == {3: (0, 0, 3)}
        assert run.metas() == [1.0, 2.0, 10.0, 0.5, 10.0, 5.0, 10.0, 40.0]


def test_sixteen_workers_by_hand() -> None:
    """Quarters of two: k-th loser and k-th winner, one migrant for each open member."""
    population = [float(2**worker_id) for worker_id in range(16)]
    with mf_run(population, (1, 3)) as run:
        # Home 7, 6 | 5, 4 | 3, 2 | 1, 0; abroad 10 with 4.5, then 8 with 5.5.
        values = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
        abroad = [5.5, 10.0, 4.5, 11.0, 12.0, 13.0, 14.0, 15.0]
        first = round_of(run, values + abroad)
        assert first == {1: (7, 0, 1), 0: (6, 0, 1), 3: (10, 0, 1), 2: (8, 0, 1)}
        metas = [32.0, 64.0, 256.0, 1024.0, *population[4:]]
        assert run.metas() == metas

        # The second migrant is not better than the second open member; nor is the
        # first of a round the only one that may be used again in the next.
        second = round_of(
            run, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 4.5, *[9.0] * 7]
        )
        assert second == {4: (8, 0, 2), 6: (0, 1, 2), 7: (1, 1, 2)}
        metas[4], metas[6], metas[7] = 256.0, metas[0] / 2, metas[1] / 2
        assert run.metas() == metas

        # Both. Slow: 8, 9 | 10, 11 | 14, 15 | 12, 13, with 0 and 1 as migrants.
        fast = [5.0, 6.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0]
        slow = [1.0, 2.0, 3.0, 4.0, 9.0, 9.5, 7.0, 8.0]
        third = round_of(run, fast + slow)
        assert third == {
            4: (8, 0, 3),
            5: (9, 0, 3),
            6: (0, 1, 3),
            7: (1, 1, 3),
            12: (8, 0, 3),
            13: (9, 0, 3),
            14: (0, 1, 3),
            15: (1, 1, 3),
        }
        after = run.metas()
        assert after[4:8] == [256.0, 512.0, metas[0] / 2, metas[1] / 2]
        assert after[12:] == [128.0, 256.0, 256.0, 256.0]
        assert after[:4] + after[8:12] == metas[:4] + metas[8:12]


def test_each_sub_population_evolves_at_its_frequency() -> None:
    """Rounds are counted from one: the third evolves in rounds 4 and 8."""
    with mf_run([float(w) for w in range(12)], (1, 2, 4)) as run:
        evolved = []
        for _ in range(8):
            # Within each group the last one loses; nobody abroad is better.
            branched = round_of(run, [1.0, 1.0, 1.0, 9.0] * 3)
            evolved.append([worker_id // 4 for worker_id in branched])
        assert evolved == [[0], [0, 1], [0], [0, 1, 2]] * 2


def test_of_three_sub_populations_both_directions_are_told_apart() -> None:
    """Into the middle one: hyperparameters come along only from the slowest."""
    population = [float(2**worker_id) for worker_id in range(12)]
    for best, meta in ((0, 2.0**4), (8, 2.0**8)):
        with mf_run(population, (1, 2, 3)) as run:
            round_of(run, [5.0] * 12)
            values = [9.0, 9.5, 9.6, 9.7, 3.0, 4.0, 5.0, 6.0, 9.0, 9.5, 9.6, 9.7]
            values[best] = 1.0
            assert round_of(run, values)[6] == (best, 0, 2)
            assert run.metas()[6] == meta


def test_a_single_sub_population_has_nobody_to_take_over() -> None:
    """With one frequency this is truncation selection by quarters."""
    with mf_run([1.0, 2.0, 3.0, 4.0], (1,)) as run:
        assert round_of(run, [4.0, 3.0, 2.0, 1.0]) == {0: (3, 0, 1)}
        assert run.metas() == [2.0, 2.0, 3.0, 4.0]


def test_migrants_are_not_mutated_and_losers_are_mutated_once() -> None:
    """The mutation is called as often as there are losers."""
    calls: list[float] = []

    def recorded(meta: float) -> float:
        calls.append(meta)
        return meta / 2

    with Run(lambda: MultiFrequencyPBT(recorded, 1, (1, 2)), EIGHT) as run:
        round_of(run, [1.0, 2.0, 5.0, 9.0, 4.0, 3.0, 8.0, 7.0])
        assert calls == [1.0]


def test_if_all_are_equal_the_last_quarter_copies_the_first() -> None:
    """Ties go by the worker id; an equal migrant is not better."""
    with mf_run() as run:
        assert round_of(run, [1.0] * 8) == {3: (0, 0, 1)}
        assert round_of(run, [1.0] * 8) == {3: (0, 0, 2), 7: (4, 0, 2)}


def test_maximising_is_minimising_the_negative() -> None:
    """The decisions are equal one by one."""

    def decisions(sign: float) -> list[Any]:
        mode = "min" if sign > 0 else "max"
        mutator = MultiFrequencyPBT(nudged, 2, (1, 2))
        with Run(lambda: mutator, EIGHT, mode=mode) as run:
            for number in range(6):
                values = [math.sin(10 * meta + number) for meta in run.metas()]
                round_of(run, [sign * v if v < 0.9 else NAN for v in values], 2)
            return run.decisions()

    assert decisions(1.0) == decisions(-1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_diverged_member_loses_and_is_never_copied(bad: float, mode: str) -> None:
    """It is copied neither as a winner nor as a migrant."""
    sign = 1.0 if mode == "min" else -1.0
    with mf_run(mode=mode) as run:
        values = [sign * v for v in (1.0, 2.0, 5.0, 4.0, 9.0, 3.0, 8.0, 7.0)]
        values[0] = values[5] = bad
        # Home: 1, 3, 2, 0. Abroad: 7 with 7 is not better than the open 2.
        branched = round_of(run, values)
        assert branched.pop(0) == (1, 0, 1)
        assert branched.pop(5) == (5, 0, 0)  # It was not due, but it had diverged.
        assert branched == {}
        assert run.metas() == [1.0, 2.0, 3.0, 4.0, 10.0, 10.0, 30.0, 40.0]


def test_a_diverged_open_member_is_taken_over() -> None:
    """Any finite migrant is better; without one it goes back."""
    with mf_run() as run:
        # Home: 0, then 1, 2, 3 by their ids: survivor, open, loser.
        branched = round_of(run, [1.0, NAN, NAN, NAN, 99.0, NAN, NAN, NAN])
        assert {w: branched[w] for w in range(4) if w in branched} == {
            1: (1, 0, 0),
            2: (4, 0, 1),
            3: (0, 0, 1),
        }
        assert run.metas()[:4] == [1.0, 1.0, 10.0, 0.5]
        assert [branched[w] for w in (5, 6, 7)] == [(w, 0, 0) for w in (5, 6, 7)]
        assert reason(run, 1) == "went back, having diverged"


def test_where_a_sub_population_has_diverged_it_begins_again_from_abroad() -> None:
    """A migrant keeps its hyperparameters if no member at home has valid ones."""
    with mf_run() as run:
        round_of(run, [1.0] * 8)
        branched = round_of(run, [1.0, 2.0, 3.0, 4.0, *[NAN] * 4])
        assert branched[6] == (0, 0, 2)
        assert run.metas()[6] == 1.0
        assert [branched[w] for w in (4, 5, 7)] == [(w, 0, 1) for w in (4, 5, 7)]


def test_if_all_diverge_each_goes_back_on_its_own_way() -> None:
    """Each goes to its last finite ancestor, mutated; the next round begins there."""
    with mf_run(steps=2) as run:
        for worker_id in range(1, 8):
            run.report(worker_id, 1, 1.0)
        ids = [work.generation_id for work in run.controller.workers]
        for worker_id in range(8):
            run.report(worker_id, 2, NAN, None, ids[worker_id])
        assert [name(run.newest(w).parent) for w in range(8)] == [
            (0, 0, 0),
            *[(w, 0, 1) for w in range(1, 8)],
        ]
        assert run.metas() == [meta / 2 for meta in EIGHT]
        assert [work.wait_at for work in run.controller.workers] == [2, *[3] * 7]


def test_more_losers_than_finite_winners_share_them() -> None:
    """The k-th loser copies the k-th winner; after the last winner the first again."""
    with mf_run([float(2**w) for w in range(8)], (1,)) as run:
        branched = round_of(run, [1.0, *[NAN] * 7])
        assert {w: branched[w] for w in (6, 7)} == {6: (0, 0, 1), 7: (0, 0, 1)}
        assert {branched[w] for w in range(1, 6)} == {(w, 0, 0) for w in range(1, 6)}


def test_workers_wait_at_the_end_of_a_round() -> None:
    """All wait, also those of slow sub-populations, whether or not any is branched."""
    with mf_run(steps=3) as run:
        assert [work.wait_at for work in run.controller.workers] == [3] * 8
        for worker_id in range(7):
            run.report(worker_id, 3, float(worker_id))
        assert len(run.roots()) == 8
        run.report(7, 2, 7.0)
        assert len(run.roots()) == 8
        run.report(7, 3, 7.0)
        assert len(run.roots()) == 9
        assert [work.wait_at for work in run.controller.workers] == [6] * 8


def test_what_was_trained_past_the_barrier_is_neither_judged_nor_copied() -> None:
    """Raw loops that ignore `wait_at` train further; copies start at the barrier."""
    with mf_run() as run:
        for step, value in ((1, 1.0), (2, 50.0), (3, NAN)):
            run.report(0, step, value)
        for worker_id in range(1, 8):
            run.report(worker_id, 1, 1.0 + worker_id)
        assert name(run.newest(3).parent) == (0, 0, 1)
        assert run.newest(0).step == 3


def test_a_late_value_closes_the_round() -> None:
    """Another job evaluates the saves, while the loop trains further."""
    with mf_run() as run:
        run.report(0, 1, None, "saved")
        run.report(0, 2, None, "saved later")
        for worker_id in range(1, 8):
            run.report(worker_id, 1, 1.0 + worker_id, f"of {worker_id}")
        assert len(run.roots()) == 8
        run.report(0, 1, 1.0)
        assert name(run.newest(3).parent) == (0, 0, 1)
        assert run.work(3).params == "saved"


def decided(order: Sequence[int], lost: frozenset[int] = frozenset()) -> list[Any]:
    """The decisions for eight raw workers that pass the barrier, in this order."""
    mutator = MultiFrequencyPBT(nudged, 2, (1, 2))
    with Run(lambda: mutator, EIGHT) as run:
        probe.give_up(run.controller, lost)
        for worker_id in itertools.cycle(order):
            if probe.decisions(run.controller) == 6:
                break
            newest = run.newest(worker_id)
            value = math.sin(newest.step + 1 + 10 * newest.meta_params)
            run.advance(worker_id, NAN if value > 0.95 else value)
        return run.by_slot()


@pytest.mark.parametrize("lost", [frozenset(), frozenset({0, 5})])
def test_timing_cannot_change_a_run(lost: frozenset[int]) -> None:
    """The order of reports does not matter, nor how far workers pass the barrier."""
    there = [w for w in range(8) if w not in lost]
    orders = [there, there[::-1], [*there[:3] * 3, *there], [there[-1]] * 4 + there]
    results = [decided(order, lost) for order in orders]
    assert all(result == results[0] for result in results)
    assert sum(map(len, results[0])) > 16


def test_lost_slots_do_not_hold_up_the_round() -> None:
    """The live slots form the quarters; the middle ones shrink first."""
    with mf_run() as run:
        probe.give_up(run.controller, {1})
        # Home: winner 0, survivor 3, nobody open, loser 2.
        branched = round_of(run, [1.0, None, 5.0, 4.0, 7.0, 3.0, 8.0, 7.0])
        assert branched == {2: (0, 0, 1)}
        assert [run.work(w).wait_at for w in (0, 1)] == [2, 1]


def test_whole_sub_populations_may_be_lost() -> None:
    """Then the others have no migrants, and continue."""
    with mf_run() as run:
        probe.give_up(run.controller, {4, 5, 6, 7})
        values = [1.0, 2.0, 3.0, 4.0, *[None] * 4]
        assert round_of(run, values) == {3: (0, 0, 1)}
        assert round_of(run, values) == {3: (0, 0, 2)}
        probe.give_up(run.controller, {0, 1, 2, 4, 5, 6, 7})
        assert round_of(run, [None] * 3 + [NAN] + [None] * 4) == {3: (0, 0, 2)}


def test_a_slot_that_comes_back_takes_part_again() -> None:
    """The round that it was in waits for it."""
    with mf_run() as run:
        probe.give_up(run.controller, {3})
        round_of(run, [2.0, 3.0, 4.0, None, 5.0, 5.0, 5.0, 5.0])
        probe.give_up(run.controller, ())
        assert round_of(run, [2.0, 3.0, 4.0, None, 5.0, 5.0, 5.0, 5.0]) == {}
        run.report(3, 1, 1.0)
        # Home: 3, 0, 1, 2. In the slow one 4 | 5 | 6 | 7.
        graph, works = run.controller.graph, run.controller.workers
        parents = [name(graph.root(work.generation_id).parent) for work in works]
        assert parents[2] == (3, 0, 1)
        assert parents[6] == (3, 0, 1)
        assert parents[7] == (4, 0, 2)


def test_a_restart_between_any_two_calls_changes_no_decision(
    tmp_path: pathlib.Path,
) -> None:
    """The number of the round and where it began are in the journal."""

    def decisions(log_dir: pathlib.Path | None) -> list[Any]:
        with Run(
            lambda: MultiFrequencyPBT(nudged, 2, (1, 2)),
            EIGHT,
            log_dir,
            reopen=log_dir is not None,
        ) as run:
            for tick in range(50):
                worker_id = tick % 8
                meta = run.newest(worker_id).meta_params
                value = NAN if tick % 9 == 5 else math.sin(tick + 10 * meta)
                run.advance(worker_id, value)
            return run.decisions()

    never = decisions(None)
    assert decisions(tmp_path) == never
    assert len(never) > 12


def test_arguments_are_recorded_and_recognised(tmp_path: pathlib.Path) -> None:
    """A fresh `Perturb` is the same; other frequencies are a warning."""
    frequencies = [1, 2]

    def make() -> MultiFrequencyPBT:
        space = {"lr": LogUniform(1e-4, 1.0)}
        return MultiFrequencyPBT(Perturb(space), 2, tuple(frequencies))

    with Run(make, [{"lr": 0.1}] * 8, tmp_path) as run:
        run.restart()
        frequencies[1] = 3
        with pytest.warns(UserWarning, match="other arguments of its mutator"):
            run.restart()


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((None, 1), TypeError, "mutate_fn must be a function.* got NoneType"),
        ((halve, 0), ValueError, "steps_per_exploit must be a positive int, got 0"),
        ((halve, 1.0), ValueError, "steps_per_exploit must be a positive int"),
        ((halve, 1, ()), ValueError, r"must ascend from 1, say .* got \[\]"),
        ((halve, 1, (2, 4)), ValueError, r"must ascend from 1, say .* got \[2, 4\]"),
        ((halve, 1, (1, 1)), ValueError, r"must ascend from 1, say .* got \[1, 1\]"),
        ((halve, 1, [1, 9, 5]), ValueError, r"must ascend .* got \[1, 9, 5\]"),
        ((halve, 1, (1, 0)), ValueError, "a frequency must be a positive int, got 0"),
        ((halve, 1, (1, 2.5)), ValueError, "a frequency must be .* got 2.5"),
        ((halve, 1, (True, 2)), ValueError, "a frequency must be .* got True"),
        ((halve, 1, "12"), ValueError, "a frequency must be a positive int, got '1'"),
        ((halve, 1, 4), TypeError, "frequencies must be a list of ints, .* got 4"),
        ((halve, 1, iter([1])), TypeError, "frequencies must be a list of ints"),
    ],
)
def test_wrong_arguments_are_refused_by_name(
    arguments: tuple[Any, ...], kind: type[Exception], message: str
) -> None:
    """The constructor says what is needed and what was given."""
    with pytest.raises(kind, match=message):
        MultiFrequencyPBT(*arguments)


@pytest.mark.parametrize(
    ("frequencies", "size"), [((1, 2), 6), ((1, 2), 4), ((1,), 3), ((1, 2, 3), 16)]
)
def test_a_population_that_does_not_divide_is_refused(
    frequencies: tuple[int, ...], size: int
) -> None:
    """Nothing is trained; the message says which sizes are valid."""
    needed = 4 * len(frequencies)
    mutator = MultiFrequencyPBT(halve, 1, frequencies)
    with pytest.raises(ValueError, match=f"multiple of {needed} workers, got {size}"):
        PopulationController([0.0] * size, mutator)


def test_between_rounds_nothing_is_looked_up() -> None:
    """4,096 workers: a report that decides nothing reads nothing from the journal."""
    size = 4096
    with mf_run([float(w) for w in range(size)], steps=10) as run:
        ids = [work.generation_id for work in run.controller.workers]
        statements: list[str] = []
        count_statements(run.controller, statements)
        for worker_id in range(size):  # All have arrived except the first.
            run.report(worker_id, 10 if worker_id else 9, 1.0, None, ids[worker_id])
        assert sum(s.startswith("INSERT INTO checkpoints") for s in statements) == size
        assert [s for s in statements if "SELECT" in s.upper()] == []
        assert not [s for s in statements if "INTO state" in s]


def statements_of_a_round(size: int) -> float:
    """How many SQL statements a member's part in a round takes."""
    with mf_run([float(w) for w in range(size)], steps=2) as run:
        ids = [work.generation_id for work in run.controller.workers]
        statements: list[str] = []
        count_statements(run.controller, statements)
        for worker_id in range(size):
            run.report(worker_id, 2, float(worker_id), None, ids[worker_id])
        spent = len(statements)
        assert len(run.roots()) == size + size // 8
        return spent / size


def test_a_round_costs_each_member_the_same_whatever_the_size() -> None:
    """The cost of the whole round is linear in the number of members."""
    assert statements_of_a_round(1024) == pytest.approx(
        statements_of_a_round(64), rel=0.1
    )
