"""The records that the packages of the library pass to each other."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

MODES = ("min", "max")


class Ref(NamedTuple):
    """The name of a checkpoint; a mutator's state keeps it instead of the record.

    Attributes:
        generation_id: The generation that the checkpoint belongs to.
        step: Its step within the graph; training steps, not seconds.
    """

    generation_id: str
    step: int


class Saved(NamedTuple):
    """Params that the params store keeps.

    Attributes:
        path: The store's name of them, relative to its folder.
    """

    path: str


class RunPath(NamedTuple):
    """A path in the run folder as the journal keeps it: the run may be moved.

    Workers and graphs show the whole path; they show this only if no run folder is
    known.

    Attributes:
        path: The path relative to the folder `own`, in which loops save themselves.
        kind: "text" for a str, "path" for a `pathlib.Path`.
    """

    path: str
    kind: str


class InMemory(NamedTuple):
    """Params that exist only in the memory of the process that reported them.

    Report `InMemory()`: it counts as params until the process reports that they are
    gone, or ends. In other processes it does not count as params.

    Attributes:
        session: The token of that process's session; set by the report.
        number: The number of the report; set by the report.
    """

    session: str = ""
    number: int = 0


class Checkpoint(NamedTuple):
    """One report of a generation: the params at a step, and their value.

    A tuple, as every report makes one: a frozen dataclass costs 1.3 us more.

    Attributes:
        params: A path or another storable value that the worker reported, `Saved` if
            the params store keeps them, `InMemory` if only the process that trains
            them does, or None. Returned as they are, never opened.
        meta_params: The generation's hyperparameters. Shared: copy before changing.
        generation_id: The generation that the checkpoint belongs to.
        value: The reported value; the controller's `mode` says whether less is better.
            None without an evaluation.
        parent: The checkpoint that training came from; None for a root.
        step: Training steps since the weights were initialised.
        time: Seconds since the epoch, by the controller's clock.
        worker_id: The slot that trained the generation.
        metrics: Further figures of the report, or None.
        reason: Why the generation was opened, in the mutator's words.
        row: Its row in the journal; later records have larger rows.
    """

    params: Any
    meta_params: Any
    generation_id: str
    value: float | None
    parent: Ref | None
    step: int
    time: float
    worker_id: int = 0
    metrics: Any = None
    reason: str = ""
    row: int = 0

    @property
    def ref(self) -> Ref:
        """The checkpoint's name."""
        return Ref(self.generation_id, self.step)

    @property
    def diverged(self) -> bool:
        """Whether the value is NaN or infinite; such a checkpoint is never a donor."""
        return self.value is not None and not math.isfinite(self.value)


class ActiveWorker(NamedTuple):
    """The work of a slot, as a poll returns it.

    Attributes:
        params: The params from which to continue; None: freshly initialised ones.
        meta_params: The hyperparameters to train with; a copy for the receiver.
        generation_id: The id to pass with the reports that follow.
        step: The training steps of `params`.
        wait_at: The step at which the slot waits for a decision; None: it never does.
    """

    params: Any
    meta_params: Any
    generation_id: str
    step: int
    wait_at: int | None = None


class Report(NamedTuple):
    """A checkpoint that has just arrived, or has just got its value.

    Attributes:
        worker_id: The slot of the checkpoint.
        checkpoint: The checkpoint with all that was recorded for it.
    """

    worker_id: int
    checkpoint: Checkpoint


class Failure(NamedTuple):
    """A trial of a slot that has ended with an error, a kill or a divergence.

    Attributes:
        worker_id: The slot.
        checkpoint: The slot's newest checkpoint.
        reason: What has happened, for people.
        failures: The slot's failures in a row, with this one.
        retired: Whether the slot is retired, because it has failed too often.
    """

    worker_id: int
    checkpoint: Checkpoint
    reason: str
    failures: int
    retired: bool


class Event(NamedTuple):
    """Something that has happened in this process and is recorded; for `on_event`.

    Attributes:
        kind: "report", "branch", "claim", "takeover", "diverged", "failed", "retired",
            "damaged" or "finished".
        worker_id: The slot; -1 for "finished".
        checkpoint: The reported checkpoint, the damaged one, or the one from which the
            slot continues; the slot's newest for "retired"; None for "finished".
        reason: Why, with "failed", "retired" and "damaged".
    """

    kind: str
    worker_id: int
    checkpoint: Checkpoint | None
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Branch:
    """A decision: the slot continues from `parent` with these hyperparameters.

    Attributes:
        parent: The checkpoint to continue from; None: fresh params at step 0.
        meta_params: The hyperparameters of the new generation.
        reason: A text for people who read the history.
    """

    parent: Checkpoint | None
    meta_params: Any
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Retire:
    """A decision: the slot is finished, and nothing waits for it any more.

    A later branch, or `controller.revive`, brings it back.

    Attributes:
        reason: A text for people who read the history.
    """

    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Start:
    """An entry of `initial_population` that may begin with trained weights.

    Attributes:
        meta_params: The hyperparameters of the slot's first generation.
        params: Trained weights: a path, or a pytree of arrays. None: fresh ones.
        step: The training steps that `params` already have.
    """

    meta_params: Any
    params: Any = None
    step: int = 0

    def __post_init__(self) -> None:
        if type(self.step) is not int or self.step < 0:
            raise ValueError(
                f"Start.step must be an int of 0 or more, got {self.step!r}. "
                "It counts the training steps that params already have."
            )
        if isinstance(self.params, InMemory):
            raise ValueError(
                "Start.params must be weights that every process can read, got "
                "InMemory(), which stands for those of one process. Save them first."
            )


def check_counts(limits: object, *names: str) -> None:
    """Refuse fields of a record that are not counts.

    Raises:
        ValueError: A field is neither a positive int nor None; the message names it.
    """
    for name in names:
        limit = getattr(limits, name)
        if limit is not None and (type(limit) is not int or limit < 1):
            raise ValueError(
                f"{type(limits).__name__}.{name} must be a positive int or None, got "
                f"{limit!r}."
            )


@dataclasses.dataclass(frozen=True)
class Stop:
    """When a run ends. It is not recorded: a later controller may pass larger limits.

    Attributes:
        steps: End once every slot has reached this step. It ends training, not
            decisions: a slot that is branched to an earlier step trains again.
        reports: End after this many reports with a value, of all slots together.
        seconds: End after the run was open for so long, all its openings together.
        value: End once the best value is at least as good as this one.
        patience: End after this many reports with a value since the best one.
    """

    steps: int | None = None
    reports: int | None = None
    seconds: float | None = None
    value: float | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "steps", "reports", "patience")
        for name in ("seconds", "value"):
            limit = getattr(self, name)
            if limit is None:
                continue
            if isinstance(limit, bool) or not isinstance(limit, (int, float)):
                raise ValueError(f"Stop.{name} must be a number, got {limit!r}.")
            if math.isnan(limit):
                raise ValueError(f"Stop.{name} must be a number, got NaN.")
        if self.seconds is not None and self.seconds < 0:
            raise ValueError(f"Stop.seconds must be 0 or more, got {self.seconds!r}.")
