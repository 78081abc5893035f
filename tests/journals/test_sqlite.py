"""A Ctrl-C at a place where only SQLite knows that a transaction has begun."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from population import JournalError
from population.journal.records import Fact
from population.journal.sqlite import SqliteJournal
from tests.journals.runs import record


@pytest.fixture
def two(tmp_path: pathlib.Path) -> Iterator[tuple[SqliteJournal, SqliteJournal]]:
    """Two connections to one file."""
    path = tmp_path / "journal.sqlite"
    with contextlib.ExitStack() as stack:
        first, second = [
            stack.enter_context(contextlib.closing(SqliteJournal(path)))
            for _ in range(2)
        ]
        yield first, second


def begin_interrupted(
    monkeypatch: pytest.MonkeyPatch,
    journal: SqliteJournal,
    transaction: AbstractContextManager[object],
) -> None:
    """Begin a transaction; an interrupt comes right after SQLite has begun it."""
    run = journal.run

    def begin(sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        found = run(sql, values)
        if sql.startswith("BEGIN"):
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patch:
        patch.setattr(journal, "run", begin)
        with pytest.raises(KeyboardInterrupt):
            transaction.__enter__()


def test_an_interrupted_begin_leaves_no_lock(
    two: tuple[SqliteJournal, SqliteJournal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other connections do not wait for a process that is stopped in a debugger."""
    journal, other = two
    begin_interrupted(monkeypatch, journal, journal.transaction())
    record(other, Fact("a", "1"))
    record(journal, Fact("b", "1"))
    assert [fact.key for fact in other.all(Fact)] == ["a", "b"]


def test_an_interrupted_reader_leaves_no_old_view(
    two: tuple[SqliteJournal, SqliteJournal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits of others are seen, and are news, although nothing is written here."""
    journal, other = two
    begin_interrupted(monkeypatch, journal, journal.reading())
    assert journal.all(Fact) == []
    record(other, Fact("a", "1"))
    assert journal.changed()
    assert journal.all(Fact) == [Fact("a", "1")]


def test_a_second_connection_that_must_not_write_leaves_the_first_one_alone(
    two: tuple[SqliteJournal, SqliteJournal],
) -> None:
    """The thread that writes gets the error at each attempt, and then commits."""
    journal, other = two
    with journal.transaction():
        for _ in range(2):
            with pytest.raises(JournalError, match="this very thread"):
                other.transaction().__enter__()
        journal.write([Fact("a", "1")])
    record(other, Fact("b", "1"))
    assert [fact.key for fact in journal.all(Fact)] == ["a", "b"]
