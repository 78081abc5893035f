"""FixedSchedule: which entry applies when, restarts, several slots, divergence."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import pytest

from population import PopulationController, Schedule, Start
from population.mutators import FixedSchedule, WinnerTakeAllGenetic
from tests.mutators.helpers import Run, halve, name

ENTRIES = {0: "a", 3: "b", 6: "c"}


def by_entries() -> FixedSchedule:
    """Three entries, at the steps 0, 3 and 6."""
    return FixedSchedule(ENTRIES)


def followed(run: Run, steps: int, worker_id: int = 0) -> list[Any]:
    """The meta_params in force after each of several reports."""
    metas = []
    for _ in range(steps):
        run.advance(worker_id, 1.0)
        metas.append(run.metas()[worker_id])
    return metas


def test_the_newest_entry_at_or_before_the_step_applies() -> None:
    """An entry is put in force by the first report at or after its step."""
    with Run(by_entries, ["a"]) as run:
        assert followed(run, 8) == list("aabbbccc")
        assert [(root.step, root.meta_params) for root in run.roots()] == [
            (0, "a"),
            (3, "b"),
            (6, "c"),
        ]


def test_it_goes_on_from_the_report_that_reached_the_entry() -> None:
    """Nothing is trained twice: the new generation begins at exactly this report."""
    with Run(by_entries, ["a"]) as run:
        run.report(0, 4, 1.0, "at 4")
        work = run.work(0)
        assert (work.params, work.meta_params, work.step) == ("at 4", "b", 4)
        assert name(run.roots()[-1].parent) == (0, 0, 4)


def test_a_report_that_jumps_over_an_entry_gets_the_newest() -> None:
    """A worker that reports rarely skips the entries in between."""
    with Run(by_entries, ["a"]) as run:
        run.report(0, 100, 1.0)
        assert run.metas() == ["c"]
        assert len(run.roots()) == 2


def test_entries_come_in_any_order() -> None:
    """The steps decide, not the order in which the dict was written."""
    with Run(lambda: FixedSchedule({6: "c", 0: "a", 3: "b"}), ["a"]) as run:
        assert followed(run, 7) == list("aabbbcc")


def test_before_the_first_entry_nothing_changes() -> None:
    """The worker keeps its first hyperparameters until an entry changes them."""
    with Run(lambda: FixedSchedule({4: "late"}), ["own"]) as run:
        assert followed(run, 4) == ["own", "own", "own", "late"]


def test_an_equal_entry_makes_no_branch() -> None:
    """There is a branch only if the entry differs from what is in force."""
    schedule = {0: {"lr": 1.0, "n": 2}, 2: {"n": 2, "lr": 1.0}, 4: {"lr": 0.5, "n": 2}}
    with Run(lambda: FixedSchedule(schedule), [{"lr": 1.0, "n": 2}]) as run:
        for step in range(1, 6):
            run.report(0, step, 1.0)
        assert [root.step for root in run.roots()] == [0, 4]


def test_a_function_of_the_step_is_a_schedule() -> None:
    """It is asked at each report; a branch is made when its answer changes."""
    with Run(lambda: FixedSchedule(lambda step: step // 3), [0]) as run:
        assert followed(run, 7) == [0, 0, 1, 1, 1, 2, 2]
        assert [root.step for root in run.roots()] == [0, 3, 6]


def test_none_from_a_function_means_no_change() -> None:
    """A function may leave steps out."""

    def sometimes(step: int) -> str | None:
        return "here" if step == 2 else None

    with Run(lambda: FixedSchedule(sometimes), ["own"]) as run:
        assert followed(run, 4) == ["own", "here", "here", "here"]


def test_the_schedule_of_a_run_can_be_trained_again() -> None:
    """`controller.schedule(checkpoint)` of another run is an argument like a dict."""
    with Run(lambda: WinnerTakeAllGenetic(halve, 2), [1.0]) as searched:
        for _ in range(7):
            searched.advance(0, 1.0)
        best = searched.controller.schedule(searched.newest(0))
    assert isinstance(best, Schedule)
    with Run(lambda: FixedSchedule(best), [best.at(0)]) as run:
        assert followed(run, 7) == [1.0, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]


def test_a_restart_does_not_replay_the_schedule(tmp_path: pathlib.Path) -> None:
    """After a restart the same meta_params are in force as before."""
    with Run(by_entries, ["a"], tmp_path) as run:
        followed(run, 4)
        run.restart()
        assert run.metas() == ["b"]
        run.restart()
        assert followed(run, 1) == ["b"]
        run.restart()
        assert followed(run, 2) == ["c", "c"]
        assert [root.meta_params for root in run.roots()] == ["a", "b", "c"]


def test_every_slot_follows_by_its_own_steps() -> None:
    """All slots are treated alike, from the start on, each when it reaches the step."""
    with Run(by_entries, ["a", "x", Start("a", step=5)]) as run:
        assert run.metas() == ["a", "a", "b"]
        run.report(0, 3, 1.0)
        assert run.metas() == ["b", "a", "b"]
        run.report(1, 1, 1.0)
        assert run.metas() == ["b", "a", "b"]
        run.report(2, 6, 1.0)
        assert run.metas() == ["b", "a", "c"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_member_goes_on_as_it_is(bad: float) -> None:
    """This policy never resets a slot, and no step is lost if the value recovers."""
    with Run(by_entries, ["a"]) as run:
        for step in (2, 3, 4):
            run.report(0, step, bad)
        assert run.newest(0).step == 4
        assert len(run.roots()) == 1
        run.report(0, 5, 1.0)
        assert (run.newest(0).step, run.metas()) == (5, ["b"])


def test_a_report_without_a_value_still_moves_the_schedule() -> None:
    """Steps count, not values."""
    with Run(by_entries, ["a"]) as run:
        run.report(0, 3, None)
        assert run.metas() == ["b"]


def test_an_older_step_does_not_turn_the_schedule_back() -> None:
    """After reports out of order the slot's newest step decides."""
    with Run(by_entries, ["a"]) as run:
        run.report(0, 2, 1.0)
        run.report(0, 1, 1.0)
        run.report(0, 6, 1.0)
        run.report(0, 4, 1.0, generation_id=run.roots()[0].generation_id)
        assert run.metas() == ["c"]
        assert len(run.roots()) == 2


@pytest.mark.parametrize("every", [5, 100])
def test_saving_seldom_does_not_send_a_worker_in_circles(every: int) -> None:
    """Reporting each step and saving each fifth, or never, the run comes to its end.

    A branch continues from the last saved step, which may be before the entry.
    """
    with Run(by_entries, ["a"]) as run:
        worker = run.controller.worker(0)
        steps = 0
        while worker.step < 12 and steps < 100:
            worker.poll()
            worker.step += 1
            steps += 1
            saved = f"at {worker.step}" if worker.step % every == 0 else None
            worker.report(1.0, saved)
        assert worker.step == 12
        assert steps <= 24
        assert len(run.roots()) <= 4


def test_a_saved_checkpoint_after_the_entry_puts_it_in_force() -> None:
    """If weights are saved rarely, the entry takes effect at the next save."""
    with Run(lambda: FixedSchedule({0: "a", 3: "b"}), ["a"]) as run:
        generation_id = run.work(0).generation_id
        for step in range(1, 6):
            saved = f"at {step}" if step in (1, 5) else None
            run.report(0, step, 1.0, saved, generation_id)
        work = run.work(0)
        assert (work.meta_params, work.step, work.params) == ("b", 5, "at 5")


def test_a_schedule_is_copied() -> None:
    """A change of the dict after it was passed changes no run."""
    entries: dict[int, Any] = dict(ENTRIES)
    mutator = FixedSchedule(entries)
    entries[1] = "z"
    with Run(lambda: mutator, ["a"]) as run:
        assert followed(run, 3) == list("aab")


def test_settings_that_differ_are_a_warning(tmp_path: pathlib.Path) -> None:
    """A run may continue with another schedule, but with a warning."""
    PopulationController(["a"], by_entries(), tmp_path).close()
    with pytest.warns(UserWarning, match="other arguments of its mutator"):
        PopulationController(["a"], FixedSchedule({0: "z"}), tmp_path).close()


@pytest.mark.parametrize(
    ("schedule", "kind", "message"),
    [
        ({}, ValueError, "at least one entry"),
        (Schedule({}), ValueError, "at least one entry"),
        ({-1: "a"}, ValueError, "ints of 0 or more.* -1"),
        ({1.5: "a"}, ValueError, "ints of 0 or more.* 1.5"),
        ({True: "a"}, ValueError, "ints of 0 or more.* True"),
        ({"3": "a"}, ValueError, "ints of 0 or more.* '3'"),
        ([(0, "a")], TypeError, "schedule must be .* got list"),
        (None, TypeError, "schedule must be .* got NoneType"),
        (0.1, TypeError, "schedule must be .* got float"),
    ],
)
def test_what_is_no_schedule_is_refused(
    schedule: Any, kind: type[Exception], message: str
) -> None:
    """The constructor says what is needed and what was given."""
    with pytest.raises(kind, match=message):
        FixedSchedule(schedule)
