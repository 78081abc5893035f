"""The contract of every journal: a class of tests to inherit."""

from __future__ import annotations

from tests.journals.finding import Finding
from tests.journals.recording import Recording
from tests.journals.transactions import Transactions


class JournalContract(Transactions, Recording, Finding):
    """The promises of each method; a subclass opens the journal, as `Opening` says."""
