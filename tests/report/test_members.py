"""`controller.members()`: the status of each member, and what it has trained."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping

import pytest

from population import (
    Branch,
    Mutator,
    PopulationController,
    PopulationView,
    Report,
    Retire,
    Stop,
)
from population.journal.base import Find
from population.mutators import PopulationBasedTraining
from population.run.member_statuses import MemberStatus
from tests import probe
from tests.helpers import Clock, Scripted, branch_at, generation, reporter


class RetireAt(Mutator[None]):
    """Retires a worker when it reports a step."""

    def __init__(self, worker_id: int, step: int) -> None:
        self._worker_id = worker_id
        self._step = step

    def init(self, view: PopulationView) -> None:
        """Remember nothing."""
        del view

    def update(
        self, state: None, report: Report, view: PopulationView
    ) -> tuple[None, Mapping[int, Branch | Retire]]:
        """Retire that worker at that step."""
        del view
        if (report.worker_id, report.checkpoint.step) == (self._worker_id, self._step):
            return None, {self._worker_id: Retire("the worst of four")}
        return None, {}


def statuses(controller: PopulationController) -> list[str]:
    """The status of each member."""
    return [member.status for member in controller.members()]


def test_a_member_trains_waits_and_reaches_its_end() -> None:
    """It waits only for a decision; at `Stop.steps` it is at its end."""
    policy = PopulationBasedTraining(None, 2, synchronous=True)
    run = PopulationController([0.1, 0.2], policy, stop=Stop(steps=4))
    assert statuses(run) == ["training", "training"]
    for _ in range(2):
        reporter(run, 0)(1.0)
    assert statuses(run) == ["waiting", "training"]
    for _ in range(2):
        reporter(run, 1)(2.0)
    assert statuses(run) == ["training", "training"]
    for _ in range(2):
        reporter(run, 0)(1.0)
    assert statuses(run) == ["at its end", "training"]


def test_all_members_are_at_their_end_once_the_run_has_ended() -> None:
    """Whichever limit has ended it."""
    run = PopulationController([0.1, 0.2], Scripted(), stop=Stop(reports=1))
    reporter(run, 1)(1.0)
    assert statuses(run) == ["at its end", "at its end"]


def test_a_failure_is_shown_until_the_member_recovers() -> None:
    """Its count and reason stay."""
    run = PopulationController([0.1, 0.2], Scripted())
    reporter(run)(1.0)
    run.fail(0, "no space left")
    run.fail(0, "the lamp is out")
    failed, other = run.members()
    assert (failed.status, failed.failures) == ("failed", 2)
    assert failed.reason == "the lamp is out"
    assert (other.status, other.failures, other.reason) == ("training", 0, "")
    reporter(run)(1.0)
    (recovered, _) = run.members()
    assert (recovered.status, recovered.failures) == ("training", 2)
    assert recovered.reason == "the lamp is out"


def test_a_member_is_retired_by_failures_or_by_a_decision() -> None:
    """The reason is that of the retirement."""
    run = PopulationController([0.1, 0.2, 0.3], RetireAt(1, 1), max_failures=2)
    reporter(run, 1)(1.0)
    run.fail(0, "once")
    run.fail(0, "twice")
    first, second, third = run.members()
    assert (first.status, first.failures, first.reason) == ("retired", 2, "twice")
    assert (second.status, second.failures) == ("retired", 0)
    assert second.reason == "the worst of four"
    assert third.status == "training"
    assert run.retired == {0, 1}
    run.revive(1)
    assert statuses(run) == ["retired", "training", "training"]
    assert run.members()[1].reason == ""
    assert run.retired == {0}


def test_a_divergence_is_a_status_of_its_own() -> None:
    """Before the member is set back, and until it has recovered."""

    def decide(report: Report, view: PopulationView) -> dict[int, Branch]:
        if report.checkpoint.step != 3:
            return {}
        return {0: Branch(view.graph[report.checkpoint.generation_id][1], 0.5)}

    run = PopulationController([0.1], Scripted(decide))
    report = reporter(run)
    report(1.0)
    report(math.nan)
    (member,) = run.members()
    assert (member.status, member.failures, member.reason) == ("diverged", 0, "")
    report(math.nan)
    (member,) = run.members()
    assert (member.status, member.failures) == ("diverged", 1)
    assert member.reason == "diverged: nan at step 3"
    report(0.5)
    assert statuses(run) == ["training"]


def test_restarts_are_counted_apart_from_branches() -> None:
    """A failure, a claim and a rejection are none of the policy's decisions."""
    run = PopulationController([0.1, 0.2], Scripted(branch_at(1, 0.5)))
    reporter(run)(1.0)
    reporter(run)(1.0)
    run.fail(0, "what a pity")
    member, other = run.members()
    assert (member.branches, member.restarts) == (1, 1)
    assert (other.branches, other.restarts) == (0, 0)


def test_steps_that_were_trained_again_count_again() -> None:
    """Two steps, and the second one three times more; copies are no training."""
    run = PopulationController([0.1, 0.2], Scripted(branch_at(2, 0.5, back_to=1)))
    for _ in range(5):
        reporter(run)(1.0)
    member, other = run.members()
    assert run.newest(0).step == 2
    assert (member.branches, member.steps_trained) == (4, 5)
    assert (other.branches, other.steps_trained) == (0, 0)


def test_wall_time_is_that_of_the_members_own_generations() -> None:
    """From the beginning of each to its newest checkpoint, without what follows."""
    clock = Clock()
    run = PopulationController([0.1, 0.2], Scripted(branch_at(2, 0.5)), clock=clock)
    for _ in range(3):
        clock.advance(10.0)
        reporter(run)(1.0)
    clock.advance(500.0)
    member, other = run.members()
    assert (member.wall_s, other.wall_s) == (30.0, 0.0)


def test_the_cost_is_that_of_the_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads one checkpoint of each, however many there are."""
    run = PopulationController([0.1, 0.2], Scripted(branch_at(30, 0.5)))
    for worker_id in (0, 1):
        for _ in range(40):
            reporter(run, worker_id)(1.0)
    journal = probe.journal(run)
    read: list[int] = []
    checkpoints = journal.checkpoints

    def counted(find: Find) -> object:
        rows = checkpoints(find)
        read.append(len(rows))
        return rows

    monkeypatch.setattr(journal, "checkpoints", counted)
    members = run.members()
    assert sum(read) == 3
    assert [member.steps_trained for member in members] == [40, 40]


def test_another_process_sees_the_same(tmp_path: pathlib.Path) -> None:
    """All of it is recorded, so a restart changes nothing."""
    run = PopulationController([0.1, 0.2], RetireAt(1, 2), tmp_path, max_failures=3)
    for worker_id in (0, 0, 1, 1):
        reporter(run, worker_id)(1.0)
    run.fail(0, "a flood")
    before = run.members()
    run.close()
    again = PopulationController([0.1, 0.2], RetireAt(1, 2), tmp_path)
    assert again.members() == before
    assert all(type(member) is MemberStatus for member in before)
    again.close()


def test_the_best_was_reported_with_its_hyperparameters() -> None:
    """A branch at the very end, with which nobody has trained, is not the best."""
    run = PopulationController(
        [0.1, 0.2], Scripted(branch_at(2, 0.9)), stop=Stop(steps=2)
    )
    for worker_id in (1, 0):
        for value in (2.0, 1.0 + worker_id):
            reporter(run, worker_id)(value)
    best = run.best()
    assert best is not None
    assert run.workers[0].meta_params == 0.9
    assert (best.value, best.step, best.meta_params) == (1.0, 2, 0.1)
    assert best == run.newest(0)
    assert generation(run) != best.generation_id
    assert dict(run.schedule(best)) == {0: 0.1}


def test_wall_time_is_without_the_time_in_which_the_run_was_closed(
    tmp_path: pathlib.Path,
) -> None:
    """A night between two openings is no training."""
    clock = Clock()
    run = PopulationController([0.1], Scripted(), tmp_path, clock=clock)
    for _ in range(2):
        report = reporter(run, 0)
        clock.advance(5.0)
        report(1.0, "saved")
        run.close()
        clock.advance(1000.0)
        run = PopulationController([0.1], Scripted(), tmp_path, clock=clock)
    assert run.members()[0].wall_s == 10.0
    run.close()
