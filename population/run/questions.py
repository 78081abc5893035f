"""What can be asked of an open run, beyond its checkpoints."""

from __future__ import annotations

import collections
from typing import Any

from population.base.types import Checkpoint
from population.core.facts import texts_of
from population.journal.base import Find
from population.run import structures
from population.run.open_run import OpenRun


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
