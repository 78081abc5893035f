"""The SQL of journals: every lookup uses an index, and the view gives the same."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from population.journal import records
from population.journal.base import Find
from population.journal.sqlite import SqliteJournal
from tests.journals.runs import (
    KINDS,
    Draft,
    checkpoint,
    generation,
    late,
    random_find,
    record,
)

Statement = tuple[str, tuple[Any, ...]]
# Only the whole table, or only its end, is read.
WALKS = {"facts", "sessions", "losses", "statuses", "saves", "state", "CONSTANT"}
FINDS = {
    "the newest": Find("run-0-0", high=50, newest_first=True, limit=1),
    "the newest that decides": Find(
        "run-0-0", decides=True, newest_first=True, limit=1
    ),
    "one of a step": Find("run-0-0", low=7, high=7),
    "one of a row": Find(after=6, upto=7),
    "the next": Find(after=6, limit=3),
    "the last": Find(newest_first=True, limit=1),
    "those that diverged": Find(diverged=True),
    "those of a generation that diverged": Find("run-0-0", diverged=True, limit=1),
}


class Told(SqliteJournal):
    """Records the statements that are executed.

    Attributes:
        statements: The statements with their values.
    """

    def __init__(self) -> None:
        self.statements: list[Statement] = []
        super().__init__()

    def run(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Note it, unless it begins or ends a transaction, and execute it."""
        if not sql.startswith(("BEGIN", "COMMIT")):
            self.statements.append((sql, values))
        return super().run(sql, values)

    def run_many(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Note it, and execute it."""
        self.statements.append((sql, rows[0]))
        super().run_many(sql, rows)

    def scans(self, calls: int = 1) -> list[str]:
        """The tables that the last statements scan from end to end."""
        found = []
        for sql, values in self.statements[-calls:]:
            for *_, step in super().run(f"EXPLAIN QUERY PLAN {sql}", values):
                if step.startswith("SCAN"):
                    found.append(step)
        return found


@pytest.fixture
def told() -> Iterator[Told]:
    """A journal in memory, with a short run."""
    with contextlib.closing(Told()) as journal:
        record(journal, *history(20))
        yield journal


def history(count: int) -> list[records.Record]:
    """A run of one generation with two non-finite values and a few late ones."""
    values = {4: float("nan"), 5: None}
    rows = [
        checkpoint(row, params='"p"', value=values.get(row, 1.0))
        for row in range(2, count)
    ]
    return [generation(1), *rows, late(count, 5, value=float("inf"))]


def effort(journal: SqliteJournal, find: Find) -> int:
    """How many instructions of its virtual machine SQLite executes for a lookup."""
    counted = [0]

    def count() -> int:
        counted[0] += 1
        return 0

    raw: sqlite3.Connection = journal.raw
    raw.set_progress_handler(count, 1)
    journal.checkpoints(find)
    raw.set_progress_handler(None, 1)
    return counted[0]


@pytest.mark.parametrize("name", FINDS)
def test_to_find_checkpoints_takes_an_index(told: Told, name: str) -> None:
    """No lookup of a tick scans all checkpoints, or all late records."""
    told.checkpoints(FINDS[name])
    found = [scan for scan in told.scans() if "diverged" not in scan]
    assert found == (["SCAN c"] if name == "the last" else [])


@pytest.mark.parametrize("name", FINDS)
def test_to_find_checkpoints_costs_the_same_after_a_long_history(name: str) -> None:
    """SQLite's instructions are counted, not seconds."""
    with contextlib.closing(SqliteJournal()) as short:
        record(short, *history(100))
        few = effort(short, FINDS[name])
    with contextlib.closing(SqliteJournal()) as long:
        record(long, *history(3000))
        many = effort(long, FINDS[name])
    assert many == pytest.approx(few, abs=8)


@pytest.mark.parametrize(
    "wanted",
    [
        {"id": "run-0-0"},
        {"worker_id": 0},
        {"digest": "1.0"},
        {"after": 3},
        {"worker_id": 0, "digest": "1.0"},
        {"worker_id": 0, "after": 3},
    ],
)
def test_to_find_generations_takes_an_index(told: Told, wanted: Any) -> None:
    """Only a lookup of all generations scans the table."""
    told.generations(**wanted)
    assert told.scans() == []


def test_tables_and_the_log_are_read_by_their_indexes(told: Told) -> None:
    """Rows after a given one are found without reading those before it."""
    for kind in KINDS:
        told.all(kind)
    assert {scan.split()[1] for scan in told.scans(len(KINDS))} <= WALKS
    before = len(told.statements)
    list(told.log(3))
    tail, *pages = told.statements[before:]
    assert "ORDER BY row DESC LIMIT 1" in tail[0]
    assert told.scans(len(pages)) == []


def test_what_is_written_is_found_by_its_key(told: Told) -> None:
    """A removal finds the save that it removes by an index."""
    told.statements.clear()
    record(told, records.Removal(1, '"p"', "r"), records.Removal(1, '"q"', "r"))
    record(told, records.Save('"p"', 1, "run-0-0", 1, 1))
    assert told.scans(len(told.statements)) == []


def test_no_statement_holds_a_value(told: Told) -> None:
    """However many values there are, the statements are few: no value is injected."""
    rng, draft = random.Random(0), Draft()
    with contextlib.closing(Told()) as journal:
        batch = [draft.next(rng.randrange(16), rng) for _ in range(300)]
        for one in batch:
            record(journal, one)
        assert len({sql for sql, _ in journal.statements}) <= len(KINDS) + 5
    for _ in range(300):
        told.checkpoints(random_find(rng))
    for sql, values in told.statements:
        assert sql.count("?") == len(values)
        assert not any(isinstance(v, str) and v and v in sql for v in values)


def test_the_view_in_the_file_asks_the_same() -> None:
    """A person who reads `history` sees what the library finds."""
    rng, draft = random.Random(1), Draft()
    with contextlib.closing(SqliteJournal()) as journal:
        record(journal, *(draft.next(rng.randrange(16), rng) for _ in range(300)))
        names = list(records.CheckpointRow._fields)
        names.remove("had_params")
        found = [row._asdict() for row in journal.checkpoints(Find())]
        view = journal.raw.execute("SELECT * FROM history ORDER BY row").fetchall()
        assert [tuple(row[name] for name in names) for row in found] == view
