"""Tables and pictures: what they show is what happened."""

from __future__ import annotations

import io
import pathlib

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.console import Console

from population import Branch, Mutator, PopulationController, PopulationView, Report
from population.report import hyperparameters, plots, table
from population.space import LogUniform, OneMinusLogUniform, Uniform
from tests.helpers import Scripted


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


def test_many_hyperparameters_stand_below_each_other() -> None:
    """With ten of them each worker has a column: a row would not fit a terminal."""
    metas = [{f"h{i}": i / 8 for i in range(10)} | {"beta2": 0.9999}] * 3
    stream = io.StringIO()
    console = Console(file=stream, width=80)
    table.print_workers(PopulationController(metas, Scripted()), console=console)
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in stream.getvalue().splitlines()
        if line.startswith("│")
    ]
    assert ["steps", "0", "0", "0"] in rows
    assert ["h9", "1.125", "1.125", "1.125"] in rows
    assert ["beta2", "0.9999", "0.9999", "0.9999"] in rows


def test_the_table_has_a_row_for_each_worker(run: PopulationController) -> None:
    """Steps, the last value, further columns, hyperparameters, branches, divergence."""
    stream = io.StringIO()
    console = Console(file=stream, width=120)
    table.print_workers(run, {"accuracy": [0.25, 0.75]}, value="loss", console=console)
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in stream.getvalue().splitlines()
        if line.startswith("│")
    ]
    assert rows[0] == ["0", "4", "nan", "0.2500", "0.3", "1", "1"]
    assert rows[1] == ["1", "2", "1.0000", "0.7500", "0.2", "0", "0"]


def test_divergence_is_a_column_only_where_it_happened() -> None:
    """A run that went well is shown as before."""
    stream = io.StringIO()
    well = PopulationController([{"h": 0.1}], CopyWorker1())
    table.print_workers(well, console=Console(file=stream, width=120))
    assert "diverged" not in stream.getvalue()


def test_hyperparameters_are_read_in_any_form() -> None:
    """Nested ones have a path, plain ones a name of their own, words are no numbers."""
    meta = {"a": {"b": 1.5}, "c": [2, True], "d": "adam"}
    assert hyperparameters.numbers(meta) == {"a/b": 1.5, "c/0": 2.0, "c/1": 1.0}
    assert hyperparameters.numbers(0.1) == {"meta_params": 0.1}
    assert hyperparameters.one_line(meta) == "a/b 1.5  c/0 2  c/1 True  d adam"
