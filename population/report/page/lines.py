"""Which checkpoints are drawn: the lines of workers and lineages, thinned out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from population.reader.ancestors import known_ancestors

GAP = -1  # Between two parts of a line.
Indices = NDArray[np.int64]
Columns = Mapping[str, NDArray[Any]]


def thinned(
    values: NDArray[np.float64], most: int, keep: NDArray[np.bool_] | None = None
) -> Indices:
    """Return the positions of the entries to draw, ascending.

    The entries are divided into parts of equal size. Drawn are the first, the last, the
    least and the greatest of each part, so that no extreme value disappears.

    Args:
        values: The values of a line in their order, shape [n]; NaN where there is none.
        most: Up to so many entries all are drawn; it is at least 4.
        keep: Entries that are drawn too, shape [n]; ignored if they are more than
            `most`.
    """
    count = len(values)
    if count <= most:
        return np.arange(count)
    low = np.where(np.isfinite(values), values, np.inf)
    high = np.where(np.isfinite(values), values, -np.inf)
    edges = np.linspace(0, count, max(1, most // 4) + 1).astype(np.int64)
    found = [edges[:-1], edges[1:] - 1]
    parts = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    for extremes in (
        [begin + int(low[begin:end].argmin()) for begin, end in parts],
        [begin + int(high[begin:end].argmax()) for begin, end in parts],
    ):
        found.append(np.array(extremes, np.int64))
    if keep is not None and keep.sum() <= most:
        found.append(np.flatnonzero(keep))
    kept: Indices = np.unique(np.concatenate(found))
    return kept


def copies(checkpoints: Columns) -> NDArray[np.bool_]:
    """Return which checkpoints only repeat their parent, shape [checkpoints].

    The first checkpoint of a generation that was branched is one, unless it was
    evaluated again.
    """
    generation, parent = checkpoints["generation"], checkpoints["parent"]
    opens = (parent >= 0) & (generation != generation[np.maximum(parent, 0)])
    return np.asarray(opens & ~checkpoints["has_value"].astype(bool), bool)


def originals(checkpoints: Columns) -> Indices:
    """Return of each checkpoint the index of the one that it repeats, else its own."""
    repeated = copies(checkpoints)
    before = known_ancestors(checkpoints["parent"], ~repeated)
    return np.where(repeated, before, np.arange(len(repeated)))


def lineage(
    checkpoint: int, parents: Sequence[int], repeats: Sequence[bool]
) -> Indices:
    """Return the checkpoints that led to one, oldest first, each only once.

    Args:
        checkpoint: The index of the checkpoint.
        parents: The index of the parent of each checkpoint, -1 for none.
        repeats: Which checkpoints only repeat their parent.
    """
    found = []
    while checkpoint >= 0:
        if not repeats[checkpoint]:
            found.append(checkpoint)
        checkpoint = parents[checkpoint]
    return np.array(found[::-1], np.int64)


def of_worker(
    indices: Indices, checkpoints: Columns, sources: Indices, forks: bool
) -> list[int]:
    """Return the line of a slot as indices of checkpoints, with gaps.

    Args:
        indices: The checkpoints to draw, in recorded order.
        checkpoints: All checkpoints.
        sources: As from `originals`.
        forks: Whether the line of a generation begins at the checkpoint that it
            branched off from. Else the generations of the slot follow each other, and
            there is a gap where its step went back.
    """
    steps = checkpoints["step"][indices].tolist()
    generations = checkpoints["generation"][indices]
    first = _first_of_generation(checkpoints)
    parents = checkpoints["parent"][first[generations]]
    origins = np.where(parents >= 0, sources[np.maximum(parents, 0)], GAP).tolist()
    line: list[int] = []
    before, at = None, 0
    for index, step, generation, origin in zip(
        indices.tolist(), steps, generations.tolist(), origins, strict=True
    ):
        if generation != before and line:
            if forks and origin != line[-1]:
                line += [GAP] if origin in (GAP, index) else [GAP, origin]
            elif not forks and step < at:
                line.append(GAP)
        line.append(index)
        before, at = generation, step
    return line


def _first_of_generation(checkpoints: Columns) -> Indices:
    """Return the index of the first checkpoint of each generation."""
    generation = checkpoints["generation"]
    found = np.zeros(int(generation.max(initial=-1)) + 1, np.int64)
    backwards = generation[::-1]
    found[backwards] = np.arange(len(generation) - 1, -1, -1)  # The last write stays.
    return found
