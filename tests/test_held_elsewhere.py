"""Weights in memory at a restart and in other processes, and their cost."""

from __future__ import annotations

import ast
import math
import pathlib
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import population
from population import Branch, PopulationController, PopulationView, Report
from population.base.types import Saved
from population.journal.records import Generation
from population.journal.sqlite import SqliteJournal
from population.journal.sqlite_file import JOURNAL_NAME
from population.mutators import WinnerTakeAllGenetic
from tests import probe
from tests.held_engine import (
    BACK,
    HELD,
    Engine,
    LooksBack,
    add,
    copy_from,
    held,
    leave_behind,
    opened,
)
from tests.helpers import Clock, Scripted, everything, poll, told, work

# Restarts.


def test_a_restart_goes_back_to_what_was_saved(tmp_path: pathlib.Path) -> None:
    """Weights in memory are lost: the newest, those kept aside and the copied ones."""
    engine = opened(copy_from(0, 2, 1), tmp_path)
    engine.report([1.0, 2.0, 3.0], "a path")
    for value in (0.0, 4.0, 5.0):
        engine.report([value, 2.0, 3.0])
    assert engine.held()
    engine.controller.close()
    again = PopulationController([0.0, 1.0, 2.0], Scripted(), tmp_path)
    found = [(w.params, w.step) for w in again.claim_all().values()]
    assert found == 3 * [("a path", 1)]


def test_a_copy_finds_what_its_donor_saved(tmp_path: pathlib.Path) -> None:
    """After a restart the branch continues from the path that was reported later."""
    engine = opened(copy_from(0, 1, 1), tmp_path)
    engine.report({0: 1.0})
    engine.commit([(0, *engine.newest(0).ref, "a path", None)])
    engine.controller.close()
    at = opened(folder=tmp_path).controller.workers[1]
    assert (at.params, at.step, at.meta_params) == ("a path", 1, 9.0)


def test_what_a_host_held_that_is_gone_is_none(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """A run may move to another machine, which cannot ask the first one."""
    with monkeypatch.context() as there:
        probe.pretend_host(there, "a-host", "/")
        engine = opened(folder=tmp_path, size=1, clock=clock)
        engine.report({0: 1.0}, "a path")
        engine.report({0: 0.0})
        engine.report({0: 1.0})
        assert engine.held() == [(0, 2), (0, 3)]
        engine.controller.close()
    clock.advance(1e6)
    again = PopulationController([0.0], Scripted(), tmp_path, clock=clock)
    assert held(again) == []


def run(call: str) -> None:
    """Call a function of `held_engine` in a process, which is killed."""
    code = f"from tests import held_engine; held_engine.{call}"
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_killed_process_goes_on_from_its_last_save(tmp_path: pathlib.Path) -> None:
    """The weights in its memory are lost; all saves are kept."""
    run(f"killed({str(tmp_path)!r})")
    again = opened(WinnerTakeAllGenetic(add, 2), tmp_path)
    for w, at in enumerate(again.controller.workers):
        assert type(at.params) is Saved
        assert at.step == 3
        np.testing.assert_array_equal(again.controller.load(again.newest(w))["w"], 3)
    for _ in range(6):
        again.report([1.0, 2.0, 3.0])
    again.report([1.0, 2.0, 3.0], {"w": np.full(2, 9.0)})  # It removes leftovers.
    mutator = WinnerTakeAllGenetic(add, 2)
    assert population.replay(tmp_path, mutator).first_difference is None


@pytest.mark.parametrize(
    ("kind", "before"),
    [("removals", True), ("removals", False), ("checkpoints", False), ("commit", True)],
)
def test_a_kill_before_the_commit_loses_nothing(
    tmp_path: pathlib.Path, kind: str, before: bool
) -> None:
    """Neither the reports nor the weights that they name as gone are recorded."""
    folder = tmp_path / "run"
    run(f"killed_within({str(folder)!r}, {kind!r}, {before})")
    known, counted = ast.literal_eval((tmp_path / "run.state").read_text())
    file = sqlite3.connect(folder / JOURNAL_NAME)
    sql = "SELECT count(*) FROM history WHERE params LIKE '{\"!held\"%'"
    assert file.execute(sql).fetchone() == (len(counted),)
    file.close()
    again = PopulationController([0.0, 1.0, 2.0], copy_from(0, 3, 1), folder)
    assert repr(probe.reports(again)) == known["reports"]
    engine = Engine(again)
    for w, at in enumerate(again.workers):
        assert (type(at.params), at.step) == (Saved, 2)
        np.testing.assert_array_equal(again.load(engine.newest(w))["w"], 2.0)
    for _ in range(3):
        engine.report([1.0, 2.0, 3.0])
    engine.report([1.0, 2.0, 3.0], {"w": np.full(2, 9.0)})
    found = population.replay(folder, copy_from(0, 3, 1))
    assert found.first_difference is None


def test_the_last_save_below_what_is_held_is_kept(tmp_path: pathlib.Path) -> None:
    """A restart needs it, however much is saved elsewhere later."""
    engine = opened(folder=tmp_path, size=2)
    engine.report({0: 1.0}, {"w": np.ones(2)})
    for step in range(80):
        engine.report({0: 1.0 - step})
        engine.report({1: 200.0 - step}, {"w": np.full(2, step)})
        probe.settle()
    assert 2 <= len(probe.saves(engine.controller)) < 45
    engine.controller.close()
    again = opened(folder=tmp_path, size=2)
    assert again.newest(0).step == 1
    np.testing.assert_array_equal(again.controller.load(again.newest(0))["w"], 1.0)


# Other processes.


def test_others_see_them_as_held_while_their_process_lives(
    tmp_path: pathlib.Path,
) -> None:
    """Opening a run takes nothing from the process that trains it."""
    engine = opened(folder=tmp_path)
    engine.report([1.0, 2.0, 3.0])
    other = PopulationController([0.0, 1.0, 2.0], Scripted(), tmp_path)
    assert held(other) == engine.held() == [(0, 1), (1, 1), (2, 1)]
    assert probe.needed_in_memory(other) == frozenset()  # They are in another memory.
    assert engine.lease.taken() == []
    engine.report([2.0, 2.0, 3.0])
    assert held(other) == engine.held() == [(0, 1), (0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize("raw", [False, True])
def test_another_process_hands_out_none_of_them(
    tmp_path: pathlib.Path, raw: bool
) -> None:
    """A worker there begins without weights; all other slots keep theirs."""
    engine = opened(folder=tmp_path)
    engine.report([1.0, 2.0, 3.0])
    other = PopulationController([0.0, 1.0, 2.0], Scripted(), tmp_path)
    if raw:
        found = poll(other, 1)
        assert found is not None
        assert (found.params, found.step) == (None, 0)
        assert engine.lease.taken() == []
    else:
        with other.worker(1) as worker:
            assert worker.poll()
            assert (worker.load_from, worker.step) == (None, 0)
            assert engine.lease.taken() == [1]
    assert engine.held() == [(0, 1), (2, 1)]
    engine.report({0: 2.0, 2: 2.0})
    assert engine.held() == held(other) == [(0, 1), (0, 2), (2, 2)]


def test_what_is_gone_is_gone_for_others_that_were_quicker(
    tmp_path: pathlib.Path,
) -> None:
    """They reported in between, and then read what was recorded."""
    engine = opened(folder=tmp_path, size=2)
    engine.report([1.0, 2.0])
    other = PopulationController([0.0, 1.0], Scripted(), tmp_path)
    late = engine.newest(1).ref
    gone = engine.newest(1).params
    lease = engine.lease
    encoded = lease.encode(0, engine.newest(0).generation_id, 2, HELD, 0.5)
    begin = probe.journal(engine.controller).transaction

    def later() -> Any:
        probe.journal(engine.controller).transaction = begin
        other.set_eval(1, late.generation_id, 2, None, 7.0)
        return begin()

    probe.journal(engine.controller).transaction = later
    lease.report([encoded], gone=[gone])
    probe.refresh(other)
    before = probe.in_memory(other)
    probe.forget(other)
    assert probe.in_memory(other) == before


def test_who_takes_all_over_is_never_sent_to_the_memory_of_another(
    tmp_path: pathlib.Path,
) -> None:
    """A branch from the best, or a donor, finds a save or nothing."""
    first = opened(copy_from(1, 3, 0), tmp_path)
    first.report([1.0, 2.0, 3.0], "a path")
    first.report([-9.0, 2.0, 3.0])
    first.report([1.0, 2.0, 3.0])
    assert (0, 2) in first.needed()  # The best is on no lineage of a slot.

    def from_the_best(asked: Report, view: PopulationView) -> Mapping[int, Branch]:
        return {asked.worker_id: Branch(view.graph.best(), 9.0)}

    probe.abandon_claim(first.controller)  # Pretend that the process has died.
    second = opened(Scripted(from_the_best), tmp_path)
    assert second.held() == [(0, 3)]  # Nothing needs it.
    assert second.lease.needed() == frozenset()
    second.report([5.0, 5.0, 5.0], "another")
    found = [work(second.controller, w).params for w in range(3)]
    assert found == 3 * ["a path"]
    assert first.lease.taken() == [0, 1, 2]


@pytest.mark.parametrize("saved", [False, True])
def test_what_a_dead_process_had_not_said_to_be_gone_is_none(
    tmp_path: pathlib.Path, saved: bool
) -> None:
    """A branch from any of its reports goes back to the save before it."""
    first = opened(LooksBack(), tmp_path, size=1)
    first.report({0: 5.0}, "a path" if saved else None)
    leave_behind(first)
    first.controller.close()
    second = opened(LooksBack(), tmp_path, size=1)
    second.report({0: BACK})
    at = second.controller.workers[0]
    wanted = ("a path", 1) if saved else (None, 0)
    assert (at.params, at.step, at.meta_params) == (*wanted, 9.0)
    found = population.replay(second.controller, LooksBack())
    assert found.first_difference is None


def test_who_takes_a_slot_knows_that_its_donor_has_nothing_more(
    tmp_path: pathlib.Path,
) -> None:
    """Two slots copied the same weights; a worker elsewhere takes one of them."""
    first = opened(copy_from(0, 2, 1), tmp_path)
    first.report([1.0, 2.0, 3.0], "a path")
    first.report([2.0, 2.0, 3.0])
    second = PopulationController([0.0, 1.0, 2.0], Scripted(), tmp_path)
    with second.worker(1) as worker:
        assert worker.poll()
        assert (worker.load_from, worker.step) == ("a path", 1)
        before = probe.in_memory(second)
        probe.forget(second)
        assert probe.in_memory(second) == before


# Rollback, replay and fork.


def test_a_mutator_that_raises_changes_nothing(tmp_path: pathlib.Path) -> None:
    """The weights named as gone still count; the next report names them again."""
    fails: list[bool] = []

    def decide(asked: Report, view: PopulationView) -> Mapping[int, Branch]:
        del view
        if fails and asked.worker_id == 2:
            raise ZeroDivisionError("on purpose")
        return {}

    def looks() -> tuple[Any, ...]:
        return everything(engine.controller), engine.held(), engine.needed()

    engine = opened(Scripted(decide), tmp_path)
    for value in (1.0, 0.0, 2.0):
        engine.report([value, 2.0, 3.0])
    before = looks()
    fails.append(True)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="on purpose"):
            engine.report([-1.0, 2.0, 3.0])
        assert looks() == before
    fails.clear()
    engine.report([-1.0, 2.0, 3.0])
    engine.report([0.0, 2.0, 3.0])
    assert engine.needed() == [(0, 4)]
    assert engine.held() == [(0, 4), (0, 5), (1, 5), (2, 5)]
    engine.lease.release()
    assert engine.held() == []


@pytest.mark.parametrize("synchronous", [False, True])
def test_replay_agrees_with_a_run_that_held_its_weights(
    tmp_path: pathlib.Path, synchronous: bool
) -> None:
    """It sees only the weights that existed then."""
    choose = random.Random(1)

    def mutator() -> WinnerTakeAllGenetic:
        return WinnerTakeAllGenetic(add, 2, synchronous=synchronous)

    engine = opened(mutator(), tmp_path, size=4)
    for number in range(40):
        values = [choose.choice([1.0, 2.0, 3.0, math.nan]) for _ in range(4)]
        engine.report(values, HELD if number % 5 else "a path")
    found = population.replay(engine.controller, mutator())
    assert found.first_difference is None


def test_a_fork_begins_at_what_was_saved(tmp_path: pathlib.Path) -> None:
    """Weights in a memory cannot be copied."""
    engine = opened(copy_from(0, 2, 1), tmp_path / "run")
    engine.report([1.0, 2.0, 3.0], "a path")
    engine.report([0.0, 2.0, 3.0])
    other = population.fork(engine.controller, tmp_path / "fork", mutator=Scripted())
    assert held(other) == []
    assert {work.params for work in other.claim_all().values()} == {"a path"}
    assert {*engine.held()} == {(0, 2), (1, 2), (2, 2)}


def test_two_runs_with_the_same_reports_hold_the_same() -> None:
    """Except for names of sessions, everything follows from the reports."""
    first, second = (opened(copy_from(0, 2, 1)) for _ in range(2))
    for engine in (first, second):
        for value in (1.0, 0.0, 2.0):
            engine.report([value, 2.0, 3.0])
    assert first.held() == second.held()
    told_of = [[c[:2] for c in told(e.controller)] for e in (first, second)]
    assert told_of[0] == told_of[1]
    assert first.needed() == second.needed()


# The cost.


def statements(engine: Engine, params: Any = HELD) -> list[str]:
    """The statements of one round, with their values."""
    seen: list[str] = []
    connection = probe.connection(engine.controller)
    connection.set_trace_callback(seen.append)
    engine.report([10.0 + w for w in range(8)], params)
    connection.set_trace_callback(None)
    return seen


def test_a_round_takes_as_many_statements_after_long() -> None:
    """No statement scans the history, and a report needs four."""
    engine = opened(size=8)
    engine.report([float(w) for w in range(8)])
    early = [len(statements(engine)) for _ in range(5)][-1]
    for _ in range(300):
        engine.report([10.0 + w for w in range(8)])
    assert len(statements(engine)) == early <= 8 * 4 + 12


def test_a_run_that_holds_nothing_takes_no_statement_for_it() -> None:
    """Users who save files pay nothing for this feature."""
    engine = opened(size=8)
    statements(engine, "a path")
    for number in range(10):
        found = statements(engine, f"at {number}")
        assert not [sql for sql in found if "held" in sql or "removals (" in sql]
        assert len(found) <= 8 + 12


@pytest.mark.parametrize("how", ["release", "claim", "open"])
def test_what_a_large_population_held_is_gone_at_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Each slot is read a few times, not once for each other slot."""
    size = 60
    engine = opened(folder=tmp_path, size=size)
    engine.report([float(w) for w in range(size)])
    looks: list[Any] = []
    look = SqliteJournal.generations

    def counted(self: SqliteJournal, **wanted: Any) -> list[Generation]:
        looks.append(wanted)
        return look(self, **wanted)

    monkeypatch.setattr(SqliteJournal, "generations", counted)
    if how == "release":
        engine.lease.release()
    elif how == "claim":
        engine.controller.claim_all()
    else:
        engine.controller.close()
        engine = opened(folder=tmp_path, size=size)
    assert engine.held() == []
    assert 0 < len(looks) < 6 * size
