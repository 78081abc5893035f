"""What is known of one slot."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from population.base.types import Checkpoint
from population.journal.records import GenerationRow


@dataclasses.dataclass(slots=True)
class Slot:
    """One slot.

    Attributes:
        generation: What it trains now.
        meta_params: The generation's hyperparameters; never changed in place.
        newest: Its newest checkpoint.
        polls: How often a loop has asked for news of this generation, and got none.
        polled_at: The step at which it did so last.
        repeats: How often at that step.
    """

    generation: GenerationRow
    meta_params: Any
    newest: Checkpoint
    polls: int = 0
    polled_at: int = -1
    repeats: int = 0


class Opened(NamedTuple):
    """A slot that began anew.

    Attributes:
        worker_id: The slot.
        loses_all: Whether it was reset to fresh weights unasked: none were saved.
        diverged: Whether what it had reported last is not finite.
    """

    worker_id: int
    loses_all: bool
    diverged: bool

    @classmethod
    def of(cls, before: Slot, parent: Checkpoint | None) -> Opened:
        """What a slot loses that goes on from a checkpoint."""
        newest, loses = before.newest, False
        if parent is not None and parent.params is None:
            loses = parent.step < newest.step
        return cls(newest.worker_id, loses, newest.diverged)
