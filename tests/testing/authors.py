"""Policies as authors would write them, from the documentation alone; all are right."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from population import Branch, Mutator, PopulationView, Ref, Report, Retire

Decisions = Mapping[int, Branch | Retire]


@dataclasses.dataclass(frozen=True)
class Generation:
    """The state of `Generational`.

    Attributes:
        number: How many generations are over.
        ends: The step at which each slot's present one ends.
    """

    number: int
    ends: list[int]


class Generational(Mutator[Generation]):
    """A genetic algorithm: whole generations are replaced by children of two parents.

    Workers wait for each other. Parents win tournaments of two. Each hyperparameter
    comes from one of them, the weights from the first. An elite stays.

    Args:
        mutate_fn: `mutate_fn(meta_params, rng=rng)`.
        steps: Training steps of a generation.
        elite: How many of the best are not replaced.
    """

    def __init__(self, mutate_fn: Any, steps: int, elite: int = 1) -> None:
        self.mutate_fn = mutate_fn
        self.steps = steps
        self.elite = elite

    def init(self, view: PopulationView) -> Generation:
        """The first generation begins where the slots are."""
        newest = [view.newest(w) for w in range(len(view.steps))]
        return Generation(0, [c.step + self.steps for c in newest])

    def update(
        self, state: Generation, report: Report, view: PopulationView
    ) -> tuple[Generation, Decisions]:
        """Replace the generation once the last live slot has arrived."""
        live = np.array(view.live, dtype=int)
        ends = np.array(state.ends)
        if not len(live) or (view.ready[live] < ends[live]).any():
            return state, {}
        points = {w: view.barrier(w, state.ends[w]) for w in live.tolist()}
        ranked = sorted(
            (view.score(c), w) for w, c in points.items() if c and not c.diverged
        )
        branches = {}
        for worker_id in points if ranked else ():
            if worker_id in [w for _, w in ranked[: self.elite]]:
                continue
            first, second = (
                view.newest(
                    min(ranked[i] for i in view.rng.integers(len(ranked), size=2))[1]
                )
                for _ in range(2)
            )
            child = {
                key: (first if view.rng.random() < 0.5 else second).meta_params[key]
                for key in first.meta_params
            }
            point = view.graph.resume_point(first)
            changed = self.mutate_fn(child, rng=view.rng)
            reason = f"child of {first.worker_id} and {second.worker_id}"
            branches[worker_id] = Branch(point, changed, reason)
        following = state.ends.copy()
        for worker_id, checkpoint in points.items():
            branch = branches.get(worker_id)
            start = branch.parent if branch else checkpoint
            following[worker_id] = (start.step if start else 0) + self.steps
        return Generation(state.number + 1, following), branches

    def wait_at(self, state: Generation, worker_id: int, view: PopulationView) -> int:
        """The end of the generation."""
        return state.ends[worker_id]


class Windowed(Mutator[list[Any]]):
    """A slot whose score is above the recent ones' median copies the best live one.

    The state is a window over the last scores, and the step of each slot's last look.

    Args:
        mutate_fn: `mutate_fn(meta_params, rng=rng)`.
        steps: Training steps between two looks.
        width: The number of scores in the window.
    """

    def __init__(self, mutate_fn: Any, steps: int, width: int = 40) -> None:
        self.mutate_fn = mutate_fn
        self.steps = steps
        self.width = width

    def init(self, view: PopulationView) -> list[Any]:
        """An empty window."""
        return [[], [view.newest(w).step for w in range(len(view.steps))]]

    def update(
        self, state: list[Any], report: Report, view: PopulationView
    ) -> tuple[list[Any], Decisions]:
        """Look at the slot that reports."""
        me, (window, looked) = report.worker_id, state
        score = float(view.scores[me])
        if me not in view.live or view.ready[me] < looked[me] + self.steps:
            return state, {}
        live = np.array(view.live)
        best = int(live[view.scores[live].argmin()])
        looks, scores = looked.copy(), window
        looks[me] = int(view.ready[me])
        if math.isfinite(score):
            scores = [*window, score][-self.width :]
        better = view.scores[best] < score and math.isfinite(view.scores[best])
        if best == me or not better or (window and score <= np.median(window)):
            return [scores, looks], {}
        point = view.graph.resume_point(view.newest(best))
        looks[me] = point.step
        changed = self.mutate_fn(point.meta_params, rng=view.rng)
        return [scores, looks], {me: Branch(point, changed, f"copied {best}")}


@dataclasses.dataclass(frozen=True)
class Peak:
    """The best place of a slot.

    Attributes:
        place: Its checkpoint.
        score: Its score; lower is better.
        patience: How many reports have been worse since then.
    """

    place: Ref
    score: float
    patience: int


@dataclasses.dataclass(frozen=True)
class Peaks:
    """The state of `Backtracking`.

    Attributes:
        slots: The best place of each slot.
    """

    slots: list[Peak]


class Backtracking(Mutator[Peaks]):
    """A slot that gets no better for some reports goes back to its best place.

    There it begins again with other hyperparameters. With `share`, it goes to the best
    place of any slot.

    Args:
        mutate_fn: `mutate_fn(meta_params, rng=rng)`.
        patience: So many worse reports are too many.
        share: Whether the place may be that of another slot.
    """

    def __init__(self, mutate_fn: Any, patience: int, share: bool = False) -> None:
        self.mutate_fn = mutate_fn
        self.patience = patience
        self.share = share

    def init(self, view: PopulationView) -> Peaks:
        """Each slot's best place is its first."""
        newest = [view.newest(w) for w in range(len(view.steps))]
        return Peaks([Peak(c.ref, math.inf, 0) for c in newest])

    def update(
        self, state: Peaks, report: Report, view: PopulationView
    ) -> tuple[Peaks, Decisions]:
        """Compare the report with the best one."""
        me, checkpoint = report.worker_id, report.checkpoint
        if me not in view.live or checkpoint.row != view.newest(me).row:
            return state, {}
        following, score = state.slots.copy(), view.score(checkpoint)
        peak = following[me]
        if checkpoint.value is None or checkpoint.step <= view.begins[me]:
            return state, {}
        if score < peak.score and checkpoint.params is not None:
            following[me] = Peak(checkpoint.ref, score, 0)
            return Peaks(following), {}
        following[me] = dataclasses.replace(peak, patience=peak.patience + 1)
        if following[me].patience < self.patience:
            return Peaks(following), {}
        if self.share:
            peak = min(state.slots, key=lambda other: other.score)
        following[me] = dataclasses.replace(peak, patience=0)
        point = view.graph.resume_point(view.graph.checkpoint(peak.place))
        changed = self.mutate_fn(point.meta_params, rng=view.rng)
        return Peaks(following), {me: Branch(point, changed, "back to the best place")}


class HallOfFame(Mutator[list[Any]]):
    """Keeps the best checkpoints of the run; the worst slot continues one of them.

    Args:
        mutate_fn: `mutate_fn(meta_params, rng=rng)`.
        steps: Training steps between two decisions.
        size: How many checkpoints are kept.
    """

    def __init__(self, mutate_fn: Any, steps: int, size: int = 5) -> None:
        self.mutate_fn = mutate_fn
        self.steps = steps
        self.size = size

    def init(self, view: PopulationView) -> list[Any]:
        """An empty hall, and the step of the last decision."""
        return [0, []]

    def update(
        self, state: list[Any], report: Report, view: PopulationView
    ) -> tuple[list[Any], Decisions]:
        """Admit the report, and decide once all live slots have trained enough."""
        last, hall = state
        checkpoint, score = report.checkpoint, view.score(report.checkpoint)
        known = [ref for _, ref in hall]
        fits = len(hall) < self.size or score < hall[-1][0]
        if math.isfinite(score) and checkpoint.params and checkpoint.ref not in known:
            if fits:
                hall = sorted([*hall, (score, checkpoint.ref)])[: self.size]
        state = [last, hall] if hall is not state[1] else state
        live = np.array(view.live, dtype=int)
        if not hall or not len(live) or view.ready[live].min() < last + self.steps:
            return state, {}
        worst = int(live[view.scores[live].argmax()])
        place = hall[int(view.rng.integers(len(hall)))][1]
        point = view.graph.resume_point(view.graph.checkpoint(place))
        changed = self.mutate_fn(point.meta_params, rng=view.rng)
        branch = Branch(point, changed, "from the hall of fame")
        return [int(view.ready[live].max()), hall], {worst: branch}


class Brackets(Mutator[dict[str, Any]]):
    """Successive halving that notes every score at every rung, and never forgets one.

    Its state is bounded by the number of workers times that of rungs.

    Args:
        rung: The step of the first rung; each is at twice the step of the last.
    """

    def __init__(self, rung: int) -> None:
        self.rung = rung

    def init(self, view: PopulationView) -> dict[str, Any]:
        """No rung has been reached."""
        return {}

    def update(
        self, state: dict[str, Any], report: Report, view: PopulationView
    ) -> tuple[dict[str, Any], Decisions]:
        """Compare the slot at a rung that it has not been compared at."""
        me, step = report.worker_id, int(view.ready[report.worker_id])
        if me not in view.live or step < self.rung:
            return state, {}
        rung = str(int(math.log2(step / self.rung)))
        scores = state.get(rung, {})
        if str(me) in scores:
            return state, {}
        score = float(view.scores[me])
        scores = {**scores, str(me): score}
        following = {**state, rung: scores}
        if score > sorted(scores.values())[(len(scores) - 1) // 2]:
            return following, {me: Retire(f"lost at rung {rung}")}
        return following, {}


class Restarts(Mutator[list[int]]):
    """From time to time the worst live slot begins with fresh params.

    Args:
        mutate_fn: `mutate_fn(meta_params, rng=rng)`.
        steps: Training steps between two restarts of a slot, or more.
    """

    def __init__(self, mutate_fn: Any, steps: int) -> None:
        self.mutate_fn = mutate_fn
        self.steps = steps

    def init(self, view: PopulationView) -> list[int]:
        """The reports of each slot since its last restart."""
        return [view.newest(w).step for w in range(len(view.steps))]

    def update(
        self, state: list[int], report: Report, view: PopulationView
    ) -> tuple[list[int], Decisions]:
        """Restart the slot that reports, if it is the worst."""
        me, live = report.worker_id, list(view.live)
        if me not in live or len(live) < 2 or view.ready[me] < state[me] + self.steps:
            return state, {}
        if me != live[int(view.scores[live].argmax())] or view.rng.random() < 0.5:
            following = state.copy()
            following[me] = int(view.ready[me])
            return following, {}
        following = state.copy()
        following[me] = 0
        fresh = self.mutate_fn(view.newest(me).meta_params, rng=view.rng)
        return following, {me: Branch(None, fresh, "restart")}
