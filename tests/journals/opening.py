"""How the contract opens a journal."""

from __future__ import annotations

import abc
from collections.abc import Iterator

import pytest

from population.journal.base import Journal


class Opening(abc.ABC):
    """Opens the journals that are tested; a subclass says how."""

    @abc.abstractmethod
    def open_journal(self) -> Journal:
        """A new, empty journal; each call returns another one."""

    def open_again(self, journal: Journal) -> Journal | None:
        """A second connection to the same store; None if there is no other."""
        del journal
        return None

    def open_to_look(self, journal: Journal) -> Journal | None:
        """A second, read-only connection; None if there is none."""
        del journal
        return None

    @pytest.fixture
    def journal(self) -> Iterator[Journal]:
        """A new journal."""
        journal = self.open_journal()
        yield journal
        journal.close()

    @pytest.fixture
    def other(self, journal: Journal) -> Iterator[Journal]:
        """A second connection to the journal, if there is one."""
        other = self.open_again(journal)
        if other is None:
            pytest.skip("Only one connection can reach this journal.")
        yield other
        other.close()
