"""A journal in a relational database: all its SQL except the schema and the locks.

The SQL is portable. A subclass for a database defines how to execute a statement, the
placeholder for a value, the name of the function for the largest value, how a
transaction begins and ends, and whether another connection has written. The tables are
those of `docs/on-disk-format.md`; `sessions` and `losses` need a column `rowid` that
rises, texts must sort by code points, and `has_value` is a boolean if the database has
that type. In each case it is written and read as 0 or 1, and NaN as NULL.
"""

from __future__ import annotations

import abc
import functools
import heapq
import itertools
import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

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
    Status,
    Tail,
)

_PAGE = 1000
_LONG_PAGE = 20_000
_LARGEST = "1.7976931348623157e308"  # Infinity is larger; NULL is NaN.


class Table(NamedTuple):
    """The table for records of a kind.

    Attributes:
        name: The name of the table.
        order: The columns by which queries sort them.
        key: The columns of the key; None: rows are only added.
        replaced: Whether a record replaces the one with its key; else it is ignored.
        after: The column by which `all` selects newer ones, or None.
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
    Status: Table("statuses", "number"),
    Lease: Table("leases", "change", "worker_id", True, after="change"),
    Save: Table("saves", "row, params", "params", True),
    MutatorRecord: Table("state", "id", "id", True),
}

# Late params replace those that were only in the memory of a process. The file has this
# query as a view, without `had_params`: a change of it is a new format.
HISTORY = """
SELECT c.row, c.generation, c.step,
    CASE WHEN NOT EXISTS (
        SELECT 1 FROM removals r
        WHERE r.params = coalesce(p.params, c.params)
        AND r.row >= coalesce(p.row, c.row)
    ) THEN coalesce(p.params, c.params) END AS params,
    c.has_value OR v.row IS NOT NULL AS has_value,
    CASE WHEN c.has_value THEN c.value ELSE v.value END AS value,
    coalesce(c.metrics, m.metrics) AS metrics,
    c.time,
    pg.generation_id AS parent_generation_id, pc.step AS parent_step,
    g.generation_id, g.worker_id, g.meta_params, g.reason,{had_params}
    c.parent
FROM checkpoints c
JOIN generations g ON g.row = c.generation
LEFT JOIN checkpoints pc ON pc.row = c.parent
LEFT JOIN generations pg ON pg.row = pc.generation
LEFT JOIN late p ON p.checkpoint = c.row AND p.params IS NOT NULL
LEFT JOIN late v ON v.checkpoint = c.row AND v.has_value
LEFT JOIN late m ON m.checkpoint = c.row AND m.metrics IS NOT NULL"""
_WITH_HAD_PARAMS = HISTORY.format(
    had_params="\n    coalesce(p.params, c.params) AS had_params,"
)

_NOT_FINITE = f"(value IS NULL OR abs(value) > {_LARGEST})"  # Beside `has_value`.
# Indexes make these quick: such rows are few, however long the history is.
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


class SqlJournal(Journal):
    """A journal behind a connection to a relational database.

    Attributes:
        mark: The placeholder for a value in a statement.
        larger: The SQL function that returns the largest of its arguments.
    """

    mark: str = "?"
    larger: str = "max"

    @abc.abstractmethod
    def run(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Execute a statement; return all rows of its result."""

    @abc.abstractmethod
    def run_many(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Execute a statement for each of the rows, within a transaction."""

    def write(self, records: Sequence[Record]) -> None:
        """Add records in order; call it within a transaction."""
        for kind, group in itertools.groupby(records, type):
            rows: list[Any] = list(group)
            sql = _insert(kind, self.mark)
            if len(rows) == 1:  # Drivers are quicker with a plain tuple.
                self.run(sql, tuple(rows[0]))
            else:
                self.run_many(sql, rows)
            if kind is Removal:  # The params are no longer a save.
                forget = f"DELETE FROM saves WHERE params = {self.mark}"
                self.run_many(forget, [(row.params,) for row in rows])

    def all(self, kind: type[R], after: int = -1) -> list[R]:
        """Return all records of a kind that has no consecutive rows, in order."""
        table = TABLES[kind]
        newer = table.after is not None, f"{table.after} > {self.mark}", (after,)
        where, values = _where(newer)
        return self._rows(kind, f"{where} ORDER BY {table.order}", values)

    def log(self, after: int = 0, upto: int | None = None) -> Iterator[Record]:
        """Yield the records after a row, in order."""
        last = self.tail().row if upto is None else upto
        beside = after - 1  # Records that name the row `after` may be new.
        while True:
            page = min(after + _PAGE, last)
            tables = [self._page(kind, after, page) for kind in NUMBERED]
            tables += [self._page(kind, beside, page) for kind in BESIDE]
            key = _written if tables[-1] else operator.attrgetter("row")
            for record in heapq.merge(*tables, key=key):
                if isinstance(record, NUMBERED):
                    after += 1
                    if record.row != after:
                        raise damaged(f"row {after} is missing or there twice")
                yield record
            if after != page:
                raise damaged(f"row {after + 1} is missing")
            if page == last:
                return
            beside = page

    def fields(
        self, kind: type[R], names: Sequence[str], upto: int, after: int = 0
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Yield some fields of all records of a kind with consecutive rows."""
        sql = (
            f"SELECT {', '.join(names)} FROM {TABLES[kind].name} WHERE row > "
            f"{self.mark} AND row <= {self.mark} ORDER BY row LIMIT {_LONG_PAGE}"
        )
        while page := self.run(sql, (after, upto)):
            after = page[-1][0]
            yield page

    def generations(
        self,
        *,
        id: str | None = None,
        worker_id: int | None = None,
        digest: str | None = None,
        after: int = 0,
    ) -> list[Generation]:
        """Return the generations that meet all conditions, oldest first."""
        is_one = f"= {self.mark}"
        where, values = _where(
            (id is not None, f"generation_id {is_one}", (id,)),
            (worker_id is not None, f"worker_id {is_one}", (worker_id,)),
            (digest is not None, f"digest {is_one}", (digest,)),
            (after > 0, f"row > {self.mark}", (after,)),
        )
        order = "row" if worker_id is None else "number DESC LIMIT 1"
        return self._rows(Generation, f"{where} ORDER BY {order}", values)

    def checkpoints(self, find: Find) -> list[CheckpointRow]:
        """The checkpoints that are wanted, as they are now."""
        values: tuple[Any, ...] = ()
        if within := find.generation_id is not None:
            values = (find.generation_id,)
        if rows := find.after > 0 or find.upto < MAX:
            values += find.after, find.upto
        if steps := find.low > 0 or find.high < MAX:
            values += find.low, find.high
        if limited := find.limit >= 0:
            values += (find.limit,)
        has_value = find.value or find.decides or find.diverged
        kinds = find.params, find.finite, find.decides, find.diverged
        wanted = within, rows, steps, has_value, *kinds, find.newest_first, limited
        sql = _checkpoints(wanted, self.mark)
        return [checked(CheckpointRow, row) for row in self.run(sql, values)]

    def tail(self) -> Tail:
        """Return the last row and the newest figures of the journal."""
        (found,) = self.run(_TAIL.format(larger=self.larger))
        return checked(Tail, found)

    def _page(self, kind: Any, after: int, upto: int) -> list[Any]:
        """Return the records of a kind with `after < row <= upto`."""
        where = f" WHERE row > {self.mark} AND row <= {self.mark}"
        return self._rows(kind, f"{where} ORDER BY {TABLES[kind].order}", (after, upto))

    def _rows(self, kind: Any, rest: str, values: tuple[Any, ...]) -> list[Any]:
        """The records of a kind, chosen and sorted by the rest of a statement."""
        rows = self.run(_select(kind) + rest, values)
        return [checked(kind, row) for row in rows]


def _written(record: Any) -> tuple[int, ...]:
    """Return a key that sorts records as they were written.

    The transaction that has written a row writes removals last. So its statuses and
    losses come before them, and those of later transactions come after them.
    """
    if isinstance(record, Status | Loss):
        is_own = record.batch is not None and record.batch <= record.row
        rank = 2 if is_own else 4
        if isinstance(record, Status):
            return record.row, rank, record.number, 0
        return record.row, rank, record.statuses or 0, 1
    if isinstance(record, Removal):
        return record.row, 3
    return record.row, int(isinstance(record, Best))


@functools.cache
def _insert(kind: Any, mark: str) -> str:
    """Return the statement that writes a record of a kind."""
    table, fields = TABLES[kind], kind._fields
    marks = ", ".join([mark] * len(fields))
    sql = f"INSERT INTO {table.name} ({', '.join(fields)}) VALUES ({marks})"
    if table.key is None:
        return sql
    if not table.replaced:
        return f"{sql} ON CONFLICT ({table.key}) DO NOTHING"
    changed = ", ".join(f"{f} = excluded.{f}" for f in fields if f != table.key)
    return f"{sql} ON CONFLICT ({table.key}) DO UPDATE SET {changed}"


Condition = tuple[bool, str, tuple[Any, ...]]  # Whether it applies, its SQL and values.


def _where(*conditions: Condition) -> tuple[str, tuple[Any, ...]]:
    """Return the SQL of the conditions that apply, and the values for it."""
    wanted = [(sql, values) for is_wanted, sql, values in conditions if is_wanted]
    where = " AND ".join([sql for sql, _ in wanted])
    return f" WHERE {where}" if where else "", sum([v for _, v in wanted], ())


@functools.cache
def _select(kind: Any) -> str:
    """How the records of a kind are read; what follows chooses and sorts them."""
    return f"SELECT {', '.join(kind._fields)} FROM {TABLES[kind].name}"


@functools.cache
def _checkpoints(wanted: tuple[bool, ...], mark: str) -> str:
    """How checkpoints are read.

    Args:
        wanted: Which of the conditions below hold, whether the newest come first, and
            whether there is a limit.
        mark: What stands for a value.
    """
    conditions = (
        f"generation = (SELECT row FROM generations WHERE generation_id = {mark})",
        f"row > {mark} AND row <= {mark}",
        f"step BETWEEN {mark} AND {mark}",
        "has_value",
        "params IS NOT NULL",
        f"NOT (has_value AND {_NOT_FINITE})",
        f"(params IS NOT NULL OR {_NOT_FINITE})",
        f"{_NOT_FINITE} AND {_DIVERGED}",
    )
    *chosen, newest_first, limited = wanted
    where, _ = _where(
        *((w, sql, ()) for w, sql in zip(chosen, conditions, strict=True))
    )
    order = f"{'step' if wanted[0] else 'row'}{' DESC' if newest_first else ''}"
    limit = f" LIMIT {mark}" if limited else ""
    return f"SELECT * FROM ({_WITH_HAD_PARAMS}) h{where} ORDER BY {order}{limit}"
