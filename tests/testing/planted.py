"""Mutators with one likely mistake each, and the right ones from which they derive."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from population import (
    Branch,
    Checkpoint,
    Failure,
    Mutator,
    PopulationView,
    Ref,
    Report,
    Retire,
)
from population.testing.perturb import perturb

STEPS = 3
Decisions = Mapping[int, Branch | Retire]


def reversed_finite(order: list[int], view: PopulationView) -> list[int]:
    """The worst first, except those without a finite score."""
    finite = [w for w in order if math.isfinite(view.scores[w])]
    return finite[::-1] + order[len(finite) :]


class Halves(Mutator[Any]):
    """Once all live slots have trained three steps, the worse half copies the better.

    Each part that can be wrong is a separate method.
    """

    def init(self, view: PopulationView) -> Any:
        """The step at which the round began."""
        return 0

    def update(
        self, state: Any, report: Report, view: PopulationView
    ) -> tuple[Any, Decisions]:
        """Decide once the last one has arrived."""
        live = np.array(view.live, dtype=int)
        if not len(live) or view.ready[live].min() < state + STEPS:
            return state, {}
        return int(view.ready[live].max()), self.decide(view)

    def decide(self, view: PopulationView) -> Decisions:
        """The branches of a round."""
        order = self.order(view)
        half = len(order) // 2
        return {
            bad: self.branch(good, bad, view)
            for good, bad in zip(order[:half], order[::-1][:half], strict=True)
            if math.isfinite(view.scores[good])
        }

    def order(self, view: PopulationView) -> list[int]:
        """The live slots, the best first."""
        live = np.array(view.live, dtype=int)
        found: list[int] = live[np.argsort(view.scores[live], kind="stable")].tolist()
        return found

    def branch(self, good: int, bad: int, view: PopulationView) -> Branch:
        """A copy of the good one."""
        point = self.point(good, view)
        return Branch(point, self.explored(point.meta_params, view), "copy")

    def point(self, good: int, view: PopulationView) -> Checkpoint:
        """Where the copy continues."""
        return view.graph.resume_point(view.newest(good))

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """New hyperparameters."""
        return perturb(meta_params, rng=view.rng)


class WinnerTakesAll(Halves):
    """All others copy the best one."""

    def decide(self, view: PopulationView) -> Decisions:
        """The best stays as it is."""
        best, *others = self.order(view)
        if not math.isfinite(view.scores[best]):
            return {}
        return {w: self.branch(best, w, view) for w in others}


class WrongSign(Halves):
    """The better half copies the worse."""

    def order(self, view: PopulationView) -> list[int]:
        """The worst of the finite ones first."""
        return reversed_finite(super().order(view), view)


class WorstWins(WinnerTakesAll):
    """All copy the worst one, as if a greater score were better."""

    def order(self, view: PopulationView) -> list[int]:
        """The worst of the finite ones first."""
        return reversed_finite(super().order(view), view)


class AnyDonor(Halves):
    """The donor is drawn from all members."""

    def branch(self, good: int, bad: int, view: PopulationView) -> Branch:
        """A copy of a random one."""
        finite = [w for w in view.live if math.isfinite(view.scores[w])]
        return super().branch(int(view.rng.choice(finite)), bad, view)


class AllReplaced(WinnerTakesAll):
    """The best one copies the second, like all others."""

    def decide(self, view: PopulationView) -> Decisions:
        """No one is left out."""
        order = self.order(view)
        if len(order) < 2 or not math.isfinite(view.scores[order[1]]):
            return {}
        return {w: self.branch(order[1], w, view) for w in order}


class BestBeginsAnew(Halves):
    """The best one begins with fresh params."""

    def decide(self, view: PopulationView) -> Decisions:
        """It was meant to be the worst."""
        order = self.order(view)
        if not math.isfinite(view.scores[order[0]]):
            return {}
        best = order[0]
        fresh = self.explored(view.newest(best).meta_params, view)
        return {best: Branch(None, fresh, "fresh")}


class RetiresFromTheFront(Halves):
    """The best one is retired."""

    def decide(self, view: PopulationView) -> Decisions:
        """It was meant to be the worst."""
        order = self.order(view)
        if len(order) < 2 or not math.isfinite(view.scores[order[0]]):
            return {}
        return {order[0]: Retire("the worst")}


class FromTheRoundsStart(Mutator[list[Ref]]):
    """The worst copies the best one as it was when the round began."""

    def init(self, view: PopulationView) -> list[Ref]:
        """Where each slot's round began."""
        return [view.newest(w).ref for w in range(len(view.steps))]

    def update(
        self, state: list[Ref], report: Report, view: PopulationView
    ) -> tuple[list[Ref], Decisions]:
        """Decide once the last live one has arrived."""
        live = list(view.live)
        if not live or any(view.ready[w] < state[w].step + STEPS for w in live):
            return state, {}
        best = min(live, key=lambda w: (view.scores[w], w))
        worst = max(live, key=lambda w: (view.scores[w], w))
        following = self.init(view)
        if worst == best or not math.isfinite(view.scores[best]):
            return following, {}
        point = view.graph.resume_point(view.graph.checkpoint(state[best]))
        meta_params = perturb(point.meta_params, rng=view.rng)
        return following, {worst: Branch(point, meta_params, "copy")}


class FromTheRoot(Halves):
    """A copy begins where the donor's generation began."""

    def point(self, good: int, view: PopulationView) -> Checkpoint:
        """Its first checkpoint, not its newest."""
        return view.graph.root(view.newest(good).generation_id)


class GoesBackByItself(Halves):
    """Members explore from the beginning of their own generation."""

    def branch(self, good: int, bad: int, view: PopulationView) -> Branch:
        """What it has trained since is lost."""
        own = view.graph.root(view.newest(bad).generation_id)
        return Branch(own, self.explored(own.meta_params, view), "explored")


class AllSlots(Halves):
    """Compares all slots, also those that are not live."""

    def order(self, view: PopulationView) -> list[int]:
        """By the scores of all."""
        found: list[int] = np.argsort(view.scores, kind="stable").tolist()
        return found


class AllSlotsCopy(WinnerTakesAll):
    """All slots copy the best live one, also those that are not live."""

    def decide(self, view: PopulationView) -> Decisions:
        """It takes the range of all."""
        best = self.order(view)[0]
        if not math.isfinite(view.scores[best]):
            return {}
        others = (w for w in range(len(view.scores)) if w != best)
        return {w: self.branch(best, w, view) for w in others}


class Places(Halves):
    """Takes places in `view.live` for worker ids, of donors and of copies."""

    def order(self, view: PopulationView) -> list[int]:
        """Places, not ids."""
        found: list[int] = np.argsort(view.scores[list(view.live)]).tolist()
        return found


class PlaceOfTheCopy(Halves):
    """Only the slot that is replaced is named by its place."""

    def decide(self, view: PopulationView) -> Decisions:
        """The worst copies the best."""
        live = list(view.live)
        scores = view.scores[live]
        best, worst = live[int(scores.argmin())], int(scores.argmax())
        if worst == best or not math.isfinite(view.scores[best]):
            return {}
        return {worst: self.branch(best, worst, view)}


class PlaceOfTheDonor(Halves):
    """Only the donor is named by its place."""

    def decide(self, view: PopulationView) -> Decisions:
        """The worst copies the best."""
        live = list(view.live)
        scores = view.scores[live]
        best, worst = int(scores.argmin()), live[int(scores.argmax())]
        if worst == best or not math.isfinite(scores.min()):
            return {}
        return {worst: self.branch(best, worst, view)}


class LosesText(Halves):
    """Keeps only what is not text."""

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """Without the name of the optimizer."""
        changed = super().explored(meta_params, view)
        return {k: v for k, v in changed.items() if not isinstance(v, str)}


class LosesNested(Halves):
    """Writes a part anew, with one of its two entries."""

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """Without the betas."""
        rate = super().explored(meta_params, view)["optimizer"]["learning_rate"]
        return {**meta_params, "optimizer": {"learning_rate": rate}}


class LosesAll(Halves):
    """Changes the floats at the top, of which there are none."""

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """An empty dict."""
        moved = 1 + 0.1 * float(view.rng.normal())
        return {k: v * moved for k, v in meta_params.items() if isinstance(v, float)}


class ReturnsNothing(Halves):
    """Its explore function returns None."""

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """It was meant to change a copy in place."""
        perturb(meta_params, rng=view.rng)


class OneDraw(WinnerTakesAll):
    """All losers get the same hyperparameters."""

    def decide(self, view: PopulationView) -> Decisions:
        """They are drawn before the loop."""
        branches = super().decide(view)
        first = next(iter(branches.values()), None)
        return {w: b for w in branches if isinstance(b := first, Branch)}


class OneFactor(Halves):
    """Different donors' learning rates are all changed by the same factor."""

    def decide(self, view: PopulationView) -> Decisions:
        """It is drawn before the loop."""
        factor = float(view.rng.uniform(0.8, 1.2))
        branches = {}
        for worker_id, branch in super().decide(view).items():
            if isinstance(branch, Branch) and branch.parent is not None:
                old = branch.parent.meta_params
                rate = old["optimizer"]["learning_rate"] * factor
                new = {**old, "optimizer": {**old["optimizer"], "learning_rate": rate}}
                branches[worker_id] = Branch(branch.parent, new)
        return branches


class OneSeed(WinnerTakesAll):
    """Each draw comes from a new generator with the same seed."""

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """It does not use the view's."""
        return perturb(meta_params, rng=np.random.default_rng(0))


class OneSeedInTurn(Mutator[int]):
    """A member that reports copies the best one; each draw has the same seed."""

    def init(self, view: PopulationView) -> int:
        """It has no state to speak of."""
        return 0

    def update(
        self, state: int, report: Report, view: PopulationView
    ) -> tuple[int, Decisions]:
        """Decide every three steps, for one at a time."""
        me, live = report.worker_id, list(view.live)
        best = min(live, key=lambda w: (view.scores[w], w), default=me)
        if me not in live or me == best or not math.isfinite(view.scores[best]):
            return state, {}
        if view.ready[me] < view.begins[me] + STEPS:
            return state, {}
        point = view.graph.resume_point(view.newest(best))
        meta_params = perturb(point.meta_params, rng=np.random.default_rng(7))
        return state, {me: Branch(point, meta_params)}


class OneKeyOfJax(WinnerTakesAll):
    """Each draw comes from a key of the same seed."""

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """One of the hyperparameters is changed."""
        key = jax.random.key(0)
        factor = float(jax.random.uniform(key, minval=0.8, maxval=1.2))
        return with_rate(meta_params, rate_of(meta_params) * factor)


class OneStateOfNumpy(WinnerTakesAll):
    """Each draw comes from an old generator of NumPy with the same seed."""

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """One of the hyperparameters is changed."""
        factor = np.random.RandomState(0).uniform(0.8, 1.2)
        return with_rate(meta_params, rate_of(meta_params) * float(factor))


class OneGeneratorOfPython(WinnerTakesAll):
    """Each draw comes from a generator of Python with the same seed."""

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """One of the hyperparameters is changed."""
        factor = random.Random(0).uniform(0.8, 1.2)
        return with_rate(meta_params, rate_of(meta_params) * factor)


class OneFactorClipped(WinnerTakesAll):
    """One factor for all, whose rates are kept within limits then."""

    def decide(self, view: PopulationView) -> Decisions:
        """Each keeps its own hyperparameters but for the rate."""
        best, *others = self.order(view)
        if not math.isfinite(view.scores[best]):
            return {}
        factor, found = float(view.rng.uniform(0.5, 2)), {}
        for worker_id in others:
            own = view.newest(worker_id).meta_params
            rate = min(max(rate_of(own) * factor, 0.02), 0.5)
            point = self.point(best, view)
            found[worker_id] = Branch(point, with_rate(own, rate))
        return found


def rate_of(meta_params: Any) -> float:
    """The learning rate."""
    return float(meta_params["optimizer"]["learning_rate"])


def with_rate(meta_params: Any, rate: float) -> Any:
    """The same with another learning rate."""
    optimizer = {**meta_params["optimizer"], "learning_rate": rate}
    return {**meta_params, "optimizer": optimizer}


class EachThirdRound(WinnerTakesAll):
    """Right in two rounds, and wrong in the third."""

    def init(self, view: PopulationView) -> Any:
        """The step, and the number of the round."""
        return [0, 0]

    def update(self, state: Any, report: Report, view: PopulationView) -> Any:
        """Decide in another way in the third round."""
        begin, branches = super().update(state[0], report, view)
        if begin is state[0]:
            return state, {}
        number = (state[1] + 1) % 3
        return [begin, number], branches if number else self.wrong(view)

    def wrong(self, view: PopulationView) -> Decisions:
        """All copy the worst."""
        order = reversed_finite(self.order(view), view)
        if not math.isfinite(view.scores[order[0]]):
            return {}
        return {w: self.branch(order[0], w, view) for w in order[1:]}


class EachThirdRoundTheSecond(EachThirdRound):
    """All, the best one too, copy the second in the third round."""

    def wrong(self, view: PopulationView) -> Decisions:
        """The best one is overwritten."""
        return AllReplaced.decide(self, view)  # type: ignore[arg-type]


class OwnGenerators(Halves):
    """Right: each draw has a generator of its own, seeded by the slot and the step."""

    def branch(self, good: int, bad: int, view: PopulationView) -> Branch:
        """A copy of the good one."""
        point = self.point(good, view)
        rng = np.random.default_rng([7, bad, point.step])
        return Branch(point, perturb(point.meta_params, rng=rng))


class FixedNumbers(Halves):
    """Right: fixed numbers decide who of equal ones is first."""

    def order(self, view: PopulationView) -> list[int]:
        """By the score, then by these."""
        fixed = np.random.default_rng(0).normal(size=1000)
        live = np.array(view.live, dtype=int)
        found: list[int] = live[np.lexsort((fixed[live], view.scores[live]))].tolist()
        return found


class Ratio(Halves):
    """A member copies one that is at most 0.95 of its score, whatever the signs."""

    def decide(self, view: PopulationView) -> Decisions:
        """The first of those."""
        finite = [w for w in view.live if math.isfinite(view.scores[w])]
        found = {}
        for bad in finite:
            better = [w for w in finite if view.scores[w] < 0.95 * view.scores[bad]]
            if better and better[0] != bad:
                found[bad] = self.branch(better[0], bad, view)
        return found


class NearestToZero(Halves):
    """The score nearest to zero counts as the best."""

    def order(self, view: PopulationView) -> list[int]:
        """By the absolute score."""
        return sorted(view.live, key=lambda w: abs(view.scores[w]))


class ZeroIsNothing(Halves):
    """A score of zero counts as none."""

    def order(self, view: PopulationView) -> list[int]:
        """With inf for it."""
        return sorted(view.live, key=lambda w: view.scores[w] or math.inf)


class DivergedIsZero(Halves):
    """One that has diverged counts as zero, and copies of it begin before that."""

    def decide(self, view: PopulationView) -> Decisions:
        """Whatever the score of the donor is."""
        order = self.order(view)
        half = len(order) // 2
        pairs = zip(order[:half], order[::-1][:half], strict=True)
        return {bad: self.branch(good, bad, view) for good, bad in pairs}

    def order(self, view: PopulationView) -> list[int]:
        """By the score, or zero."""
        scores = np.nan_to_num(view.scores, posinf=0.0)
        return sorted(view.live, key=lambda w: (scores[w], w))


class PlacesOfTheFinite(Halves):
    """Takes a place in the list of the finite scores for a worker id."""

    def order(self, view: PopulationView) -> list[int]:
        """Right as long as all are live and finite."""
        live = np.array(view.live, dtype=int)
        scores = view.scores[live]
        found: list[int] = np.argsort(scores[np.isfinite(scores)]).tolist()
        return found


class BackWhenBetter(Mutator[list[Ref]]):
    """A slot goes back to its mark if it is better by now, not if it is worse."""

    def init(self, view: PopulationView) -> list[Ref]:
        """The marks."""
        newest = [view.newest(w) for w in range(len(view.steps))]
        return [view.graph.resume_point(checkpoint).ref for checkpoint in newest]

    def update(
        self, state: list[Ref], report: Report, view: PopulationView
    ) -> tuple[list[Ref], Decisions]:
        """Decide every three steps."""
        me = report.worker_id
        here = view.barrier(me, state[me].step + STEPS)
        if here is None or me not in view.live:
            return state, {}
        mark = view.graph.checkpoint(state[me])
        if view.score(here) < view.score(mark):
            changed = perturb(mark.meta_params, rng=view.rng)
            return state, {me: Branch(mark, changed)}
        place = view.graph.resume_point(here).ref
        if place == state[me]:
            return state, {}
        return [*state[:me], place, *state[me + 1 :]], {}


class EmptiesList(Halves):
    """A list of hyperparameters comes out empty."""

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """The layers are gone."""
        return {**super().explored(meta_params, view), "layers": []}


class ShortensTuple(Halves):
    """A pair of hyperparameters loses one."""

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """One beta is gone."""
        found = super().explored(meta_params, view)
        betas = found["optimizer"]["betas"][:1]
        return {**found, "optimizer": {**found["optimizer"], "betas": betas}}


class Flattens(Halves):
    """The names of nested hyperparameters come out joined."""

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """The branch has no `optimizer` any more."""
        found = dict(super().explored(meta_params, view))
        inner = found.pop("optimizer", {})
        return found | {f"optimizer/{name}": value for name, value in inner.items()}


class DropsFalse(Halves):
    """What is zero or False is left out."""

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """As in `if value`."""
        found = super().explored(meta_params, view)
        return {name: value for name, value in found.items() if value}


class NaNForRate(Halves):
    """A rate of NaN, as from the logarithm of a negative number."""

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """It cannot be trained with."""
        return with_rate(super().explored(meta_params, view), math.nan)


class FirstIsPart(Halves):
    """What a slot begins with is only a part."""

    def first(self, worker_id: int, step: int, meta_params: Any) -> Any:
        """The rate alone, from step 1 on."""
        if step == 0:
            return meta_params
        return {"optimizer": {"learning_rate": rate_of(meta_params)}}


class OneText(WinnerTakesAll):
    """One optimiser is drawn for all, though each has a rate of its own."""

    def decide(self, view: PopulationView) -> Decisions:
        """The name is drawn before the loop."""
        self._name = str(view.rng.choice(["adam", "sgd", "lion"]))
        return super().decide(view)

    def explored(self, meta_params: Any, view: PopulationView) -> Any:
        """A rate of its own, and the same name."""
        return {**super().explored(meta_params, view), "name": self._name}


class OneChildOfEachDonor(Halves):
    """All copies of a donor get the same child."""

    def decide(self, view: PopulationView) -> Decisions:
        """Two donors; the others copy them in turn."""
        order = self.order(view)
        finite = [w for w in order if math.isfinite(view.scores[w])][:2]
        children = {
            w: self.explored(self.point(w, view).meta_params, view) for w in finite
        }
        found = {}
        for place, bad in enumerate(order[2:] if len(finite) == 2 else ()):
            good = finite[place % 2]
            found[bad] = Branch(self.point(good, view), children[good])
        return found


class WaitsAndLooks(Halves):
    """`wait_at` reads the whole history each time."""

    def wait_at(self, state: Any, worker_id: int, view: PopulationView) -> int | None:
        """It never lets anybody wait."""
        return None if sum(1 for _ in view.graph.history()) else 0


class KeepsRecords(Halves):
    """Keeps each checkpoint that was the best so far, without an end."""

    def init(self, view: PopulationView) -> Any:
        """The step, and the records."""
        return [0, []]

    def update(self, state: Any, report: Report, view: PopulationView) -> Any:
        """With one more, if it is one."""
        begin, branches = super().update(state[0], report, view)
        best = view.graph.best()
        records = state[1]
        if best is not None and best.ref not in records:
            records = [*records, best.ref]
        elif begin is state[0]:
            return state, {}
        return [begin, records], branches


class CountsFailures(Halves):
    """Keeps all failures."""

    def init(self, view: PopulationView) -> Any:
        """The step, and the failures."""
        return [0, []]

    def update(self, state: Any, report: Report, view: PopulationView) -> Any:
        """Only the first part changes."""
        begin, branches = super().update(state[0], report, view)
        return (state, {}) if begin is state[0] else ([begin, state[1]], branches)

    def failed(self, state: Any, failure: Failure, view: PopulationView) -> Any:
        """With one more."""
        return [state[0], [*state[1], failure.reason]], {}


class IdsForPlaces(Halves):
    """Reads the scores at the places of the live slots, as if all were live."""

    def order(self, view: PopulationView) -> list[int]:
        """The first scores, which are not theirs."""
        live = np.array(view.live, dtype=int)
        found: list[int] = live[np.argsort(view.scores[: len(live)])].tolist()
        return found


class WritesScores(Halves):
    """Keeps the last thirty scores of each worker, and so writes all at a report."""

    def init(self, view: PopulationView) -> Any:
        """The step, and the scores."""
        return [0, [[] for _ in view.scores]]

    def update(self, state: Any, report: Report, view: PopulationView) -> Any:
        """With one more."""
        start, branches = super().update(state[0], report, view)
        scores = list(state[1])
        mine = [*scores[report.worker_id], view.score(report.checkpoint) / 3]
        scores[report.worker_id] = mine[-30:]
        return [start, scores], branches


class WritesTable(Halves):
    """Keeps a large table in its state, and changes one entry at a time."""

    def init(self, view: PopulationView) -> Any:
        """The step, and the table."""
        return [0, [0] * 5_000]

    def update(self, state: Any, report: Report, view: PopulationView) -> Any:
        """With one more step."""
        start, branches = super().update(state[0], report, view)
        return [start, [*state[1][1:], report.checkpoint.step]], branches


class SortsHistory(Halves):
    """Collects all scores in an array, and sorts it at every report."""

    def __init__(self) -> None:
        self._scores = np.zeros(0)

    def update(self, state: Any, report: Report, view: PopulationView) -> Any:
        """A restart would lose it, too."""
        self._scores = np.append(self._scores, view.score(report.checkpoint))
        np.sort(self._scores)
        return super().update(state, report, view)


class CopiesTable(Halves):
    """Copies a large array at every report."""

    def __init__(self) -> None:
        self._table = np.zeros(10**6)

    def update(self, state: Any, report: Report, view: PopulationView) -> Any:
        """And sorts it in place."""
        self._table.copy().sort()
        return super().update(state, report, view)


class ComparesPairs(Halves):
    """Compares all pairs of workers in an array at every report."""

    def update(self, state: Any, report: Report, view: PopulationView) -> Any:
        """With as many entries as there are pairs."""
        (view.scores[:, None] < view.scores[None, :]).astype(float).sum()
        return super().update(state, report, view)


class SortsInPlace(Halves):
    """Sorts an array that it has at every report, without a copy."""

    def __init__(self) -> None:
        self._table = np.zeros(600_000)

    def update(self, state: Any, report: Report, view: PopulationView) -> Any:
        """No memory is allocated."""
        self._table.sort()
        return super().update(state, report, view)


class FirstOfASet(Halves):
    """Takes what comes first in a set of generation ids."""

    def order(self, view: PopulationView) -> list[int]:
        """One of the best two is the donor."""
        order = super().order(view)
        ids = {view.newest(w).generation_id: w for w in order[:2]}
        first = (
            ids[next(iter(set(ids)))] if math.isfinite(view.scores[order[0]]) else -1
        )
        return sorted(order, key=lambda w: w != first) if len(order) > 3 else order
