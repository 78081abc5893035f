"""Members that diverge: nothing of them is saved, and no other member waits."""

from __future__ import annotations

import math
import pathlib
import random
from typing import Any

import pytest

from population import Mutator, PopulationController, Stop, Worker
from population.engines import threads
from population.mutators import PopulationBasedTraining
from tests import probe
from tests.helpers import Scripted, generation, poll, random_branch
from tests.mutators.factories import FACTORIES
from tests.mutators.helpers import Run

NOT_FINITE = [math.nan, math.inf, -math.inf]
POLICIES = [
    pytest.param(make, size, id=f"{name}-{number}")
    for name, made in FACTORIES.items()
    for number, (make, size) in enumerate(made)
]
MOST = 3000  # Iterations of a loop: a loop without an end must fail.


def changed(meta_params: Any) -> Any:
    """An explore function that every policy takes."""
    return meta_params


def trained(worker: Worker, bad: int, last: list[int]) -> None:
    """Slot `bad` diverges four times at its first steps, and saves nothing."""
    state: Any = None
    while worker.running and last[0] < MOST:
        last[0] += 1
        if worker.poll():
            state = worker.restore(lambda _: {"x": 1.0})
        if not worker.running:
            break
        worker.step += 1
        number = int(worker.generation_id.split("-")[2])
        if worker.worker_id == bad and worker.step < 12 and number < 4:
            worker.report(math.nan)
        else:
            worker.report(1.0 + worker.worker_id, state)


@pytest.mark.parametrize(("make", "size"), POLICIES)
@pytest.mark.parametrize("in_threads", [False, True])
def test_who_diverges_and_saves_nothing_holds_nobody_up(
    make: Any, size: int, in_threads: bool
) -> None:
    """The run ends under every policy, although the first member never improves."""
    turns = [0]
    controller = PopulationController(
        [{"a": float(i)} for i in range(size)],
        make(lambda meta, *_: meta),
        stop=Stop(steps=13, seconds=60),
        max_failures=None,
    )
    if in_threads:
        threads.run(
            lambda worker: trained(worker, 0, turns), controller, 2, progress=False
        )
    else:
        with controller.worker() as worker:
            trained(worker, 0, turns)
    newest = probe.newest(controller)
    assert min(newest[w].step for w in probe.live(controller)) >= 13
    for checkpoint in controller.history():
        origin = checkpoint.parent and controller.graph.checkpoint(checkpoint.parent)
        if origin and origin.generation_id != checkpoint.generation_id:
            assert not origin.diverged or origin.parent is None


@pytest.mark.parametrize(
    ("make", "size"), [policy for policy in POLICIES if policy.values[1] != 1]
)
def test_who_is_retired_holds_nobody_up(make: Any, size: int) -> None:
    """A slot that never has a finite value is retired, and the others are trained."""
    controller = PopulationController(
        [{"a": float(i)} for i in range(size)],
        make(lambda meta, *_: meta),
        stop=Stop(steps=13, seconds=60),
    )
    with controller.worker() as worker:
        for _ in range(MOST):
            if worker.poll():
                worker.restore(lambda _: {"x": 1.0})
            if not worker.running:
                break
            worker.step += 1
            bad = worker.worker_id == 0
            worker.report(math.nan if bad else 1.0, None if bad else {"x": 1.0})
    assert controller.finished
    assert probe.retired(controller) <= {0}
    newest = probe.newest(controller)
    others = set(range(size)) - probe.retired(controller)
    assert min(newest[w].step for w in others) >= 13


@pytest.mark.parametrize("bad", NOT_FINITE)
@pytest.mark.parametrize("together", [False, True])
def test_a_value_that_is_not_finite_closes_a_round_by_two_calls(
    bad: float, together: bool
) -> None:
    """Without params, although the others save theirs; it continues from the donor."""
    mutator = PopulationBasedTraining(changed, 2, synchronous=together)
    with Run(lambda: mutator, [1.0, 2.0]) as run:
        run.report(0, 2, 1.0, "a2")
        run.report(1, 2, bad)
        assert [c.params for c in run.roots(1)] == [None, "a2"]
        assert run.newest(1).step == 2


@pytest.mark.parametrize("bad", NOT_FINITE)
def test_a_late_value_that_is_not_finite_closes_a_round(bad: float) -> None:
    """A late evaluation may report it for a step that was never saved."""
    mutator = PopulationBasedTraining(changed, 2, synchronous=True)
    with Run(lambda: mutator, [1.0, 2.0]) as run:
        run.report(0, 2, 1.0, "a2")
        run.report(1, 2, None)
        run.report(1, 3, None)
        assert probe.ready(run.controller).tolist() == [2, -1]
        run.report(1, 2, bad)
        assert [c.params for c in run.roots(1)] == [None, "a2"]


def test_what_diverged_before_the_first_save_still_counts() -> None:
    """After the first save, finite values without params no longer count; NaN does."""
    mutator = PopulationBasedTraining(changed, 2, synchronous=True)
    with Run(lambda: mutator, [1.0, 2.0, 3.0]) as run:
        run.report(0, 1, 1.0)
        run.report(1, 2, math.nan)
        run.report(2, 2, 3.0)
        assert probe.ready(run.controller).tolist() == [1, 2, 2]
        run.report(0, 2, 1.0, "a2")
        assert probe.ready(run.controller).tolist() == [2, 2, -1]
        run.report(2, 3, 3.0, "c3")
        assert run.roots(1)[-1].params == "a2"


def test_a_barrier_is_the_first_that_counts() -> None:
    """A finite value without params does not count; the NaN after it does."""
    with Run(Scripted, [1.0]) as run:
        run.report(0, 1, 1.0, "a1")
        run.report(0, 2, 1.0)
        run.report(0, 3, math.nan)
        run.report(0, 4, 1.0, "a4")
        run_ = run.controller
        found = [probe.barrier(run_, 0, step) for step in (1, 2, 4)]
        assert [c and c.step for c in found] == [1, 3, 4]
        assert probe.barrier(run_, 0, 5) is None


def seen(controller: PopulationController) -> list[list[int]]:
    """What is known of the slots' reports."""
    return [a.tolist() for a in (probe.steps(controller), probe.ready(controller))]


@pytest.mark.parametrize("seed", range(8))
def test_every_process_counts_the_same_reports(
    seed: int, tmp_path: pathlib.Path
) -> None:
    """The reporting process, one that catches up and one that opens the run agree."""
    choose = random.Random(seed)

    def opened() -> PopulationController:
        mutator: Mutator[None] = random_branch(choose)
        return PopulationController([1, 2, 3], mutator, tmp_path / "run")

    one, two = opened(), opened()
    for count in range(50):
        here, worker_id = choose.choice([one, two]), choose.randrange(3)
        current = choose.random() < 0.8
        name = generation(here, worker_id) if current else choose.choice([*here.graph])
        root = here.graph.root(name)
        params = f"p{count}" if choose.random() < 0.1 else None
        value = choose.choice([None, math.nan, math.inf, choose.random()])
        step = root.step + choose.randrange(7)
        here.set_eval(root.worker_id, name, step, params, value)
        if choose.random() < 0.1:
            poll(here, worker_id)
        one.workers, two.workers  # noqa: B018 - Each takes in what the other did.
        three = opened()
        assert seen(one) == seen(two) == seen(three)
        three.close()
    one.close()
    two.close()


@pytest.mark.parametrize("size", [2, 4])
def test_one_worker_turns_to_the_others_when_a_slot_is_set_back(size: int) -> None:
    """A member that cannot train must not end a run that others can train."""

    def moved(meta_params: Any) -> Any:
        return {"rate": meta_params["rate"] * 0.99}

    controller = PopulationController(
        [{"rate": 1e9}, *({"rate": 0.1 * (1 + i)} for i in range(size - 1))],
        PopulationBasedTraining(moved, 20),
        stop=Stop(steps=200),
    )
    turns = 0
    with controller.worker() as worker:
        while worker.running and turns < MOST:
            turns += 1
            if worker.poll():
                state = worker.restore(lambda _: {"x": 1.0})
            worker.step += 10
            rate = worker.meta_params["rate"]
            worker.report(math.nan if rate > 1 else rate, state)
    assert controller.finished
    assert {slot.step for slot in controller.workers} == {200}
