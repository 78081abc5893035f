"""A few members follow what helps at once, the others what helps in the long run.

Found by a search over rules on the tasks of `benchmarks/quality/policies.py`; the page
on population based training says how it compares there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from population.base.codec import digest
from population.base.interfaces import Mutator, PopulationView
from population.base.types import Branch, Checkpoint, Report
from population.mutators.explore import Explore, MutateFn
from population.mutators.rounds import Latecomer, check_steps, step_after
from population.mutators.standings import (
    check_number,
    noise,
    portion,
    sign,
    tail_means,
)

_LOOKED_AT = 10  # So many reports of each lineage show how large the noise is.
_DRAWS = 5  # A copy that equals another one is drawn again, so many times in all.


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


class Move(NamedTuple):
    """What a member does.

    Attributes:
        donor: The worker id of the member whose hyperparameters it gets.
        branch: Its branch; None if it has these hyperparameters already.
    """

    donor: int
    branch: Branch | None


class Round:
    """The members at the end of a round.

    Args:
        reached: The checkpoint of each live slot there, by worker id in order.
        view: The view.

    Attributes:
        reached, view: The arguments.
        sign: 1.0 or -1.0: a score times this is a value.
        diverged: The members whose score there is not finite.
        noise: The standard deviation of the noise of a report.
    """

    def __init__(self, reached: Mapping[int, Checkpoint], view: PopulationView) -> None:
        self.reached = reached
        self.view = view
        self.diverged = {w for w, c in reached.items() if math.isinf(view.score(c))}
        self.sign = sign(next(iter(reached.values())), view)
        until = np.full(len(view.steps), -1)
        until[list(reached)] = [checkpoint.step for checkpoint in reached.values()]
        self._history = view.last(_LOOKED_AT, until)
        self.noise = noise(self._history[list(reached)])

    def means(self, window: int) -> Sequence[float]:
        """Return the mean of the last scores on each lineage, by worker id."""
        found: list[float] = tail_means(self._history, window).tolist()
        return found


class TwoSpeedPBT(Mutator[Speeds]):
    """Synchronous PBT at two speeds, in which the middle adopts hyperparameters.

    After a round of `steps_per_exploit` steps a group of members is ranked by the mean
    of the last scores on each lineage. The best are the donors; they go on unchanged.
    The worst copy the weights of a donor, drawn at random, and explore from its
    hyperparameters. All others keep their weights and take the hyperparameters of a
    donor. Neither happens if the donor is not better by more than the noise of the
    reports, which is estimated from their second differences.

    Fast members are such a group after each round, by their last score alone; slow ones
    after every `slow` rounds. Every second time all members are one group instead, the
    council, where a member becomes as fast as its donor. The last slots are the core:
    they are always slow, and have slow donors only. A member that diverges copies.

    Args:
        mutate_fn: `mutate_fn(meta_params)` or `mutate_fn(meta_params, rng)`; best is
            one that changes some of them: `population.space.Perturb(space, share=0.5)`.
        steps_per_exploit: Training steps of a round.
        horizon: Training steps of the whole run; `slow` is a sixth of its rounds.
        slow: Rounds between two decisions of slow members, instead of `horizon`.
        donors: The share of a group that are donors.
        copies: The share of a group that copy weights.
        window: How many scores are averaged, at most `slow`.
        z: How many standard errors better a donor must be.
        fast: The share of slots that begin as fast ones.
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
        count = round(self.fast * size) if self.slow > 1 else 0
        since = [view.newest(worker_id).step for worker_id in range(size)]
        return Speeds(0, since, [worker_id < count for worker_id in range(size)])

    def update(
        self, state: Speeds, report: Report, view: PopulationView
    ) -> tuple[Speeds, Mapping[int, Branch]]:
        """Decide for the groups whose turn it is, once the last slot has arrived."""
        del report

        def barrier(worker_id: int) -> Checkpoint | None:
            return view.barrier(worker_id, self._end(state, worker_id))

        if self._latecomer.is_late(state, view.live, lambda w: barrier(w) is not None):
            return state, {}
        reached = {w: c for w in view.live if (c := barrier(w)) is not None}
        number = state.number + 1
        is_council = self.slow == 1 or number % (2 * self.slow) == 0
        moves = self._moves(number, state.fast, Round(reached, view), is_council)
        since, fast = state.since.copy(), state.fast.copy()
        for worker_id, checkpoint in reached.items():
            move = moves.get(worker_id)
            branch = None if move is None else move.branch
            since[worker_id] = checkpoint.step if branch is None else step_after(branch)
            if is_council and move and not self._in_core(worker_id, len(fast)):
                fast[worker_id] = state.fast[move.donor]
        branches = {w: move.branch for w, move in moves.items() if move.branch}
        return Speeds(number, since, fast), branches

    def wait_at(self, state: Speeds, worker_id: int, view: PopulationView) -> int:
        """Return the end of the slot's round."""
        del view
        return self._end(state, worker_id)

    def _end(self, state: Speeds, worker_id: int) -> int:
        return state.since[worker_id] + self.steps_per_exploit

    def _in_core(self, worker_id: int, size: int) -> bool:
        return self.slow > 1 and worker_id >= size - int(self.core * size)

    def _moves(
        self, number: int, fast: Sequence[bool], now: Round, is_council: bool
    ) -> dict[int, Move]:
        """Return the moves at the end of this round, by worker id."""
        everyone = list(now.reached)
        slow = [w for w in everyone if not fast[w]]
        window = min(self.window, self.slow)
        if is_council:
            at_core = self._evolved(slow, window, now) if self.slow > 1 else {}
            both = self._evolved(everyone, window, now), at_core
            moves = {
                worker_id: move
                for in_core, group in enumerate(both)
                for worker_id, move in group.items()
                if self._in_core(worker_id, len(fast)) == in_core
            }
        else:
            moves = self._evolved([w for w in everyone if fast[w]], 1, now)
            if number % self.slow == 0:
                moves |= self._evolved(slow, window, now)
        for group in (slow, everyone):
            left = now.diverged - moves.keys()
            moves |= self._evolved(group, window, now, among=left) if left else {}
        return moves | {w: self._back(w, now) for w in now.diverged - moves.keys()}

    def _evolved(
        self,
        group: Sequence[int],
        window: int,
        now: Round,
        among: Collection[int] | None = None,
    ) -> dict[int, Move]:
        """Return the moves of a group, or only those of some of its members."""
        means, size = now.means(window), len(group)
        ranked = sorted(group, key=means.__getitem__)
        first = portion(self.donors, size) if size > 1 else size
        last = size - portion(self.copies, size)
        donors = [w for w in ranked[:first] if math.isfinite(means[w])]
        taken = {(w, digest(now.reached[w].meta_params)) for w in donors}
        gap = self.z * now.noise * math.sqrt(2 / window)
        moves = {}
        for place, worker_id in enumerate(ranked[first:] if donors else (), first):
            if among is not None and worker_id not in among:
                continue
            copies = place >= last or worker_id in now.diverged
            for _ in range(_DRAWS):
                donor = donors[int(now.view.rng.integers(len(donors)))]
                source = donor if copies else worker_id
                meta_params = now.reached[donor].meta_params
                if copies:
                    meta_params = self._explore(now.view, meta_params)
                drawn = source, digest(meta_params)
                if drawn not in taken:
                    break
            if means[worker_id] - means[donor] < gap:
                continue
            taken.add(drawn)
            branch = None
            if copies or drawn[1] != digest(now.reached[worker_id].meta_params):
                verb = "copied" if copies else "adopted the hyperparameters of"
                best, own = now.sign * means[donor], now.sign * means[worker_id]
                branch = Branch(
                    now.view.graph.resume_point(now.reached[source]),
                    meta_params,
                    f"{verb} worker {donor}, whose value was {best:.6g}, not {own:.6g}",
                )
            moves[worker_id] = Move(donor, branch)
        return moves

    def _back(self, worker_id: int, now: Round) -> Move:
        """Return a branch to explore from the last checkpoint that did not diverge."""
        point = now.view.graph.resume_point(now.reached[worker_id])
        changed = self._explore(now.view, point.meta_params)
        return Move(worker_id, Branch(point, changed, "went back, having diverged"))
