"""A run as the pictures see it: read once, as arrays."""

from __future__ import annotations

import functools
from typing import Any, Protocol

import numpy as np

from population.reader.ancestors import known_ancestors
from population.report.pictures import averages, lineages
from population.report.pictures.lineages import Bools, Floats, Ints, Spans, Table
from population.report.pictures.scales import Scale, scale_of
from population.space import domains
from population.space.domain import Domain

VALUE = "value"
_META, _METRICS = "meta_params.", "metrics."
_PLAIN = "meta_params"  # The column of meta_params that are one number, without a name.


class Drawable(Protocol):
    """What a picture reads of a run: a `RecordedRun` has it."""

    @property
    def space(self) -> Any:
        """The recorded space, or None."""

    @property
    def status(self) -> Any:
        """The status of the run; its `mode` says which values are better."""

    def checkpoints(self) -> Table:
        """Return a row for each checkpoint."""

    def branches(self) -> Table:
        """Return a row for each generation."""

    def workers(self) -> Table:
        """Return a row for each slot."""


class Snapshot:
    """A run, read once, with what pictures compute of it.

    It can be given to any picture in place of the run.

    Args:
        run: The run; a `Snapshot` of one is the same again.

    Attributes:
        space: The recorded space, or None.
        status: The status of the run.
        mode: Whether a smaller ("min") or a larger ("max") value is better.
        parent, step, worker_id: `[N]`, for each checkpoint.
    """

    def __init__(self, run: Drawable) -> None:
        self.space, self.status = run.space, run.status
        self.mode: str = run.status.mode
        checkpoints, branches = run.checkpoints(), run.branches()
        # A run that trains may have opened more generations since.
        seen = int(checkpoints["generation"].max(initial=-1)) + 1
        known = {name: branches[name][:seen] for name in branches}
        self._tables: tuple[Table, Table, Table] = checkpoints, known, run.workers()
        self.parent: Ints = self._tables[0]["parent"]
        self.step: Ints = self._tables[0]["step"]
        self.worker_id: Ints = self._tables[0]["worker_id"]

    def checkpoints(self) -> Table:
        """Return a row for each checkpoint."""
        return self._tables[0]

    def branches(self) -> Table:
        """Return a row for each generation."""
        return self._tables[1]

    def workers(self) -> Table:
        """Return a row for each slot."""
        return self._tables[2]

    @property
    def size(self) -> int:
        """The number of slots."""
        return len(self.workers()["worker_id"])

    @functools.cached_property
    def domains(self) -> dict[str, Domain]:
        """The domains of the recorded space, by name."""
        return {} if self.space is None else domains(self.space)

    @property
    def hyperparameters(self) -> list[str]:
        """The names of the hyperparameters, in the order of the columns."""
        names = [name for name in self.branches() if name.startswith(_META)]
        found = [name.removeprefix(_META) for name in names]
        return [_PLAIN, *found] if _PLAIN in self.branches() else found

    @functools.cached_property
    def spans(self) -> Spans:
        """The generations that were trained."""
        workers = self.workers()
        retired = workers["worker_id"][workers["status"] == "retired"].tolist()
        return lineages.spans(self.checkpoints(), self.branches(), retired)

    @functools.cached_property
    def alive(self) -> Bools:
        """`[N]`: whether a slot that is not retired still trains what comes from it."""
        return lineages.living(
            self.parent, lineages.tips(self.checkpoints(), self.spans)
        )

    @functools.cached_property
    def best(self) -> int:
        """The index of the checkpoint with the best value, or -1."""
        return averages.best_of(self.metric(VALUE), self.mode)

    def metric(self, name: str) -> Floats:
        """Return the values of a metric, `[N]`; NaN where there is none.

        Raises:
            ValueError: The run has no numbers of this name.
        """
        columns = self.checkpoints()
        column = VALUE if name == VALUE else f"{_METRICS}{name.removeprefix(_METRICS)}"
        if column not in columns or columns[column].dtype == object:
            known = [
                key.removeprefix(_METRICS)
                for key in columns
                if key.startswith(_METRICS) and columns[key].dtype != object
            ]
            raise ValueError(
                f"metric must be 'value' or a number that was reported in `metrics`, "
                f"got {name!r}. The run has {', '.join(map(repr, known)) or 'none'}."
            )
        numbers = columns[column].astype(np.float64)
        return np.where(np.isfinite(numbers), numbers, np.nan)

    def known_ancestors(self, values: Floats) -> Ints:
        """Return the nearest ancestor of each checkpoint that has a value, or -1."""
        return known_ancestors(self.parent, np.isfinite(values))

    def scale(self, name: str) -> Scale:
        """Return the scale of a hyperparameter.

        Raises:
            ValueError: The run has no such hyperparameter.
        """
        column = self.branches()[self._column(name)]
        return scale_of(column, self.domains.get(name.removeprefix(_META)))

    def settings(self, name: str, scale: Scale) -> Floats:
        """Return a hyperparameter of each span as places on its scale, `[S]`."""
        column = self.branches()[self._column(name)]
        return scale.numbers(column[self.spans.generation])

    def index_of(self, row: int) -> int:
        """Return the index of the checkpoint with this row of the journal.

        Raises:
            ValueError: The run has no such checkpoint.
        """
        found = np.flatnonzero(self.checkpoints()["row"] == row)
        if not found.size:
            raise ValueError(
                f"The run has no checkpoint with row {row}. Pass one that this run has "
                "returned, for example its best()."
            )
        return int(found[0])

    def spans_of(self, index: int) -> Ints:
        """Return the spans that led to a checkpoint, oldest first."""
        path = lineages.lineage(self.parent, index)
        generations = self.checkpoints()["generation"][path]
        return np.flatnonzero(np.isin(self.spans.generation, generations))

    def _column(self, name: str) -> str:
        known = self.hyperparameters
        if (short := name.removeprefix(_META)) in known:
            return short if short == _PLAIN else f"{_META}{short}"
        raise ValueError(
            f"The run has no hyperparameter {name!r}; it has "
            f"{', '.join(map(repr, known)) or 'none'}."
        )


def snapshot(run: Drawable) -> Snapshot:
    """Return the run, read once; a snapshot is returned as it is."""
    return run if isinstance(run, Snapshot) else Snapshot(run)
