"""A run as it lies on the disk, also while it trains."""

from __future__ import annotations

import itertools
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from population.base import codec
from population.base.interfaces import ParamsStore
from population.base.run_paths import run_folder
from population.base.schedule import Schedule
from population.base.types import Checkpoint, Ref
from population.core import lineages, loading
from population.core.facts import read_all
from population.core.known import check_checkpoint
from population.core.state import RunState
from population.journal.base import MAX
from population.reader import run_status
from population.reader.checkpoint_columns import Checkpoints
from population.reader.columns import RunColumns
from population.reader.generation_columns import branches
from population.reader.member_columns import saves, workers
from population.reader.run_status import RunStatus
from population.reader.sources import InFolder, Reading, RunSource
from population.reader.windows import best_window
from population.run import structures

_PAGE = 5000


def read(
    log_dir: str | os.PathLike[str], *, params: ParamsStore | None = None
) -> RecordedRun:
    """Return a recorded run to look at, also while it trains.

    Nothing is written, and nothing is held open between two calls: the folder may be on
    read-only media or of another user, and the processes that train are not disturbed.

    Args:
        log_dir: The run folder.
        params: The params store of the run, if its controller was given one.

    Raises:
        JournalError: The folder holds no run, or it cannot be read.
    """
    return RecordedRun(InFolder(run_folder(log_dir), params))


class RecordedRun:
    """A recorded run. Each call shows it as it is then.

    `for checkpoint in run` yields all checkpoints in the order in which they were
    recorded.

    Args:
        source: Where it is read from.

    Raises:
        JournalError: From any method: the run cannot be read, or is damaged.
        ValueError: From methods that take a checkpoint, except `load`: the run does not
            have it.
    """

    def __init__(self, source: RunSource) -> None:
        self._source = source
        self._checkpoints = Checkpoints(source)
        with source.reading():
            pass  # Raises if there is no run.

    @property
    def log_dir(self) -> pathlib.Path | None:
        """The run folder, or None."""
        return self._source.log_dir

    @property
    def status(self) -> RunStatus:
        """How far the run is. The cost grows with the number of generations."""
        with self._source.reading() as found:
            recorded = read_all(found.journal)
            return run_status.status(found.journal, recorded, _state(found, recorded))

    @property
    def space(self) -> Any:
        """The recorded space of valid meta_params; None if none was given."""
        with self._source.reading() as found:
            return structures.recorded_space(read_all(found.journal))

    def checkpoints(self) -> RunColumns:
        """Return all checkpoints, in recorded order.

        Columns of shape [checkpoints]: `row`; `generation`, the place in `branches()`;
        `generation_id`; `worker_id`; `step`; `value`, NaN for none; `has_value`;
        `diverged`, whether the value is NaN or infinite; `parent`, the place of the
        parent in these columns, -1 for none; `time` in seconds since the epoch;
        `batch`, equal for what one transaction has recorded; `reason` of the
        generation; `has_params`; and `meta_params.x` and `metrics.y` for each of them,
        nested ones as `meta_params.a/b`: float64 with NaN for what is missing, or
        objects with None where not all are numbers.

        The first checkpoint of a branch is a copy of its parent, without a value.
        """
        with self._source.reading() as found:
            return self._checkpoints.columns(found.journal)

    def branches(self) -> RunColumns:
        """Return all generations, in the order in which they were opened.

        Columns of shape [generations]: `row`; `generation_id`; `worker_id`; `number`,
        how many the slot had before; `kind`, "start", "branch" (a decision has opened
        it) or "restart" (the library has, for example to resume); `step`, the first
        one; `last_step`; `checkpoints`, how many it has; `parent`, the place in
        `checkpoints()` of the one from which it began, -1 for none;
        `parent_generation_id`; `parent_step`; `reason`; `time`; and `meta_params.x`.
        """
        with self._source.reading() as found:
            return branches(self._checkpoints.columns(found.journal), found.journal)

    def workers(self) -> RunColumns:
        """Return the members, by worker id.

        Columns of shape [members]: `worker_id`; `status` as in `controller.members()`,
        with "idle" for one that has more to train while no live process holds it;
        `step`; `value`, the newest one; `best`, the best one; `failures`; `branches`;
        `restarts`; `steps_trained`; `wall_s`; `reason`; `generation_id`; and
        `meta_params.x` as they are assigned now.
        """
        with self._source.reading() as found:
            recorded = read_all(found.journal)
            state = _state(found, recorded)
            now = run_status.status(found.journal, recorded, state)
            progress = run_status.progress(now, state)
            all_of_them = self._checkpoints.columns(found.journal)
            return workers(all_of_them, found.journal, state, progress)

    def saves(self) -> RunColumns:
        """Return the saves in the params store, oldest first.

        Columns of shape [saves]: `path`, `generation_id`, `step`, `bytes`, `row`.
        """
        with self._source.reading() as found:
            return saves(found.journal)

    def best(self, window: int = 1) -> Checkpoint | None:
        """Return the checkpoint with the best finite value, the first one on ties.

        Args:
            window: How many values in a row of a lineage count, by their mean; the
                checkpoint is the last of them. More than one finds a good schedule
                rather than a lucky value.

        Returns:
            None: there is no finite value, or no lineage has so many.
        """
        codec.integer(window, "window", low=1)
        with self._source.reading() as found:
            if window == 1:
                return found.graph.best()
            sign = -1.0 if read_all(found.journal)["mode"] == "max" else 1.0
            columns = self._checkpoints.columns(found.journal)
            place = best_window(columns, window, sign)
            return None if place is None else found.graph.at(int(columns["row"][place]))

    def get(self, ref: Ref) -> Checkpoint | None:
        """Return the checkpoint with that generation id and step, or None."""
        with self._source.reading() as found:
            return found.graph.get_checkpoint(ref)

    def lineage(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        """Return all checkpoints that led to this one, oldest first."""
        check_checkpoint(checkpoint, "lineage")
        with self._source.reading() as found:
            _check_is_of(found, checkpoint, "lineage")
            return found.graph.lineage(checkpoint)

    def schedule(self, checkpoint: Checkpoint) -> Schedule:
        """Return the hyperparameters over steps that led to a checkpoint."""
        check_checkpoint(checkpoint, "schedule")
        with self._source.reading() as found:
            _check_is_of(found, checkpoint, "schedule")
            return lineages.schedule(found.graph, checkpoint)

    def resume_point(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the nearest checkpoint with params, itself or an ancestor."""
        check_checkpoint(checkpoint, "resume_point")
        with self._source.reading() as found:
            _check_is_of(found, checkpoint, "resume_point")
            return found.graph.resume_point(checkpoint)

    def load(self, checkpoint: Checkpoint, like: Any = None) -> Any:
        """Return a checkpoint's params, read from the params store if it keeps them.

        Args:
            checkpoint: The checkpoint.
            like: A tree with the wanted structure and kinds of leaves, for example from
                `init`. Not needed for plain containers of arrays.

        Raises:
            ParamsError: The checkpoint has no params, or they were removed, are
                damaged, do not fit `like`, or are only in the memory of a process.
        """
        check_checkpoint(checkpoint, "load")
        with self._source.reading() as found:
            return found.loads.load(checkpoint, like)

    def __iter__(self) -> Iterator[Checkpoint]:
        after, last = 0, MAX
        while after < last:
            with self._source.reading() as found:
                last = min(last, found.journal.tail().row)
                page = list(itertools.islice(found.graph.history(after), _PAGE))
            for checkpoint in page:
                if checkpoint.row <= last:
                    yield checkpoint
            after = page[-1].row if page else last

    def __repr__(self) -> str:
        return f"RecordedRun({str(self.log_dir)!r})"


def _state(found: Reading, recorded: Any) -> RunState:
    return loading.load(found.journal, found.graph, recorded["mode"])


def _check_is_of(found: Reading, checkpoint: Checkpoint, call: str) -> None:
    """Refuse a checkpoint of another run."""
    if found.graph.get_checkpoint(checkpoint.ref) is None:
        raise ValueError(
            f"{call} needs a checkpoint of this run, got step {checkpoint.step} of "
            f"{checkpoint.generation_id}, which it does not have. Pass one that this "
            "run has returned, for example its best()."
        )
