"""Makes the stored run of the present format; run once, before a format is released.

    python -m tests.data.make tests/data/format-5

Beside it goes a JSON file with the history from the journal's own view, for the
test that reads both for ever. The first released code made `format-1`. Code without
params in the memory of a process made `format-2`. Code that recorded absolute paths in
the run folder made `format-3`. Code that recorded no failures of members made
`format-4`.
"""

from __future__ import annotations

import json
import math
import pathlib
import sqlite3
import sys
from typing import Any

import numpy as np
import pytest

from population import PopulationController, Start
from population.base.types import InMemory
from population.core import statuses
from population.mutators import WinnerTakeAllGenetic
from tests import probe
from tests.helpers import Clock

Meta = dict[str, Any]
SIZE, SEED = 3, 7
_BEGAN = 1_790_000_000.0  # Long ago, so that no reader of the run finds a fresh lease.
_HISTORY = """
SELECT generation_id, step, worker_id, params, meta_params, has_value, value, metrics,
    parent_generation_id, parent_step, time, reason
FROM history ORDER BY row"""


def mutate(meta_params: Meta, rng: np.random.Generator) -> Meta:
    """Another number, the same layers."""
    return {**meta_params, "h": meta_params["h"] + float(rng.normal())}


def opened(folder: pathlib.Path, **options: Any) -> PopulationController:
    """Make a run of this kind, or open it again."""
    starts: list[Any] = [{"h": float(i + 1), "layers": (1, 2)} for i in range(SIZE)]
    starts[1] = Start(starts[1], "trained elsewhere", 2)
    mutator = WinnerTakeAllGenetic(mutate, 4)
    return PopulationController(starts, mutator, folder, seed=SEED, **options)


def tick(controller: PopulationController, count: int = 1) -> None:
    """Train the slot with the fewest steps; some values are late, some are NaN."""
    for _ in range(count):
        workers = controller.workers
        slot = min(range(SIZE), key=lambda w: workers[w].step)
        at = workers[slot]
        step = at.step + 1
        params: Any = f"at {step}" if step % 3 else {"w": np.full(2, float(step))}
        value = math.nan if (slot, step) == (2, 7) else abs(at.meta_params["h"]) + step
        report = slot, at.generation_id, step, params
        late = step % 5 == 0
        controller.set_eval(*report, None if late else value)
        if late:
            controller.set_eval(slot, at.generation_id, step, None, value, {"n": step})


def make(folder: pathlib.Path) -> None:
    """A run that contains everything that the format can record."""
    probe.pretend_host(pytest.MonkeyPatch(), "a-host", "/")
    clock = Clock(_BEGAN)
    controller = opened(folder, clock=clock, worker_timeout=60.0)
    hold(controller, clock)
    for number in range(40):
        clock.advance(1.0)
        tick(controller)
        if number == 20:
            probe.give_up(controller, {1})
    report_twice_and_reject(controller)
    clock.advance(1.0)
    tick(controller, 3)
    diverge_and_recover(controller, clock)
    retire_and_revive(controller)
    for number in range(3):
        clock.advance(1.0)
        controller.fail(1, f"it broke for the {number}. time")
    probe.give_up(controller, {2})
    leave_held(controller)
    controller.close()


def hold(controller: PopulationController, clock: Clock) -> None:
    """A process keeps the weights of all slots in memory, and sometimes saves them."""
    controller.claim_all()
    for number in range(1, 14):
        clock.advance(1.0)
        reports: list[Any] = []
        for slot, at in enumerate(controller.workers):
            step, saves = at.step + 1, number % 5 == 0
            params: Any = {"w": np.full(2, float(step))} if saves else InMemory()
            diverges = (slot, number) == (2, 7)
            value = abs(at.meta_params["h"]) + (math.nan if diverges else 100.0 - step)
            reports.append((slot, at.generation_id, step, params, value))
        controller.set_evals(reports)
        if number % 4 == 3:
            slot, name, step = reports[1][:3]
            controller.set_eval(slot, name, step, f"late at {step}", None)
    probe.release_all(controller)


def leave_held(controller: PopulationController) -> None:
    """A loop ends with weights in its memory: its newest ones, and the best."""
    for value in (-1000.0, 50.0):
        at = controller.workers[0]
        controller.set_eval(0, at.generation_id, at.step + 1, InMemory(), value)


def report_twice_and_reject(controller: PopulationController) -> None:
    """A worker trains a slot, another takes it over and finds the save damaged."""
    first = controller.worker(0)
    first.poll()
    first.step += 1
    first.report(5.0, {"w": np.full(2, float(first.step))})
    first.step += 1
    first.report(4.0, {"w": np.full(2, float(first.step))})
    second = controller.worker(0)
    second.poll()
    second.reject("a bad sector")
    second.poll()
    second.step += 1
    second.report(3.0, second.save_to)  # Only at a step where it would be saved.


def diverge_and_recover(controller: PopulationController, clock: Clock) -> None:
    """Slot 2 is set back; then it trains on, and its metrics come late."""
    at = controller.workers[2]
    controller.set_eval(2, at.generation_id, at.step + 1, None, math.inf)
    found = controller.maybe_get_worker_data(2, None, 0, None, None)
    assert found is not None
    for step in range(found.step + 1, found.step + 3):
        clock.advance(1.0)
        report = 2, found.generation_id, step, f"at {step}"
        controller.set_eval(*report, 500.0)
        controller.set_eval(2, found.generation_id, step, None, None, {"late": step})


def retire_and_revive(controller: PopulationController) -> None:
    """Slot 0 is finished by a decision, and brought back."""
    controller.open_run.transact(
        lambda tx: tx.do(statuses.retired(tx.state, 0, "it is the worst", tx.at))
    )
    controller.revive(0)


def history(folder: pathlib.Path) -> list[list[Any]]:
    """What the view of the journal says, read without the library."""
    connection = sqlite3.connect(folder / "journal.sqlite")
    try:
        rows = connection.execute(_HISTORY).fetchall()
    finally:
        connection.close()
    return [list(row) for row in rows]


def main(arguments: list[str]) -> None:
    """Make the run in the folder that the argument names."""
    folder = pathlib.Path(arguments[0])
    if folder.exists():
        raise SystemExit(f"{folder} exists, and what is released must not change.")
    make(folder)
    lines = ",\n".join(json.dumps(row) for row in history(folder))
    folder.with_suffix(".json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    from tests.data import make as module  # Else its functions are those of `__main__`.

    module.main(sys.argv[1:])
