"""One worker tries three hyperparameters from one checkpoint, then uses the best.

The policy of the same name in learned_optimization's `population` (Apache-2.0), for one
machine: a line search over a hyperparameter while the model trains.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from population.base.interfaces import Mutator, PopulationView
from population.base.types import Branch, Checkpoint, Ref, Report
from population.mutators.explore import Explore, MutateFn
from population.mutators.rounds import check_steps

_TRIALS = ("center", "neg", "pos")


@dataclasses.dataclass(frozen=True)
class Phase:
    """The state: the phase that is being trained.

    Attributes:
        name: "center", "neg", "pos" or "exploit".
        cycle: The number of cycles of these four phases that are over.
        branch: The checkpoint at which the three trials begin.
        start: The step at which this phase began.
        ends: The last checkpoint of each trial of this cycle that is over.
    """

    name: str
    cycle: int
    branch: Ref
    start: int
    ends: list[Ref]


class BranchingSingleMachine(Mutator[Phase]):
    """Explores centre, negative and positive in turn, then exploits the best of them.

    Each trial trains `explore_steps` from the same checkpoint. The best one continues
    from its last checkpoint for `exploit_steps`; there the next cycle begins.

    Args:
        mutate_fn: `mutate_fn(meta_params, direction, cycle)`; direction is "neg" or
            "pos". With further parameters `rng` and `context` it gets these, too.
        exploit_steps: Training steps of an exploit phase.
        explore_steps: Training steps of each trial.

    Raises:
        ValueError: A number of steps is not positive, or the population has more than
            one worker.
        TypeError: `mutate_fn` is not callable.
    """

    def __init__(
        self, mutate_fn: MutateFn, exploit_steps: int, explore_steps: int
    ) -> None:
        self._explore = Explore(mutate_fn, ("direction", "cycle"))
        self.mutate_fn = mutate_fn
        self.exploit_steps = check_steps(exploit_steps, "exploit_steps")
        self.explore_steps = check_steps(explore_steps, "explore_steps")

    def init(self, view: PopulationView) -> Phase:
        """Begin the first cycle with the centre, at the slot's newest checkpoint."""
        if len(view.workers) != 1:
            raise ValueError(
                "BranchingSingleMachine trains one worker, got a population of "
                f"{len(view.workers)}. For several, use WinnerTakeAllGenetic."
            )
        newest = view.newest(0)
        return Phase("center", 0, newest.ref, newest.step, [])

    def update(
        self, state: Phase, report: Report, view: PopulationView
    ) -> tuple[Phase, Mapping[int, Branch]]:
        """Begin the next phase at the first report at or after this one's end."""
        del report
        steps = self.exploit_steps if state.name == "exploit" else self.explore_steps
        end = view.barrier(0, state.start + steps)
        if end is None:
            return state, {}
        if state.name == "exploit":
            return self._next_cycle(state, end, view)
        ends = [*state.ends, end.ref]
        if len(ends) == len(_TRIALS):
            return self._choose(state, ends, view)
        start, direction = view.graph.checkpoint(state.branch), _TRIALS[len(ends)]
        arguments = start.meta_params, direction, state.cycle
        changed = self._explore(view, 0, start, *arguments)
        reason = f"explore {direction} (cycle {state.cycle})"
        following = Phase(direction, state.cycle, start.ref, start.step, ends)
        return following, {0: Branch(start, changed, reason)}

    def _next_cycle(
        self, state: Phase, end: Checkpoint, view: PopulationView
    ) -> tuple[Phase, Mapping[int, Branch]]:
        """Begin a cycle at the end of the exploit phase, unless that diverged."""
        point = view.graph.resume_point(end) if end.diverged else end
        following = Phase("center", state.cycle + 1, point.ref, point.step, [])
        if point is end:
            return following, {}
        reason = f"the exploit phase of cycle {state.cycle} diverged"
        return following, {0: Branch(point, point.meta_params, reason)}

    def _choose(
        self, state: Phase, refs: Sequence[Ref], view: PopulationView
    ) -> tuple[Phase, Mapping[int, Branch]]:
        """Continue from the best of the three trials, or go back if all diverged.

        Then the next cycle begins where this one began, with the meta_params of "neg".
        """
        ends = [view.graph.checkpoint(ref) for ref in refs]
        best = min(ends, key=view.score)
        if math.isfinite(view.score(best)):
            reason = f"exploit {_TRIALS[ends.index(best)]} (cycle {state.cycle})"
            following = Phase("exploit", state.cycle, state.branch, best.step, [])
            return following, {0: Branch(best, best.meta_params, reason)}
        start = view.graph.checkpoint(state.branch)
        reason = f"every trial of cycle {state.cycle} diverged"
        following = Phase("center", state.cycle + 1, start.ref, start.step, [])
        return following, {0: Branch(start, ends[1].meta_params, reason)}
