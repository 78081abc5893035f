"""Whether a run has ended."""

from __future__ import annotations

from population.base.types import Stop
from population.core.slots import Slots


def ended(stop: Stop, slots: Slots, open_s: float) -> bool:
    """Whether `stop` has ended a run that was open for so many seconds."""
    if stop.steps is not None and slots.reached.min() >= stop.steps:
        return True
    if stop.reports is not None and slots.reports >= stop.reports:
        return True
    if stop.value is not None and slots.best.score <= slots.as_score(stop.value):
        return True
    since_best = slots.reports - slots.best.reports
    if stop.patience is not None and since_best >= stop.patience:
        return True
    return stop.seconds is not None and open_s >= stop.seconds
