"""BranchingSingleMachine: its phases, late values, divergence, restarts."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pathlib
from typing import Any

import numpy as np
import pytest

from population import Start
from population.base import NoProgressError
from population.mutators import BranchingSingleMachine
from tests.mutators.helpers import Run, name


def step_aside(meta: float, direction: str, cycle: int) -> float:
    """Move down or up by one, in every cycle."""
    del cycle
    return meta + {"neg": -1.0, "pos": 1.0}[direction]


def line_search(exploit: int = 2, explore: int = 3) -> BranchingSingleMachine:
    """The policy with a mutation that is easy to follow."""
    return BranchingSingleMachine(step_aside, exploit, explore)


def trial(run: Run, value: float, steps: int) -> None:
    """Report `steps` times; only the last value matters."""
    for _ in range(steps - 1):
        run.advance(0, 1000.0)
    run.advance(0, value)


def path(run: Run) -> list[tuple[Any, ...]]:
    """Hyperparameters and first step of each generation."""
    return [(root.meta_params, root.step) for root in run.roots()]


@pytest.mark.parametrize(
    ("values", "best"),
    [((1.0, 2.0, 3.0), 0.0), ((2.0, 1.0, 3.0), -1.0), ((2.0, 3.0, 1.0), 1.0)],
)
def test_three_trials_from_one_checkpoint_then_the_best(
    values: tuple[float, ...], best: float
) -> None:
    """Centre, negative, positive for explore_steps each; then the best continues."""
    with Run(line_search, [0.0]) as run:
        for value in values:
            assert run.newest(0).step == 0
            trial(run, value, 3)
        assert path(run) == [(0.0, 0), (-1.0, 0), (1.0, 0), (best, 3)]
        parents = [name(root.parent) for root in run.roots()]
        assert parents[1:3] == [(0, 0, 0), (0, 0, 0)]
        assert parents[3] == (0, values.index(1.0), 3)


def test_what_the_exploitation_reached_is_the_next_centre() -> None:
    """The next three trials begin where the exploit phase ended, at its meta_params."""
    with Run(line_search, [0.0]) as run:
        for value in (2.0, 3.0, 1.0):
            trial(run, value, 3)
        trial(run, 1.0, 2)  # Exploit: steps 3 to 5.
        assert (run.newest(0).step, run.metas()) == (5, [1.0])
        trial(run, 1.0, 3)  # The centre continues in the same generation.
        assert path(run)[4:] == [(0.0, 5)]
        assert name(run.newest(0).parent) == (0, 3, 5)
        trial(run, 2.0, 3)
        assert path(run)[5:] == [(2.0, 5)]


def test_the_directions_and_cycles_are_what_they_are_called() -> None:
    """The negative trial calls `mutate_fn(meta, "neg", cycle)`; cycles count from 0."""
    calls = []

    def recorded(meta: float, direction: str, cycle: int) -> float:
        calls.append((meta, direction, cycle))
        return step_aside(meta, direction, cycle)

    with Run(lambda: BranchingSingleMachine(recorded, 1, 1), [5.0]) as run:
        for value in (1.0, 2.0, 3.0, 1.0) * 2:
            run.advance(0, value)
    assert calls == [(5.0, "neg", 0), (5.0, "pos", 0), (5.0, "neg", 1), (5.0, "pos", 1)]


def test_the_reasons_name_the_phase() -> None:
    """A reader of the history can tell the purpose of a generation."""
    with Run(lambda: line_search(1, 1), [0.0]) as run:
        for value in (2.0, 1.0, 3.0):
            run.advance(0, value)
        assert [root.reason for root in run.roots()] == [
            "start",
            "explore neg (cycle 0)",
            "explore pos (cycle 0)",
            "exploit neg (cycle 0)",
        ]


def test_a_trial_is_judged_by_the_first_report_at_or_after_its_end() -> None:
    """Reports need not fall on the end of a phase, and nothing is an error."""
    with Run(line_search, [0.0]) as run:
        run.report(0, 2, -1000.0)  # Before the end: this value does not count.
        run.report(0, 4, 2.0)
        run.report(0, 7, 1.0)
        run.report(0, 3, 3.0)
        assert path(run) == [(0.0, 0), (-1.0, 0), (1.0, 0), (-1.0, 7)]
        run.report(0, 8, 5.0)
        assert run.newest(0).step == 8
        run.report(0, 11, 5.0)  # The exploit phase ends here, not at 9.
        run.report(0, 13, 5.0)
        assert len(path(run)) == 4
        run.report(0, 14, 5.0)
        assert path(run)[4:] == [(-2.0, 11)]


def test_in_max_mode_the_largest_value_is_the_best() -> None:
    """The mode is the controller's; the policy uses scores without a sign."""
    with Run(lambda: line_search(1, 1), [0.0], mode="max") as run:
        for value in (2.0, 3.0, 1.0):
            run.advance(0, value)
        assert run.metas() == [-1.0]


def test_the_earlier_trial_wins_a_tie() -> None:
    """Nothing changes without a reason: the centre comes first."""
    with Run(lambda: line_search(1, 1), [0.0]) as run:
        for _ in range(3):
            run.advance(0, 1.0)
        assert run.metas() == [0.0]


def test_a_late_value_ends_the_phase() -> None:
    """An evaluation job may report later; until then the worker trains further."""
    with Run(line_search, [0.0]) as run:
        generation_id = run.newest(0).generation_id
        run.report(0, 3, None)
        run.report(0, 4, None)
        assert len(path(run)) == 1
        run.report(0, 3, 1.0, generation_id=generation_id)
        assert path(run) == [(0.0, 0), (-1.0, 0)]
        trial(run, 2.0, 3)
        trial(run, 2.0, 3)
        assert name(run.newest(0).parent) == (0, 0, 3)


def test_a_value_that_comes_after_the_decision_changes_nothing() -> None:
    """Another report ended the phase; the late value is only recorded."""
    with Run(lambda: line_search(1, 1), [0.0]) as run:
        first = run.newest(0).generation_id
        run.report(0, 1, None)
        run.report(0, 2, 1.0)
        decided = run.decisions()
        run.report(0, 1, -1000.0, generation_id=first)
        assert run.decisions() == decided
        run.advance(0, 2.0)
        run.advance(0, 2.0)
        assert name(run.newest(0).parent) == (0, 0, 2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_diverged_trial_is_never_the_best(bad: float, mode: str) -> None:
    """A NaN or infinite trial loses to any other."""
    with Run(lambda: line_search(1, 1), [0.0], mode=mode) as run:
        for value in (bad, 7.0, bad):
            run.advance(0, value)
        assert (run.newest(0).step, run.metas()) == (1, [-1.0])


def test_if_all_three_diverge_it_goes_back_to_where_they_began() -> None:
    """Another cycle begins at the branch checkpoint, with another centre."""
    with Run(line_search, [0.0]) as run:
        for value in (1.0, 2.0, 3.0):
            trial(run, value, 3)
        trial(run, 1.0, 2)
        branch = run.newest(0)
        for _ in range(3):
            trial(run, math.nan, 3)
        newest = run.newest(0)
        assert newest.parent == branch.ref
        assert newest.meta_params != branch.meta_params
        assert "diverged" in newest.reason
        for value in (2.0, 1.0, 3.0):  # The next cycle is complete.
            assert run.newest(0).step == 5
            trial(run, value, 3)
        assert run.newest(0).reason == "exploit neg (cycle 2)"


def test_all_values_nan_for_ever_is_no_crash() -> None:
    """The run tries again from its root, until its only slot is retired."""
    with Run(lambda: line_search(1, 1), [0.0]) as run:
        for _ in range(2):
            run.advance(0, math.nan)
        with pytest.raises(NoProgressError, match="failed too often"):
            run.advance(0, math.nan)
        assert run.newest(0).step <= 2


def test_an_exploitation_that_diverges_is_undone() -> None:
    """At its end the member goes back to its last finite ancestor.

    Three further trials from a checkpoint that is NaN would teach nothing.
    """
    with Run(lambda: line_search(2, 1), [0.0]) as run:
        for value in (1.0, 2.0, 3.0):
            run.advance(0, value)
        run.advance(0, 1.0)
        finite = run.newest(0)
        run.advance(0, math.nan)
        newest = run.newest(0)
        assert newest.parent == finite.ref
        for value in (2.0, 1.0, 3.0):
            assert run.newest(0).step == finite.step
            run.advance(0, value)
        assert run.newest(0).reason.startswith("exploit neg")


def script(run: Run) -> None:
    """Reports of three cycles, with values that are late, missing and NaN."""
    values = itertools.cycle([3.0, None, 1.0, 2.0, math.nan, 2.5, 0.5])
    for value in itertools.islice(values, 45):
        run.advance(0, value)


def test_a_restart_in_any_phase_gives_the_same_decisions(
    tmp_path: pathlib.Path,
) -> None:
    """A run that is opened again before each call makes the same decisions."""

    def mutate(meta: float, direction: str, cycle: int, rng: Any) -> float:
        return step_aside(meta, direction, cycle) * float(rng.uniform(0.9, 1.1))

    results = []
    for reopen in (False, True):
        with Run(
            lambda: BranchingSingleMachine(mutate, 2, 3),
            [1.0],
            tmp_path / str(reopen),
            reopen=reopen,
        ) as run:
            script(run)
            results.append(run.decisions())
    assert results[0] == results[1]
    assert len(results[0]) > 8


def test_the_generator_may_be_a_fourth_parameter() -> None:
    """It is passed by keyword to a parameter named `rng`."""
    seen = []

    def with_rng(meta: float, direction: str, cycle: int, *, rng: Any) -> float:
        seen.append(rng)
        return step_aside(meta, direction, cycle)

    with Run(lambda: BranchingSingleMachine(with_rng, 1, 1), [0.0]) as run:
        run.advance(0, 1.0)
    assert isinstance(seen[0], np.random.Generator)


@dataclasses.dataclass
class Aside:
    """A mutation with settings; a dataclass with `==` has no hash."""

    width: float

    def __call__(self, meta: float, direction: str, cycle: int) -> float:
        """Return the mutated meta_params."""
        return meta + self.width * (step_aside(0.0, direction, cycle))


def test_a_mutation_may_be_an_object_without_a_hash() -> None:
    """Any callable is valid, also an instance of a plain dataclass."""
    with Run(lambda: BranchingSingleMachine(Aside(0.5), 1, 1), [0.0]) as run:
        run.advance(0, 1.0)
        assert run.metas() == [-0.5]


def test_a_mutation_that_changes_its_argument_in_place_is_harmless() -> None:
    """Both trials start from the centre's own hyperparameters."""

    def in_place(meta: dict[str, float], direction: str, cycle: int) -> Any:
        meta["lr"] = step_aside(meta["lr"], direction, cycle)
        return meta

    with Run(lambda: BranchingSingleMachine(in_place, 1, 1), [{"lr": 0.0}]) as run:
        for value in (1.0, 2.0, 3.0):
            run.advance(0, value)
        metas = [root.meta_params["lr"] for root in run.roots()]
        assert metas == [0.0, -1.0, 1.0, 0.0]


def test_a_start_above_zero_counts_from_its_own_step() -> None:
    """A run that begins with trained weights explores from there."""
    with Run(line_search, [Start(0.0, step=100)]) as run:
        run.report(0, 102, 1.0)
        assert len(path(run)) == 1
        run.report(0, 103, 1.0)
        assert path(run) == [(0.0, 100), (-1.0, 100)]


def test_the_trials_go_on_from_saved_weights() -> None:
    """Each trial gets the params of the checkpoint where all three begin."""
    with Run(lambda: line_search(1, 1), [0.0]) as run:
        run.report(0, 1, 1.0, "centre")
        assert run.work(0).params is None
        run.report(0, 1, 2.0, "neg")
        run.report(0, 1, 3.0, "pos")
        assert run.work(0).params == "centre"
        run.report(0, 2, 3.0, "exploited")
        run.report(0, 3, 3.0, "centre again")
        assert run.work(0).params == "exploited"


def test_several_workers_are_refused() -> None:
    """The policy is for one slot; the message names a policy for several."""
    with pytest.raises(ValueError, match=r"population of 2.*WinnerTakeAllGenetic"):
        Run(line_search, [0.0, 1.0])


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((step_aside, 0, 1), ValueError, "exploit_steps must be a positive int, got 0"),
        ((step_aside, 1, 0), ValueError, "explore_steps must be a positive int, got 0"),
        ((step_aside, -1, 1), ValueError, "exploit_steps must be a positive int"),
        ((step_aside, 1.0, 1), ValueError, "exploit_steps must be a positive int"),
        ((step_aside, 1, True), ValueError, "explore_steps must be a positive int"),
        ((step_aside, 1, None), ValueError, "explore_steps must be a positive int"),
        ((None, 1, 1), TypeError, "mutate_fn must be a function"),
    ],
)
def test_wrong_arguments_are_refused_by_name(
    arguments: tuple[Any, ...], kind: type[Exception], message: str
) -> None:
    """The constructor says what is needed and what was given."""
    with pytest.raises(kind, match=message):
        BranchingSingleMachine(*arguments)


def test_the_seeds_figure_for_200_steps() -> None:
    """With two steps a phase, +-0.05 and value |h|: from 1.0 under 0.1 in 200 steps."""

    def jump(meta: float, direction: str, cycle: int) -> float:
        return meta + 0.05 * step_aside(0.0, direction, cycle)

    with Run(lambda: BranchingSingleMachine(jump, 2, 2), [1.0]) as run:
        for _ in range(200):
            run.advance(0, abs(run.newest(0).meta_params))
        assert abs(run.metas()[0]) < 0.1
