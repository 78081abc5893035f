"""What a report does to the slots: each row of the protocol's table for reports.

A report is recorded once, where it belongs, whoever sends it and however late. Nothing
here decides; what comes back says whether the mutator is to be asked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from population.base.errors import damaged
from population.base.types import Checkpoint, Held, Ref, Report, Saved
from population.core.incoming import Incoming
from population.core.slot import Slot
from population.core.slots import Slots
from population.journal.records import GenerationRow


def record(slots: Slots, new: Incoming) -> Report | None:
    """Record a report.

    Returns:
        What the mutator is to be told, or None if there is nothing to decide.

    Raises:
        ValueError: If the step is below the generation's first.
    """
    slot: Slot = slots[new.worker_id]
    generation: GenerationRow | None = slot.generation
    if new.generation_id == slot.generation.generation_id:
        if new.step > slot.newest.step:
            return _extend(slots, slot, new)
    else:
        generation = slots.journal.generation(new.generation_id)
    if generation is None:
        slots.once(new.generation_id, "is unknown; its report was dropped")
        return None
    check_step(generation, new.step)
    existing = slots.graph.get_checkpoint(Ref(new.generation_id, new.step))
    if existing is not None:
        return _complete(slots, generation, existing, new)
    if generation.worker_id != new.worker_id:
        slots.once(new.generation_id, "is of another worker; a report was dropped")
        return None
    return _insert_older(slots, generation, new)


def keep(slots: Slots, new: Incoming) -> bool:
    """Record params of a superseded generation that a poll brought, if they are new.

    Returns:
        Whether they were recorded.
    """
    generation = slots.journal.generation(new.generation_id)
    ref = Ref(new.generation_id, new.step)
    if generation is None or slots.graph.get_checkpoint(ref) is not None:
        return False
    earlier = slots.graph.span(new.generation_id, 0, new.step, descending=True)
    if any(checkpoint.params == new.params for checkpoint in earlier):
        return False
    _insert_older(slots, generation, new)
    return True


def check_step(generation: GenerationRow, step: int) -> None:
    """Refuse a step before the generation's first.

    Raises:
        ValueError: Naming both.
    """
    if step < generation.step:
        raise ValueError(
            f"step must be {generation.step} or more, where generation "
            f"{generation.generation_id!r} began, got {step}. Count on from the step "
            "that the poll handed out."
        )


def _extend(slots: Slots, slot: Slot, new: Incoming) -> Report:
    """The slot's present generation has come further: the usual case."""
    checkpoint = slots.insert(slot.generation, slot.meta_params, slot.newest, new)
    slot.newest = checkpoint
    slots.reached[new.worker_id] = new.step
    if new.value is not None:
        worker_id = new.worker_id
        slots.advance(worker_id, new.step, slots.rank(checkpoint))
        if new.params is not None or not slots.saved or checkpoint.diverged:
            slots.ready[worker_id] = new.step
    return Report(new.worker_id, checkpoint)


def _insert_older(
    slots: Slots, generation: GenerationRow, new: Incoming
) -> Report | None:
    """A new step of a superseded generation, or an older one of the present."""
    earlier = slots.graph.span(new.generation_id, 0, new.step, descending=True)
    parent = next(earlier, None)
    if parent is None:
        raise damaged(f"{new.generation_id} has no checkpoint before step {new.step}")
    checkpoint = slots.insert(generation, parent.meta_params, parent, new)
    if generation.row != slots[generation.worker_id].generation.row:
        slots.once(
            new.generation_id, "is superseded; reports are kept as a side branch"
        )
    return _spread(slots, checkpoint, value_added=new.value is not None)


def _complete(
    slots: Slots, generation: GenerationRow, existing: Checkpoint, new: Incoming
) -> Report | None:
    """The checkpoint is there already: add what it lacks, ignore the rest."""
    own = generation.worker_id == new.worker_id
    lacks = existing.params is None or type(existing.params) is Held
    brings = new.params is not None and type(new.params) is not Held
    adds_params = own and lacks and brings
    adds_params = adds_params and not slots.journal.had_params(existing.row)
    adds_value = existing.value is None and new.value is not None
    if not (adds_params or adds_value):
        if _contradicts(existing, new):
            what = "was reported again with something else, which was ignored"
            at_hand = existing.row == slots[generation.worker_id].newest.row
            level = logging.WARNING if at_hand else logging.DEBUG
            hint = f" (step {new.step}; is the step counted on?)"
            slots.once(new.generation_id, what, hint, level)
        return None
    adds_metrics = adds_value and existing.metrics is None
    if adds_params:
        slots.took(new)
        slots.best.forget()
    slots.row += 1
    slots.reports += adds_value
    slots.journal.add_late(
        slots.row,
        existing.row,
        new.params_text if adds_params else None,
        adds_value,
        new.value if adds_value else None,
        new.metrics_text if adds_metrics else None,
        slots.time,
        slots.reports,
        slots.batch,
    )
    merged = existing._replace(
        params=new.params if adds_params else existing.params,
        value=new.value if adds_value else existing.value,
        metrics=new.metrics if adds_metrics else existing.metrics,
    )
    slot: Slot = slots[generation.worker_id]
    if slot.newest.row == merged.row:
        slot.newest = merged
    if adds_params and type(existing.params) is Held and not adds_value:
        return None  # It counted before: nobody learns anything new.
    return _spread(slots, merged, value_added=adds_value)


def _spread(
    slots: Slots, checkpoint: Checkpoint, *, value_added: bool
) -> Report | None:
    """Bring every slot on whose lineage the checkpoint lies up to date."""
    if value_added:
        slots.rank(checkpoint)
        slots.forget_recent(checkpoint.step)
    worker_id = checkpoint.worker_id
    ready = slots.ready[worker_id]
    concerned = look_again(slots, checkpoint)
    # Late params are news too if a decision may rest on the checkpoint only now.
    news = value_added or slots.ready[worker_id] > ready
    decides = news and worker_id in concerned
    return Report(worker_id, checkpoint) if decides else None


def look_again(slots: Slots, checkpoint: Checkpoint) -> list[int]:
    """Have every slot on whose lineage a checkpoint lies see what has come for it.

    Returns:
        Those slots.
    """
    concerned = list(_concerned(slots, checkpoint))
    for worker_id in concerned:
        slots.look_back(worker_id, slots[worker_id].newest)
    return concerned


def _concerned(slots: Slots, checkpoint: Checkpoint) -> Iterator[int]:
    """The slots that a late value or late params may have something to tell."""
    behind = (slots.steps <= checkpoint.step) | (slots.ready <= checkpoint.step)
    ancestor = behind & (slots.begins >= checkpoint.step)
    candidates = {checkpoint.worker_id, *np.flatnonzero(ancestor).tolist()}
    for worker_id in sorted(candidates):
        if _on_lineage(slots, slots[worker_id], checkpoint):
            yield worker_id


def _on_lineage(slots: Slots, slot: Slot, checkpoint: Checkpoint) -> bool:
    if checkpoint.generation_id == slot.generation.generation_id:
        return True
    if slot.generation.step < checkpoint.step:
        return False
    for generation_id, first, last, _ in slots.graph.segments(slot.newest):
        if generation_id == checkpoint.generation_id:
            return checkpoint.step <= last
        if first < checkpoint.step:
            return False
    return False


def _contradicts(existing: Checkpoint, new: Incoming) -> bool:
    if new.value is not None and repr(new.value) != repr(existing.value):
        return True
    if new.params is None or isinstance(new.params, (Saved, Held)):
        return False
    return bool(new.params != existing.params)
