"""The metrics of all slots, `view.metric`: what they are, and what they cost.

`tests/journey.py` compares them with a walk over the graph in random runs.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import population
from population import Branch, Mutator, PopulationController, PopulationView, Report
from population.core.newest_metrics import NewestMetrics
from tests import probe
from tests.helpers import Decide, Scripted, generation

NONE = math.nan


def run(
    size: int = 3, folder: pathlib.Path | None = None, decide: Decide | None = None
) -> PopulationController:
    """A run whose policy decides as a function does."""
    return PopulationController([{"h": 0}] * size, Scripted(decide), folder)


def report(
    controller: PopulationController,
    worker_id: int,
    step: int,
    metrics: Any,
    value: float | None = 1.0,
) -> None:
    """Report a value with metrics."""
    present = generation(controller, worker_id)
    controller.set_eval(worker_id, present, step, "p", value, metrics)


def check(controller: PopulationController, name: str, expected: list[float]) -> None:
    """The metrics are as expected, NaN where NaN is expected."""
    found = probe.view(controller).metric(name)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)


def test_they_are_those_of_the_newest_report_with_a_value() -> None:
    """So they belong to `view.scores`; what was reported without a value is not."""
    controller = run()
    check(controller, "loss", [NONE] * 3)
    report(controller, 0, 1, {"loss": 1})
    report(controller, 1, 1, {"loss": 2.5, "other": 7})
    check(controller, "loss", [1, 2.5, NONE])
    check(controller, "other", [NONE, 7, NONE])
    report(controller, 0, 2, {"loss": 3}, None)
    check(controller, "loss", [1, 2.5, NONE])
    report(controller, 0, 3, {"loss": -math.inf}, math.nan)
    report(controller, 1, 2, None)
    check(controller, "loss", [-math.inf, NONE, NONE])


def test_a_nested_one_is_named_by_its_path() -> None:
    """`a/b` is the entry b of a, or a key of that name; lists count from 0."""
    controller = run(4)
    report(controller, 0, 1, {"a": {"b": 1}})
    report(controller, 1, 1, {"a/b": 2})
    report(controller, 2, 1, {"a": [{"b": 3}, {"c/d": 4}]})
    check(controller, "a/b", [1, 2, NONE, NONE])
    check(controller, "a/0/b", [NONE, NONE, 3, NONE])
    check(controller, "a/1/c/d", [NONE, NONE, 4, NONE])
    check(controller, "a", [NONE] * 4)


@pytest.mark.parametrize(
    ("leaf", "expected"),
    [("text", NONE), (True, NONE), (None, NONE), (10**400, math.inf), (NONE, NONE)],
)
def test_what_is_no_number_is_missing(leaf: Any, expected: float) -> None:
    """As in the columns of a recorded run."""
    controller = run(1)
    report(controller, 0, 1, {"x": leaf})
    check(controller, "x", [expected])


def test_a_copy_has_those_of_its_donor_until_it_reports() -> None:
    """As in `view.scores`; a slot with fresh weights has none."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        if report.checkpoint.step != 2:
            return {}
        return {1: Branch(report.checkpoint, {"h": 1}), 2: Branch(None, {"h": 2})}

    controller = run(decide=decide)
    report(controller, 2, 1, {"loss": 9})
    report(controller, 0, 1, {"loss": 5})
    check(controller, "loss", [5, NONE, 9])
    report(controller, 0, 2, {"loss": 6})
    check(controller, "loss", [6, 6, NONE])
    report(controller, 1, 3, {"loss": 7})
    check(controller, "loss", [6, 7, NONE])


def test_metrics_that_come_late_are_there(tmp_path: pathlib.Path) -> None:
    """For the slot and for its copies, and after the run was opened again."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        return {1: Branch(report.checkpoint, {"h": 1})}

    controller = run(2, tmp_path, decide)
    first = generation(controller)
    report(controller, 0, 1, None)
    check(controller, "loss", [NONE, NONE])
    controller.set_eval(0, first, 1, None, None, {"loss": 4})
    check(controller, "loss", [4, 4])
    controller.close()
    controller = run(2, tmp_path, decide)
    check(controller, "loss", [4, 4])
    controller.close()


class ByNorm(Mutator[int]):
    """Copies the slot with the smallest norm, and notes what it has seen."""

    def __init__(self) -> None:
        self.seen: list[list[float]] = []

    def init(self, view: PopulationView) -> int:
        """Begin to count."""
        return 0

    def update(
        self, state: int, report: Report, view: PopulationView
    ) -> tuple[int, Mapping[int, Branch]]:
        """Each third time the slot that reports copies the smallest one."""
        norms = view.metric("net/norm")
        self.seen.append(norms.tolist())
        if state % 3 != 2 or np.isnan(norms).all():
            return state + 1, {}
        best = int(np.nanargmin(norms))
        branch = Branch(view.newest(best), {"h": state}, f"norm {norms[best]:.3g}")
        return state + 1, {report.worker_id: branch}


def test_a_replay_sees_the_same_metrics(tmp_path: pathlib.Path) -> None:
    """So a policy that decides by metrics can be replayed."""
    live = ByNorm()
    controller = PopulationController([{"h": -1}] * 3, live, tmp_path / "run")
    for number in range(30):
        worker_id = number % 3
        step = controller.workers[worker_id].step + 1
        norm = {"net": {"norm": (7 * number) % 11}} if number % 4 else None
        report(controller, worker_id, step, norm)
    controller.close()
    again = ByNorm()
    found = population.replay(tmp_path / "run", again)
    np.testing.assert_array_equal(again.seen, live.seen)
    assert found.first_difference is None
    assert any(decision.derived for decision in found.decisions)


def test_a_repeated_question_looks_only_at_what_is_new() -> None:
    """Else a report would cost more in a larger population."""

    class Counted(dict[str, Any]):
        def items(self) -> Any:
            looked.append(self["loss"])
            return super().items()

    looked: list[Any] = []
    trees = [Counted(loss=worker_id) for worker_id in range(3)]
    metrics = NewestMetrics(trees)
    assert metrics.column("loss").tolist() == [0, 1, 2]
    assert sorted(looked) == [0, 1, 2]
    looked.clear()
    trees[1] = Counted(loss=5)
    metrics.note(1)
    assert metrics.column("loss").tolist() == [0, 5, 2]
    assert metrics.column("loss").tolist() == [0, 5, 2]
    assert looked == [5]


@pytest.mark.parametrize("name", [None, 3, ("a", "b")])
def test_a_name_is_a_str(name: Any) -> None:
    """The error shows one."""
    with pytest.raises(TypeError, match=r"needs the name of one of the metrics.*got"):
        probe.view(run()).metric(name)
