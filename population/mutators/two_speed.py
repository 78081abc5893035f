"""A few members follow what helps at once, the others what helps in the long run.

Found by a search over rules on the tasks of `benchmarks/quality/policies.py`; the page
on population based training says how it compares there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from population.base.codec import digest
from population.base.interfaces import Mutator, PopulationView
from population.base.types import Branch, Checkpoint, Report
from population.mutators.explore import Explore, MutateFn
from population.mutators.rounds import Latecomer, check_steps, starts_after
from population.mutators.standings import check_number, noise, portion, tail_means

_LOOKED_AT = 10  # So many reports of each lineage show how large the noise is.
_DRAWS = 5  # A copy that equals another one is drawn again: at most five draws.


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
    they are always slow, and have slow donors only. A member that diverges copies at
    once. With `slow=1` each round is a council, without a core.

    Args:
        mutate_fn: `mutate_fn(meta_params)` or `mutate_fn(meta_params, rng)`; best is
            one that changes some of them: `population.space.Perturb(space, share=0.5)`.
        steps_per_exploit: Training steps of a round.
        horizon: Training steps of the whole run; `slow` is a sixth of its rounds,
            rounded down, and at least 1.
        slow: Rounds between two decisions of slow members, instead of `horizon`.
        donors: The share of a group that are donors.
        copies: The share of a group that copy weights.
        window: How many scores are averaged, at most `slow`.
        z: How many standard errors better a donor must be.
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
                "TwoSpeedPBT needs horizon=, the training steps of the whole run, as "
                "in Stop, or slow=, the rounds between two decisions of slow members, "
                f"got {'neither' if slow is None else 'both'}. How rarely slow members "
                "should decide depends on the length of the run."
            )
        if horizon is not None:
            slow = max(1, check_steps(horizon, "horizon") // (6 * steps_per_exploit))
        self.slow = check_steps(slow, "slow")
        self.window = check_steps(window, "window")
        self.donors, self.copies = donors, copies
        self.fast, self.core, self.z = fast, core, z
        for name, share in (("donors", donors), ("copies", copies)):
            if not 0 < check_number(share, name) <= 1:
                raise ValueError(
                    f"{name} must be above 0 and at most 1, got {share!r}."
                )
        for name, share in (("fast", fast), ("core", core)):
            if not 0 <= check_number(share, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {share!r}.")
        if not 0 <= check_number(z, "z") < math.inf:
            raise ValueError(f"z must be 0 or more and finite, got {z!r}.")

    def init(self, view: PopulationView) -> Speeds:
        """Begin the first round at each slot's newest checkpoint."""
        size = len(view.steps)
        others = size - int(self.core * size)
        count = min(round(self.fast * size), others) if self.slow > 1 else 0
        since = [view.newest(worker_id).step for worker_id in range(size)]
        return Speeds(0, since, [worker_id < count for worker_id in range(size)])

    def update(
        self, state: Speeds, report: Report, view: PopulationView
    ) -> tuple[Speeds, Mapping[int, Branch]]:
        """Decide for the groups whose turn it is, once the last slot has arrived."""
        del report
        reached = self._latecomer.reached(state, view, lambda w: self._end(state, w))
        if not reached:
            return state, {}
        number, fast = state.number + 1, state.fast.copy()
        standing = Standing(reached, view)
        if self.slow == 1 or number % (2 * self.slow) == 0:
            moves = self._council(fast, standing)
            outside = [w for w in moves if not self._in_core(w, len(fast))]
            for worker_id in outside:
                fast[worker_id] = state.fast[moves[worker_id].donor]
        else:
            moves = self._by_speed(number, fast, standing)
        moves |= self._rescue(standing.diverged - moves.keys(), state.fast, standing)
        branches = {w: move.branch for w, move in moves.items() if move.branch}
        since = starts_after(state.since, reached, branches)
        return Speeds(number, since, fast), branches

    def wait_at(self, state: Speeds, worker_id: int, view: PopulationView) -> int:
        """Return the end of the slot's round."""
        del view
        return self._end(state, worker_id)

    def _end(self, state: Speeds, worker_id: int) -> int:
        return state.since[worker_id] + self.steps_per_exploit

    def _in_core(self, worker_id: int, size: int) -> bool:
        return self.slow > 1 and worker_id >= size - int(self.core * size)

    def _council(self, fast: Sequence[bool], standing: Standing) -> dict[int, Move]:
        """Compare all members, but those in the core with slow ones only."""
        slow = [w for w in standing.reached if not fast[w]]
        core = {w for w in standing.reached if self._in_core(w, len(fast))}
        others = standing.reached.keys() - core
        window = min(self.window, self.slow)
        moves = self._evolved(list(standing.reached), others, window, standing)
        return moves | self._evolved(slow, core, window, standing)

    def _by_speed(
        self, number: int, fast: Sequence[bool], standing: Standing
    ) -> dict[int, Move]:
        """Compare the fast members, and in each `slow`-th round the slow ones."""
        quick = [w for w in standing.reached if fast[w]]
        moves = self._evolved(quick, quick, 1, standing)
        if number % self.slow == 0:
            slow = [w for w in standing.reached if not fast[w]]
            window = min(self.window, self.slow)
            moves |= self._evolved(slow, slow, window, standing)
        return moves

    def _rescue(
        self, diverged: Collection[int], fast: Sequence[bool], standing: Standing
    ) -> dict[int, Move]:
        """Have members copy a slow one, else any other, else go back and explore."""
        moves: dict[int, Move] = {}
        slow = [w for w in standing.reached if not fast[w]]
        for group in (slow, list(standing.reached)):
            left = set(diverged) - moves.keys()
            moves |= self._evolved(group, left, 1, standing) if left else {}
        for worker_id in set(diverged) - moves.keys():
            point = standing.reached[worker_id]
            moves[worker_id] = Move(worker_id, self._explore.back(standing.view, point))
        return moves

    def _evolved(
        self,
        group: Sequence[int],
        among: Collection[int],
        window: int,
        standing: Standing,
    ) -> dict[int, Move]:
        """Compare a group; return the moves of those of its members among some."""
        means, size, view = standing.means(window), len(group), standing.view
        ranked = sorted(group, key=means.__getitem__)
        best = ranked[: portion(self.donors, size)] if size > 1 else ()
        donors = [w for w in best if math.isfinite(means[w])]
        gap = self.z * standing.noise * math.sqrt(2 / window)
        taken = {(w, digest(standing.reached[w].meta_params)) for w in donors}
        moves: dict[int, Move] = {}
        for place, worker_id in enumerate(ranked[len(donors) :], len(donors)):
            if not donors or worker_id not in among:
                continue
            is_worst = place >= size - portion(self.copies, size)
            copies = is_worst or worker_id in standing.diverged
            for _ in range(_DRAWS):
                donor = donors[int(view.rng.integers(len(donors)))]
                if means[worker_id] - means[donor] <= gap:
                    moves.pop(worker_id, None)  # It goes on as it is.
                    break
                moves[worker_id] = self._move(worker_id, donor, standing, copies=copies)
                branch = moves[worker_id].branch
                if not copies or branch is None:
                    break
                drawn = donor, digest(branch.meta_params)
                if drawn not in taken:
                    taken.add(drawn)
                    break
        return moves

    def _move(
        self, worker_id: int, donor: int, standing: Standing, *, copies: bool
    ) -> Move:
        """Return the move of a member that copies, or else adopts."""
        best, own = standing.reached[donor], standing.reached[worker_id]
        if copies:
            changed = self._explore(standing.view, best.meta_params)
            point = standing.view.graph.resume_point(best)
            return Move(donor, Branch(point, changed, f"copied worker {donor}"))
        if digest(best.meta_params) == digest(own.meta_params):
            return Move(donor, None)
        point = standing.view.graph.resume_point(own)
        reason = f"adopted the hyperparameters of worker {donor}"
        return Move(donor, Branch(point, best.meta_params, reason))


class Move(NamedTuple):
    """What a member does.

    Attributes:
        donor: The worker id of the member whose hyperparameters it gets.
        branch: Its branch; None if it has these hyperparameters already.
    """

    donor: int
    branch: Branch | None


class Standing:
    """The members at the end of a round, and their scores.

    Args:
        reached: The checkpoint of each live slot there, by worker id in order.
        view: The view.

    Attributes:
        reached, view: The arguments.
        diverged: The members whose score there is not finite.
        noise: The standard deviation of the noise of a report.
    """

    def __init__(self, reached: Mapping[int, Checkpoint], view: PopulationView) -> None:
        self.reached = reached
        self.view = view
        self.diverged = {w for w, c in reached.items() if math.isinf(view.score(c))}
        until = view.steps.copy()
        until[list(reached)] = [checkpoint.step for checkpoint in reached.values()]
        self._history = view.last(_LOOKED_AT, until)
        self.noise = noise(self._history[list(reached)])

    def means(self, window: int) -> Sequence[float]:
        """Return the mean of the last scores on each lineage, by worker id."""
        found: list[float] = tail_means(self._history, window).tolist()
        return found
