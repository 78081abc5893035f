"""Hyperparameters follow a schedule over training steps, the same for every slot.

The policy of the same name in learned_optimization's `population` (Apache-2.0).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from population.base.codec import digest, normalized
from population.base.interfaces import Mutator, PopulationView
from population.base.schedule import Schedule
from population.base.types import Branch, Report

logger = logging.getLogger("population")


class FixedSchedule(Mutator[None]):
    """Gives each slot the newest entry at or before the step that it has reached.

    The entry for its first step is in force from the start, also where a slot begins
    with trained weights, in a fork, or after it went back to an earlier save (before
    the first entry it keeps what it has). A branch to other hyperparameters continues
    from saved weights. If the library keeps the weights, an entry takes effect at the
    first report with params. A member that has diverged continues unchanged: this
    policy never goes back, and a NaN is no failure.

    Args:
        schedule: `{step: meta_params}`, such as `controller.schedule(checkpoint)`
            returns, or a pure function of the step; if that returns None, nothing
            changes.

    Raises:
        TypeError: `schedule` is neither a mapping nor a function.
        ValueError: `schedule` is empty, or a step is not an int of 0 or more.
    """

    divergence_fails = False

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
        self._has_warned = False
        if isinstance(schedule, Mapping):
            self.schedule: Any = normalized(dict(Schedule(schedule)), "schedule")
            self._at: Callable[[int], Any] = Schedule(schedule).at
        else:
            self.schedule = self._at = schedule

    def init(self, view: PopulationView) -> None:
        """Return an empty state: the step alone determines the entry."""
        del view

    def first(self, worker_id: int, step: int, meta_params: Any) -> Any:
        """Return the newest entry at or before the step; unchanged before the first."""
        del worker_id
        due = self._at(step)
        return meta_params if due is None else due

    def update(
        self, state: None, report: Report, view: PopulationView
    ) -> tuple[None, Mapping[int, Branch]]:
        """Branch the slot if the entry for its step differs from its meta_params."""
        newest = view.newest(report.worker_id)
        due = self._at(newest.step)
        if due is None or newest.diverged or digest(due) == digest(newest.meta_params):
            return state, {}
        if view.graph.resume_point(newest).row != newest.row:
            self._warn_once(newest.step)  # The slot would go back before the entry.
            return state, {}
        branch = Branch(newest, due, f"schedule at step {newest.step}")
        return state, {report.worker_id: branch}

    def _warn_once(self, step: int) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "The entry of the schedule at step %d waits for a report with params, "
                "because a branch goes on from saved ones. Save at the steps of the "
                "schedule.",
                step,
            )
