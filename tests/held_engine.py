"""A tiny engine that trains all slots and keeps their weights in its memory.

A weight is a name here. When a slot trains, its row of the stack is overwritten; needed
weights are kept aside before, and all others are named as gone.
"""

from __future__ import annotations

import os
import pathlib
import signal
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from population import Branch, PopulationController, PopulationView, Report
from population.base.interfaces import Mutator
from population.base.types import InMemory
from population.journal.sqlite import SqliteJournal
from population.mutators import WinnerTakeAllGenetic
from tests import probe
from tests.crash_points import crash_at
from tests.helpers import Scripted

HELD = InMemory()
AWAY, BACK = -2.0, -1.0  # Values; see `LooksBack`.
SIZE = 3  # The number of slots of these runs by default.


class Engine:
    """Claims all slots, trains them, and says which weights it has lost.

    Args:
        controller: The run.

    Attributes:
        controller: The run.
        lease: The lease of all its slots.
        kept: The weights that are in this memory, each a name.
        stack: The last weights of each slot.
    """

    def __init__(self, controller: PopulationController) -> None:
        self.controller = controller
        self.lease = controller.claim_all()
        self.kept: dict[InMemory, str] = {}
        self.stack: list[Any] = [work.params for work in self.lease.values()]

    def report(
        self,
        values: Mapping[int, Any] | Sequence[Any],
        params: Any = HELD,
        *,
        forgets: Collection[InMemory] = (),
    ) -> None:
        """Slots train and report, each a step further.

        Args:
            values: The values by worker id, or one value for all slots.
            params: The params of each report.
            forgets: Weights that are not kept, although they are needed.
        """
        of = values if isinstance(values, Mapping) else dict(enumerate(values))
        at = {w: work for w, work in enumerate(self.controller.workers) if w in of}
        reports = [
            (w, work.generation_id, work.step + 1, params, of[w])
            for w, work in at.items()
        ]
        self.commit(reports, forgets=forgets)

    def commit(
        self, reports: Sequence[tuple[Any, ...]], *, forgets: Collection[InMemory] = ()
    ) -> None:
        """Report what was trained, and which weights were overwritten by it."""
        trained = self._trained(reports)
        stays = (self.lease.needed() | self._newest(trained)) - {*forgets}
        gone = {*self.kept} - stays
        there = {key: name for key, name in self.kept.items() if key in stays}
        new = [self.lease.encode(*report) for report in reports]
        for report in new:
            if type(report.params) is InMemory and report.worker_id in trained:
                there[report.params] = trained[report.worker_id]
        try:
            branched = self.lease.report(new, gone=gone)
        except BaseException:
            self.lease.undo(new)
            raise  # The round counts as not trained.
        self.kept = there
        for w, name in trained.items():
            self.stack[w] = name
        for w, work in branched.items():
            self.stack[w] = work.params
            if type(work.params) is InMemory:
                self.stack[w] = there[work.params]  # It must not be recorded as gone.

    def held(self) -> list[tuple[int, int]]:
        """Worker id and step of the weights in memory that count; see `held`."""
        return held(self.controller)

    def needed(self) -> list[tuple[int, int]]:
        """Worker id and step of the reports whose weights must be kept."""
        history = [*self.controller.history()]
        of = {c.params: c for c in reversed(history) if type(c.params) is InMemory}
        found = [of[params] for params in self.lease.needed()]
        return sorted((c.worker_id, c.step) for c in found)

    def newest(self, worker_id: int) -> Any:
        """A slot's newest checkpoint."""
        return probe.newest(self.controller)[worker_id]

    def _trained(self, reports: Sequence[tuple[Any, ...]]) -> dict[int, str]:
        """What the rows of the slots hold that have trained further."""
        slots = self.lease.slots()
        return {
            w: f"{name} {step}"
            for w, name, step, *_ in reports
            if name == slots[w].generation_id and step > slots[w].newest.step
        }

    def _newest(self, trained: Collection[int]) -> set[InMemory]:
        """What the rows of the other slots hold."""
        slots = enumerate(self.lease.slots())
        found = [slot.newest.params for w, slot in slots if w not in trained]
        return {params for params in found if type(params) is InMemory}


def opened(
    mutator: Mutator[Any] | None = None,
    folder: pathlib.Path | None = None,
    size: int = SIZE,
    **options: Any,
) -> Engine:
    """A run whose slots one engine has claimed."""
    metas = [float(i) for i in range(size)]
    mutator = mutator or Scripted()
    return Engine(PopulationController(metas, mutator, folder, **options))


def held(controller: PopulationController) -> list[tuple[int, int]]:
    """Worker id and step of the weights in memory, as every process sees them."""
    found = [c for c in controller.history() if type(c.params) is InMemory]
    return [(c.worker_id, c.step) for c in found]


def copy_from(donor: int, step: int, *receivers: int) -> Scripted:
    """A donor's report at a step makes other slots continue from there."""

    def decide(asked: Report, view: PopulationView) -> Mapping[int, Branch]:
        del view
        checkpoint = asked.checkpoint
        if (asked.worker_id, checkpoint.step) != (donor, step):
            return {}
        return {w: Branch(checkpoint, 9.0, "copied") for w in receivers}

    return Scripted(decide)


class LooksBack(Scripted):
    """Moves all slots away at the value `AWAY`; at `BACK` to the fourth report.

    Only its calls for the history show that it may go back.
    """

    def __init__(self) -> None:
        super().__init__(_look_back)


def _look_back(asked: Report, view: PopulationView) -> Mapping[int, Branch]:
    value = asked.checkpoint.value
    if value == AWAY:
        return {asked.worker_id: Branch(None, 5.0)}
    if value != BACK:
        return {}
    reports = (c for c in view.graph.history() if c.value is not None)
    return {asked.worker_id: Branch([*reports][3], 9.0)}


def leave_behind(engine: Engine) -> None:
    """Slot 0 reports weights in memory, does not say they are gone, begins again."""
    for value in (4.0, 3.0, 2.0, 1.0, AWAY):
        at = engine.controller.workers[0]
        report = 0, at.generation_id, at.step + 1, HELD, value
        engine.controller.set_evals([report])


def add(meta: float) -> float:
    """Change the hyperparameters."""
    return meta + 1


# Processes that are killed; call these with `python -c`.


def killed(folder: str) -> None:
    """A process that is killed with weights in its memory."""
    engine = opened(WinnerTakeAllGenetic(add, 2), pathlib.Path(folder))
    for step in range(1, 8):
        params = {"w": np.full(2, step)} if step == 3 else HELD
        engine.report([float(w) - step for w in range(SIZE)], params)
    _kill()


def killed_within(folder: str, kind: str, before: bool) -> None:
    """A process that is killed in a transaction that records weights as gone."""
    engine = opened(copy_from(0, 3, 1), pathlib.Path(folder))
    for step in range(1, 6):
        params = {"w": np.full(2, step)} if step == 2 else HELD
        engine.report([1.0, 2.0, 3.0 - step], params)
    state = probe.in_memory(engine.controller), engine.held()
    pathlib.Path(f"{folder}.state").write_text(repr(state))
    crash_at(SqliteJournal, kind, 1, _kill, before=before)
    engine.report([1.0, 2.0, 3.0], {"w": np.full(2, 6.0)})


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
