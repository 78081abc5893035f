"""Members that do badly copy ones that do well, and explore from there.

Population based training (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from population.base.interfaces import Mutator, PopulationView
from population.base.types import Branch, Checkpoint, Report
from population.mutators.exploit import Exploit, Truncation, check_rule, choose
from population.mutators.explore import Explore, MutateFn, unchanged
from population.mutators.rounds import (
    Latecomer,
    check_steps,
    starts,
    starts_after,
    step_after,
)
from population.mutators.standings import Standings, at_equal_step, samples, sign

_TRUNCATION = Truncation(0.2)


@dataclasses.dataclass(frozen=True)
class Intervals:
    """The state: where each slot's current interval began.

    Attributes:
        since: The step at which it began, by worker id.
    """

    since: list[int]


class PopulationBasedTraining(Mutator[Intervals]):
    """Every `steps_per_exploit` steps a member may copy another one, then explore.

    Asynchronous by default: a member is compared with the others as they were at its
    own step, each by its newest report at or before that step; a member without one is
    left out. A copy continues from the donor's newest checkpoint. The best member is
    never overwritten, and a diverged one is never a donor.

    The ablations of the paper are arguments: without `mutate_fn` members only exploit,
    with `exploit=None` they only explore, and with neither this is random or grid
    search.

    Args:
        mutate_fn: `mutate_fn(meta_params)`, such as a `population.space.Perturb`; with
            further parameters `rng` and `context` it gets the random generator and a
            `MutationContext`. None: copies keep the donor's meta_params.
        steps_per_exploit: Training steps between two decisions of a member.
        exploit: The rule that decides which member copies which, by default
            `Truncation(0.2)`; None: no member copies.
        synchronous: Whether workers wait for each other, so that all are compared at
            once and branch from the very checkpoints that were compared: timing cannot
            change a run.
        burn_in: The step before which there is no decision.
        copy_meta_params: Whether a copy explores from the donor's hyperparameters.
            False: it takes the weights only, and explores from its own hyperparameters,
            unless it has diverged with them.
        keep_best: Whether the best member stays unchanged. False: it explores, too, as
            in learned_optimization's winner-take-all.

    Raises:
        ValueError: `steps_per_exploit` is not a positive int, or `burn_in` is not an
            int of 0 or more.
        TypeError: `mutate_fn` is not callable, or `exploit` is not a rule.
    """

    def __init__(
        self,
        mutate_fn: MutateFn | None,
        steps_per_exploit: int,
        *,
        exploit: Exploit | None = _TRUNCATION,
        synchronous: bool = False,
        burn_in: int = 0,
        copy_meta_params: bool = True,
        keep_best: bool = True,
    ) -> None:
        self.mutate_fn = mutate_fn
        self.steps_per_exploit = check_steps(steps_per_exploit)
        self.exploit = exploit
        self.synchronous = synchronous
        self.burn_in = burn_in
        self.copy_meta_params = copy_meta_params
        self.keep_best = keep_best
        if type(burn_in) is not int or burn_in < 0:
            raise ValueError(f"burn_in must be an int of 0 or more, got {burn_in!r}.")
        if exploit is not None:
            check_rule(exploit)
        self._explore = Explore(unchanged if mutate_fn is None else mutate_fn)
        self._latecomer = Latecomer()

    def init(self, view: PopulationView) -> Intervals:
        """Begin the first interval at each slot's newest checkpoint."""
        return Intervals(starts(view))

    def update(
        self, state: Intervals, report: Report, view: PopulationView
    ) -> tuple[Intervals, Mapping[int, Branch]]:
        """Decide for the member that reports, or for all at once if synchronous."""
        if self.mutate_fn is None and self.exploit is None:
            return state, {}
        if self.synchronous:
            return self._decide_together(state, view)
        worker_id = report.worker_id
        if view.ready[worker_id] < self._end(state, worker_id):
            return state, {}
        return self._decide_alone(state, worker_id, view)

    def wait_at(
        self, state: Intervals, worker_id: int, view: PopulationView
    ) -> int | None:
        """Return the end of the slot's interval, if workers wait for each other."""
        del view
        if not self.synchronous or (self.mutate_fn is None and self.exploit is None):
            return None
        return self._end(state, worker_id)

    def _end(self, state: Intervals, worker_id: int) -> int:
        return max(state.since[worker_id] + self.steps_per_exploit, self.burn_in)

    def _decide_alone(
        self, state: Intervals, worker_id: int, view: PopulationView
    ) -> tuple[Intervals, Mapping[int, Branch]]:
        """Compare one member with the others at its own step."""
        step = int(view.steps[worker_id])
        members, scores = at_equal_step(worker_id, step, view)
        standings = Standings(
            scores,
            lambda i, window: samples(view.newest(members[i]), step, window, view),
        )
        me = int(np.searchsorted(members, worker_id))
        best_now = int(members[np.argmin(view.scores[members])])
        branch = self._decide(
            me,
            standings,
            lambda i: view.newest(int(members[i])),
            view,
            is_best=worker_id == best_now or standings.rank(me) == 0,
        )
        since = state.since.copy()
        since[worker_id] = step if branch is None else step_after(branch, view)
        return Intervals(since), {} if branch is None else {worker_id: branch}

    def _decide_together(
        self, state: Intervals, view: PopulationView
    ) -> tuple[Intervals, Mapping[int, Branch]]:
        """Compare all live members at their barriers, once the last has arrived."""
        reached = self._latecomer.reached(state, view, lambda w: self._end(state, w))
        if not reached:
            return state, {}
        points = list(reached.values())
        scores = np.array([view.score(checkpoint) for checkpoint in points])
        scores.flags.writeable = False
        standings = Standings(
            scores,
            lambda i, window: samples(points[i], points[i].step, window, view),
            for_all=True,
        )
        branches = {}
        for me, worker_id in enumerate(reached):
            is_best = standings.rank(me) == 0
            branch = self._decide(
                me, standings, points.__getitem__, view, is_best=is_best
            )
            if branch is not None:
                branches[worker_id] = branch
        since = starts_after(state.since, reached, branches, view)
        return Intervals(since), branches

    def _decide(
        self,
        me: int,
        standings: Standings,
        checkpoint_of: Callable[[int], Checkpoint],
        view: PopulationView,
        *,
        is_best: bool,
    ) -> Branch | None:
        """Return a member's branch, to a donor or to explore by itself, or None."""
        chosen, own = None, checkpoint_of(me)
        if self.exploit is not None and not is_best:
            chosen = choose(self.exploit, me, standings, view.rng)
        diverged = not math.isfinite(standings.scores[me])
        if chosen is not None:
            donor = checkpoint_of(chosen)
            values = sign(own, view) * standings.scores[[chosen, me]]
            reason = (
                f"copied worker {donor.worker_id}, whose value was {values[0]:.6g}, "
                f"not {values[1]:.6g}"
            )
            own_way = not (self.copy_meta_params or diverged)
            origin = own.meta_params if own_way else None
            return self._explore.copy(view, own.worker_id, donor, reason, origin)
        if diverged:
            return self._explore.back(view, own.worker_id, own)
        if self.exploit is None or (is_best and not self.keep_best):
            return self._explore.copy(view, own.worker_id, own, "explored")
        return None
