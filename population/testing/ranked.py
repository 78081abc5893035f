"""Scripts in which it is clear who is good: each member keeps its rank.

In the other scripts values are random, so that a policy meets every order of them. Here
all improve a little, and a copy begins as good as its donor; then it stays so, or it
soon becomes better or worse, so that ranks differ again at the next decision.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from population.testing import inside
from population.testing.runner import MAX_FAILURES, ScriptEvent, ScriptRunner, Work
from population.testing.script import Fails, GivenUp

CLEAR = 0.5  # Members whose scores differ by more than this have different ranks.
_BETTER = 0.005  # How much better than its donor a copy is.
_PER_STEP = 0.001  # How much all improve in a step.
_PARTING = 2  # Steps in which a copy moves away from its donor's rank.


class Quality(NamedTuple):
    """How good a generation is without the little by which all improve.

    Attributes:
        first: Its quality where it began; lower is better.
        since: The step from which it moves away from its donor.
        way: How far it moves.
    """

    first: float
    since: int = 0
    way: float = 0.0

    def at(self, step: int) -> float:
        """Return the quality at a step."""
        trained = min(max(step - self.since, 0), _PARTING)
        return self.first + self.way * trained / _PARTING


@dataclasses.dataclass(frozen=True)
class RankedReport(ScriptEvent):
    """Every worker trains on, and reports a value by which it keeps its rank.

    Attributes:
        steps: The number of steps that each has trained since its newest checkpoint.
        ranks: The first value of each worker; they differ by 1 or more.
        at_once: Whether they report in one batch, as an engine does; else in turn.
        parting: Whether a copy moves away from its donor's rank, to one of its own.
        per_step: How much all improve in a step.
        diverged: The workers that report NaN.
        by_slot: Whether the rank is that of the slot, whatever it copies, and the
            distances double with each step: the first rank is the best.
    """

    steps: int
    ranks: tuple[float, ...]
    at_once: bool = False
    parting: bool = False
    per_step: float = _PER_STEP
    diverged: tuple[int, ...] = ()
    by_slot: bool = False

    def __str__(self) -> str:
        how = "in one batch" if self.at_once else "in turn"
        ranks = ", ".join(f"{rank:g}" for rank in self.ranks)
        nan = "".join(f", worker {w} NaN" for w in self.diverged)
        if self.by_slot:
            return f"all report step +{self.steps} {how}, values {ranks} * 2 ** step"
        return (
            f"all report step +{self.steps} {how}, values about {ranks} less "
            f"{self.per_step:g} a step{nan}, a copy at first that of its donor"
            f"{', then another' * self.parting}, params saved"
        )

    def play(self, run: ScriptRunner) -> None:
        """Report for every worker that is neither given up, nor retired, nor waits."""
        due = [w for w in run.live if not run.held(w)]
        if self.at_once and due:
            run.deliver([self._work(w, run) for w in due])
            return
        for worker_id in due:
            if not run.held(worker_id):
                run.deliver([self._work(worker_id, run)])

    def joined(self, later: ScriptEvent) -> ScriptEvent | None:
        """Return the later reports, with the steps of both."""
        if not isinstance(later, RankedReport):
            return None
        both = dataclasses.replace(later, steps=self.steps + later.steps)
        return both if both == dataclasses.replace(self, steps=both.steps) else None

    def _work(self, worker_id: int, run: ScriptRunner) -> Work:
        newest = inside.newest(run.controller, worker_id)
        step = newest.step + self.steps
        if self.by_slot:
            value = self.ranks[worker_id % len(self.ranks)] * 2.0**step
            return run.ahead(worker_id, self.steps, value, saved=True)
        quality = self._quality(newest.generation_id, run).at(step)
        value = round(quality - self.per_step * step, 6)
        if worker_id in self.diverged:
            value = math.nan
        return run.ahead(worker_id, self.steps, value, saved=True)

    def _quality(self, generation_id: str, run: ScriptRunner) -> Quality:
        """Return how good a generation is."""
        if generation_id not in run.qualities:
            run.qualities[generation_id] = self._new_quality(generation_id, run)
        found: Quality = run.qualities[generation_id]
        return found

    def _new_quality(self, generation_id: str, run: ScriptRunner) -> Quality:
        graph = run.controller.graph
        root = graph.root(generation_id)
        worker_id, size = root.worker_id, len(self.ranks)
        if root.parent is None:
            return Quality(self.ranks[worker_id % size])
        better = _BETTER * (1 + worker_id / 100) if self.per_step else 0.0
        donor = self._quality(root.parent.generation_id, run)
        if graph.checkpoint(root.parent).worker_id == worker_id:
            return donor._replace(first=donor.first - better)
        first = donor.at(root.step) - better
        number = worker_id + int(generation_id.rpartition("-")[2])
        # An odd number: no two copies of a donor move as far, and none stays.
        way = 2 * (number % size) - size + 1 + size % 2
        return Quality(first, root.step, float(way) if self.parting else 0.0)


def ranked_scripts(size: int, seed: int) -> list[tuple[ScriptEvent, ...]]:
    """Return scripts in which all slots stay live."""
    rng = np.random.default_rng([seed, 300])
    up = tuple(float(1 + w) for w in range(size))
    drawn = tuple(float(1 + r) for r in rng.permutation(size))
    # Signs, a zero and two that are equal mislead ratios, abs() and `or`.
    signs = tuple([-41.0, -40.0, -3.0, 0.0, *up[4:]][:size])
    zero = tuple([3.0, 0.0, 1.0, *up[3:]][:size])
    far = tuple(8 * u for u in up)
    equal = tuple([2.0, *([1.0] * 2 if size > 2 else [1.0]), *up[3:]][:size])
    return [
        (RankedReport(1, up[::-1], parting=True),) * 16,
        (RankedReport(3, drawn, parting=True),) * 8,
        (RankedReport(2, up, at_once=True),) * 8,
        (RankedReport(3, signs[1:] + signs[:1], at_once=True, per_step=0.0),) * 3,
        (RankedReport(3, zero, per_step=0.0),) * 3,
        (RankedReport(3, equal, per_step=0.0),) * 3,
        (RankedReport(3, (1.0,) * size, per_step=0.0),) * 2,
        # Progress, after which all are worse for a while.
        (RankedReport(2, far, at_once=True, per_step=1.0),) * 6
        + (RankedReport(2, far, at_once=True, per_step=0.25),) * 3,
        (RankedReport(1, tuple(-d for d in drawn), at_once=True, by_slot=True),) * 16,
    ]


def ranked_scripts_with_nan(size: int) -> Iterator[tuple[ScriptEvent, ...]]:
    """Yield scripts in which the worst, the best, and one between them diverge."""
    down = tuple(float(size - w) for w in range(size))
    for first, ranks in enumerate((down, down, down[1:] + down[:1])):
        by_rank = sorted(range(size), key=ranks.__getitem__)
        some = [by_rank[-1], by_rank[0], by_rank[size // 2]]
        train = RankedReport(1, ranks, parting=True)
        events = [train, train]
        for number in range(first, first + 3):
            nan = dataclasses.replace(train, diverged=(some[number % 3],))
            events += [nan, train, train]
        yield tuple(events)


def ranked_scripts_with_gap(size: int) -> Iterator[tuple[ScriptEvent, ...]]:
    """Yield scripts in which slot 0 is soon lost or retired, the best or the worst.

    The best and the worst of the others are at the ends: there a place in `view.live`
    that is taken for a worker id makes the greatest difference.
    """
    first_is_best = tuple(float(size + 1 - w) for w in range(1, size))
    for ranks in ((1.0, *first_is_best), (float(size + 2), *first_is_best[::-1])):
        for away in ((GivenUp(0),), (Fails(0),) * MAX_FAILURES):
            begin, train = RankedReport(2, ranks), RankedReport(1, ranks)
            yield (begin, *away, *[train] * 10)


def is_ranked(script: Sequence[ScriptEvent]) -> bool:
    """Whether all reports of a script have ranks."""
    return all(isinstance(e, (RankedReport, GivenUp, Fails)) for e in script) and any(
        isinstance(e, RankedReport) for e in script
    )
