"""Checks what has ended a run: a limit of `stop`, or a person who has stopped it."""

from __future__ import annotations

from population.base.types import Stop
from population.core.state import RunState


def why_ended(stop: Stop, state: RunState, open_s: float, statuses: int) -> str:
    """Return what has ended a run, in words; "" if nothing has.

    Args:
        stop: The limits.
        state: The state of the run.
        open_s: The seconds that it was open.
        statuses: How many statuses the session found: who asks it to stop does so with
            a later one.
    """
    if state.members.all_retired:
        return "all members are retired"
    if stop.steps is not None and _reached(state) >= stop.steps:
        return f"all members have reached step {stop.steps}"
    if stop.reports is not None and state.reports >= stop.reports:
        return f"{state.reports} values were reported"
    if stop.value is not None and state.best.score <= state.sign * stop.value:
        return f"the best value is as good as {stop.value}"
    since_best = state.reports - state.best.reports
    if stop.patience is not None and since_best >= stop.patience:
        return f"none of the last {since_best} values was the best"
    if stop.seconds is not None and open_s >= stop.seconds:
        return f"it was open for {open_s:.0f} s"
    asked = (s.reason for s in state.members.stops if s.number > statuses)
    reason = next(asked, None)
    return "" if reason is None else f"stopped {reason}"


def _reached(state: RunState) -> int:
    """Return the step that all slots have reached, except those given up or retired.

    With no other left, those given up count.
    """
    reached, members = state.scores.reached, state.members
    if members.lost or members.retired:
        slots = members.live or sorted(members.lost - members.retired)
        reached = reached[list(slots)]
    return int(reached.min())
