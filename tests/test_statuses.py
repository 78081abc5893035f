"""Failures and retirements: what counts, what is shown, what a journal says of them."""

from __future__ import annotations

import math
import pathlib
import random
from collections.abc import Mapping
from typing import Any

import pytest

import population
from population import (
    Branch,
    Checkpoint,
    Mutator,
    PopulationController,
    PopulationView,
    Report,
    Retire,
    Worker,
)
from population.base import Failure, NoProgressError
from population.base.errors import is_failure
from tests import probe
from tests.helpers import Clock, generation, poll, work

Decisions = Mapping[int, Branch | Retire]


class Told(Mutator[int]):
    """Decides what the newest metrics or the reason of a failure name.

    "retire 1" retires slot 1, "branch 1" has it copy the slot that is shown, "back 1"
    sets it back to fresh weights. The barrier of `synchronous` runs is at step 10.

    Attributes:
        shown: All that it was shown.
    """

    def __init__(self, *, synchronous: bool = False) -> None:
        self._synchronous = synchronous
        self._shown: list[Report | Failure] = []

    @property
    def shown(self) -> list[Report | Failure]:
        """All that it was shown."""
        return self._shown

    def init(self, view: PopulationView) -> int:
        """Count the rounds."""
        return 0

    def update(
        self, state: int, report: Report, view: PopulationView
    ) -> tuple[int, Decisions]:
        """Decide as the metrics say, or close the barrier."""
        self._shown.append(report)
        live = list(view.live)
        if self._synchronous and live and all(view.ready[live] >= 10 * (state + 1)):
            best = min(live, key=lambda w: float(view.scores[w]))
            metas = ({"lr": float(view.rng.random())} for _ in live)
            donor = view.newest(best)
            return state + 1, {
                w: Branch(donor, m, "round") for w, m in zip(live, metas, strict=True)
            }
        return self._decided(state, report.checkpoint.metrics, report, view)

    def failed(
        self, state: int, failure: Failure, view: PopulationView
    ) -> tuple[int, Decisions]:
        """Decide as the reason says."""
        self._shown.append(failure)
        return self._decided(state, failure.reason, failure, view)

    def wait_at(self, state: int, worker_id: int, view: PopulationView) -> int | None:
        """Wait for the next decision."""
        return 10 * (state + 1) if self._synchronous else None

    def _decided(
        self, state: int, told: Any, shown: Report | Failure, view: PopulationView
    ) -> tuple[int, Decisions]:
        found: dict[int, Branch | Retire] = {}
        for order in str(told).split(","):
            name, _, slot = order.strip().partition(" ")
            meta = {"lr": float(view.rng.random())}
            if name == "retire":
                found[int(slot)] = Retire(f"told by {shown.worker_id}")
            elif name in ("branch", "back"):
                parent = shown.checkpoint if name == "branch" else None
                found[int(slot)] = Branch(parent, meta, order)
        return state, found


def run(
    size: int = 2, folder: pathlib.Path | None = None, **options: Any
) -> PopulationController:
    """A run whose mutator does as it is told."""
    starts = [{"lr": float(i)} for i in range(size)]
    mutator = options.pop("mutator", None) or Told()
    return PopulationController(starts, mutator, folder, **options)


def report(
    controller: PopulationController,
    worker_id: int,
    step: int,
    value: float | None,
    told: str = "",
    params: Any = "p",
) -> None:
    """Report a step of a slot's present generation."""
    name = generation(controller, worker_id)
    controller.set_eval(worker_id, name, step, params, value, told or None)


def newest(controller: PopulationController, worker_id: int = 0) -> Checkpoint:
    """The checkpoint at which a slot is."""
    return probe.newest(controller)[worker_id]


# What counts.


def test_a_revived_slot_that_diverges_again_has_failed() -> None:
    """Also in the generation in which it was retired."""
    controller = run()
    report(controller, 0, 5, 1.0)
    report(controller, 1, 1, 1.0, "retire 0")
    controller.revive(0)
    report(controller, 0, 8, math.nan)
    assert work(controller).step == 5
    assert probe.failures(controller)[0] == 1


def test_a_divergence_from_which_a_slot_is_revived_does_not_count() -> None:
    """It was over when the slot was retired."""
    controller = run()
    report(controller, 0, 5, 1.0)
    report(controller, 0, 8, math.nan)
    report(controller, 1, 1, 1.0, "retire 0")
    controller.revive(0)
    assert newest(controller).step == 5
    assert probe.failures(controller)[0] == 0


def test_a_retired_slot_never_fails() -> None:
    """A slot that a decision has retired is not one of those that failed too often."""
    controller = run(max_failures=1)
    report(controller, 0, 5, 1.0)
    report(controller, 1, 1, 1.0, "retire 0")
    report(controller, 0, 8, math.nan)
    assert work(controller).step == 5
    report(controller, 0, 8, math.nan)
    assert work(controller).step == 5
    assert probe.failures(controller)[0] == 0
    controller.fail(1, "broke")  # No error: slot 0 has not failed.
    assert controller.finished


def test_a_trial_that_repeats_what_it_had_reached_has_not_recovered() -> None:
    """Not even if a trial between has failed before it came that far again."""
    controller = run()
    report(controller, 0, 5, 1.0)
    for count, furthest in enumerate((12, 7, 12), start=1):
        for step in range(6, furthest):
            report(controller, 0, step, 1.0, params=None)
        assert probe.failures(controller)[0] == count - 1
        controller.fail(0, "broke")
    assert probe.retired(controller) == {0}


def test_a_slot_that_was_branched_recovers_with_any_finite_value() -> None:
    """It trains other weights now, or with other hyperparameters."""
    controller = run()
    report(controller, 0, 50, 1.0)
    controller.fail(0, "broke")
    report(controller, 1, 1, 1.0, "branch 0")
    controller.fail(0, "broke")
    assert probe.failures(controller)[0] == 2
    report(controller, 0, 2, 1.0)
    assert probe.failures(controller)[0] == 0


def test_a_decision_right_after_a_retirement_may_revive_the_slot() -> None:
    """A retirement may write no row, so that the next transaction has the same."""
    controller = run(max_failures=1)
    controller.fail(0, "broke")
    report(controller, 1, 1, 1.0, "branch 0")
    assert probe.retired(controller) == set()
    assert newest(controller).step == 1


def test_reviving_a_slot_in_training_leaves_it_alone() -> None:
    """It would lose what it has trained since its last save."""
    controller = run()
    report(controller, 0, 5, 1.0)
    report(controller, 0, 8, 1.0, params=None)
    controller.revive(0)
    assert newest(controller).step == 8


# Workers.


def test_a_call_of_fail_that_is_refused_leaves_the_worker_its_slot() -> None:
    """Else nobody could ever train it again."""
    controller = run()
    with controller.worker(0) as worker:
        assert worker.poll()
        with pytest.raises(TypeError, match="reason"):
            worker.fail(ValueError("broke"))  # type: ignore[arg-type]
        assert not worker.poll()
        worker.step = 1
        worker.report(1.0, "p")
        assert newest(controller).step == 1


def test_a_worker_never_gets_work_of_a_slot_that_its_claim_retires() -> None:
    """The slot is set back from a divergence once too often; another has work."""
    controller = run(max_failures=1)
    report(controller, 0, 5, 1.0)
    report(controller, 0, 8, math.nan)
    with controller.worker(0) as worker:
        assert worker.poll()
        assert worker.worker_id == 1
    assert probe.retired(controller) == {0}


@pytest.mark.parametrize("raw", [True, False])
def test_a_poll_that_retires_the_last_slot_says_why_the_run_ends(raw: bool) -> None:
    """A divergence counts when the slot is set back, which a poll may do."""
    controller = run(1, max_failures=1)
    report(controller, 0, 5, 1.0)
    report(controller, 0, 8, math.nan)
    begin = poll if raw else _begin
    with pytest.raises(NoProgressError, match="diverged: nan at step 8"):
        begin(controller)
    assert controller.finished


def _begin(controller: PopulationController) -> None:
    with controller.worker(0) as worker:
        worker.poll()


def test_a_worker_that_never_polls_again_leaves_no_slot_behind() -> None:
    """A slot that a failure gave back is free at once."""
    controller = run(1)
    with controller.worker(0) as worker:
        assert worker.poll()
        worker.fail("broke")
        with controller.worker() as other:
            assert other.poll()
            assert other.worker_id == 0


class Broken(Told):
    """Raises in one of its calls.

    Args:
        call: The name of the call.
    """

    def __init__(self, call: str) -> None:
        super().__init__()
        self._call = call

    def update(self, state: int, report: Report, view: PopulationView) -> Any:
        """Perhaps return a state of another type."""
        return ("other", {}) if self._call == "record" else (state, {})

    def failed(self, state: int, failure: Failure, view: PopulationView) -> Any:
        """Perhaps raise."""
        self._raise("failed")
        return state, {}

    def first(self, worker_id: int, step: int, meta_params: Any) -> Any:
        """Perhaps raise, later than at the start of the run."""
        if step:
            self._raise("first")
        return meta_params

    def wait_at(self, state: int, worker_id: int, view: PopulationView) -> int | None:
        """Perhaps raise."""
        self._raise("wait_at")
        return None

    def _raise(self, call: str) -> None:
        if call == self._call:
            raise ZeroDivisionError(call)


@pytest.mark.parametrize("call", ["record", "failed", "first", "wait_at"])
def test_what_a_mutator_raises_is_no_failure_of_a_trial(call: str) -> None:
    """It would come again for every slot."""

    def train(worker: Worker) -> None:
        assert worker.poll()
        worker.step = 5
        worker.report(1.0, "p")
        worker.fail("broke")
        worker.poll()

    controller = run(mutator=Broken(call))
    with pytest.raises((TypeError, ZeroDivisionError)) as raised:
        with controller.worker(0) as worker:
            train(worker)
    assert not is_failure(raised.value)


def test_a_report_returns_what_is_decided_as_slots_are_retired() -> None:
    """An engine that trains all slots learns of each branch by its report."""
    controller = run(3, mutator=Told(synchronous=True))
    lease = controller.claim_all()
    for worker_id in (0, 1):
        work = lease[worker_id]
        found = lease.report([lease.encode(*_place(worker_id, work), 10, "p", 1.0)])
        assert not found
    work = lease[2]
    told = "retire 2"
    new = lease.encode(*_place(2, work), 5, "p", 1.0, told)
    assert sorted(lease.report([new])) == [0, 1]
    lease.release()


def _place(worker_id: int, work: Any) -> tuple[int, str]:
    return worker_id, work.generation_id


# Journals.


def settled(folder: pathlib.Path) -> PopulationController:
    """A barrier that closes as a poll retires the slot for which it waits."""
    mutator = Told(synchronous=True)
    controller = run(3, folder, mutator=mutator, max_failures=1)
    for worker_id in (0, 1):
        report(controller, worker_id, 10, 1.0 + worker_id)
    report(controller, 2, 5, 1.0)
    report(controller, 2, 6, math.nan)
    assert poll(controller, 2) is not None
    assert probe.retired(controller) == {2}
    assert [newest(controller, w).reason for w in (0, 1)] == ["round"] * 2
    return controller


def test_replay_agrees_with_what_a_set_back_has_decided(tmp_path: pathlib.Path) -> None:
    """The mutator saw the population after the slot was set back."""
    controller = settled(tmp_path / "run")
    found = population.replay(controller, Told(synchronous=True))
    assert found.first_difference is None, found
    assert len(found.decisions) == 1
    controller.close()


def test_replay_agrees_if_a_failure_overrules_a_branch(tmp_path: pathlib.Path) -> None:
    """The last failure retires the slot, whatever the mutator decides."""
    controller = run(2, tmp_path / "run", max_failures=2)
    report(controller, 0, 5, 1.0)
    controller.fail(0, "branch 0")
    controller.fail(0, "branch 0")
    assert probe.retired(controller) == {0}
    found = population.replay(controller, Told())
    assert found.first_difference is None, found
    assert len(found.decisions) == 1
    controller.close()


def test_a_fork_of_a_run_that_ends_with_a_retirement_can_be_replayed(
    tmp_path: pathlib.Path,
) -> None:
    """Its mutator never saw the failure that the other run recorded last."""
    controller = run(2, tmp_path / "run", max_failures=1)
    report(controller, 1, 5, 1.0)
    controller.fail(0, "broke")
    forked = population.fork(controller, tmp_path / "fork", mutator=Told())
    assert probe.retired(forked) == {0}
    report(forked, 1, 6, 1.0, "branch 0")
    found = population.replay(forked, Told())
    assert found.first_difference is None, found
    assert found.updates == 1
    forked.close()
    controller.close()


def test_failures_and_slots_that_are_given_up_are_replayed_in_order(
    tmp_path: pathlib.Path,
) -> None:
    """Neither need write a row that orders them."""
    clock = Clock()
    mutator = Told(synchronous=True)
    place = 4, tmp_path / "run"
    controller = run(*place, mutator=mutator, max_failures=1, clock=clock)
    for worker_id in (0, 1):
        report(controller, worker_id, 10, 1.0 + worker_id)
    clock.advance(1)
    controller.fail(2, "broke")
    clock.advance(1)
    controller.give_up(3)
    assert newest(controller).reason == "round"
    found = population.replay(controller, Told(synchronous=True))
    assert found.first_difference is None, found
    assert found.updates == len(mutator.shown)
    controller.close()


OPTIONS: dict[str, Any] = {"max_failures": 2}


@pytest.mark.parametrize("synchronous", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_random_failures_are_the_same_for_every_process_and_every_reader(
    seed: int, synchronous: bool, tmp_path: pathlib.Path
) -> None:
    """Two processes agree with the journal; replay agrees; a fork has the past."""
    choose, clock = random.Random(seed), Clock()
    folder, size = tmp_path / "run", 4
    options = {**OPTIONS, "clock": clock}

    def opened(new: pathlib.Path = folder) -> PopulationController:
        mutator = Told(synchronous=synchronous)
        return run(size, new, mutator=mutator, **options)

    both = [opened(), opened()]
    members: dict[int, Any] = {}  # By the last row of a transaction.
    for count in range(60):
        clock.advance(1)
        controller = choose.choice(both)
        row = probe.last_row(controller)
        act(controller, choose, count)
        for each in both:
            probe.refresh(each)
        told = [_members(each) for each in both]
        probe.forget(both[0])
        assert told == [_members(both[0])] * 2
        if probe.last_row(controller) > row:
            members[probe.last_row(controller)] = told[0]
        else:
            members.pop(row, None)  # Several states belong to this row.
        if choose.random() < 0.1:
            both[1].close()
            both[1] = opened()
    found = population.replay(folder, Told(synchronous=synchronous))
    assert found.first_difference is None, found
    for at in choose.sample(sorted(members), 6):
        mutator = Told(synchronous=synchronous)
        new = tmp_path / f"fork-{at}"
        forked = population.fork(folder, new, mutator=mutator, at=at, **options)
        assert _members(forked)[:2] == members[at][:2]  # Losses have no transaction.
        for count in range(5):
            clock.advance(1)
            act(forked, choose, count)
        again = population.replay(forked, Told(synchronous=synchronous))
        assert again.first_difference is None, again
        forked.close()
    for each in both:
        each.close()


def act(controller: PopulationController, choose: random.Random, count: int) -> None:
    """Do something at random with a slot."""
    worker_id, other = choose.randrange(4), choose.randrange(4)
    name = choose.choice(["retire", "branch", "back", "", "", ""])
    told = f"{name} {other}" if name else ""
    kind = choose.choice(["report"] * 6 + ["fail", "poll", "claim", "late", "other"])
    try:
        if kind == "report":
            step = newest(controller, worker_id).step + choose.randrange(4)
            value = choose.choice([None, math.nan, choose.random(), choose.random()])
            params = choose.choice(["p", "p", None])
            report(controller, worker_id, step, value, told, params)
        elif kind == "fail":
            controller.fail(worker_id, told or "broke")
        elif kind == "poll":
            poll(controller, worker_id)
        elif kind == "claim":
            with controller.worker(worker_id) as worker:
                worker.fail(told or "broke")
        elif kind == "late":
            name = choose.choice(list(controller.graph))
            root = controller.graph.root(name)
            step = root.step + choose.randrange(3)
            controller.set_eval(root.worker_id, name, step, None, 0.5, told or None)
        elif choose.random() < 0.5:
            controller.revive(worker_id)
        else:
            controller.give_up(worker_id)
    except NoProgressError:
        controller.revive(worker_id)


def _members(controller: PopulationController) -> Any:
    """What a process knows of the members of a run."""
    statuses = {
        worker_id: (status.kind, status.reason, status.failures, status.retired)
        for worker_id, status in probe.statuses(controller).items()
    }
    places = [
        (c.worker_id, c.generation_id, c.step, repr(c.value), c.metrics)
        for c in probe.newest(controller)
    ]
    lost, live = probe.lost(controller), probe.live(controller)
    return sorted(statuses.items()), places, lost, live
