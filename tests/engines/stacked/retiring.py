"""Policies that retire members, and what they leave of a stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from population import Branch, Mutator, PopulationView, Report, Retire
from population.engines.stacked import setup
from population.engines.stacked.stack import RowMap

Decisions = Mapping[int, Branch | Retire]


class Halving(Mutator[int]):
    """Retires the worse half of the live slots at each rung; counts its rungs.

    Args:
        rungs: The steps of the rungs.
    """

    def __init__(self, *rungs: int) -> None:
        self.rungs = rungs

    def init(self, view: PopulationView) -> int:
        """The first rung is the next one."""
        del view
        return 0

    def update(
        self, state: int, report: Report, view: PopulationView
    ) -> tuple[int, Decisions]:
        """Decide once all live slots have reached the rung."""
        del report
        live = list(view.live)
        if state >= len(self.rungs) or min(view.ready[live]) < self.rungs[state]:
            return state, {}
        return state + 1, self.decided(live, view)

    def decided(self, live: list[int], view: PopulationView) -> Decisions:
        """Retire the worse half."""
        order = sorted(live, key=lambda w: (float(view.scores[w]), w))
        return {w: Retire("worse") for w in order[len(order) // 2 :]}


class HandingOn(Halving):
    """Retires every other slot, and hands its weights on to the one that stays."""

    def decided(self, live: list[int], view: PopulationView) -> Decisions:
        """The weights of a slot that leaves the stack are needed in another row."""
        found: dict[int, Branch | Retire] = {}
        for w, other in zip(live[::2], live[1::2], strict=True):
            donor = view.newest(w)
            meta = {**donor.meta_params, "noise": 0.05}
            found |= {w: Retire("handed on"), other: Branch(donor, meta, "handed on")}
        return found


class BringingBack(Halving):
    """Retires half at its first rung, and branches three of them back at the second."""

    def decided(self, live: list[int], view: PopulationView) -> Decisions:
        """One that comes back copies a live slot, the others continue themselves."""
        if len(live) == len(view.workers):
            return super().decided(live, view)
        back = [w for w in range(len(view.workers)) if w not in live][:3]
        donors = [view.newest(w) for w in (live[0], *back[1:])]
        return {
            w: Branch(donor, view.workers[w].meta_params, "back")
            for w, donor in zip(back, donors, strict=True)
        }


def fate(worker_id: int, start: int) -> float:
    """A number from 0 to 1, for each start of a slot."""
    return float(np.random.default_rng([7, worker_id, start]).random())


class StartAgain(Mutator[list[int]]):
    """A slot starts again when it has diverged, and at half time; counts the starts.

    Args:
        half: The step of the half time.
    """

    def __init__(self, half: int) -> None:
        self.half = half

    def init(self, view: PopulationView) -> list[int]:
        """No slot has started again."""
        return [0 for _ in view.workers]

    def update(
        self, state: list[int], report: Report, view: PopulationView
    ) -> tuple[list[int], Decisions]:
        """Continue from the newest finite checkpoint with another fate."""
        found, w = report.checkpoint, report.worker_id
        is_half = found.step == self.half and view.begins[w] < self.half
        if not (found.diverged or is_half):
            return state, {}
        starts = [count + (slot == w) for slot, count in enumerate(state)]
        parent = view.graph.resume_point(found)
        meta = {"fate": fate(w, starts[w])}
        return starts, {w: Branch(parent if parent.step else None, meta, "again")}


@contextmanager
def sizes(*, compacts: bool = True) -> Iterator[list[tuple[int, ...]]]:
    """Collect the slots of each new stack; without compaction, keep all rows."""
    found: list[tuple[int, ...]] = []
    resize = setup.Parts.resize

    def noted(parts: Any, rows: RowMap) -> None:
        found.append(rows.worker_ids)
        resize(parts, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup.Parts, "resize", noted)
        if not compacts:
            patch.setattr(RowMap, "resized", lambda rows, live: None)
        yield found
