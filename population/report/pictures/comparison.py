"""Several runs against each other: the best value so far, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from population.report.hyperparameters import short
from population.report.pictures import averages, canvas, scales, ticks
from population.report.pictures.averages import Band
from population.report.pictures.canvas import Label, Style
from population.report.pictures.lineages import Floats
from population.report.pictures.scales import Scale
from population.report.pictures.snapshot import VALUE, Drawable, Snapshot, snapshot

STEP, REPORT = "step", "report"
_POINTS = 300  # Of a line.


def compare(
    groups: Mapping[str, Sequence[Drawable]],
    axes: Axes | None = None,
    *,
    by: str = STEP,
    metric: str = VALUE,
    log: bool = False,
    label: str | None = None,
) -> Axes:
    """Draw the best value so far of groups of runs, for example PBT and random search.

    Each line is the mean of the runs of a group, which should differ in their seed
    only. The band is its 95 % interval by Student's t, which assumes that the values of
    the runs are roughly normal; a single run has none. With `log` both are those of the
    logarithms. A line ends where the first run of its group ends.

    Args:
        groups: The runs of each group by its name.
        axes: The axes to draw on; None: those of a new figure.
        by: "step": over the training steps of a member. "report": over the number of
            values reported by all members, which compares populations of different
            sizes at equal cost.
        metric: "value", or the name of a reported metric. What is better follows from
            the mode of the runs in any case.
        log: Whether the axis of values is logarithmic.
        label: What the metric is called in the picture; None: its own name.

    Returns:
        The axes.

    Raises:
        ValueError: A group has no run, the runs have different modes or no such metric,
            or `by` is unknown.
    """
    if by not in (STEP, REPORT):
        raise ValueError(f"by must be {STEP!r} or {REPORT!r}, got {by!r}.")
    sources = _sources(groups)
    mode = _mode(sources.values())
    axes = canvas.new_axes(axes)
    bands = {
        name: best_over(runs, metric, by, mode, log) for name, runs in sources.items()
    }
    everywhere = np.concatenate([at for at, _ in bands.values()])
    text = "training steps" if by == STEP else "reports of all members"
    canvas.set_steps(axes, everywhere.astype(np.int64), text)
    drawn = np.concatenate([np.concatenate(b[:3]) for _, b in bands.values()])
    means = np.concatenate([band.mean for _, band in bands.values()])
    kept = means[np.isfinite(means)].tolist()
    canvas.set_values(axes, drawn, log, f"best {label or metric} so far", kept)
    labels = []
    for place, (name, (at, band)) in enumerate(bands.items()):
        look = _look(place)
        labels += _draw_band(axes, at, band, name, look, len(sources[name]))
    canvas.label_ends(axes, labels)
    most = max(map(len, sources.values()))
    mark = "mean of the runs" + (", band: its 95 % interval" if most > 1 else "")
    canvas.set_title(axes, f"Best {canvas.plain(label or metric)} so far", mark)
    return axes


def compare_sizes(
    sizes: Mapping[int, Sequence[Drawable]],
    axes: Axes | None = None,
    *,
    metric: str = VALUE,
    name: str = "",
    log: bool = False,
    label: str | None = None,
) -> Axes:
    """Draw the best value of runs by the size of their population.

    A dot is a run, a line their mean, a bar its 95 % interval by Student's t, which
    assumes that the values of the runs are roughly normal; a single run has none. With
    `log` both are those of the logarithms. Call it again on the same axes for another
    policy.

    Args:
        sizes: The runs of each size; they should differ in their seed only.
        axes: The axes to draw on; None: those of a new figure.
        metric: "value", or the name of a reported metric.
        name: What these runs are called, written beside the line.
        log: Whether the axis of values is logarithmic.
        label: What the metric is called in the picture; None: its own name.

    Returns:
        The axes.

    Raises:
        ValueError: A size has no run, or the runs have different modes or no such
            metric.
    """
    sources = _sources(sizes)
    mode = _mode(sources.values())
    axes = canvas.new_axes(axes)
    numbers = {
        size: _bests(runs, metric, mode) for size, runs in sorted(sources.items())
    }
    at = np.array([*numbers], np.float64)
    bands = [_interval(row[:, None], mode, log) for row in numbers.values()]
    mean, low, high = (
        np.array([getattr(band, part)[0] for band in bands])
        for part in ("mean", "low", "high")
    )
    every = np.concatenate([*numbers.values(), mean, low, high])
    _set_sizes(axes, at)
    kept = mean[np.isfinite(mean)].tolist()
    canvas.set_values(axes, every, log, f"best {label or metric}", kept)
    place = len(axes.containers)
    if axes.get_xscale() == "log":  # Beside the bars of earlier calls.
        at = at * 1.04**place
    look, means = _look(place), (mean, low, high)
    labels = _draw_sizes(axes, [*numbers.values()], at, means, name, look)
    canvas.label_ends(axes, labels)
    title = f"Best {canvas.plain(label or metric)} by size of the population"
    canvas.set_title(axes, title, "dot: a run, line: mean, bar: its 95 % interval")
    return axes


def best_over(
    runs: Sequence[Snapshot], metric: str, by: str, mode: str, log: bool = False
) -> tuple[Floats, Band]:
    """Return places, and the mean of the best value of the runs up to each of them.

    Args:
        runs: The runs of a group.
        metric: "value", or the name of a metric.
        by: "step" or "report".
        mode: "min" or "max".
        log: Whether to take the mean of the logarithms.
    """
    places, values = [], []
    for run in runs:
        found = run.metric(metric)
        known = np.isfinite(found)
        steps = run.step if by == STEP else np.cumsum(known)
        places.append(steps[known].astype(np.float64))
        values.append(found[known])
    ends = [float(steps.max()) for steps in places if steps.size]
    if not ends:
        return np.empty(0), _interval(np.empty((1, 0)), mode, log)
    every = np.concatenate(places).astype(np.int64)
    at = averages.grid(every[every <= min(ends)], _POINTS).astype(np.float64)
    rows = [
        averages.best_so_far(steps, found, at, mode)
        for steps, found in zip(places, values, strict=True)
        if steps.size
    ]
    table = np.stack(rows)
    begun = np.isfinite(table).all(axis=0)  # Where a mean is of all runs.
    return at[begun], _interval(table[:, begun], mode, log)


def _interval(table: Floats, mode: str, log: bool) -> Band:
    """Return means and intervals of columns, or those of their logarithms.

    The latter only if all numbers are positive.
    """
    known = table[np.isfinite(table)]
    kind = ticks.LOG if log and (known > 0).all() else ticks.LINEAR
    band = averages.interval(scales.forward(table, kind), mode)
    mean, low, high, best = (scales.backward(part, kind) for part in band[:4])
    return Band(mean, low, high, best, band.known)


def _sources(groups: Mapping[Any, Sequence[Drawable]]) -> dict[Any, list[Snapshot]]:
    """Return the runs of each group, read once."""
    empty = [name for name, runs in groups.items() if not len(runs)]
    if empty or not groups:
        raise ValueError(
            f"Each group needs a run or more, got none for {empty}."
            if empty
            else "compare needs groups of runs, got an empty dict."
        )
    return {name: [snapshot(run) for run in runs] for name, runs in groups.items()}


def _mode(groups: Any) -> str:
    """Return the mode that all runs have."""
    modes = {run.mode for runs in groups for run in runs}
    if len(modes) != 1:
        raise ValueError(
            "The runs must have one mode, got runs with 'min' and runs with 'max'."
        )
    return str(modes.pop())


def _bests(runs: Sequence[Snapshot], metric: str, mode: str) -> Floats:
    """Return the best value of each run, `[R]`; NaN for none."""
    found = []
    for run in runs:
        values = run.metric(metric)
        best = averages.best_of(values, mode)
        found.append(values[best] if best >= 0 else np.nan)
    return np.array(found, np.float64)


def _look(place: int) -> tuple[str, str]:
    """Return the colour and the marker of a group."""
    count = len(canvas.COLOURS)
    return canvas.COLOURS[place % count], canvas.MARKERS[place % count]


def _draw_band(
    axes: Axes, at: Floats, band: Band, name: str, look: tuple[str, str], runs: int
) -> list[Label]:
    """Draw a mean and its interval; return its label."""
    if not len(at):
        return []
    colour, marker = look
    shade: Style = {"color": colour, "linewidth": 0, "alpha": 0.2, "zorder": 1}
    axes.fill_between(at, band.low, band.high, step="post", **shade)
    line: Style = {"color": colour, "linewidth": 2.0, "zorder": 3}
    axes.plot(at, band.mean, drawstyle="steps-post", **line)
    axes.plot(at[-1:], band.mean[-1:], marker, color=colour, markersize=6, zorder=4)
    last = float(band.mean[-1])
    text = f"{canvas.plain(name, 24)}\n{short(last)}"
    if runs > 1 and np.isfinite(band.high[-1]):
        text += f" ({short(float(band.low[-1]))} to {short(float(band.high[-1]))})"
    return [(last, text, colour)]


def _set_sizes(axes: Axes, at: Floats) -> None:
    """Give a picture its axis of sizes; if they are three or more, ticks are there."""
    kind = ticks.LOG if at.min() > 0 and at.max() >= 4 * at.min() else ticks.LINEAR
    ends = scales.full_range(at, Scale(kind))
    canvas.set_axis(axes.xaxis, Scale(kind), ends)
    axes.set_xlabel("members")
    canvas.set_grid(axes)
    if ticks.LEAST <= len(at) <= 12:
        axes.xaxis.set_major_locator(FixedLocator(at.tolist()))


def _draw_sizes(
    axes: Axes,
    numbers: Sequence[Floats],
    at: Floats,
    means: tuple[Floats, Floats, Floats],
    name: str,
    look: tuple[str, str],
) -> list[Label]:
    """Draw dots, means and intervals; return the label."""
    colour, marker = look
    for size, row in zip(at, numbers, strict=True):
        dots: Style = {"color": colour, "markersize": 3, "alpha": 0.4}
        axes.plot([size] * len(row), row, "o", zorder=2, **dots)
    mean, low, high = means
    error = np.nan_to_num(np.stack([mean - low, high - mean]))
    style: Style = {"color": colour, "linewidth": 1.8, "markersize": 5}
    axes.errorbar(at, mean, yerr=error, fmt=f"-{marker}", capsize=3, zorder=3, **style)
    known = mean[np.isfinite(mean)]
    return [(float(known[-1]), canvas.plain(name, 24), colour)] if known.size else []
