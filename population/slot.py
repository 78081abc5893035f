"""What is known of one slot."""

from __future__ import annotations

import dataclasses
from typing import Any

from population.base import Checkpoint
from population.rows import GenerationRow


@dataclasses.dataclass(slots=True)
class Slot:
    """One slot.

    Attributes:
        generation: What it trains now.
        meta_params: The generation's hyperparameters; never changed in place.
        newest: Its newest checkpoint.
    """

    generation: GenerationRow
    meta_params: Any
    newest: Checkpoint
