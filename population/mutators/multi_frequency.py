"""Sub-populations that evolve at different frequencies and exchange members.

Frequent selection is greedy: it favours what helps now. So some sub-populations decide
rarely, and migration is asymmetric: weights migrate to every sub-population, but the
hyperparameters of a faster one do not enter a slower one. Multiple-Frequencies PBT
(Doulazmi et al. 2025, https://arxiv.org/abs/2506.03225).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from population.base.interfaces import Mutator, PopulationView
from population.base.types import Branch, Checkpoint, Report
from population.mutators.explore import Explore, MutateFn
from population.mutators.rounds import Latecomer, check_steps, starts, starts_after


@dataclasses.dataclass(frozen=True)
class Rounds:
    """The state: how many rounds are over, and where the current ones began.

    Attributes:
        number: The number of rounds that have been decided.
        since: The step at which each slot's current round began, by worker id.
    """

    number: int
    since: list[int]


class Member(NamedTuple):
    """A live slot at its barrier.

    Attributes:
        group: Its sub-population.
        score: Lower is better; inf if it has diverged.
        checkpoint: Its checkpoint at the barrier.
    """

    group: int
    score: float
    checkpoint: Checkpoint

    @property
    def worker_id(self) -> int:
        """The slot."""
        return self.checkpoint.worker_id

    @property
    def is_finite(self) -> bool:
        """Whether it has not diverged."""
        return math.isfinite(self.score)


class MultiFrequencyPBT(Mutator[Rounds]):
    """PBT in sub-populations, of which the i-th evolves every `frequencies[i]` rounds.

    Worker w belongs to sub-population `w // (N / len(frequencies))`. A sub-population
    that evolves is ranked in quarters: winners, survivors, open members and losers.
    Winners and survivors continue unchanged. The k-th loser becomes a mutated copy of
    the k-th winner. Open members copy the best members of the other sub-populations,
    each at most once, where those are better. Such a migrant is not mutated: it keeps
    its hyperparameters if it comes from a slower sub-population, else it gets those of
    the best member of the sub-population that it enters. Workers wait for each other at
    the end of a round. A member that has diverged by then goes back and explores,
    whether or not its sub-population evolves.

    Args:
        mutate_fn: `mutate_fn(meta_params)`; with further parameters `rng` and `context`
            it gets the random generator and a `MutationContext`.
        steps_per_exploit: Training steps of a round.
        frequencies: Rounds between two decisions of each sub-population, ascending.

    Raises:
        ValueError: The frequencies are not ascending positive ints that begin with 1,
            or the size of the population is not a multiple of four times their number.
        TypeError: `mutate_fn` is not callable, or the frequencies are not a sequence.
    """

    def __init__(
        self,
        mutate_fn: MutateFn,
        steps_per_exploit: int,
        frequencies: Sequence[int] = (1, 10, 25, 50),
    ) -> None:
        self._explore = Explore(mutate_fn)
        self._latecomer = Latecomer()
        self.mutate_fn = mutate_fn
        self.steps_per_exploit = check_steps(steps_per_exploit)
        if not isinstance(frequencies, Sequence):
            raise TypeError(
                "frequencies must be a list of ints, say (1, 10, 25, 50), got "
                f"{frequencies!r}."
            )
        self.frequencies = [check_steps(f, "a frequency") for f in frequencies]
        ascending = all(a < b for a, b in itertools.pairwise(self.frequencies))
        if self.frequencies[:1] != [1] or not ascending:
            raise ValueError(
                "frequencies must ascend from 1, say (1, 10, 25, 50), got "
                f"{self.frequencies}."
            )

    def init(self, view: PopulationView) -> Rounds:
        """Begin the first round at each slot's newest checkpoint."""
        size, groups = len(view.steps), len(self.frequencies)
        if size % (4 * groups):
            raise ValueError(
                f"{groups} sub-populations in quarters need a multiple of {4 * groups} "
                f"workers, got {size}. Pass other frequencies, or more workers."
            )
        return Rounds(0, starts(view))

    def update(
        self, state: Rounds, report: Report, view: PopulationView
    ) -> tuple[Rounds, Mapping[int, Branch]]:
        """Evolve the sub-populations that are due, once the last slot has arrived."""
        del report
        reached = self._latecomer.reached(state, view, lambda w: self._end(state, w))
        if not reached:
            return state, {}
        size = len(view.steps) // len(self.frequencies)
        members = [
            Member(w // size, view.score(c), c) for w, c in sorted(reached.items())
        ]
        branches: dict[int, Branch] = {}
        for group, frequency in enumerate(self.frequencies):
            if (state.number + 1) % frequency == 0:
                branches |= self._evolved(group, members, view)
        for member in members:
            if not member.is_finite and member.worker_id not in branches:
                back = self._explore.back(view, member.worker_id, member.checkpoint)
                branches[member.worker_id] = back
        since = starts_after(state.since, reached, branches, view)
        return Rounds(state.number + 1, since), branches

    def wait_at(
        self, state: Rounds, worker_id: int, view: PopulationView
    ) -> int | None:
        """Return the end of the slot's round."""
        del view
        return self._end(state, worker_id)

    def _end(self, state: Rounds, worker_id: int) -> int:
        return state.since[worker_id] + self.steps_per_exploit

    def _evolved(
        self, group: int, members: Sequence[Member], view: PopulationView
    ) -> dict[int, Branch]:
        """Return the branches of one sub-population."""
        by_score = operator.attrgetter("score")
        home = sorted((m for m in members if m.group == group), key=by_score)
        abroad = sorted((m for m in members if m.group != group), key=by_score)
        fit = [m for m in abroad if m.is_finite]
        winners, _, open_members, losers = _quarters(home)
        donors = [m for m in winners if m.is_finite]
        branches: dict[int, Branch] = {}
        for k, loser in enumerate(losers if donors else ()):
            winner = donors[k % len(donors)]
            reason = f"lost to worker {winner.worker_id}"
            branches[loser.worker_id] = self._explore.copy(
                view, loser.worker_id, winner.checkpoint, reason
            )
        for member in open_members:
            if fit and fit[0].score < member.score:
                migrant = fit.pop(0)
                branches[member.worker_id] = _migration(migrant, home[0], view)
        return branches


def _migration(migrant: Member, best: Member, view: PopulationView) -> Branch:
    """Return a branch to the migrant, with its meta_params if its group is slower."""
    slower = migrant.group > best.group
    origin = migrant if slower or not best.is_finite else best
    return Branch(
        view.graph.resume_point(migrant.checkpoint),
        origin.checkpoint.meta_params,
        f"taken over by worker {migrant.worker_id} of "
        f"{'a slower' if slower else 'a faster'} sub-population, with the "
        f"hyperparameters of worker {origin.worker_id}",
    )


def _quarters(ranked: Sequence[Member]) -> list[Sequence[Member]]:
    """Split a group into winners, survivors, open members and losers.

    If slots that were given up leave a number that four does not divide, survivors and
    open members are the fewer.
    """
    size = -(-len(ranked) // 4)
    first, last = min(size, len(ranked) // 2), max(len(ranked) - size, len(ranked) // 2)
    middle = (first + last + 1) // 2
    ends = [0, first, middle, last, len(ranked)]
    return [ranked[a:b] for a, b in itertools.pairwise(ends)]
