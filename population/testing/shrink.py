"""Shortens a sequence as far as it still shows something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def shrink(
    items: Sequence[Item],
    shows: Callable[[tuple[Item, ...]], bool],
    join: Callable[[Item, Item], Item | None] = lambda earlier, later: None,
) -> tuple[Item, ...]:
    """Return a shorter sequence that still shows it; the same one every time.

    No single item can be left out of the result, and no two items can be joined, as in
    the minimising delta debugging of Zeller and Hildebrandt (2002).

    Args:
        items: A sequence that shows it.
        shows: Whether a sequence shows it.
        join: Returns one item for two, to replace the later one; or None.
    """
    best = tuple(items)
    while True:
        shorter = _joined(_thinned(best, shows), shows, join)
        if len(shorter) == len(best):
            return shorter
        best = shorter


def _thinned(
    best: tuple[Item, ...], shows: Callable[[tuple[Item, ...]], bool]
) -> tuple[Item, ...]:
    """Leave out halves, quarters, and so on down to single items."""
    size = max(len(best) // 2, 1)
    while size:
        start = 0
        while start < len(best):
            shorter = best[:start] + best[start + size :]
            if shows(shorter):
                best = shorter
            else:
                start += size
        size //= 2
    return best


def _joined(
    best: tuple[Item, ...],
    shows: Callable[[tuple[Item, ...]], bool],
    join: Callable[[Item, Item], Item | None],
) -> tuple[Item, ...]:
    """Join an item with the next one that it can be joined with."""
    first = 0
    while first < len(best):
        for second in range(first + 1, len(best)):
            both = join(best[first], best[second])
            if both is None:
                continue
            between, after = best[first + 1 : second], best[second + 1 :]
            shorter = (*best[:first], *between, both, *after)
            if shows(shorter):
                best, first = shorter, first - 1
            break
        first += 1
    return best
