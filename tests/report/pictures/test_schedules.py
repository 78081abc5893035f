"""Hyperparameters over steps: of every member, and all of the winner."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from population import PopulationController
from population.report.pictures import canvas, hyperparameter, winner
from tests.helpers import Scripted, branch_at, reporter
from tests.report.pictures.runs import (
    all_axes,
    copied,
    drawn,
    large,
    marks,
    of_space,
    of_values,
    points,
    segments,
    tick_texts,
    words,
)


def heights(axes: Axes) -> set[float]:
    """The values at which there is a line."""
    return {round(y, 9) for line in segments(axes) for _, y in line}


def test_each_generation_is_a_line_and_a_branch_is_a_dot() -> None:
    """From its first to its last step; a thin one leads there from the last."""
    axes = hyperparameter(copied(), "opt/lr", scale="log")
    found = segments(axes)
    assert [(0, 0.1), (2, 0.1)] in found
    assert [(0, 0.2), (2, 0.2)] in found
    assert [(2, 0.3), (4, 0.3)] in found
    assert [(2, 0.1), (2, 0.3)] in found
    assert marks(axes, "o") == [[(2, 0.3)]]
    assert axes.get_yscale() == "log"


def test_what_the_best_was_trained_with_is_a_band() -> None:
    """It is that of its lineage: before the branch, that of the donor."""
    axes = hyperparameter(copied(), "opt/lr")
    (band,) = [line for line in axes.get_lines() if line.get_linewidth() == 7]
    assert points(band) == [(0, 0.2), (2, 0.2), (2, 0.3), (3, 0.3)]


def test_a_restart_is_marked_as_nothing() -> None:
    """After a failure the same hyperparameters go on: that is no branch."""
    run = PopulationController([{"lr": 0.1}], Scripted(branch_at(2, {"lr": 0.2})))
    report = reporter(run)
    report(1.0)
    run.fail(0, "a pity")
    report(1.0)
    report(1.0)
    assert marks(hyperparameter(run.history(), "lr"), "o") == [[(2, 0.2)]]


def test_a_branch_that_was_restarted_before_training_keeps_its_dot() -> None:
    """Also if it has changed only the weights."""
    run = PopulationController([{"lr": 0.1}], Scripted(branch_at(1, {"lr": 0.1})))
    report = reporter(run)
    report(1.0)
    run.fail(0, "a pity")
    report(1.0)
    assert marks(hyperparameter(run.history(), "lr"), "o") == [[(1, 0.1)]]


def test_hyperparameters_that_nobody_has_trained_with_are_not_drawn() -> None:
    """A branch at the end is a decision, but neither a line nor a dot."""
    run = PopulationController([{"lr": 0.1}], Scripted(branch_at(2, {"lr": 0.9})))
    report = reporter(run)
    report(1.0)
    report(1.0)
    axes = hyperparameter(run.history(), "lr")
    assert marks(axes, "o") == []
    assert heights(axes) == {0.1}


def test_a_retired_member_ends_with_a_cross() -> None:
    """Where it was trained last; the line below the title explains it."""
    run = PopulationController([{"lr": 0.1}, {"lr": 0.2}], Scripted(), max_failures=1)
    for worker_id in (0, 1):
        reporter(run, worker_id)(3.0)
    assert marks(hyperparameter(run.history(), "lr"), "x") == []
    run.fail(1, "a pity")
    axes = hyperparameter(run.history(), "lr")
    assert marks(axes, "x") == [[(1, 0.2)]]
    assert any("retired" in text for text in words(axes))


@pytest.mark.parametrize(
    ("name", "scale"),
    [("opt/lr", "log"), ("opt/beta", "function"), ("b", "linear"), ("kind", "linear")],
)
def test_the_recorded_space_says_which_axis_it_is(name: str, scale: str) -> None:
    """No caller has to: a run that was made from a space knows it."""
    axes = hyperparameter(of_space(4, 1), name)
    assert axes.get_yscale() == scale
    drawn(axes)
    assert len(tick_texts(axes.yaxis)) >= 3


def test_near_one_the_axis_is_spread_and_has_three_ticks() -> None:
    """0.9 and 0.99 are as far from each other as 0.99 and 0.999."""
    run = of_values([[1.0]] * 3, [{"beta": beta} for beta in (0.9, 0.99, 0.999)])
    axes = hyperparameter(run, "beta", scale="near one")
    places = axes.transData.transform([(0, 0.9), (0, 0.99), (0, 0.999)])[:, 1]
    assert np.allclose(np.diff(places, 2), 0, atol=1e-6)
    drawn(axes)
    assert tick_texts(axes.yaxis) == ["0.9", "0.99", "0.999"]


@pytest.mark.parametrize("scale", ["linear", "log", "near one"])
def test_a_constant_has_three_ticks(scale: str) -> None:
    """On any scale; a value that a scale does not have is on a linear one."""
    axes = hyperparameter(of_values([[1.0]]), "lr", scale=scale)
    drawn(axes)
    assert len(tick_texts(axes.yaxis)) >= 3
    one = of_values([[1.0]], [{"lr": 1.0}])
    assert hyperparameter(one, "lr", scale="near one").get_yscale() == "linear"


def test_members_of_one_category_lie_beside_each_other() -> None:
    """So that their lines can be told apart; its name is in their middle."""
    run = of_values([[1.0]] * 4, [{"kind": kind} for kind in ("a", "b", "b", "b")])
    axes = hyperparameter(run, "kind")
    assert len(heights(axes)) == 4
    assert all(abs(height - round(height)) < 0.5 for height in heights(axes))
    drawn(axes)
    assert tick_texts(axes.yaxis) == ["a", "b"]


def test_few_members_have_a_colour_and_a_label_each() -> None:
    """Colours that the colour-blind can tell apart, as in its label."""
    metas = [{"lr": 0.1 * k} for k in range(1, 9)]
    axes = hyperparameter(of_values([[1.0]] * 8, metas), "lr")
    labels = [text for text in axes.texts if text.get_text().startswith("member ")]
    assert len(labels) == 8
    colours = {to_hex(text.get_color()).upper() for text in labels}
    assert colours <= set(canvas.COLOURS)


def test_many_members_are_grey_behind_the_best() -> None:
    """A thousand of them are a few artists, without a legend."""
    axes = hyperparameter(large(1000, 30), "lr")
    assert len(axes.get_lines()) + len(axes.collections) < 10
    assert any("the best's" in text for text in words(axes))
    assert axes.get_legend() is None


def test_names_are_shown_as_they_are() -> None:
    """Neither a formula nor HTML; what the font lacks is written as its code."""
    name = "a$_b$<script>/\N{SNOWMAN}\u5b66\n  c"
    axes = hyperparameter(of_values([[1.0]], [{name: 0.5}]), name)
    drawn(axes)
    assert axes.get_ylabel() == r"a\$_b\$<script>/☃\u5b66 c"


def test_a_number_without_a_name_is_a_hyperparameter() -> None:
    """The whole of meta_params may be one."""
    axes = hyperparameter(of_values([[1.0]], [0.5]), "meta_params")
    assert heights(axes) == {0.5}


def test_an_unknown_name_or_scale_is_refused() -> None:
    """The message names those that there are."""
    with pytest.raises(ValueError, match="no hyperparameter 'lr'; it has 'opt/lr'"):
        hyperparameter(copied(), "lr")
    with pytest.raises(ValueError, match="must be among"):
        hyperparameter(copied(), "opt/lr", scale="cubic")


def test_the_winner_has_all_its_hyperparameters_in_one_figure() -> None:
    """Below its curve, on the same steps, with vertical lines at its branches."""
    figure = winner(copied())
    curve, lr = all_axes(figure)
    assert curve.get_xlim() == lr.get_xlim()
    assert (3.0, 0.5) in [point for line in curve.get_lines() for point in points(line)]
    steps = [points(line) for line in lr.get_lines()]
    assert [(0, 0.2), (2, 0.2), (2, 0.3), (3, 0.3)] in steps
    assert [(2, 0.0), (2, 1.0)] in steps
    assert lr.get_title(loc="left") == "opt/lr"
    assert "member 0 at step 3" in curve.get_title(loc="left")


def test_any_checkpoint_can_be_the_winner() -> None:
    """For example that of a `best(window=)`, and a metric can be the curve."""
    run = copied()
    chosen = next(c for c in run if c.worker_id == 0 and c.value == 2.0)
    curve, lr = all_axes(winner(run, checkpoint=chosen, metric="accuracy"))
    assert "member 0 at step 2" in curve.get_title(loc="left")
    assert [(0, 0.1), (2, 0.1)] in [points(line) for line in lr.get_lines()]
    assert curve.get_ylabel() == "accuracy"
    with pytest.raises(ValueError, match="no checkpoint with row"):
        winner(run, checkpoint=chosen._replace(row=12345))


def test_the_winner_of_every_kind_of_space_can_be_read() -> None:
    """Categories by name, others on their scales, each with three ticks."""
    figure = winner(of_space(3, 2))
    curve, *panels = all_axes(figure)
    drawn(curve)
    titles = [axes.get_title(loc="left") for axes in panels]
    assert sorted(titles) == ["b", "kind", "opt/beta", "opt/lr"]
    for axes in (curve, *panels):
        assert len(tick_texts(axes.yaxis)) >= 3
    kind = panels[titles.index("kind")]
    assert tick_texts(kind.yaxis) == ["sgd", "adam", "lion"]


@pytest.mark.parametrize("values", [[[None]], [[1.0]], [[float("nan")]]])
def test_a_run_without_values_has_a_winners_figure(values: list[Any]) -> None:
    """It says that there is none."""
    figure = winner(of_values(values))
    drawn(all_axes(figure)[0])
    assert len(all_axes(figure)) == 2


def test_many_hyperparameters_have_several_columns() -> None:
    """Each column has the curve above it; a part of a figure can hold all."""
    meta = {f"h{k}": 0.1 * k for k in range(1, 16)}
    part = Figure(figsize=(12, 12)).subfigures(squeeze=False)[0, 0]
    figure = winner(of_values([[1.0]], [meta]), part)
    assert figure is part
    axes = all_axes(figure)
    assert sum(a.get_ylabel() == "value" for a in axes) == 3
    assert {a.get_title(loc="left") for a in axes[3:]} == set(meta)
