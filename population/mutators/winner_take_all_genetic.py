"""At the end of each round all slots copy the best worker, each copy mutated.

The rule of learned_optimization's `population` (Apache-2.0), a simple form of
population based training (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from population.base.interfaces import Mutator, PopulationView
from population.base.types import Branch, Checkpoint, Ref, Report
from population.mutators.explore import Explore, MutateFn
from population.mutators.rounds import Latecomer


@dataclasses.dataclass(frozen=True)
class Round:
    """The state: where the current round began.

    Attributes:
        starts: The checkpoint from which each slot's reports count, by worker id.
        began: When the round began, in seconds since the epoch.
    """

    starts: list[Ref]
    began: float


class WinnerTakeAllGenetic(Mutator[Round]):
    """Copies the best worker to all slots once every live slot has trained enough.

    Args:
        mutate_fn: `mutate_fn(meta_params)`; with further parameters `rng` and `context`
            it gets the random generator and a `MutationContext`.
        steps_per_exploit: Training steps of a round; exactly one of this and the next.
        seconds_per_exploit: Seconds of a round, by the times of the reports.
        average_over_samples: Whether a worker's score is the mean of its reports at or
            after the end of the round; else it is the last one.
        keep_winner: Whether the winner continues unchanged, without a mutation.
        synchronous: Whether workers wait for the decision, and branch from the very
            checkpoint that was compared, so that timing cannot change a run.

    Raises:
        ValueError: Not exactly one of steps and seconds is given, the one given is not
            positive, or `synchronous` is True with seconds.
        TypeError: `mutate_fn` is not callable.
    """

    def __init__(
        self,
        mutate_fn: MutateFn,
        steps_per_exploit: int | None = None,
        seconds_per_exploit: float | None = None,
        average_over_samples: bool = True,
        *,
        keep_winner: bool = False,
        synchronous: bool = False,
    ) -> None:
        self._explore = Explore(mutate_fn)
        _check_round(steps_per_exploit, seconds_per_exploit, synchronous)
        self.mutate_fn = mutate_fn
        self.steps_per_exploit = steps_per_exploit
        self.seconds_per_exploit = seconds_per_exploit
        self.average_over_samples = average_over_samples
        self.keep_winner = keep_winner
        self.synchronous = synchronous
        self._latecomer = Latecomer()

    def init(self, view: PopulationView) -> Round:
        """Begin the first round at each slot's newest checkpoint."""
        newest = [view.newest(worker_id) for worker_id in range(len(view.workers))]
        return Round([checkpoint.ref for checkpoint in newest], view.now)

    def update(
        self, state: Round, report: Report, view: PopulationView
    ) -> tuple[Round, Mapping[int, Branch]]:
        """Close the round when the last live slot has arrived."""
        del report
        if self._latecomer.is_late(
            state, view.live, lambda w: self._has_arrived(state, w, view)
        ):
            return state, {}
        scores = {
            worker_id: self._score(state, worker_id, view) for worker_id in view.live
        }
        winner = min(scores, key=scores.__getitem__)
        if not math.isfinite(scores[winner]):
            return self._recover(state, view)
        donor = view.graph.resume_point(self._donor(state, winner, view))
        reason = f"worker {winner} won with {scores[winner]:.6g} (as a score)"
        branches = {
            worker_id: Branch(
                donor, self._explore(view, worker_id, donor, donor.meta_params), reason
            )
            for worker_id in view.live
            if not (self.keep_winner and worker_id == winner)
        }
        return _next_round(state, dict.fromkeys(view.live, donor.ref), view), branches

    def wait_at(self, state: Round, worker_id: int, view: PopulationView) -> int | None:
        """Return the end of the slot's round, if workers wait for it."""
        del view
        return self._end(state, worker_id)[0] if self.synchronous else None

    def _end(self, state: Round, worker_id: int) -> tuple[int, float]:
        """Return the step and the time of a round's end; the slot must reach both."""
        start = state.starts[worker_id].step
        if self.steps_per_exploit is not None:
            return start + self.steps_per_exploit, -math.inf
        return start + 1, state.began + (self.seconds_per_exploit or 0.0)

    def _has_arrived(self, state: Round, worker_id: int, view: PopulationView) -> bool:
        end, end_time = self._end(state, worker_id)
        if self.synchronous:
            return view.barrier(worker_id, end) is not None
        if view.ready[worker_id] < end:
            return False
        newest = view.graph.newest_value(view.newest(worker_id))
        return newest is not None and newest.time >= end_time

    def _samples(
        self, state: Round, worker_id: int, view: PopulationView
    ) -> list[Checkpoint]:
        """Return the reports on which a slot's score is based, oldest first."""
        end, end_time = self._end(state, worker_id)
        if self.synchronous:
            barrier = view.barrier(worker_id, end)
            return [] if barrier is None else [barrier]
        reports = view.graph.reports_since(view.newest(worker_id), end)
        return [checkpoint for checkpoint in reports if checkpoint.time >= end_time]

    def _score(self, state: Round, worker_id: int, view: PopulationView) -> float:
        samples = self._samples(state, worker_id, view)
        if not self.average_over_samples:
            samples = samples[-1:]
        scores = [view.score(checkpoint) for checkpoint in samples]
        return sum(scores) / len(scores) if scores else math.inf

    def _donor(self, state: Round, winner: int, view: PopulationView) -> Checkpoint:
        if self.synchronous:
            return self._samples(state, winner, view)[0]
        return view.newest(winner)

    def _recover(
        self, state: Round, view: PopulationView
    ) -> tuple[Round, Mapping[int, Branch]]:
        """Move each slot back to its last finite checkpoint, as no score is finite."""
        branches = {}
        for worker_id in view.live:
            last = self._donor(state, worker_id, view)
            reason = "every worker diverged"
            branches[worker_id] = self._explore.back(view, worker_id, last, reason)
        starts = {w: b.parent.ref for w, b in branches.items() if b.parent is not None}
        return _next_round(state, starts, view), branches


def _next_round(state: Round, starts: Mapping[int, Ref], view: PopulationView) -> Round:
    refs = [starts.get(worker_id, old) for worker_id, old in enumerate(state.starts)]
    return Round(refs, view.now)


def _check_round(steps: Any, seconds: Any, synchronous: bool) -> None:
    if (steps is None) == (seconds is None):
        raise ValueError(
            "exactly one of steps_per_exploit and seconds_per_exploit is needed, got "
            f"{steps!r} and {seconds!r}."
        )
    if steps is not None and (type(steps) is not int or steps < 1):
        raise ValueError(
            f"steps_per_exploit must be a positive int, got {steps!r}. To exploit by "
            "time instead, pass seconds_per_exploit."
        )
    if seconds is not None:
        number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not number or not seconds > 0:
            raise ValueError(
                f"seconds_per_exploit must be a positive number, got {seconds!r}. To "
                "exploit by training steps instead, pass steps_per_exploit."
            )
        if synchronous:
            raise ValueError(
                "synchronous rounds end at a step, which all workers reach alike; got "
                "seconds_per_exploit. Pass steps_per_exploit."
            )
