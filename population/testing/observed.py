"""Wraps a mutator to record its decisions, each with what was known at that time."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from population.base import codec
from population.base.interfaces import Mutator, PopulationView
from population.base.types import Branch, Checkpoint, Failure, Ref, Report, Retire
from population.core.named_refs import refs_of
from population.testing import noise
from population.testing.runner import Case, ScriptRunner
from population.testing.watched import SameNumbers
from population.testing.wrapped import Decided, WrappedMutator

_RESEEDED = 3  # So many decisions are repeated with other seeds, at least.
_TIE = 0.02  # A smaller difference of means is none.
_LONGEST = 10  # Reports whose mean a policy may compare.
_REDRAWS = 12  # So often a decision is repeated with other random numbers.


class Move(NamedTuple):
    """A branch or a retirement of a slot.

    Attributes:
        worker_id: The slot.
        decision: The decision.
        own: The slot's newest checkpoint before.
        point: The checkpoint from which it continues; None: fresh params, or retired.
        usable: The newest checkpoint that the donor could continue from, or None.
        score: The score of the donor there; inf for none.
        is_own: Whether the slot continues on its own lineage.
        is_named: Whether the mutator's state names the checkpoint.
    """

    worker_id: int
    decision: Branch | Retire
    own: Checkpoint
    point: Checkpoint | None
    usable: Checkpoint | None
    score: float
    is_own: bool
    is_named: bool

    @property
    def meta_params(self) -> Any:
        """The new hyperparameters; None: the slot was retired."""
        return self.decision.meta_params if isinstance(self.decision, Branch) else None

    @property
    def donor(self) -> int:
        """The worker id of the donor; -1: none."""
        return -1 if self.point is None else self.point.worker_id

    @property
    def is_copy(self) -> bool:
        """Whether the slot continues from another member."""
        return self.point is not None and not self.is_own

    @property
    def replaces(self) -> bool:
        """Whether what the slot had trained is given up for something else."""
        return isinstance(self.decision, Branch) and not self.is_own


class Observation(NamedTuple):
    """What one call of the mutator decided.

    Attributes:
        position: The index of the event.
        live: `view.live`.
        scores: `view.scores`.
        steps: `view.steps`.
        present: The hyperparameters of all slots before, encoded.
        moves: The decisions, in the order of worker ids.
        failing: The slot that has failed, if this was a call of `failed`; else -1.
        given_up: The slots that are given up; others that are not live are retired.
        others: Further scores of all slots by which a policy may compare them: means of
            the last reports, the best of them, and those at a step that all have
            reached.
        redrawn: The same decisions with other random numbers.
        reseeded: The same with other seeds of generators that the mutator makes.
    """

    position: int
    live: tuple[int, ...]
    scores: tuple[float, ...]
    steps: tuple[int, ...]
    present: frozenset[str]
    moves: tuple[Move, ...]
    failing: int = -1
    given_up: frozenset[int] = frozenset()
    others: Sequence[Sequence[float]] = ()
    redrawn: Sequence[tuple[Move, ...]] = ()
    reseeded: tuple[Move, ...] = ()

    def rank(self, score: float, margin: float) -> int:
        """Count the live members that are clearly better than a score."""
        return sum(self.scores[w] < score - margin for w in self.live)

    def is_better(self, one: int, two: int, margin: float) -> bool:
        """Whether a slot is clearly better than another one, however one compares."""
        if not self.scores[one] < self.scores[two] - margin:
            return False
        return all(scores[one] < scores[two] - _TIE for scores in self.others)

    def best(self, margin: float) -> int | None:
        """Return the live member that is clearly better than all others, or None."""
        if len(self.live) < 2:
            return None
        best = min(self.live, key=lambda w: (self.scores[w], w))
        others = [w for w in self.live if w != best]
        if not math.isfinite(min(self.scores[w] for w in others)):
            return None
        clear = all(self.is_better(best, w, margin) for w in others)
        return best if clear else None

    def is_clear(self, margin: float) -> bool:
        """Whether a live slot is clearly better than another one."""
        pairs = itertools.permutations(self.live, 2)
        return any(self.is_better(one, two, margin) for one, two in pairs)


class Observations(list[Observation]):
    """The decisions of a run, in order.

    Attributes:
        run: The run.
        live: The slots that were live at the last call of the mutator.
        steps: The newest step of each slot then.
        firsts: Position, worker id, step, argument and result of calls of `first`.
    """

    run: ScriptRunner
    live: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.firsts: list[tuple[int, int, int, Any, Any]] = []


class ObservedMutator(WrappedMutator):
    """Calls another mutator, and records what it decides.

    Args:
        mutator: The other mutator. It is asked again with other random numbers; so it
            must not be one that watches what it is asked.
        found: Where the decisions are recorded.
        similar: Whether a call that gives several slots the same change is repeated
            with other random numbers.
        watcher: A mutator that returns what the other one returns, and is shown each
            report and failure in its place; None: there is none.
    """

    def __init__(
        self,
        mutator: Mutator[Any],
        found: Observations,
        similar: Callable[[Observation], bool],
        watcher: Mutator[Any] | None = None,
    ) -> None:
        super().__init__(mutator if watcher is None else watcher)
        self._bare = mutator
        self._found = found
        self._similar = similar

    def update(self, state: Any, report: Report, view: PopulationView) -> Decided:
        """Return the other mutator's decision."""
        spare = copy.deepcopy(view.rng)
        decided = self._mutator.update(state, report, view)
        self._observe(self._bare.update, state, report, view, spare, decided[1])
        return decided

    def failed(self, state: Any, failure: Failure, view: PopulationView) -> Decided:
        """Return the other mutator's decision."""
        spare = copy.deepcopy(view.rng)
        decided = self._mutator.failed(state, failure, view)
        self._observe(self._bare.failed, state, failure, view, spare, decided[1])
        return decided

    def first(self, worker_id: int, step: int, meta_params: Any) -> Any:
        """Return the other mutator's `first`."""
        given = copy.deepcopy(meta_params)
        first = self._mutator.first(worker_id, step, meta_params)
        position = max(self._found.run.position, 0)
        self._found.firsts.append((position, worker_id, step, given, first))
        return first

    def _observe(
        self,
        decide: Callable[[Any, Any, PopulationView], Decided],
        state: Any,
        shown: Report | Failure,
        view: PopulationView,
        spare: np.random.Generator,
        branches: Mapping[int, Branch | Retire],
    ) -> None:
        """Record what was decided, and what would be with other random numbers."""
        found = self._found
        found.live, found.steps = tuple(view.live), tuple(view.steps.tolist())
        if not branches or not all(0 <= w < len(view.steps) for w in branches):
            return
        seen = _observation(found.run.position, state, branches, view)
        seen = seen._replace(given_up=frozenset(found.run.given_up))
        if isinstance(shown, Failure):
            seen = seen._replace(failing=shown.worker_id)
        is_similar = self._similar(seen)
        if is_similar or len(found) < _RESEEDED:
            with noise.other_seeds(self._bare):
                _, reseeded = decide(state, shown, SameNumbers.of(view, spare))
            seen = seen._replace(reseeded=_moves(state, reseeded, view))
        if is_similar:
            redrawn = []
            for seed in range(_REDRAWS):
                other = SameNumbers.of(view, np.random.default_rng([seed, 500]))
                redrawn.append(_moves(state, decide(state, shown, other)[1], view))
            seen = seen._replace(redrawn=redrawn)
        found.append(seen)


def observe(case: Case, similar: Callable[[Observation], bool]) -> Observations:
    """Play a case in which workers wait as they should, and return the decisions."""
    found = Observations()
    found.run = ScriptRunner(
        case, make=lambda: ObservedMutator(case.make(), found, similar), patient=True
    )
    found.run.run()
    return found


def _observation(
    position: int,
    state: Any,
    branches: Mapping[int, Branch | Retire],
    view: PopulationView,
) -> Observation:
    slots = range(len(view.steps))
    return Observation(
        position,
        tuple(view.live),
        tuple(view.scores.tolist()),
        tuple(view.steps.tolist()),
        frozenset(codec.digest(view.newest(w).meta_params) for w in slots),
        _moves(state, branches, view),
        others=_other_scores(view),
    )


def _other_scores(view: PopulationView) -> list[list[float]]:
    last = view.last(_LONGEST)
    last = np.where(np.isnan(last), view.scores[:, None], last)
    found = [last[:, -k:].mean(axis=1) for k in range(2, _LONGEST + 1)]
    live = list(view.live)
    common = view.as_of(int(view.steps[live].min()))[1] if live else view.scores
    return [scores.tolist() for scores in (*found, last.min(axis=1), common)]


def _moves(
    state: Any, branches: Mapping[int, Branch | Retire], view: PopulationView
) -> tuple[Move, ...]:
    named = set(refs_of(state))
    return tuple(_move(int(w), branches[w], named, view) for w in sorted(branches))


def _move(
    worker_id: int, decision: Branch | Retire, named: set[Ref], view: PopulationView
) -> Move:
    own = view.newest(worker_id)
    if isinstance(decision, Retire) or decision.parent is None:
        return Move(worker_id, decision, own, None, None, math.inf, False, False)
    graph, point = view.graph, view.graph.resume_point(decision.parent)
    valued, is_own = graph.newest_value(point), _is_on_lineage(point, own, view)
    return Move(
        worker_id,
        decision,
        own,
        point,
        graph.resume_point(own if is_own else view.newest(point.worker_id)),
        math.inf if valued is None else view.score(valued),
        is_own,
        bool(named & {point.ref, decision.parent.ref}),
    )


def _is_on_lineage(point: Checkpoint, newest: Checkpoint, view: PopulationView) -> bool:
    """Whether a checkpoint is another one's ancestor, or that one itself."""
    if point.worker_id == newest.worker_id:
        return True  # Of its own earlier generation: it goes back.
    return any(c.row == point.row for c in view.graph.walk(newest))
