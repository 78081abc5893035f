"""Regressions from a review: lost arrays, runs that hang, shared values."""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import math
import pathlib
import threading
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from population import (
    Branch,
    JournalError,
    Mutator,
    PopulationController,
    PopulationView,
    Report,
    Start,
    Stop,
    Worker,
)
from population.engines import threads
from population.mutators import FixedSchedule, WinnerTakeAllGenetic
from tests.helpers import Scripted

Meta = dict[str, float]


def mutate(meta_params: Meta, rng: np.random.Generator) -> Meta:
    """Move the number a little."""
    return {"h": meta_params["h"] + 0.1 * float(rng.normal())}


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("bad", [{0}, {0, 1, 2, 3, 4, 5}])
def test_divergence_at_a_barrier_does_not_stop_a_synchronous_run(
    on_disk: bool, bad: set[int], tmp_path: pathlib.Path
) -> None:
    """A worker that reports NaN at the barrier has arrived, and the round closes."""
    run = PopulationController(
        [{"h": float(i)} for i in range(6)],
        WinnerTakeAllGenetic(mutate, 10, synchronous=True),
        tmp_path if on_disk else None,
        stop=Stop(steps=30, reports=400),
    )

    def train(worker: Worker) -> None:
        state = jnp.zeros(2)
        while worker.running:
            if worker.poll():
                state = worker.restore(lambda meta: jnp.zeros(2))
            worker.step += 1
            if worker.step % 5 == 0:
                diverges = worker.worker_id in bad and worker.step == 10
                first = len(run.graph) <= 6 + len(bad)
                value = math.nan if diverges and first else 1.0 + worker.worker_id
                worker.report(value, state)

    thread = threading.Thread(
        target=lambda: threads.run(train, run, 1, progress=False), daemon=True
    )
    thread.start()
    thread.join(60)
    if thread.is_alive():
        faulthandler.dump_traceback(all_threads=True)  # It must not hang.
    assert not thread.is_alive(), [worker.step for worker in run.workers]
    assert run.finished
    assert all(worker.step >= 30 for worker in run.workers) or len(bad) == 6


def test_trained_weights_of_a_start_outlive_late_divergence() -> None:
    """A value without params keeps nothing; the last saved params stay."""
    run = PopulationController(
        [Start({"h": 0.0}, np.full(3, 7.0), step=10), {"h": 1.0}], Scripted()
    )
    ids = [worker.generation_id for worker in run.workers]
    run.set_eval(1, ids[1], 1, np.zeros(3), 0.001)  # The best: nothing else is kept.
    run.set_eval(0, ids[0], 20, np.full(3, 8.0), 3.0)
    run.set_eval(0, ids[0], 25, None, 2.5)
    for step in range(30, 36):
        run.set_eval(0, ids[0], step, np.full(3, float(step)), None)
    for step in range(30, 36):
        run.set_eval(0, ids[0], step, None, math.nan)
    found = run.maybe_get_worker_data(0, None, 0, None, None)
    assert found is not None
    assert found.step == 20
    np.testing.assert_array_equal(found.params, np.full(3, 8.0))


def test_what_was_handed_out_can_be_restored_after_another_branch() -> None:
    """Arrays stay until the worker that got them has reported."""
    run = PopulationController(
        [{"h": 0.0}, {"h": 1.0}], WinnerTakeAllGenetic(mutate, steps_per_exploit=5)
    )
    worker = run.worker(0)
    other = run.worker(1)

    def report(slot: int, step: int, fill: float) -> None:
        generation_id = run.workers[slot].generation_id
        run.set_eval(slot, generation_id, step, np.full(2, fill), 1.0 / fill)

    for step in (5, 10, 15, 20, 25):
        if step == 10:
            assert worker.poll()
        report(0, step, 10.0 + step)
        report(1, step, 50.0 + step)
    state = worker.restore(lambda meta: np.zeros(2))
    assert state[0] > 0
    other.release()


def test_a_caller_may_change_what_it_reported() -> None:
    """Plain params are copied by the report and by the poll."""
    run = PopulationController([{"h": 0.0}] * 2, WinnerTakeAllGenetic(mutate, 5))
    ids = [worker.generation_id for worker in run.workers]
    params = {"a": 1.0}
    run.set_eval(0, ids[0], 10, params, 0.1)
    params["a"] = 99.0
    run.workers[0].params["a"] = 98.0
    run.set_eval(1, ids[1], 10, {"a": 2.0}, 0.2)
    assert [worker.params for worker in run.workers] == [{"a": 1.0}] * 2
    assert [c.params for c in run.history()][-2:] == [{"a": 1.0}] * 2


def test_a_state_of_plain_numbers_is_restored(tmp_path: pathlib.Path) -> None:
    """Any tree that a worker reports is restored, with or without arrays."""
    for log_dir in (None, tmp_path):
        run = PopulationController([{"h": 0.0}], Scripted(), log_dir)
        with run.worker() as worker:
            assert worker.poll()
            worker.step = 3
            worker.report(1.0, {"x": 1.5})
        with run.worker() as worker:
            assert worker.poll()
            assert worker.restore(lambda meta: {"x": 0.0}) == {"x": 1.5}


def test_a_repeated_report_of_dropped_arrays_changes_nothing() -> None:
    """A report may be repeated for ever, also one whose arrays were dropped."""
    run = PopulationController([{"h": 0.0}], Scripted())
    generation_id = run.workers[0].generation_id
    for step in range(1, 6):
        run.set_eval(0, generation_id, step, np.zeros(2), 1.0 / step)
    before = [(c.ref, c.value) for c in run.history()]
    for _ in range(3):
        run.set_eval(0, generation_id, 2, np.zeros(2), 0.5)
    assert [(c.ref, c.value) for c in run.history()] == before
    assert list(run.graph[generation_id]) == [0, 1, 2, 3, 4, 5]


def test_turns_count_saves_without_a_value() -> None:
    """A loop whose values come from elsewhere changes slots, too."""
    run = PopulationController([{"h": 0.0}] * 2, FixedSchedule({0: {"h": 0.0}}))
    with run.worker() as worker:
        for _ in range(60):
            worker.poll()
            worker.step += 1
            worker.report(None, {"w": worker.step})
    assert min(worker.step for worker in run.workers) > 10


def test_a_rolled_back_report_does_not_claim_the_weights() -> None:
    """If a report fails, a loop that keeps its own weights is not reset."""

    class Failing(Mutator[None]):
        def init(self, view: PopulationView) -> None:
            """Remember nothing."""

        def update(
            self, state: None, report: Report, view: PopulationView
        ) -> tuple[None, Mapping[int, Branch]]:
            """Look, then raise if there are params."""
            view.graph.resume_point(report.checkpoint)
            if report.checkpoint.params is not None:
                raise ZeroDivisionError("on purpose")
            return None, {}

    run = PopulationController([{"h": 0.0}], Failing())
    generation_id = run.workers[0].generation_id
    run.set_eval(0, generation_id, 1, None, 1.0)
    with pytest.raises(ZeroDivisionError):
        run.set_eval(0, generation_id, 2, "path", 1.0)
    found = run.maybe_get_worker_data(0, None, 0, None, None)
    assert found is not None
    assert found.step == 1


def test_a_state_that_could_not_be_read_back_is_refused_at_once() -> None:
    """The author of a mutator learns it at the start, not after the first crash."""

    @dataclasses.dataclass
    class Hidden:
        value: int

    class Listed(Mutator[Any]):
        def init(self, view: PopulationView) -> Any:
            """A bare list does not say the type of its items."""
            return [Hidden(0)]

        def update(
            self, state: Any, report: Report, view: PopulationView
        ) -> tuple[Any, Mapping[int, Branch]]:
            """Never branches."""
            return state, {}

    with pytest.raises(TypeError, match=r"Listed\.init must return a state"):
        PopulationController([{"h": 0.0}], Listed())


def test_closing_ends_a_worker_that_waits() -> None:
    """No worker waits for a slot of a closed run."""
    run = PopulationController([{"h": 0.0}], Scripted())
    holder = run.worker()

    def claim() -> None:
        with contextlib.suppress(JournalError):  # The close may come after the end.
            run.worker()

    thread = threading.Thread(target=claim, daemon=True)
    thread.start()
    run.close()
    thread.join(30)
    assert not thread.is_alive()
    assert not holder.running


def test_reports_of_strangers_leave_no_files(tmp_path: pathlib.Path) -> None:
    """Whatever the unknown generation is called, no file is written."""
    run = PopulationController([{"h": 0.0}], Scripted(), tmp_path / "run")
    for name in ("stranger", "../../outside"):
        run.set_eval(0, name, 1, {"w": np.zeros(2)}, 1.0)
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "run" / "params").exists()


def test_an_emptied_journal_beside_params_is_damaged(tmp_path: pathlib.Path) -> None:
    """A file that was truncated to nothing does not count as a new run."""
    run = PopulationController([{"h": 0.0}], Scripted(), tmp_path)
    run.set_eval(0, run.workers[0].generation_id, 1, {"w": np.zeros(2)}, 1.0)
    run.close()
    (tmp_path / "journal.sqlite").write_bytes(b"")
    with pytest.raises(JournalError, match="is empty, but a run was recorded there"):
        PopulationController([{"h": 0.0}], Scripted(), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initial_population": {"h": 1.0}}, "must be a list with the meta_params"),
        ({"initial_population": 4}, "must be a list with the meta_params"),
        ({"stop": 5}, "stop must be a population.Stop, got int"),
    ],
)
def test_arguments_of_another_kind_are_refused(
    change: dict[str, Any], message: str
) -> None:
    """A string or a number is not a population."""
    arguments: dict[str, Any] = {"initial_population": [{"h": 1.0}], **change}
    with pytest.raises(TypeError, match=message):
        PopulationController(mutator=Scripted(), **arguments)


def test_a_schedule_that_cannot_be_stored_is_refused_at_once() -> None:
    """The constructor refuses it, not a decision in the middle of training."""
    with pytest.raises(TypeError, match="schedule"):
        FixedSchedule({5: {"h": object()}})


def test_a_mutator_cannot_write_into_the_view() -> None:
    """The arrays of the view are the controller's."""

    class Writing(Mutator[None]):
        def init(self, view: PopulationView) -> None:
            """Remember nothing."""

        def update(
            self, state: None, report: Report, view: PopulationView
        ) -> tuple[None, Mapping[int, Branch]]:
            """Try to write into the view."""
            view.scores[0] = 0.0
            return None, {}

    run = PopulationController([{"h": 0.0}] * 2, Writing())
    with pytest.raises(ValueError, match="read-only"):
        run.set_eval(0, run.workers[0].generation_id, 1, None, 1.0)
