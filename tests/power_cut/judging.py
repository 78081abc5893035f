"""Looks at what a power cut has left of the run of `child`."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from population import Checkpoint, ParamsError, PopulationController, Worker
from tests.power_cut import child, record
from tests.power_cut.record import Event

_GREATEST_VALUE = 2.0


class Told(NamedTuple):
    """A report that the program was about to make.

    Attributes:
        generation_id: The generation.
        step: The step.
        value: The value; each element of the saved array has it too.
    """

    generation_id: str
    step: int
    value: float


@dataclasses.dataclass(frozen=True)
class Found:
    """What was left of a run.

    Attributes:
        reports: How many reports the journal has: the first so many.
        rejected: How many saves had to be rejected to go on.
        fresh: The slots that have begun with fresh weights.
    """

    reports: int
    rejected: int
    fresh: frozenset[int]


def told(events: Sequence[Event]) -> tuple[list[Told], int]:
    """Return the reports that were begun in a record; how many were acknowledged."""
    begun, acknowledged = [], 0
    for text in record.marks(events):
        if text == "acknowledged":
            acknowledged += 1
        else:
            _, _, generation_id, step, value = text.split()
            begun.append(Told(generation_id, int(step), float(value)))
    return begun, acknowledged


def reports(controller: PopulationController) -> list[Told]:
    """Return the reports with a value in a journal, in their order."""
    return [
        Told(checkpoint.generation_id, checkpoint.step, checkpoint.value)
        for checkpoint in controller.history()
        if checkpoint.value is not None
    ]


def go_on(
    log_dir: pathlib.Path, begun: Sequence[Told], *, may_lack: bool = False
) -> Found:
    """Open what a cut has left, check it, and report once more for each slot.

    Args:
        log_dir: The run folder.
        begun: The reports that had begun before the cut.
        may_lack: Whether saves may be missing or damaged, if the library notices it.

    Raises:
        AssertionError: The journal does not hold the first reports, in their order, or
            a save that can be loaded is not what was reported.
        ParamsError, JournalError: The run cannot be opened, or trained further.
    """
    controller = child.opened(log_dir)
    try:
        found = reports(controller)
        assert found == list(begun[: len(found)])
        if not may_lack:
            check_weights(controller)
        rejected, fresh = 0, set()
        for slot in range(child.SLOTS):
            with controller.worker(slot) as worker:
                failures, is_fresh = _train_once(controller, worker)
            rejected += failures
            fresh |= {slot} if is_fresh else set()
        check_weights(controller, may_lack=may_lack)
        return Found(len(found), rejected, frozenset(fresh))
    finally:
        controller.close()


def check_weights(controller: PopulationController, *, may_lack: bool = False) -> None:
    """Check that reachable params can be loaded, and are what was reported.

    Args:
        controller: The run.
        may_lack: Whether some may be missing or damaged; then loading them must raise.
    """
    best = controller.best()
    reachable = controller.reachable()
    assert best is None or best.params is None or best.ref in reachable
    for ref in reachable:
        checkpoint = controller.graph.checkpoint(ref)
        if checkpoint.params is None:
            continue
        try:
            arrays = controller.load(checkpoint)
        except ParamsError:
            if not may_lack:
                raise
        else:
            assert set(arrays["w"].tolist()) == {_source(controller, checkpoint)}


def _train_once(controller: PopulationController, worker: Worker) -> tuple[int, bool]:
    """Report once more; return how many saves were lost, and whether all were."""
    failures = 0
    slot = worker.worker_id
    while True:
        assert worker.poll()
        assert worker.worker_id == slot
        try:
            state = worker.restore(child.init)
            break
        except ParamsError as error:
            failures += 1
            worker.reject(str(error))
    values = set(state["w"].tolist())
    begin = worker.lineage[-1]
    expected = 0.0 if worker.params is None else _source(controller, begin)
    assert values == {expected}
    value = _GREATEST_VALUE + slot
    worker.report(value, child.train(worker, state, value))
    return failures, worker.params is None


def _source(controller: PopulationController, checkpoint: Checkpoint) -> float:
    """Return the value of the report of a checkpoint's params: a root copies them."""
    while checkpoint.value is None and checkpoint.parent is not None:
        checkpoint = controller.graph.checkpoint(checkpoint.parent)
    return checkpoint.value or 0.0
