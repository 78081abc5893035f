"""The best stretch of a lineage: several values in a row, not one lucky value."""

from __future__ import annotations

import numpy as np

from population.reader.ancestors import known_ancestors
from population.reader.columns import RunColumns


def best_window(checkpoints: RunColumns, window: int, sign: float) -> int | None:
    """Return the place of the checkpoint that ends the best stretch of its lineage.

    Args:
        checkpoints: All checkpoints.
        window: The number of values in a stretch, the last of which is the
            checkpoint's own; the mean of all counts.
        sign: 1.0 if a smaller value is better, else -1.0.

    Returns:
        Its place in the columns, the first one on ties. None: no lineage has so many
        values, all of them finite.
    """
    has, values = checkpoints["has_value"], checkpoints["value"]
    before = known_ancestors(checkpoints["parent"], has)
    ends = np.flatnonzero(has)
    total, at = np.zeros(len(ends)), ends.copy()
    for number in range(window):
        total += values[at]
        if number < window - 1:
            at = before[at]
            longer = at >= 0
            ends, total, at = ends[longer], total[longer], at[longer]
    finite = np.isfinite(total)
    if not finite.any():
        return None
    return int(ends[finite][np.argmin(sign * total[finite])])
