"""Helpers for several test modules: a clock, mutators, and views of a controller."""

from __future__ import annotations

import importlib.util
import os
import random
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import pytest

from population import (
    ActiveWorker,
    Branch,
    Checkpoint,
    Mutator,
    PopulationController,
    PopulationView,
    Ref,
    Report,
)
from population.core.graph import JournalGraph
from tests import probe

Decide = Callable[[Report, PopulationView], Mapping[int, Branch]]


class Clock:
    """A clock that moves only when the test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The present time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class Scripted(Mutator[None]):
    """Branches as a function decides, and remembers the reports."""

    def __init__(self, decide: Decide | None = None) -> None:
        self._decide = decide
        self._seen: list[Report] = []

    @property
    def seen(self) -> list[Report]:
        """The reports so far."""
        return self._seen

    @property
    def asked(self) -> list[tuple[int, int]]:
        """Worker id and step of the reports so far."""
        return [(report.worker_id, report.checkpoint.step) for report in self._seen]

    def init(self, view: PopulationView) -> None:
        """Remember nothing."""
        del view

    def update(
        self, state: None, report: Report, view: PopulationView
    ) -> tuple[None, Mapping[int, Branch]]:
        """Return the branches of the function."""
        self._seen.append(report)
        return state, {} if self._decide is None else self._decide(report, view)


def branch_at(
    step: int, meta_params: Any, *, back_to: int | None = None, worker_id: int = 0
) -> Decide:
    """A worker's report at `step` branches it, from there or from an earlier step."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        checkpoint = report.checkpoint
        if (report.worker_id, checkpoint.step) != (worker_id, step):
            return {}
        parent = checkpoint
        if back_to is not None:
            parent = view.graph[checkpoint.generation_id][back_to]
        return {worker_id: Branch(parent, meta_params, "as planned")}

    return decide


def random_branch(choose: random.Random) -> Scripted:
    """Sometimes a worker continues from a random checkpoint, or from fresh weights."""

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        if choose.random() < 0.6:
            return {}
        everything: list[Checkpoint | None] = [None, *view.graph.history()]
        worker_id = choose.randrange(len(view.workers))
        meta_params = {"lr": choose.randrange(3)}
        return {worker_id: Branch(choose.choice(everything), meta_params)}

    return Scripted(decide)


def missing(what: str) -> NoReturn:
    """Skip if a tool is missing on a user's machine; fail in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is needed here and is missing")
    pytest.skip(f"{what} is missing")


def needs_mkdocs() -> None:
    """Skip without mkdocs, which only the oldest lane lacks in CI."""
    if importlib.util.find_spec("mkdocs") is None:
        if os.environ.get("LANE") == "oldest":
            pytest.skip("the oldest lane builds no site")
        missing("the package mkdocs")


def poll(
    controller: PopulationController,
    worker_id: int = 0,
    generation_id: str | None = None,
    step: int = 0,
    params: Any = None,
) -> ActiveWorker | None:
    """A raw poll."""
    return controller.maybe_get_worker_data(
        worker_id, generation_id, step, params, None
    )


def work(controller: PopulationController, worker_id: int = 0) -> ActiveWorker:
    """The work of a worker that has just begun."""
    found = poll(controller, worker_id)
    assert found is not None
    return found


def reporter(
    controller: PopulationController, worker_id: int = 0
) -> Callable[..., None]:
    """Reports the next step of a slot with a given value."""

    def report(value: float | None, params: Any = "p") -> None:
        slot = controller.workers[worker_id]
        controller.set_eval(worker_id, slot.generation_id, slot.step + 1, params, value)

    return report


def generation(controller: PopulationController, worker_id: int = 0) -> str:
    """The slot's present generation."""
    return controller.workers[worker_id].generation_id


def content(controller: PopulationController) -> list[str]:
    """All that the journal holds, as SQL."""
    return list(probe.connection(controller).iterdump())


def everything(controller: PopulationController) -> tuple[Any, ...]:
    """The content of the journal and of the controller; NaN equals itself here."""
    return content(controller), repr(controller.workers)


def told(controller: PopulationController) -> list[tuple[Any, ...]]:
    """The history without the run's random token and without times."""

    def short(generation_id: str) -> str:
        return generation_id.split("-", 1)[1]

    def named(ref: Ref | None) -> tuple[str, int] | None:
        return None if ref is None else (short(ref.generation_id), ref.step)

    return [
        (
            short(c.generation_id),
            c.step,
            repr(c.params).replace(c.generation_id.split("-")[0], ""),
            repr(c.meta_params),
            repr(c.value),
            named(c.parent),
            c.reason,
        )
        for c in controller.history()
    ]


def assert_is_a_forest(graph: JournalGraph) -> None:
    """Every parent exists and was recorded earlier, at no greater step."""
    checkpoints = {c.ref: c for c in graph.history()}
    assert len(checkpoints) == sum(1 for _ in graph.history())
    for checkpoint in checkpoints.values():
        assert checkpoint.parent is None or checkpoint.parent in checkpoints
        if checkpoint.parent is not None:
            parent = checkpoints[checkpoint.parent]
            assert parent.step <= checkpoint.step
            assert (parent.step, parent.row) < (checkpoint.step, checkpoint.row)
        assert _reaches_a_root(checkpoint, checkpoints)


def _reaches_a_root(start: Checkpoint, checkpoints: Mapping[Ref, Checkpoint]) -> bool:
    seen = {start.ref}
    while start.parent is not None:
        start = checkpoints[start.parent]
        if start.ref in seen:
            return False
        seen.add(start.ref)
    return True
