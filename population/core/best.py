"""The best checkpoint of a run so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from population.base.types import Checkpoint, Held
from population.core.graph import JournalGraph
from population.journal.base import Journal
from population.journal.records import Tail


class Best:
    """Which checkpoint has the best finite value; the first one on ties.

    Args:
        journal: Where it is recorded.
        graph: All checkpoints.
        score_of: A checkpoint's score; lower is better, inf for none.

    Attributes:
        score: Its score; inf without one.
        reports: How many values had been reported when it became the best.
        row: Its row; None without one.
    """

    def __init__(
        self,
        journal: Journal,
        graph: JournalGraph,
        score_of: Callable[[Checkpoint], float],
    ) -> None:
        self._journal = journal
        self._graph = graph
        self._score_of = score_of
        self._known: Checkpoint | None = None
        self.begin()

    def begin(self) -> None:
        """There is none yet."""
        self.score, self.reports = math.inf, 0
        self.row: int | None = None
        self._known = None

    def end_at(self, tail: Tail) -> None:
        """Take over what the journal says."""
        self._known = None
        self.reports = tail.best_reports
        if tail.best != self.row:
            self.row = tail.best
            found = self.checkpoint()
            self.score = math.inf if found is None else self._score_of(found)

    def offer(
        self, checkpoint: Checkpoint, score: float, row: int, reports: int
    ) -> None:
        """Take a checkpoint whose value has just come, if it is better.

        Args:
            checkpoint: The checkpoint.
            score: Its score.
            row: The journal's last row.
            reports: Values so far, its own included.
        """
        if score >= self.score:
            return
        self.score, self.reports = score, reports
        self.row, self._known = checkpoint.row, checkpoint
        self._journal.add_best(row, checkpoint.row, reports)

    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint; None without one."""
        if self._known is None and self.row is not None:
            self._known = next(iter(self._graph.at_rows([self.row])), None)
        return self._known

    def forget(self, lost: Collection[Held] | None = None) -> None:
        """Its params may be others now; if `lost` is given, only where they are lost.

        Args:
            lost: Held params that count no more.
        """
        params = None if self._known is None else self._known.params
        if lost is None or (type(params) is Held and params in lost):
            self._known = None
