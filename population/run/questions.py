"""What can be asked of an open run, beyond its checkpoints."""

from __future__ import annotations

import collections
from typing import Any

from population.base.types import ActiveWorker, Checkpoint
from population.core.facts import texts_of
from population.core.known import check_id
from population.journal.base import Find
from population.run import structures
from population.run.open_run import OpenRun


def workers(run: OpenRun) -> list[ActiveWorker]:
    """What each slot works on."""
    run.check_open()
    with run.lock.lock:
        return [run.active(worker_id) for worker_id in range(run.size)]


def newest(run: OpenRun, worker_id: Any) -> Checkpoint:
    """A slot's newest checkpoint."""
    run.check_open()
    with run.lock.lock:
        return run.state().slots[check_id(run.size, worker_id)].newest


def reachable(run: OpenRun) -> dict[int, Checkpoint]:
    """The checkpoints whose params may still be needed, by row."""
    run.check_open()
    with run.lock.lock, run.journal.reading():
        return run.reachable(run.state())


def diverged(run: OpenRun) -> list[int]:
    """How many values of each slot were NaN or infinite, by worker id."""
    with run.lock.lock:
        rows = run.journal.checkpoints(Find(diverged=True))
    found = collections.Counter(row.worker_id for row in rows)
    return [found[worker_id] for worker_id in range(run.size)]


def space(run: OpenRun) -> Any:
    """What the meta_params of a run may be, as it was recorded; or None."""
    with run.lock.lock:
        facts = texts_of(run.journal)
    return structures.recorded_space(facts)
