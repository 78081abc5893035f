"""Takes in what other processes have recorded, at a cost of what is new."""

from __future__ import annotations

from population import protocol
from population.graph import decoded
from population.slots import Slots


def catch_up(slots: Slots) -> bool:
    """Bring the slots up to date.

    Returns:
        Whether that was possible; else they must be loaded anew.
    """
    journal, before = slots.journal, slots.row
    tail = journal.tail()
    if tail.row < before or journal.damaged_since(before):
        return False
    if not slots.saved and "saved" in journal.facts():
        return False
    slots.lose(slots.recorded_losses())
    if tail.row == before:
        return True
    for worker_id in journal.touched(before):
        slots.reload(worker_id)
    slots.end_at(tail)
    for row in dict.fromkeys(journal.late_since(before)):
        found = journal.checkpoint(row)
        if found is None:
            continue
        checkpoint = decoded(found)
        if slots[checkpoint.worker_id].newest.row == row:
            slots.reload(checkpoint.worker_id)
        slots.forget_recent(checkpoint.step)
        protocol.look_again(slots, checkpoint)
    return True
