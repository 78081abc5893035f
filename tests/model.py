"""The protocol of `docs/concepts.md` in memory: small, slow and obvious.

It has no journal, no cache and no index: each question scans everything.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from population import (
    Branch,
    Checkpoint,
    Mutator,
    PopulationView,
    Report,
    Retire,
)
from population.base import Failure

MOST_FAILURES = 2
Name = tuple[str, int]  # A generation without the run's token, and a step.
RAW = "a raw loop"
GIVEN_BACK = "nobody any more"


class Said(NamedTuple):
    """A report.

    Attributes:
        worker_id: The slot that it names.
        generation: The generation that it names.
        step: Its step.
        params: What was saved, or None.
        value: Its value, or None.
    """

    worker_id: int
    generation: str
    step: int
    params: str | None
    value: float | None


class Coded(Mutator[list[str]]):
    """Branches as the value says, and keeps the reports in its state.

    Attributes:
        names: The effect of each code.
    """

    names = (
        *("", "explore", "pass on", "fresh", "to all live", "back to the root", ""),
        *("retire", "retire the next", "bring back"),
    )

    def __init__(self) -> None:
        self._fails = False

    def fail(self, fails: bool) -> None:
        """From now on raise, or stop raising."""
        self._fails = fails

    def init(self, view: PopulationView) -> list[str]:
        """Remember nothing."""
        del view
        return []

    def update(
        self, state: list[str], report: Report, view: PopulationView
    ) -> tuple[list[str], Mapping[int, Branch | Retire]]:
        """Branch or retire as the value says."""
        checkpoint, name = (
            report.checkpoint,
            self.names[code_of(report.checkpoint.value)],
        )
        decided = self._decided(name, report.worker_id, checkpoint, view)
        return [*state, _shown(report.worker_id, checkpoint, "")], decided

    def failed(
        self, state: list[str], failure: Failure, view: PopulationView
    ) -> tuple[list[str], Mapping[int, Branch | Retire]]:
        """Branch or retire as the reason says."""
        me, what = failure.worker_id, f" {failure.failures} {failure.retired}"
        decided = self._decided(failure.reason, me, failure.checkpoint, view)
        return [*state, _shown(me, failure.checkpoint, what)], decided

    def _decided(
        self, name: str, me: int, checkpoint: Checkpoint, view: PopulationView
    ) -> Mapping[int, Branch | Retire]:
        if self._fails:
            raise ZeroDivisionError("on purpose")
        meta, size = checkpoint.meta_params, len(view.workers)
        root = view.graph.root(checkpoint.generation_id)
        others = [w for w in range(size) if w not in view.live]
        decisions: dict[str, Mapping[int, Branch | Retire]] = {
            "explore": {me: Branch(checkpoint, meta + 1, name)},
            "pass on": {(me + 1) % size: Branch(checkpoint, meta, name)},
            "fresh": {me: Branch(None, 0, name)},
            "to all live": {w: Branch(checkpoint, meta + 2, name) for w in view.live},
            "back to the root": {me: Branch(root, meta + 3, name)},
            "retire": {me: Retire(name)},
            "retire the next": {(me + 1) % size: Retire(name)},
            "bring back": {w: Branch(checkpoint, meta + 4, name) for w in others},
        }
        return decisions.get(name, {})


def _shown(worker_id: int, checkpoint: Checkpoint, what: str) -> str:
    generation = checkpoint.generation_id.split("-", 1)[1]
    return f"{worker_id} {generation} {checkpoint.step} {checkpoint.value}{what}"


def code_of(value: float | None) -> int:
    """The branch that a value asks for; 0 is none."""
    if value is None or not math.isfinite(value):
        return 0
    return int(value) % len(Coded.names)


@dataclasses.dataclass
class Point:
    """A checkpoint.

    Attributes:
        name: Its generation and step.
        worker_id: The slot of the generation.
        params: What was saved, or None.
        meta: The generation's hyperparameters.
        value: Its value, or None.
        parent: The checkpoint from which it was trained; None for a root.
        reason: Why the generation was opened.
    """

    name: Name
    worker_id: int
    params: str | None
    meta: int
    value: float | None
    parent: Name | None
    reason: str

    @property
    def step(self) -> int:
        """Its step."""
        return self.name[1]

    @property
    def diverged(self) -> bool:
        """Whether its value is NaN or infinite."""
        return self.value is not None and not math.isfinite(self.value)


_RESTARTS = "resume", "takeover", "failed: "


class Standing(NamedTuple):
    """How it stands with a slot that has failed or was retired.

    Attributes:
        kind: What it was last: "failed", "diverged", "recovered", "retired", "revived".
        failures: How many failures there were in a row.
        retired: Whether the slot is finished.
        at: How many checkpoints there were then.
        step: With "failed", the step of the slot's newest finite value, or a later one
            that it had come to before it was set back.
    """

    kind: str = "recovered"
    failures: int = 0
    retired: bool = False
    at: int = 0
    step: int = 0


class Model:
    """A population under the protocol.

    Args:
        metas: The first hyperparameters of each slot.

    Attributes:
        points: All checkpoints, as they were recorded.
        asked: The reports that the mutator was asked about.
        keeps_weights: Whether a resume point needs params.
        saves: Whether any params were recorded.
        best: The best checkpoint, or None.
        lost: The slots for which no decision waits.
        standings: The standing of each slot.
    """

    def __init__(self, metas: Sequence[int]) -> None:
        self.points: dict[Name, Point] = {}
        self.size = len(metas)
        self.asked: list[str] = []
        self.saves = False
        self.keeps_weights = False
        self.best: Point | None = None
        self.lost: set[int] = set()
        self.standings = [Standing()] * self.size
        self._numbers = [-1] * self.size
        for worker_id, meta in enumerate(metas):
            self.open(worker_id, None, meta, "start")

    # Questions.

    def generation(self, worker_id: int) -> str:
        """The slot's present generation."""
        return f"{worker_id}-{self._numbers[worker_id]}"

    def generations(self) -> list[str]:
        """All generations, oldest first."""
        return list(dict.fromkeys(generation for generation, _ in self.points))

    def span(self, generation: str, last: float = math.inf) -> list[Point]:
        """A generation's checkpoints up to a step, newest first."""
        found = [p for p in self.points.values() if p.name[0] == generation]
        return sorted((p for p in found if p.step <= last), key=lambda p: -p.step)

    def newest(self, worker_id: int) -> Point:
        """The slot's newest checkpoint."""
        return self.span(self.generation(worker_id))[0]

    def first(self, generation: str) -> Point:
        """The generation's first checkpoint."""
        return self.span(generation)[-1]

    def lineage(self, point: Point) -> Iterator[Point]:
        """All checkpoints that led to one, generation by generation, newest first."""
        at: Name | None = point.name
        while at is not None:
            span = self.span(*at)
            yield from span
            at = span[-1].parent

    def newest_value(self, worker_id: int) -> Point | None:
        """The newest report with a value on the slot's lineage."""
        lineage = self.lineage(self.newest(worker_id))
        return next((p for p in lineage if p.value is not None), None)

    def resume_point(self, point: Point) -> Point:
        """The nearest that did not diverge and has params; a root always qualifies.

        From a checkpoint that diverged, it is the nearest with a finite value. A
        generation with fresh weights begins from the root's params.
        """
        for found in self.lineage(point):
            unsaved = self.keeps_weights and found.params is None
            unsure = point.diverged and found.value is None
            if not (found.diverged or unsaved or unsure):
                return found
        return next(found for found in self.lineage(point) if self._is_fresh(found))

    def _is_fresh(self, point: Point) -> bool:
        """Whether it is a root, or a copy of a root that was not trained."""
        if point.parent is None:
            return True
        is_first = self.first(point.name[0]) is point
        parent = self.points[point.parent]
        has_own = point.params is not None and point.params != parent.params
        if not is_first or point.diverged or has_own:
            return False
        return not parent.diverged and self._is_fresh(parent)

    # Changes.

    def open(self, worker_id: int, parent: Point | None, meta: int, why: str) -> None:
        """Begin a generation, which copies its parent's params."""
        self._numbers[worker_id] += 1
        step = 0 if parent is None else parent.step
        params = None if parent is None else parent.params
        name = (self.generation(worker_id), step)
        above = None if parent is None else parent.name
        self.points[name] = Point(name, worker_id, params, meta, None, above, why)

    def hand_out(self, worker_id: int) -> Point:
        """The slot at its resume point; in a new generation if that is further back."""
        before = self.live
        self._set_back(worker_id, "")
        self._show_known(before)  # It may give this slot other work.
        return self.newest(worker_id)

    def take_over(self, worker_id: int) -> None:
        """Begin a new generation, so that the late worker is fenced."""
        before = self.live
        self._set_back(worker_id, "takeover")
        self._show_known(before)

    def _set_back(self, worker_id: int, why: str) -> None:
        """Move a slot to its resume point, in any case if a reason is given."""
        newest = self.newest(worker_id)
        point = self.resume_point(newest)
        if why or point is not newest:
            self._note_divergence(worker_id)
            self.open(worker_id, point, newest.meta, why or "resume")

    # Failures and retirements.

    def fail(self, worker_id: int, reason: str) -> None:
        """A trial of a slot has failed; the mutator sees it."""
        if self.standings[worker_id].retired:
            return
        before, lineage = self.live, self.lineage(self.newest(worker_id))
        finite = (p for p in lineage if p.value is not None and not p.diverged)
        step = next((p.step for p in finite), 0)
        if self.newest(worker_id).reason.startswith(_RESTARTS):
            step = max(step, self.standings[worker_id].step)
        self._count_failure(worker_id, "failed", step)
        _, failures, retired, *_ = self.standings[worker_id]
        told = dataclasses.replace(self.newest(worker_id))
        what = f" {failures} {retired}"
        refused = {worker_id} if retired else set()
        branched = self.decide(told, reason, what, refused)
        if worker_id not in branched and worker_id in self.living:
            self._set_back(worker_id, f"failed: {reason}")
        self._show_known(before)

    def revive(self, worker_id: int) -> None:
        """A retired slot is trained again; nothing happens to another one."""
        if not self.standings[worker_id].retired:
            return
        before = self.live
        self._revive(worker_id)
        self._set_back(worker_id, "")
        self._show_known(before)

    @property
    def all_failed(self) -> bool:
        """Whether every slot has failed too often."""
        return all(s.retired and s.failures for s in self.standings)

    @property
    def living(self) -> list[int]:
        """The slots that are not retired."""
        return [w for w in range(self.size) if not self.standings[w].retired]

    def _stands(self, worker_id: int, kind: str, *what: Any) -> None:
        at, (failures, retired, step) = len(self.points), (*what, 0, False, 0)[:3]
        self.standings[worker_id] = Standing(kind, failures, retired, at, step)

    def _count_failure(self, worker_id: int, kind: str, step: int) -> None:
        count = self.standings[worker_id].failures + 1
        self._stands(worker_id, kind, count, count >= MOST_FAILURES, step)

    def _note_divergence(self, worker_id: int) -> None:
        """Count it when the slot is set back, if it has not failed since."""
        newest, standing = self.newest(worker_id), self.standings[worker_id]
        later = standing.kind != "recovered" and standing.at > self._order(newest)
        if newest.diverged and not standing.retired and not later:
            self._count_failure(worker_id, "diverged", 0)

    def _note_recovery(self, point: Point) -> None:
        """A finite value beyond the failure ends the row of failures."""
        worker_id = point.worker_id
        standing = self.standings[worker_id]
        if standing.retired or not standing.failures:
            return
        is_own = point.name[0] == self.generation(worker_id)
        is_new = self._order(point) >= standing.at
        forced = point.reason.startswith(_RESTARTS)
        if is_own and is_new and not (forced and point.step <= standing.step):
            if point.value is not None and not point.diverged:
                self._stands(worker_id, "recovered")

    def _revive(self, worker_id: int) -> None:
        if self.standings[worker_id].retired:
            self._stands(worker_id, "revived")

    def _order(self, point: Point) -> int:
        return list(self.points).index(point.name)

    def _show_known(self, before: list[int]) -> None:
        """The mutator sees the lowest live slot's newest value if some left."""
        for _ in range(self.size + 1):
            now = self.live
            if set(before) <= set(now):
                return
            before = now
            told = self._known()
            if told is not None:
                self.decide(told)

    def _known(self) -> Point | None:
        """The newest value of the lowest live slot that has one."""
        for live in self.live:
            told = self.newest_value(live)
            if told is not None:
                return dataclasses.replace(told, worker_id=live)
        return None

    def poll(self, worker_id: int, generation: str) -> Point | None:
        """The result of a raw loop's poll; None to continue."""
        if generation == self.generation(worker_id):
            return None
        return self.hand_out(worker_id)

    def give_up(self, worker_id: int) -> None:
        """Give up a slot; the mutator sees the others' newest value again."""
        if worker_id in self.lost:
            return
        self.lost.add(worker_id)
        before, told = self.live, self._known()
        if told is not None:
            self.decide(told)
        self._show_known(before)

    def refuses(self, generation: str, step: int) -> bool:
        """Whether a step lies before the generation's first."""
        known = generation in self.generations()
        return known and step < self.first(generation).step

    def report(self, reports: Sequence[Said]) -> None:
        """Record reports, then decide on each in worker order."""
        before = self.live
        due = [found for said in reports if (found := self._receive(said))]
        branched: set[int] = set()
        refused: set[int] = set()
        for told in sorted(due, key=lambda point: point.worker_id):
            if told.worker_id not in branched:
                branched |= self.decide(told, refused=refused)
        self._show_known(before)

    def _receive(self, said: Said) -> Point | None:
        found = self._record(said)
        known = self.points.get((said.generation, said.step))
        if known is not None:
            self._note_recovery(known)
        return found

    def decides(self, said: Said) -> bool:
        """Whether the mutator would be asked about a report."""
        found = copy.deepcopy(self)._record(said)
        return found is not None and not self.standings[found.worker_id].retired

    def decide(
        self,
        told: Point,
        name: str | None = None,
        what: str = "",
        refused: set[int] | None = None,
    ) -> set[int]:
        """Ask the mutator about a report or a failure; the slots that were branched."""
        me, (generation, step) = told.worker_id, told.name
        if self.standings[me].retired and not what:
            return set()  # A report of a slot that is finished.
        self.asked.append(f"{me} {generation} {step} {told.value}{what}")
        refused = set() if refused is None else refused
        name = Coded.names[code_of(told.value)] if name is None else name
        for worker_id in {
            "retire": [me],
            "retire the next": [(me + 1) % self.size],
        }.get(name, []):
            if not self.standings[worker_id].retired:
                self._stands(worker_id, "retired", 0, True)
        others = [w for w in range(self.size) if w not in self.live]
        plan: dict[str, list[tuple[int, Point | None, int]]] = {
            "explore": [(me, told, told.meta + 1)],
            "pass on": [((me + 1) % self.size, told, told.meta)],
            "fresh": [(me, None, 0)],
            "to all live": [(w, told, told.meta + 2) for w in self.live],
            "back to the root": [(me, self.first(generation), told.meta + 3)],
            "bring back": [(w, told, told.meta + 4) for w in others],
        }
        branched = set()
        for worker_id, parent, meta in plan.get(name, []):
            was = self.standings[worker_id].retired
            self._note_divergence(worker_id)
            if self.standings[worker_id].retired and not was:
                refused.add(worker_id)
            if worker_id in refused:
                continue
            self._revive(worker_id)
            branched.add(worker_id)
            known = None if parent is None else self.points[parent.name]
            point = None if known is None else self.resume_point(known)
            self.open(worker_id, point, meta, name)
        return branched

    @property
    def live(self) -> list[int]:
        """The slots that are neither lost nor retired."""
        return [w for w in self.living if w not in self.lost]

    def _record(self, said: Said) -> Point | None:
        """Record a report; returns what the mutator is asked about, as it is now."""
        if said.generation not in self.generations():
            return None
        worker_id = self.first(said.generation).worker_id
        own = worker_id == said.worker_id
        current = said.generation == self.generation(worker_id)
        point = self.points.get((said.generation, said.step))
        if point is None:
            if not own:
                return None
            below = self.span(said.generation, said.step)
            moves = current and below[0] is self.newest(worker_id)
            point = self._add(below[0], said.step, said.params, said.value)
            asks = moves or (said.value is not None and self._concerns(point))
            return dataclasses.replace(point) if asks else None
        rests = False
        if own and point.params is None and said.params is not None:
            before = self._ready(worker_id)
            self.keeps_weights = self.saves = True
            point.params = said.params
            rests = self._ready(worker_id) > before
        if point.value is None and said.value is not None:
            self._value(point, said.value)
        elif not rests:
            return None
        return dataclasses.replace(point) if self._concerns(point) else None

    def _ready(self, worker_id: int) -> int:
        """The newest step of a lineage that a decision may use."""
        for point in self.lineage(self.newest(worker_id)):
            saved = point.params is not None or not self.saves
            if point.value is not None and (saved or point.diverged):
                return point.step
        return -1

    def _concerns(self, point: Point) -> bool:
        """Whether a checkpoint is on its slot's present lineage."""
        newest = self.newest(point.worker_id)
        return any(p.name == point.name for p in self.lineage(newest))

    def _add(
        self, parent: Point, step: int, params: str | None, value: float | None
    ) -> Point:
        name = (parent.name[0], step)
        point = Point(
            name,
            parent.worker_id,
            params,
            parent.meta,
            None,
            parent.name,
            parent.reason,
        )
        self.points[name] = point
        self.keeps_weights |= params is not None
        self.saves |= params is not None
        if value is not None:
            self._value(point, value)
        return point

    def _value(self, point: Point, value: float) -> None:
        point.value = value
        if math.isfinite(value):
            least = math.inf if self.best is None else self.best.value
            if least is None or value < least:
                self.best = point


@dataclasses.dataclass
class Hand:
    """A worker as the model sees it.

    Attributes:
        place: The controller that it belongs to.
        own: The slot that it believes it has.
        worker_id: The slot that it trained last.
        name: The generation and step of its training state.
        adopted: Whether a poll ever gave it work.
        cold: Whether its first step may still take long.
        reclaimed: Whether it has claimed a slot since it last got work.
    """

    place: int
    own: int | None
    worker_id: int
    name: Name
    adopted: bool = False
    cold: bool = True
    reclaimed: bool = False


class Leases:
    """Which worker holds which slot, and how long each process saw it silent.

    Args:
        size: How many slots there are.
        places: How many processes.

    Attributes:
        holder: Of each slot: a `Hand`, `RAW`, `GIVEN_BACK`, or None before any.
        gone: The hands that will never poll or report again.
    """

    def __init__(self, size: int, places: int) -> None:
        self.size = size
        self.holder: list[Any] = [None] * size
        self.gone: list[Hand] = []
        self.grace = [False] * size
        self.silent = [[0.0] * size for _ in range(places)]
        self._quiet = [0.0] * size

    def restart(self, place: int) -> None:
        """A process starts again: it has watched no worker yet."""
        self.silent[place] = [0.0] * self.size

    def pass_time(self, timeouts: float) -> None:
        """All workers are silent for this long."""
        self._quiet = [seconds + timeouts for seconds in self._quiet]
        self.silent = [[s + timeouts for s in silent] for silent in self.silent]

    def write(self, worker_id: int, holder: Any, *, grace: bool = False) -> None:
        """The worker of the slot polled or reported."""
        self.holder[worker_id] = holder
        self.grace[worker_id] = grace
        self._quiet[worker_id] = 0.0
        for silent in self.silent:
            silent[worker_id] = 0.0

    def is_gone(self, holder: Any) -> bool:
        """Whether a hand is dead."""
        return any(holder is hand for hand in self.gone)

    def is_there(self, place: int, worker_id: int) -> bool:
        """Whether a worker holds the slot, and is neither dead nor silent too long."""
        holder = self.holder[worker_id]
        if not isinstance(holder, Hand) or self.is_gone(holder):
            return False
        return self.silent[place][worker_id] <= 1.0

    def is_claimable(self, place: int, worker_id: int) -> bool:
        """Whether a worker that asks for any slot may have this one."""
        if self.holder[worker_id] == RAW:
            return self.silent[place][worker_id] > 1.0
        return not self.is_there(place, worker_id)

    def is_due(self, worker_id: int) -> bool:
        """Whether the lease must be renewed."""
        unheld = self.holder[worker_id] in (None, GIVEN_BACK)
        return unheld or self.grace[worker_id] or self._quiet[worker_id] >= 0.25
