"""All journals keep the contract, and the contract is small."""

from __future__ import annotations

import ast
import itertools
import pathlib

import pytest

from population.journal.base import Journal
from population.journal.sqlite import SqliteJournal
from tests.journals import twin
from tests.journals.contract import JournalContract


class TestSqliteOnDisk(JournalContract):
    """A journal in one file."""

    folder: pathlib.Path
    paths: dict[Journal, pathlib.Path]
    numbers: itertools.count[int]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _folder(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        cls.folder = tmp_path_factory.mktemp("journals")
        cls.paths, cls.numbers = {}, itertools.count()

    def open_journal(self) -> Journal:
        """A new file."""
        path = self.folder / f"{next(self.numbers)}.sqlite"
        journal = SqliteJournal(path)
        self.paths[journal] = path
        return journal

    def open_again(self, journal: Journal) -> Journal:
        """The same file again."""
        return SqliteJournal(self.paths[journal])

    def open_to_look(self, journal: Journal) -> Journal:
        """The same file, read-only."""
        return SqliteJournal(self.paths[journal], look=True)


class TestSqliteInMemory(JournalContract):
    """A journal in memory, which has only one connection."""

    def open_journal(self) -> Journal:
        """A new memory."""
        return SqliteJournal()


class TestTwin(JournalContract):
    """A journal without SQL."""

    def open_journal(self) -> Journal:
        """Empty lists."""
        return twin.Twin()


def test_a_journal_has_at_most_ten_methods() -> None:
    """A journal for another store needs these methods, and no more."""
    assert len(Journal.__abstractmethods__) <= 10


def test_a_journal_can_be_written_in_under_120_lines() -> None:
    """Docstrings, comments and blank lines do not count."""
    source = pathlib.Path(twin.__file__).read_text()
    lines = {
        number
        for number, line in enumerate(source.splitlines(), 1)
        if line.strip() and not line.strip().startswith("#")
    }
    for node in ast.walk(ast.parse(source)):
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        if isinstance(node, documented) and ast.get_docstring(node):
            text = node.body[0]
            assert text.end_lineno is not None
            lines -= set(range(text.lineno, text.end_lineno + 1))
    assert len(lines) < 120
