"""Progress: mean, one standard deviation, and the best of the members."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.axes import Axes

from population.report.pictures import progress
from population.report.pictures.snapshot import Snapshot
from population.report.pictures.whole import branches_before
from tests.report.pictures.runs import (
    copied,
    drawn,
    large,
    of_values,
    points,
    tick_texts,
    words,
)


def line(axes: Axes, dash: str) -> list[tuple[float, float]]:
    """The points of the mean, "-", or of the best, "--"."""
    (found,) = [x for x in axes.get_lines() if x.get_linestyle() == dash]
    return points(found)


def band(axes: Axes) -> set[tuple[float, float]]:
    """The corners of the band."""
    vertices = np.asarray(axes.collections[0].get_paths()[0].vertices)
    return {(float(x), round(float(y), 9)) for x, y in vertices}


def test_mean_band_and_best_are_those_of_the_members() -> None:
    """At each step; labels at the end say the last numbers."""
    axes = progress(of_values([[1.0, 1.0, 2.0], [3.0, 2.0, 4.0]]))
    assert line(axes, "-") == [(1, 2.0), (2, 1.5), (3, 3.0)]
    assert line(axes, "--") == [(1, 1.0), (2, 1.0), (3, 2.0)]
    assert {(1.0, 1.0), (1.0, 3.0), (3.0, 2.0), (3.0, 4.0)} <= band(axes)
    assert {"mean 3", "best 2"} <= set(words(axes))


def test_the_best_is_the_greatest_if_the_run_says_so() -> None:
    """By its mode."""
    axes = progress(of_values([[1.0, 1.0], [3.0, 2.0]], mode="max"))
    assert line(axes, "--") == [(1, 3.0), (2, 2.0)]


def test_on_a_logarithmic_axis_it_is_the_mean_of_logarithms() -> None:
    """So one member that exploded does not hide the others, and no band is below 0."""
    axes = progress(of_values([[1.0], [100.0], [0.0]]), log=True)
    ((step, mean),) = line(axes, "-")
    assert step == 1
    assert mean == pytest.approx(10)


def test_it_can_go_by_the_number_of_branches() -> None:
    """A member counts with its last report before the next branch."""
    run = copied()
    source = Snapshot(run)
    assert branches_before(source)[source.worker_id == 0].tolist() == [0, 0, 0, 1, 1, 1]
    axes = progress(run, by="generation")
    assert line(axes, "-") == [(0, 1.5), (1, 0.5)]
    assert axes.get_xlabel() == "branches of a member"


def test_many_steps_are_put_together() -> None:
    """In so many bins at most."""
    axes = progress(of_values([[float(k) for k in range(1, 101)]]), bins=10)
    assert len(line(axes, "-")) == 10
    assert line(axes, "-")[-1] == (100, 100.0)


@pytest.mark.parametrize(
    "values", [[[1.0]], [[math.nan]], [[None]], [[1.0, 1e300]], [[0.5] * 3]]
)
@pytest.mark.parametrize("by", ["step", "generation"])
def test_odd_runs_have_three_ticks(values: list[list[float | None]], by: str) -> None:
    """One member, one step, no value, equal ones."""
    axes = progress(of_values(values), by=by)
    drawn(axes)
    assert len(tick_texts(axes.xaxis)) >= 3
    assert len(tick_texts(axes.yaxis)) >= 3


def test_arguments_are_checked() -> None:
    """The message says what is possible."""
    with pytest.raises(ValueError, match="by must be 'step' or 'generation'"):
        progress(copied(), by="epoch")
    with pytest.raises(ValueError, match="bins must be a positive int"):
        progress(copied(), bins=0)


def test_a_thousand_members_are_one_band() -> None:
    """Whatever their number is."""
    axes = progress(large(1000, 50), log=True)
    assert len(axes.get_lines()) == 2
    assert len(line(axes, "-")) == 50
