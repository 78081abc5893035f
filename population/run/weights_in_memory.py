"""The weights that an engine of this process reports as `InMemory()`."""

from __future__ import annotations

from collections.abc import Sequence

from population.base.types import InMemory
from population.core.step import EncodedReport
from population.journal.records import Removal
from population.run.transaction import Transaction


class WeightsInMemory:
    """Numbers the weights in this process's memory, and knows which are recorded.

    Args:
        token: The token of this session.

    Attributes:
        recorded: Those that the journal names and that are not gone, by their text.
        numbered: The number of reports of weights in this process's memory.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self.recorded: dict[str, InMemory] = {}
        self.numbered = 0

    def number(self, params: InMemory) -> InMemory:
        """Give params of a report a unique number.

        Raises:
            ValueError: The params already have the number of another report.
        """
        if params != InMemory():
            raise ValueError(
                f"A report of weights in memory needs InMemory(), got {params!r}, "
                "which is of another report. The controller numbers them."
            )
        self.numbered += 1
        return InMemory(self._token, self.numbered)

    def note(self, tx: Transaction, new: Sequence[EncodedReport]) -> None:
        """Note, after a commit, the weights that it has recorded or removed."""
        recorded = tx.params()
        for report in new:
            text = report.params_text
            if type(report.params) is InMemory and text in recorded:
                self.recorded[text] = report.params
        for record in tx.records:
            if isinstance(record, Removal):
                self.recorded.pop(record.params, None)
