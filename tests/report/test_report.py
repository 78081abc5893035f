"""Pictures, and hyperparameters as text: what they show is what happened."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from population import Branch, Mutator, PopulationController, PopulationView, Report
from population.report import hyperparameters, plots
from population.space import LogUniform, OneMinusLogUniform, Uniform
from tests.helpers import Scripted, branch_at, reporter


def points(line: Line2D) -> list[tuple[float, float]]:
    """The points of a line."""
    pairs = np.asarray(line.get_xydata(), float)
    return [(float(x), float(y)) for x, y in pairs]


class CopyWorker1(Mutator[None]):
    """At step 2 worker 0 goes on from worker 1."""

    def init(self, view: PopulationView) -> None:
        """Nothing to remember."""

    def update(
        self, state: None, report: Report, view: PopulationView
    ) -> tuple[None, dict[int, Branch]]:
        """Branch once."""
        if report.worker_id == 0 and report.checkpoint.step == 2:
            return None, {0: Branch(view.newest(1), {"opt": {"lr": 0.3}}, "copied")}
        return None, {}


@pytest.fixture
def run() -> PopulationController:
    """Two workers, two reports each, a branch, and a report with NaN after it."""
    controller = PopulationController(
        [{"opt": {"lr": 0.1}}, {"opt": {"lr": 0.2}}], CopyWorker1()
    )
    ids = [worker.generation_id for worker in controller.workers]
    for step, values in ((1, (4.0, 3.0)), (2, (2.0, 1.0))):
        for worker_id in (1, 0):
            value = values[worker_id]
            controller.set_eval(worker_id, ids[worker_id], step, "path", value)
    new = controller.workers[0].generation_id
    controller.set_eval(0, new, 3, "path", 0.5)
    controller.set_eval(0, new, 4, "path", float("nan"))
    return controller


def test_a_lineage_keeps_its_founder(run: PopulationController) -> None:
    """The curve of a copied worker has the colour of its donor's lineage."""
    lines = plots.generations(run)
    assert [(line.worker_id, line.founder) for line in lines] == [
        (0, 0),
        (1, 1),
        (0, 1),
    ]
    assert lines[2].origin is not None
    assert lines[2].origin.ref == lines[1].points[-1].ref


def test_curves_show_each_value_and_leave_out_divergence(
    run: PopulationController,
) -> None:
    """A line has the reported points, from where it branched off; NaN is no point."""
    axes = Figure().subplots()
    plots.learning_curves(axes, plots.generations(run), "loss")
    data = [points(line) for line in axes.get_lines()]
    assert data == [[(1, 4.0), (2, 2.0)], [(1, 3.0), (2, 1.0)], [(2, 1.0), (3, 0.5)]]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "began as worker 0",
        "began as worker 1",
    ]


def test_schedules_mark_branches(run: PopulationController) -> None:
    """The hyperparameter of each worker over steps, with a dot at each branch."""
    axes = Figure().subplots()
    plots.schedules(axes, plots.generations(run), "opt/lr", scale="log")
    dots = [points(line) for line in axes.get_lines() if line.get_marker() == "o"]
    assert dots == [[(2, 0.3)], []]
    assert axes.get_yscale() == "log"


def marks(axes: Axes, marker: str) -> list[list[tuple[float, float]]]:
    """The points of each line with this marker, without those of the legend."""
    drawn = [line for line in axes.get_lines() if line.get_marker() == marker]
    return [points(line) for line in drawn if points(line)]


def schedule_of(run: PopulationController) -> Axes:
    """The drawn schedules of `lr`."""
    axes = Figure().subplots()
    plots.schedules(axes, plots.generations(run), "lr")
    return axes


def test_a_restart_is_marked_as_nothing() -> None:
    """After a failure the same hyperparameters go on: that is no branch."""
    run = PopulationController([{"lr": 0.1}], Scripted(branch_at(2, {"lr": 0.2})))
    report = reporter(run)
    report(1.0)
    run.fail(0, "a pity")
    report(1.0)
    report(1.0)
    assert marks(schedule_of(run), "o") == [[(2, 0.2)]]


def test_a_branch_that_was_restarted_before_training_keeps_its_dot() -> None:
    """Also if it has changed only the weights."""
    run = PopulationController([{"lr": 0.1}], Scripted(branch_at(1, {"lr": 0.1})))
    report = reporter(run)
    report(1.0)
    run.fail(0, "a pity")
    report(1.0)
    assert marks(schedule_of(run), "o") == [[(1, 0.1)]]


def test_hyperparameters_that_nobody_has_trained_with_are_not_drawn() -> None:
    """A branch at the end is a decision, but neither a line nor a dot."""
    run = PopulationController([{"lr": 0.1}], Scripted(branch_at(2, {"lr": 0.9})))
    report = reporter(run)
    report(1.0)
    report(1.0)
    assert run.workers[0].meta_params == {"lr": 0.9}
    (line,) = plots.generations(run)
    assert line.points[-1] == run.newest(0)
    axes = schedule_of(run)
    assert marks(axes, "o") == []
    assert {y for line in axes.get_lines() for _, y in points(line)} == {0.1}


def test_a_curve_begins_where_its_weights_were_reported() -> None:
    """A branch from a branch that was never trained copies what that one has copied."""

    def decide(report: Report, view: PopulationView) -> dict[int, Branch]:
        if (report.worker_id, report.checkpoint.step) != (0, 2):
            return {}
        return {w: Branch(view.newest(w - 1 if w else 0), {"lr": 0.9}) for w in (0, 1)}

    run = PopulationController([{"lr": 0.1}, {"lr": 0.2}], Scripted(decide))
    reporter(run, 0)(3.0)
    reporter(run, 0)(2.0)
    reporter(run, 1)(1.0)
    *_, last = plots.generations(run)
    assert (last.worker_id, last.founder) == (1, 0)
    assert last.origin == run.newest(0)
    axes = Figure().subplots()
    plots.learning_curves(axes, plots.generations(run), "loss")
    assert [points(line) for line in axes.get_lines()][-1] == [(2, 2.0), (3, 1.0)]


def test_a_retired_slot_ends_with_a_mark() -> None:
    """In the curves and the schedules, and only there; the legend explains it."""
    run = PopulationController([{"lr": 0.1}, {"lr": 0.2}], Scripted(), max_failures=1)
    for worker_id in (0, 1):
        reporter(run, worker_id)(3.0)
        reporter(run, worker_id)(2.0)
    curves = Figure().subplots()
    plots.learning_curves(curves, plots.generations(run), "loss")
    assert marks(curves, "x") == marks(schedule_of(run), "x") == []
    run.fail(1, "a pity")
    curves = Figure().subplots()
    plots.learning_curves(curves, plots.generations(run), "loss")
    assert marks(curves, "x") == [[(2, 2.0)]]
    axes = schedule_of(run)
    assert marks(axes, "x") == [[(2, 0.2)]]
    for legend in (curves.get_legend(), axes.get_legend()):
        assert legend is not None
        assert "retired" in [text.get_text() for text in legend.get_texts()]


def test_pictures_are_written(
    run: PopulationController, tmp_path: pathlib.Path
) -> None:
    """There is a PNG for the curves and one for each numeric hyperparameter."""
    files = plots.save(run, tmp_path / "new" / "plots", log=["opt/lr"])
    assert [file.name for file in files] == ["learning_curves.png", "opt_lr.png"]
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG")


def test_the_recorded_space_says_which_axes_are_logarithmic(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No caller has to name them: a run that was made from a space knows them."""
    space = {"opt": {"lr": LogUniform(1e-3, 1), "b": Uniform(0, 1)}}
    run = PopulationController.from_space(
        space | {"beta": OneMinusLogUniform(0.5, 0.999)}, 2, Scripted()
    )
    drawn: dict[str, str] = {}

    def remember(axes: Axes, lines: object, name: str, scale: str) -> None:
        drawn[name] = scale

    monkeypatch.setattr(plots, "schedules", remember)
    plots.save(run, tmp_path)
    assert drawn == {"opt/lr": "log", "opt/b": "linear", "beta": plots.NEAR_ONE}
    plots.save(run, tmp_path, log=["opt/b"])
    assert drawn == {"opt/lr": "linear", "opt/b": "log", "beta": "linear"}


def test_near_one_the_axis_is_spread() -> None:
    """0.9 and 0.99 are as far from each other as 0.99 and 0.999."""
    population = [{"beta": beta} for beta in (0.9, 0.99, 0.999)]
    run = PopulationController(population, Scripted())
    axes = Figure().subplots()
    plots.schedules(axes, plots.generations(run), "beta", scale=plots.NEAR_ONE)
    places = axes.transData.transform([(0, 0.9), (0, 0.99), (0, 0.999)])[:, 1]
    assert np.allclose(np.diff(places, 2), 0, atol=1e-6)
    assert {0.9, 0.99, 0.999} <= set(np.round(axes.get_yticks(), 7).tolist())


def test_hyperparameters_are_read_in_any_form() -> None:
    """Nested ones have a path, plain ones a name of their own, words are no numbers."""
    meta = {"a": {"b": 1.5}, "c": [2, True], "d": "adam"}
    assert hyperparameters.numbers(meta) == {"a/b": 1.5, "c/0": 2.0, "c/1": 1.0}
    assert hyperparameters.numbers(0.1) == {"meta_params": 0.1}
    assert hyperparameters.one_line(meta) == "a/b 1.5  c/0 2  c/1 True  d adam"


def test_floats_have_three_significant_digits() -> None:
    """One that would read 1, as a momentum may, has three of its distance to 1."""
    assert [hyperparameters.short(x) for x in (0.123456, 1234.5, 1.0, 2e-7)] == [
        "0.123",
        "1.23e+03",
        "1",
        "2e-07",
    ]
    assert [hyperparameters.short(x) for x in (0.9994, 0.99954, 0.9998768)] == [
        "0.999",
        "0.99954",
        "0.999877",
    ]
    assert hyperparameters.short(np.float32(0.98765)) == "0.988"
    assert [hyperparameters.short(x) for x in (12345, True, "a\nb", None)] == [
        "12345",
        "True",
        "a b",
        "None",
    ]
    assert hyperparameters.short(float("nan")) == "nan"
    assert hyperparameters.short("weights-\udcff").encode().startswith(b"weights-")
