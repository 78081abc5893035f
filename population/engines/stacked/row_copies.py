"""An order of row copies in which no row is overwritten before it was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple


class Plan(NamedTuple):
    """How to copy rows onto rows.

    Attributes:
        spared: Copies `(source, target)`, one of every cycle, whose source is read
            before all others and whose target is written after all others.
        chunks: Lists of `(source, target)`, one after the other. All sources of a chunk
            are read before any of its targets is written.
    """

    spared: list[tuple[int, int]]
    chunks: list[list[tuple[int, int]]]


def plan(sources: Mapping[int, int], size: int) -> Plan:
    """Order copies in chunks.

    Args:
        sources: By target, the row whose present content it is to get.
        size: The largest number of copies in a chunk.
    """
    left = {t: s for t, s in sources.items() if t != s}
    readers = Counter(left.values())
    spared: list[tuple[int, int]] = []
    ordered: list[tuple[int, int]] = []
    ready = sorted(target for target in left if not readers[target])
    while left:
        if not ready:  # Only cycles are left: open one.
            target = min(left)
            spared.append((left[target], target))
            ready += _done(left, readers, target)
            continue
        target = ready.pop()
        ordered.append((left[target], target))
        ready += _done(left, readers, target)
    chunks = [ordered[i : i + size] for i in range(0, len(ordered), size)]
    return Plan(spared, chunks)


def _done(left: dict[int, int], readers: Counter[int], target: int) -> list[int]:
    """Remove a copy from the plan; return its source if that can be overwritten now."""
    source = left.pop(target)
    readers[source] -= 1
    return [source] if source in left and not readers[source] else []
