"""The stacked engine's lease of a run, and its reports."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from population.base.types import InMemory
from population.controller import PopulationController
from population.core.step import EncodedReport


class Trained(NamedTuple):
    """A checkpoint to report.

    Attributes:
        worker_id: The slot.
        generation_id: The generation that was trained.
        step: Its training steps.
        params: A tree to save, or `InMemory()`.
        value: The value; None if it was not evaluated or is recorded already.
        metrics: Further figures, or None.
    """

    worker_id: int
    generation_id: str
    step: int
    params: Any
    value: float | None = None
    metrics: Any = None


class EngineLease:
    """All slots of a run, claimed for one loop, and its reports.

    Args:
        controller: The population; it has not ended.

    Attributes:
        controller: The population.
        population: The lease of all slots.
        recording_s: Seconds for recording reports and for decisions, without saving.

    Raises:
        ClaimError: Another process or loop trains a slot.
    """

    def __init__(self, controller: PopulationController) -> None:
        self.controller = controller
        self.population = controller.claim_all(again=False)
        self.recording_s = 0.0

    def report(
        self, reports: Iterable[Trained], gone: Collection[InMemory] = ()
    ) -> list[Any]:
        """Save trees, then record all reports in one transaction.

        Consecutive reports may share a tree, which is saved once. If anything fails,
        the saves are undone.

        Args:
            reports: The checkpoints to report.
            gone: Weights that are not in memory any more.

        Returns:
            The params of each report, as they are recorded.
        """
        new: list[EncodedReport] = []
        try:
            tree: Any = None
            for report in reports:
                is_same = tree is not None and report.params is tree
                tree = report.params
                if is_same:
                    report = report._replace(params=new[-1].params)
                new.append(self.population.encode(*report))
            if new:
                start = time.perf_counter()
                self.population.report(new, gone=gone)
                self.recording_s += time.perf_counter() - start
        except BaseException:
            self.population.undo(new)
            raise
        return [report.params for report in new]
