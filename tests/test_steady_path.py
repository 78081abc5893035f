"""The usual report and poll: how few calls of Python functions they make."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import population
from population import PopulationController, Worker
from population.mutators import PopulationBasedTraining
from tests import probe

ROOM = str(pathlib.Path(population.__file__).parent)


def mutate(meta: float) -> float:
    """A mutation that is never called."""
    return meta


def trained(log_dir: pathlib.Path) -> tuple[PopulationController, Worker]:
    """A run on disk, and a worker that has reported several times."""
    policy = PopulationBasedTraining(mutate, steps_per_exploit=50)
    controller = PopulationController([1.0] * 4, policy, log_dir)
    worker = controller.worker(0)
    assert worker.poll()
    for step in range(1, 5):
        worker.step = step
        worker.poll()
        worker.report(float(step), f"at {step}")
    worker.step += 1
    return controller, worker


def calls(call: Callable[[], object]) -> list[tuple[str, str]]:
    """The file and name of each function of the library that a call executes."""
    found: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        del argument
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(ROOM):
            found.append((code.co_filename, code.co_name))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return found


def test_a_report_of_a_path_is_a_short_way(tmp_path: pathlib.Path) -> None:
    """It makes at most 45 calls of Python functions, in 14 files."""
    controller, worker = trained(tmp_path)
    found = calls(lambda: worker.report(9.0, "at 5"))
    assert len(found) <= 45, found
    assert len({file for file, _ in found}) <= 14
    assert controller.newest(0).params == "at 5"
    worker.release()
    controller.close()


def test_a_poll_without_news_is_a_glance(tmp_path: pathlib.Path) -> None:
    """It makes at most 15 calls, and one look at the file; with the two calls, too."""
    controller, worker = trained(tmp_path)
    statements: list[str] = []
    probe.connection(controller).set_trace_callback(statements.append)
    generation_id = worker.generation_id
    for poll in (
        worker.poll,
        lambda: controller.maybe_get_worker_data(0, generation_id, 5, None, None),
    ):
        statements.clear()
        found = calls(poll)
        assert len(found) <= 15, found
        assert statements == ["PRAGMA data_version"]
    probe.connection(controller).set_trace_callback(None)
    worker.release()
    controller.close()
