"""Values and saved states that never meet on one step, so that no barrier closes."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence

from population.core.state import RunState
from population.core.step import EncodedReport

logger = logging.getLogger("population")
_NAMED = 3
_WITHOUT_BARRIER = 10


@dataclasses.dataclass(frozen=True)
class _Alone:
    """The steps at which one of the two came without the other.

    Attributes:
        last: The last few, ascending.
        since: How many at or after the present barrier.
    """

    last: tuple[int, ...] = ()
    since: int = 0

    def add(self, step: int, limit: int | None) -> _Alone:
        """With one more, unless it repeats the last report."""
        if self.last and self.last[-1] == step:
            return self
        counts = limit is None or step >= limit
        return _Alone((*self.last, step)[-_NAMED:], self.since + counts)

    @property
    def every(self) -> int | None:
        """Steps from one to the next, or None if that is not known yet."""
        return self.last[-1] - self.last[-2] if len(self.last) > 1 else None


@dataclasses.dataclass(frozen=True)
class _Kept:
    """What a slot has reported in a generation.

    Attributes:
        generation_id: The generation.
        limit: The step at which it waits.
        values: The steps with a value alone.
        saves: The steps with params alone.
    """

    generation_id: str
    limit: int | None
    values: _Alone = _Alone()
    saves: _Alone = _Alone()

    def at(self, limit: int | None) -> _Kept:
        """With the counts of a barrier, which begin anew at another one."""
        if limit == self.limit:
            return self
        values, saves = _Alone(self.values.last), _Alone(self.saves.last)
        return _Kept(self.generation_id, limit, values, saves)

    def add(self, new: EncodedReport) -> _Kept:
        """With one more report, which lacks one of the two."""
        if new.value is None:
            saves = self.saves.add(new.step, self.limit)
            return dataclasses.replace(self, saves=saves)
        values = self.values.add(new.step, self.limit)
        return dataclasses.replace(self, values=values)

    def never_meet(self) -> bool:
        """Whether there is no step at which both will come, if they go on like this."""
        one, other = self.values.every, self.saves.every
        if one is None or other is None:
            return False
        return (self.values.last[-1] - self.saves.last[-1]) % math.gcd(one, other) != 0


class Unmet:
    """The reports of each slot that lack a value or params.

    Args:
        decision_at: The step at which a slot waits for a decision, or None.

    Attributes:
        most: So many at or after a barrier are no chance.
        found: What the reports of a transaction add, by slot, to be kept once it is
            committed; cleared when the next one has reports. None: the two have met.
    """

    def __init__(self, decision_at: Callable[[RunState, int], int | None]) -> None:
        self._decision_at = decision_at
        self._is_said = False
        self.most = 3.0
        self._kept: dict[int, _Kept] = {}
        self.found: dict[int, _Kept | None] = {}

    def keep(self) -> None:
        """Remember the reports of a transaction, which is committed."""
        for worker_id, kept in self.found.items():
            if kept is None:
                self._kept.pop(worker_id, None)
                continue
            self._kept[worker_id] = kept
            if kept.limit is None and kept.never_meet():
                self._warn(worker_id, kept)
        self.found.clear()

    def check(self, state: RunState, new: EncodedReport) -> None:
        """Look at a report that was just recorded, and lacks a value or params.

        Raises:
            RuntimeError: A slot reports values at some steps and params at others.
        """
        worker_id = new.worker_id
        newest = state.slots[worker_id].newest
        if (new.generation_id, new.step) != newest.ref:
            return
        if newest.value is not None and newest.params is not None:
            self.found[worker_id] = None  # The two have met.
            return
        if state.has_params and state.scores.ready[worker_id] >= 0:
            return  # They have met before, and may do so again.
        limit = self._decision_at(state, worker_id)
        kept = self._kept.get(worker_id)
        if kept is None or kept.generation_id != new.generation_id:
            kept = _Kept(new.generation_id, limit)
        kept = self.found[worker_id] = kept.at(limit).add(new)
        values, saves = kept.values.since, kept.saves.since
        if limit is None or not kept.never_meet():
            return
        if values and saves and values + saves >= self.most:
            raise RuntimeError(
                f"Worker {worker_id} waits for a decision at step {limit}, which needs "
                f"a value and the training state of one step. {_seen(kept)} Write "
                "worker.report(value, state) in one call, or report both for the same "
                "step. This report was not recorded."
            )

    def _warn(self, worker_id: int, kept: _Kept) -> None:
        few = min(kept.values.since, kept.saves.since) < _WITHOUT_BARRIER
        if few or self._is_said or math.isinf(self.most):
            return
        self._is_said = True
        logger.warning(
            "Worker %d: %s A decision needs both of one step. Report both in one call, "
            "worker.report(value, state), or both for the same step.",
            worker_id,
            _seen(kept),
        )


def _seen(kept: _Kept) -> str:
    return (
        f"It has reported values at {_named(kept.values.last)} and states at "
        f"{_named(kept.saves.last)}, never both at one."
    )


def _named(steps: Sequence[int]) -> str:
    """Steps for people."""
    what = "step" if len(steps) == 1 else "steps"
    return f"{what} {', '.join(map(str, steps))}"
