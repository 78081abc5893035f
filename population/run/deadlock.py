"""Resolves a run in which all slots wait, so that no worker trains."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from population.base.errors import NoProgressError
from population.run import liveness
from population.run.open_run import OpenRun
from population.run.setbacks import NO_STATE

logger = logging.getLogger("population")
_NAMED = 8


def resolve(run: OpenRun, *, evaluators: bool = True) -> bool:
    """Check whether a decision can still come, if all slots wait. Called with the lock.

    If the run ends before some slots have reached their barrier, the others train to
    the end without the decision. Else, if all slots wait, no other process may be
    training one, and no late report is expected, this raises.

    Args:
        run: The run.
        evaluators: Whether to wait for late values, which other processes may report.

    Returns:
        Whether slots that waited may be trained now.

    Raises:
        NoProgressError: No decision can come; the message names the slots, their steps,
            and the likely cause.
    """
    state, end = run.state(), run.stop.steps
    retired = state.members.retired
    everything = [w for w in range(len(state.slots)) if w not in retired]
    if not all(map(run.waits, everything)):
        return False
    if run.leases.held_by_others(
        state, lambda owner: liveness.is_within(owner, run.holder)
    ):
        return False
    if evaluators and expected(run):
        return False
    waiting = [w for w in everything if end is None or state.scores.reached[w] < end]
    if not waiting:
        return False  # The run is over.
    branched = any(slot.generation.number for slot in state.slots)
    if branched and run.graph.keeps_weights and not state.has_params:
        raise NoProgressError(f"{_describe(run, waiting)} {NO_STATE}")
    short = [w for w in everything if w not in waiting and not _has_closed(run, w)]
    if not short:
        raise NoProgressError(never(run, waiting))
    logger.warning(
        "The run ends at step %d, before a decision that waits for %s could be made: "
        "%s will be trained on to the end without it.",
        end,
        _named(short),
        _named(waiting),
    )
    run.decider.let_go(state)
    run.lock.changed.notify_all()
    return True


def expected(run: OpenRun) -> list[int]:
    """Return slots with a report at their barrier that still lacks something.

    Any process may add a value for saved weights; only the worker that trains a slot
    can add the weights for a value.
    """
    state, found = run.state(), []
    for worker_id, slot in enumerate(state.slots):
        if worker_id in state.members.retired:
            continue
        limit = run.decider.decision_at(state, worker_id)
        if limit is None or _has_closed(run, worker_id):
            continue
        first = max(limit, slot.generation.step + 1)
        held = not run.leases.is_free(state, worker_id)
        span = run.graph.span(slot.generation.generation_id, first)
        if any(c.value is None or held for c in span):
            found.append(worker_id)
    return found


def never(run: OpenRun, waiting: Sequence[int]) -> str:
    """Return an error message: all slots wait without end, and the likely causes."""
    return (
        f"{_describe(run, waiting)} All have reported what a decision needs, and "
        f"{type(run.decider.mutator).__name__}.update made none. Either its wait_at is "
        "wrong, or it keeps a member frozen at a step that it never moves: "
        "population.testing.check_mutator finds such a case."
    )


def _describe(run: OpenRun, waiting: Sequence[int]) -> str:
    """Describe in a sentence which slots wait at which steps."""
    state = run.state()
    places = [
        f"slot {w} at step {run.decider.decision_at(state, w)}"
        for w in waiting[:_NAMED]
    ]
    places += ["..."] if len(waiting) > _NAMED else []
    retired = sorted(state.members.retired)
    ended = [w for w in range(len(state.slots)) if w not in {*waiting, *retired}]
    if retired:
        places += [f"{_named(retired)}, retired"]
    if ended:
        places += [f"{_named(ended)} at the end of the run, step {run.stop.steps}"]
    return (
        "Every slot waits and no worker trains, so that no decision will ever come: "
        f"{'; '.join(places)}."
    )


def _has_closed(run: OpenRun, worker_id: int) -> bool:
    """Whether a slot has reported all that its next decision needs."""
    state = run.state()
    limit = run.decider.decision_at(state, worker_id)
    return limit is not None and bool(state.scores.ready[worker_id] >= limit)


def _named(slots: Sequence[int]) -> str:
    what = "slot" if len(slots) == 1 else "slots"
    more = ", ..." if len(slots) > _NAMED else ""
    return f"{what} {', '.join(map(str, slots[:_NAMED]))}{more}"
