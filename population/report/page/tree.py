"""The tree of generations: which are shown, and in which row each one is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_BINS = 400  # Of the steps: parts of the tree that share one do not share a row.


def chosen(parents: Sequence[int], ends: Iterable[int], most: int) -> list[int]:
    """Return the generations to show, ascending, each with all its ancestors.

    Args:
        parents: The parent of each generation, -1 for none; always an earlier one.
        ends: The generations whose lineages come first, if not all fit.
        most: The number of generations that fit. After the lineages come others, spread
            over the run.
    """
    count = len(parents)
    if count <= most:
        return list(range(count))
    found: set[int] = set()
    # Multiples of the golden ratio: any first part of them is spread evenly.
    spread = sorted(range(count), key=lambda one: one * 0.6180339887498949 % 1)
    for end in [*ends, *spread]:
        path = []
        while end >= 0 and end not in found:
            path.append(end)
            end = parents[end]
        if len(found) + len(path) <= most:
            found.update(path)
        if len(found) == most:
            break
    return sorted(found)


def rows(
    parents: Sequence[int],
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
    first: Iterable[int] = (),
) -> list[int]:
    """Return the row of each generation, such that no line crosses another one.

    A generation is a horizontal line over its steps; a vertical line at its first step
    leads up to its parent. The one that continues its parent longest shares its row;
    the others are below, those that branch off later nearer.

    Args:
        parents: The parent of each generation, -1 for none; always an earlier one.
        begins: The first step of each, shape [generations].
        ends: The last step of each.
        first: Generations that continue the rows of their parents in any case, as
            those of the winner.
    """
    low, high = int(begins.min(initial=0)), int(ends.max(initial=1))
    scale = (_BINS - 1) / max(1, high - low)
    spans = [((part - low) * scale).astype(int).tolist() for part in (begins, ends)]
    children: list[list[int]] = [[] for _ in parents]
    for index, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(index)
    preferred = set(first)
    furthest = ends.tolist()
    for index in range(len(parents) - 1, -1, -1):
        if parents[index] >= 0:
            furthest[parents[index]] = max(furthest[parents[index]], furthest[index])
    ranks = [
        (index in preferred, furthest[index], -index) for index in range(len(parents))
    ]
    below = [0] * len(parents)
    heights: dict[int, NDArray[np.int64]] = {}
    for index in range(len(parents) - 1, -1, -1):
        height = np.full(_BINS, -1)
        height[spans[0][index] : spans[1][index] + 1] = 0
        rest = children[index]
        follows = [child for child in rest if begins[child] >= ends[index]]
        if follows:
            heir = max(follows, key=ranks.__getitem__)
            rest = [child for child in rest if child != heir]
            height = np.maximum(height, heights.pop(heir))
        for child in sorted(rest, key=lambda one: (-begins[one], -furthest[one], one)):
            below[child] = _place(height, heights.pop(child))
        heights[index] = height
    return _added_up(parents, below, ranks, heights)


def _place(height: NDArray[np.int64], added: NDArray[np.int64]) -> int:
    """Put a part of the tree below what is there; return by how many rows.

    Args:
        height: The lowest row at each step, -1 for none; changed.
        added: The same of the part to add, counted from its own first row.
    """
    used = np.flatnonzero(added >= 0)
    within = slice(used[0], used[-1] + 1)
    offset = max(0, int(height[within].max())) + 1
    moved = np.where(added[within] >= 0, added[within] + offset, -1)
    height[within] = np.maximum(height[within], moved)
    return offset


def _added_up(
    parents: Sequence[int],
    below: list[int],
    ranks: Sequence[tuple[bool, int, int]],
    heights: dict[int, NDArray[np.int64]],
) -> list[int]:
    """Return the rows of all generations, one tree below the other."""
    roots = [index for index, parent in enumerate(parents) if parent < 0]
    free = 0
    for root in sorted(roots, key=ranks.__getitem__, reverse=True):
        below[root] = free
        free += int(heights[root].max()) + 1
    for index, parent in enumerate(parents):
        if parent >= 0:
            below[index] += below[parent]
    return below
