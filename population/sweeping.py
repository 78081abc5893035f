"""Removes, after a report with params, what nothing can reach any more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from population.base import Checkpoint
from population.reachable import in_use
from population.slots import Slots

if TYPE_CHECKING:
    from population.session import Session


def sweep(session: Session) -> list[str]:
    """Record what is removed; the paths are for the store, once that is committed."""

    def reachable() -> Iterable[Checkpoint]:
        slots, decisions = session.slots, session.decisions
        return in_use(session.graph, slots, decisions, session.leases).values()

    keeper, journal = session.keeper, session.journal
    keeper.tidy(journal, _recent_generations(session.slots), session.news)
    return keeper.sweep(journal, session.slots.row, reachable)


def _recent_generations(slots: Slots) -> Iterator[str]:
    """Those that a worker may have trained when its process was killed."""
    for slot in slots:
        generation = slot.generation
        for number in range(max(generation.number - 1, 0), generation.number + 1):
            yield slots.id_of(generation.worker_id, number)
