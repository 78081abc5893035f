"""The interfaces of mutators, of the view that they get, and of params stores."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from population.base.types import (
    ActiveWorker,
    Branch,
    Checkpoint,
    Failure,
    Ref,
    Report,
    Retire,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

State = TypeVar("State")


class CheckpointGraph(Mapping[str, Mapping[int, Checkpoint]], abc.ABC):
    """All checkpoints of a run, `graph[generation_id][step]`, as a mutator sees them.

    The type of `view.graph`; import it as `population.CheckpointGraph`.

    A forest: every parent exists, its step is not greater than its child's, and it
    never changes. A lineage is a checkpoint with all its ancestors.
    """

    @abc.abstractmethod
    def checkpoint(self, ref: Ref) -> Checkpoint:
        """Return the checkpoint that `ref` names.

        Raises:
            KeyError: There is no such checkpoint.
            TypeError: `ref` is not a `Ref`.
        """

    @abc.abstractmethod
    def root(self, generation_id: str) -> Checkpoint:
        """Return a generation's first checkpoint; KeyError: an unknown generation."""

    @abc.abstractmethod
    def walk(self, checkpoint: Checkpoint) -> Iterator[Checkpoint]:
        """Yield the checkpoint and all its ancestors, newest first."""

    @abc.abstractmethod
    def lineage(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        """Return the checkpoint and all its ancestors, oldest first."""

    @abc.abstractmethod
    def history(self) -> Iterator[Checkpoint]:
        """Yield all checkpoints in the order in which they were recorded."""

    @abc.abstractmethod
    def best(self) -> Checkpoint | None:
        """Return the checkpoint with the best finite value, or None."""

    @abc.abstractmethod
    def newest_value(
        self, checkpoint: Checkpoint, *, until: int = ...
    ) -> Checkpoint | None:
        """Return the nearest with a value: itself or an ancestor, up to `until`."""

    @abc.abstractmethod
    def reports_since(self, checkpoint: Checkpoint, step: int) -> list[Checkpoint]:
        """Return the lineage's checkpoints from `step` on with a value, ascending."""

    @abc.abstractmethod
    def resume_point(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the nearest checkpoint that has params and did not diverge."""


class PopulationView(Protocol):
    """The run as a mutator sees it: read-only, valid only during the call."""

    @property
    def workers(self) -> Sequence[ActiveWorker]:
        """The present work of each slot, by worker id."""

    @property
    def graph(self) -> CheckpointGraph:
        """All checkpoints; the type is `population.CheckpointGraph`."""

    @property
    def live(self) -> Sequence[int]:
        """The worker ids of slots neither retired nor given up, ascending."""

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
        """`[N]`: step of the newest report that can close a barrier; -1: none.

        Such a report has a value, and params if this run saves any; one that diverged
        needs no params.
        """

    @property
    def begins(self) -> npt.NDArray[np.int64]:
        """`[N]`: step at which each slot's present generation began.

        Up to that step its lineage is that of the donor which it copied.
        """

    def as_of(self, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return `steps` and `scores` as they were at a step of each slot's lineage.

        For slots beyond the step they are those of the newest report up to it. As cheap
        as array arithmetic, except for slots that are over 16 reports ahead.

        Raises:
            TypeError: `step` is not an int.
        """

    def last(
        self, k: int, until: int | npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.float64]:
        """Return `[N, k]`: `score` of each lineage's last `k` reports with a value.

        The newest is in the last column, and NaN in the first columns if a lineage has
        fewer. A copy has its donor's reports up to `begins`. As cheap as `as_of`.

        Args:
            k: The number of reports of each slot.
            until: Leave out reports after this step, or after `[N]` steps: a loop that
                does not wait may be beyond a barrier. None: leave out none.

        Raises:
            ValueError: `k` is not a positive int, or `until` has another shape.
        """

    def metric(self, name: str) -> npt.NDArray[np.float64]:
        """Return `[N]`: one of the metrics of the reports whose scores are in `scores`.

        NaN where the report has no such number, and where there is no report. A copy
        has its donor's metrics until it reports itself. The array belongs to the
        caller. As cheap as `scores`: only slots that have reported since the last call
        are looked at.

        Args:
            name: The key in the metrics; `a/b` is the entry b of an entry a. A name
                that nobody reports is NaN throughout.

        Raises:
            TypeError: `name` is not a str.
        """

    def score(self, checkpoint: Checkpoint) -> float:
        """Return a checkpoint's score: lower is better; inf for no finite value.

        Raises:
            TypeError: Not a `Checkpoint`.
        """

    def newest(self, worker_id: int) -> Checkpoint:
        """Return the slot's newest checkpoint, with or without a value.

        Raises:
            TypeError: `worker_id` is not an int.
            ValueError: There is no such slot.
        """

    def barrier(self, worker_id: int, step: int) -> Checkpoint | None:
        """Return the slot's first checkpoint from `step` on that can close a barrier.

        It is on the slot's present lineage and has a value, and params if this run
        saves any; one that diverged needs no params. None, in O(1), while no such
        checkpoint exists.

        Raises:
            TypeError: `worker_id` or `step` is not an int.
            ValueError: There is no such slot.
        """


class Mutator(abc.ABC, Generic[State]):
    """Decides when a worker branches, from where, and with which hyperparameters.

    A pure function, like an optax transformation: it takes a state and returns the
    next one, and leaves its arguments unchanged. The state is small plain data
    (scalars, lists, dicts, dataclasses of them, `Ref`); an update without a change
    returns the same object. The controller handles ids, times, storage and the graph.

    Attributes:
        divergence_fails: Whether a slot that is set back because it diverged counts as
            failed; False for a policy under which members may train on after a NaN.
    """

    divergence_fails: bool = True

    @abc.abstractmethod
    def init(self, view: PopulationView) -> State:
        """Return the state before the first report.

        Raises:
            ValueError: The policy cannot run this population.
        """

    @abc.abstractmethod
    def update(
        self, state: State, report: Report, view: PopulationView
    ) -> tuple[State, Mapping[int, Branch | Retire]]:
        """Return the next state and the decisions, by worker id."""

    def failed(
        self, state: State, failure: Failure, view: PopulationView
    ) -> tuple[State, Mapping[int, Branch | Retire]]:
        """Return the next state and the decisions after a failure of a slot.

        Without a decision about it, the slot continues from its resume point with the
        same hyperparameters, unless it is retired. A divergence is not shown here, as
        `update` was shown the value.
        """
        del failure, view
        return state, {}

    def first(self, worker_id: int, step: int, meta_params: Any) -> Any:
        """Return the hyperparameters with which a slot begins at a step.

        Called, without a view, when a run or a fork begins, and when the library opens
        a generation of a slot by itself: at an earlier checkpoint, or after a failure
        or a takeover. By default they are unchanged.

        Args:
            worker_id: The slot.
            step: The step at which it begins.
            meta_params: The hyperparameters that it has so far.
        """
        del worker_id, step
        return meta_params

    def wait_at(self, state: State, worker_id: int, view: PopulationView) -> int | None:
        """Return the step at which a slot waits for a decision; None: it never does."""
        del state, worker_id, view
        return None


class ParamsStore(Protocol):
    """Saves the arrays of params; the journal keeps only their paths.

    A save is atomic: after a kill, it is either complete or cannot be taken for
    complete. A store may have a method `names(folder)`, which returns the paths in a
    folder: then a later session removes saves that a killed one has never reported.
    With `claim` and `claimed`, as in `FileParams`, it serves only one copy of a run,
    and lost saves are replaced. With `sync(paths)`, which waits until saves are on the
    disk, a power cut costs none that `durability` promises; without it, `save` must
    wait for the disk itself.
    """

    def save(self, name: str, tree: Any) -> str:
        """Save a copy of a tree; return its unique path, which begins with `name`."""

    def load(self, path: str, like: Any = None) -> Any:
        """Load the tree of a path, with the structure and kinds of leaves of `like`.

        Raises:
            ParamsError: The tree is missing, damaged, or does not fit `like`.
        """

    def remove(self, path: str) -> None:
        """Remove a tree that this store has saved; do nothing if it does not exist."""
