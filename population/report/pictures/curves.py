"""Learning curves: all members in grey, and the lineage of the best."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from population.report.hyperparameters import short
from population.report.pictures import averages, canvas, lineages
from population.report.pictures.canvas import Label, Style
from population.report.pictures.lineages import Floats, Ints
from population.report.pictures.snapshot import VALUE, Drawable, Snapshot, snapshot

_MOST_STEPS = 300  # Of the mean of the best members.
# The mark at the end of a retired slot.
RETIRED: Style = {"marker": "x", "linestyle": "", "markersize": 5}


def learning_curves(
    run: Drawable,
    axes: Axes | None = None,
    *,
    metric: str = VALUE,
    smooth: int = 1,
    top: int | None = None,
    log: bool = False,
    label: str | None = None,
) -> Axes:
    """Draw what the members have reported, and the best's lineage on top of it.

    A line begins at the checkpoint that it was branched from. NaN and infinity are not
    drawn. A few values far outside the others do not set the range: a note in the
    corner counts them. A cross ends the line of a retired member.

    Args:
        run: The run, from `population.read` or `controller.history()`.
        axes: The axes to draw on; None: those of a new figure.
        metric: "value", or the name of a reported metric; nested ones are named `a/b`.
            The best is the one with the best value in any case.
        smooth: Draw the mean of the last so many reports of a lineage, across its
            branches; at its start, of those that there are. The highlighted lineage is
            then the one with the best mean.
        top: Draw the mean of so many best members at each step, too.
        log: Whether the axis of values is logarithmic.
        label: What the metric is called in the picture; None: its own name.

    Returns:
        The axes.

    Raises:
        ValueError: The run has no such metric, or `smooth` or `top` is not positive.
    """
    for name, number in (("smooth", smooth), ("top", 1 if top is None else top)):
        if type(number) is not int or number < 1:
            raise ValueError(f"{name} must be a positive int, got {number!r}.")
    source, axes = snapshot(run), canvas.new_axes(axes)
    values, best = _curves(source, metric, smooth)
    before = source.known_ancestors(values)
    parts = lineages.lines(source.checkpoints(), np.isfinite(values), before)
    _draw_members(axes, source, values, parts)
    path = _known_path(source, values, best)
    name = label or metric
    canvas.set_steps(axes, source.step)
    canvas.set_values(axes, values, log, name, values[path].tolist())
    labels = _draw_best(axes, source, values, path, best)
    if top is not None:
        labels += _draw_top(axes, source, values, top)
    if source.size <= canvas.FEW:
        labels += _member_labels(source, values, path)
    canvas.label_ends(axes, labels)
    _explain(axes, source, name, smooth)
    return axes


def _curves(source: Snapshot, metric: str, smooth: int) -> tuple[Floats, int]:
    """Return the values to draw, `[N]`, and the best checkpoint, or -1."""
    values, best = source.metric(metric), source.best
    if smooth == 1:
        return values, best
    own = source.metric(VALUE)
    means, full = averages.smoothed(own, source.known_ancestors(own), smooth)
    if full.any():
        best = averages.best_of(np.where(full, means, np.nan), source.mode)
    if metric == VALUE:
        return means, best
    return averages.smoothed(values, source.known_ancestors(values), smooth)[0], best


def _known_path(source: Snapshot, values: Floats, best: int) -> Ints:
    """Return the checkpoints with a value on the lineage of the best."""
    path = lineages.lineage(source.parent, best)
    known: Ints = path[np.isfinite(values[path])]
    return known


def _draw_members(
    axes: Axes, source: Snapshot, values: Floats, parts: list[Ints]
) -> None:
    """Draw every line in grey: fainter ones, if there are many."""
    step = source.step
    faint = float(np.clip(6 / max(source.size, 1) ** 0.7, 0.03, 0.8))
    style: Style = {
        "colors": canvas.GREY,
        "linewidths": 1.0,
        "alpha": faint,
        "zorder": 1.5,
    }
    drawn = [np.column_stack([step[part], values[part]]) for part in parts]
    canvas.add_lines(axes, [line for line in drawn if len(line) > 1], **style)
    alone = [line for line in drawn if len(line) == 1]
    if alone:
        points = np.concatenate(alone)
        dots: Style = {"color": canvas.GREY, "markersize": 4, "alpha": max(faint, 0.3)}
        axes.plot(points[:, 0], points[:, 1], "o", **dots, zorder=1.5)
    ends = _retired_ends(source, values, parts)
    if len(ends):
        marks: Style = {"color": "#555555", "alpha": max(faint, 0.4), "zorder": 1.6}
        axes.plot(step[ends], values[ends], **RETIRED, **marks)


def _retired_ends(source: Snapshot, values: Floats, parts: list[Ints]) -> Ints:
    """Return the last checkpoint with a value of each slot that is retired."""
    retired = set(source.spans.generation[source.spans.retired].tolist())
    owner = source.checkpoints()["generation"]
    return np.array([p[-1] for p in parts if int(owner[p[-1]]) in retired], np.int64)


def _draw_best(
    axes: Axes, source: Snapshot, values: Floats, path: Ints, best: int
) -> list[Label]:
    """Draw the best's lineage, its branches and its end; return its label."""
    if not len(path):
        return []
    step = source.step
    axes.plot(step[path], values[path], color=canvas.BLUE, linewidth=2.0, zorder=4)
    spans, chosen = source.spans, source.spans_of(best)
    forks = np.isin(source.checkpoints()["generation"][path][1:], spans.generation[
        chosen[spans.branched[chosen]]
    ])  # fmt: skip
    new = np.diff(source.checkpoints()["generation"][path]) != 0
    at = path[:-1][forks & new]
    ring: Style = {"markerfacecolor": "white", "markersize": 4, "color": canvas.BLUE}
    axes.plot(step[at], values[at], "o", **ring, zorder=4.1)
    end = path[-1]
    axes.plot(step[end], values[end], "o", color=canvas.BLUE, markersize=7, zorder=4.2)
    text = f"best: {short(float(values[end]))}\nmember {source.worker_id[best]}"
    text += f", step {step[best]}"
    return [(float(values[end]), text, canvas.BLUE)]


def _draw_top(axes: Axes, source: Snapshot, values: Floats, top: int) -> list[Label]:
    """Draw the mean of the best members at each step; return its label."""
    at = averages.grid(source.step, _MOST_STEPS)
    table = averages.by_member(source.worker_id, source.step, values, at)
    mean = averages.mean_of_best(table, top, source.mode)
    known = np.flatnonzero(np.isfinite(mean))
    if not known.size:
        return []
    style: Style = {"color": canvas.VERMILLION, "linewidth": 1.8, "zorder": 3.5}
    axes.plot(at[known], mean[known], "--", **style)
    text = f"mean of the\nbest {min(top, source.size)}"
    return [(float(mean[known[-1]]), text, canvas.VERMILLION)]


def _member_labels(source: Snapshot, values: Floats, path: Ints) -> list[Label]:
    """Return a label for the last value of each member, if the best's is not there."""
    found = []
    for worker_id in source.workers()["worker_id"].tolist():
        own = np.flatnonzero((source.worker_id == worker_id) & np.isfinite(values))
        if own.size and own[-1] not in path:
            at = float(values[own[-1]])
            found.append((at, f"member {worker_id}", "#555555"))
    return found


def _explain(axes: Axes, source: Snapshot, name: str, smooth: int) -> None:
    """Write the title, and what the marks are."""
    size = source.size
    members = "1 member" if size == 1 else f"{size:,} members"
    title = f"Learning curves of {members}"
    if smooth > 1:
        title += f", mean of {smooth} reports"
    marks = ["blue: the lineage of the best", "ring: a branch"]
    if source.spans.retired.any():
        marks.append("cross: a member that was retired")
    canvas.set_title(axes, title, ", ".join(marks))
