"""The whole population over steps or generations: mean, spread and best."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from population.report.hyperparameters import short
from population.report.pictures import averages, canvas, scales, ticks
from population.report.pictures.canvas import Label, Style
from population.report.pictures.lineages import Floats, Ints
from population.report.pictures.snapshot import VALUE, Drawable, Snapshot, snapshot

STEP, GENERATION = "step", "generation"
_AXES = {STEP: "training steps", GENERATION: "branches of a member"}


def progress(
    run: Drawable,
    axes: Axes | None = None,
    *,
    metric: str = VALUE,
    by: str = STEP,
    bins: int = 100,
    log: bool = False,
    label: str | None = None,
) -> Axes:
    """Draw the mean of the members, a band of one standard deviation, and the best.

    Each member counts with its newest report up to a step; from its first to its last
    report. NaN and infinity do not count. With `log`, mean and standard deviation are
    those of the logarithms of the positive values.

    Args:
        run: The run, from `population.read` or `controller.history()`.
        axes: The axes to draw on; None: those of a new figure.
        metric: "value", or the name of a reported metric.
        by: "step": over training steps. "generation": over the number of branches that
            a member has had; it counts with the last report before the next branch.
        bins: With more different steps than this they are put together in so many bins
            of equal width.
        log: Whether the axis of values is logarithmic.
        label: What the metric is called in the picture; None: its own name.

    Returns:
        The axes.

    Raises:
        ValueError: The run has no such metric, `by` is unknown, or `bins` not positive.
    """
    if by not in (STEP, GENERATION):
        raise ValueError(f"by must be {STEP!r} or {GENERATION!r}, got {by!r}.")
    if type(bins) is not int or bins < 1:
        raise ValueError(f"bins must be a positive int, got {bins!r}.")
    source, axes = snapshot(run), canvas.new_axes(axes)
    values = source.metric(metric)
    places = source.step if by == STEP else branches_before(source)
    at = averages.grid(places[np.isfinite(values)], bins)
    table = averages.by_member(source.worker_id, places, values, at)
    kind = scales.fitting(ticks.LOG if log else ticks.LINEAR, values)
    table[~scales.on_scale(table, kind)] = np.nan
    logs = averages.spread(scales.forward(table, kind), source.mode)
    mean, low, high, best = (scales.backward(part, kind) for part in logs[:4])
    band = averages.Band(mean, low, high, best, logs.known)
    canvas.set_steps(axes, at, _AXES[by])
    kept = [part[np.isfinite(part)] for part in (band.mean, band.best)]
    drawn = np.concatenate(band[:4])
    canvas.set_values(axes, drawn, log, label or metric, np.concatenate(kept).tolist())
    labels = _draw(axes, at, band)
    canvas.label_ends(axes, labels)
    members = "1 member" if source.size == 1 else f"{source.size:,} members"
    of = "of the logarithms" if kind == ticks.LOG else "between members"
    mark = f"band: one standard deviation {of}"
    canvas.set_title(axes, f"Progress of {members}", mark)
    return axes


_AXES = {STEP: "training steps", GENERATION: "branches of a member"}


def branches_before(source: Snapshot) -> Ints:
    """Return how many branches the slot of each checkpoint had before it, `[N]`."""
    table = source.branches()
    is_branch = (table["kind"] == "branch").astype(np.int64)
    order = np.argsort(table["worker_id"], kind="stable")
    workers, total = table["worker_id"][order], np.cumsum(is_branch[order])
    first = np.searchsorted(workers, workers)
    number = np.empty(len(order), np.int64)
    number[order] = total - total[first] + is_branch[order][first]
    return number[source.checkpoints()["generation"]]


def _draw(axes: Axes, at: Ints, band: averages.Band) -> list[Label]:
    """Draw a band; return the labels of its lines."""
    known = np.flatnonzero(np.isfinite(band.mean))
    if not known.size:
        return []
    shade: Style = {"color": canvas.BLUE, "linewidth": 0, "zorder": 1}
    axes.fill_between(at[known], band.low[known], band.high[known], alpha=0.2, **shade)
    dots = "o" if known.size == 1 else ""
    if dots:  # A band of one step has no width.
        wide: Style = {"color": canvas.BLUE, "alpha": 0.2, "linewidth": 12}
        axes.vlines(at[known], band.low[known], band.high[known], **wide)
    lines: list[tuple[Floats, str, str, str]] = [
        (band.mean, "mean", canvas.BLUE, "-"),
        (band.best, "best", canvas.VERMILLION, "--"),
    ]
    labels = []
    for numbers, name, colour, dash in lines:
        look: Style = {
            "color": colour,
            "linewidth": 2.0,
            "linestyle": dash,
            "marker": dots,
        }
        axes.plot(at[known], numbers[known], zorder=3, **look)
        last = float(numbers[known[-1]])
        labels.append((last, f"{name} {short(last)}", colour))
    return labels
