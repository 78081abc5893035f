"""Interfaces: what a policy is shown, what it must do, and what a params store must."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from population.base.types import ActiveWorker, Branch, Checkpoint, Ref, Report

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

State = TypeVar("State")


class CheckpointGraph(Mapping[str, Mapping[int, Checkpoint]], abc.ABC):
    """All checkpoints of a run, `graph[generation_id][step]`, as a mutator sees them.

    A forest: every parent exists, its step is not greater than its child's, and it
    never changes. A lineage is a checkpoint with all that it descends from.
    """

    @abc.abstractmethod
    def checkpoint(self, ref: Ref) -> Checkpoint:
        """The checkpoint of that name; a KeyError if there is none."""

    @abc.abstractmethod
    def root(self, generation_id: str) -> Checkpoint:
        """A generation's first checkpoint; a KeyError if there is none."""

    @abc.abstractmethod
    def walk(self, checkpoint: Checkpoint) -> Iterator[Checkpoint]:
        """The checkpoint and all that it descends from, newest first."""

    @abc.abstractmethod
    def lineage(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        """The checkpoint and all that it descends from, oldest first."""

    @abc.abstractmethod
    def history(self) -> Iterator[Checkpoint]:
        """All checkpoints in the order in which they were recorded."""

    @abc.abstractmethod
    def best(self) -> Checkpoint | None:
        """The checkpoint with the best finite value; None without one."""

    @abc.abstractmethod
    def newest_value(
        self, checkpoint: Checkpoint, *, until: int = ...
    ) -> Checkpoint | None:
        """The nearest with a value: itself or an ancestor, at step `until` at most."""

    @abc.abstractmethod
    def reports_since(self, checkpoint: Checkpoint, step: int) -> list[Checkpoint]:
        """The lineage's checkpoints from `step` on that have a value, ascending."""

    @abc.abstractmethod
    def resume_point(self, checkpoint: Checkpoint) -> Checkpoint:
        """Where training can go on: the nearest that did not diverge and has params."""


class PopulationView(Protocol):
    """What a mutator may look at: read-only, valid only during the call."""

    @property
    def workers(self) -> Sequence[ActiveWorker]:
        """What each slot works on, by worker id."""

    @property
    def graph(self) -> CheckpointGraph:
        """All checkpoints."""

    @property
    def live(self) -> Sequence[int]:
        """The worker ids of the slots that are waited for: not given up; ascending."""

    @property
    def rng(self) -> np.random.Generator:
        """This decision's random numbers, from the run's seed: the only ones to use."""

    @property
    def now(self) -> float:
        """The time of the report, in seconds since the epoch: the only clock to use."""

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """`[N]`: step of the newest report with a value on each lineage; -1: none."""

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """`[N]`: `score` of those reports; inf for none."""

    @property
    def ready(self) -> npt.NDArray[np.int64]:
        """`[N]`: step of the newest report that a decision may rest on; -1: none.

        It has a value, and params if this run saves any; or it diverged, and then
        it need not be saved.
        """

    @property
    def begins(self) -> npt.NDArray[np.int64]:
        """`[N]`: step at which each slot's present generation began.

        Up to there its lineage is that of the donor which it copied.
        """

    def as_of(self, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """`steps` and `scores` as they were at a step of each slot's lineage.

        Of slots that have come further, the newest report at or before it. As cheap as
        array arithmetic, but for slots that are more than some reports ahead.
        """

    def score(self, checkpoint: Checkpoint) -> float:
        """Lower is better whatever the mode; inf for None, NaN and infinities."""

    def newest(self, worker_id: int) -> Checkpoint:
        """The slot's newest checkpoint, with or without a value."""

    def barrier(self, worker_id: int, step: int) -> Checkpoint | None:
        """The slot's first checkpoint at or after `step` that a decision may rest on.

        It lies on the slot's present lineage and has a value, and params if this run
        saves any; one that diverged needs no params. None until there is one. O(1)
        while there is none.
        """


class Mutator(abc.ABC, Generic[State]):
    """Decides when a worker branches, from where, and with which hyperparameters.

    A pure function, in the way of an optax transformation: state goes in and comes
    out, the arguments stay as they were. The state is small plain data (scalars,
    lists, dicts, dataclasses of them, `Ref`); the same object comes back when nothing
    changed. Ids, times, storage and the graph belong to the controller.
    """

    @abc.abstractmethod
    def init(self, view: PopulationView) -> State:
        """Return the state before the first report.

        Raises:
            ValueError: If this population cannot be run under the policy.
        """

    @abc.abstractmethod
    def update(
        self, state: State, report: Report, view: PopulationView
    ) -> tuple[State, Mapping[int, Branch]]:
        """Return the next state and the branches, by worker id."""

    def wait_at(self, state: State, worker_id: int, view: PopulationView) -> int | None:
        """The step at which a slot waits for a decision; None: it never waits."""
        del state, worker_id, view
        return None


class ParamsStore(Protocol):
    """Where the arrays of params are kept; the journal keeps only their paths.

    A save is atomic: after a kill there is the whole of it or nothing that looks so. A
    store may have a fourth method, `names(folder)`, the paths that it keeps there: then
    what a kill has left, saved but never reported, is removed by a later session. With
    `claim` and `claimed`, as `FileParams` has them, it serves one copy of a run only.
    """

    def save(self, name: str, tree: Any) -> str:
        """Keep a copy of a tree under a path of its own, which begins with `name`."""

    def load(self, path: str, like: Any = None) -> Any:
        """The tree of that path, with the structure and kinds of leaves of `like`.

        Raises:
            ParamsError: If it is missing, damaged, or does not fit `like`.
        """

    def remove(self, path: str) -> None:
        """Forget a tree that this store has saved; nothing if it is gone already."""
