"""A journal in plain Python: it shows what the contract means, and is small."""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any

from population.base.errors import closed, damaged
from population.journal import records as r
from population.journal.base import Find, Journal

REPLACED = (r.Lease, r.Save, r.MutatorRecord)
ORDERS: dict[Any, tuple[str, ...]] = {
    **dict.fromkeys((r.Removal, r.Save), ("row", "params")),
    **{r.Fact: ("key",), r.Opening: (), r.Status: ("number",), r.Lease: ("change",)},
}


class Twin(Journal):
    """Answers every query by reading all that was ever written; has no disk."""

    def __init__(self) -> None:
        self._committed: list[r.Record] = []
        self._records = self._committed
        self._closed = False

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Write to a copy, and replace the original at the end."""
        self._check_open()
        self._records = mine = list(self._committed)
        try:
            yield
            self._check_open()
            self._committed = mine
        finally:
            if self._records is mine:
                self._records = self._committed

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """No other connection writes to this memory."""
        self._check_open()
        return contextlib.nullcontext()

    def changed(self) -> bool:
        """No other connection writes to this memory."""
        return self._check_open()

    def write(self, records: Sequence[r.Record]) -> None:
        """Add the records to the copy."""
        self._check_open()
        self._records.extend(map(_kept, records))

    def all(self, kind: Any, after: int = -1) -> list[Any]:
        """Go through all records, then sort them."""
        self._check_open()
        found: dict[Any, Any] = {}
        for place, record in enumerate(self._records):
            if kind is r.Save and isinstance(record, r.Removal):
                found.pop(record.params, None)
            elif type(record) is kind and kind in (r.Fact, r.Removal):
                found.setdefault(record[:-1], record)
            elif type(record) is kind:
                found[record[0] if kind in REPLACED else place] = record
        names = ORDERS.get(kind, (kind._fields[0],))
        rows = sorted(found.values(), key=lambda row: [getattr(row, n) for n in names])
        asked = kind in (r.Lease, r.Removal)
        return [x for x in rows if not asked or getattr(x, names[0]) > after]

    def log(self, after: int = 0, upto: int | None = None) -> Iterator[r.Record]:
        """Sort all records that have or name a row."""
        last = self.tail().row if upto is None else upto
        found = [x for k in r.NUMBERED for x in self.all(k) if after < x.row <= last]
        if [after, *sorted(x.row for x in found)] != [*range(after, last + 1)]:
            raise damaged("a row is missing or there twice")
        found += [x for k in r.BESIDE for x in self.all(k) if after <= x.row <= last]
        yield from sorted(found, key=_place)

    def generations(self, *, after: int = 0, **wanted: Any) -> list[r.Generation]:
        """Read all generations."""
        found = [g for g in self.all(r.Generation) if g.row > after]
        for name, value in wanted.items():
            column = "generation_id" if name == "id" else name
            found = [g for g in found if value in (None, getattr(g, column))]
        return found if wanted.get("worker_id") is None else found[-1:]

    def checkpoints(self, find: Find) -> list[r.CheckpointRow]:
        """Read all checkpoints."""
        tables = [self.all(k) for k in (r.CheckpointRecord, r.Late, r.Removal)]
        generations = {g.row: g for g in self.all(r.Generation)}
        origins = {c.row: (generations[c.generation][1], c.step) for c in tables[0]}
        rows = []
        for c in tables[0]:
            late = [c, *(x for x in tables[1] if x.checkpoint == c.row)]
            saved = next((x for x in late[::-1] if x.params is not None), c)
            valued = next((x for x in late if x.has_value), c)
            told = next((x for x in late if x.metrics is not None), c)
            gone = saved.params in (x.params for x in tables[2] if x.row >= saved.row)
            params = None if gone else saved.params
            now = (*c[:3], params, valued.has_value, valued.value, told.metrics, c.time)
            own = operator.itemgetter(1, 2, 5, 7)(generations[c.generation])
            about = (*origins.get(c.parent, (None, None)), *own, saved.params, c.parent)
            rows.append(r.CheckpointRow(*now, *about))
        rows.sort(key=lambda x: x.step if find.generation_id else x.row)
        found = [x for x in rows if _fits(x, find)][:: -1 if find.newest_first else 1]
        return found if find.limit < 0 else found[: find.limit]

    def tail(self) -> r.Tail:
        """Read the last records."""
        last = [x for k in (r.CheckpointRecord, r.Late) for x in self.all(k)[-1:]]
        row = max([0, *(x.row for x in (*last, *self.all(r.Generation)[-1:]))])
        time, reports = zip((0.0, 0), *((x.time, x.reports) for x in last), strict=True)
        best = [None, 0, *(x for b in self.all(r.Best) for x in b[1:])][-2:]
        return r.Tail(row, max(time), max(reports), *best)

    def close(self) -> None:
        """Drop the open transaction."""
        self._closed = True

    def _check_open(self) -> bool:
        if self._closed:
            raise closed(None)
        return False


def _place(x: Any) -> tuple[float, ...]:
    if isinstance(x, r.Status | r.Loss):
        number = x.number if isinstance(x, r.Status) else (x.statuses or 0) + 0.5
        return x.row, 2 if 0 < (x.batch or 0) <= x.row else 4, number
    return x.row, {r.Best: 1, r.Removal: 3}.get(type(x), 0)


def _kept(record: Any) -> Any:
    """A record as a journal stores it: NaN is None, a bool an int."""
    if type(record) not in (r.CheckpointRecord, r.Late):
        return record
    value = None if record.value != record.value else record.value
    return record._replace(has_value=int(record.has_value), value=value)


def _fits(row: r.CheckpointRow, find: Find) -> bool:
    has_params, has_value = row.params is not None, bool(row.has_value)
    diverges = has_value and (row.value is None or math.isinf(row.value))
    return (
        find.generation_id in (None, row.generation_id)
        and find.after < row.row <= find.upto
        and find.low <= row.step <= find.high
        and (has_value or not find.value)
        and (has_params or not find.params)
        and not (find.finite and diverges)
        and (not find.decides or (has_value and (has_params or diverges)))
        and (diverges or not find.diverged)
    )
