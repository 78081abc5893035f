"""The protocol of `docs/concepts.md` in memory: small, slow and obvious.

It has no journal, no cache and no index: each question scans everything.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from population import Branch, Mutator, PopulationView, Report

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

    names = ("", "explore", "pass on", "fresh", "to all live", "back to the root", "")

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
    ) -> tuple[list[str], Mapping[int, Branch]]:
        """Branch as the value says."""
        if self._fails:
            raise ZeroDivisionError("on purpose")
        checkpoint, me = report.checkpoint, report.worker_id
        generation = checkpoint.generation_id.split("-", 1)[1]
        state = [*state, f"{me} {generation} {checkpoint.step} {checkpoint.value}"]
        code = code_of(checkpoint.value)
        name, meta = self.names[code], checkpoint.meta_params
        root = view.graph.root(checkpoint.generation_id)
        branches: dict[str, Mapping[int, Branch]] = {
            "explore": {me: Branch(checkpoint, meta + 1, name)},
            "pass on": {(me + 1) % len(view.workers): Branch(checkpoint, meta, name)},
            "fresh": {me: Branch(None, 0, name)},
            "to all live": {w: Branch(checkpoint, meta + 2, name) for w in view.live},
            "back to the root": {me: Branch(root, meta + 3, name)},
        }
        return state, branches.get(name, {})


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
    """

    def __init__(self, metas: Sequence[int]) -> None:
        self.points: dict[Name, Point] = {}
        self.size = len(metas)
        self.asked: list[str] = []
        self.saves = False
        self.keeps_weights = False
        self.best: Point | None = None
        self.lost: set[int] = set()
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
        if not is_first or point.diverged or point.params is not None:
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
        newest = self.newest(worker_id)
        point = self.resume_point(newest)
        if point is not newest:
            self.open(worker_id, point, newest.meta, "resume")
        return self.newest(worker_id)

    def take_over(self, worker_id: int) -> None:
        """Begin a new generation, so that the late worker is fenced."""
        newest = self.newest(worker_id)
        self.open(worker_id, self.resume_point(newest), newest.meta, "takeover")

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
        for live in self.live:
            told = self.newest_value(live)
            if told is not None:
                self.decide(Point(**{**vars(told), "worker_id": live}))
                break

    def refuses(self, generation: str, step: int) -> bool:
        """Whether a step lies before the generation's first."""
        known = generation in self.generations()
        return known and step < self.first(generation).step

    def report(self, reports: Sequence[Said]) -> None:
        """Record reports, then decide on each in worker order."""
        due = [found for said in reports if (found := self._record(said))]
        branched: set[int] = set()
        for told in sorted(due, key=lambda point: point.worker_id):
            if told.worker_id not in branched:
                branched |= self.decide(told)

    def decides(self, said: Said) -> bool:
        """Whether the mutator would be asked about a report."""
        return copy.deepcopy(self)._record(said) is not None

    def decide(self, told: Point) -> set[int]:
        """Ask the mutator; the slots that were branched."""
        me, (generation, step) = told.worker_id, told.name
        self.asked.append(f"{me} {generation} {step} {told.value}")
        name = Coded.names[code_of(told.value)]
        plan: dict[str, list[tuple[int, Point | None, int]]] = {
            "explore": [(me, told, told.meta + 1)],
            "pass on": [((me + 1) % self.size, told, told.meta)],
            "fresh": [(me, None, 0)],
            "to all live": [(w, told, told.meta + 2) for w in self.live],
            "back to the root": [(me, self.first(generation), told.meta + 3)],
        }
        for worker_id, parent, meta in plan.get(name, []):
            known = None if parent is None else self.points[parent.name]
            point = None if known is None else self.resume_point(known)
            self.open(worker_id, point, meta, name)
        return {worker_id for worker_id, _, _ in plan.get(name, [])}

    @property
    def live(self) -> list[int]:
        """The slots that are not lost."""
        return [w for w in range(self.size) if w not in self.lost]

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
