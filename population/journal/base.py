"""The contract of a journal: ten methods that keep a run and answer questions about it.

A journal deals in records of plain text and numbers; what they mean is the business of
`core`. `sql` has the SQL of a journal in any relational database, `sqlite` is one.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from population.journal.records import (
    CheckpointRow,
    Generation,
    R,
    Record,
    Tail,
)

MAX = 2**63 - 1


class Find(NamedTuple):
    """Which checkpoints are wanted: all conditions hold; the defaults ask for nothing.

    Attributes:
        generation_id: Of this generation; they then come by step, else by row.
        after: Recorded after this row.
        upto: Recorded at this row at the latest.
        low: The first step.
        high: The last step.
        value: They have a value.
        params: They have params.
        finite: They have no value that is NaN or infinite.
        decides: They have params and a value, or a value that is not finite.
        diverged: They have a value that is not finite.
        newest_first: In descending order.
        limit: At most so many; -1: all.
    """

    generation_id: str | None = None
    after: int = 0
    upto: int = MAX
    low: int = 0
    high: int = MAX
    value: bool = False
    params: bool = False
    finite: bool = False
    decides: bool = False
    diverged: bool = False
    newest_first: bool = False
    limit: int = -1


class Journal(abc.ABC):
    """The durable record of a run. Not safe for threads; one writer at a time.

    Rows are numbered by the caller, within a transaction, through all tables. Nothing
    in a journal is ever executed. `tests/journals` has these promises as tests that a
    new journal inherits, and a journal of under 120 lines that keeps them.

    Attributes:
        read_only: Whether the run can only be looked at; `transaction` then raises.

    Raises:
        JournalError: From any method, if the store is damaged or cannot be reached.
    """

    read_only: bool = False

    @abc.abstractmethod
    def transaction(self) -> AbstractContextManager[object]:
        """What is written within is committed at the end, or nothing of it.

        It waits for the write lock and takes it at once. What an interrupt has left
        open is rolled back first; so there is never one within another. To leave it
        by an exception once more, or when it could not begin, changes nothing.
        """

    @abc.abstractmethod
    def reading(self) -> AbstractContextManager[object]:
        """All that is read within sees the same.

        Within another one, or a transaction, it changes nothing.
        """

    @abc.abstractmethod
    def changed(self) -> bool:
        """Whether another connection has committed since the last call. Cheap."""

    @abc.abstractmethod
    def write(self, records: Sequence[Record]) -> None:
        """Add records in their order; within a transaction.

        A second `Fact` of a key and a second equal `Removal` are ignored. A `Lease`,
        a `Save` and a `MutatorRecord` replace the one with their key, and a `Removal`
        removes the `Save` of these params. A value that is NaN comes back as None, and
        `has_value` as 0 or 1.
        """

    @abc.abstractmethod
    def all(self, kind: type[R], after: int = -1) -> list[R]:
        """The whole of a table without rows of its own, in its order.

        Args:
            kind: `Fact`, `Opening`, `Removal`, `Loss`, `Lease`, `Save` or
                `MutatorRecord`.
            after: Of leases, only those whose `change` is greater; of removals, whose
                `row` is.
        """

    @abc.abstractmethod
    def log(self, after: int = 0, upto: int | None = None) -> Iterator[Record]:
        """All that was recorded after a row, in its order, without what is replaced.

        Records that name a row come after it, and those that name `after` come too: so
        a reader may get them twice, and misses none.

        Args:
            after: The last row that is known.
            upto: The last row to read; None: as far as there are any.

        Raises:
            JournalError: If one of these rows is missing.
        """

    @abc.abstractmethod
    def generations(
        self,
        *,
        id: str | None = None,
        worker_id: int | None = None,
        digest: str | None = None,
        after: int = 0,
    ) -> list[Generation]:
        """The generations for which all conditions hold, oldest first.

        Args:
            id: Of this generation_id.
            worker_id: Of this slot; only the newest one that fits.
            digest: With these hyperparameters.
            after: Recorded after this row.
        """

    @abc.abstractmethod
    def checkpoints(self, find: Find) -> list[CheckpointRow]:
        """The checkpoints that are wanted, as they are now."""

    @abc.abstractmethod
    def tail(self) -> Tail:
        """Where the journal ends."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the store; a second time does nothing."""

    def check_writable(self) -> None:  # noqa: B027
        """Refuse, by a `JournalError`, to write to what can only be looked at."""
