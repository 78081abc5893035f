"""A failure between a save and its record leaves no file, no lock, no stale state.

It also removes no file that a record names.
"""

from __future__ import annotations

import os
import pathlib
import sqlite3
import threading
from typing import Any

import numpy as np
import pytest

from population import Event, JournalError, PopulationController, Start
from population.base import InMemory
from population.base.errors import ClaimError
from population.engines.stacked.lease import EngineLease, Trained
from population.journal.records import Removal
from population.journal.sqlite import SqliteJournal
from population.journal.sqlite_connection import Connection
from population.mutators import WinnerTakeAllGenetic
from population.params import MemoryParams
from tests import probe
from tests.helpers import Scripted, generation

TREE = {"w": np.ones(3)}
SECONDS = 30  # Much longer than anything here waits.


def opened(log_dir: pathlib.Path | None, **options: Any) -> PopulationController:
    """A run of two slots without decisions."""
    return PopulationController([1.0, 2.0], Scripted(), log_dir, **options)


def files(folder: pathlib.Path) -> list[str]:
    """The names of all saved params."""
    return sorted(path.name for path in folder.rglob("*.safetensors"))


def test_an_interrupt_after_the_commit_removes_nothing_that_was_recorded(
    tmp_path: pathlib.Path,
) -> None:
    """This holds although the save was for another report, which added nothing."""
    interrupts: list[BaseException] = []

    def interrupt(event: Event) -> None:
        if interrupts:
            raise interrupts.pop()

    controller = opened(tmp_path, on_event=interrupt)
    lease = EngineLease(controller)
    one, two = (slot.generation_id for slot in lease.population.slots())
    lease.report([Trained(0, one, 1, TREE, 1.0)])
    shared = {"w": np.zeros(3)}
    interrupts.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        lease.report([Trained(0, one, 1, shared), Trained(1, two, 1, shared, 2.0)])
    newest = controller.newest(1)
    assert newest.step == 1
    np.testing.assert_array_equal(controller.load(newest)["w"], np.zeros(3))
    controller.close()


def test_an_interrupt_while_news_are_taken_in_costs_no_later_report(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite says only once that others have written."""
    mine, other = opened(tmp_path), opened(tmp_path)
    assert mine.workers[0].step == 0
    other.set_eval(0, generation(other), 1, "p", 1.0)
    changed = Connection.changed

    def interrupted(self: Connection) -> bool:
        changed(self)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(Connection, "changed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mine.set_eval(1, generation(other, 1), 1, None, 1.0)
    mine.set_eval(1, generation(other, 1), 2, None, 1.0)
    assert [mine.newest(0).step, mine.newest(1).step] == [1, 2]
    mine.close()
    other.close()


def test_a_write_that_fails_costs_no_later_report(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds even if it fails because the known state was out of date."""
    controller = opened(tmp_path)
    name, row = generation(controller), probe.last_row(controller)
    probe._known(controller).row -= 1
    with pytest.raises(JournalError):
        controller.set_eval(0, name, 1, None, 1.0)
    controller.set_eval(0, name, 1, None, 1.0)
    assert probe.last_row(controller) == row + 1
    controller.close()


def test_removing_what_was_not_recorded_holds_no_lock(tmp_path: pathlib.Path) -> None:
    """A store may call the controller; polls of other slots do not wait for it."""
    removed: list[int] = []

    class Asking(MemoryParams):
        def remove(self, path: str) -> None:
            removed.append(len(controller.workers))
            super().remove(path)

    controller = opened(tmp_path, params=Asking())
    name = generation(controller)
    controller.set_eval(0, name, 1, TREE, 1.0)
    report = 0, name, 1, TREE, 1.0
    thread = threading.Thread(target=controller.set_eval, args=report, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert removed == [2]
    controller.close()


def test_what_was_saved_for_a_run_that_is_closed_meanwhile_is_removed(
    tmp_path: pathlib.Path,
) -> None:
    """The report raises, and leaves no file."""
    controller = opened(tmp_path)
    lease = controller.claim_all()
    name = lease.slots()[0].generation_id
    new = [lease.encode(0, name, 1, TREE, 1.0)]
    assert files(tmp_path)
    controller.close()
    with pytest.raises(JournalError, match="closed"):
        lease.report(new)
    controller.open_run.params.close()
    assert not files(tmp_path)


def test_what_was_saved_for_a_report_that_the_lease_refuses_is_removed(
    tmp_path: pathlib.Path,
) -> None:
    """The lease checks `gone` only after the arrays were saved."""
    controller = opened(tmp_path)
    lease = controller.claim_all()
    new = [lease.encode(0, lease.slots()[0].generation_id, 1, TREE, 1.0)]
    assert files(tmp_path)
    with pytest.raises(ValueError, match="gone"):
        lease.report(new, gone=[InMemory("x", 1)])
    assert not files(tmp_path)
    controller.close()


def test_a_run_that_cannot_be_set_up_leaves_no_journal_open(
    tmp_path: pathlib.Path,
) -> None:
    """Not even while the exception is kept: the next one gets all locks."""

    def broken() -> float:
        raise OSError("no clock")

    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="no clock") as kept:
        opened(tmp_path, clock=broken)
    assert kept.value.__traceback__ is not None
    names = (
        os.readlink(f"/proc/self/fd/{n}")
        for n in os.listdir("/proc/self/fd")
        if n not in before and os.path.lexists(f"/proc/self/fd/{n}")
    )
    assert not [name for name in names if name.startswith(str(tmp_path))]


def test_an_interrupt_at_the_end_of_an_opening_leaves_no_lock_and_no_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds also for a journal that the caller passed, which stays open."""
    journal = SqliteJournal(tmp_path / "journal.sqlite")

    def interrupted(self: Connection, *exc: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt  # At its first instruction.

    monkeypatch.setattr(Connection, "__exit__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        PopulationController(
            [Start(1.0, params=TREE)], Scripted(), tmp_path, journal=journal
        )
    assert not files(tmp_path)
    other = sqlite3.connect(tmp_path / "journal.sqlite", timeout=0)
    other.execute("BEGIN IMMEDIATE")
    other.close()
    journal.close()


def test_params_are_rejected_once(tmp_path: pathlib.Path) -> None:
    """A second rejection records no removal."""
    controller = opened(tmp_path)
    worker = controller.worker(0)
    assert worker.poll()
    worker.step = 1
    worker.report(1.0, TREE)
    worker.release()
    worker = controller.worker(0)
    assert worker.poll()
    worker.reject("bad")
    worker.reject("bad again")
    (removal,) = controller.open_run.journal.all(Removal)
    assert removal.reason == "rejected: bad"
    controller.close()


def test_weights_in_memory_that_were_never_reported_are_never_gone() -> None:
    """An engine cannot name weights as gone that it never had."""
    controller = opened(None)
    lease = controller.claim_all()
    one, two = (slot.generation_id for slot in lease.slots())
    new = [lease.encode(0, one, 1, InMemory(), 1.0)]
    with pytest.raises(TypeError):
        lease.encode(1, two, 1, InMemory(), "bad")
    lease.undo(new)
    with pytest.raises(ValueError, match="has held"):
        lease.report([], gone=[InMemory(new[0].params.session, 999)])
    lease.report([], gone=[new[0].params])
    lease.release()
    assert not controller.open_run.journal.all(Removal)


@pytest.mark.parametrize("worker_id", [-1, 2, 0.0, True])
def test_a_lease_refuses_slots_that_do_not_exist(worker_id: Any) -> None:
    """Nothing is recorded for them."""
    controller = opened(None)
    lease = controller.claim_all()
    row = probe.last_row(controller)
    with pytest.raises((TypeError, ValueError), match="worker_id"):
        lease.resume([worker_id])
    assert probe.last_row(controller) == row


def test_a_released_lease_records_no_fact() -> None:
    """As with everything that a lease records."""
    lease = opened(None).claim_all()
    lease.release()
    with pytest.raises(ClaimError):
        lease.record_fact("mine", 1)
    assert "mine" not in lease.facts()


@pytest.mark.parametrize("key", ["size", "run", "forked", "held", "space"])
def test_a_lease_records_no_fact_of_the_library(key: str) -> None:
    """Otherwise the run could not be opened again."""
    lease = opened(None).claim_all()
    with pytest.raises(ValueError, match=f"'{key}' is a fact of the library"):
        lease.record_fact(key, "mine")
    lease.record_fact(f"my {key}", "mine")
    assert lease.facts("my ") == {f"my {key}": "mine"}


def test_a_late_value_of_an_evaluator_takes_no_given_up_slot_back() -> None:
    """A process that evaluates the saves of a dead loop does not train the slot."""
    mutator = WinnerTakeAllGenetic(lambda h, rng: h, 10)
    controller = PopulationController([1.0, 2.0], mutator)
    dead = generation(controller, 1)
    controller.set_eval(1, dead, 10, "by the dead", None)
    controller.set_eval(0, generation(controller), 10, "at 10", 1.0)
    controller.give_up(1)
    controller.set_eval(1, dead, 10, None, 5.0)
    assert probe.live(controller) == [0]
    for step in (20, 30):
        before = generation(controller)
        controller.set_eval(0, before, step, f"at {step}", 0.5)
        assert generation(controller) != before
    controller.set_eval(1, generation(controller, 1), 40, "alive", 0.5)
    assert probe.live(controller) == [0, 1]
