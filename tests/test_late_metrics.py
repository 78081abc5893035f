"""Metrics of a checkpoint are added once, whenever and from wherever they come."""

from __future__ import annotations

import contextlib
import math
import pathlib
import sqlite3
from typing import Any

import pytest

import population
from population import PopulationController
from population.testing.perturb import perturb
from tests.helpers import Scripted, generation
from tests.mutators.factories import FACTORIES

COST = {"cost": 3}


def opened(log_dir: pathlib.Path | None = None) -> PopulationController:
    """A run of two slots whose mutator never branches."""
    return PopulationController([1.0, 2.0], Scripted(), log_dir)


def check_seen(controller: PopulationController, step: int, expected: Any) -> None:
    """Everything that shows a checkpoint of slot 0 shows the metrics."""
    name = generation(controller)
    shown = [c.metrics for c in controller.history() if c.ref == (name, step)]
    assert shown == [expected]
    assert controller.graph[name][step].metrics == expected
    newest = controller.newest(0)
    assert newest.step > step or newest.metrics == expected
    assert controller.lineage(newest)[step].metrics == expected


@pytest.mark.parametrize(
    "order",
    [
        [(1.0, None), (None, COST)],
        [(1.0, None), (1.0, COST)],
        [(None, COST), (1.0, None)],
        [(None, COST), (1.0, {"another": 1})],
        [(1.0, COST), (1.0, None)],
        [(None, None), (None, COST), (1.0, None)],
        [(None, None), (1.0, None), (None, COST)],
        [(1.0, COST), (None, {"another": 1}), (1.0, {"cost": 4})],
        [(1.0, None), (None, COST), (None, {"another": 1})],
    ],
)
@pytest.mark.parametrize("sender", [0, 1])
def test_the_first_metrics_stay_whatever_comes_first(
    order: list[tuple[float | None, Any]], sender: int
) -> None:
    """They may come before, with or after the value, and from an evaluator's slot."""
    controller = opened()
    name = generation(controller)
    controller.set_eval(0, name, 1, "p", None)
    for value, metrics in order:
        controller.set_eval(sender, name, 1, None, value, metrics)
    check_seen(controller, 1, COST)
    found = controller.graph[name][1]
    assert (found.value, found.params) == (1.0, "p")
    assert len(controller.graph[name]) == 2


@pytest.mark.parametrize("value", [2.0, math.nan, math.inf])
def test_a_report_with_another_value_adds_no_metrics(value: float) -> None:
    """It is of something else, and is ignored as a whole."""
    controller = opened()
    name = generation(controller)
    controller.set_eval(0, name, 1, None, 1.0)
    controller.set_eval(0, name, 1, None, value, COST)
    check_seen(controller, 1, None)
    assert controller.newest(0).value == 1.0


def test_metrics_of_a_divergence_are_added() -> None:
    """NaN is the same value as NaN."""
    controller = opened()
    name = generation(controller)
    controller.set_eval(0, name, 1, None, math.nan)
    controller.set_eval(0, name, 1, None, math.nan, COST)
    check_seen(controller, 1, COST)


def test_metrics_in_one_batch_are_those_of_their_checkpoints() -> None:
    """The first of a batch stay, too."""
    controller = opened()
    name, other = generation(controller), generation(controller, 1)
    controller.set_evals([(0, name, 1, None, 1.0), (1, other, 1, None, 2.0)])
    controller.set_evals(
        [
            (1, other, 1, None, None, {"of": 1}),
            (0, name, 1, None, None, {"of": 0}),
            (0, name, 1, None, None, {"of": 2}),
            (0, name, 2, None, 0.5, {"of": 3}),
        ]
    )
    check_seen(controller, 1, {"of": 0})
    check_seen(controller, 2, {"of": 3})
    assert controller.newest(1).metrics == {"of": 1}


def test_metrics_of_older_and_of_superseded_checkpoints_are_added() -> None:
    """They need not be of the slot's newest one, nor of its present generation."""
    controller = opened()
    name = generation(controller)
    for step in (1, 2, 3):
        controller.set_eval(0, name, step, f"at {step}", float(step))
    controller.set_eval(0, name, 2, None, None, COST)
    check_seen(controller, 2, COST)
    controller.worker(0).reject("a bad sector")
    assert generation(controller) != name
    controller.set_eval(0, name, 3, None, None, {"late": 1})
    assert controller.graph[name][3].metrics == {"late": 1}
    controller.set_eval(0, name, 4, None, 4.0)  # A side branch.
    controller.set_eval(1, name, 4, None, None, {"side": 1})
    assert controller.graph[name][4].metrics == {"side": 1}


def test_metrics_alone_are_no_news_for_a_mutator() -> None:
    """It is asked about values, and about params that let a decision be made."""
    asked = []

    def note(report: population.Report, view: Any) -> dict[int, population.Branch]:
        asked.append((report.checkpoint.ref, report.checkpoint.metrics))
        return {}

    controller = PopulationController([1.0, 2.0], Scripted(note))
    name = generation(controller)
    controller.set_eval(0, name, 1, "p", 1.0)
    controller.set_eval(0, name, 1, None, None, COST)
    controller.set_eval(1, name, 1, None, 1.0, COST)
    controller.set_evals([(0, name, 1, None, 1.0, COST)])
    assert asked == [((name, 1), None)]
    controller.set_eval(0, name, 2, None, 2.0)
    assert asked[1:] == [((name, 2), None)]


def test_another_process_sees_late_metrics_at_once(tmp_path: pathlib.Path) -> None:
    """So does one that opens the run later, and a reader without the library."""
    first, second = opened(tmp_path), opened(tmp_path)
    name = generation(first)
    first.set_eval(0, name, 1, None, 1.0)
    check_seen(second, 1, None)
    second.set_eval(0, name, 1, None, None, COST)
    check_seen(first, 1, COST)
    check_seen(second, 1, COST)
    first.set_eval(0, name, 1, None, None, {"another": 1})
    second.set_eval(0, name, 2, None, 2.0)
    check_seen(first, 1, COST)
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite")) as connection:
        rows = connection.execute("SELECT metrics FROM history WHERE step = 1")
        assert rows.fetchall() == [('{"cost":3}',)]
    first.close()
    second.close()
    again = opened(tmp_path)
    check_seen(again, 1, COST)
    again.close()


@pytest.mark.parametrize("name", sorted(FACTORIES))
def test_a_replay_and_a_fork_know_late_metrics(
    name: str, tmp_path: pathlib.Path
) -> None:
    """No decision differs because of them, and the copy has them."""
    make, size = FACTORIES[name][0]
    starts = [{"h": float(i + 1), "n": 3} for i in range(size)]
    controller = PopulationController(starts, make(perturb), tmp_path / "run")
    for step in range(1, 9):
        for worker_id in range(size):
            at = controller.workers[worker_id]
            report = worker_id, at.generation_id, at.step + 1, f"at {step}"
            controller.set_eval(*report, float(step * (worker_id + 3) % 7))
            late = worker_id, *report[1:3], None, None, {"step": step}
            controller.set_eval(*late)
    found = population.replay(controller, make(perturb))
    assert found.first_difference is None, str(found)
    new = population.fork(controller, tmp_path / "new", mutator=make(perturb))
    assert [c.metrics for c in new.history()] == [
        c.metrics for c in controller.history()
    ]
    assert sum(c.metrics is not None for c in new.history()) == 8 * size
    new.close()
    controller.close()
