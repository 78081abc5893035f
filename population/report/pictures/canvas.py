"""What all pictures share: axes, colours, ticks, texts, labels at the ends of lines.

No picture uses `pyplot`, and none changes a setting of matplotlib.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps, font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, Formatter, Locator, NullLocator

from population.base import codec
from population.report.pictures import layout, scales, ticks
from population.report.pictures.lineages import Floats, Ints
from population.report.pictures.scales import Scale

# Okabe and Ito (2008): colours that the colour-blind can tell apart.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY, BLACK = "#CC79A7", "#E69F00", "#56B4E9", "#000000"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, "#777777")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "#8C8C8C"
FEW = 8  # Up to so many members have a colour and a label each.
SMALL = "small"
EXPLANATION = "explanation"  # The id of the text that says what the marks are.
Style = dict[str, Any]
Label = tuple[float, str, str]  # Its height on the axis, text and colour.
_REMARK: Style = {"fontsize": "x-small", "color": "#555555", "zorder": 5}
# Without the end that is too pale for thin lines on white; dark is late, or good.
RISING = ListedColormap(colormaps["viridis_r"](np.linspace(0.08, 1, 256)), "rising")
FALLING = RISING.reversed("falling")
_LINE_HEIGHT = 11.0  # Points between two labels.
_RASTER = 20_000  # Points of a line collection that is drawn as pixels, also in a PDF.


class EnoughTicks(Locator):
    """Places three ticks or more on an axis, whatever its range is.

    Args:
        kind: The kind of scale: "linear", "log" or "near one".
        most: The number of ticks that fit.
        whole: Whether the numbers are whole.
    """

    def __init__(self, kind: str, most: int = 7, whole: bool = False) -> None:
        super().__init__()
        self._kind, self._most, self._whole = kind, most, whole

    def __call__(self) -> Sequence[float]:
        """Return the ticks of the axis as it is now."""
        low, high = self.axis.get_view_interval()  # type: ignore[union-attr]
        return self.tick_values(low, high)

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Return the ticks for a range."""
        low, high = sorted((float(vmin), float(vmax)))
        return ticks.ticks(low, high, self._kind, most=self._most, whole=self._whole)


class TickTexts(Formatter):
    """Writes ticks with as many digits as tell them apart."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Return the text of one number, for example under the mouse."""
        del pos
        return ticks.number_text(x, 4, exponent=False)

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """Return the texts of the ticks."""
        return ticks.texts(values)


class CategoryTexts(Formatter):
    """Writes the names of categories.

    Args:
        categories: Their texts; the places are 0, 1, ...
    """

    def __init__(self, categories: Sequence[str]) -> None:
        self._categories = categories

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Return the category at a place, or nothing between two of them."""
        del pos
        place = round(x)
        if place != x or not 0 <= place < len(self._categories):
            return ""
        return plain(self._categories[place], 24)


def new_axes(axes: Axes | None, height: float = 5.0) -> Axes:
    """Return the given axes, or those of a new figure of this height in inches."""
    if axes is not None:
        return axes
    return Figure(figsize=(8, height), layout="constrained").subplots()


def set_axis(
    axis: Axis, scale: Scale, ends: tuple[float, float], most: int = 7
) -> None:
    """Give an axis its scale, range and ticks; what it has shown stays inside.

    Args:
        axis: The axis, `axes.xaxis` or `axes.yaxis`.
        scale: The scale.
        ends: The range.
        most: The number of ticks that fit.
    """
    shown = axis.get_view_interval() if _is_ours(axis) else ends
    low, high = min(ends[0], shown[0]), max(ends[1], shown[1])
    axes, name = axis.axes, axis.axis_name  # type: ignore[attr-defined]
    if scale.kind == ticks.LOG:
        axes.set(**{f"{name}scale": "log"})
    elif scale.kind == ticks.NEAR_ONE:
        functions = (
            functools.partial(scales.forward, kind=scale.kind),
            functools.partial(scales.backward, kind=scale.kind),
        )
        getattr(axes, f"set_{name}scale")("function", functions=functions)
    axes.set(**{f"{name}lim": (low, high)})
    axis.set_minor_locator(NullLocator())
    if scale.kind == scales.CATEGORIES:
        stride = -(-len(scale.categories) // 12)
        axis.set_major_locator(FixedLocator(range(0, len(scale.categories), stride)))
        axis.set_major_formatter(CategoryTexts(scale.categories))
    else:
        axis.set_major_locator(EnoughTicks(scale.kind, most))
        axis.set_major_formatter(TickTexts())


def set_steps(axes: Axes, steps: Ints, label: str = "training steps") -> None:
    """Give a picture its axis of steps, with whole numbers."""
    set_axis(axes.xaxis, Scale(ticks.LINEAR), scales.step_range(steps))
    axes.xaxis.set_major_locator(EnoughTicks(ticks.LINEAR, whole=True))
    axes.set_xlabel(label)
    set_grid(axes)


def set_grid(axes: Axes) -> None:
    """Draw a faint grid, and no frame above and at the right."""
    axes.grid(True, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def set_values(
    axes: Axes, values: Floats, log: bool, label: str, always: Sequence[float] = ()
) -> None:
    """Give a picture its axis of values, and note in a corner what is not on it.

    Args:
        axes: The axes.
        values: All values.
        log: Whether the axis is logarithmic, if any value is positive.
        label: What the values are called.
        always: Values that must be visible.
    """
    kind = scales.fitting(ticks.LOG if log else ticks.LINEAR, values)
    ends = scales.value_range(values, kind, always)
    set_axis(axes.yaxis, Scale(kind), ends)
    axes.set_ylabel(plain(label))
    known = values[np.isfinite(values)]
    low, high = axes.get_ylim()
    notes = []
    if not known.size:
        notes.append("no finite value")
    elif log and kind != ticks.LOG:
        notes.append("no value above 0 for a logarithmic axis")
    if above := known[known > high].tolist():
        notes.append(f"{len(above)} values above, up to {max(above):.3g}")
    below = known[known < low].tolist()
    if below and kind == ticks.LOG and min(below) <= 0:
        notes.append(f"{len(below)} values below, down to {min(below):.3g}")
    elif below:
        notes.append(f"{len(below)} values below, from {min(below):.3g}")
    if notes:
        add_note(axes, "; ".join(notes))


def add_note(axes: Axes, text: str) -> None:
    """Write a remark into the upper right corner of a picture."""
    place: Style = {"transform": axes.transAxes, "ha": "right", "va": "top"}
    axes.text(0.99, 0.985, text, **place, **_REMARK)


def set_title(axes: Axes, title: str, explanation: str = "") -> None:
    """Write the title, and below it what the marks mean."""
    for text in [text for text in axes.texts if text.get_gid() == EXPLANATION]:
        text.remove()  # Of an earlier picture on the same axes.
    if explanation:
        axes.set_title(f"{title}\n", loc="left", fontsize="medium")
        place: Style = {"xycoords": "axes fraction", "textcoords": "offset points"}
        found = axes.annotate(
            explanation, (0, 1), (0, 5), va="bottom", **place, **_REMARK
        )
        found.set_gid(EXPLANATION)
    else:
        axes.set_title(title, loc="left", fontsize="medium")


def add_lines(axes: Axes, segments: Sequence[Floats], **style: Any) -> LineCollection:
    """Draw many lines at once; many points as pixels, also in a PDF."""
    collection = LineCollection(segments, **style)
    collection.set_rasterized(sum(map(len, segments)) > _RASTER)
    axes.add_collection(collection, autolim=False)
    return collection


def label_ends(axes: Axes, labels: Sequence[Label], size: str = SMALL) -> None:
    """Write labels beside the right edge, at the heights of what they name.

    Labels that would overlap are moved apart. Call it when the axis has its range.

    Args:
        axes: The axes.
        labels: For each its height in data coordinates, its text and its colour.
        size: The size of the font.
    """
    if not labels:
        return
    low, high = axes.get_ylim()
    inside = [(0.0, min(max(height, low), high)) for height, _, _ in labels]
    places = axes.transAxes.inverted().transform(axes.transData.transform(inside))
    line = _LINE_HEIGHT / max(height_in_points(axes), 1.0)
    heights = [line * (1 + text.count("\n")) for _, text, _ in labels]
    found = layout.apart(places[:, 1].tolist(), heights)
    for place, (_, text, colour) in zip(found, labels, strict=True):
        style: Style = {"color": colour, "fontsize": size, "va": "center"}
        axes.annotate(
            text,
            (1, place),
            (5, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            annotation_clip=False,
            **style,
        )


def paler(colours: Colormap) -> Colormap:
    """Return a colour map, mixed with as much white."""
    mixed = 0.5 + 0.5 * colours(np.linspace(0, 1, 256))
    return ListedColormap(mixed, f"pale {colours.name}")


def add_colour_bar(
    axes: Axes | Sequence[Axes],
    shown: Any,
    label: str,
    kind: str = ticks.LINEAR,
    *,
    whole: bool = False,
    extend: Literal["neither", "both", "min", "max"] = "neither",
) -> None:
    """Add a colour bar with three ticks or more."""
    first = axes if isinstance(axes, Axes) else axes[0]
    shape: Style = {"fraction": 0.05, "pad": 0.02, "aspect": 30}
    colours = ScalarMappable(shown.norm, shown.cmap)  # Without transparency.
    bar = first.figure.colorbar(
        colours, ax=axes, label=plain(label), extend=extend, **shape
    )
    bar.ax.yaxis.set_major_locator(EnoughTicks(kind, 6, whole))
    bar.ax.yaxis.set_major_formatter(TickTexts())
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.spines["outline"].set_visible(False)


def plain(text: str, most: int = 60) -> str:
    """Return a text as matplotlib shows it: in one line, and without formulas.

    Args:
        text: Any text.
        most: Of a longer one the middle is left out.
    """
    line = codec.readable(" ".join(text.split()))
    if len(line) > most:
        line = f"{line[: most // 2 - 1]}…{line[-(most // 2) :]}"
    file = font_manager.findfont(font_manager.FontProperties())
    known = _characters(file)
    line = "".join(c if ord(c) in known else ascii(c)[1:-1] for c in line)
    return line.replace("$", r"\$")


def height_in_points(axes: Axes) -> float:
    """Return the height of axes; before the layout is done, an estimate."""
    return float(axes.bbox.height) / _dpi(axes) * 72


def _dpi(axes: Axes) -> float:
    figure = axes.get_figure(root=True)
    return float(figure.dpi) if figure is not None else 100.0


def _is_ours(axis: Axis) -> bool:
    """Whether an earlier picture has set this axis."""
    return isinstance(axis.get_major_formatter(), (TickTexts, CategoryTexts))


@functools.cache
def _characters(file: str) -> frozenset[int]:
    """Return the characters of a font."""
    return frozenset(font_manager.get_font(file).get_charmap())
