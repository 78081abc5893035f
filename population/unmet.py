"""Values and saved states that never meet on one step, so that no barrier closes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from population.incoming import Incoming
from population.slots import Slots

_NAMED = 3


@dataclasses.dataclass
class _Kept:
    """What a slot has reported at or after its barrier.

    Attributes:
        barrier: The generation, and the step at which it waits.
        values: The steps with a value alone.
        saves: The steps with params alone.
    """

    barrier: tuple[str, int]
    values: set[int] = dataclasses.field(default_factory=set)
    saves: set[int] = dataclasses.field(default_factory=set)


class Unmet:
    """The reports of each slot that lack a value or params, since it should wait.

    Args:
        slots: What is known of each slot.
        decision_at: The step at which a slot waits for a decision, or None.

    Attributes:
        most: So many steps that lack something are no chance.
    """

    def __init__(self, slots: Slots, decision_at: Callable[[int], int | None]) -> None:
        self._slots = slots
        self._decision_at = decision_at
        self.most = 3.0
        self._kept: dict[int, _Kept] = {}

    def check(self, reports: Sequence[Incoming]) -> None:
        """Look at what was just recorded; called within the transaction.

        Raises:
            RuntimeError: If a slot reports values at some steps and params at others.
        """
        if not self._slots.saved:
            return
        for new in reports:
            if (new.value is None) != (new.params is None):
                self._check(new)

    def _check(self, new: Incoming) -> None:
        slots, worker_id = self._slots, new.worker_id
        newest = slots.newest(worker_id)
        if (new.generation_id, new.step) != newest.ref:
            return
        limit = self._decision_at(worker_id)
        if limit is None or new.step < limit or slots.ready[worker_id] >= limit:
            return
        kept = self._kept.get(worker_id)
        if kept is None or kept.barrier != (new.generation_id, limit):
            kept = self._kept[worker_id] = _Kept((new.generation_id, limit))
        steps = kept.saves if new.value is None else kept.values
        steps.add(new.step)
        # The newest step may still get what it lacks.
        values, saves = kept.values - {new.step}, kept.saves - {new.step}
        if values and saves and len(kept.values | kept.saves) >= self.most:
            raise RuntimeError(
                f"Worker {worker_id} waits for a decision at step {limit}, which needs "
                "a value and the training state of one step. It has reported values at "
                f"{_named(kept.values)} and states at {_named(kept.saves)}, never both "
                "at one. Write worker.report(value, state) in one call, or report both "
                "for the same step. This report was not recorded."
            )


def _named(steps: set[int]) -> str:
    """Steps for people, the last ones if they are many."""
    last = sorted(steps)[-_NAMED:]
    what = "step" if len(last) == 1 else "steps"
    return f"{what} {', '.join(map(str, last))}"
