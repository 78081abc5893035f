"""What can be asked about an open run."""

from __future__ import annotations

import collections
import pathlib
from typing import Any

from population.base.errors import damaged
from population.base.schedule import Schedule
from population.base.types import ActiveWorker, Checkpoint, Ref, Stop
from population.core import lineages
from population.core.facts import read, texts_of
from population.core.graph import JournalGraph
from population.core.known import Slot, check_checkpoint, check_id
from population.journal.base import Find
from population.run import loads, structures
from population.run.member_statuses import MemberStatus, Progress, member_statuses
from population.run.open_run import OpenRun


class Queries:
    """The queries of a `PopulationController`; none of them changes the run.

    Args:
        open_run: The run.

    Attributes:
        graph: All checkpoints: `graph[generation_id][step]`.
        open_run: The run as the library's own engines and tests see it.
    """

    def __init__(self, open_run: OpenRun) -> None:
        self.open_run = open_run
        self.graph: JournalGraph = open_run.graph

    @property
    def workers(self) -> list[ActiveWorker]:
        """The work of each slot from now on, by worker id, without loading arrays."""
        run = self.open_run
        run.check_open()
        with run.lock.lock:
            return [run.active(worker_id) for worker_id in range(run.size)]

    @property
    def finished(self) -> bool:
        """Whether `stop` has ended the run."""
        return self.open_run.finished()

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.open_run.seed

    @property
    def space(self) -> Any:
        """The recorded space of valid meta_params; None if none was given."""
        with self.open_run.lock.lock:
            recorded = texts_of(self.open_run.journal)
        return structures.recorded_space(read(recorded))

    @property
    def stop(self) -> Stop:
        """When the run ends."""
        return self.open_run.stop

    @property
    def log_dir(self) -> pathlib.Path | None:
        """The run folder, or None."""
        return self.open_run.log_dir

    def best(self) -> Checkpoint | None:
        """Return the checkpoint with the best finite value; None: no finite value."""
        return self.graph.best()

    def lineage(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        """Return all checkpoints that led to this one, oldest first."""
        return self.graph.lineage(check_checkpoint(checkpoint, "lineage"))

    def schedule(self, checkpoint: Checkpoint) -> Schedule:
        """Return the hyperparameters over steps that led to a checkpoint.

        Raises:
            TypeError: Not a `Checkpoint`; `best()` is None before a finite value.
        """
        return lineages.schedule(self.graph, check_checkpoint(checkpoint, "schedule"))

    def newest(self, worker_id: int) -> Checkpoint:
        """Return the newest checkpoint that a slot itself has reported.

        Its hyperparameters are those that it was trained with; what a decision has
        assigned since is in `workers`. Before the first report: that with which the
        slot began.
        """
        run = self.open_run
        run.check_open()
        with run.lock.lock:
            slot = run.state().slots[check_id(run.size, worker_id)]
            return _newest_reported(run.graph, slot)

    @property
    def retired(self) -> frozenset[int]:
        """The worker ids of the slots that are finished, by a decision or failures."""
        run = self.open_run
        run.check_open()
        with run.lock.lock:
            return run.state().members.retired

    def members(self) -> list[MemberStatus]:
        """Return the status of each slot, and what it has trained, by worker id.

        The cost grows with the number of generations, not with that of checkpoints.
        """
        run = self.open_run
        run.check_open()
        with run.lock.lock, run.journal.reading():
            state = run.state()
            has_ended = run.session.has_ended(run.stop, state)
            progress = Progress(run.stop.steps, has_ended, self._doing)
            return member_statuses(run.journal, state, progress)

    def _doing(self, worker_id: int) -> str:
        return "waiting" if self.open_run.waits(worker_id) else "training"

    def load(self, checkpoint: Checkpoint, like: Any = None) -> Any:
        """Return a checkpoint's params, read from the params store if it keeps them.

        Args:
            checkpoint: The checkpoint.
            like: A tree with the wanted structure and kinds of leaves, for example from
                `init`. Not needed for plain containers of arrays.

        Raises:
            ParamsError: The checkpoint has no params, or they were removed (also since
                this object was returned), are damaged, do not fit `like`, or are only
                in the memory of a process.
        """
        self.open_run.check_open()
        found = check_checkpoint(checkpoint, "load")
        return loads.of(self.open_run).load(found, like)

    def reachable(self) -> set[Ref]:
        """Return checkpoints whose params a decision, restart or worker may need."""
        run = self.open_run
        run.check_open()
        with run.lock.lock, run.journal.reading():
            return {found.ref for found in run.reachable(run.state()).values()}

    def diverged(self) -> list[int]:
        """Return how many values of each slot were NaN or infinite, by worker id."""
        run = self.open_run
        with run.lock.lock:
            rows = run.journal.checkpoints(Find(diverged=True))
        found = collections.Counter(row.worker_id for row in rows)
        return [found[worker_id] for worker_id in range(run.size)]


def _newest_reported(graph: JournalGraph, slot: Slot) -> Checkpoint:
    """Return the newest checkpoint that a slot itself has reported, or its first."""
    generation, newest = slot.generation, slot.newest
    prefix, _, number = generation.generation_id.rpartition("-")
    for before in reversed(range(int(number))):
        if newest.step > generation.step or newest.value is not None:
            return newest
        found = graph.generation(f"{prefix}-{before}")
        if found is None:
            raise damaged(f"it does not hold generation {before} of {prefix}")
        generation, newest = found, graph.newest_of(found)
    return newest
