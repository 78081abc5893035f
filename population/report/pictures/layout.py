"""Places in a picture: the rows of a tree without crossings, labels that stay apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from population.report.pictures.lineages import Bools, Floats, Ints, Spans

_BINS = 400  # The resolution of the steps when rows are shared.
_PLASTIC = 1.324717957244746
_GAPS = 50  # Spans in one row are at least this part of all steps apart.


def rows_of(found: Spans, favoured: Bools, alive: Bools) -> Ints:
    """Return a row for each span, so that no connection crosses another span.

    A span that continues another one at its end has its row; the others lie below it,
    those that fork later nearer. Spans that do not overlap may share a row.

    Args:
        found: The spans; one comes after the span that it continues.
        favoured: `[S]` which ones should continue in the row of the span before.
        alive: `[S]` which ones should do so, if none is favoured.

    Returns:
        `[S]` the rows, from 0.
    """
    count = len(found.parent)
    begin, end, bins = _binned(found)
    children = _children(found, favoured, alive)
    profiles: dict[int, Ints] = {}  # How many rows a span and all below it need.
    offset = np.zeros(count, np.int64)
    for span in reversed(range(-1, count)):
        if span not in children:
            continue  # Its profile is made where it is needed, as there may be many.
        profile = np.zeros(bins, np.int64)
        if span >= 0:
            profile[begin[span] : end[span]] = 1
        for child, continues in children[span]:
            own = profiles.pop(child, None)
            if own is None:
                own = np.zeros(bins, np.int64)
                own[begin[child] : end[child]] = 1
            used = np.flatnonzero(own)
            place = 0 if continues else int(profile[used[0] : used[-1] + 1].max())
            offset[child] = place
            profile = np.maximum(profile, np.where(own > 0, own + place, 0))
        profiles[span] = profile
    rows = np.zeros(count, np.int64)
    for span in range(count):
        above = found.parent[span]
        rows[span] = offset[span] + (rows[above] if above >= 0 else 0)
    return rows


def apart(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Return centres near the wanted ones, so that what is there does not overlap.

    Neighbours that are too near form a group around the mean of their wanted places;
    the order stays.

    Args:
        wanted: The wanted centres.
        heights: The height of each.
    """
    groups: list[tuple[float, float, list[int]]] = []  # Centre, height, members.
    for place in sorted(range(len(wanted)), key=lambda place: wanted[place]):
        centre, height, members = wanted[place], heights[place], [place]
        while groups and centre - groups[-1][0] < (height + groups[-1][1]) / 2:
            _, before, earlier = groups.pop()
            height, members = height + before, earlier + members
            centre = sum(wanted[member] for member in members) / len(members)
        groups.append((centre, height, members))
    found = [0.0] * len(wanted)
    for centre, height, members in groups:
        at = centre - height / 2
        for member in members:
            found[member] = at + heights[member] / 2
            at += heights[member]
    return found


def jitter(count: int) -> tuple[Floats, Floats]:
    """Return the coordinates of `count` points in a square around 0 with side 1.

    They are evenly spread, for any first so many of them, and the same each time: the
    multiples of the inverse of the plastic number and of its square, modulo 1.
    """
    at: Floats = np.arange(count, dtype=np.float64)
    return (at / _PLASTIC) % 1.0 - 0.5, (at / _PLASTIC**2) % 1.0 - 0.5


def _binned(found: Spans) -> tuple[Ints, Ints, int]:
    """Return where each span begins and its row is free again, and the number of bins.

    Between two spans that share a row there is a gap.
    """
    low, high = int(found.begin.min(initial=0)), int(found.end.max(initial=0))
    bins = min(_BINS, high - low + 1)
    scale = (bins - 1) / max(high - low, 1)
    begin = np.floor((found.begin - low) * scale).astype(np.int64)
    end = np.ceil((found.end - low) * scale).astype(np.int64)
    gap = bins // _GAPS
    return begin, end + 1 + gap, bins + 1 + gap


def _children(
    found: Spans, favoured: Bools, alive: Bools
) -> dict[int, list[tuple[int, bool]]]:
    """Return the children of each span, and whether each continues in its row.

    First the one that continues, then those that fork late before those that fork
    early. Roots are children of -1.
    """
    lists: dict[int, list[int]] = {}
    for span, parent in enumerate(found.parent.tolist()):
        lists.setdefault(parent, []).append(span)
    result: dict[int, list[tuple[int, bool]]] = {}
    for parent, spans in lists.items():
        straight = -1
        if parent >= 0:
            ends = found.end[parent]
            at_end = [span for span in spans if found.begin[span] >= ends]
            slot = found.worker_id[parent]
            straight = max(
                at_end,
                key=lambda s: (favoured[s], alive[s], found.worker_id[s] == slot, -s),
                default=-1,
            )
        rest = [span for span in spans if span != straight]
        rest.sort(key=lambda span: (-found.begin[span], found.worker_id[span]))
        chosen = [(straight, True)] if straight >= 0 else []
        result[parent] = chosen + [(span, False) for span in rest]
    return result
