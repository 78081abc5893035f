"""The stacked engine's lease of a run: its reports, and how long it goes on."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from population.base.errors import ClaimError
from population.base.types import InMemory
from population.controller import PopulationController
from population.core.step import EncodedReport
from population.run.population_lease import PopulationLease


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
    """All slots of a run, claimed for one loop, unless the run has ended.

    Args:
        controller: The population.

    Attributes:
        seed: The run's seed.
        space: What the meta_params may be, or None.
        stop: When the run ends.
        size: How many slots there are.
        recording_s: Seconds for recording reports and for decisions, without saving.

    Raises:
        TypeError: `controller` is not a PopulationController.
        JournalError: The run is closed or read-only.
        ClaimError: Another process or loop trains a slot.
    """

    def __init__(self, controller: PopulationController) -> None:
        if not isinstance(controller, PopulationController):
            raise TypeError(
                "vectorized.run needs a PopulationController as its first argument, "
                f"got {type(controller).__name__}."
            )
        self._controller = controller
        controller.check_trainable()
        self.seed, self.stop, self.space = (
            controller.seed,
            controller.stop,
            controller.space,
        )
        self.recording_s = 0.0
        self.size = len(controller.workers)
        self._lease: PopulationLease | None = None
        if not controller.finished:
            self._lease = controller.claim_all(again=False)

    @property
    def claimed(self) -> bool:
        """Whether there is anything to train."""
        return self._lease is not None

    @property
    def of(self) -> PopulationLease:
        """The lease of all slots."""
        if self._lease is None:
            raise ClaimError("The run has ended: there is nothing to train.")
        return self._lease

    @property
    def finished(self) -> bool:
        """Whether the run has ended."""
        return self._controller.finished

    def report(
        self, reports: Iterable[Trained], gone: Collection[InMemory] = ()
    ) -> list[Any]:
        """Save trees, then record all reports in one transaction.

        Consecutive reports may share a tree, which is saved once. If anything fails,
        the saves are undone.

        Args:
            reports: What was trained.
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
                new.append(self.of.encode(*report))
            if new:
                start = time.perf_counter()
                self.of.report(new, gone=gone)
                self.recording_s += time.perf_counter() - start
        except BaseException:
            self.of.undo(new)
            raise
        return [report.params for report in new]

    def rounds_left(self, steps_per_report: int) -> float | None:
        """Rounds until `Stop` ends the run by steps or reports; None: not known."""
        left = []
        if self.stop.steps is not None:
            lowest = min(slot.newest.step for slot in self.of.slots())
            left.append((self.stop.steps - lowest) / steps_per_report)
        if self.stop.reports is not None:
            left.append((self.stop.reports - self.of.reports) / self.size)
        return min(left, default=None)

    def seconds_left(self) -> float | None:
        """Seconds until `Stop` ends the run by time; None: it does not."""
        if self.stop.seconds is None:
            return None
        return self.stop.seconds - self.of.open_s
