"""Learning curves: every value, and the best's lineage on top."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from population import PopulationController
from population.report.pictures import canvas, learning_curves
from tests.helpers import Scripted, reporter
from tests.report.pictures.runs import (
    copied,
    drawn,
    large,
    marks,
    of_values,
    points,
    segments,
    tick_texts,
    words,
)


def test_every_value_is_drawn_and_divergence_is_left_out() -> None:
    """A line has the reported points, from where it branched off; NaN is no point."""
    axes = learning_curves(copied())
    assert segments(axes) == [
        [(1, 4.0), (2, 2.0)],
        [(1, 3.0), (2, 1.0)],
        [(2, 1.0), (3, 0.5)],
    ]


def test_the_lineage_of_the_best_is_highlighted_and_named() -> None:
    """Through its donor; a ring is where it branched, the label says who and when."""
    axes = learning_curves(copied())
    line = next(line for line in axes.get_lines() if line.get_linewidth() == 2)
    assert points(line) == [(1, 3.0), (2, 1.0), (3, 0.5)]
    assert to_hex(line.get_color()).upper() == canvas.BLUE
    assert [(2, 1.0)] in marks(axes, "o")
    assert "best: 0.5\nmember 0, step 3" in words(axes)


def test_larger_is_better_if_the_run_says_so() -> None:
    """The highlighted one is that with the greatest value."""
    axes = learning_curves(of_values([[1.0, 2.0], [3.0, 1.5]], mode="max"))
    assert "best: 3\nmember 1, step 1" in words(axes)


def test_any_metric_can_be_drawn() -> None:
    """With its name at the axis, or the one that is given."""
    axes = learning_curves(copied(), metric="accuracy", label="hits")
    assert axes.get_ylabel() == "hits"
    assert segments(axes)[0] == [(1, 0.4), (2, 0.2)]
    with pytest.raises(ValueError, match="The run has 'accuracy'"):
        learning_curves(copied(), metric="loss")
    with pytest.raises(ValueError, match="number that was reported"):
        learning_curves(copied(), metric="text")


def test_smoothing_is_the_mean_of_a_lineages_last_reports() -> None:
    """It goes on across branches, and the highlighted one has the best mean."""
    axes = learning_curves(copied(), smooth=2)
    assert segments(axes)[2] == [(2, 2.0), (3, 0.75)]
    assert "mean of 2 reports" in axes.get_title(loc="left")
    lucky = of_values([[1.0, 5.0, 0.1], [0.8, 0.8, 0.8]])
    assert "best: 0.1\nmember 0, step 3" in words(learning_curves(lucky))
    steady = words(learning_curves(lucky, smooth=2))
    assert "best: 0.8\nmember 1, step 2" in steady


def test_the_mean_of_the_best_few_is_a_dashed_line() -> None:
    """At each step, of the members that are the best there."""
    run = of_values([[1.0, 9.0], [2.0, 2.0], [6.0, 4.0]])
    axes = learning_curves(run, top=2)
    (line,) = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert points(line) == [(1, 1.5), (2, 3.0)]
    assert "mean of the\nbest 2" in words(axes)


@pytest.mark.parametrize("argument", ["smooth", "top"])
def test_counts_are_checked(argument: str) -> None:
    """Zero reports have no mean."""
    with pytest.raises(ValueError, match=f"{argument} must be a positive int, got 0"):
        learning_curves(copied(), **{argument: 0})  # type: ignore[arg-type]


def test_a_retired_member_ends_with_a_cross() -> None:
    """And only that one; the line below the title explains it."""
    run = PopulationController([{"lr": 0.1}, {"lr": 0.2}], Scripted(), max_failures=1)
    for worker_id in (0, 1):
        reporter(run, worker_id)(3.0)
        reporter(run, worker_id)(2.0)
    before = learning_curves(run.history())
    assert marks(before, "x") == []
    assert not any("retired" in text for text in words(before))
    run.fail(1, "a pity")
    after = learning_curves(run.history())
    assert marks(after, "x") == [[(2, 2.0)]]
    assert any("retired" in text for text in words(after))


def test_a_few_values_far_away_are_counted_in_a_note() -> None:
    """They do not set the range of the axis."""
    axes = learning_curves(of_values([[1.0 + k / 100 for k in range(99)] + [1e9]]))
    assert axes.get_ylim()[1] < 3
    assert "1 values above, up to 1e+09" in words(axes)


def test_zero_is_not_on_a_logarithmic_axis() -> None:
    """The others are; if none is, the axis is linear, and a note says so."""
    axes = learning_curves(of_values([[1.0, 0.1, 0.0]]), log=True)
    assert axes.get_yscale() == "log"
    assert "1 values below, down to 0" in words(axes)
    axes = learning_curves(of_values([[0.0, -1.0]]), log=True)
    assert axes.get_yscale() == "linear"
    assert "no value above 0 for a logarithmic axis" in words(axes)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        [[1.0]],
        [[math.nan, math.nan], [math.nan]],
        [[None]],
        [[0.5] * 5] * 3,
        [[1e-30, 1e30], [1.0, 1e300]],
    ],
)
def test_odd_runs_have_pictures_with_three_ticks(
    values: list[list[float | None]], log: bool
) -> None:
    """One member, one step, no finite value, equal ones, ones of very many decades."""
    axes = learning_curves(of_values(values), log=log, top=2)
    drawn(axes)
    assert len(tick_texts(axes.xaxis)) >= 3
    assert len(set(tick_texts(axes.yaxis))) >= 3


def test_a_single_report_is_a_dot() -> None:
    """A line of one point would not be seen."""
    axes = learning_curves(of_values([[1.0], [2.0]]))
    assert [(1, 1.0), (1, 2.0)] in marks(axes, "o")


def test_few_members_have_labels_that_do_not_overlap() -> None:
    """More than eight would only be a pile of texts; no legend covers the curves."""
    axes = learning_curves(of_values([[1.0], [1.0], [1.0], [2.0]]))
    drawn(axes)
    labels = [text for text in axes.texts if "member" in text.get_text()]
    assert len(labels) == 4
    boxes = sorted((t.get_window_extent() for t in labels), key=lambda b: b.y0)
    for low, high in itertools.pairwise(boxes):
        assert low.y1 <= high.y0 + 2
    many = learning_curves(of_values([[1.0]] * 9))
    assert sum("member" in text for text in words(many)) == 2  # Title and best.
    assert many.get_legend() is None


def test_a_thousand_members_are_one_collection() -> None:
    """Not thousands of artists; each line is there, and faint."""
    axes = learning_curves(large(1000, 200), log=True, top=3)
    assert len(axes.get_lines()) + len(axes.collections) < 10
    (collection,) = axes.collections
    assert collection.get_alpha() <= 0.1  # type: ignore[operator]
    assert sum(map(len, segments(axes))) > 200_000
    assert collection.get_rasterized()


def test_axes_that_are_given_are_used_and_keep_what_they_show() -> None:
    """Two runs on one picture: the range holds both."""
    axes = Figure().subplots()
    assert learning_curves(of_values([[1.0, 2.0]]), axes) is axes
    learning_curves(of_values([[10.0, 20.0, 30.0]]), axes)
    assert axes.get_ylim()[0] < 1
    assert axes.get_ylim()[1] > 30
    assert np.ptp(axes.get_xlim()) >= 3
