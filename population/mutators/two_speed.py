"""A few members follow what helps at once, the others what helps in the long run.

Found by a search over rules on the tasks of `benchmarks/quality/policies.py`; the page
on population based training says how it compares there.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence, Set

from population.base.codec import digest
from population.base.interfaces import Mutator, PopulationView
from population.base.types import Branch, Report
from population.mutators.explore import Explore, MutateFn
from population.mutators.rounds import Latecomer, check_steps, starts, starts_after
from population.mutators.standings import Curves, check_number, check_share, portion

# The donor whose hyperparameters a member gets, and its branch, if it has others.
Move = tuple[int, Branch | None]
# Members that are compared; those that may change; how many scores are averaged.
Group = tuple[Sequence[int], Collection[int], int]


@dataclasses.dataclass(frozen=True)
class Speeds:
    """The state: how many rounds are over, and the round and speed of each slot.

    Attributes:
        number: The number of rounds that have been decided.
        since: The step at which the slot's current round began, by worker id.
        fast: Whether the slot is fast, by worker id.
    """

    number: int
    since: list[int]
    fast: list[bool]


class TwoSpeedPBT(Mutator[Speeds]):
    """Synchronous PBT at two speeds, in which the middle adopts hyperparameters.

    After a round of `steps_per_exploit` steps a group of members is ranked by the mean
    of the last scores on each lineage. The best are the donors; they go on unchanged.
    The worst copy the weights of a donor, drawn at random, and explore from its
    hyperparameters. All others keep their weights and take the hyperparameters of a
    donor. Neither happens unless the donor is better, and by more than the noise of the
    reports, which is estimated from their second differences.

    Fast members are such a group after each round, by their last score alone; slow ones
    after every `slow` rounds. Every second time all members are one group instead, the
    council, where a member becomes as fast as its donor. The last slots are the core:
    they are always slow, and have slow donors only. A member that has diverged by the
    end of a round copies then, if it can a slow one, and in the core, too, any other.
    With `slow=1` each round is a council, without a core.

    Args:
        mutate_fn: `mutate_fn(meta_params)`; best is one that changes some of them:
            `population.space.Perturb(space, share=0.5)`. With further parameters `rng`
            and `context` it gets the random generator and a `MutationContext`.
        steps_per_exploit: Training steps of a round.
        horizon: Training steps of the whole run, at least those of a round; `slow` is a
            sixth of its rounds, rounded down, and at least 1.
        slow: Rounds between two decisions of slow members, instead of `horizon`.
        donors: The share of a group that are donors.
        copies: The share of a group that copy weights.
        window: How many scores are averaged, at most `slow`.
        z: How many standard errors better a donor must be, at most 100.
        fast: The share of slots that begin as fast ones; not those of the core.
        core: The share of slots in the core.

    Raises:
        ValueError: Both or neither of `horizon` and `slow` are given, or an argument is
            out of its range.
        TypeError: `mutate_fn` is not callable.
    """

    def __init__(
        self,
        mutate_fn: MutateFn,
        steps_per_exploit: int,
        *,
        horizon: int | None = None,
        slow: int | None = None,
        donors: float = 1 / 8,
        copies: float = 3 / 8,
        window: int = 5,
        z: float = 2.0,
        fast: float = 1 / 4,
        core: float = 1 / 2,
    ) -> None:
        self._explore = Explore(mutate_fn)
        self._latecomer = Latecomer()
        self.mutate_fn = mutate_fn
        self.steps_per_exploit = check_steps(steps_per_exploit)
        if (horizon is None) == (slow is None):
            raise ValueError(
                "TwoSpeedPBT needs horizon=, the training steps of the whole run, or "
                "slow=, the rounds between two decisions of slow members, got "
                f"{'neither' if slow is None else 'both'}. Pass that of Stop(steps=)."
            )
        if horizon is not None:
            if check_steps(horizon, "horizon") < steps_per_exploit:
                raise ValueError(f"horizon must be at least a round, got {horizon}.")
            slow = max(1, horizon // (6 * steps_per_exploit))
        self.slow = check_steps(slow, "slow")
        self.window = check_steps(window, "window")
        self.donors = check_share(donors, "donors")
        self.copies = check_share(copies, "copies")
        self.fast = check_share(fast, "fast", or_zero=True)
        self.core = check_share(core, "core", or_zero=True)
        self.z = check_number(z, "z", 0, 100)

    def init(self, view: PopulationView) -> Speeds:
        """Begin the first round at each slot's newest checkpoint."""
        size = len(view.steps)
        count = round(self.fast * size)
        since = starts(view)
        fast = [w < count and not self._in_core(w, size) for w in range(size)]
        return Speeds(0, since, fast)

    def update(
        self, state: Speeds, report: Report, view: PopulationView
    ) -> tuple[Speeds, Mapping[int, Branch]]:
        """Decide for the groups whose turn it is, once the last slot has arrived."""
        del report
        reached = self._latecomer.reached(state, view, lambda w: self._end(state, w))
        if not reached:
            return state, {}
        number, fast, moves = state.number + 1, state.fast.copy(), dict[int, Move]()
        curves, meets = Curves(reached, view, self.window), self._meets(number)
        # With one speed the flags stay as they were, for a run that is made longer.
        is_core = functools.partial(self._in_core, size=len(fast))
        now = [f and self.slow > 1 and not is_core(w) for w, f in enumerate(fast)]
        for group in self._groups(number, now, list(reached)):
            moves |= self._evolved(group, curves)
        for worker_id, (donor, _) in moves.items() if meets and self.slow > 1 else ():
            fast[worker_id] = now[donor] and not is_core(worker_id)
        moves |= self._rescue(curves.diverged - moves.keys(), now, curves)
        branches = {w: branch for w, (_, branch) in moves.items() if branch}
        since = starts_after(state.since, reached, branches, view)
        return Speeds(number, since, fast), branches

    def wait_at(self, state: Speeds, worker_id: int, view: PopulationView) -> int:
        """Return the end of the slot's round."""
        del view
        return self._end(state, worker_id)

    def _end(self, state: Speeds, worker_id: int) -> int:
        return state.since[worker_id] + self.steps_per_exploit

    def _in_core(self, worker_id: int, size: int) -> bool:
        return self.slow > 1 and worker_id >= size - int(self.core * size + 1e-9)

    def _meets(self, number: int) -> bool:
        """Whether the council meets at the end of a round."""
        return self.slow == 1 or number % (2 * self.slow) == 0

    def _groups(
        self, number: int, fast: Sequence[bool], everyone: Sequence[int]
    ) -> Iterator[Group]:
        """Yield the groups whose turn it is at the end of a round."""
        slow, window = [w for w in everyone if not fast[w]], min(self.window, self.slow)
        if self._meets(number):
            core = {w for w in everyone if self._in_core(w, len(fast))}
            yield everyone, set(everyone) - core, window
            yield slow, core, window
            return
        quick = [w for w in everyone if fast[w]]
        yield quick, quick, 1
        if number % self.slow == 0:
            yield slow, slow, window

    def _rescue(
        self, diverged: Set[int], fast: Sequence[bool], curves: Curves
    ) -> dict[int, Move]:
        """Have members copy a slow one, else any other, else go back and explore."""
        moves: dict[int, Move] = {}
        slow = [w for w in curves.reached if not fast[w]]
        for members in (slow, list(curves.reached)) if diverged else ():
            left = diverged - moves.keys()
            moves |= self._evolved((members, left, 1), curves)
        for w in sorted(diverged - moves.keys()):
            moves[w] = w, self._explore.back(curves.view, w, curves.reached[w])
        return moves

    def _evolved(self, group: Group, curves: Curves) -> dict[int, Move]:
        """Compare the members of a group, and return the moves."""
        members, among, window = group
        means, size = curves.means(window), len(members)
        ranked = sorted(members, key=means.__getitem__)
        best = ranked[: portion(self.donors, size)] if size > 1 else ()
        donors = [w for w in best if math.isfinite(means[w])]
        gap = self.z * curves.noise * math.sqrt(2 / window)
        taken = {(w, digest(curves.reached[w].meta_params)) for w in donors}
        moves: dict[int, Move] = {}
        for place, worker_id in enumerate(ranked[len(donors) :], len(donors)):
            if not donors or worker_id not in among:
                continue
            is_worst = place >= size - portion(self.copies, size)
            copies = is_worst or worker_id in curves.diverged
            for _ in range(5 if copies else 1):  # Until it equals no other one.
                donor = donors[int(curves.view.rng.integers(len(donors)))]
                if means[worker_id] - means[donor] <= gap:
                    moves.pop(worker_id, None)  # It goes on as it is.
                    break
                moves[worker_id] = self._move(worker_id, donor, curves, copies=copies)
                _, branch = moves[worker_id]
                drawn = donor, digest(branch and branch.meta_params)
                if drawn not in taken:
                    taken.add(drawn)
                    break
        return moves

    def _move(
        self, worker_id: int, donor: int, curves: Curves, *, copies: bool
    ) -> Move:
        """Return the move of a member that copies, or else adopts."""
        best, own = curves.reached[donor], curves.reached[worker_id]
        view, what = curves.view, f"copied worker {donor}"
        if copies:
            return donor, self._explore.copy(view, worker_id, best, what)
        if digest(best.meta_params) == digest(own.meta_params):
            return donor, None
        what = f"adopted the hyperparameters of worker {donor}"
        return donor, Branch(view.graph.resume_point(own), best.meta_params, what)
