"""Parts of `RunState`: a slot, the best checkpoint, the subject of a step."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from population.base import codec
from population.base.types import ActiveWorker, Checkpoint, Ref
from population.journal.records import Generation


@dataclasses.dataclass(slots=True)
class Slot:
    """The present state of one slot.

    Attributes:
        generation: Its present generation.
        meta_params: The generation's hyperparameters; never changed in place.
        newest: Its newest checkpoint.
    """

    generation: Generation
    meta_params: Any
    newest: Checkpoint


class Subject(NamedTuple):
    """The checkpoint that the records of a step concern, if it is in memory.

    Attributes:
        checkpoint: The checkpoint, with all that was recorded for it so far.
        is_newest: Whether it is a later step of its slot's present generation.
        value_added: Whether the records add its value.
        is_shown: Whether the mutator may have to see it.
        parent: The checkpoint from which it was trained or copied; None for a root, and
            if that is not in memory.
    """

    checkpoint: Checkpoint
    is_newest: bool = False
    value_added: bool = False
    is_shown: bool = False
    parent: Checkpoint | None = None


class BestSoFar(NamedTuple):
    """The checkpoint with the best finite value; the first one on ties.

    Attributes:
        row: Its row; None if there is no finite value yet.
        score: Its score; inf if there is no finite value yet.
        reports: How many values had been reported when it became the best.
    """

    row: int | None = None
    score: float = math.inf
    reports: int = 0


def check_id(size: int, worker_id: Any) -> int:
    """Return a worker id as an int, after a check.

    Raises:
        TypeError: `worker_id` is not an int.
        ValueError: There is no such slot.
    """
    found = codec.integer(worker_id, "worker_id")
    if found >= size:
        raise ValueError(
            f"worker_id must be below {size}, the size of the population, got {found}."
        )
    return found


def check_checkpoint(checkpoint: Any, call: str) -> Checkpoint:
    """Return a checkpoint that was passed to `call`, after a check of its type.

    Raises:
        TypeError: `checkpoint` is not a `Checkpoint`.
    """
    if isinstance(checkpoint, Checkpoint):
        return checkpoint
    kind, hint = type(checkpoint).__name__, ""
    if checkpoint is None:
        hint = " There is no best one before the first finite value."
    elif isinstance(checkpoint, Ref):
        hint = " graph.checkpoint(ref) has the one of a Ref."
    elif isinstance(checkpoint, (int, np.integer, ActiveWorker)):
        hint = " newest(worker_id) has the newest one of a slot."
    raise TypeError(f"{call} needs a checkpoint, got {kind}.{hint}")


def check_step(step: Any, what: str = "step") -> int:
    """Return a step as an int, after a check; a negative one is before all others.

    The arrays of a view hold int64, which SQLite does not compare with steps.

    Raises:
        TypeError: `step` is not an integer.
    """
    return step if type(step) is int else codec.integer(step, what, low=-(2**63))


def check_ref(ref: Any, call: str) -> Ref:
    """Return the name of a checkpoint that was passed to `call`, after a check.

    Raises:
        TypeError: `ref` is not a `Ref`.
    """
    if isinstance(ref, Ref):
        return ref
    hint = "Write Ref(generation_id, step)."
    if isinstance(ref, Checkpoint):
        hint = "That is the checkpoint itself."
    raise TypeError(f"{call} needs a Ref, got {type(ref).__name__}. {hint}")


def closes(checkpoint: Checkpoint, needs_params: bool) -> bool:
    """Whether it has a value, and, if that is finite, the params that are needed."""
    if checkpoint.value is None:
        return False
    return not needs_params or checkpoint.params is not None or checkpoint.diverged
