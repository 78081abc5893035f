"""Takes in what other processes have recorded, at a cost of what is new."""

from __future__ import annotations

from population.base.errors import damaged
from population.core import reports
from population.core.decisions import Decisions
from population.core.leases import Leases
from population.core.slots import Slots


def catch_up(slots: Slots, decisions: Decisions, leases: Leases) -> bool:
    """Bring all that is kept of the journal in memory up to date.

    Returns:
        Whether that was possible; else it must be loaded anew.
    """
    pulse = slots.journal.pulse(slots.row)
    if pulse.rejected or (pulse.saved and not slots.saved):
        return False
    if pulse.losses != slots.losses:
        slots.load_losses()
    if pulse.decisions != decisions.count:
        decisions.catch_up()
    if pulse.change is not None and pulse.change != leases.change:
        leases.catch_up()
    _catch_up_with_checkpoints(slots)
    return True


def _catch_up_with_checkpoints(slots: Slots) -> None:
    journal, before = slots.journal, slots.row
    tail = journal.tail()
    if tail.row == before:
        return
    touched: dict[int, list[int]] = {}
    for worker_id, generation in journal.touched(before):
        if worker_id >= len(slots):
            raise damaged(f"row {generation} is of worker {worker_id}")
        touched.setdefault(worker_id, []).append(generation)
    for worker_id, generations in touched.items():
        if generations == [slots[worker_id].generation.row]:
            slots.extend(worker_id)
        else:
            slots.reload(worker_id)
    slots.end_at(tail)
    for row in journal.late_since(before):
        (checkpoint,) = slots.graph.at_rows([row])
        if slots[checkpoint.worker_id].newest.row == row:
            slots.reload(checkpoint.worker_id)
        slots.forget_recent(checkpoint.step)
        reports.look_again(slots, checkpoint)
