"""A run that is opened again with a larger `stop` is the run that had it at once."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from population import Keep, Mutator, PopulationController, Stop
from population.mutators import (
    BranchingSingleMachine,
    FixedSchedule,
    MultiFrequencyPBT,
    PopulationBasedTraining,
    WinnerTakeAllGenetic,
)
from population.space import LogUniform, Perturb
from tests import probe
from tests.helpers import Clock, told

SPACE = {"lr": LogUniform(1e-3, 1.0)}
EXPLORE = Perturb(SPACE)
# Of the mutator's state, which may name generations.
_CHECKSUM = re.compile(r'(INSERT INTO "state" .*),\d+\);')
_NOT_COMPARED = (
    'INSERT INTO "sessions"',
    'INSERT INTO "leases"',
    'INSERT INTO "facts" VALUES(\'session ',
)
_SAVE = re.compile(r"-[0-9a-f]{8}-[0-9a-f]{8}\.safetensors")


def one_way(meta_params: Any, direction: str, cycle: int) -> Any:
    """Smaller or larger by a third."""
    del cycle
    factor = 1.5 if direction == "pos" else 1 / 1.5
    return {"lr": meta_params["lr"] * factor}


# With a decision at step 20, and with one only later.
POLICIES: dict[str, tuple[Callable[[], Mutator[Any]], int]] = {
    "winner, at 20": (lambda: WinnerTakeAllGenetic(EXPLORE, 5, synchronous=True), 3),
    "winner, later": (lambda: WinnerTakeAllGenetic(EXPLORE, 7, synchronous=True), 3),
    "pbt, at 20": (lambda: PopulationBasedTraining(EXPLORE, 4, synchronous=True), 4),
    "pbt, later": (lambda: PopulationBasedTraining(EXPLORE, 6, synchronous=True), 4),
    "multi, at 20": (lambda: MultiFrequencyPBT(EXPLORE, 5, (1, 2)), 8),
    "explore": (lambda: BranchingSingleMachine(one_way, 4, 3), 1),
    "fixed, at 20": (
        lambda: FixedSchedule({0: {"lr": 0.1}, 20: {"lr": 0.01}, 30: {"lr": 0.3}}),
        2,
    ),
}


def open_run(folder: pathlib.Path, name: str, steps: int) -> PopulationController:
    """A run that ends at a step, with a clock that stands still."""
    make, size = POLICIES[name]
    return PopulationController.from_space(
        SPACE,
        size,
        make(),
        folder,
        stop=Stop(steps=steps),
        keep=Keep(everything=True),
        clock=Clock(),
    )


def train(controller: PopulationController) -> None:
    """Train the members in turn, a step at a time, as long as they have not to wait."""
    size = len(controller.workers)
    states: dict[tuple[str, int], Any] = {}
    while not controller.finished:
        for worker_id in range(size):
            slot = controller.workers[worker_id]
            if slot.wait_at is not None and slot.step >= slot.wait_at:
                continue
            place = slot.generation_id, slot.step
            if place not in states:
                states[place] = _restored(controller, worker_id)
            w = states.pop(place) * (1 - slot.meta_params["lr"]) + 0.01
            step, value = slot.step + 1, float(w**2)
            states[slot.generation_id, step] = w
            report = worker_id, slot.generation_id, step, {"w": w}, value
            controller.set_eval(*report)


def _restored(controller: PopulationController, worker_id: int) -> Any:
    found = controller.maybe_get_worker_data(worker_id, None, 0, None, None)
    assert found is not None
    if found.params is None:
        return np.float64(1.0 + worker_id)
    return found.params["w"]


def recorded(controller: PopulationController) -> list[str]:
    """The content of the journal, without random names and who has opened the run."""
    token = probe.run_token(controller)
    found = []
    for line in probe.connection(controller).iterdump():
        if not line.startswith(_NOT_COMPARED):
            line = _SAVE.sub("", line.replace(token, "run"))
            found.append(_CHECKSUM.sub(r"\1", line))
    return sorted(found)


def decided(controller: PopulationController) -> list[Any]:
    """The history, without the random part of the names of saves."""
    return [
        tuple(_SAVE.sub("", part) if isinstance(part, str) else part for part in row)
        for row in told(controller)
    ]


def states(controller: PopulationController) -> list[float]:
    """All states that were saved, in recorded order."""
    saved = [c for c in controller.history() if c.params is not None]
    return [float(controller.load(checkpoint)["w"]) for checkpoint in saved]


@pytest.mark.parametrize("name", POLICIES)
def test_twenty_steps_and_then_forty_are_forty_at_once(
    tmp_path: pathlib.Path, name: str
) -> None:
    """States, decisions and journals are equal; so they are without one at the end."""
    first = open_run(tmp_path / "twice", name, 20)
    train(first)
    first.close()
    again = open_run(tmp_path / "twice", name, 40)
    assert not again.finished
    train(again)
    at_once = open_run(tmp_path / "once", name, 40)
    train(at_once)
    assert decided(again) == decided(at_once)
    assert states(again) == states(at_once)
    assert recorded(again) == recorded(at_once)
    assert probe.decisions(again) == probe.decisions(at_once)
    again.close()
    at_once.close()
