"""The tree of lineages: who was copied from whom, when, and what became of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize

from population.report.pictures import averages, canvas, layout, scales, ticks
from population.report.pictures.canvas import Style
from population.report.pictures.lineages import Bools, Floats, Ints
from population.report.pictures.snapshot import VALUE, Drawable, Snapshot, snapshot

_MOST_PIECES = 100_000  # There are about so many at most.
_COLUMNS = 60, 600  # Along the steps: colours change at most so often.
_LABELLED = 36  # Up to so many rows, each living end is named.
_DEAD = "#BBBBBB"


class Pieces(NamedTuple):
    """Parts of spans between two reports, each with the number of the later one.

    Attributes:
        span: `[P]` the span of each.
        begin, end: `[P]` its steps.
        number: `[P]` what its colour shows; NaN: not known.
        alive: `[P]` whether a slot still trains what comes from it.
    """

    span: Ints
    begin: Ints
    end: Ints
    number: Floats
    alive: Bools


def lineage_tree(
    run: Drawable,
    axes: Axes | None = None,
    *,
    colour: str = VALUE,
    label: str | None = None,
) -> Axes:
    """Draw each generation as a row over steps, and each fork as a vertical line.

    What goes on from the end of a generation stays in its row; what was copied from the
    middle of it, or besides, has a row below. Thick rows live on: a member still trains
    what came from them. Thin pale ones were given up. The lineage of the best has an
    orange edge. Rows have no order but that of the forks.

    Args:
        run: The run, from `population.read` or `controller.history()`.
        axes: The axes to draw on; None: those of a new figure.
        colour: What the colours show: "value", or the name of a reported metric.
        label: What it is called in the picture; None: its own name.

    Returns:
        The axes; a colour bar lies beside them.

    Raises:
        ValueError: The run has no such metric.
    """
    source = snapshot(run)
    values = source.metric(colour)
    pieces = pieces_of(source, values)
    best = source.spans_of(source.best)
    favoured = np.isin(np.arange(len(source.spans.begin)), best)
    alive = np.zeros(len(favoured), bool)
    alive[pieces.span[pieces.alive]] = True
    rows = layout.rows_of(source.spans, favoured, alive)
    height = int(rows.max(initial=0)) + 1
    axes = canvas.new_axes(axes, float(np.clip(3 + height / 20, 4, 9)))
    canvas.set_steps(axes, source.step)
    axes.set_ylim(height - 0.4, -0.6)
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)
    width = float(np.clip(0.6 * canvas.height_in_points(axes) / height, 0.5, 5.0))
    _draw_forks(axes, source, rows, alive, width)
    shown = _draw_pieces(axes, pieces, rows, width, source.mode)
    _draw_best(axes, source, rows, width)
    _draw_ends(axes, source, rows, height)
    canvas.add_colour_bar(
        axes,
        shown,
        label or colour,
        ticks.LOG if isinstance(shown.norm, LogNorm) else ticks.LINEAR,
        extend=_beyond(shown.norm, values),
    )
    _explain(axes, source, height)
    return axes


def pieces_of(source: Snapshot, values: Floats) -> Pieces:
    """Return the parts of the spans between reports, merged where they are too short.

    Args:
        source: The run.
        values: `[N]` what the colours show; NaN is not known.
    """
    columns, spans = source.checkpoints(), source.spans
    place = np.full(len(source.branches()["parent"]), -1)
    place[spans.generation] = np.arange(len(spans.generation))
    owner = place[columns["generation"]]
    chosen = np.flatnonzero(owner >= 0)
    order = chosen[
        np.lexsort([columns["row"][chosen], source.step[chosen], owner[chosen]])
    ]
    owner, step = owner[order], source.step[order]
    low, high = int(step.min(initial=0)), int(step.max(initial=1))
    pixels = int(np.clip(_MOST_PIECES // max(source.size, 1), *_COLUMNS))
    bins = (step - low) * pixels // max(high - low, 1)
    if high - low <= pixels:
        bins = step
    last = np.append((np.diff(bins) != 0) | (np.diff(owner) != 0), [True][: len(order)])
    owner, step, number = owner[last], step[last], values[order][last]
    first = np.append([True][: len(owner)], np.diff(owner) != 0)
    begin = np.where(first, spans.begin[owner], np.roll(step, 1))
    return Pieces(owner, begin, step, number, source.alive[order][last])


def norm_of(values: Floats) -> Normalize:
    """Return how values become colours: logarithmic if they span many decades.

    A few values far from the others have the colours of the ends.
    """
    known = values[np.isfinite(values)]
    if not known.size:
        return Normalize(0, 1)
    kind = ticks.LINEAR
    if known.min() > 0 and known.max() > 10 * known.min():
        kind = ticks.LOG
    low, high = averages.robust_range(scales.forward(known, kind))
    low, high = scales.backward([low, high], kind).tolist()
    if low == high:
        low, high = scales.value_range(known, kind)
    return LogNorm(low, high) if kind == ticks.LOG else Normalize(low, high)


def _draw_pieces(
    axes: Axes, pieces: Pieces, rows: Ints, width: float, mode: str
) -> LineCollection:
    """Draw the rows, and return what the colour bar describes."""
    height = rows[pieces.span]
    bars = np.stack(
        [np.column_stack([x, height]) for x in (pieces.begin, pieces.end)], axis=1
    )
    norm, known = norm_of(pieces.number), np.isfinite(pieces.number)
    for chosen, colour in ((~known & ~pieces.alive, _DEAD), (~known, canvas.GREY)):
        thin: Style = {"linewidths": 0.5 * width, "colors": colour, "zorder": 2}
        canvas.add_lines(axes, list(bars[chosen]), **thin)
    style: Style = {"norm": norm, "capstyle": "butt"}
    colours = canvas.RISING if mode == "max" else canvas.FALLING
    style["antialiaseds"] = False  # Else there are seams between the pieces.
    for alive in (False, True):
        chosen = known & (pieces.alive == alive)
        look: Style = {"linewidths": 0.5 * width, "zorder": 2}
        look["cmap"] = colours if alive else canvas.paler(colours)
        if alive:
            look |= {"linewidths": width, "zorder": 3}
        shown = canvas.add_lines(axes, list(bars[chosen]), **style, **look)
        shown.set_array(pieces.number[chosen])
    return shown


def _draw_forks(
    axes: Axes, source: Snapshot, rows: Ints, alive: Bools, width: float
) -> None:
    """Draw a vertical line from each span to those that were copied from it."""
    spans = source.spans
    forks = np.flatnonzero(spans.parent >= 0)
    lines = np.stack(
        [
            np.column_stack([spans.begin[forks], rows[spans.parent[forks]]]),
            np.column_stack([spans.begin[forks], rows[forks]]),
        ],
        axis=1,
    )
    looks: dict[bool, Style] = {
        False: {"colors": _DEAD, "alpha": 0.7, "zorder": 1},
        True: {"colors": "#444444", "alpha": 0.9, "zorder": 1.5},
    }
    for living, look in looks.items():
        chosen = list(lines[alive[forks] == living])
        thin = float(np.clip(0.4 * width, 0.3, 1.0))
        canvas.add_lines(axes, chosen, linewidths=thin, **look)


def _draw_best(axes: Axes, source: Snapshot, rows: Ints, width: float) -> None:
    """Draw an orange edge around the lineage of the best, and a star at its end."""
    if source.best < 0:
        return
    path = source.spans_of(source.best)
    ends = np.append(source.spans.begin[path[1:]], source.step[source.best])
    begins = source.spans.begin[path]
    steps = np.column_stack([begins, ends]).ravel()
    heights = np.repeat(rows[path], 2)
    edge: Style = {"color": canvas.VERMILLION, "zorder": 1.8, "solid_capstyle": "butt"}
    axes.plot(steps, heights, linewidth=width + 1.8, **edge)
    end = int(source.step[source.best]), int(rows[path[-1]])
    star: Style = {"markersize": 11, "markerfacecolor": "#F0E442", "color": "#000000"}
    axes.plot(*end, "*", **star, zorder=6)


def _draw_ends(axes: Axes, source: Snapshot, rows: Ints, height: int) -> None:
    """Mark what ended without a successor, and name the members that train on."""
    spans = source.spans
    last = {int(worker): place for place, worker in enumerate(spans.worker_id)}
    trains = [place for place in last.values() if not spans.retired[place]]
    at_end = (spans.parent >= 0) & (spans.begin >= spans.end[spans.parent])
    ends = np.setdiff1d(np.arange(len(rows)), [*trains, *spans.parent[at_end]])
    if height <= 2 * _LABELLED and ends.size:
        cross: Style = {"color": canvas.GREY, "markersize": 4, "zorder": 2.5}
        axes.plot(spans.end[ends], rows[ends], "x", **cross)
    if height > _LABELLED:
        return
    for place in trains:
        name = "member " * (height <= 12) + str(spans.worker_id[place])
        axes.annotate(
            name,
            (spans.end[place], rows[place]),
            (10, 0),
            textcoords="offset points",
            va="center",
            fontsize="x-small" if height > 12 else "small",
            annotation_clip=False,
        )


def _beyond(norm: Any, values: Floats) -> Any:
    """Return at which ends of a colour bar there are values outside."""
    known = values[np.isfinite(values)]
    if not known.size or norm.vmin is None or norm.vmax is None:
        return "neither"
    tiny = 1e-9 * max(abs(norm.vmin), abs(norm.vmax))
    below = bool(known.min() < norm.vmin - tiny)
    above = bool(known.max() > norm.vmax + tiny)
    names = {(True, True): "both", (True, False): "min", (False, True): "max"}
    return names.get((below, above), "neither")


def _explain(axes: Axes, source: Snapshot, height: int) -> None:
    """Write the title, and what the marks are."""
    marks = ["thick: lives on", "thin: given up"]
    if height <= 2 * _LABELLED:
        marks.append("cross: its end")
    if source.best >= 0:
        marks.append("orange edge and star: the best")
    members = "1 member" if source.size == 1 else f"{source.size:,} members"
    canvas.set_title(axes, f"Lineages of {members}", ", ".join(marks))
