"""The hyperparameters that a run has tried, against each other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure

from population.report.pictures import canvas, layout, scales
from population.report.pictures.canvas import Style
from population.report.pictures.lineages import Floats, Ints
from population.report.pictures.scales import Scale
from population.report.pictures.snapshot import VALUE, Drawable, Snapshot, snapshot

_MOST = 8  # Hyperparameters against each other that can be read in one figure.


def explored(run: Drawable, x: str, y: str, axes: Axes | None = None) -> Axes:
    """Draw the settings of two hyperparameters that were trained, coloured by step.

    There is a dot for each generation that was trained, with the colour of its first
    step. A line leads through the settings of the best's lineage; a star is the last
    one. Categories are spread a little, so that equal dots can be seen.

    Args:
        run: The run, from `population.read` or `controller.history()`.
        x: A hyperparameter; nested ones are named `a/b`. Or "value": the best value
            of each generation.
        y: Another one.
        axes: The axes to draw on; None: those of a new figure.

    Returns:
        The axes; a colour bar lies beside them.

    Raises:
        ValueError: The run has no such hyperparameter.
    """
    source, axes = snapshot(run), canvas.new_axes(axes)
    shown = _scatter(source, axes, x, y, most=7)
    axes.set(xlabel=canvas.plain(x), ylabel=canvas.plain(y))
    _add_steps(source, [axes], shown)
    canvas.set_title(axes, "Explored settings", _marks(source))
    return axes


def explored_pairs(
    run: Drawable,
    figure: Figure | SubFigure | None = None,
    *,
    names: Sequence[str] | None = None,
) -> Figure | SubFigure:
    """Draw the explored settings of each pair of hyperparameters, coloured by step.

    With a single hyperparameter that varies this is a picture of it and the best value
    of each generation.

    Args:
        run: The run, from `population.read` or `controller.history()`.
        figure: An empty figure, or part of one; None: a new one that is large enough.
        names: The hyperparameters; None: those that vary, at most the first eight of
            them.

    Returns:
        The figure, with axes for each pair.

    Raises:
        ValueError: The run has no such hyperparameter.
    """
    source = snapshot(run)
    varying = [name for name in source.hyperparameters if _varies(source, name)]
    chosen = list(varying[:_MOST] if names is None else names)
    several = len(chosen) > 1
    columns = chosen[:-1] if several else (chosen or source.hyperparameters)[:1]
    rows = chosen[1:] if several else [VALUE]
    count = len(rows)
    if figure is None:
        side = max(5.0, 2.0 + 1.6 * count)
        figure = Figure(figsize=(side + 1, side), layout="constrained")
    if not columns:
        figure.suptitle("The run has no hyperparameters")
        return figure
    grid = figure.subplots(count, count, squeeze=False, sharex="col", sharey="row")
    pairs = itertools.product(range(count), range(count))
    drawn = [(row, column) for row, column in pairs if column <= row]
    for row, column in drawn:
        axes = grid[row, column]
        most = 7 if count == 1 else 4
        shown = _scatter(source, axes, columns[column], rows[row], most, small=several)
        if column == 0:
            axes.set_ylabel(canvas.plain(rows[row], 24), fontsize=canvas.SMALL)
        if row == count - 1:
            axes.set_xlabel(canvas.plain(columns[column], 24), fontsize=canvas.SMALL)
        axes.label_outer()
    for row, column in itertools.product(range(count), range(count)):
        grid[row, column].set_visible(column <= row)
    figure.align_labels([*grid[:, 0], *grid[-1]])
    _add_steps(source, list(grid.flat), shown)
    left = len(varying) - _MOST if names is None else 0
    text = "Explored settings" + (f" (without {left} more that vary)" * (left > 0))
    marks = f"{text}\n{_marks(source)}"
    figure.suptitle(marks, x=0.01, ha="left", fontsize=canvas.SMALL)
    return figure


def best_values(source: Snapshot) -> Floats:
    """Return the best value that each span has reported, `[S]`; NaN for none."""
    values = source.metric(VALUE)
    worst = np.inf if source.mode == "min" else -np.inf
    found = np.full(len(source.branches()["parent"]), worst)
    better = np.minimum if source.mode == "min" else np.maximum
    known = np.isfinite(values)
    better.at(found, source.checkpoints()["generation"][known], values[known])
    chosen = found[source.spans.generation]
    return np.where(np.isfinite(chosen), chosen, np.nan)


def _places(source: Snapshot, name: str) -> tuple[Scale, Floats, tuple[float, float]]:
    """Return the scale of a hyperparameter, its place in each span, and the range."""
    if name == VALUE and name not in source.hyperparameters:
        numbers = best_values(source)
        scale = scales.scale_of(numbers)
        return scale, numbers, scales.value_range(numbers, scale.kind)
    scale = source.scale(name)
    numbers = source.settings(name, scale)
    return scale, numbers, scales.full_range(numbers, scale)


def _scatter(
    source: Snapshot, axes: Axes, x: str, y: str, most: int, small: bool = False
) -> PathCollection:
    """Draw the dots of two hyperparameters, and the way of the best."""
    found: list[Floats] = []
    spread = layout.jitter(len(source.spans.begin))
    for axis, name, apart in zip((axes.xaxis, axes.yaxis), (x, y), spread, strict=True):
        scale, numbers, ends = _places(source, name)
        canvas.set_axis(axis, scale, ends, most)
        if scale.kind == scales.CATEGORIES:
            numbers = numbers + 0.5 * apart
        found.append(numbers)
    count = max(len(source.spans.begin), 1)
    area = float(np.clip(3000 / count, 4 if small else 6, 20 if small else 36))
    shown = axes.scatter(
        found[0],
        found[1],
        c=source.spans.begin,
        s=area,
        cmap=canvas.RISING,
        norm=Normalize(*_step_ends(source)),
        alpha=0.85 if count < 500 else 0.6,
        linewidths=0,
        zorder=2,
        rasterized=count > 5000,
    )
    path = source.spans_of(source.best)
    line: Style = {"color": "#000000", "linewidth": 0.7, "zorder": 3, "alpha": 0.6}
    axes.plot(found[0][path], found[1][path], **line)
    star: Style = {"markerfacecolor": "#F0E442", "color": "#000000"}
    end, size = path[-1:], 8 if small else 13
    axes.plot(found[0][end], found[1][end], "*", markersize=size, zorder=4, **star)
    axes.grid(True, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    if small:
        axes.tick_params(labelsize="x-small")
        axes.tick_params(axis="x", labelrotation=45)
    return shown


def _step_ends(source: Snapshot) -> tuple[float, float]:
    begin: Ints = source.spans.begin
    low, high = int(begin.min(initial=0)), int(begin.max(initial=0))
    return low, max(high, low + 2)


def _add_steps(source: Snapshot, axes: list[Axes], shown: PathCollection) -> None:
    """Add the colour bar of steps."""
    canvas.add_colour_bar(axes, shown, "first step of the generation", whole=True)


def _varies(source: Snapshot, name: str) -> bool:
    numbers = source.settings(name, source.scale(name))
    return len(np.unique(numbers[np.isfinite(numbers)])) > 1


def _marks(source: Snapshot) -> str:
    if source.best < 0:
        return "dot: a generation"
    return "dot: a generation, black line and star: the lineage of the best"
