"""Which worker trains which slot: claims, silence, takeovers and lost slots.

The clock moves only when a test says so. Tests of dead processes use real ones.
"""

from __future__ import annotations

import json
import logging
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from population import (
    Branch,
    JournalError,
    PopulationController,
    PopulationView,
    Report,
    Stop,
    Worker,
)
from population.base.types import Event
from population.mutators import WinnerTakeAllGenetic
from tests import probe
from tests.helpers import Clock, Scripted, content, generation, poll

TIMEOUT_S = 100.0
ROOT = pathlib.Path(__file__).parent.parent


class Hosts:
    """Processes that share a run folder, simulated by controllers in this one.

    Args:
        folder: The run folder.
        clock: The clock of all controllers.
    """

    def __init__(self, folder: pathlib.Path, clock: Clock) -> None:
        self._folder = folder
        self.clock = clock
        self._open: list[PopulationController] = []

    def join(self, size: int = 2, **options: Any) -> PopulationController:
        """Another process opens the run."""
        options.setdefault("mutator", Scripted())
        options.setdefault("worker_timeout", TIMEOUT_S)
        starts = [{"h": i} for i in range(size)]
        controller = PopulationController(
            starts, log_dir=self._folder, clock=self.clock, **options
        )
        self._open.append(controller)
        return controller

    def pass_time(self, seconds: float, *alive: Worker) -> None:
        """Let time pass while all processes watch, and some workers poll."""
        for _ in range(10):
            self.clock.advance(seconds / 10)
            for worker in alive:
                assert not worker.poll()
            for controller in self._open:
                probe.look(controller)

    def close(self) -> None:
        """Close all controllers."""
        for controller in self._open:
            controller.close()


@pytest.fixture
def hosts(tmp_path: pathlib.Path, clock: Clock) -> Iterator[Hosts]:
    """A function that makes controllers on one run folder."""
    found = Hosts(tmp_path / "run", clock)
    yield found
    found.close()


def is_free(controller: PopulationController, worker_id: int) -> bool:
    """Whether a worker of this process that asks for any slot may have this one."""
    probe.look(controller)
    return probe.is_claimable(controller, worker_id)


def begin(controller: PopulationController, worker_id: int | None = None) -> Worker:
    """A worker that has made its first step."""
    worker = controller.worker(worker_id)
    assert worker.poll()
    train(worker)
    assert not worker.poll()
    return worker


def train(worker: Worker, value: float = 1.0) -> None:
    """A step and its report."""
    worker.step += 1
    worker.report(value, f"at {worker.step}")


def reasons(controller: PopulationController) -> list[str]:
    """Why each generation was opened."""
    return [controller.graph.root(name).reason for name in controller.graph]


# Claims.


def test_a_worker_without_an_id_takes_the_free_slot_with_the_fewest_steps(
    hosts: Hosts,
) -> None:
    """On ties it takes the lowest id; in another process too."""
    one, two = hosts.join(3), hosts.join(3)
    first = begin(one)
    assert first.worker_id == 0
    second = begin(two)
    assert second.worker_id == 1
    first.release()
    assert two.worker().worker_id == 2


def test_a_slot_that_was_given_back_keeps_its_generation(hosts: Hosts) -> None:
    """No other worker trains it, so there is none to fence."""
    one, two = hosts.join(1), hosts.join(1)
    with begin(one) as worker:
        name = worker.generation_id
    again = two.worker()
    assert again.poll()
    assert (again.generation_id, again.step) == (name, 1)
    assert reasons(two) == ["start"]


def test_the_worker_of_a_held_slot_is_fenced_and_told_its_new_work(
    hosts: Hosts,
) -> None:
    """Its later reports are a side branch; the mutator does not decide on it."""
    one, two = hosts.join(1), hosts.join(1)
    slow = begin(one, 0)
    old = slow.generation_id
    quick = begin(two, 0)
    assert quick.generation_id != old
    assert two.graph.root(quick.generation_id).parent == (old, 1)
    train(slow, 0.0)
    assert one.graph[old][2].value == 0.0
    assert one.newest(0).generation_id == quick.generation_id
    asked = probe.mutator(one)
    assert isinstance(asked, Scripted)
    assert asked.asked == [(0, 1)]
    quick.release()
    assert slow.poll()
    assert (slow.generation_id, slow.step) == (quick.generation_id, 2)
    assert reasons(one) == ["start", "takeover"]


def test_a_worker_waits_while_every_slot_is_held(hosts: Hosts) -> None:
    """It waits until one is given back, by another process too."""
    one, two = hosts.join(1), hosts.join(1)
    holder = begin(one)
    claimed: list[int] = []
    thread = threading.Thread(
        target=lambda: claimed.append(two.worker().worker_id), daemon=True
    )
    thread.start()
    assert not claimed
    holder.release()
    thread.join(30)
    assert claimed == [0]


def test_closing_a_controller_ends_the_claims_of_its_workers(hosts: Hosts) -> None:
    """This includes workers that a caller still has."""
    one, two = hosts.join(1), hosts.join(1)
    worker = begin(one)
    assert not is_free(two, 0)
    one.close()
    assert is_free(two, 0)
    assert not worker.running


def test_workers_of_two_processes_take_turns(hosts: Hosts) -> None:
    """Two workers train five slots, and no slot is left behind."""
    one, two = hosts.join(5), hosts.join(5)
    workers = [begin(one), begin(two)]
    for _ in range(200):
        for worker in workers:
            worker.turn = 2
            worker.poll()
            train(worker)
    steps = [active.step for active in one.workers]
    assert min(steps) >= 70
    assert sum(steps) == 402
    assert reasons(one) == ["start"] * 5


# Dead processes.


CHILD = """
import sys
from population import PopulationController
from tests.helpers import Scripted
run = PopulationController([{"h": 0}, {"h": 1}], Scripted(), sys.argv[1])
worker = run.worker(0)
worker.poll()
worker.step = 7
worker.report(1.0, "at 7")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: pathlib.Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds slot 0 of the run."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "run")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


@pytest.mark.parametrize("is_buried", [False, True])
def test_the_slot_of_a_dead_process_is_free_at_once(
    is_buried: bool, hosts: Hosts, holder: subprocess.Popen[str]
) -> None:
    """It needs no timeout, and no parent that has reaped the process.

    It cannot report any more, so the slot keeps its generation.
    """
    run = hosts.join(worker_timeout=None)
    assert not is_free(run, 0)
    os.kill(holder.pid, signal.SIGKILL)
    if is_buried:
        holder.wait(30)
    else:
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    assert is_free(run, 0)
    worker = run.worker(0)
    assert worker.poll()
    assert (worker.step, worker.params) == (7, "at 7")
    assert reasons(run) == ["start", "start"]


def test_a_live_process_keeps_its_slot(
    hosts: Hosts, holder: subprocess.Popen[str]
) -> None:
    """Without a timeout it does, however long it is silent."""
    run = hosts.join(worker_timeout=None)
    hosts.pass_time(1e6)
    assert not is_free(run, 0)
    assert run.worker().worker_id == 1


def test_a_later_process_with_the_same_id_is_another_owner() -> None:
    """Process ids are reused; the start time of a process is not."""
    from population.run import liveness

    own = liveness.LeaseHolder().owner
    parent = own._replace(pid=os.getppid(), token="a")
    began = liveness._started(os.getppid())
    assert began is not None
    assert not liveness.is_gone(parent._replace(started=began))
    assert liveness.is_gone(parent._replace(started=str(int(float(began)) - 1)))
    boot, _, space = own.place.partition("/")
    assert liveness.is_gone(parent._replace(place=f"another/{space}", started=began))
    # A process of another namespace may have any id here: it cannot be checked.
    assert not liveness.is_gone(parent._replace(place=f"{boot}/another", started="0"))
    # Another name means another machine only if the boot differs, too.
    other = own._replace(host="elsewhere", pid=1)
    assert not liveness.is_gone(other._replace(place=f"another/{space}"))
    assert liveness.is_gone(other)


def test_a_worker_that_was_forgotten_holds_nothing(hosts: Hosts) -> None:
    """When a thread dies, its worker is dropped."""
    run = hosts.join(1)
    worker = begin(run)
    assert not is_free(run, 0)
    del worker
    assert is_free(run, 0)
    assert begin(run).worker_id == 0
    assert reasons(run) == ["start"]


# Silence.


def test_a_silent_worker_loses_its_slot_after_the_time_out(hosts: Hosts) -> None:
    """It is fenced: it may be alive, and report late."""
    one, two = hosts.join(1), hosts.join(1)
    slow = begin(one)
    hosts.pass_time(0.9 * TIMEOUT_S)
    assert not is_free(two, 0)
    hosts.pass_time(0.2 * TIMEOUT_S)
    assert is_free(two, 0)
    quick = begin(two)
    assert reasons(two) == ["start", "takeover"]
    train(slow, 0.0)
    assert two.newest(0).generation_id == quick.generation_id
    assert two.graph[slow.generation_id][2].value == 0.0


def test_polls_alone_keep_a_slot(hosts: Hosts) -> None:
    """This holds whether or not there is anything to report."""
    one, two = hosts.join(1), hosts.join(1)
    worker = begin(one)
    hosts.pass_time(9 * TIMEOUT_S, worker)
    assert not is_free(two, 0)


def test_polls_write_at_most_four_times_in_a_time_out(hosts: Hosts) -> None:
    """A lease is not worth a transaction at each step."""
    run = hosts.join(1)
    worker = begin(run)
    changes = probe.lease_changes(run)
    for _ in range(1000):
        hosts.clock.advance(TIMEOUT_S / 1000)
        assert not worker.poll()
    assert 3 <= probe.lease_changes(run) - changes <= 4


def test_silence_counts_from_the_last_sign_of_life(hosts: Hosts) -> None:
    """It does not count from an earlier look of the process that judges."""
    one, two = hosts.join(1), hosts.join(1)
    worker = begin(one)
    probe.look(two)
    hosts.clock.advance(0.49 * TIMEOUT_S)
    assert not worker.poll()
    probe.refresh(two)
    for _ in range(9):
        hosts.clock.advance(0.1 * TIMEOUT_S)
        assert not is_free(two, 0)


def test_a_loop_that_was_heard_of_by_one_process_is_not_silent_for_another(
    hosts: Hosts,
) -> None:
    """This holds even if the first process has only just opened the run."""
    watching = hosts.join(2)
    poll(watching, 0)
    hosts.pass_time(3 * TIMEOUT_S)
    fresh = hosts.join(2)
    fresh.set_eval(0, generation(fresh), 1, None, 1.0)
    watching.set_eval(1, generation(watching, 1), 1, None, 1.0)
    assert probe.live(watching) == [0, 1]


def test_a_first_compilation_may_take_longer_than_the_time_out(hosts: Hosts) -> None:
    """After it, silence counts again; the extra time is given once."""
    one, two = hosts.join(1), hosts.join(1)
    worker = one.worker()
    assert worker.poll()
    hosts.pass_time(9 * TIMEOUT_S)
    assert not is_free(two, 0)
    train(worker)
    assert not worker.poll()
    hosts.pass_time(1.2 * TIMEOUT_S)
    assert is_free(two, 0)


def test_a_first_compilation_is_not_waited_for_for_ever(hosts: Hosts) -> None:
    """After half an hour and the timeout, the slot is free."""
    one, two = hosts.join(1), hosts.join(1)
    worker = one.worker()
    assert worker.poll()
    hosts.pass_time(200.0)
    for _ in range(20):
        hosts.pass_time(TIMEOUT_S)
    assert is_free(two, 0)


def test_a_busy_worker_keeps_its_slot_for_as_long_as_it_said(hosts: Hosts) -> None:
    """It keeps it for one timeout more; its next poll ends this."""
    one, two = hosts.join(1), hosts.join(1)
    worker = begin(one)
    worker.busy(5 * TIMEOUT_S)
    probe.look(two)
    hosts.pass_time(5.9 * TIMEOUT_S / 2)
    hosts.pass_time(5.9 * TIMEOUT_S / 2)
    assert not is_free(two, 0)
    hosts.pass_time(0.2 * TIMEOUT_S)
    assert is_free(two, 0)
    assert not worker.poll()  # No other worker was quicker.
    hosts.pass_time(1.2 * TIMEOUT_S)
    assert is_free(two, 0)


@pytest.mark.parametrize("jump", [-3600.0, 86400.0], ids=["an hour back", "a day on"])
def test_a_clock_that_jumps_takes_no_slot_away(jump: float, hosts: Hosts) -> None:
    """A living worker keeps it; a dead one is still found."""
    one, two = hosts.join(2), hosts.join(2)
    there, gone = begin(one, 0), begin(one, 1)
    hosts.clock.advance(jump)
    for controller in (one, two):
        assert not is_free(controller, 0)
    hosts.pass_time(2.0 * TIMEOUT_S, there)
    assert not is_free(two, 0)
    assert is_free(two, 1)
    times = [c.time for c in two.history()]
    assert times == sorted(times)
    train(there)
    assert two.newest(0).step == 2
    assert gone.worker_id == 1


def test_opening_a_run_renews_all_leases(hosts: Hosts) -> None:
    """A process that has just come cannot know how long the others were silent."""
    one = hosts.join(1)
    worker = begin(one)
    hosts.pass_time(5 * TIMEOUT_S)
    two = hosts.join(1)
    assert not is_free(two, 0)
    hosts.pass_time(1.1 * TIMEOUT_S)
    assert is_free(two, 0)
    assert worker.worker_id == 0


def test_an_evaluation_from_elsewhere_holds_no_slot(hosts: Hosts) -> None:
    """A job that reports values does not train: the slot stays free."""
    run = hosts.join(1)
    worker = begin(run)
    worker.step += 1
    worker.report(None, "at 2")
    name = worker.generation_id
    worker.release()
    hosts.pass_time(0.5 * TIMEOUT_S)
    run.set_eval(0, name, 2, None, 0.5)
    assert is_free(run, 0)


def test_a_slot_that_a_loop_polls_is_not_claimed_for_any_worker(hosts: Hosts) -> None:
    """This includes a slot that was given back before; a claim by id is possible."""
    run = hosts.join(2)
    begin(run, 0).release()
    assert poll(run, 0) is not None
    assert not is_free(run, 0)
    assert run.worker().worker_id == 1
    assert run.worker(0).worker_id == 0


# Slots that are given up, of loops that use the two calls.


def rounds(hosts: Hosts, size: int = 3) -> PopulationController:
    """A run whose workers wait for each other every second step."""

    def mutate(meta: Mapping[str, int]) -> dict[str, int]:
        return {"h": meta["h"] + 10}

    mutator = WinnerTakeAllGenetic(mutate, steps_per_exploit=2, synchronous=True)
    return hosts.join(size, mutator=mutator)


def advance(run: PopulationController, *worker_ids: int) -> None:
    """Raw loops poll, and report a step unless they wait."""
    for worker_id in worker_ids:
        active = run.workers[worker_id]
        poll(run, worker_id, active.generation_id, active.step)
        if active.wait_at is None or active.step < active.wait_at:
            name, step = active.generation_id, active.step + 1
            run.set_eval(worker_id, name, step, f"{worker_id}", float(worker_id + 1))


def test_a_barrier_closes_without_a_slot_that_was_given_up(hosts: Hosts) -> None:
    """It closes at once, with no report of those that wait, until the slot reports."""
    run, other = rounds(hosts), rounds(hosts)
    advance(run, 0, 1, 2)
    advance(run, 0, 1)
    hosts.pass_time(9 * TIMEOUT_S)
    advance(run, 0, 1)
    assert probe.lost(run) == set()
    assert [w.step for w in run.workers] == [2, 2, 1]
    assert len(run.graph) == 3
    run.give_up(2)
    probe.look(other)
    assert probe.live(run) == probe.live(other) == [0, 1]
    assert len(run.graph) == len(other.graph) == 5
    assert other.workers[2].step == 1
    late = run.workers[2]
    other.set_eval(2, late.generation_id, 2, "2", 3.0)
    probe.look(run)
    assert probe.live(run) == probe.live(other) == [0, 1, 2]


def test_a_slot_that_no_loop_ever_trained_can_be_given_up(hosts: Hosts) -> None:
    """If there are fewer loops than slots, no decision waits for the rest."""
    run = rounds(hosts)
    run.give_up(2)
    for _ in range(5):
        advance(run, 0, 1)
    assert probe.live(run) == [0, 1]
    assert len(run.graph) > 3


def test_giving_up_all_but_one_of_four_is_enough_for_a_decision(hosts: Hosts) -> None:
    """The mutator sees the newest value again, of any slot that has one."""
    run = rounds(hosts, 4)
    advance(run, 0, 3)
    advance(run, 3)
    for worker_id in (0, 1, 2):
        assert generation(run, 3).endswith("-0")
        run.give_up(worker_id)
    assert probe.live(run) == [3]
    assert generation(run, 3).endswith("-1")
    before = content(run)
    run.give_up(0)
    assert content(run) == before, "a second time is nothing"


def test_a_poll_alone_does_not_bring_a_slot_back(hosts: Hosts) -> None:
    """Only a report shows that its loop trains, also if a worker took it over."""
    run = rounds(hosts)
    advance(run, 0, 1, 2)
    run.give_up(2)
    active = run.workers[2]
    poll(run, 2, active.generation_id, active.step)
    assert probe.live(run) == [0, 1]
    hosts.pass_time(2 * TIMEOUT_S)
    worker = run.worker(2)
    assert worker.poll()
    assert probe.live(run) == [0, 1]
    worker.step += 1
    worker.report(3.0, "2")
    assert probe.live(run) == [0, 1, 2]


@pytest.mark.parametrize("worker_id", [-1, 3, True, 1.0, None])
def test_only_a_slot_can_be_given_up(hosts: Hosts, worker_id: Any) -> None:
    """Anything else is refused, and nothing changes."""
    run = rounds(hosts)
    before = content(run)
    with pytest.raises((TypeError, ValueError), match="worker_id must be"):
        run.give_up(worker_id)
    assert content(run) == before


def test_a_run_does_not_wait_for_the_end_of_a_slot_that_was_given_up(
    tmp_path: pathlib.Path,
) -> None:
    """`Stop(steps=)` ends it when all others have reached the step."""
    run = PopulationController([1.0] * 2, Scripted(), tmp_path, stop=Stop(steps=2))
    run.set_eval(0, generation(run, 0), 2, "p", 1.0)
    assert not run.finished
    run.give_up(1)
    assert run.finished
    run.set_eval(1, generation(run, 1), 1, "p", 1.0)
    assert not run.finished
    run.close()


def test_no_slot_is_lost_while_a_worker_could_take_it(hosts: Hosts) -> None:
    """The run waits for that worker instead: a death changes no decision."""
    run = rounds(hosts)
    worker = begin(run, 0)
    gone = begin(run, 1)
    hosts.pass_time(9 * TIMEOUT_S, worker)
    assert probe.lost(run) == set()
    assert is_free(run, gone.worker_id)


def test_what_was_given_up_outlives_a_restart(hosts: Hosts) -> None:
    """It is recorded, as decisions depend on it."""
    run = rounds(hosts)
    advance(run, 0, 1, 2)
    run.give_up(2)
    run.close()
    again = rounds(hosts)
    assert probe.live(again) == [0, 1]


# The end of a lease.


def test_a_worker_that_lost_its_slot_gives_nothing_back(
    hosts: Hosts, tmp_path: pathlib.Path
) -> None:
    """So it does not wait for the write lock, which another process may hold."""
    run = hosts.join(1)
    worker, other = begin(run), run.worker(0)
    raw = sqlite3.connect(tmp_path / "run" / "journal.sqlite", isolation_level=None)
    raw.execute("BEGIN IMMEDIATE")
    ended = threading.Thread(target=worker.release, daemon=True)
    ended.start()
    ended.join(30)
    waits = ended.is_alive()
    raw.execute("ROLLBACK")
    raw.close()
    ended.join()
    assert not waits
    assert not other.poll() or other.worker_id == 0


def test_an_interrupt_right_after_a_claim_leaves_no_slot_held(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`release` gives back a slot although the loop never learned that it has it."""
    run = hosts.join(2)
    worker = begin(run, 0)
    worker.turn = 1
    train(worker)
    with monkeypatch.context() as patch:
        probe.interrupt_after_claim(patch)
        with pytest.raises(KeyboardInterrupt):
            worker.poll()  # It would change to the other slot.
    worker.release()
    assert is_free(run, 0)
    assert is_free(run, 1)


# Other hosts.


def test_a_run_that_another_host_trains_is_refused(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network cannot share SQLite; the error says what can."""
    run = hosts.join(1)
    worker = begin(run)
    probe.pretend_host(monkeypatch)
    before = content(run)
    with pytest.raises(JournalError, match="PostgreSQL") as caught:
        hosts.join(1)
    holder = json.loads(probe.holder_text(worker))[0]
    assert f"on {holder} holds worker 0" in str(caught.value)
    assert content(run) == before


def test_a_run_that_another_host_has_given_back_is_opened(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder may move."""
    begin(hosts.join(1)).release()
    probe.pretend_host(monkeypatch)
    assert begin(hosts.join(1)).step == 2


def test_a_run_that_another_host_has_left_long_ago_is_opened(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the time that must pass after the last sign of life."""
    worker = begin(hosts.join(1))
    probe.pretend_host(monkeypatch)
    hosts.clock.advance(1e6)
    assert hosts.join(1).newest(0).step == worker.step


# Events.


def test_events_tell_what_has_happened_in_this_process(hosts: Hosts) -> None:
    """Each comes once, with its slot, after it is recorded."""
    events: list[Event] = []

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        if report.checkpoint.step != 2:
            return {}
        return {1: Branch(report.checkpoint, {"h": 9})}

    run = hosts.join(
        mutator=Scripted(decide), on_event=events.append, stop=Stop(reports=4)
    )
    quiet = hosts.join(mutator=Scripted(decide))
    worker = begin(run, 0)
    train(worker)
    train(worker, float("nan"))
    thief = run.worker(0)
    assert worker.running
    quiet.set_eval(1, generation(quiet, 1), 5, None, 1.0)
    assert not thief.running
    assert not thief.running
    assert [(e.kind, e.worker_id) for e in events] == [
        ("claim", 0),
        ("report", 0),
        ("report", 0),
        ("branch", 1),
        ("report", 0),
        ("diverged", 0),
        ("failed", 0),
        ("takeover", 0),
        ("finished", -1),
    ]
    assert events[3].checkpoint is not None
    assert events[3].checkpoint.meta_params == {"h": 9}
    assert events[-1].checkpoint is None


def test_a_callback_may_wait_for_another_thread_that_uses_the_controller(
    hosts: Hosts,
) -> None:
    """It is called without any lock."""
    seen: list[int] = []

    def on_event(event: Event) -> None:
        thread = threading.Thread(
            target=lambda: seen.append(len(run.workers)), daemon=True
        )
        thread.start()
        thread.join(30)

    run = hosts.join(on_event=on_event, stop=Stop(reports=2))
    run.set_eval(0, generation(run), 1, None, 1.0)
    assert len(seen) == 1
    worker = begin(run)
    worker.release()
    assert not worker.running
    assert len(seen) == 4  # The claim, its report and the end.


def test_what_a_callback_raises_is_logged_and_never_fatal(
    hosts: Hosts, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of a dashboard does not stop training."""

    def on_event(event: Event) -> None:
        raise ZeroDivisionError("a dashboard")

    run = hosts.join(on_event=on_event)
    with caplog.at_level(logging.ERROR, "population"):
        run.set_eval(0, generation(run), 1, None, 1.0)
    assert run.newest(0).value == 1.0
    assert "on_event raised at report" in caplog.text
    assert "a dashboard" in caplog.text


def test_nothing_is_told_of_what_was_rolled_back(hosts: Hosts) -> None:
    """They are not told when the next report succeeds, either."""
    events: list[Event] = []

    def decide(report: Report, view: PopulationView) -> Mapping[int, Branch]:
        if report.checkpoint.step == 1:
            raise ZeroDivisionError("on purpose")
        return {}

    run = hosts.join(mutator=Scripted(decide), on_event=events.append)
    name = generation(run)
    with pytest.raises(ZeroDivisionError):
        run.set_eval(0, name, 1, None, 1.0)
    assert events == []
    run.set_eval(0, name, 2, None, 1.0)
    assert [(e.kind, e.checkpoint and e.checkpoint.step) for e in events] == [
        ("report", 2)
    ]


def test_a_slot_that_came_to_its_end_before_the_claim_is_left(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may train a free slot between a worker's choice and its claim."""
    first, second = hosts.join(stop=Stop(steps=1)), hosts.join(stop=Stop(steps=1))
    choose, chosen = second.open_run.leases.free, list[Any]()

    def slowly(*args: Any, **options: Any) -> int | None:
        found = choose(*args, **options)
        if not chosen:
            with first.worker(0) as worker:
                worker.poll()
                worker.step += 1
                worker.report(1.0, "by the first")
        chosen.append(found)
        return found

    monkeypatch.setattr(second.open_run.leases, "free", slowly)
    worker = second.worker()
    assert chosen == [0, 1]
    assert worker.worker_id == 1
