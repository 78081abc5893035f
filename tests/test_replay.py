"""`population.replay`: the journal suffices to make every decision again."""

from __future__ import annotations

import contextlib
import math
import pathlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import population
from population import (
    Branch,
    Mutator,
    PopulationController,
    PopulationView,
    Report,
    Start,
)
from population.base import NoProgressError
from population.journal.records import Record, Status
from population.journal.sqlite import SqliteJournal
from population.mutators import PopulationBasedTraining, WinnerTakeAllGenetic
from population.testing.perturb import perturb
from tests import probe
from tests.helpers import Clock, Scripted, branch_at, content, generation, work
from tests.mutators.factories import FACTORIES

CASES = [
    pytest.param(make, size, seed, id=f"{name}-{number}-{seed}")
    for name, makers in FACTORIES.items()
    for number, (make, size) in enumerate(makers)
    for seed in range(2)
]


class Journey:
    """A run with random events of every kind that a journal can hold.

    Args:
        folder: The run folder.
        mutator: Makes the policy.
        size: How many workers there are.
        seed: The seed of the events.
    """

    def __init__(
        self, folder: pathlib.Path, mutator: Any, size: int, seed: int
    ) -> None:
        self.folder = folder
        self._mutator = mutator
        self._size = size
        self._choose = random.Random(seed)
        self.clock = Clock()
        self.controller = self._open()

    def continue_with(self, controller: PopulationController) -> None:
        """Let the events happen to another run, which is in another folder."""
        assert controller.log_dir is not None
        self.controller, self.folder = controller, controller.log_dir

    def _open(self) -> PopulationController:
        starts: list[Any] = [{"h": float(i + 1), "n": 3} for i in range(self._size)]
        starts[0] = Start(starts[0], params="trained elsewhere", step=2)
        controller = PopulationController(
            starts,
            self._mutator(),
            self.folder,
            worker_timeout=20.0,
            clock=self.clock,
            max_failures=2,
        )
        probe.end_nothing(controller)  # Saves and evaluations are random.
        return controller

    def go(self) -> None:
        """Make a random event happen, even if all slots have failed too often."""
        with contextlib.suppress(NoProgressError):
            self._go()

    def _go(self) -> None:
        choose, kind = self._choose, self._choose.random()
        self.clock.advance(choose.choice([0.0, choose.random() * 3]))
        worker_id = choose.randrange(self._size)
        if kind < 0.12:
            self._fail_or_come_back(worker_id)
        elif kind < 0.7:
            self.controller.set_eval(*self._next(worker_id))
        elif kind < 0.8:
            self.controller.set_evals([self._next(w) for w in range(self._size)])
        elif kind < 0.88:
            lacking = [c for c in self.controller.history() if c.value is None]
            found = choose.choice(lacking or probe.newest(self.controller))
            late = (found.worker_id, *found.ref, None, self._value())
            self.controller.set_eval(*late)
        elif kind < 0.93:
            self._claim(worker_id)
        elif kind < 0.97:
            self.controller.close()
            self.controller = self._open()
            work(self.controller, worker_id)
        else:
            for _ in range(6):  # No other worker polls or reports for two timeouts.
                self.clock.advance(9.0)
                at = generation(self.controller, worker_id)
                step = probe.newest(self.controller)[worker_id].step
                self.controller.maybe_get_worker_data(worker_id, at, step, None, None)

    def _claim(self, worker_id: int) -> None:
        """A worker is fenced by another one, which fails, or rejects its params.

        None polls once the slot is retired: it would wait for another one.
        """
        with self.controller.worker(worker_id) as first:
            if worker_id not in probe.retired(self.controller):
                first.poll()
            with self.controller.worker(worker_id) as second:
                if worker_id in probe.retired(self.controller) or not second.poll():
                    return
                kind = self._choose.random()
                if second.params and kind < 0.4:
                    second.reject("it does not load")
                elif kind < 0.6:
                    second.fail("out of memory")

    def _fail_or_come_back(self, worker_id: int) -> None:
        """A slot fails, is revived, or is given up; mostly several times in a row."""
        for _ in range(self._choose.choice([1, 1, 2, 3])):
            kind = self._choose.random()
            if kind < 0.4:
                self.controller.fail(worker_id, f"it broke {kind}")
            elif kind < 0.65:
                self.controller.revive(worker_id)
            elif kind < 0.85:
                work(self.controller, worker_id)
            else:
                self.controller.give_up(worker_id)
            worker_id = self._choose.randrange(self._size)

    def _next(self, worker_id: int) -> tuple[Any, ...]:
        newest = probe.newest(self.controller)[worker_id]
        step = newest.step + self._choose.randint(1, 2)
        params = f"at {step}" if self._choose.random() < 0.6 else None
        return worker_id, newest.generation_id, step, params, self._value()

    def _value(self) -> float | None:
        kind = self._choose.random()
        if kind < 0.15:
            return None
        return math.nan if kind < 0.2 else self._choose.random()


@pytest.mark.parametrize(("make", "size", "seed"), CASES)
def test_the_runs_own_mutator_decides_the_same_again(
    make: Any, size: int, seed: int, tmp_path: pathlib.Path
) -> None:
    """This includes batches, late values, NaN, takeovers, rejections and losses."""
    journey = Journey(tmp_path, lambda: make(perturb), size, seed)
    for _ in range(160):
        journey.go()
    before = content(journey.controller)
    found = population.replay(journey.controller, make(perturb))
    assert found.first_difference is None, str(found)
    assert content(journey.controller) == before, "the run itself is not touched"
    recorded = sum(len(decision.recorded) for decision in found.decisions)
    forced = ("start", "resume", "takeover", "rejected: ", "failed: ")
    generations = [journey.controller.graph.root(g) for g in journey.controller.graph]
    decided = [root for root in generations if not root.reason.startswith(forced)]
    statuses = probe.journal(journey.controller).all(Status)
    retired = sum(status.kind == "retired" for status in statuses)
    assert recorded == len(decided) + retired > 0
    journey.controller.close()


def trained(folder: pathlib.Path, mutator: Mutator[Any]) -> PopulationController:
    """Three raw workers; the one with the smallest number is the best."""
    controller = PopulationController([1.0, 2.0, 3.0], mutator, folder, seed=5)
    for step in range(1, 13):
        for worker_id in range(3):
            value = controller.workers[worker_id].meta_params + 1 / step
            at = generation(controller, worker_id), step
            controller.set_eval(worker_id, *at, f"at {step}", value)
    return controller


def smaller(meta_params: float, rng: np.random.Generator) -> float:
    """A random number below the old one."""
    return meta_params * float(rng.random())


def test_another_mutator_tells_what_it_would_have_decided(
    tmp_path: pathlib.Path,
) -> None:
    """It is shown the reports of the run, which does not change."""
    controller = trained(tmp_path, Scripted())
    other = population.replay(controller, WinnerTakeAllGenetic(smaller, 4))
    assert [decision.recorded for decision in other.decisions] == [{}, {}, {}]
    first = other.decisions[0]
    assert first.checkpoint.step == 4
    assert sorted(first.derived) == [0, 1, 2]
    assert {branch.parent.worker_id for branch in first.derived.values()} == {0}  # type: ignore[union-attr]
    assert other.first_difference is first
    assert "recorded nothing; derived worker 0 from step 4" in str(other)
    controller.close()


def test_the_first_decision_that_differs_is_named(tmp_path: pathlib.Path) -> None:
    """The message has its row, the report, and both branches."""
    controller = trained(tmp_path, WinnerTakeAllGenetic(smaller, 4))
    assert population.replay(tmp_path, WinnerTakeAllGenetic(smaller, 4)).decisions
    probe.connection(controller).execute(
        "UPDATE generations SET meta_params = '0.125', digest = '0.125' "
        "WHERE worker_id = 1 AND number = 2"
    )
    found = population.replay(tmp_path, WinnerTakeAllGenetic(smaller, 4))
    different = [d for d in found.decisions if not d.same]
    assert found.first_difference is different[0]
    changed = different[0].recorded[1]
    assert isinstance(changed, Branch)
    assert changed.meta_params == 0.125
    assert different[0].checkpoint.step == 8
    assert f"row {different[0].row}" in str(found)
    controller.close()


def test_an_impure_mutate_fn_shows(tmp_path: pathlib.Path) -> None:
    """Random numbers that do not come from the run's seed cannot be repeated."""
    wild = random.Random(0)
    mutator = WinnerTakeAllGenetic(lambda h: h * wild.random(), 4)
    controller = trained(tmp_path, mutator)
    found = population.replay(tmp_path, mutator)
    assert not any(decision.same for decision in found.decisions)
    controller.close()


def test_a_run_that_is_open_elsewhere_can_be_replayed(tmp_path: pathlib.Path) -> None:
    """It is read as of one row, while others write."""
    controller = trained(tmp_path, PopulationBasedTraining(smaller, 3))
    found = population.replay(tmp_path, PopulationBasedTraining(smaller, 3))
    controller.set_eval(0, generation(controller), 13, None, 0.5)
    again = population.replay(tmp_path, PopulationBasedTraining(smaller, 3))
    assert again.updates == found.updates + 1
    assert found.first_difference is again.first_difference is None
    controller.close()


def test_what_a_mutator_raises_while_it_is_replayed_is_raised(
    tmp_path: pathlib.Path,
) -> None:
    """It is the user's exception; the run does not change."""
    controller = trained(tmp_path, Scripted())

    def raises(report: Report, view: Any) -> Mapping[int, Branch]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        population.replay(tmp_path, Scripted(raises))
    controller.close()


@pytest.mark.parametrize("error", [None, ZeroDivisionError])
def test_a_replay_is_one_transaction_of_a_journal_that_is_closed(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception] | None,
) -> None:
    """The run in memory is written at once, and no transaction stays open."""
    trained(tmp_path, Scripted()).close()
    outside: list[object] = []
    opened: set[SqliteJournal] = set()
    write, close = SqliteJournal.write, SqliteJournal.close

    def count(journal: SqliteJournal, records: Sequence[Record]) -> None:
        opened.add(journal)
        if not probe.connection_of(journal).in_transaction:
            outside.append(records)
        write(journal, records)

    def note(journal: SqliteJournal) -> None:
        opened.discard(journal)
        close(journal)

    def decide(report: Report, view: Any) -> Mapping[int, Branch]:
        assert len(opened) == 1
        if error is not None:
            raise error
        return {}

    monkeypatch.setattr(SqliteJournal, "write", count)
    monkeypatch.setattr(SqliteJournal, "close", note)
    with pytest.raises(error) if error else contextlib.nullcontext():
        population.replay(tmp_path, Scripted(decide))
    assert not outside
    assert not opened


def test_only_a_run_on_disk_can_be_replayed(tmp_path: pathlib.Path) -> None:
    """The errors say what is needed; no file is made."""
    mutator = Scripted(branch_at(1, 2.0))
    controller = PopulationController([1.0], mutator)
    with pytest.raises(ValueError, match=r"needs a run that is on disk.*log_dir"):
        population.replay(controller, mutator)
    with pytest.raises(population.JournalError, match="must be the log_dir of a run"):
        population.replay(tmp_path / "nothing", mutator)
    assert not (tmp_path / "nothing").exists()


def join_the_best(report: Report, view: PopulationView) -> Mapping[int, Branch]:
    """Whoever is not the best goes on from there."""
    best = view.graph.best()
    if best is None or best.worker_id == report.worker_id:
        return {}
    return {report.worker_id: Branch(best, best.meta_params)}


def test_a_mutator_finds_the_best_that_there_was_then(tmp_path: pathlib.Path) -> None:
    """After each report, and after each one of several at once."""
    controller = PopulationController(
        [1.0, 2.0, 3.0], Scripted(join_the_best), tmp_path
    )
    for step in range(1, 6):
        values = {w: -float(step) if w == step % 3 else 1.0 for w in range(3)}
        reports = [
            (w, generation(controller, w), controller.newest(w).step + 1, "p", value)
            for w, value in values.items()
        ]
        if step % 2:
            controller.set_evals(reports)
        else:
            for report in reports:
                controller.set_eval(*report)
    found = population.replay(controller, Scripted(join_the_best))
    assert found.first_difference is None, str(found)
    assert len(found.decisions) > 5
