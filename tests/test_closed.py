"""A closed run raises, and a dropped controller closes its run."""

from __future__ import annotations

import gc
import logging
import pathlib
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from population import JournalError, PopulationController, Stop
from population.engines import processes, threads, vectorized
from population.mutators import FixedSchedule
from tests import probe
from tests.helpers import generation

Call = Callable[[PopulationController, str, Any], object]
CALLS: dict[str, Call] = {
    "poll": lambda run, name, best: run.maybe_get_worker_data(0, name, 1, None, None),
    "first poll": lambda run, name, best: run.maybe_get_worker_data(
        0, None, 0, None, None
    ),
    "report": lambda run, name, best: run.set_eval(0, name, 2, "x", 1.0),
    "arrays": lambda run, name, best: run.set_eval(0, name, 2, {"w": np.ones(1)}, 1.0),
    "reports": lambda run, name, best: run.set_evals([(0, name, 2, "x", 1.0)]),
    "claim": lambda run, name, best: run.worker(),
    "claim one": lambda run, name, best: run.worker(0),
    "claim all": lambda run, name, best: run.claim_all(),
    "workers": lambda run, name, best: run.workers,
    "best": lambda run, name, best: run.best(),
    "newest": lambda run, name, best: run.newest(0),
    "lineage": lambda run, name, best: run.lineage(best),
    "schedule": lambda run, name, best: run.schedule(best),
    "history": lambda run, name, best: list(run.history()),
    "load": lambda run, name, best: run.load(best),
    "reachable": lambda run, name, best: run.reachable(),
    "diverged": lambda run, name, best: run.diverged(),
    "space": lambda run, name, best: run.space,
    "graph": lambda run, name, best: run.graph[name][1],
    "generations": lambda run, name, best: list(run.graph),
    "find": lambda run, name, best: run.graph.find(1.0),
    "arguments": lambda run, name, best: run.arguments(),
    "lose": lambda run, name, best: probe.give_up(run, [0]),
}


def opened(log_dir: pathlib.Path | None, **options: Any) -> PopulationController:
    """A run of one worker."""
    return PopulationController([1.0], FixedSchedule({0: 1.0}), log_dir, **options)


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("name", CALLS)
def test_every_call_on_a_closed_run_says_so(
    name: str, on_disk: bool, tmp_path: pathlib.Path
) -> None:
    """No work is returned, nothing is saved, and the message says what to do."""
    controller = opened(tmp_path if on_disk else None)
    generation_id = generation(controller)
    controller.set_eval(0, generation_id, 1, {"w": np.ones(1)}, 1.0)
    best = controller.best()
    controller.close()
    controller.close()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(JournalError, match=r"This run is closed.*again"):
        CALLS[name](controller, generation_id, best)
    assert controller.finished
    assert sorted(tmp_path.rglob("*")) == before


def test_a_loop_on_a_run_that_is_closed_ends(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """To close the run ends all workers; a report is not lost without an error."""
    controller = opened(tmp_path)
    worker = controller.worker()
    assert worker.poll()
    worker.step += 1
    worker.report(1.0, {"w": np.ones(1)})
    controller.close()
    assert not worker.running
    assert not worker.poll()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            worker.step += 1
            worker.report(1.0, {"w": np.ones(1)})
    assert [r.getMessage() for r in caplog.records] == [
        "step 2 of worker 0 was not recorded: the run has ended, or its slot was given "
        "back. Report while worker.running, and before `with` ends."
    ]
    with pytest.raises(JournalError, match="This run is closed"):
        _ = worker.save_to
    with pytest.raises(JournalError, match="This run is closed"):
        worker.reject("damaged")
    worker.busy(1.0)
    worker.release()
    again = opened(tmp_path)
    assert again.workers[0].step == 1
    again.close()


def test_a_report_after_the_slot_was_given_back_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A loop with wrong indentation would train for hours without effect."""
    controller = opened(None, stop=Stop(steps=10))
    with controller.worker() as worker:
        worker.poll()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            worker.step += 1
            worker.report(1.0)
    assert len(caplog.records) == 1
    assert "was not recorded" in caplog.text


def test_a_dropped_controller_leaves_nothing_open(tmp_path: pathlib.Path) -> None:
    """Its connection is closed too, and the log is merged."""
    controller = opened(tmp_path)
    controller.set_eval(0, generation(controller), 1, "x", 1.0)
    log = tmp_path / "journal.sqlite-wal"
    assert log.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del controller
        gc.collect()
    assert not log.exists()


def test_the_end_of_a_program_closes_what_it_has_open(tmp_path: pathlib.Path) -> None:
    """Python gives no warning, also for a controller that was never closed."""
    code = (
        "import sys, warnings\n"
        "from tests import test_closed\n"
        "run = test_closed.opened(__import__('pathlib').Path(sys.argv[1]))\n"
        "run.set_eval(0, run.workers[0].generation_id, 1, 'x', 1.0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "sqlite" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "journal.sqlite-wal").exists()


def test_an_engine_does_not_begin_on_a_closed_run() -> None:
    """Otherwise it would seem that the run has ended."""
    controller = opened(None, stop=Stop(steps=2))
    controller.close()

    def nothing(*arguments: Any) -> Any:
        raise AssertionError("nothing is trained")

    calls: list[Callable[[], object]] = [
        lambda: threads.run(nothing, controller, progress=False),
        lambda: processes.run(nothing, controller, progress=False),
        lambda: vectorized.run(
            controller, nothing, nothing, nothing, 1, progress=False
        ),
    ]
    for call in calls:
        with pytest.raises(JournalError, match="This run is closed"):
            call()
