"""Hyperparameters over steps: one of all members, and all of the winner."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from population.base.types import Checkpoint
from population.report.hyperparameters import short
from population.report.pictures import canvas, lineages, scales
from population.report.pictures.canvas import Label, Style
from population.report.pictures.curves import RETIRED
from population.report.pictures.lineages import Bools, Floats, Ints
from population.report.pictures.scales import Scale
from population.report.pictures.snapshot import VALUE, Drawable, Snapshot, snapshot

_JUMPS = 64  # For more members the jumps of a slot would only hide its values.
_CATEGORY = 0.7  # Of the distance of two categories: how far lines are spread.
_ROWS = 6  # Of hyperparameters in a column of the winner's figure.


def hyperparameter(
    run: Drawable,
    name: str,
    axes: Axes | None = None,
    *,
    scale: str | None = None,
) -> Axes:
    """Draw a hyperparameter of every member over steps, with its branches as dots.

    Up to eight members have a colour each; more are grey. What the best's lineage was
    trained with lies behind the lines as a broad band. A generation that the library
    opened, for example to resume, is no branch: it has a dot only if its value is
    another one. A cross ends the line of a retired member.

    Args:
        run: The run, from `population.read` or `controller.history()`.
        name: The hyperparameter; nested ones are named `a/b`.
        axes: The axes to draw on; None: those of a new figure.
        scale: "linear", "log" or "near one", which spreads the numbers below 1. None:
            as the run's space says, and without one logarithmic for positive numbers
            that span more than two decades; texts and the values of a `Categorical` or
            `Ordinal` have a tick each.

    Returns:
        The axes.

    Raises:
        ValueError: The run has no such hyperparameter, or `scale` is unknown.
    """
    source, axes = snapshot(run), canvas.new_axes(axes)
    chosen = _scale(source, name, scale)
    numbers = source.settings(name, chosen)
    shown = _on_scale(numbers, chosen)
    canvas.set_steps(axes, source.step)
    canvas.set_axis(axes.yaxis, chosen, scales.full_range(numbers, chosen))
    axes.set_ylabel(canvas.plain(name))
    few, labels = source.size <= canvas.FEW, list[Label]()
    apart = numbers
    if chosen.kind == scales.CATEGORIES:  # Else the lines of a category were one.
        rank = np.searchsorted(source.workers()["worker_id"], source.spans.worker_id)
        apart = numbers + _CATEGORY * ((rank + 0.5) / source.size - 0.5)
    _draw_band(axes, source, apart if few else numbers, shown)
    if few:
        for place, worker_id in enumerate(source.workers()["worker_id"].tolist()):
            colour = canvas.COLOURS[place % len(canvas.COLOURS)]
            own = np.flatnonzero((source.spans.worker_id == worker_id) & shown)
            _draw_slots(axes, source, apart, own, colour)
            if own.size:
                last = float(apart[own[-1]])
                labels.append((last, f"member {worker_id}", colour))
    else:
        _draw_slots(axes, source, apart, np.flatnonzero(shown), canvas.GREY)
        labels += _best_label(source, numbers, shown)
    canvas.label_ends(axes, labels)
    _explain(axes, source, name)
    return axes


def winner(
    run: Drawable,
    figure: Figure | SubFigure | None = None,
    *,
    checkpoint: Checkpoint | None = None,
    metric: str = VALUE,
    log: bool = False,
    label: str | None = None,
) -> Figure | SubFigure:
    """Draw all hyperparameters that led to a checkpoint, below its learning curve.

    The axes have the same steps. Thin vertical lines are the branches on the way.

    Args:
        run: The run, from `population.read` or `controller.history()`.
        figure: An empty figure, or part of one; None: a new one that is high enough.
        checkpoint: The checkpoint; None: the best one.
        metric: "value", or the name of a reported metric, for the curve.
        log: Whether the axis of the curve is logarithmic.
        label: What the metric is called in the picture; None: its own name.

    Returns:
        The figure. Its first axes are those of the curve; those of the hyperparameters
        follow in the order of their names in the run's tables.

    Raises:
        ValueError: The run has no such metric, or no such checkpoint.
    """
    source = snapshot(run)
    best = source.best if checkpoint is None else source.index_of(checkpoint.row)
    names = source.hyperparameters
    columns = max(1, math.ceil(len(names) / _ROWS))
    rows = math.ceil(len(names) / columns)
    if figure is None:
        size = (8.0 * columns**0.5, 2.6 + 0.95 * rows)
        figure = Figure(figsize=size, layout="constrained")
    heights = [2.2, *[1.0] * rows]
    grid = figure.subplots(
        rows + 1, columns, sharex=True, squeeze=False, height_ratios=heights
    )
    path = lineages.lineage(source.parent, best)
    values = source.metric(metric)
    for column in range(columns):
        _draw_curve(grid[0, column], source, values, path, log, label or metric)
    for place in range(rows * columns):
        axes = grid[1 + place % rows, place // rows]
        if place < len(names):
            _draw_schedule(axes, source, names[place], best)
        else:
            axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("training steps")
    title = "No value was reported"
    if best >= 0:
        of = "the best" if checkpoint is None else "a checkpoint"
        title = f"What led to {of}: member {source.worker_id[best]}"
        title += f" at step {source.step[best]}"
    canvas.set_title(grid[0, 0], title, "vertical lines: branches on the way")
    return figure


def _scale(source: Snapshot, name: str, kind: str | None) -> Scale:
    """Return the scale that was asked for, or that of the run's space."""
    found = source.scale(name)
    if kind is None or found.kind == scales.CATEGORIES:
        if kind is not None and kind not in scales.KINDS:
            scales.fitting(kind, np.zeros(1))  # Raises.
        return found
    return Scale(scales.fitting(kind, source.settings(name, found)))


def _on_scale(numbers: Floats, scale: Scale) -> Bools:
    return scales.on_scale(numbers, scale.kind)


def _draw_band(axes: Axes, source: Snapshot, numbers: Floats, shown: Bools) -> None:
    """Draw what the best's lineage was trained with."""
    path = _path(source, source.best)
    path = [part for part in path if shown[part[0]]]
    if not path:
        return
    steps = [step for _, begin, end in path for step in (begin, end)]
    heights = [float(numbers[span]) for span, _, _ in path for _ in range(2)]
    many = source.size > canvas.FEW
    style: Style = {"color": "#000000", "alpha": 0.16, "linewidth": 7}
    if many:
        style = {"color": canvas.BLUE, "alpha": 1.0, "linewidth": 2.0}
    axes.plot(steps, heights, solid_joinstyle="round", zorder=4 if many else 1, **style)


def _draw_slots(
    axes: Axes, source: Snapshot, numbers: Floats, own: Ints, colour: str
) -> None:
    """Draw the spans of some slots as lines, and their branches as dots."""
    spans, many = source.spans, source.size
    faint = float(np.clip(8 / max(many, 1) ** 0.7, 0.05, 1.0))
    level = numbers[own]
    bars = np.stack(
        [
            np.column_stack([spans.begin[own], level]),
            np.column_stack([spans.end[own], level]),
        ],
        axis=1,
    )
    style: Style = {"alpha": faint, "colors": colour, "zorder": 2}
    canvas.add_lines(axes, list(bars), linewidths=1.6, **style)
    before, after = _neighbours(source, own)
    if many <= _JUMPS:
        early = spans.end[before] <= spans.begin[after]  # Not back to an older one.
        jumps = np.stack(
            [_at(spans.end, numbers, before), _at(spans.begin, numbers, after)], axis=1
        )[early]
        canvas.add_lines(axes, list(jumps), linewidths=0.6, **style)
    changed = np.zeros(len(numbers), bool)
    changed[after] = numbers[before] != numbers[after]
    changed[after] |= spans.branched[after]
    dots = own[changed[own]]
    size = float(np.clip(30 / many**0.5, 1.5, 4.5))
    marks: Style = {"color": colour, "markersize": size, "alpha": faint, "zorder": 2.5}
    axes.plot(spans.begin[dots], numbers[dots], "o", **marks)
    ends = own[spans.retired[own]]
    if ends.size:
        marks = {"color": colour, "alpha": max(faint, 0.4), "zorder": 2.6}
        axes.plot(spans.end[ends], numbers[ends], **RETIRED, **marks)


def _neighbours(source: Snapshot, own: Ints) -> tuple[Ints, Ints]:
    """Return the spans before and after each change of a slot's generation."""
    workers = source.spans.worker_id[own]
    order = own[np.argsort(workers, kind="stable")]
    same = np.diff(source.spans.worker_id[order]) == 0
    return order[:-1][same], order[1:][same]


def _at(steps: Ints, numbers: Floats, spans: Ints) -> Floats:
    return np.column_stack([steps[spans], numbers[spans]])


def _best_label(source: Snapshot, numbers: Floats, shown: Bools) -> list[Label]:
    """Return the label of the best's lineage."""
    path = _path(source, source.best)
    if not path or not shown[path[-1][0]]:
        return []
    return [(float(numbers[path[-1][0]]), "the best's\nlineage", canvas.BLUE)]


def _path(source: Snapshot, index: int) -> list[tuple[int, int, int]]:
    """Return the spans that led to a checkpoint, and the steps trained in each."""
    if index < 0:
        return []
    spans, chosen = source.spans, source.spans_of(index).tolist()
    ends = [int(spans.begin[span]) for span in chosen[1:]] + [int(source.step[index])]
    begins = [int(spans.begin[span]) for span in chosen]
    return list(zip(chosen, begins, ends, strict=True))


def _draw_curve(
    axes: Axes, source: Snapshot, values: Floats, path: Ints, log: bool, name: str
) -> None:
    """Draw the values on the way to the checkpoint."""
    known = path[np.isfinite(values[path])]
    canvas.set_steps(axes, source.step[path] if len(path) else source.step, "")
    canvas.set_values(axes, values[known], log, name, values[known].tolist())
    style: Style = {"color": canvas.BLUE, "linewidth": 2.0, "zorder": 3}
    axes.plot(source.step[known], values[known], **style)
    if known.size:
        end = float(values[known[-1]])
        axes.plot(source.step[known[-1]], end, "o", color=canvas.BLUE, markersize=6)
        canvas.label_ends(axes, [(end, short(end), canvas.BLUE)])
    _draw_branches(axes, source, int(path[-1]) if len(path) else -1)


def _draw_branches(axes: Axes, source: Snapshot, index: int) -> None:
    """Draw a vertical line at each branch on the way to a checkpoint."""
    for span, begin, _ in _path(source, index):
        if source.spans.branched[span]:
            axes.axvline(begin, color="#BBBBBB", linewidth=0.6, zorder=1)


def _draw_schedule(axes: Axes, source: Snapshot, name: str, index: int) -> None:
    """Draw a hyperparameter on the way to a checkpoint."""
    scale = source.scale(name)
    numbers = source.settings(name, scale)
    path = _path(source, index)
    steps = [step for _, begin, end in path for step in (begin, end)]
    heights = [float(numbers[span]) for span, _, _ in path for _ in range(2)]
    kept = np.array(heights, np.float64)
    canvas.set_axis(axes.yaxis, scale, scales.full_range(kept, scale), most=4)
    axes.plot(steps, heights, color=canvas.VERMILLION, linewidth=1.8, zorder=3)
    if path and path[-1][1] == path[-1][2]:  # Nothing was trained: a line of no length.
        axes.plot(steps[-1:], heights[-1:], "o", color=canvas.VERMILLION, markersize=4)
    _draw_branches(axes, source, index)
    axes.set_title(canvas.plain(name), loc="left", fontsize=canvas.SMALL, pad=3)
    axes.grid(True, axis="y", alpha=0.25, linewidth=0.6)
    axes.tick_params(labelsize=canvas.SMALL)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if heights and math.isfinite(heights[-1]):
        text = short(heights[-1])
        if scale.kind == scales.CATEGORIES:
            text = canvas.plain(scale.categories[int(heights[-1])], 16)
        canvas.label_ends(axes, [(heights[-1], text, canvas.VERMILLION)])


def _explain(axes: Axes, source: Snapshot, name: str) -> None:
    """Write the title, and what the marks are."""
    marks = ["dot: a branch"]
    if source.best >= 0:
        many = source.size > canvas.FEW
        marks.append(f"{'blue' if many else 'broad'}: the lineage of the best")
    if source.spans.retired.any():
        marks.append("cross: a member that was retired")
    members = "1 member" if source.size == 1 else f"{source.size:,} members"
    title = f"{canvas.plain(name)} of {members}"
    canvas.set_title(axes, title, ", ".join(marks))
