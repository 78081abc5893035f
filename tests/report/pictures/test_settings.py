"""Explored settings: a dot for each generation that was trained."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from population.report.pictures import explored, explored_pairs
from tests.report.pictures.runs import (
    all_axes,
    copied,
    drawn,
    large,
    marks,
    of_space,
    of_values,
    points,
    tick_texts,
)


def dots(axes: Axes) -> list[tuple[float, ...]]:
    """The places of the dots, and the steps of their colours."""
    (found,) = [c for c in axes.collections if isinstance(c, PathCollection)]
    steps = np.asarray(found.get_array())[:, None]
    places = np.asarray(found.get_offsets())
    return [tuple(row) for row in np.hstack([places, steps]).round(9).tolist()]


def test_each_generation_is_a_dot_with_the_colour_of_its_step() -> None:
    """A line leads through those of the best's lineage to a star."""
    axes = explored(copied(), "opt/lr", "value")
    assert dots(axes) == [(0.1, 2.0, 0), (0.2, 1.0, 0), (0.3, 0.5, 2)]
    assert marks(axes, "*") == [[(0.3, 0.5)]]
    assert [(0.2, 1.0), (0.3, 0.5)] in [points(line) for line in axes.get_lines()]


def test_axes_have_the_scales_of_the_space() -> None:
    """Each with three ticks; so has the bar of colours, also with one step."""
    axes = explored(of_space(5, 1), "opt/lr", "opt/beta")
    assert axes.get_xscale() == "log"
    assert axes.get_yscale() == "function"
    drawn(axes)
    _, bar = all_axes(axes.figure)
    for axis in (axes.xaxis, axes.yaxis, bar.yaxis):
        assert len(tick_texts(axis)) >= 3


def test_dots_of_a_category_can_be_told_apart() -> None:
    """They lie around its place, nearer than the next one."""
    axes = explored(of_space(20, 1), "kind", "kind")
    found = np.array(dots(axes))[:, :2]
    assert len(np.unique(found, axis=0)) == 20
    assert np.abs(found - found.round()).max() <= 0.25


def test_every_pair_has_axes_and_labels_are_outside() -> None:
    """The lower half of a square: four that vary are six pairs."""
    figure = explored_pairs(of_space(6, 1))
    *axes, bar = all_axes(figure)
    assert len(axes) == 6
    assert bar.get_ylabel() == "first step of the generation"
    drawn(axes[0])
    left = [a for a in axes if a.get_ylabel()]
    bottom = [a for a in axes if a.get_xlabel()]
    assert len(left) == len(bottom) == 3
    assert all(len(tick_texts(a.yaxis)) >= 3 for a in left)
    assert all(len(tick_texts(a.xaxis)) >= 3 for a in bottom)


def test_what_never_varies_has_no_pair() -> None:
    """One that varies is drawn against the best value of each generation."""
    run = of_values([[3.0], [2.0]], [{"lr": 0.1, "b": 1}, {"lr": 0.2, "b": 1}])
    axes, _ = all_axes(explored_pairs(run))
    assert axes.get_xlabel() == "lr"
    assert dots(axes) == [(0.1, 3.0, 0), (0.2, 2.0, 0)]


@pytest.mark.parametrize("metas", [[{"lr": 0.1}], [{}], [None]])
def test_nothing_to_compare_is_no_error(metas: list[object]) -> None:
    """A constant, or no hyperparameter at all."""
    figure = explored_pairs(of_values([[1.0]], metas))
    if all_axes(figure):
        drawn(all_axes(figure)[0])


def test_at_most_eight_are_compared_unless_they_are_named() -> None:
    """The title says how many were left out."""
    metas = [{f"h{k}": float(k + m) for k in range(10)} for m in range(2)]
    run = of_values([[1.0], [2.0]], metas)
    figure = explored_pairs(run)
    assert len(all_axes(figure)) == 28 + 1
    assert "without 2 more that vary" in figure.get_suptitle()
    assert len(all_axes(explored_pairs(run, names=["h9", "h0", "h4"]))) == 3 + 1
    with pytest.raises(ValueError, match="no hyperparameter 'h10'"):
        explored_pairs(run, names=["h9", "h10"])


def test_a_thousand_members_have_small_dots() -> None:
    """In one collection."""
    axes = explored(large(1000, 30), "lr", "value")
    (found,) = [c for c in axes.collections if isinstance(c, PathCollection)]
    assert len(dots(axes)) > 1200
    assert max(found.get_sizes()) <= 6
