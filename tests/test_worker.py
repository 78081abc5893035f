"""The Worker loop: changing slots, waiting, takeovers, restarts, the end of a run."""

from __future__ import annotations

import logging
import math
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from population import (
    ParamsError,
    PopulationController,
    Start,
    Stop,
    Worker,
    hyperparams,
)
from population.base.types import InMemory, Saved
from population.core.retention import Keep
from population.mutators import FixedSchedule, WinnerTakeAllGenetic
from tests import probe

OPTIMISER = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
LIMIT_S = 30.0  # Much longer than any test needs; a thread that hangs is a failure.


def nudged(meta: Any, rng: np.random.Generator) -> Any:
    """Multiply the learning rate by some factor."""
    return {"learning_rate": meta["learning_rate"] * float(rng.uniform(0.5, 2.0))}


def rounds(steps: int = 2, *, synchronous: bool = True) -> WinnerTakeAllGenetic:
    """Winner takes all, with seeded mutations."""
    return WinnerTakeAllGenetic(nudged, steps, synchronous=synchronous)


def alone() -> FixedSchedule:
    """A policy that never branches."""
    return FixedSchedule(lambda step: None)


def population(size: int) -> list[Any]:
    """The hyperparameters of several workers."""
    return [{"learning_rate": 0.1 * (worker_id + 1)} for worker_id in range(size)]


def init(meta: Any) -> Any:
    """A fresh training state."""
    weights = jnp.ones(2)
    known = meta if isinstance(meta, dict) else {}
    opt_state = hyperparams.put(OPTIMISER.init(weights), known, strict=False)
    return {"weights": weights, "opt": opt_state, "steps": 0}


@jax.jit
def train_step(state: Any, key: jax.Array) -> Any:
    """One step towards zero, with noise from the key."""
    gradients = 2 * state["weights"] + 0.1 * jax.random.normal(key, (2,))
    updates, opt = OPTIMISER.update(gradients, state["opt"], state["weights"])
    weights = optax.apply_updates(state["weights"], updates)
    return {"weights": weights, "opt": opt, "steps": state["steps"] + 1}


def loss(state: Any) -> float:
    """The distance from zero."""
    return float(jnp.sum(state["weights"] ** 2))


def train(worker: Worker, steps: int = 10**6) -> None:
    """The loop of the README, with a report at each step, for some steps."""
    state: Any = None
    for _ in range(steps):
        if not worker.running:
            return
        if worker.poll():
            state = worker.restore(init)
            assert int(state["steps"]) == worker.step
        if not worker.running:
            return
        state = train_step(state, worker.key)
        worker.step += 1
        worker.report(loss(state), state, metrics={"step": worker.step})


def count_up(worker: Worker, save: bool = True) -> None:
    """Count one step without training, and report it."""
    worker.poll()
    worker.step += 1
    worker.report(1.0, f"{worker.worker_id} at {worker.step}" if save else None)


def in_threads(*loops: Callable[[], object]) -> None:
    """Run loops at the same time; fail if one raises or does not end."""
    errors: list[BaseException] = []

    def guarded(loop: Callable[[], object]) -> None:
        try:
            loop()
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=guarded, args=(loop,), daemon=True) for loop in loops
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert errors == []
    assert not any(thread.is_alive() for thread in threads), "a worker hangs"


@pytest.fixture
def make() -> Iterator[Callable[..., PopulationController]]:
    """A function that makes controllers, which are closed after the test."""
    made: list[PopulationController] = []

    def new(*arguments: Any, **options: Any) -> PopulationController:
        made.append(PopulationController(*arguments, **options))
        return made[-1]

    yield new
    for controller in made:
        controller.close()


Make = Callable[..., PopulationController]


def checkpoints(controller: PopulationController) -> list[Any]:
    """The whole history without random tokens, times and file names."""

    def short(ref: Any) -> Any:
        return ref and (ref.generation_id.split("-", 1)[1], ref.step)

    return sorted(
        (short(c.ref), short(c.parent) or (), c.value or 0.0, repr(c.meta_params))
        for c in controller.history()
    )


@pytest.mark.parametrize("on_disk", [True, False])
def test_the_loop_of_the_readme_trains_to_its_end(
    make: Make, tmp_path: pathlib.Path, on_disk: bool
) -> None:
    """One worker trains three slots to the end, and their losses are lower."""
    log_dir = tmp_path if on_disk else None
    controller = make(population(3), rounds(), log_dir, stop=Stop(steps=8))
    with controller.worker() as worker:
        train(worker)
        assert not worker.running
        assert not worker.poll()
    assert controller.finished
    assert [controller.newest(w).step for w in range(3)] == [8, 8, 8]
    best = controller.best()
    assert best is not None
    assert best.value is not None
    assert best.value < 0.5
    assert best.metrics == {"step": best.step}


def test_poll_is_true_at_the_start_and_after_a_branch(make: Make) -> None:
    """True means: call restore. Otherwise it is False."""
    controller = make([0.1], FixedSchedule({0: 0.1, 3: 0.2}))
    with controller.worker() as worker:
        news = []
        for _ in range(6):
            news.append(worker.poll())
            worker.step += 1
            worker.report(1.0, f"at {worker.step}")
        assert news == [True, False, False, True, False, False]
        assert (worker.meta_params, worker.generation_id[-4:]) == (0.2, "-0-1")


def test_polling_again_brings_no_news(make: Make) -> None:
    """Between two reports a loop may poll any number of times."""
    controller = make([0.1], alone())
    with controller.worker() as worker:
        assert worker.poll()
        for _ in range(3):
            assert not worker.poll()
            worker.step += 1
            assert not worker.poll()
        assert worker.step == 3


def test_a_worker_takes_turns_among_the_slots(make: Make) -> None:
    """After `turn` saved reports it changes to the slot with the fewest steps."""
    controller = make([0.1] * 3, alone(), stop=Stop(steps=8))
    trained = []
    with controller.worker() as worker:
        worker.turn = 2
        while worker.running:
            worker.poll()
            if not worker.running:
                break
            trained.append(worker.worker_id)
            worker.step += 1
            worker.report(1.0, f"at {worker.step}")
    assert trained[:9] == [0, 0, 1, 1, 2, 2, 2, 0, 0]  # At 2, 2, 2 no slot is behind.
    assert sorted(trained) == [0] * 8 + [1] * 8 + [2] * 8
    assert len(list(controller.graph)) == 3  # No slot has lost a step.


def test_a_turn_is_ten_saved_reports(make: Make) -> None:
    """Reports without a save do not count."""
    controller = make([0.1] * 2, alone())
    with controller.worker() as worker:
        for number in range(1, 21):
            count_up(worker, save=number % 2 == 0)
            assert worker.worker_id == 0
        worker.poll()
        assert worker.worker_id == 1


def test_a_turn_ends_where_nothing_has_to_be_trained_again(make: Make) -> None:
    """A slot is left at a saved checkpoint, never after it."""
    controller = make([0.1] * 2, alone())
    other = controller.worker(1)
    with controller.worker(0) as worker:
        worker.turn = 2
        for _ in range(2):
            count_up(worker)
        other.release()
        worker.step += 1
        worker.report(1.0)  # This report is not saved.
        worker.poll()
        count_up(worker)
        worker.poll()
    newest = controller.newest(0)
    assert newest.params is not None
    assert len(list(controller.graph)) == 2


def test_a_worker_with_one_slot_stays_there(make: Make) -> None:
    """If no slot has fewer steps, it stays."""
    controller = make([0.1], alone())
    with controller.worker() as worker:
        worker.turn = 1
        worker.poll()
        for _ in range(5):
            worker.step += 1
            worker.report(1.0, "saved")
            assert not worker.poll()


def test_a_slot_that_somebody_holds_is_not_taken_in_turn(make: Make) -> None:
    """Two workers share three slots, and each slot has one worker at a time."""
    controller = make([0.1] * 3, alone())
    first, second = controller.worker(), controller.worker()
    for worker in (first, second):
        worker.turn = 1
    seen = set()
    for _ in range(12):
        count_up(first)
        count_up(second)
        assert first.worker_id != second.worker_id
        seen |= {first.worker_id, second.worker_id}
    assert seen == {0, 1, 2}


def test_a_worker_without_an_id_takes_the_slot_with_the_fewest_steps(
    make: Make,
) -> None:
    """On ties it takes the lowest id."""
    controller = make(
        [Start(0.1, "a", 5), Start(0.1, "b", 3), Start(0.1, "c", 3)], alone()
    )
    claimed = []
    workers = [controller.worker() for _ in range(3)]
    for worker in workers:
        assert worker.poll()
        claimed.append((worker.worker_id, worker.step))
    assert claimed == [(1, 3), (2, 3), (0, 5)]


def test_a_worker_with_an_id_begins_with_that_slot(make: Make) -> None:
    """This holds even if another has fewer steps."""
    controller = make([0.1, 0.2, 0.3], alone())
    with controller.worker(2) as worker:
        assert worker.poll()
        assert (worker.worker_id, worker.meta_params) == (2, 0.3)


@pytest.mark.parametrize("worker_id", [-1, 3, 1.0, "0", True])
def test_a_worker_id_that_does_not_exist_is_refused(make: Make, worker_id: Any) -> None:
    """The message names the argument; no slot is claimed."""
    controller = make([0.1] * 3, alone())
    with pytest.raises((ValueError, TypeError), match="worker_id"):
        controller.worker(worker_id)
    claimed = [controller.worker() for _ in range(3)]
    assert all(worker.poll() for worker in claimed)


def test_a_slot_that_waits_is_put_aside(make: Make) -> None:
    """In a synchronous run one worker trains all slots to the barrier, then decides."""
    controller = make([{"learning_rate": 0.1}] * 3, rounds(3))
    with controller.worker() as worker:
        trained = []
        for _ in range(9):
            worker.poll()
            trained.append((worker.worker_id, worker.step))
            worker.step += 1
            worker.report(1.0, "saved")
        assert trained == [(w, s) for w in range(3) for s in range(3)]
        assert worker.poll()
        assert (worker.worker_id, worker.step) == (2, 3)
    assert [work.step for work in controller.workers] == [3, 3, 3]
    assert len(list(controller.graph)) == 6


def test_a_worker_waits_for_the_others_at_the_barrier(make: Make) -> None:
    """Of two workers with two slots, the first blocks until the decision has come."""
    controller = make(population(2), rounds(2), stop=Stop(steps=6))
    in_threads(*[lambda: train(controller.worker())] * 2)
    assert [controller.newest(w).step for w in range(2)] == [6, 6]
    assert len(list(controller.graph)) == 8


def test_waiting_ends_with_the_run(make: Make) -> None:
    """If the run ends while a worker waits, poll returns False."""
    controller = make(population(2), rounds(1), stop=Stop(reports=2))
    polled: list[bool] = []
    first, second = controller.worker(0), controller.worker(1)
    count_up(first)  # This slot waits now, and the other one is held.
    second.poll()

    def wait() -> None:
        polled.append(first.poll())

    def end() -> None:
        second.step += 1
        second.report(1.0, "last")

    in_threads(wait, end)
    assert polled == [False]
    assert not first.running


def test_a_worker_without_a_free_slot_waits_for_one(make: Make) -> None:
    """It gets the slot that another worker gives back."""
    controller = make([0.1], alone())
    first = controller.worker()
    count_up(first)
    found: list[tuple[int, int]] = []

    def wait() -> None:
        with controller.worker() as worker:
            worker.poll()
            found.append((worker.worker_id, worker.step))

    in_threads(wait, first.release)
    assert found == [(0, 1)]


def test_coming_back_to_the_same_slot_keeps_the_loops_state(make: Make) -> None:
    """Nothing has changed, so poll is False and nothing is loaded."""
    controller = make([0.1], alone())
    with controller.worker() as worker:
        count_up(worker)
        worker.release()
        assert not worker.poll()
        assert (worker.worker_id, worker.step) == (0, 1)
        worker.step += 1
        worker.report(1.0, "saved")
    assert controller.newest(0).step == 2
    assert len(list(controller.graph)) == 1


def test_coming_back_after_somebody_else_trained_is_news(make: Make) -> None:
    """The slot has been trained further: the loop has to restore."""
    controller = make([0.1], alone())
    first = controller.worker()
    count_up(first)
    first.release()
    with controller.worker() as second:
        count_up(second)
    assert first.poll()
    assert (first.step, first.load_from) == (2, "0 at 2")


def test_coming_back_with_unreported_steps_goes_back_to_the_report(make: Make) -> None:
    """Steps without a report are lost once the slot was given back."""
    controller = make([0.1], alone())
    worker = controller.worker()
    count_up(worker)
    worker.step += 5
    worker.release()
    assert worker.poll()
    assert worker.step == 1


def test_a_slot_that_was_given_back_keeps_its_generation(make: Make) -> None:
    """The next worker continues it; no new generation begins."""
    controller = make([0.1], alone())
    with controller.worker() as first:
        count_up(first)
        generation_id = first.generation_id
    with controller.worker() as second:
        assert second.poll()
        assert (second.generation_id, second.step) == (generation_id, 1)
    with controller.worker(0) as third:
        assert third.poll()
        assert third.generation_id == generation_id


def test_a_takeover_opens_a_new_generation(make: Make) -> None:
    """A claim of a held slot by its id begins at the same resume point."""
    controller = make([{"learning_rate": 0.1}], alone())
    first = controller.worker()
    count_up(first)
    count_up(first, save=False)
    second = controller.worker(0)
    assert second.poll()
    assert second.generation_id != first.generation_id
    assert (second.step, second.load_from) == (1, "0 at 1")
    assert second.meta_params == {"learning_rate": 0.1}
    root = controller.graph.root(second.generation_id)
    assert root.parent == (first.generation_id, 1)


def test_the_late_worker_is_fenced(make: Make) -> None:
    """Its reports are a side branch, and its next poll returns another slot."""
    controller = make([0.1, 0.2], alone())
    first = controller.worker(0)
    count_up(first)
    second = controller.worker(0)
    second.poll()
    first.step += 1
    first.report(0.0, "late")
    assert probe.newest(controller)[0].generation_id == second.generation_id
    assert controller.graph[first.generation_id][2].params == "late"
    late = controller.graph[first.generation_id][2]
    newest = probe.newest(controller)[0]
    assert late.ref not in [c.ref for c in controller.lineage(newest)]
    assert first.poll()
    assert first.worker_id == 1
    count_up(second)
    assert controller.newest(0).step == 2


def test_releasing_a_slot_that_was_lost_harms_nobody(make: Make) -> None:
    """The late worker's release does not free the slot of the new worker."""
    controller = make([0.1, 0.2], alone())
    with controller.worker(0) as first:
        first.poll()
        second = controller.worker(0)
    second.poll()
    third = controller.worker()
    assert third.poll()
    assert third.worker_id == 1


def test_an_exception_in_the_loop_gives_the_slot_back(make: Make) -> None:
    """The `with` statement releases the slot after any exception."""
    controller = make([0.1], alone())
    with pytest.raises(RuntimeError, match="out of memory"), controller.worker():
        raise RuntimeError("out of memory")
    with controller.worker() as worker:
        assert worker.poll()


def keys(controller: PopulationController, steps: int = 3) -> list[tuple[Any, ...]]:
    """The keys that each slot sees at each step."""
    found = []
    for worker_id in range(2):
        with controller.worker(worker_id) as worker:
            for _ in range(steps):
                worker.poll()
                key = jax.random.key_data(worker.key)
                found.append((worker.worker_id, worker.step, *np.asarray(key)))
                worker.step += 1
                worker.report(1.0, "saved")
    return found


def test_a_key_is_a_function_of_seed_worker_and_step(make: Make) -> None:
    """The same numbers for every worker at any time; others for other arguments."""
    first = keys(make([0.1] * 2, alone(), seed=1))
    assert keys(make([0.1] * 2, alone(), seed=1)) == first
    other = keys(make([0.1] * 2, alone(), seed=2))
    bits = [entry[2:] for entry in first + other]
    assert len(set(bits)) == 12


def test_a_key_does_not_depend_on_generations_or_restarts(
    make: Make, tmp_path: pathlib.Path
) -> None:
    """After a takeover or a restart a step has exactly the same key."""
    seen: dict[int, Any] = {}
    for _ in range(3):
        controller = make([0.1], FixedSchedule({0: 0.1, 2: 0.2}), tmp_path)
        controller.worker(0)
        with controller.worker(0) as worker:  # A takeover.
            worker.poll()
            for _ in range(3):
                data = np.asarray(jax.random.key_data(worker.key)).tolist()
                assert seen.setdefault(worker.step, data) == data
                worker.step += 1
            worker.step -= 2
            worker.report(1.0, "saved")
        controller.close()
    assert len(seen) == 5


def test_a_loop_may_save_for_itself(make: Make, tmp_path: pathlib.Path) -> None:
    """`save_to` is a new path; `load_from` is the path that was reported."""
    controller = make([0.1], FixedSchedule({0: 0.1, 2: 0.2}), tmp_path / "run")
    with controller.worker() as worker:
        worker.poll()
        assert worker.load_from is None
        paths = []
        for _ in range(2):
            worker.step += 1
            path = worker.save_to
            assert path is not None
            pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
            pathlib.Path(path).write_text(f"weights at {worker.step}")
            worker.report(1.0, path)
            paths.append(path)
        assert len(set(paths)) == 2
        assert worker.poll()
        assert worker.load_from == worker.params == paths[1]
        assert pathlib.Path(paths[1]).read_text() == "weights at 2"
        assert all(pathlib.Path(p).is_relative_to(tmp_path / "run") for p in paths)
        with pytest.raises(ValueError, match="load_from"):
            worker.restore(init)


def saved_paths(worker: Worker, count: int = 1) -> list[str]:
    """Read `save_to` several times, while the step counts on."""
    found = []
    for _ in range(count):
        assert worker.save_to is not None
        found.append(worker.save_to)
        worker.step += 1
    return found


def test_save_to_is_a_new_name_after_each_report(
    make: Make, tmp_path: pathlib.Path
) -> None:
    """Between two reports it is the same, also while the step counts on."""
    controller = make([0.1], alone(), tmp_path)
    seen = []
    with controller.worker() as worker:
        worker.poll()
        for value in (1.0, 2.0, None):
            (path,) = set(saved_paths(worker, 3))
            pathlib.Path(path).write_text(f"weights at {worker.step}")
            worker.report(value, worker.save_to)
            assert not worker.poll()
            seen.append(path)
    assert len(set(seen)) == 3
    assert [pathlib.Path(path).read_text()[-1] for path in seen] == ["3", "6", "9"]
    assert [c.params for c in controller.history()] == [None, *seen]


def test_a_report_that_was_refused_leaves_the_name(
    make: Make, tmp_path: pathlib.Path
) -> None:
    """The loop has saved there, and reports it again in the right form."""
    controller = make([0.1], alone(), tmp_path)
    with controller.worker() as worker:
        worker.poll()
        (path,) = saved_paths(worker)
        with pytest.raises(TypeError):
            worker.report("no number", worker.save_to)
        assert worker.save_to == path
        worker.report(1.0, worker.save_to)
        assert worker.save_to != path


def test_a_value_that_comes_later_does_not_name_a_new_path(
    make: Make, tmp_path: pathlib.Path
) -> None:
    """An evaluator reports values by `set_eval` while the loop saves."""
    controller = make([0.1], alone(), tmp_path)
    with controller.worker() as worker:
        worker.poll()
        worker.step = 1
        worker.report(None, "elsewhere")
        (path,) = saved_paths(worker)
        controller.set_eval(0, worker.generation_id, 1, None, 1.0)
        assert worker.save_to == path


@pytest.mark.parametrize("form", ["text", "pathlib", "nested", "suffix"])
def test_a_path_that_set_eval_has_recorded_is_not_given_again(
    make: Make, tmp_path: pathlib.Path, form: str
) -> None:
    """A loop may report through the controller; further reports change nothing."""
    controller = make([0.1], alone(), tmp_path)
    with controller.worker() as worker:
        worker.poll()
        worker.step = 3
        (path,) = saved_paths(worker)
        forms = {
            "text": path,
            "pathlib": pathlib.Path(path),
            "nested": {"net": [path], "epoch": 1},
            "suffix": f"{path}.npz",
        }
        place = 0, worker.generation_id
        controller.set_eval(*place, 4, forms[form], 1.0)
        controller.set_eval(*place, 5, None, 1.0)
        worker.step = 6
        assert worker.save_to != path
        assert worker.save_to == worker.save_to


def test_each_work_that_is_handed_out_has_a_new_name(
    make: Make, tmp_path: pathlib.Path
) -> None:
    """The first work, a branch, another worker, a restart: no name comes twice."""
    seen: list[str] = []
    for _ in range(3):
        controller = make([0.1], FixedSchedule(lambda step: step), tmp_path)
        for _ in range(2):
            with controller.worker(0) as worker:
                seen += saved_paths(worker)  # Before the first poll.
                assert worker.poll()
                seen += saved_paths(worker)
                worker.report(1.0, worker.save_to)
                assert worker.poll()
                seen += saved_paths(worker)
        with controller.worker(0) as one, controller.worker(0) as two:
            assert two.poll()
            seen += [*saved_paths(one), *saved_paths(two)]
        controller.close()
    assert len(set(seen)) == len(seen)


def test_what_is_loaded_is_never_overwritten(
    make: Make, tmp_path: pathlib.Path
) -> None:
    """After a restart at the same step of the same generation the names differ."""
    for number in range(3):
        controller = make([0.1], alone(), tmp_path)
        with controller.worker() as worker:
            if number:
                assert worker.load_from is not None
            assert worker.poll()
            assert worker.save_to != worker.load_from
            if worker.load_from is not None:
                assert pathlib.Path(worker.load_from).read_text() == str(number - 1)
            assert worker.step == 0 or number
            worker.step = 5 + number // 2
            assert worker.save_to is not None
            pathlib.Path(worker.save_to).write_text(str(number))
            if number != 1:
                worker.report(1.0, worker.save_to)
            else:
                lost = worker.save_to  # A kill before the report.
                worker.step = 6
                (path,) = {worker.save_to}
                assert path == lost
                worker.report(1.0, path)
        controller.close()


def test_paths_may_be_read_before_training(make: Make, tmp_path: pathlib.Path) -> None:
    """`load_from` is then what the first poll hands out, and the folder exists."""
    controller = make([0.1], alone(), tmp_path)
    with controller.worker() as worker:
        assert worker.load_from is None
        (path,) = saved_paths(worker)
        assert pathlib.Path(path).parent.is_dir()
        worker.step = 0
        assert worker.poll()
        worker.step = 1
        worker.report(1.0, path)
        worker.step = 2
        worker.report(2.0)  # Not saved: a restart goes back to step 1.
        worker.step = 3
        worker.report(math.nan, f"{path}.nan")
    controller.close()
    controller = make([0.1], alone(), tmp_path)
    with controller.worker() as worker:
        assert worker.load_from == path
        before = worker.save_to
        assert worker.poll()
        assert worker.load_from == path
        assert worker.step == 1
        assert worker.save_to not in (before, path, None)


def test_weights_in_another_memory_are_no_path(make: Make) -> None:
    """Before the first poll, too, when the slot has not gone back yet."""
    controller = make([0.1], alone())
    lease = controller.claim_all()
    name = lease[0].generation_id
    lease.report([lease.encode(0, name, 1, "a path", 1.0)])
    lease.report([lease.encode(0, name, 2, InMemory(), 1.0)])
    probe.abandon_claim(controller)
    with controller.worker(0) as worker:
        assert worker.load_from == "a path"
        assert worker.poll()
        assert worker.load_from == "a path"


def test_without_a_folder_there_is_no_place_to_save_to(make: Make) -> None:
    """`save_to` is None in memory; arrays are kept anyway."""
    controller = make([0.1], FixedSchedule({0: 0.1, 1: 0.2}))
    with controller.worker() as worker:
        worker.poll()
        assert worker.save_to is None
        worker.step += 1
        worker.report(1.0, init(0.1))
        assert worker.poll()
        assert isinstance(worker.params, Saved)
        assert worker.load_from is None
        np.testing.assert_array_equal(worker.restore(init)["weights"], np.ones(2))


@pytest.mark.parametrize("on_disk", [True, False])
def test_the_slots_hyperparameters_are_in_force_after_restore(
    make: Make, tmp_path: pathlib.Path, on_disk: bool
) -> None:
    """The saved optimiser state has old numbers; they are replaced."""
    metas = {step: {"learning_rate": 0.5 / (step + 1)} for step in range(5)}
    controller = make([metas[0]], FixedSchedule(metas), tmp_path if on_disk else None)
    with controller.worker() as worker:
        for step in range(5):
            assert worker.poll()
            state = worker.restore(init)
            assert worker.meta_params == metas[step]
            rate = hyperparams.read(state)["learning_rate"]
            assert rate == pytest.approx(metas[step]["learning_rate"], rel=1e-6)
            assert rate == pytest.approx(
                float(state["opt"].hyperparams["learning_rate"])
            )
            state = train_step(state, worker.key)
            worker.step += 1
            worker.report(1.0, state)


def test_a_fresh_state_has_the_slots_hyperparameters_too(make: Make) -> None:
    """It is the result of `init(meta_params)`."""
    controller = make([{"learning_rate": 0.7, "batch_size": 32}], alone())
    with controller.worker() as worker:
        assert worker.poll()
        rate = hyperparams.read(worker.restore(init))["learning_rate"]
        assert rate == pytest.approx(0.7, rel=1e-6)


def test_trained_weights_of_a_start_are_restored(
    make: Make, tmp_path: pathlib.Path
) -> None:
    """`Start(meta, params, step)` is where the first loop begins."""
    trained = {"weights": jnp.full(2, 3.0)}
    start = Start({"learning_rate": 0.1}, trained, 100)
    controller = make([start], alone(), tmp_path)
    with controller.worker() as worker:
        assert worker.poll()
        assert worker.step == 100
        state = worker.restore(lambda meta: {"weights": jnp.zeros(2)})
        np.testing.assert_array_equal(state["weights"], np.full(2, 3.0))


@pytest.mark.parametrize("damage", ["remove", "truncate"])
def test_what_is_gone_or_damaged_is_no_reason_to_train_fresh_weights_as_old_ones(
    make: Make, tmp_path: pathlib.Path, damage: str
) -> None:
    """If nothing older is kept, the slot begins afresh, at step 0."""
    controller = make([{"learning_rate": 0.1}], alone(), tmp_path)
    with controller.worker() as worker:
        train(worker, 2)
    probe.settle()
    for file in (tmp_path / "params").rglob("*.safetensors"):
        if damage == "remove":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:-5])
    with controller.worker() as worker:
        assert worker.poll()
        assert worker.step == 2
        worker.restore(init)
        assert worker.step == 0
        assert worker.params is None


def test_restoring_into_another_model_names_the_place(make: Make) -> None:
    """The model has changed: the message says where it differs."""
    controller = make([{"learning_rate": 0.1}], alone())
    with controller.worker() as worker:
        train(worker, 2)
    with controller.worker() as worker:
        assert worker.poll()
        with pytest.raises(ParamsError, match=r"\['weights'\].*\(2,\).*\(3,\)"):
            worker.restore(lambda meta: {**init(meta), "weights": jnp.ones(3)})
        with pytest.raises(ParamsError, match=r"\['more'\]"):
            worker.restore(lambda meta: {**init(meta), "more": jnp.ones(3)})


def test_a_report_after_the_end_is_dropped(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker whose slot was lost at the end of the run warns once."""
    controller = make([0.1] * 2, alone(), stop=Stop(reports=1))
    with controller.worker() as worker:
        count_up(worker)
        assert not worker.running
        assert not worker.poll()
        before = list(controller.history())
        with caplog.at_level(logging.DEBUG, "population"):
            worker.report(0.0, "late")
        assert list(controller.history()) == before
        assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_finished_run_gives_no_slot(make: Make) -> None:
    """`controller.worker()` does not block; its loop ends at once."""
    controller = make([0.1], alone(), stop=Stop(steps=2))
    with controller.worker() as worker:
        count_up(worker)
        count_up(worker)
    with controller.worker() as worker:
        assert not worker.running
        assert not worker.poll()


@pytest.mark.parametrize("size", [1, 3])
def test_a_worker_that_never_saves_comes_to_the_end(make: Make, size: int) -> None:
    """Without saves, the reported steps count."""
    controller = make([0.1] * size, alone(), stop=Stop(steps=5))
    with controller.worker() as worker:
        worker.turn = 2
        steps = 0
        while worker.running and steps < 100:
            count_up(worker, save=False)
            steps += 1
    assert controller.finished
    assert steps == 5 * size


def test_more_steps_go_on_as_if_they_had_been_asked_for_at_once(
    make: Make, tmp_path: pathlib.Path
) -> None:
    """`Stop(steps=20)` and then 40 is the run with 40, bit for bit."""

    def run(name: str, *stops: int) -> list[Any]:
        log_dir = tmp_path / name
        for steps in stops:
            controller = make(
                population(3), rounds(3), log_dir, seed=5, stop=Stop(steps=steps)
            )
            with controller.worker() as worker:
                train(worker)
            assert controller.finished
            found = checkpoints(controller)
            controller.close()
        return found

    straight = run("straight", 40)
    assert run("in two", 20, 40) == straight
    assert run("in three", 7, 20, 40) == straight


def test_the_number_of_workers_changes_no_synchronous_run(make: Make) -> None:
    """One worker in turns, two, or one for each slot: the run is equal bit for bit."""

    def run(workers: int) -> list[Any]:
        controller = make(population(4), rounds(3), seed=5, stop=Stop(steps=12))

        def loop() -> None:
            with controller.worker() as worker:
                train(worker)

        in_threads(*[loop] * workers)
        assert controller.finished
        return checkpoints(controller)

    first = run(1)
    assert len(first) > 48
    for workers in (2, 4, 6):
        assert run(workers) == first


def test_a_takeover_changes_no_synchronous_run(make: Make) -> None:
    """A worker that dies within a round and is replaced changes no decision."""

    def decisions(deaths: int) -> list[Any]:
        controller = make(population(2), rounds(4), seed=5, stop=Stop(steps=12))
        for number in range(deaths):
            lost = controller.worker(number % 2)  # It is never released.
            train(lost, 1)
        with controller.worker(0) as worker:
            controller.worker(1).release()
            train(worker)
        assert controller.finished
        made = [controller.graph.root(g) for g in controller.graph]
        return [
            (root.worker_id, root.step, root.meta_params, root.reason)
            for root in made
            if root.reason not in ("takeover", "resume")
        ]

    assert decisions(0) == decisions(1) == decisions(4)


def test_workers_do_not_wait_for_what_will_never_come(make: Make) -> None:
    """A slot beyond `Stop(steps=)` waits; the run ends although a round is open."""
    controller = make(population(2), rounds(10), stop=Stop(steps=4))
    in_threads(*[lambda: train(controller.worker())] * 2)
    assert controller.finished
    assert len(list(controller.graph)) == 2


def test_the_lineage_leads_to_what_was_handed_out(make: Make) -> None:
    """It begins at the root and ends at the checkpoint where the loop continues."""
    controller = make([0.1], FixedSchedule({0: 0.1, 2: 0.2}))
    with controller.worker() as worker:
        for _ in range(3):
            count_up(worker)
        worker.release()
    with controller.worker() as worker:
        worker.poll()
        assert [c.step for c in worker.lineage] == [0, 1, 2, 2, 3]
        assert worker.lineage[-1].ref == (worker.generation_id, 3)


def test_what_is_reported_is_a_copy(make: Make) -> None:
    """A loop that donates or changes its buffers changes no checkpoint."""
    controller = make([0.1], FixedSchedule({0: 0.1, 1: 0.2}))
    with controller.worker() as worker:
        worker.poll()
        state: Any = {"w": np.ones(2), "j": jnp.ones(2)}
        worker.step += 1
        worker.report(1.0, state)
        state["w"][:] = -1
        jax.jit(lambda x: x + 1, donate_argnums=0)(state["j"])
        assert worker.poll()
        found: Any = worker.restore(lambda meta: {"w": np.zeros(2), "j": jnp.zeros(2)})
        np.testing.assert_array_equal(found["w"], np.ones(2))
        np.testing.assert_array_equal(found["j"], np.ones(2))


def test_a_failed_report_can_be_made_again(make: Make) -> None:
    """`report` raises the policy's exception; the worker keeps its slot."""
    broken = True

    def sometimes(step: int) -> float | None:
        if broken and step == 1:
            raise RuntimeError("no")
        return None

    controller = make([0.1], FixedSchedule(sometimes))
    with controller.worker() as worker:
        worker.poll()
        worker.step += 1
        with pytest.raises(RuntimeError, match="no"):
            worker.report(1.0, init(0.1))
        assert controller.newest(0).step == 0
        broken = False
        worker.report(1.0, init(0.1))
        assert not worker.poll()
    assert controller.newest(0).step == 1


def test_a_branch_at_the_last_step_is_not_trained_on() -> None:
    """`Stop(steps=)` also holds for a slot that is branched at this step."""
    mutator = FixedSchedule({0: 1.0, 15: 2.0, 30: 3.0})
    controller = PopulationController([1.0] * 2, mutator, stop=Stop(steps=30))
    with controller.worker() as worker:
        while worker.running:
            if worker.poll():
                worker.restore(lambda meta: np.zeros(1))
            worker.step += 1
            if worker.step % 10 == 0:
                worker.report(1.0, np.zeros(1))
    assert [controller.newest(worker_id).step for worker_id in range(2)] == [30, 30]
    assert [work.meta_params for work in controller.workers] == [3.0, 3.0]


# Hyperparameters that have no effect.


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings about hyperparameters that are not in force."""
    return [m for m in caplog.messages if "its optimiser uses" in m]


def test_a_worker_whose_optimiser_keeps_its_old_numbers_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The warning has key, assigned and applied value; there is one per run."""
    run = PopulationController(population(1), FixedSchedule(_rate_at))
    with run.worker() as worker:
        state = init({})  # In place of worker.restore(init).
        for step in range(1, 9):
            worker.poll()
            worker.step = step
            worker.report(1.0, state)
    (text,) = warnings_of(caplog)
    assert "worker 0 was assigned learning_rate=0.5, but its optimiser uses 0.1" in text
    assert "worker.restore(init)" in text


def _rate_at(step: int) -> dict[str, float]:
    return {"learning_rate": 0.5 if step < 4 else 0.25}


def test_a_worker_that_restores_is_told_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """float32(0.1) counts as 0.1; other keys are ignored."""
    run = PopulationController([{"learning_rate": 0.1, "dropout": 0.5}], alone())
    with run.worker() as worker:
        for step in range(1, 9):
            if worker.poll():
                state = worker.restore(init)
            worker.step = step
            worker.report(1.0, state)
    assert not warnings_of(caplog)


def test_params_that_are_no_good_can_be_rejected(tmp_path: pathlib.Path) -> None:
    """The slot continues from the newest that are left; no worker gets these again."""
    run = PopulationController(population(2), alone(), tmp_path, keep=Keep(last=3))
    with run.worker(0) as worker:
        for step in (1, 2, 3):
            if worker.poll():
                state = worker.restore(init)
            worker.step = step
            worker.report(1.0 / step, state)
    (newest,) = (tmp_path / "params").rglob("3-*.safetensors")
    with run.worker(0) as worker:
        assert worker.poll()
        assert worker.step == 3
        worker.restore(init)
        worker.reject("its loss was measured wrongly")
        assert worker.poll()
        assert worker.step == 2
        assert worker.lineage[-1].reason == "rejected: its loss was measured wrongly"
        worker.restore(init)
        worker.step = 3
        worker.report(0.2, state)
    assert newest.exists(), "it can be looked at"
    assert run.best() == run.newest(0)
    run.close()
    again = PopulationController(population(2), alone(), tmp_path)
    rejected = [c for c in again.history() if c.step == 3]
    assert [c.params is None for c in rejected] == [True, False]
    again.close()


def test_there_must_be_something_to_reject() -> None:
    """A worker that begins with fresh weights has nothing to reject."""
    run = PopulationController(population(1), alone())
    with run.worker() as worker:
        worker.poll()
        with pytest.raises(ValueError, match="reject needs params that poll"):
            worker.reject("no")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "long"])
def test_busy_needs_a_number_of_seconds(seconds: Any) -> None:
    """Infinity is refused, as others would wait for ever."""
    run = PopulationController(population(1), alone(), worker_timeout=1.0)
    with run.worker() as worker, pytest.raises(ValueError, match="busy needs a posit"):
        worker.busy(seconds)


def test_a_worker_that_slept_before_it_restored_gets_what_there_is_now(
    tmp_path: pathlib.Path,
) -> None:
    """Others took its slot over, and the params that it got were removed."""
    run = PopulationController(population(1), alone(), tmp_path)
    with run.worker() as first:
        first.poll()
        first.step = 1
        first.report(1.0, init(None))
    sleeper = run.worker()
    assert sleeper.poll()
    with run.worker(0) as other:
        for step in range(2, 9):
            if other.poll():
                state = other.restore(init)
            other.step = step
            other.report(1.0 / step, state)
    probe.settle()
    assert not list((tmp_path / "params").rglob("1-*"))
    sleeper.restore(init)
    assert sleeper.step == 8
    sleeper.release()
