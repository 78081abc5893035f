"""Hyperparameters follow a schedule over training steps, alike in every slot.

The policy of the same name in learned_optimization's `population` (Apache-2.0).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from population.base.codec import digest, normalized
from population.base.interfaces import Mutator, PopulationView
from population.base.types import Branch, Report, Schedule

logger = logging.getLogger("population")


class FixedSchedule(Mutator[None]):
    """The newest entry at or before a slot's newest step is put in force there.

    A member that diverges goes on as it is: this policy never goes back. So an entry
    takes effect at the first report with params, where the library keeps the weights.

    Args:
        schedule: `{step: meta_params}`, what `controller.schedule(checkpoint)` gives,
            or a pure function of the step; None from it means no change.

    Raises:
        TypeError: If it is neither a mapping nor a function.
        ValueError: If it is empty, or a step is not an int of 0 or more.
    """

    def __init__(self, schedule: Mapping[int, Any] | Callable[[int], Any]) -> None:
        if not isinstance(schedule, Mapping) and not callable(schedule):
            raise TypeError(
                "schedule must be {step: meta_params} or a function of the step, got "
                f"{type(schedule).__name__}."
            )
        if isinstance(schedule, Mapping) and not schedule:
            raise ValueError(
                "schedule must have at least one entry, got none. It maps steps to "
                "meta_params."
            )
        self._said = False
        if isinstance(schedule, Mapping):
            self.schedule: Any = normalized(dict(Schedule(schedule)), "schedule")
            self._at: Callable[[int], Any] = Schedule(schedule).at
        else:
            self.schedule = self._at = schedule

    def init(self, view: PopulationView) -> None:
        """There is nothing to remember: the step says what applies."""
        del view

    def update(
        self, state: None, report: Report, view: PopulationView
    ) -> tuple[None, Mapping[int, Branch]]:
        """Branch the slot if what applies at its step differs from what is in force."""
        newest = view.newest(report.worker_id)
        due = self._at(newest.step)
        if due is None or newest.diverged or digest(due) == digest(newest.meta_params):
            return state, {}
        if view.graph.resume_point(newest).row != newest.row:
            self._say_once(newest.step)  # Going back would undo the entry again.
            return state, {}
        branch = Branch(newest, due, f"schedule at step {newest.step}")
        return state, {report.worker_id: branch}

    def _say_once(self, step: int) -> None:
        if not self._said:
            self._said = True
            logger.warning(
                "The entry due at step %d waits for a report with params: a change "
                "goes on from saved ones. Save at the steps of the schedule.",
                step,
            )
