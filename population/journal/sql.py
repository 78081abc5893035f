"""A journal in a relational database: all its SQL, but for the schema and the locks.

The SQL is portable. A database says how a statement is executed, what stands for a
value in it, what its function for the largest value is called, how transactions begin
and end, and whether another connection has written. Its tables are those of
`docs/on-disk-format.md`; `sessions` and `losses` need a column `rowid` that rises,
texts come in the order of their code points, and `has_value` is a boolean where there
are any. Whatever it is, it is written and comes back as 0 or 1, and NaN as NULL.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from population.base.errors import damaged
from population.journal.base import MAX, Find, Journal
from population.journal.checks import checked
from population.journal.records import (
    BESIDE,
    NUMBERED,
    Best,
    CheckpointRecord,
    CheckpointRow,
    Fact,
    Generation,
    Late,
    Lease,
    Loss,
    MutatorRecord,
    Opening,
    R,
    Record,
    Removal,
    Save,
    Tail,
)

_PAGE = 1000
_LARGEST = "1.7976931348623157e308"  # What is infinite is larger; NULL is NaN.


class Table(NamedTuple):
    """How records of a kind are kept.

    Attributes:
        name: The table.
        order: The column by which they come.
        key: The columns that tell them apart; None: rows are only ever added.
        replaced: Whether a record replaces the one with its key; else it is ignored.
        after: The column by which the newer ones are asked for.
    """

    name: str
    order: str
    key: str | None = None
    replaced: bool = False
    after: str | None = None


TABLES: dict[type, Table] = {
    Fact: Table("facts", "key", "key"),
    Opening: Table("sessions", "rowid"),
    Generation: Table("generations", "row"),
    CheckpointRecord: Table("checkpoints", "row"),
    Late: Table("late", "row"),
    Best: Table("best", "row"),
    Removal: Table("removals", "row, params", "params, row", after="row"),
    Loss: Table("losses", "row, rowid"),
    Lease: Table("leases", "change", "worker_id", True, after="change"),
    Save: Table("saves", "row, params", "params", True),
    MutatorRecord: Table("state", "id", "id", True),
}

# What came late replaces what only the memory of a process had.
_HISTORY = """
SELECT c.row, c.generation, c.step,
    CASE WHEN NOT EXISTS (
        SELECT 1 FROM removals r
        WHERE r.params = coalesce(p.params, c.params)
        AND r.row >= coalesce(p.row, c.row)
    ) THEN coalesce(p.params, c.params) END AS params,
    c.has_value OR v.row IS NOT NULL AS has_value,
    CASE WHEN c.has_value THEN c.value ELSE v.value END AS value,
    coalesce(c.metrics, v.metrics) AS metrics,
    c.time,
    pg.generation_id AS parent_generation_id, pc.step AS parent_step,
    g.generation_id, g.worker_id, g.meta_params, g.reason,
    coalesce(p.params, c.params) AS had_params, c.parent
FROM checkpoints c
JOIN generations g ON g.row = c.generation
LEFT JOIN checkpoints pc ON pc.row = c.parent
LEFT JOIN generations pg ON pg.row = pc.generation
LEFT JOIN late p ON p.checkpoint = c.row AND p.params IS NOT NULL
LEFT JOIN late v ON v.checkpoint = c.row AND v.has_value"""

_NOT_FINITE = f"(value IS NULL OR abs(value) > {_LARGEST})"  # Beside `has_value`.
# There are indexes of these: they are few, whatever the history.
_DIVERGED = f"""row IN (
    SELECT row FROM checkpoints WHERE has_value AND {_NOT_FINITE}
    UNION ALL SELECT checkpoint FROM late WHERE has_value AND {_NOT_FINITE})"""

_TAIL = """
SELECT {larger}(
        coalesce((SELECT max(row) FROM checkpoints), 0),
        coalesce((SELECT max(row) FROM generations), 0),
        coalesce((SELECT max(row) FROM late), 0)),
    {larger}(
        coalesce((SELECT time FROM checkpoints ORDER BY row DESC LIMIT 1), 0.0),
        coalesce((SELECT time FROM late ORDER BY row DESC LIMIT 1), 0.0)),
    {larger}(
        coalesce((SELECT reports FROM checkpoints ORDER BY row DESC LIMIT 1), 0),
        coalesce((SELECT reports FROM late ORDER BY row DESC LIMIT 1), 0)),
    (SELECT checkpoint FROM best ORDER BY row DESC LIMIT 1),
    coalesce((SELECT reports FROM best ORDER BY row DESC LIMIT 1), 0)
"""


class Link(Protocol):
    """A connection to a database, as its own transaction: `with link:` writes."""

    def __enter__(self) -> object:
        """Begin a transaction, once no other connection has the write lock."""

    def __exit__(self, *exc: object) -> None:
        """Commit, or roll back if there was an exception."""

    def run(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Execute a statement; all rows of its result."""

    def run_many(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Execute a statement for each of the rows, within a transaction."""

    def changed(self) -> bool:
        """Whether another connection has committed since the last call."""

    def close(self) -> None:
        """Close the connection; a second time does nothing."""


class SqlJournal(Journal):
    """A journal behind a connection to a relational database.

    Args:
        link: The connection.
        mark: What stands for a value in a statement.
        larger: The function that gives the larger of its arguments.
    """

    def __init__(self, link: Link, *, mark: str = "?", larger: str = "max") -> None:
        self._link = link
        self.mark, self.larger = mark, larger

    def transaction(self) -> Link:
        """What is written within is committed at the end, or nothing of it."""
        return self._link

    def changed(self) -> bool:
        """Whether another connection has committed since the last call."""
        return self._link.changed()

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def write(self, records: Sequence[Record]) -> None:
        """Add records in their order; within a transaction."""
        start, last = 0, len(records)
        while start < last:
            kind: Any = type(records[start])
            end = start + 1
            while end < last and type(records[end]) is kind:
                end += 1
            if end == start + 1:  # A driver takes a plain tuple more quickly.
                self._link.run(_insert(kind, self.mark), tuple(records[start]))
            else:
                self._link.run_many(_insert(kind, self.mark), records[start:end])
            if kind is Removal:  # What is removed is kept no more.
                self._forget_saves(records[start:end])
            start = end

    def all(self, kind: type[R], after: int = -1) -> list[R]:
        """The whole of a table without rows of its own, in its order."""
        table = TABLES[kind]
        values: tuple[Any, ...] = ()
        sql = f"SELECT {', '.join(_fields(kind))} FROM {table.name}"
        if table.after is not None:
            sql += f" WHERE {table.after} > {self.mark}"
            values = (after,)
        rows = self._link.run(f"{sql} ORDER BY {table.order}", values)
        return [checked(kind, row) for row in rows]

    def log(self, after: int = 0, upto: int | None = None) -> Iterator[Record]:
        """All that was recorded after a row, in its order."""
        last = self.tail().row if upto is None else upto
        first = True
        while first or after < last:
            page, beside = min(after + _PAGE, last), after - first
            first = False
            tables = [self._page(kind, after, page) for kind in NUMBERED]
            tables += [self._page(kind, beside, page) for kind in BESIDE]
            for record in heapq.merge(*tables, key=_row_of):
                if isinstance(record, NUMBERED):
                    after += 1
                    if record.row != after:
                        raise damaged(f"row {after} is missing or there twice")
                yield record
            if after != page:
                raise damaged(f"row {after + 1} is missing")

    def generations(
        self,
        *,
        id: str | None = None,
        worker_id: int | None = None,
        digest: str | None = None,
        after: int = 0,
    ) -> list[Generation]:
        """The generations for which all conditions hold, oldest first."""
        wanted = {"generation_id": id, "worker_id": worker_id, "digest": digest}
        values = [value for value in wanted.values() if value is not None]
        names = tuple(name for name, value in wanted.items() if value is not None)
        sql = _generations(names, after > 0, self.mark)
        if after > 0:
            values.append(after)
        return [checked(Generation, row) for row in self._link.run(sql, tuple(values))]

    def checkpoints(self, find: Find) -> list[CheckpointRow]:
        """The checkpoints that are wanted, as they are now."""
        shape = _shape(find)
        values: tuple[Any, ...] = (find.generation_id,) if shape.within else ()
        if shape.rows:
            values += find.after, find.upto
        if shape.steps:
            values += find.low, find.high
        if shape.limited:
            values += (find.limit,)
        sql = _checkpoints(shape, self.mark)
        return [checked(CheckpointRow, row) for row in self._link.run(sql, values)]

    def tail(self) -> Tail:
        """Where the journal ends."""
        (found,) = self._link.run(_tail(self.larger))
        return checked(Tail, found)

    def _forget_saves(self, removals: Sequence[Any]) -> None:
        sql = f"DELETE FROM saves WHERE params = {self.mark}"
        self._link.run_many(sql, [(removal.params,) for removal in removals])

    def _page(self, kind: Any, after: int, upto: int) -> list[Any]:
        sql = _log(kind, self.mark)
        return [checked(kind, row) for row in self._link.run(sql, (after, upto))]


def _row_of(record: Any) -> int:
    row: int = record.row
    return row


@functools.cache
def _fields(kind: Any) -> tuple[str, ...]:
    fields: tuple[str, ...] = kind._fields
    return fields


@functools.cache
def _insert(kind: Any, mark: str) -> str:
    """How a record is written."""
    table, fields = TABLES[kind], _fields(kind)
    marks = ", ".join([mark] * len(fields))
    sql = f"INSERT INTO {table.name} ({', '.join(fields)}) VALUES ({marks})"
    if table.key is None:
        return sql
    if not table.replaced:
        return f"{sql} ON CONFLICT ({table.key}) DO NOTHING"
    changed = ", ".join(f"{f} = excluded.{f}" for f in fields if f != table.key)
    return f"{sql} ON CONFLICT ({table.key}) DO UPDATE SET {changed}"


@functools.cache
def _log(kind: Any, mark: str) -> str:
    """The records of a kind whose row is after one and not after another."""
    table = TABLES[kind]
    return (
        f"SELECT {', '.join(_fields(kind))} FROM {table.name} "
        f"WHERE row > {mark} AND row <= {mark} ORDER BY {table.order}"
    )


@functools.cache
def _tail(larger: str) -> str:
    return _TAIL.format(larger=larger)


@functools.cache
def _generations(names: tuple[str, ...], after: bool, mark: str) -> str:
    conditions = [f"{name} = {mark}" for name in names]
    conditions += [f"row > {mark}"] if after else []
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    newest = "worker_id" in names
    order = "number DESC LIMIT 1" if newest else "row"
    fields = ", ".join(_fields(Generation))
    return f"SELECT {fields} FROM generations{where} ORDER BY {order}"


class _Shape(NamedTuple):
    """What is the same for all that is found by one statement.

    Attributes:
        within: Whether it is of one generation.
        rows: Whether the rows have bounds.
        steps: Whether the steps have bounds.
        limited: Whether there is a limit.
        value: As in `Find`.
        params: As in `Find`.
        finite: As in `Find`.
        decides: As in `Find`.
        diverged: As in `Find`.
        newest_first: As in `Find`.
    """

    within: bool
    rows: bool
    steps: bool
    limited: bool
    value: bool
    params: bool
    finite: bool
    decides: bool
    diverged: bool
    newest_first: bool


def _shape(find: Find) -> _Shape:
    return _Shape(
        find.generation_id is not None,
        find.after > 0 or find.upto < MAX,
        find.low > 0 or find.high < MAX,
        find.limit >= 0,
        find.value,
        find.params,
        find.finite,
        find.decides,
        find.diverged,
        find.newest_first,
    )


@functools.cache
def _checkpoints(shape: _Shape, mark: str) -> str:
    """How checkpoints are found: what has no bounds asks for no values."""
    conditions = []
    if shape.within:
        number = f"SELECT row FROM generations WHERE generation_id = {mark}"
        conditions.append(f"generation = ({number})")
    conditions += [f"row > {mark} AND row <= {mark}"] if shape.rows else []
    conditions += [f"step BETWEEN {mark} AND {mark}"] if shape.steps else []
    if shape.value or shape.decides or shape.diverged:
        conditions.append("has_value")
    conditions += ["params IS NOT NULL"] if shape.params else []
    conditions += [f"NOT (has_value AND {_NOT_FINITE})"] if shape.finite else []
    conditions += [f"(params IS NOT NULL OR {_NOT_FINITE})"] if shape.decides else []
    conditions += [_NOT_FINITE, _DIVERGED] if shape.diverged else []
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    order = (
        f"{'step' if shape.within else 'row'}{' DESC' if shape.newest_first else ''}"
    )
    limit = f" LIMIT {mark}" if shape.limited else ""
    return f"SELECT * FROM ({_HISTORY}) h{where} ORDER BY {order}{limit}"
