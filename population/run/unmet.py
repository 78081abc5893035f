"""Detects slots that never report a value and a state for the same step.

No barrier closes for such a slot: a decision needs both of one step.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import NamedTuple

from population.base.errors import NoProgressError
from population.core.state import RunState
from population.core.step import EncodedReport

logger = logging.getLogger("population")
_NAMED = 3
_KEPT = 10  # Reports before a warning, where no decision waits for the slot.


class _Alone(NamedTuple):
    """The reports of a slot in a generation that lack a value or params.

    Attributes:
        generation_id: The generation.
        limit: The step at which the slot waits for a decision, or None.
        values: The last ten steps with a value alone, ascending.
        saves: The last ten steps with params alone, ascending.
    """

    generation_id: str
    limit: int | None = None
    values: tuple[int, ...] = ()
    saves: tuple[int, ...] = ()

    def add(self, new: EncodedReport) -> _Alone:
        """Return a copy with one more report, unless it repeats the last step."""
        before = self.saves if new.value is None else self.values
        steps = before if new.step in before[-1:] else (*before, new.step)[-_KEPT:]
        if new.value is None:
            return self._replace(saves=steps)
        return self._replace(values=steps)

    def never_meet(self) -> bool:
        """Whether values and saves, at their present intervals, never share a step."""
        if len(self.values) < 2 or len(self.saves) < 2:
            return False
        every = (steps[-1] - steps[-2] for steps in (self.values, self.saves))
        return (self.values[-1] - self.saves[-1]) % math.gcd(*every) != 0

    def since_limit(self) -> tuple[int, int]:
        """Count the values and the saves at or after the step of the decision."""
        low = self.limit or 0
        return sum(s >= low for s in self.values), sum(s >= low for s in self.saves)

    def __str__(self) -> str:
        values, saves = (
            ", ".join(map(str, steps[-_NAMED:])) for steps in (self.values, self.saves)
        )
        return (
            f"It has reported values at steps {values} and states at steps {saves}, "
            "never both at one."
        )


class Unmet:
    """Refuses reports if the values and states of a slot can never share a step.

    Args:
        decision_at: The step at which a slot waits for a decision, or None.

    Attributes:
        most: How many such reports at or after a barrier are refused.
        found: What the reports of a transaction add, by slot; `keep` remembers it after
            the commit. None: a checkpoint of the slot has a value and params.
    """

    def __init__(self, decision_at: Callable[[RunState, int], int | None]) -> None:
        self._decision_at = decision_at
        self._is_said = False
        self.most = 3.0
        self._alone: dict[int, _Alone] = {}
        self.found: dict[int, _Alone | None] = {}

    def keep(self) -> None:
        """Remember the reports of a transaction after its commit; warn once."""
        for worker_id, alone in self.found.items():
            if alone is None:
                self._alone.pop(worker_id, None)
                continue
            self._alone[worker_id] = alone
            if self._is_said or alone.limit is not None or not alone.never_meet():
                continue
            if min(alone.since_limit()) >= max(_KEPT, self.most):
                self._is_said = True
                logger.warning(
                    "Worker %d: %s A decision needs both of one step. Report both in "
                    "one call, worker.report(value, state), or both for the same step.",
                    worker_id,
                    alone,
                )
        self.found.clear()

    def check(self, state: RunState, new: EncodedReport) -> None:
        """Check a report that was just recorded and lacks a value or params.

        Raises:
            NoProgressError: The slot waits for a decision, but reports values at some
                steps and params at others.
        """
        worker_id = new.worker_id
        newest = state.slots[worker_id].newest
        if (new.generation_id, new.step) != newest.ref:
            return
        if newest.value is not None and newest.params is not None:
            if worker_id in self._alone or worker_id in self.found:
                self.found[worker_id] = None  # The two have met.
            return
        if state.has_params and state.scores.ready[worker_id] >= 0:
            return  # An earlier checkpoint had both: a later one may too.
        limit = self._decision_at(state, worker_id)
        alone = self._alone.get(worker_id)
        if alone is None or alone.generation_id != new.generation_id:
            alone = _Alone(new.generation_id)
        alone = self.found[worker_id] = alone._replace(limit=limit).add(new)
        if limit is None or not alone.never_meet():
            return
        values, saves = alone.since_limit()
        if values and saves and values + saves >= self.most:
            raise NoProgressError(
                f"Worker {worker_id} waits for a decision at step {limit}, which needs "
                f"a value and the training state of one step. {alone} Write "
                "worker.report(value, state) in one call, or report both for the same "
                "step. This report was not recorded."
            )
