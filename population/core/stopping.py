"""Checks whether `stop` has ended a run."""

from __future__ import annotations

from population.base.types import Stop
from population.core.state import RunState


def ended(stop: Stop, state: RunState, open_s: float) -> bool:
    """Whether `stop` has ended a run that was open for `open_s` seconds."""
    if state.members.all_retired:
        return True
    if stop.steps is not None and _reached(state) >= stop.steps:
        return True
    if stop.reports is not None and state.reports >= stop.reports:
        return True
    if stop.value is not None and state.best.score <= state.sign * stop.value:
        return True
    since_best = state.reports - state.best.reports
    if stop.patience is not None and since_best >= stop.patience:
        return True
    return stop.seconds is not None and open_s >= stop.seconds


def _reached(state: RunState) -> int:
    """Return the step that all slots have reached, except those given up or retired.

    With no other left, those given up count.
    """
    reached, members = state.scores.reached, state.members
    if members.lost or members.retired:
        slots = members.live or sorted(members.lost - members.retired)
        reached = reached[list(slots)]
    return int(reached.min())
