"""Promises of a claim of all slots at once."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from population import PopulationController, Stop
from population.base.errors import ClaimError, JournalError
from population.base.types import InMemory, Saved
from tests import probe
from tests.helpers import Clock, Scripted, branch_at, everything, poll


def opened(folder: pathlib.Path | None = None, **options: Any) -> PopulationController:
    """Three slots."""
    mutator = options.pop("mutator", None) or Scripted()
    return PopulationController([0.1, 0.2, 0.3], mutator, folder, **options)


def report(controller: PopulationController, params: Any, *values: float) -> None:
    """All slots report, each one step further."""
    controller.set_evals(
        [
            (w, at.generation_id, at.step + 1, params, value)
            for (w, at), value in zip(
                enumerate(controller.workers), values, strict=True
            )
        ]
    )


def test_every_slot_is_given_at_its_resume_point() -> None:
    """This includes slots whose newest checkpoint has no weights."""
    controller = opened()
    report(controller, "a path", 1.0, 2.0, 3.0)
    at = controller.workers[1]
    controller.set_eval(1, at.generation_id, 2, None, 0.5)
    given = controller.claim_all()
    assert {w: (g.params, g.step) for w, g in given.items()} == dict.fromkeys(
        range(3), ("a path", 1)
    )
    assert given[1].generation_id != at.generation_id
    assert given[0] == controller.workers[0]


def test_the_weights_are_the_librarys_business_then() -> None:
    """A restart of a run that has never saved begins again, not at step 5."""
    controller = opened()
    report(controller, None, 1.0, 2.0, 3.0)
    assert not controller.graph.keeps_weights
    assert [work.step for work in controller.claim_all().values()] == [0, 0, 0]
    assert controller.graph.keeps_weights


def test_saved_arrays_are_not_read() -> None:
    """An engine with a thousand slots loads what it needs, with `load`."""
    controller = opened()
    report(controller, {"w": np.ones(2)}, 1.0, 2.0, 3.0)
    given = controller.claim_all()
    assert all(type(work.params) is Saved for work in given.values())


def test_slots_that_wait_are_claimed_too(tmp_path: pathlib.Path) -> None:
    """The engine trains none past its barrier, but no other worker may either."""
    from population.mutators import WinnerTakeAllGenetic

    mutator = WinnerTakeAllGenetic(lambda m: m, 1, synchronous=True)
    controller = opened(tmp_path, mutator=mutator)
    at = controller.workers[0]
    controller.set_eval(0, at.generation_id, 1, "path", 1.0)
    assert controller.workers[0].wait_at == 1
    assert set(controller.claim_all()) == {0, 1, 2}
    assert probe.taken_slots(controller) == []


def test_a_held_slot_is_an_error_that_names_who_has_it(tmp_path: pathlib.Path) -> None:
    """Nothing changes then, and no slot is claimed."""
    controller = opened(tmp_path)
    worker = controller.worker(1)
    before = everything(controller)
    with pytest.raises(ClaimError, match=r"some are held: 1 by .*End these workers"):
        controller.claim_all()
    assert everything(controller) == before
    assert probe.whole_claim(controller) is None
    worker.release()
    assert len(controller.claim_all()) == 3


def test_two_controllers_cannot_both_have_all(tmp_path: pathlib.Path) -> None:
    """The second claim is refused as long as the first process may be alive."""
    first, second = opened(tmp_path), opened(tmp_path)
    first.claim_all()
    with pytest.raises(ClaimError, match="2 by "):
        second.claim_all()
    assert probe.taken_slots(first) == []
    first.close()
    assert len(second.claim_all()) == 3


def test_a_second_claim_begins_anew() -> None:
    """The lease is the same one; weights in memory of the first claim are lost."""
    controller = opened()
    controller.claim_all()
    report(controller, "a path", 1.0, 2.0, 3.0)
    holder = probe.whole_claim(controller)
    report(controller, InMemory(), 1.0, 2.0, 3.0)
    given = controller.claim_all()
    assert probe.whole_claim(controller) is holder
    assert [(g.params, g.step) for g in given.values()] == 3 * [("a path", 1)]
    assert probe.needed_in_memory(controller) == frozenset()


def test_reports_keep_the_claim_alive(tmp_path: pathlib.Path, clock: Clock) -> None:
    """Raw reports of the claiming process renew its leases, for hours."""
    first = opened(tmp_path, clock=clock, worker_timeout=60.0)
    second = opened(tmp_path, clock=clock, worker_timeout=60.0)
    first.claim_all()
    for _ in range(200):
        clock.advance(25.0)
        report(first, InMemory(), 1.0, 2.0, 3.0)
        probe.refresh(second)
        assert probe.free_slot(second) is None
    with pytest.raises(ClaimError, match="0 by "):
        second.claim_all()
    assert probe.taken_slots(first) == []


def test_polls_keep_the_claim_alive(tmp_path: pathlib.Path, clock: Clock) -> None:
    """A loop that waits polls, and so shows that it is alive."""
    first = opened(tmp_path, clock=clock, worker_timeout=60.0)
    second = opened(tmp_path, clock=clock, worker_timeout=60.0)
    names = [work.generation_id for work in first.claim_all().values()]
    report(first, InMemory(), 1.0, 2.0, 3.0)
    for _ in range(20):
        clock.advance(25.0)
        assert all(poll(first, w, names[w], 1) is None for w in range(3))
        probe.refresh(second)
        assert probe.free_slot(second) is None


def test_a_claim_that_falls_silent_is_lost_and_fenced(
    tmp_path: pathlib.Path, clock: Clock
) -> None:
    """The late engine is told, and its later reports are a side branch."""
    first = opened(tmp_path, clock=clock, worker_timeout=60.0)
    second = opened(tmp_path, clock=clock, worker_timeout=60.0)
    first.claim_all()
    report(first, "a path", 1.0, 2.0, 3.0)
    report(first, InMemory(), 1.0, 2.0, 3.0)
    late = first.workers
    probe.refresh(second)
    for _ in range(4):
        clock.advance(30.0)
        probe.watch(second)
    given = second.claim_all()
    assert [(g.params, g.step) for g in given.values()] == 3 * [("a path", 1)]
    report_of = [(w, at.generation_id, 3, InMemory(), 0.0) for w, at in enumerate(late)]
    first.set_evals(report_of)
    assert probe.taken_slots(first) == [0, 1, 2]
    assert [work.step for work in second.workers] == [1, 1, 1]


def test_a_slot_that_a_worker_takes_by_its_id_is_lost(tmp_path: pathlib.Path) -> None:
    """The worker gets saved weights, not those in the memory of another process."""
    first, second = opened(tmp_path), opened(tmp_path)
    first.claim_all()
    report(first, "a path", 1.0, 2.0, 3.0)
    report(first, InMemory(), 1.0, 2.0, 3.0)
    with second.worker(1) as worker:
        assert worker.poll()
        assert (worker.load_from, worker.step) == ("a path", 1)
        report(first, InMemory(), 1.0, 2.0, 3.0)
        assert probe.taken_slots(first) == [1]


def test_a_loop_that_polls_a_claimed_slot_gets_saved_weights(
    tmp_path: pathlib.Path,
) -> None:
    """A poll of another process never returns weights that only the first one has."""
    first, second = opened(tmp_path), opened(tmp_path)
    first.claim_all()
    report(first, "a path", 1.0, 2.0, 3.0)
    report(first, InMemory(), 1.0, 2.0, 3.0)
    found = poll(second, 1)
    assert found is not None
    assert (found.params, found.step) == ("a path", 1)


def test_the_claims_own_polls_go_on_from_what_it_holds() -> None:
    """A branch to weights in memory is returned unchanged."""
    controller = opened(mutator=Scripted(branch_at(1, 0.5)))
    first = controller.claim_all()[0]
    controller.set_eval(0, first.generation_id, 1, InMemory(), 1.0)
    found = poll(controller, 0, first.generation_id, 1)
    assert found is not None
    assert (type(found.params), found.step) == (InMemory, 1)


def test_all_is_free_again_when_it_is_given_back(tmp_path: pathlib.Path) -> None:
    """Others continue from what was saved, in the same generations."""
    first, second = opened(tmp_path), opened(tmp_path)
    first.claim_all()
    report(first, "a path", 1.0, 2.0, 3.0)
    report(first, InMemory(), 1.0, 2.0, 3.0)
    probe.release_all(first)
    assert probe.whole_claim(first) is None
    assert probe.taken_slots(first) == [0, 1, 2]
    assert all(type(c.params) is not InMemory for c in second.history())
    assert [work.params for work in second.claim_all().values()] == 3 * ["a path"]
    probe.release_all(first)  # There is nothing left to give back.
    assert probe.taken_slots(second) == []


def test_a_run_that_has_ended_can_be_claimed() -> None:
    """An engine that looks for work finds none."""
    controller = opened(stop=Stop(steps=1))
    report(controller, "a path", 1.0, 2.0, 3.0)
    assert controller.finished
    assert [work.step for work in controller.claim_all().values()] == [1, 1, 1]
    assert controller.finished


# Errors of a lease.

RELEASED = "was released: claim all slots again"


def test_a_released_lease_records_nothing(tmp_path: pathlib.Path) -> None:
    """Its slots are free for others, who would train beside lost weights."""
    controller = opened(tmp_path, worker_timeout=60.0)
    lease = controller.claim_all()
    name = lease[0].generation_id
    arrays = lease.encode(0, name, 1, {"w": np.ones(2)}, 1.0)
    lease.release()
    before = everything(controller)
    for act in (
        lambda: lease.encode(0, name, 1, InMemory(), 1.0),
        lambda: lease.report([arrays]),
        lambda: lease.report([]),
        lambda: lease.resume([0]),
        lambda: lease.resume([]),
        lease.renew,
        lease.unblock,
    ):
        with pytest.raises(ClaimError, match=RELEASED):
            act()
    assert everything(controller) == before
    assert not list(tmp_path.rglob("*.safetensors")), "the save was removed"
    lease.release()  # To release it twice does nothing.
    controller.claim_all().report([])


def test_a_lease_that_was_released_stays_so_after_another_claim() -> None:
    """A loop that was replaced by another one in its process gets an error."""
    controller = opened()
    first = controller.claim_all()
    first.release()
    second = controller.claim_all()
    with pytest.raises(ClaimError, match=RELEASED):
        first.report([])
    second.report([])


def test_every_call_of_a_lease_says_that_the_run_is_closed() -> None:
    """No call answers with what was known before."""
    controller = opened()
    lease = controller.claim_all()
    name = lease[0].generation_id
    encoded = lease.encode(0, name, 1, InMemory(), 1.0)
    controller.close()
    for act in (
        lease.slots,
        lease.taken,
        lease.needed,
        lease.firsts,
        lease.facts,
        lease.renew,
        lease.unblock,
        lambda: lease.reports,
        lambda: lease.load("a path"),
        lambda: lease.resume([0]),
        lambda: lease.encode(0, name, 1, InMemory(), 1.0),
        lambda: lease.report([encoded]),
        lambda: lease.record_fact("key", 1),
    ):
        with pytest.raises(JournalError, match="This run is closed"):
            act()
    lease.release()  # The lease has ended with the run.


def test_a_report_is_encoded_by_name_too() -> None:
    """The names are those of `set_eval`, and a missing argument is named."""
    lease = opened().claim_all()
    name = lease[0].generation_id
    new = lease.encode(
        worker_id=0,
        generation_id=name,
        step=1,
        params=None,
        value=1.0,
        metrics={"a": 2},
    )
    assert new == lease.encode(0, name, 1, None, 1.0, {"a": 2})
    encode: Any = lease.encode
    with pytest.raises(TypeError, match=r"encode\(\) missing .* 'value'"):
        encode(0, name, 1, None)


def test_reports_that_were_not_encoded_are_refused_in_words() -> None:
    """The message says so for every type, and nothing is recorded."""
    lease: Any = opened().claim_all()
    name = lease[0].generation_id
    new = lease.encode(0, name, 1, None, 1.0)
    for odd in ([(0, name, 1, None, 1.0)], [new, None], new):
        with pytest.raises(TypeError, match="report needs a list of what encode retu"):
            lease.report(odd)
    for odd in ("", "a path", InMemory()):
        with pytest.raises(TypeError, match="gone must be a list of InMemory params"):
            lease.report([new], gone=odd)
    with pytest.raises(TypeError, match="gone must name InMemory params, got 'path'"):
        lease.report([new], gone=["path"])
    assert lease.reports == 0
