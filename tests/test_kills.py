"""Processes that share a run are killed, at random and between two looks of another.

Whatever an acknowledged report has saved and something may still need stays.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from tests import kill_child

ROOT = pathlib.Path(__file__).parent.parent


def in_a_process(call: str, timeout_s: float = 600) -> None:
    """Have a function of `kill_child` called in a process of its own."""
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
    """The other process knows either of its death or of its report, at each look."""
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
