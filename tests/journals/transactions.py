"""What a journal promises about transactions, readers and other connections."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import pytest

from population import JournalError
from population.journal.base import Find, Journal
from population.journal.records import Fact, Record
from tests.journals.opening import Opening
from tests.journals.runs import (
    answers,
    break_off,
    checkpoint,
    generation,
    record,
)

CALLS: dict[str, Callable[[Journal], object]] = {
    "transaction": lambda journal: record(journal, Fact("a", "1")),
    "reading": lambda journal: journal.reading().__enter__(),
    "changed": lambda journal: journal.changed(),
    "write": lambda journal: journal.write([Fact("a", "1")]),
    "write many": lambda journal: journal.write([Fact("a", "1"), Fact("b", "1")]),
    "all": lambda journal: journal.all(Fact),
    "log": lambda journal: list(journal.log()),
    "generations": lambda journal: journal.generations(),
    "checkpoints": lambda journal: journal.checkpoints(Find()),
    "tail": lambda journal: journal.tail(),
}


def facts(journal: Journal) -> list[str]:
    """The keys of all facts."""
    return [fact.key for fact in journal.all(Fact)]


class Transactions(Opening):
    """Promises of `transaction`, `reading`, `changed`, `close` and `check_writable`."""

    def test_what_was_committed_stays(self, journal: Journal) -> None:
        """Later transactions that fail do not change it."""
        record(journal, Fact("a", "1"))
        record(journal, generation(1))
        with pytest.raises(ZeroDivisionError):
            break_off(journal, ZeroDivisionError, Fact("b", "1"), generation(2, 1))
        assert facts(journal) == ["a"]
        assert journal.generations() == [generation(1)]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_nothing_stays_of_a_transaction_that_fails(
        self, journal: Journal, error: type[BaseException]
    ) -> None:
        """Whatever ends it, all its records are gone, and the next one works."""
        before = answers(journal)
        records: list[Record] = [
            Fact("a", "1"),
            generation(1),
            checkpoint(2, 1, value=1.0),
        ]
        with pytest.raises(error):
            break_off(journal, error, *records)
        assert answers(journal) == before
        record(journal, Fact("b", "1"))
        assert facts(journal) == ["b"]

    def test_what_is_written_can_be_read_within_the_transaction(
        self, journal: Journal
    ) -> None:
        """Records are found at once, also within `reading`."""
        with journal.transaction():
            journal.write([Fact("a", "1")])
            with journal.reading():
                assert facts(journal) == ["a"]
                journal.write([Fact("b", "1")])
                assert facts(journal) == ["a", "b"]
            journal.write([Fact("c", "1")])
        assert facts(journal) == ["a", "b", "c"]

    def test_what_an_interrupt_has_left_open_is_rolled_back(
        self, journal: Journal
    ) -> None:
        """A Ctrl-C may come before a `with` sees it: the next transaction does it."""
        left = journal.transaction()
        left.__enter__()
        journal.write([Fact("a", "1")])
        record(journal, Fact("b", "1"))
        assert facts(journal) == ["b"]
        del left

    def test_one_that_was_left_can_be_left_by_an_exception(
        self, journal: Journal
    ) -> None:
        """So code is safe that cannot know whether an interrupt came before the end."""
        transaction = journal.transaction()
        with transaction:
            journal.write([Fact("a", "1")])
        transaction.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert facts(journal) == ["a"]
        transaction = journal.transaction()
        with contextlib.suppress(KeyError), transaction:
            journal.write([Fact("b", "1")])
            raise KeyError
        transaction.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert facts(journal) == ["a"]
        record(journal, Fact("c", "1"))
        assert facts(journal) == ["a", "c"]

    def test_a_transaction_without_records_changes_nothing(
        self, journal: Journal
    ) -> None:
        """A transaction with an empty list of records changes nothing, either."""
        before = answers(journal)
        record(journal)
        with journal.transaction():
            pass
        assert answers(journal) == before

    def test_readings_can_be_nested(self, journal: Journal) -> None:
        """The inner one does nothing, and the outer one ends as usual."""
        with journal.reading():
            with journal.reading():
                assert facts(journal) == []
            assert facts(journal) == []
        record(journal, Fact("a", "1"))
        assert facts(journal) == ["a"]

    def test_a_reader_ends_also_by_an_exception(self, journal: Journal) -> None:
        """Later commits are seen."""
        reading = journal.reading()
        reading.__enter__()
        assert facts(journal) == []
        assert not reading.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        record(journal, Fact("a", "1"))
        assert facts(journal) == ["a"]

    def test_own_commits_are_no_news(self, journal: Journal) -> None:
        """Reads and rolled back writes are not news, either."""
        assert not journal.changed()
        record(journal, Fact("a", "1"))
        assert not journal.changed()
        with pytest.raises(KeyError):
            break_off(journal, KeyError, Fact("b", "1"))
        facts(journal)
        assert not journal.changed()

    def test_closing_twice_does_nothing(self, journal: Journal) -> None:
        """The second call returns without an error."""
        record(journal, Fact("a", "1"))
        journal.close()
        journal.close()

    @pytest.mark.parametrize("name", CALLS)
    def test_a_closed_journal_says_so(self, journal: Journal, name: str) -> None:
        """Every method except `close` raises a `JournalError`, not a store's error."""
        journal.close()
        with pytest.raises(JournalError, match="closed"):
            CALLS[name](journal)

    def test_closing_within_a_transaction_is_an_error(self, journal: Journal) -> None:
        """Its records cannot be committed any more, and the error says so."""
        transaction = journal.transaction()
        transaction.__enter__()
        journal.write([Fact("a", "1")])
        journal.close()
        with pytest.raises(JournalError, match="closed"):
            transaction.__exit__(None, None, None)

    def test_a_sync_changes_nothing_from_whatever_thread(
        self, journal: Journal
    ) -> None:
        """Another thread syncs, also while this one has a transaction open."""
        record(journal, Fact("a", "1"))
        before = answers(journal)
        threads = [threading.Thread(target=journal.sync) for _ in range(4)]
        with journal.transaction():
            for thread in threads[:2]:
                thread.start()
            journal.sync()
            journal.write([Fact("b", "1")])
            for thread in threads[2:]:
                thread.start()
            for thread in threads:
                thread.join(60)
        assert facts(journal) == ["a", "b"]
        assert answers(journal) != before
        assert journal.durability in ("process", "power")
        journal.close()
        journal.sync()

    def test_it_can_be_written(self, journal: Journal) -> None:
        """A new journal is not read-only, and accepts records."""
        assert not journal.read_only
        journal.check_writable()

    def test_one_that_looks_does_not_write(self, journal: Journal) -> None:
        """It can be read; a write is refused before anything is written."""
        record(journal, generation(1), Fact("a", "1"))
        look = self.open_to_look(journal)
        if look is None:
            pytest.skip("Whoever reaches this journal may write to it.")
        assert look.read_only
        assert answers(look) == answers(journal)
        with pytest.raises(JournalError, match="cannot be written"):
            look.check_writable()
        with pytest.raises(JournalError, match="cannot be written"):
            record(look, Fact("b", "1"))
        look.close()
        assert facts(journal) == ["a"]

    # With two connections.

    def test_a_commit_is_seen_by_others_and_nothing_before(
        self, journal: Journal, other: Journal
    ) -> None:
        """Half a transaction is never seen."""
        with journal.transaction():
            journal.write([Fact("a", "1")])
            assert facts(other) == []
            journal.write([Fact("b", "1")])
            assert facts(other) == []
        assert facts(other) == ["a", "b"]

    def test_a_reader_sees_one_state_while_another_connection_writes(
        self, journal: Journal, other: Journal
    ) -> None:
        """It sees the newest state as soon as it ends."""
        record(journal, generation(1))
        with other.reading():
            before = answers(other)
            record(journal, checkpoint(2, value=1.0), Fact("a", "1"))
            with other.reading():
                assert answers(other) == before
            assert answers(other) == before
        assert answers(other) == answers(journal) != before

    def test_nested_readings_leave_no_old_view(
        self, journal: Journal, other: Journal
    ) -> None:
        """A new view begins when the outer reading ends."""
        with other.reading(), other.reading():
            facts(other)
        record(journal, Fact("a", "1"))
        assert facts(other) == ["a"]

    def test_a_commit_of_another_connection_is_news_once(
        self, journal: Journal, other: Journal
    ) -> None:
        """However many commits there were; then there is no news until the next one."""
        record(journal, Fact("a", "1"))
        record(journal, Fact("b", "1"))
        assert other.changed()
        assert not other.changed()
        assert not journal.changed()
        record(other, Fact("c", "1"))
        assert not other.changed()
        assert journal.changed()
        assert not journal.changed()

    def test_news_is_not_lost_by_an_own_commit(
        self, journal: Journal, other: Journal
    ) -> None:
        """Commits before an own transaction are reported within it, or after it."""
        record(journal, Fact("a", "1"))
        record(other, Fact("b", "1"))
        assert other.changed()
        record(journal, Fact("c", "1"))
        with other.transaction():
            assert other.changed()
            other.write([Fact("d", "1")])
        assert not other.changed()

    def test_what_another_connection_rolls_back_is_no_news(
        self, journal: Journal, other: Journal
    ) -> None:
        """A record that was never committed is not news."""
        with pytest.raises(KeyError):
            break_off(journal, KeyError, generation(1))
        assert not other.changed()

    def test_the_lock_is_taken_at_once_and_waited_for(
        self, journal: Journal, other: Journal
    ) -> None:
        """Of two writers one sees all records of the other, and loses nothing."""
        begun, found = threading.Event(), []

        def write() -> None:
            begun.set()
            with other.transaction():
                found.extend(facts(other))
                other.write([Fact("b", "1")])

        thread = threading.Thread(target=write)
        with journal.transaction():
            thread.start()
            assert begun.wait(60)
            journal.write([Fact("a", "1")])
        thread.join(60)
        assert found == ["a"]
        assert facts(journal) == ["a", "b"]

    def test_a_transaction_that_fails_holds_no_lock(
        self, journal: Journal, other: Journal
    ) -> None:
        """The other connection can write at once."""
        with pytest.raises(KeyboardInterrupt):
            break_off(journal, KeyboardInterrupt)
        record(other, Fact("a", "1"))
        assert facts(journal) == ["a"]

    def test_a_closed_connection_leaves_the_others(
        self, journal: Journal, other: Journal
    ) -> None:
        """The others continue, and its uncommitted records are gone."""
        left = other.transaction()
        left.__enter__()
        other.write([Fact("b", "1")])
        other.close()
        record(journal, Fact("a", "1"))
        assert facts(journal) == ["a"]
        del left
