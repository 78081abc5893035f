"""The nearest ancestor that counts, of all checkpoints at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def known_ancestors(parent: Ints, known: npt.NDArray[np.bool_]) -> Ints:
    """Return the nearest ancestor of each checkpoint that is known, or -1.

    Each pass doubles how far back those look that have found none yet.

    Args:
        parent: `[N]` the index of each checkpoint's parent; -1 for a root.
        known: `[N]` which checkpoints count.
    """
    size = len(parent)
    # The entry at the end stands for "none", and is what an index of -1 finds.
    at = np.append(np.where(known, np.arange(size), parent), -1)
    while True:
        further = at[at]
        if np.array_equal(further, at):
            return at[parent]
        at = further
