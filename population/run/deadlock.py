"""What to do in a run in which all slots wait, so that none is trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from population.core.setbacks import NO_STATE

if TYPE_CHECKING:
    from population.run.open_run import Session

logger = logging.getLogger("population")
_NAMED = 8


def resolve(session: Session, *, evaluators: bool = True) -> bool:
    """Look whether any decision can still come; called with the session's lock.

    If the run ends before some slots have reached their barrier, the others train on
    to the end without the decision. Else, if all slots wait, no other process
    may be training one, and no late report is expected, this raises.

    Args:
        session: The run.
        evaluators: Whether others may report late values, which are waited for.

    Returns:
        Whether slots that waited may be trained now.

    Raises:
        RuntimeError: Naming the slots, their steps, and the likely cause.
    """
    decisions, slots, steps = session.decisions, session.slots, session.stop.steps
    everything = range(len(slots))
    if not all(map(decisions.waits, everything)):
        return False
    if session.leases.held_elsewhere(session.holder) or (
        evaluators and expected(session)
    ):
        return False
    waiting = [w for w in everything if steps is None or slots.reached[w] < steps]
    if not waiting:
        return False  # The run is over.
    if loses_states(session):
        raise RuntimeError(f"{describe(session, waiting)} {NO_STATE}")
    short = [w for w in everything if w not in waiting and not _has_closed(session, w)]
    if not short:
        raise RuntimeError(never(session, waiting))
    logger.warning(
        "The run ends at step %d, before a decision that waits for %s could be made: "
        "%s will be trained on to the end without it.",
        steps,
        _named(short),
        _named(waiting),
    )
    decisions.let_go()
    session.news.notify_all()
    return True


def expected(session: Session) -> list[int]:
    """The slots with a report at their barrier that others may still complete.

    Any process may evaluate saved weights; only the worker that trains a slot can save
    what it has evaluated.
    """
    slots, found = session.slots, []
    for worker_id in range(len(slots)):
        limit = session.decisions.decision_at(worker_id)
        if limit is None or _has_closed(session, worker_id):
            continue
        generation = slots[worker_id].generation
        first = max(limit, generation.step + 1)
        held = not session.leases.is_free(worker_id)
        span = session.graph.span(generation.generation_id, first)
        if any(c.value is None or held for c in span):
            found.append(worker_id)
    return found


def loses_states(session: Session) -> bool:
    """Whether members go back to fresh weights, as none were ever saved."""
    if session.slots.saved or not session.graph.keeps_weights:
        return False
    return any(slot.generation.number for slot in session.slots)


def never(session: Session, waiting: Sequence[int]) -> str:
    """That everybody waits for ever, and why that may be."""
    return (
        f"{describe(session, waiting)} All have reported what a decision needs, and "
        f"{type(session.mutator).__name__}.update made none. Either its wait_at is "
        "wrong, or it keeps a member frozen at a step that it never moves: "
        "population.testing.check_mutator finds such a case."
    )


def describe(session: Session, waiting: Sequence[int]) -> str:
    """Who waits where, in a sentence."""
    places = [
        f"slot {w} at step {session.decisions.decision_at(w)}" for w in waiting[:_NAMED]
    ]
    places += ["..."] if len(waiting) > _NAMED else []
    ended = [w for w in range(len(session.slots)) if w not in waiting]
    if ended:
        end = f"{_named(ended)} at the end of the run, step {session.stop.steps}"
        places.append(end)
    return (
        "Every slot waits and nobody trains, so that no decision will ever come: "
        f"{'; '.join(places)}."
    )


def _has_closed(session: Session, worker_id: int) -> bool:
    """Whether a decision has what it needs of a slot."""
    limit = session.decisions.decision_at(worker_id)
    return limit is not None and bool(session.slots.ready[worker_id] >= limit)


def _named(slots: Sequence[int]) -> str:
    what = "slot" if len(slots) == 1 else "slots"
    more = ", ..." if len(slots) > _NAMED else ""
    return f"{what} {', '.join(map(str, slots[:_NAMED]))}{more}"
