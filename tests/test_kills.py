"""Processes that share a run are killed, at random and between two looks of another.

Each save of an acknowledged report that may still be needed stays.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

import population
from population import Checkpoint, PopulationController
from population.base.types import Saved
from population.mutators import WinnerTakeAllGenetic
from tests import kill_child
from tests.helpers import assert_is_a_forest

ROOT = pathlib.Path(__file__).parent.parent
LEFT_OVER = 0


def in_a_process(call: str, timeout_s: float = 600) -> None:
    """Call a function of `kill_child` in a new process."""
    subprocess.run(
        [sys.executable, "-c", f"from tests import kill_child; kill_child.{call}"],
        cwd=ROOT,
        check=True,
        timeout=timeout_s,
    )


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_who_reports_and_is_gone_between_two_looks_of_a_tidying_loses_nothing(
    how: str, tmp_path: pathlib.Path
) -> None:
    """At each look the other process knows of its death or of its report."""
    in_a_process(f"race({str(tmp_path)!r}, {how!r})")
    looks = int((tmp_path / "looks").read_text())
    assert looks >= 6  # Polls, sessions, saves, removals, generations.
    for number in range(1, looks + 1):
        controller = kill_child.opened(tmp_path / str(number))
        best = controller.best()
        assert best is not None
        assert best.value == 1.0
        for ref in controller.reachable():
            controller.load(controller.graph.checkpoint(ref))
        assert best.ref in controller.reachable()
        controller.close()


# Kills at random moments.


def check_kills(folder: pathlib.Path, seed: int, kills: int) -> None:
    """Check all promises about a run whose loops were killed this often."""
    in_a_process(f"kill_often({str(folder)!r}, {seed}, {kills})")
    lines = (folder / "acknowledged").read_text().splitlines()
    assert len(lines) > kills
    controller = kill_child.opened(folder / "run")
    recorded = {tuple(c.ref): c.value for c in controller.history()}
    for line in lines:
        generation_id, step, w = line.split()
        assert recorded[generation_id, int(step)] == float(w)
    assert_is_a_forest(controller.graph)
    check_weights(controller)
    kill_child.report(controller, 0, 1.0)  # It removes leftovers.
    check_weights(controller)
    saved = {c.params for c in controller.history() if isinstance(c.params, Saved)}
    controller.close()
    there = (folder / "run" / "params").rglob("*-*")
    files = {file for file in there if file.is_file()}
    named = {folder / "run" / "params" / params.path for params in saved}
    assert named <= files
    assert len(files - named) <= LEFT_OVER, (
        f"{len(files)} {len(files - named)} left over"
    )
    found = population.replay(
        folder / "run", WinnerTakeAllGenetic(kill_child.mutate, 3)
    )
    assert found.updates > kills
    assert found.first_difference is None, found


def check_weights(controller: PopulationController) -> None:
    """Params that may still be needed can be loaded, and are the reported ones."""
    reachable = controller.reachable()
    assert len(reachable) >= kill_child.SLOTS
    for ref in reachable:
        checkpoint = controller.graph.checkpoint(ref)
        arrays = controller.load(checkpoint)
        assert arrays["w"].tolist() == [source(controller, checkpoint).value] * 3


def source(controller: PopulationController, checkpoint: Checkpoint) -> Checkpoint:
    """The report of a checkpoint's params: a root copies those of its parent."""
    while checkpoint.value is None and checkpoint.parent is not None:
        checkpoint = controller.graph.checkpoint(checkpoint.parent)
    return checkpoint


def test_loops_that_are_killed_at_any_moments_lose_nothing(
    tmp_path: pathlib.Path,
) -> None:
    """300 kills of four processes that share a run, also while they open it."""
    check_kills(tmp_path, 0, 300)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_loops_that_are_killed_very_often_lose_nothing(
    seed: int, tmp_path: pathlib.Path
) -> None:
    """The test with 300 kills, for longer."""
    check_kills(tmp_path, seed, 500)
