"""At each of a few steps, the rungs, only the best of the members go on.

The stopping form of asynchronous successive halving: Li et al., "A System for Massively
Parallel Hyperparameter Tuning", MLSys 2020 (https://arxiv.org/abs/1810.05934).
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from population.base.interfaces import Mutator, PopulationView
from population.base.types import Branch, Report, Retire
from population.mutators.explore import Explore, MutateFn
from population.mutators.rounds import check_steps, is_live, step_after

_LISTED = 64  # So many scores of a rung are kept, or as many as can go on.


@dataclasses.dataclass(frozen=True)
class Rung:
    """The members that were compared at a rung.

    Attributes:
        count: How many were compared.
        scores: The best of their scores, ascending.
        workers: The worker ids of those with these scores.
    """

    count: int = 0
    scores: list[float] = dataclasses.field(default_factory=list)
    workers: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Ladder:
    """The state: how far each slot has come, and what was seen at the rungs.

    Attributes:
        ahead: The number of the next rung of each slot, by worker id.
        rungs: The rungs that a live slot may still reach, by number.
    """

    ahead: list[int]
    rungs: dict[int, Rung]


class SuccessiveHalving(Mutator[Ladder]):
    """At a rung a member goes on if it is among the best `1/factor` seen there so far.

    The rungs are at `first_rung * factor**k` training steps. A member is compared once,
    by its first report from there on that a decision may use, with all members that
    were there before it; no member waits. The share is rounded down to a number of
    members, at least one; a score as good as the last of the best is one of them. A
    member that diverges loses at once, as if it were at its next rung.

    A member that loses is retired. With a `mutate_fn` it is not: it continues with the
    weights of a member, drawn at random from the best `1/factor` of this rung that are
    live and finite, where that one is now, and with that one's hyperparameters,
    explored. If none is left it goes on; if it has diverged, it goes back and explores.

    Args:
        mutate_fn: `mutate_fn(meta_params)`; with further parameters `rng` and `context`
            it gets the random generator and a `MutationContext`. None: members that
            lose are retired.
        first_rung: The training steps of the first rung.
        factor: The ratio of the steps of two rungs, and of members to those that go on.

    Raises:
        ValueError: `first_rung` is not a positive int, or `factor` is not an int of 2
            or more.
        TypeError: `mutate_fn` is not callable.
    """

    def __init__(
        self, mutate_fn: MutateFn | None, first_rung: int, factor: int = 4
    ) -> None:
        self._explore = None if mutate_fn is None else Explore(mutate_fn)
        self.mutate_fn = mutate_fn
        self.first_rung = check_steps(first_rung, "first_rung")
        if type(factor) is not int or factor < 2:
            raise ValueError(f"factor must be an int of 2 or more, got {factor!r}.")
        self.factor = factor

    def init(self, view: PopulationView) -> Ladder:
        """Begin below the first rung that is after each slot's newest checkpoint."""
        newest = [view.newest(worker_id) for worker_id in range(len(view.steps))]
        return Ladder([self._rung_after(checkpoint.step) for checkpoint in newest], {})

    def update(
        self, state: Ladder, report: Report, view: PopulationView
    ) -> tuple[Ladder, Mapping[int, Branch | Retire]]:
        """Compare the member that reports at each rung that it has reached."""
        worker_id = report.worker_id
        first = number = state.ahead[worker_id]
        rungs, decision, has_lost = state.rungs, None, False
        for score in self._reached(number, worker_id, view):
            if not is_live(view, worker_id):
                return state, {}  # A late report must not bring it back.
            rung = self._compared(rungs.get(number), worker_id, score, len(state.ahead))
            rungs = {**rungs, number: rung}
            has_lost = not self._passes(rung, score)
            if has_lost:
                place = f"lost at rung {number}, step {self._steps(number)}: "
                reason = place + _standing(rung, score)
                decision = self._decide(worker_id, rung, reason, view)
            number += 1
            if has_lost:
                break
        if number == first:
            return state, {}
        if isinstance(decision, Branch):
            number = self._rung_after(step_after(decision, view))
        ahead = state.ahead.copy()
        ahead[worker_id] = number
        following = _without_passed(Ladder(ahead, rungs), first, view.live)
        return following, {} if decision is None else {worker_id: decision}

    def _steps(self, number: int) -> int:
        return self.first_rung * int(self.factor**number)

    def _rung_after(self, step: int) -> int:
        """Return the number of the first rung after a step."""
        number = 0
        while self._steps(number) <= step:
            number += 1
        return number

    def _reached(
        self, number: int, worker_id: int, view: PopulationView
    ) -> Iterator[float]:
        """Yield the slot's score at each rung that it has reached, from `number` on."""
        if view.steps[worker_id] > view.begins[worker_id]:
            if not math.isfinite(view.scores[worker_id]):
                yield math.inf
                return
        while (point := view.barrier(worker_id, self._steps(number))) is not None:
            yield view.score(point)
            number += 1

    def _compared(
        self, rung: Rung | None, worker_id: int, score: float, size: int
    ) -> Rung:
        """Return a rung with one more member; of equal ones the first is the best."""
        rung = rung or Rung()
        most = max(size // self.factor, _LISTED)
        place = bisect.bisect_right(rung.scores, score)
        scores, workers = rung.scores, rung.workers
        if math.isfinite(score) and place < most:
            scores = [*scores[:place], score, *scores[place : most - 1]]
            workers = [*workers[:place], worker_id, *workers[place : most - 1]]
        return Rung(rung.count + 1, scores, workers)

    def _best(self, rung: Rung) -> int:
        """Return how many of the listed members are among the best `1/factor`."""
        return min(max(rung.count // self.factor, 1), len(rung.scores))

    def _passes(self, rung: Rung, score: float) -> bool:
        return math.isfinite(score) and score <= rung.scores[self._best(rung) - 1]

    def _decide(
        self, worker_id: int, rung: Rung, reason: str, view: PopulationView
    ) -> Branch | Retire | None:
        """Return what becomes of a member that has lost."""
        if self._explore is None:
            return Retire(reason)
        for position in view.rng.permutation(self._best(rung)).tolist():
            donor = rung.workers[position]
            is_fit = math.isfinite(view.scores[donor]) and is_live(view, donor)
            if is_fit and donor != worker_id:
                what = f"{reason}; continues worker {donor}"
                return self._explore.copy(view, worker_id, view.newest(donor), what)
        if math.isfinite(view.scores[worker_id]):
            return None
        return self._explore.back(view, worker_id, view.newest(worker_id))


def _standing(rung: Rung, score: float) -> str:
    """Return a member's rank and score in words."""
    better = bisect.bisect_left(rung.scores, score)
    if math.isinf(score):
        rank = str(rung.count)
    else:  # Of a large population only the best are listed.
        rank = str(better + 1) if better < len(rung.scores) else f"over {better}"
    return f"rank {rank} of {rung.count}, score {score:.6g}"


def _without_passed(state: Ladder, left: int, live: Sequence[int]) -> Ladder:
    """Forget rungs that every live slot has passed, where a slot has left one.

    A slot that comes back to such a rung, revived, passes it without a comparison.
    """
    away = len(state.ahead) - len(live)
    if left > min(state.rungs) or state.ahead.count(left) > away:
        return state
    lowest = min((state.ahead[worker_id] for worker_id in live), default=0)
    rungs = {number: r for number, r in state.rungs.items() if number >= lowest}
    return Ladder([max(number, lowest) for number in state.ahead], rungs)
