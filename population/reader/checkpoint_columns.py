"""All checkpoints of a run as columns."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from population.base.codec import HELD
from population.base.errors import damaged
from population.core.decoding import decode
from population.core.facts import texts_of
from population.journal.base import Find, Journal
from population.journal.records import CheckpointRecord, Generation, Late, Removal
from population.reader.columns import Arrays, RunColumns, flat, objects
from population.reader.sources import RunSource

_NUMBERS = {
    "row": "i8",
    "generation": "i8",
    "step": "i8",
    "parent": "f8",  # Rows are exact in it, and a root has none.
    "has_value": "?",
    "value": "f8",
    "time": "f8",
}
_LATE = {"row": "i8", "checkpoint": "i8", "has_value": "?", "value": "f8"}


class Checkpoints:
    """The checkpoints of a run, of which it reads each only once.

    Args:
        source: The run, to be read again when texts are asked for.
    """

    def __init__(self, source: RunSource) -> None:
        self._source = source
        self._run = ""
        self._known = _empty(_NUMBERS)

    def columns(self, journal: Journal) -> RunColumns:
        """Return all of them in recorded order.

        Args:
            journal: The run's journal, within a snapshot.

        Raises:
            JournalError: The journal is damaged.
        """
        last = journal.tail().row
        known = self._known
        if not self._is_of(journal, known, last):
            known = _empty(_NUMBERS)
        after = int(known["row"][-1]) if len(known["row"]) else 0
        new = _numbers(journal, CheckpointRecord, _NUMBERS, last, after)
        if len(new["row"]):
            known = {name: np.concatenate([known[name], new[name]]) for name in new}
        self._known = known
        found = {name: values.copy() for name, values in known.items()}
        return _columns(self._source, journal, found, last)

    def _is_of(
        self, journal: Journal, known: Mapping[str, NDArray[Any]], last: int
    ) -> bool:
        """Whether what is known is of this journal: another may be in its place."""
        run, before = texts_of(journal).get("run", ""), self._run
        self._run = run
        if run != before or not len(known["row"]):
            return False
        row = int(known["row"][-1])
        found = journal.checkpoints(Find(after=row - 1, upto=row))
        own = known["step"][-1], known["time"][-1]
        return row <= last and [(c.step, c.time) for c in found] == [own]


def _columns(
    source: RunSource, journal: Journal, found: dict[str, NDArray[Any]], last: int
) -> RunColumns:
    """Return columns of the numbers of all checkpoints."""
    rows = found["row"]
    _add_late_values(journal, found, last)
    generations = journal.generations()
    opened = np.array([g.row for g in generations], np.int64)
    found["generation"] = _places(opened, found["generation"], "generation")
    has_parent = ~np.isnan(found["parent"])
    parents = np.full(len(rows), -1)
    named = found["parent"][has_parent].astype(np.int64)
    parents[has_parent] = _places(rows, named, "parent")
    found["parent"] = parents
    if np.any(parents >= np.arange(len(rows))):
        raise damaged("a checkpoint comes before its parent")
    found["diverged"] = found["has_value"] & ~np.isfinite(found["value"])
    at = found["generation"]
    for name in ("generation_id", "worker_id", "reason"):
        values = [getattr(g, name) for g in generations]
        is_number = name == "worker_id"
        found[name] = (np.array(values, np.int64) if is_number else objects(values))[at]
    texts = _Texts(source, last, rows)
    return RunColumns(
        len(rows),
        {name: found[name] for name in _ORDER},
        {
            "batch": texts.batch,
            "has_params": texts.has_params,
            "meta_params": functools.partial(_of_generations, generations, at),
            "metrics": texts.metrics,
        },
    )


_ORDER = (
    "row",
    "generation",
    "generation_id",
    "worker_id",
    "step",
    "value",
    "has_value",
    "diverged",
    "parent",
    "time",
    "reason",
)


def meta_params(generations: Sequence[Generation]) -> list[Any]:
    """Return the hyperparameters of some generations; equal ones are one object."""
    known: dict[str, Any] = {}
    for generation in generations:
        if generation.meta_params not in known:
            known[generation.meta_params] = decode(generation.meta_params)
    return [known[generation.meta_params] for generation in generations]


def _of_generations(generations: Sequence[Generation], at: NDArray[Any]) -> Arrays:
    found = flat("meta_params", meta_params(generations))
    return {name: values[at] for name, values in found.items()}


@dataclasses.dataclass(frozen=True)
class _Texts:
    """Finds what the texts of checkpoints tell, when it is asked for.

    Attributes:
        source: The run.
        last: The last row of the columns.
        rows: The row of each checkpoint, ascending; shape [checkpoints].
    """

    source: RunSource
    last: int
    rows: NDArray[Any]

    def batch(self) -> Arrays:
        """Return the first row of the transaction that has recorded each checkpoint."""
        wanted = {"row": "i8", "batch": "i8"}
        with self.source.reading() as reading:
            found = _numbers(reading.journal, CheckpointRecord, wanted, self.last)
        return {"batch": found["batch"]}

    def has_params(self) -> Arrays:
        """Return whether each checkpoint has params that were not removed until now.

        Those that are only in the memory of a process do not count.
        """
        with self.source.reading() as reading:
            gone: dict[str, int] = {}
            for removal in reading.journal.all(Removal):
                gone[removal.params] = max(removal.row, gone.get(removal.params, 0))
            found = np.zeros(len(self.rows), bool)
            for kind, key in (CheckpointRecord, "row"), (Late, "checkpoint"):
                names = "row", key, "params"
                for page in reading.journal.fields(kind, names, self.last):
                    named = [fields for fields in page if fields[2] is not None]
                    found[self._at([of for _, of, _ in named])] = [
                        gone.get(text, -1) < row and not text.startswith(HELD)
                        for row, _, text in named
                    ]
        return {"has_params": found}

    def metrics(self) -> Arrays:
        """Return a column for each of the metrics."""
        with self.source.reading() as reading:
            trees: list[Any] = [None] * len(self.rows)
            for kind, key in (Late, "checkpoint"), (CheckpointRecord, "row"):
                names = "row", key, "metrics"
                for page in reading.journal.fields(kind, names, self.last):
                    with_metrics = [fields for fields in page if fields[2] is not None]
                    at = self._at([of for _, of, _ in with_metrics])
                    for place, (_, _, text) in zip(
                        at.tolist(), with_metrics, strict=True
                    ):
                        trees[place] = decode(text)
        return flat("metrics", trees)

    def _at(self, rows: Sequence[int]) -> NDArray[Any]:
        return _places(self.rows, np.array(rows, np.int64), "checkpoint")


def _numbers(
    journal: Journal, kind: Any, names: Mapping[str, str], last: int, after: int = 0
) -> dict[str, NDArray[Any]]:
    """Return fields of all records of a kind: arrays of shape [records].

    Args:
        journal: The journal.
        kind: The kind of record.
        names: The dtype of each field, by name; a missing float is NaN.
        last: The last row to read.
        after: Only rows after this one.
    """
    rows = itertools.chain.from_iterable(
        journal.fields(kind, tuple(names), last, after)
    )
    try:
        found = np.fromiter(rows, np.dtype(list(names.items())))
    except (TypeError, ValueError, OverflowError) as error:
        raise damaged(f"a {kind.__name__} has what is no number: {error}") from error
    return {name: found[name].copy() for name in names}


def _empty(names: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    return {name: np.zeros(0, dtype) for name, dtype in names.items()}


def _add_late_values(
    journal: Journal, found: dict[str, NDArray[Any]], last: int
) -> None:
    """Add values that were reported after their checkpoints."""
    late = _numbers(journal, Late, _LATE, last)
    has = late["has_value"]
    at = _places(found["row"], late["checkpoint"][has], "checkpoint")
    new = ~found["has_value"][at]
    found["value"][at[new]] = late["value"][has][new]
    found["has_value"][at] = True
    found["value"][~found["has_value"]] = math.nan


def _places(rows: NDArray[Any], wanted: NDArray[Any], what: str) -> NDArray[Any]:
    """Return where rows are among ascending ones; shape of `wanted`."""
    if not len(wanted):
        return wanted.astype(np.int64)
    found = np.searchsorted(rows, wanted)
    inside = found < len(rows)
    if not (inside.all() and np.array_equal(rows[found], wanted)):
        raise damaged(f"it does not find a {what} that another row names")
    return found
