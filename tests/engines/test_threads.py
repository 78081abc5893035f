"""The threads engine: turns, errors, Ctrl-C, and the same run whatever the timing."""

from __future__ import annotations

import os
import pathlib
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from population import PopulationController, Stop, Worker
from population.engines import threads
from population.mutators import FixedSchedule, WinnerTakeAllGenetic

Meta = dict[str, float]


def mutate(meta_params: Meta, rng: np.random.Generator) -> Meta:
    """Move the number a little."""
    return {"h": meta_params["h"] + 0.1 * float(rng.normal())}


def train(worker: Worker) -> None:
    """Move the weights towards h; the value is their distance to zero."""
    state = jnp.ones(2)
    while worker.running:
        if worker.poll():
            state = worker.restore(lambda meta: jnp.ones(2))
        state = state + 0.1 * (worker.meta_params["h"] - state)
        worker.step += 1
        if worker.step % 5 == 0:
            worker.report(jnp.abs(state).sum(), state)


def controller(
    size: int, log_dir: pathlib.Path | None = None, steps: int = 40
) -> PopulationController:
    """A synchronous population that ends at `steps`."""
    return PopulationController(
        [{"h": 1.0 + i} for i in range(size)],
        WinnerTakeAllGenetic(mutate, steps_per_exploit=10, synchronous=True),
        log_dir,
        stop=Stop(steps=steps),
    )


def decisions(found: PopulationController) -> list[tuple[object, ...]]:
    """Every branch of a run, without the run's token."""
    return sorted(
        (c.worker_id, int(c.generation_id.split("-")[2]), c.step, c.meta_params["h"])
        for generation_id in found.graph
        for c in [found.graph.root(generation_id)]
    )


@pytest.mark.parametrize(("size", "workers"), [(4, 4), (5, 2), (2, 4), (3, 1)])
def test_every_slot_reaches_the_end_with_any_number_of_threads(
    size: int, workers: int
) -> None:
    """Fewer threads take turns, spare threads wait, and all of them end."""
    run = controller(size)
    summary = threads.run(train, run, workers, progress=False)
    assert run.finished
    assert [worker.step for worker in run.workers] == [40] * size
    assert summary.num_workers == workers
    assert not summary.interrupted
    assert 0 < summary.overhead < 1


def test_the_number_of_threads_changes_no_decision() -> None:
    """A synchronous run is the same with one thread, with two and with four."""
    found = []
    for workers in (1, 2, 4):
        run = controller(4)
        threads.run(train, run, workers, progress=False)
        found.append(decisions(run))
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 4 * (1 + 4)


def test_an_interrupted_run_goes_on_to_the_same_end(tmp_path: pathlib.Path) -> None:
    """Ctrl-C ends the run, and the same command then makes the same decisions."""
    run = controller(4, tmp_path)

    def interrupted(worker: Worker) -> None:
        if worker.worker_id == 0:
            train_until(worker, 15)
            raise_in_main_thread()
            while worker.running:  # Holds its slot, so the others cannot finish.
                worker.poll()
        train(worker)

    summary = threads.run(interrupted, run, progress=False)
    assert summary.interrupted
    assert not run.finished
    run.close()
    again = controller(4, tmp_path)
    threads.run(train, again, progress=False)
    whole = controller(4)
    threads.run(train, whole, progress=False)
    assert again.finished
    # The slot that was interrupted may have one more generation.
    found, wanted = again.workers, whole.workers
    assert [w.meta_params for w in found] == [w.meta_params for w in wanted]


def test_an_interrupted_run_waits_for_every_thread() -> None:
    """It waits for a slow last save: no thread trains after `run` has returned."""
    run = controller(2, steps=10**9)
    both = threading.Barrier(2)
    over = []

    def slow_to_end(worker: Worker) -> None:
        if both.wait() == 0:
            os.kill(os.getpid(), signal.SIGINT)
        while worker.running:
            worker.poll()
        threading.Event().wait(0.5)
        over.append(worker.worker_id)

    summary = threads.run(slow_to_end, run, progress=False)
    assert summary.interrupted
    assert sorted(over) == [0, 1]


def train_until(worker: Worker, step: int) -> None:
    """Train like `train` up to a step."""
    state = jnp.ones(2)
    while worker.running and worker.step < step:
        if worker.poll():
            state = worker.restore(lambda meta: jnp.ones(2))
        state = state + 0.1 * (worker.meta_params["h"] - state)
        worker.step += 1
        if worker.step % 5 == 0:
            worker.report(jnp.abs(state).sum(), state)


def raise_in_main_thread() -> None:
    """Raise what a terminal raises at Ctrl-C."""
    import _thread

    _thread.interrupt_main()


def test_the_first_error_stops_all_and_names_its_worker() -> None:
    """An exception in one thread ends the others and reaches the caller."""
    run = controller(3, steps=10**9)

    def failing(worker: Worker) -> None:
        if worker.worker_id == 0:  # The slot that the first thread always claims.
            raise ZeroDivisionError("on purpose")
        train(worker)

    with pytest.raises(ZeroDivisionError, match="on purpose") as caught:
        threads.run(failing, run, progress=False)
    assert any("worker 0" in note for note in caught.value.__notes__)
    assert threading.active_count() < 20


def test_an_error_ends_threads_that_wait_for_a_slot() -> None:
    """A spare thread that never got a slot does not keep the run from ending."""
    run = controller(1, steps=10**9)

    def failing(worker: Worker) -> None:
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        threads.run(failing, run, 4, progress=False)


def test_each_worker_gets_its_device() -> None:
    """The named devices are assigned in turns, and are the default in `train`."""
    seen, both = [], threading.Barrier(2)
    run = PopulationController(
        [{"h": 0.0}] * 2, FixedSchedule({0: {"h": 0.0}}), stop=Stop(steps=5)
    )

    def record(worker: Worker) -> None:
        seen.append((worker.device, jnp.zeros(1).devices()))
        both.wait(30)  # Otherwise the first worker might train both slots to their end.
        train(worker)

    device = jax.local_devices()[0]
    threads.run(record, run, devices=[device], progress=False)
    assert seen == [(device, {device})] * 2


def test_a_bad_number_of_threads_is_refused() -> None:
    """The message says what is needed and what was given."""
    with pytest.raises(ValueError, match="num_workers must be a positive int, got 0"):
        threads.run(train, controller(1), 0)


def test_bars_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A user sees how far the population is."""
    threads.run(train, controller(2), progress=True)
    shown = capsys.readouterr().out
    assert "2 workers  40/40 steps" in shown


def test_a_large_population_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """It is the same one, where there is no terminal."""
    threads.run(train, controller(17, steps=10), 2, progress=True)
    assert "17 workers" in capsys.readouterr().out
