"""Where a slot stands, as the journal says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from population.base.errors import damaged
from population.base.types import Checkpoint
from population.core.graph import JournalGraph
from population.journal.records import GenerationRow

if TYPE_CHECKING:
    from population.core.slots import Slots


def newest_of(graph: JournalGraph, generation: GenerationRow) -> Checkpoint:
    """A generation's newest checkpoint.

    Raises:
        JournalError: If it has none.
    """
    newest = next(graph.span(generation.generation_id, descending=True), None)
    if newest is None:
        raise damaged(f"{generation.generation_id} has no checkpoint")
    return newest


def reached(slots: Slots, newest: Checkpoint) -> int:
    """The step of a slot's newest checkpoint, of any kind.

    Weights that only the memory of a process held, and that are gone, have to be
    trained again: the slot stands where it can go on.
    """
    if newest.params is None and slots.saved and slots.journal.was_held(newest.row):
        return slots.graph.resume_point(newest).step
    return newest.step
