"""A run with random events, in which a view is compared with a walk over the graph."""

from __future__ import annotations

import contextlib
import math
import pathlib
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from population import (
    Branch,
    Checkpoint,
    Mutator,
    PopulationController,
    PopulationView,
    Report,
    Retire,
    fork,
)
from population.base import NoProgressError
from population.space.trees import leaves
from tests import probe

SIZE = 3
COUNTS = (1, 2, 5, 17, 18, 40)
Entry = tuple[int, float]


class Unwilling(Exception):
    """An exception that a mutator raises sometimes; the report is rolled back."""


def lineages(view: Any, size: int) -> list[list[Entry]]:
    """The step and score of all reports with a value of each slot, oldest first."""
    found = [view.graph.lineage(view.newest(worker_id)) for worker_id in range(size)]
    return [
        [(c.step, view.score(c)) for c in lineage if c.value is not None]
        for lineage in found
    ]


def check_as_of(view: Any, size: int, steps: range) -> None:
    """`as_of` agrees with the definition at some steps."""
    known = lineages(view, size)
    for step in steps:
        upto = [[e for e in entries if e[0] <= step] for entries in known]
        expected = [entries[-1] if entries else (-1, math.inf) for entries in upto]
        found = list(zip(*(array.tolist() for array in view.as_of(step)), strict=True))
        assert found == expected, f"as of {step}"


def check_last(view: Any, size: int, count: int, until: Any = None) -> None:
    """`last` agrees with the definition."""
    limits = np.broadcast_to(math.inf if until is None else until, size).tolist()
    expected = np.full((size, count), math.nan)
    for worker_id, entries in enumerate(lineages(view, size)):
        scores = [score for step, score in entries if step <= limits[worker_id]]
        part = scores[-count:]
        expected[worker_id, count - len(part) :] = part
    found = view.last(count, until)
    assert (found.dtype, found.shape) == (np.float64, (size, count))
    np.testing.assert_array_equal(found, expected, f"last {count} until {until}")
    found.fill(7)  # It belongs to the caller.


def check_metric(view: Any, size: int, name: str) -> None:
    """`metric` agrees with the definition: a walk to the newest report with a value."""
    expected = np.full(size, math.nan)
    for worker_id in range(size):
        walk = view.graph.walk(view.newest(worker_id))
        newest = next((c for c in walk if c.value is not None), None)
        if newest is not None and newest.metrics is not None:
            expected[worker_id] = dict(leaves(newest.metrics)).get(name, math.nan)
    found = view.metric(name)
    assert (found.dtype, found.shape) == (np.float64, (size,))
    np.testing.assert_array_equal(found, expected, name)
    found.fill(7)  # It belongs to the caller.


class Asks(Mutator[None]):
    """Decides as a function does."""

    def __init__(
        self, decide: Callable[[PopulationView], Mapping[int, Branch | Retire]]
    ) -> None:
        self._decide = decide

    def init(self, view: PopulationView) -> None:
        """Remember nothing."""
        del view

    def update(
        self, state: None, report: Report, view: PopulationView
    ) -> tuple[None, Mapping[int, Branch | Retire]]:
        """Return what the function decides."""
        del report
        return state, self._decide(view)


class Journey:
    """A run with random events, checked after each of them.

    Args:
        seed: The seed of the events.
        folder: The run folder, or None.
        branching: How often a report branches a slot.
    """

    def __init__(
        self, seed: int, folder: pathlib.Path | None, branching: float
    ) -> None:
        self._choose = random.Random(seed)
        self._folder = folder
        self._branching = branching
        self.controller = self.open()

    def open(self) -> PopulationController:
        """Open the controller on the run."""
        mode = ("min", "max")[self._branching > 0.2]
        starts = [{"h": worker_id} for worker_id in range(SIZE)]
        controller = PopulationController(
            starts, Asks(self._decide), self._folder, mode=mode
        )
        probe.end_nothing(controller)  # Saves and evaluations are random.
        return controller

    def reopen(self) -> None:
        """Close the run, and go on with it or with a copy, in another controller."""
        self.controller.close()
        assert self._folder is not None
        if self._choose.random() < 0.3:
            copy = self._folder.with_name(self._folder.name + "-copy")
            fork(self._folder, copy, mutator=Asks(self._decide)).close()
            self._folder = copy
        self.controller = self.open()

    def _decide(self, view: PopulationView) -> Mapping[int, Branch | Retire]:
        """Check the view, and branch or retire slots at random."""
        self.check(view)
        if self._choose.random() < 0.03:
            raise Unwilling
        decisions: dict[int, Branch | Retire] = {}
        while self._choose.random() < self._branching:
            branch = Branch(self._parent(view), {"h": self._choose.random()})
            decisions[self._choose.randrange(SIZE)] = branch
        if self._choose.random() < 0.02:
            decisions[self._choose.randrange(SIZE)] = Retire("at random")
        return decisions

    def check(self, view: Any) -> None:
        """Compare some of what the view can tell, or nothing, with the definition."""
        choose = self._choose
        until = max(view.newest(worker_id).step for worker_id in range(SIZE)) + 3
        if choose.randrange(3) == 0:
            check_metric(view, SIZE, choose.choice(["loss", "net/norm", "never"]))
        kind = choose.randrange(6)
        if kind == 0:
            check_as_of(view, SIZE, range(-1, until))
        elif kind == 1:
            step = choose.randrange(-1, until)
            check_as_of(view, SIZE, range(step, step + 1))
        elif kind < 5:
            steps = [choose.randrange(-1, until) for _ in range(SIZE)]
            limit = (None, steps[0], np.array(steps))[kind - 2]
            check_last(view, SIZE, choose.choice(COUNTS), limit)

    def go(self) -> None:
        """Make a random event happen."""
        with contextlib.suppress(Unwilling, NoProgressError):
            self._go()
        assert len(self.controller.workers) == SIZE  # Read again what was rolled back.
        self.check(probe.view(self.controller))

    def _go(self) -> None:
        kind, worker_id = self._choose.random(), self._choose.randrange(SIZE)
        if kind < 0.5:
            self.controller.set_eval(*self._next(worker_id))
        elif kind < 0.6:
            for _ in range(20):
                self.controller.set_eval(*self._next(worker_id))
        elif kind < 0.7:
            self.controller.set_evals([self._next(w) for w in range(SIZE)])
        elif kind < 0.9:
            self.controller.set_eval(*self._late())
        elif kind < 0.95:
            self.controller.revive(worker_id)
        else:
            self.controller.maybe_get_worker_data(worker_id, None, 0, None, None)

    def _parent(self, view: PopulationView) -> Checkpoint | None:
        """A checkpoint of any slot, new or old, on a lineage or beside it, or none."""
        kind = self._choose.randrange(8)
        if kind == 0:
            return None
        if kind < 3:
            return self._choose.choice(list(view.graph.history()))
        newest = view.newest(self._choose.randrange(SIZE))
        if kind < 6:
            return newest
        return self._choose.choice(list(view.graph.walk(newest))[:6])

    def _value(self) -> float | None:
        """Mostly a number."""
        kind = self._choose.random()
        if kind < 0.2:
            return None
        return math.nan if kind < 0.25 else self._choose.random()

    def _metrics(self) -> Any:
        """Mostly something, and sometimes both numbers that are asked for."""
        number = self._choose.random()
        some = [None, {"loss": number}, {"loss": 1, "net": {"norm": number}}]
        return self._choose.choice([*some, {"net": {"norm": number}}, {"other": "x"}])

    def _next(self, worker_id: int) -> tuple[Any, ...]:
        present = self.controller.workers[worker_id]
        step = present.step + self._choose.randint(1, 3)
        params: Any = None
        if self._choose.random() < 0.5:
            params = f"at {step}"
        elif self._folder is not None and self._choose.random() < 0.3:
            params = np.full(2, step)  # Saved in a file, which is removed one day.
        place = worker_id, present.generation_id, step
        return *place, params, self._value(), self._metrics()

    def _late(self) -> tuple[Any, ...]:
        """A value for a checkpoint without one, or for a step not reported yet."""
        history = list(self.controller.history())
        found = self._choose.choice(history[-60:])
        lacking = [c for c in history if c.value is None]
        if lacking and self._choose.random() < 0.6:
            found = self._choose.choice(lacking)
        step = found.step + self._choose.choice([0, 0, 0, 1])
        place = found.worker_id, found.generation_id, step
        if self._choose.random() < 0.3:  # Metrics that come later than the value.
            return *place, None, None, self._metrics()
        return *place, None, self._value(), self._metrics()
