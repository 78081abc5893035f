"""The tree of lineages: rows, forks, colours, and what lives on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm

from population import PopulationController
from population.report.pictures import lineage_tree
from population.report.pictures.snapshot import Snapshot
from population.report.pictures.tree import norm_of, pieces_of
from tests.helpers import Scripted, reporter
from tests.report.pictures.runs import (
    all_axes,
    copied,
    drawn,
    large,
    marks,
    of_values,
    tick_texts,
    words,
)

Drawn = dict[tuple[float, float, float], tuple[float, float]]


def coloured(axes: Axes) -> Drawn:
    """The pieces: begin, end and row to number and width of the line."""
    found: Drawn = {}
    for collection in axes.collections:
        if not isinstance(collection, LineCollection):
            continue
        if (numbers := collection.get_array()) is None:
            continue
        width = float(np.asarray(collection.get_linewidth())[0])
        lines = collection.get_segments()
        for line, number in zip(lines, np.asarray(numbers), strict=True):
            (begin, row), (end, _) = np.asarray(line).tolist()
            found[begin, end, row] = (float(number), width)
    return found


def test_each_report_colours_the_way_to_it() -> None:
    """Of the copied run: rows 0 and 1, and the copy goes on below its donor."""
    run = Snapshot(copied())
    found = pieces_of(run, run.metric("value"))
    pieces = zip(found.span, found.begin, found.end, found.number, strict=True)
    assert [tuple(map(float, piece)) for piece in pieces][:5] == [
        (0, 0, 0, pytest.approx(math.nan, nan_ok=True)),
        (0, 0, 1, 4),
        (0, 1, 2, 2),
        (1, 0, 0, pytest.approx(math.nan, nan_ok=True)),
        (1, 0, 1, 3),
    ]
    assert found.alive.tolist() == [False, False, False, *[True] * 6]


def test_dead_branches_are_thin() -> None:
    """What nobody continues is half as thick, and a cross is its end."""
    axes = lineage_tree(copied())
    found = coloured(axes)
    widths = {number: width for number, width in found.values()}
    assert widths[4.0] == widths[2.0] < widths[3.0] == widths[1.0] == widths[0.5]
    (ends,) = marks(axes, "x")
    assert [step for step, _ in ends] == [2]


def test_a_fork_leads_from_the_donor_to_its_copy() -> None:
    """A vertical line at its step, from row to row; the best has a star."""
    axes = lineage_tree(copied())
    rows = {number: row for (_, _, row), (number, _) in coloured(axes).items()}
    forks = [
        np.asarray(line).tolist()
        for collection in axes.collections
        if isinstance(collection, LineCollection) and collection.get_array() is None
        for line in collection.get_segments()
    ]
    donor, copy = rows[1.0], rows[0.5]
    assert [[2.0, donor], [2.0, copy]] in forks
    assert marks(axes, "*") == [[(3, copy)]]


def test_a_retired_member_does_not_live_on() -> None:
    """Nor is its end named; the others are."""
    run = PopulationController([{"lr": 0.1}, {"lr": 0.2}], Scripted(), max_failures=1)
    for worker_id in (0, 1):
        reporter(run, worker_id)(3.0 + worker_id)
    run.fail(1, "a pity")
    axes = lineage_tree(run.history())
    widths = {number: width for number, width in coloured(axes).values()}
    assert widths[4.0] < widths[3.0]
    assert "member 0" in words(axes)
    assert "member 1" not in words(axes)


def test_colours_are_explained_and_good_ones_are_dark() -> None:
    """By a bar with three ticks; a run for the maximum has them the other way."""
    dark = {}
    for mode in ("min", "max"):
        axes = lineage_tree(of_values([[1.0, 2.0, 3.0]], mode=mode), label="loss")
        drawn(axes)
        _, bar = all_axes(axes.figure)
        assert bar.get_ylabel() == "loss"
        assert len(tick_texts(bar.yaxis)) >= 3
        shown = axes.collections[-1]
        low, high = shown.to_rgba(np.array([1.0, 3.0]))[:, :3].sum(axis=1)
        dark[mode] = bool(low < high)
    assert dark == {"min": True, "max": False}


def test_colours_of_many_decades_are_logarithmic() -> None:
    """And one value far away has the colour of the end; equal ones have a range."""
    assert isinstance(norm_of(np.array([1e-3, 1.0])), LogNorm)
    norm = norm_of(np.append(np.linspace(1, 2, 99), 1e9))
    assert (norm.vmin, norm.vmax) == (1, 2)
    same = norm_of(np.array([2.0, 2.0, math.nan]))
    assert same.vmin is not None
    assert same.vmax is not None
    assert same.vmin < 2 < same.vmax
    assert norm_of(np.array([math.nan])).vmax == 1


@pytest.mark.parametrize(
    "values", [[[None]], [[1.0]], [[math.nan]] * 3, [[1.0, 1e300]], [[0.0], [-1.0]]]
)
def test_odd_runs_have_a_tree(values: list[list[float | None]]) -> None:
    """Of one member, of one step, without a finite value."""
    axes = lineage_tree(of_values(values))
    drawn(axes)
    assert len(tick_texts(axes.xaxis)) >= 3


def test_a_thousand_members_are_few_artists_and_few_pieces() -> None:
    """Colours along the steps are as fine as pixels, not finer."""
    axes = lineage_tree(large(1000, 30))
    assert len(axes.get_lines()) + len(axes.collections) < 12
    run = Snapshot(large(1000, 200))
    assert 50_000 < len(pieces_of(run, run.metric("value")).span) < 150_000
