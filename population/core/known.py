"""Parts of `RunState`: a slot, the best checkpoint, the subject of a step."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

from population.base import codec
from population.base.types import Checkpoint
from population.journal.records import Generation


@dataclasses.dataclass(slots=True)
class Slot:
    """One slot.

    Attributes:
        generation: What it trains now.
        meta_params: The generation's hyperparameters; never changed in place.
        newest: Its newest checkpoint.
    """

    generation: Generation
    meta_params: Any
    newest: Checkpoint


class Subject(NamedTuple):
    """What the records of a step are about, where it is in memory already.

    Attributes:
        checkpoint: With all that was recorded for it so far.
        is_newest: Whether a slot has come further with it.
        value_added: Whether it has got a value.
        is_news: Whether the mutator may have to be asked.
        parent: What it was trained from, or copies; None for a root, and if that is not
            at hand.
    """

    checkpoint: Checkpoint
    is_newest: bool = False
    value_added: bool = False
    is_news: bool = False
    parent: Checkpoint | None = None


class BestSoFar(NamedTuple):
    """Which checkpoint has the best finite value; the first one on ties.

    Attributes:
        row: Its row; None without one.
        score: Its score; inf without one.
        reports: How many values had been reported when it became the best.
    """

    row: int | None = None
    score: float = math.inf
    reports: int = 0


def check_id(size: int, worker_id: Any) -> int:
    """A worker id as an int of a population.

    Raises:
        TypeError: `worker_id` is no int.
        ValueError: There is no such slot.
    """
    found = codec.integer(worker_id, "worker_id")
    if found >= size:
        raise ValueError(
            f"worker_id must be below {size}, the size of the population, got {found}."
        )
    return found


def check_checkpoint(checkpoint: Any, call: str) -> Checkpoint:
    """A checkpoint that was given to a call.

    Raises:
        TypeError: It is none.
    """
    if isinstance(checkpoint, Checkpoint):
        return checkpoint
    raise TypeError(
        f"{call} needs a checkpoint, got {type(checkpoint).__name__}. There is no best "
        "one before the first finite value."
    )
