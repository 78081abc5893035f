"""Comparisons: the best value so far of several runs, with 95 % intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from population.report.pictures import compare, compare_sizes
from tests.report.pictures.runs import (
    drawn,
    marks,
    of_values,
    points,
    tick_texts,
    words,
)


def test_a_line_is_the_mean_of_the_best_so_far() -> None:
    """Of a group's runs; its label has the end, and its interval by Student's t."""
    runs = [of_values([[4.0, 2.0, 3.0]]), of_values([[2.0, 1.0, 9.0], [5.0, 5.0, 0.0]])]
    axes = compare({"ours": runs, "random": [of_values([[6.0, 5.0]])]})
    ours, _, random, _ = (points(line) for line in axes.get_lines())
    assert ours == [(1, 3.0), (2, 1.5), (3, 1.0)]
    assert random == [(1, 6.0), (2, 5.0)]
    assert "random\n5" in words(axes)
    assert "ours\n1 (-11.7 to 13.7)" in words(axes)  # 1 -+ 12.71 * 1.414 / 1.414.
    assert len(axes.collections) == 2
    assert axes.get_legend() is None


def test_groups_differ_in_colour_and_marker() -> None:
    """So that they can be told apart without colours."""
    axes = compare({name: [of_values([[1.0]])] for name in "abc"})
    ends = [line for line in axes.get_lines() if line.get_marker() in ("o", "s", "^")]
    assert len({line.get_marker() for line in ends}) == 3
    assert len({line.get_color() for line in ends}) == 3


def test_by_reports_a_larger_population_has_no_advantage() -> None:
    """Two members that report once count as one that reports twice."""
    axes = compare({"two": [of_values([[4.0], [3.0]])]}, by="report")
    assert points(axes.get_lines()[0]) == [(1, 4.0), (2, 3.0)]
    assert axes.get_xlabel() == "reports of all members"


def test_a_line_ends_where_its_first_run_ends() -> None:
    """After it, and before all have begun, the mean would be of other runs."""
    runs = [of_values([[4.0, 2.0, 3.0]]), of_values([[None, 1.0]])]
    axes = compare({"ours": runs})
    assert points(axes.get_lines()[0]) == [(2, 1.5)]


def test_larger_is_better_if_the_runs_say_so() -> None:
    """They must agree."""
    run = of_values([[1.0, 3.0, 2.0]], mode="max")
    axes = compare({"ours": [run]})
    assert points(axes.get_lines()[0]) == [(1, 1.0), (2, 3.0), (3, 3.0)]
    with pytest.raises(ValueError, match="must have one mode"):
        compare({"ours": [run], "other": [of_values([[1.0]])]})


def test_on_a_logarithmic_axis_the_mean_is_of_logarithms() -> None:
    """1 and 100 have the mean 10."""
    runs = [of_values([[1.0]]), of_values([[100.0]])]
    ((step, mean),) = points(compare({"a": runs}, log=True).get_lines()[0])
    assert step == 1
    assert mean == pytest.approx(10)


@pytest.mark.parametrize("groups", [{}, {"ours": []}])
def test_groups_need_runs(groups: dict[str, list[object]]) -> None:
    """The message says which one has none."""
    with pytest.raises(ValueError, match=r"ours|empty"):
        compare(groups)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="by must be 'step' or 'report'"):
        compare({"ours": [of_values([[1.0]])]}, by="hour")


@pytest.mark.parametrize("values", [[[math.nan]], [[None]], [[1.0]]])
def test_odd_runs_can_be_compared(values: list[list[float | None]]) -> None:
    """Without a value there is no line, but three ticks."""
    axes = compare({"a$b_c": [of_values(values)]})
    drawn(axes)
    assert len(tick_texts(axes.xaxis)) >= 3
    assert len(tick_texts(axes.yaxis)) >= 3


def sizes(better: float = 1.0) -> dict[int, list[object]]:
    """Two runs of one, two and four members each."""
    return {
        size: [of_values([[better * value / size]] * size) for value in (1.0, 3.0)]
        for size in (4, 1, 2)
    }


def test_each_run_is_a_dot_at_its_size() -> None:
    """With the mean and an interval; the sizes are the ticks."""
    axes = compare_sizes(sizes(), name="PBT", log=False)  # type: ignore[arg-type]
    dots = [point for line in marks(axes, "o") for point in line]
    assert {(1, 1.0), (1, 3.0), (2, 0.5), (2, 1.5), (4, 0.25), (4, 0.75)} <= set(dots)
    (container,) = axes.containers
    mean = container.lines[0]  # type: ignore[attr-defined]
    assert points(mean) == [(1, 2.0), (2, 1.0), (4, 0.5)]
    drawn(axes)
    assert tick_texts(axes.xaxis) == ["1", "2", "4"]
    assert "PBT" in words(axes)


def test_a_second_policy_is_drawn_beside_the_first() -> None:
    """In another colour, on the same axes, which hold both."""
    axes = compare_sizes(sizes(), name="PBT")  # type: ignore[arg-type]
    again = compare_sizes(sizes(2.0), axes, name="random")  # type: ignore[arg-type]
    assert again is axes
    first, second = (c.lines[0] for c in axes.containers)  # type: ignore[attr-defined]
    assert first.get_color() != second.get_color()
    assert points(second)[0][0] == pytest.approx(1.04)
    assert axes.get_ylim()[1] >= 6
    explained = [text for text in words(axes) if text.startswith("dot:")]
    assert len(explained) == 1


def test_one_size_has_three_ticks() -> None:
    """And a run alone no interval."""
    axes = compare_sizes({3: [of_values([[1.0]] * 3)]})
    drawn(axes)
    assert len(tick_texts(axes.xaxis)) >= 3
    assert np.isfinite(axes.get_ylim()).all()
