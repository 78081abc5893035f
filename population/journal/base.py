"""The interface of a journal: what a store must do to keep a run.

`sqlite` is the one that comes with the library. A journal deals in rows of plain text and numbers; what
they mean is the business of `graph` and `slots`.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator, Sequence

from population.journal.records import (
    CheckpointRow,
    GenerationRow,
    LeaseRow,
    Pulse,
    Record,
    SaveRow,
    Tail,
)


class Journal(abc.ABC):
    """The durable record of a run: insert-only but for what only the present needs.

    That is the mutator's state, the leases, and what the params store keeps.

    One writer at a time: `with journal:` is a transaction that takes the write lock
    at once, commits at the end and rolls back on an exception. A method that writes
    is called inside one. Rows are numbered by the caller, under the lock, through all
    tables. What is read is plain text and numbers; nothing in it is ever executed.

    Attributes:
        read_only: Whether the run can only be looked at; a transaction then raises.

    Raises:
        JournalError: From any method, if the store is damaged or cannot be reached.
    """

    read_only: bool = False

    @abc.abstractmethod
    def __enter__(self) -> object:
        """Begin a transaction; waits for the write lock."""

    @abc.abstractmethod
    def __exit__(self, *exc: object) -> None:
        """Commit, or roll back if there was an exception."""

    @abc.abstractmethod
    def abandon(self) -> bool:
        """Roll back what an interrupted call has left open; whether there was any."""

    @abc.abstractmethod
    def reading(self) -> contextlib.AbstractContextManager[object]:
        """All that is read within sees the same; nothing inside a transaction."""

    def check_writable(self) -> None:  # noqa: B027
        """Refuse, by a `JournalError`, to write to what can only be looked at."""

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
    def rejected(self) -> list[str]:
        """The params, encoded, that workers have rejected."""

    @abc.abstractmethod
    def count_saves(self) -> tuple[int, int]:
        """How many saves there are in the store, and their bytes."""

    @abc.abstractmethod
    def trained_since(self, row: int) -> list[str]:
        """The generations that slots were at after a row, present ones included."""

    @abc.abstractmethod
    def remove(
        self, removals: Sequence[tuple[int, str, str]], *, saved: bool = True
    ) -> None:
        """Record removals, as `RemovalRecord`; such saves are kept no more.

        Args:
            removals: Row, params and reason of each.
            saved: Whether there may be such saves.
        """

    @abc.abstractmethod
    def removed_since(self, after: int) -> list[str]:
        """The params, encoded, that were found unreachable at or after a row."""

    @abc.abstractmethod
    def add_loss(self, row: int, lost: str, told: int | None, time: float) -> None:
        """Record, after `row`, which slots are lost; see `LossRecord`."""

    @abc.abstractmethod
    def lost(self) -> tuple[str | None, int]:
        """Which slots are lost, encoded, and how often that has changed."""

    @abc.abstractmethod
    def records(self, after: int = 0, upto: int | None = None) -> Iterator[Record]:
        """All that was recorded after a row, in its order; not the mutator's state.

        New bests, removals and losses come after the row that they name.
        """

    @abc.abstractmethod
    def pulse(self, after: int) -> Pulse:
        """What has changed beside checkpoints, at or after a row."""

    @abc.abstractmethod
    def touched(self, after: int) -> list[tuple[int, int]]:
        """Slots and generations (their rows) with checkpoints recorded after a row."""

    @abc.abstractmethod
    def late_since(self, after: int) -> list[int]:
        """Rows of the checkpoints that came late, in part or whole, after a row.

        Those that had been recorded before, and those below a later step that had.
        """

    @abc.abstractmethod
    def diverged(self) -> list[tuple[int, int]]:
        """Slots with how many values were NaN or infinite, where there are any."""

    @abc.abstractmethod
    def progress(self, after: int) -> tuple[bool, bool, bool]:
        """Whether since a row a value was finite, one not, a step above all before."""

    @abc.abstractmethod
    def leases(self, after: int = -1) -> list[LeaseRow]:
        """The leases that have changed since a change, in the order of changes."""

    @abc.abstractmethod
    def set_lease(self, lease: LeaseRow) -> None:
        """Replace the lease of a slot."""

    @abc.abstractmethod
    def saves(self) -> list[SaveRow]:
        """The params that the store keeps, oldest first."""

    @abc.abstractmethod
    def add_save(self, save: SaveRow) -> None:
        """Note that the store keeps these params."""

    @abc.abstractmethod
    def add_best(self, row: int, checkpoint: int, reports: int) -> None:
        """Record that a checkpoint has become the best one."""

    @abc.abstractmethod
    def add_session(self, row: int, time: float, owner: str) -> None:
        """Record that a controller has opened the run after `row`; and where it is."""

    @abc.abstractmethod
    def owners(self) -> list[tuple[int, str]]:
        """The row and the owner of each session, oldest first."""

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
        """Whether the checkpoint ever had params but held ones, removed or not."""

    @abc.abstractmethod
    def was_held(self, row: int) -> bool:
        """Whether the checkpoint was reported with params that a process held."""

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
        self,
        generation_id: str,
        high: int,
        *,
        value: bool,
        params: bool,
        finite: bool,
        decides: bool = False,
    ) -> CheckpointRow | None:
        """A generation's newest checkpoint with `step <= high` that fits.

        Args:
            generation_id: The generation.
            high: The last step to look at.
            value: It must have a value.
            params: It must have params.
            finite: It must not have a value that is NaN or infinite.
            decides: It must have params and a value, or a value that is not finite.
        """

    @abc.abstractmethod
    def history(self, after: int, limit: int) -> list[CheckpointRow]:
        """The next checkpoints after a row, in the order in which they came."""
