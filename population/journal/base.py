"""The contract of a journal: ten methods to record a run and to query it.

A journal stores records of plain text and numbers; `core` interprets them. `sql` has
the SQL for a journal in any relational database, and `sqlite` is such a journal.
"""

from __future__ import annotations

import abc
import itertools
import operator
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from population.journal.records import (
    CheckpointRow,
    Generation,
    R,
    Record,
    Tail,
)

MAX = 2**63 - 1
_PAGE = 1000


class Find(NamedTuple):
    """A query for checkpoints that meet all conditions; the defaults find all.

    Attributes:
        generation_id: Only those of this generation, sorted by step; else by row.
        after: Only rows after this one.
        upto: Only rows up to this one.
        low: The first step.
        high: The last step.
        value: Only those with a value.
        params: Only those with params.
        finite: Only those without a value that is NaN or infinite.
        decides: Only those with params and a value, or a value that is not finite.
        diverged: Only those with a value that is not finite.
        newest_first: Sort in descending order.
        limit: The largest number of results; -1: all.
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

    The caller numbers the rows, within a transaction, through all tables. Nothing in a
    journal is ever executed. `tests/journals` has these promises as tests that a new
    journal inherits, and a journal of under 120 lines that keeps them.

    Attributes:
        read_only: Whether the run can only be read; `transaction` then raises.
        durability: What a commit survives: "process", the death of the process, or
            "power", a power cut too.

    Raises:
        JournalError: From any method, if the store is damaged or cannot be reached.
    """

    read_only: bool = False
    durability: str = "power"

    @abc.abstractmethod
    def transaction(self) -> AbstractContextManager[object]:
        """Return a context that commits all that is written in it, or nothing.

        On entry it waits for the write lock and takes it. First it rolls back a
        transaction that an interrupt has left open, so that none is nested. A second
        exit with an exception, or an exit after a failed entry, changes nothing.
        """

    @abc.abstractmethod
    def reading(self) -> AbstractContextManager[object]:
        """Return a context in which all reads see the same snapshot.

        Within another one, or within a transaction, it changes nothing.
        """

    @abc.abstractmethod
    def changed(self) -> bool:
        """Whether another connection has committed since the last call. Cheap."""

    @abc.abstractmethod
    def write(self, records: Sequence[Record]) -> None:
        """Add records in order; call it within a transaction.

        A second `Fact` of a key and a second equal `Removal` are ignored. A `Lease`,
        a `Save` and a `MutatorRecord` replace the one with their key, and a `Removal`
        removes the `Save` of its params. Reads return a NaN value as None, and
        `has_value` as 0 or 1.
        """

    @abc.abstractmethod
    def all(self, kind: type[R], after: int = -1) -> list[R]:
        """Return all records of a kind that has no consecutive rows, in order.

        Args:
            kind: `Fact`, `Opening`, `Removal`, `Loss`, `Status`, `Lease`, `Save` or
                `MutatorRecord`.
            after: Only leases with a greater `change`, or removals with a greater
                `row`.
        """

    @abc.abstractmethod
    def log(self, after: int = 0, upto: int | None = None) -> Iterator[Record]:
        """Yield the records after a row, in order, without the replaceable kinds.

        `Best`, `Removal`, `Loss` and `Status` follow the row that they name, and those
        that name `after` are included: a reader may get some twice, but misses none.
        At one row, `Best` comes first, then statuses and losses of the transaction
        that has written the row, removals, and statuses and losses of later ones.
        Among themselves, statuses and losses are in the order of writing.

        Args:
            after: The last row that the reader has.
            upto: The last row to read; None: the last one of the journal.

        Raises:
            JournalError: One of these rows is missing.
        """

    def fields(
        self, kind: type[R], names: Sequence[str], upto: int, after: int = 0
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Yield some fields of all records of a kind with consecutive rows.

        A journal may find these quicker than whole records.

        Args:
            kind: `Generation`, `CheckpointRecord` or `Late`.
            names: The names of fields; the first is `row`, and there is another.
            upto: The last row to read.
            after: Only rows after this one.

        Returns:
            Pages of tuples, in the order of their rows.
        """
        wanted = operator.attrgetter(*names)
        records = (r for r in self.log(after, upto) if isinstance(r, kind))
        while page := [wanted(r) for r in itertools.islice(records, _PAGE)]:
            yield page

    @abc.abstractmethod
    def generations(
        self,
        *,
        id: str | None = None,
        worker_id: int | None = None,
        digest: str | None = None,
        after: int = 0,
    ) -> list[Generation]:
        """Return the generations that meet all conditions, oldest first.

        Args:
            id: Only the one with this generation_id.
            worker_id: Only the newest one of this slot that meets the others.
            digest: Only those with these hyperparameters.
            after: Only rows after this one.
        """

    @abc.abstractmethod
    def checkpoints(self, find: Find) -> list[CheckpointRow]:
        """Return the checkpoints that a query finds, with all later changes."""

    @abc.abstractmethod
    def tail(self) -> Tail:
        """Return the last row and the newest figures of the journal."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the store; a second call does nothing."""

    def check_writable(self) -> None:  # noqa: B027
        """Raise a `JournalError` if the journal is read-only."""

    def sync(self) -> None:  # noqa: B027
        """Wait until all that was committed would survive a power cut.

        Any thread may call it, beside calls of another one.
        """
