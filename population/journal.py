"""The interface of a journal: what a store must do to keep a run.

`journals/` holds the stores. A journal deals in rows of plain text and numbers; what
they mean is the business of `graph` and `slots`.
"""

from __future__ import annotations

import abc
from typing import NamedTuple


class GenerationRow(NamedTuple):
    """A generation as the journal keeps it; texts are encoded by the codec.

    Attributes:
        row: Its place in the journal, and its key.
        generation_id: `{run}-{worker_id}-{number}`.
        worker_id: The slot that trains it.
        number: How many generations the slot had before.
        step: Step of its first checkpoint.
        meta_params: The hyperparameters.
        digest: Equal for equal hyperparameters.
        reason: Why it was opened.
        time: Seconds since the epoch.
    """

    row: int
    generation_id: str
    worker_id: int
    number: int
    step: int
    meta_params: str
    digest: str
    reason: str
    time: float


class CheckpointRow(NamedTuple):
    """A checkpoint with its generation's facts, as the journal gives it back.

    Attributes:
        row: Its place in the journal.
        generation: Row of its generation.
        step: Training steps.
        params: Encoded, or None.
        has_value: Whether there is a value.
        value: The value; None beside a true `has_value` is NaN.
        metrics: Encoded, or None.
        time: Seconds since the epoch.
        parent_generation_id: Of the parent; None for a root.
        parent_step: Of the parent; None for a root.
        generation_id: Of its generation.
        worker_id: Of its generation.
        meta_params: Of its generation, encoded.
        reason: Of its generation.
    """

    row: int
    generation: int
    step: int
    params: str | None
    has_value: int
    value: float | None
    metrics: str | None
    time: float
    parent_generation_id: str | None
    parent_step: int | None
    generation_id: str
    worker_id: int
    meta_params: str
    reason: str


class Tail(NamedTuple):
    """Where the journal ends.

    Attributes:
        row: The last row of any table.
        time: Time of the newest checkpoint; 0.0 without one.
        reports: Reports with a value so far.
        best: Row of the best checkpoint; None without a finite value.
        best_reports: `reports` when it became the best.
    """

    row: int
    time: float
    reports: int
    best: int | None
    best_reports: int


class Journal(abc.ABC):
    """The durable record of a run: insert-only but for the mutator's state.

    One writer at a time: `with journal:` is a transaction that takes the write lock
    at once, commits at the end and rolls back on an exception. A method that writes
    is called inside one. Rows are numbered by the caller, under the lock, through all
    tables. What is read is plain text and numbers; nothing in it is ever executed.

    Raises:
        JournalError: From any method, if the store is damaged or cannot be reached.
    """

    @abc.abstractmethod
    def __enter__(self) -> object:
        """Begin a transaction; waits for the write lock."""

    @abc.abstractmethod
    def __exit__(self, *exc: object) -> None:
        """Commit, or roll back if there was an exception."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the store."""

    @abc.abstractmethod
    def changed(self) -> bool:
        """Whether somebody else has written since the last call. Cheap."""

    @abc.abstractmethod
    def facts(self) -> dict[str, str]:
        """What is fixed about the run, encoded; empty for a new one."""

    @abc.abstractmethod
    def add_fact(self, key: str, value: str) -> None:
        """Record a fact, once."""

    @abc.abstractmethod
    def add_generation(self, generation: GenerationRow) -> None:
        """Insert a generation."""

    @abc.abstractmethod
    def add_checkpoint(
        self,
        row: int,
        generation: int,
        step: int,
        parent: int | None,
        params: str | None,
        has_value: int,
        value: float | None,
        metrics: str | None,
        time: float,
        reports: int,
        batch: int,
    ) -> None:
        """Insert a checkpoint; `parent` is a row, `batch` its batch's first row."""

    @abc.abstractmethod
    def add_late(
        self,
        row: int,
        checkpoint: int,
        params: str | None,
        has_value: int,
        value: float | None,
        metrics: str | None,
        time: float,
        reports: int,
        batch: int,
    ) -> None:
        """Insert what a recorded checkpoint lacked: its params, its value, or both."""

    @abc.abstractmethod
    def add_removal(self, row: int, params: str) -> None:
        """Record, after `row`, that the store no longer keeps these params."""

    @abc.abstractmethod
    def add_best(self, row: int, checkpoint: int, reports: int) -> None:
        """Record that a checkpoint has become the best one."""

    @abc.abstractmethod
    def add_session(self, row: int, time: float) -> None:
        """Record that a controller has opened the run after `row`."""

    @abc.abstractmethod
    def sessions(self) -> list[tuple[float, float]]:
        """When each session began and when its last checkpoint was recorded."""

    @abc.abstractmethod
    def tail(self) -> Tail:
        """Where the journal ends."""

    @abc.abstractmethod
    def state(self) -> tuple[str, int] | None:
        """The mutator's state, encoded, and how many decisions were made."""

    @abc.abstractmethod
    def set_state(self, state: str, decisions: int) -> None:
        """Replace the mutator's state."""

    @abc.abstractmethod
    def generation(self, generation_id: str) -> GenerationRow | None:
        """The generation of that id."""

    @abc.abstractmethod
    def newest_generation(self, worker_id: int) -> GenerationRow | None:
        """The slot's present generation."""

    @abc.abstractmethod
    def generation_ids(self, digest: str | None = None) -> list[str]:
        """All generations in order, or those with equal meta_params."""

    @abc.abstractmethod
    def checkpoint(self, row: int) -> CheckpointRow | None:
        """The checkpoint of that row."""

    @abc.abstractmethod
    def had_params(self, row: int) -> bool:
        """Whether the checkpoint ever had params, removed or not."""

    @abc.abstractmethod
    def checkpoints(
        self,
        generation_id: str,
        low: int,
        high: int,
        *,
        descending: bool = False,
        limit: int = -1,
    ) -> list[CheckpointRow]:
        """A generation's checkpoints with `low <= step <= high`, by step."""

    @abc.abstractmethod
    def newest(
        self, generation_id: str, high: int, *, value: bool, params: bool, finite: bool
    ) -> CheckpointRow | None:
        """A generation's newest checkpoint with `step <= high` that fits.

        Args:
            generation_id: The generation.
            high: The last step to look at.
            value: It must have a value.
            params: It must have params.
            finite: It must not have a value that is NaN or infinite.
        """

    @abc.abstractmethod
    def history(self, after: int, limit: int) -> list[CheckpointRow]:
        """The next checkpoints after a row, in the order in which they came."""
