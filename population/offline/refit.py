"""Gives the slots of a fork the meta_params of another space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from population.base import codec
from population.base.types import Checkpoint
from population.core import reports
from population.core.decoding import decode
from population.core.incoming import Incoming
from population.core.slots import Slots
from population.space.structure import refitted

_REASON = "fork into another space"


def refit(slots: Slots, space: Any, former: Any, seed: int) -> list[int]:
    """Open a generation for each slot whose meta_params are not of the space.

    It goes on from where the slot would: what it has learned stays. Called within the
    transaction that makes the fork.

    Args:
        slots: Those of the fork.
        space: The space.
        former: What named the meta_params before, or None (`former_space`).
        seed: Of the run.

    Returns:
        The number of the present generation of each slot.
    """
    # Decisions draw from [seed, d], the first population from [seed, 0, 1].
    rng = np.random.default_rng([seed, 0, 2, slots.row])
    slots.begin(slots.time)
    opened: list[tuple[int, Checkpoint, Checkpoint]] = []
    for worker_id, slot in enumerate(slots):
        meta_params = decode(slot.generation.meta_params)
        wanted = refitted(space, meta_params, former, rng)
        text = codec.encode(wanted, f"meta_params for worker {worker_id}")
        if codec.digest(codec.decode(text)) != codec.digest(meta_params):
            point = slots.graph.resume_point(slot.newest)
            # Where the slot goes back to should it diverge: no later lineage ends up
            # in meta_params of the space before.
            origin = slots.graph.resume_point(point._replace(value=math.nan))
            slots.open(worker_id, origin, text, _REASON)
            opened.append((worker_id, origin, point))
    slots.begin(slots.time)  # A transaction of its own, for those who replay the run.
    for worker_id, origin, point in opened:
        _take_over(slots, worker_id, origin, point)
    return [slot.generation.number for slot in slots]


def is_complete(slots: Slots, begun: Sequence[int]) -> bool:
    """Whether these generations of the slots, by their numbers, are in the journal."""
    if len(begun) != len(slots):
        return False
    names = [slots.id_of(worker_id, number) for worker_id, number in enumerate(begun)]
    return all(slots.journal.generation(name) is not None for name in names)


def _take_over(
    slots: Slots, worker_id: int, origin: Checkpoint, point: Checkpoint
) -> None:
    """Give a slot's new generation the value of its origin, and what came after that.

    Args:
        slots: The slots.
        worker_id: The slot.
        origin: Where its generation begins.
        point: Where it goes on; maybe further, if there was no value since.
    """
    generation_id = slots[worker_id].generation.generation_id
    value = origin.value
    if value is not None and math.isfinite(value):
        slots.reports -= 1  # It counted when it was reported.
        first = Incoming(
            worker_id, generation_id, origin.step, None, None, value, None, None
        )
        reports.record(slots, first)
    if point.step > origin.step:
        text = None if point.params is None else slots.graph.params_text(point)
        rest = Incoming(
            worker_id, generation_id, point.step, point.params, text, None, None, None
        )
        reports.record(slots, rest)
