"""All access of the tests to internals of the library, in one place.

A test uses these functions by name; only this module knows where the values are kept.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from population import Checkpoint, PopulationController, Worker
from population.base.types import InMemory
from population.core import leases, reachability
from population.core.facts import texts_of
from population.journal.records import Opening, Removal, Save, Status, Tail
from population.journal.sqlite import SqliteJournal
from population.run import polls
from population.run.leases import HeldSlots, SlotLease
from population.run.population_lease import PopulationLease

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def _inside(controller: PopulationController) -> Any:
    """The open run behind a controller."""
    return controller.open_run


def _known(controller: PopulationController) -> Any:
    """The state of the run in memory; loaded if there is none."""
    run = controller.open_run
    return run._state or run.state()


# The state of the run, as this process last saw it.


def reports(controller: PopulationController) -> int:
    """How many reports with a value were recorded."""
    return int(_known(controller).reports)


def last_row(controller: PopulationController) -> int:
    """The last row of the journal."""
    return int(_known(controller).row)


def run_token(controller: PopulationController) -> str:
    """The first part of the ids of the run's generations."""
    return str(_known(controller).run)


def newest(controller: PopulationController) -> list[Checkpoint]:
    """The newest checkpoint of each slot, by worker id."""
    return [slot.newest for slot in _known(controller).slots]


def steps(controller: PopulationController) -> Ints:
    """`[N]` step of the newest report with a value on each slot's lineage, or -1."""
    found: Ints = _known(controller).scores.steps
    return found


def scores(controller: PopulationController) -> Floats:
    """`[N]` the scores of those reports."""
    found: Floats = _known(controller).scores.scores
    return found


def ready(controller: PopulationController) -> Ints:
    """`[N]` step of the newest checkpoint that a barrier may rest on, or -1."""
    found: Ints = _known(controller).scores.ready
    return found


def live(controller: PopulationController) -> list[int]:
    """The worker ids of the slots that are not lost, ascending."""
    return list(_known(controller).members.live)


def lost(controller: PopulationController) -> set[int]:
    """The worker ids of the slots that are lost."""
    return set(_known(controller).members.lost)


def retired(controller: PopulationController) -> set[int]:
    """The worker ids of the slots that are retired."""
    return set(_known(controller).members.retired)


def failures(controller: PopulationController) -> list[int]:
    """How often each slot has failed in a row, by worker id."""
    state = _known(controller)
    return [state.members.failures(w) for w in range(len(state.slots))]


def statuses(controller: PopulationController) -> Mapping[int, Status]:
    """The newest status of each slot that has one."""
    with controller.open_run.lock.lock:
        found: Mapping[int, Status] = controller.open_run.state().members.statuses
    return found


def as_of(controller: PopulationController, step: int) -> tuple[Ints, Floats]:
    """`steps` and `scores` as they were at a step of each slot's lineage."""
    found: tuple[Ints, Floats] = view(controller).as_of(step)
    return found


def keeps_reports(controller: PopulationController) -> bool:
    """Whether the newest reports of each slot are kept in memory."""
    return _known(controller).scores._recent is not None


def barrier(
    controller: PopulationController, worker_id: int, step: int
) -> Checkpoint | None:
    """The lineage's first checkpoint at or after `step` that decides, or None."""
    found: Checkpoint | None = _known(controller).barrier(worker_id, step)
    return found


def reachable(controller: PopulationController) -> list[Checkpoint]:
    """The checkpoints whose params a decision, a restart or a worker may need."""
    run = _inside(controller)
    with lock(controller):
        return list(run.reachable(run.state()).values())


def in_memory(controller: PopulationController) -> dict[str, str]:
    """All that is kept in memory of the journal, as text; NaN equals itself here."""
    state, decider = _known(controller), _inside(controller).decider
    best, scores = state.best, state.scores
    arrays = ("steps", "scores", "ready", "begins", "reached")
    slots = [(slot.generation, slot.meta_params, slot.newest) for slot in state.slots]
    names = ("row", "reports", "has_params", "has_held", "change")
    members = ("lost", "retired", "live", "statuses", "count")
    found = {
        "best": (best.row, best.score, best.reports),
        "slots": slots,
        "decisions": (decider.decisions(state), decider.value(state)),
        "leases": sorted(state.leases.items()),
        **{name: getattr(state, name) for name in names},
        **{name: getattr(state.members, name) for name in members},
        **{name: getattr(scores, name).tolist() for name in arrays},
    }
    return {name: repr(value) for name, value in found.items()}


def refresh(controller: PopulationController) -> None:
    """Take in what other processes have recorded."""
    with lock(controller):
        _inside(controller).state()


def forget(controller: PopulationController) -> None:
    """Read again from the journal all that is kept of it in memory."""
    with lock(controller):
        _inside(controller)._state = None
        _inside(controller).state()


def lock(controller: PopulationController) -> Any:
    """The lock that guards a run within its process."""
    return _inside(controller).lock.lock


# The mutator and its decisions.


def mutator(controller: PopulationController) -> Any:
    """The policy that the run asks."""
    return _inside(controller).decider.mutator


def mutator_state(controller: PopulationController) -> Any:
    """The policy's state."""
    return _inside(controller).decider.value(_known(controller))


def decisions(controller: PopulationController) -> int:
    """How many updates have branched a slot or changed the mutator's state."""
    return int(_inside(controller).decider.decisions(_known(controller)))


def named_by_mutator(controller: PopulationController) -> list[Any]:
    """The refs of all checkpoints that the mutator's state names."""
    run = _inside(controller)
    return [checkpoint.ref for checkpoint in run.decider.named(_known(controller))]


def view(controller: PopulationController) -> Any:
    """The view that the mutator gets."""
    return _inside(controller).decider._view_of(_known(controller))


def difference(before: Any, now: Any) -> str:
    """How a run's error says that its mutator's settings differ."""
    from population.run import mutator_settings

    return mutator_settings.changed(before, now)


def time_decisions_by(patch: pytest.MonkeyPatch, clock: Any) -> None:
    """Measure how long decisions take by `clock.perf_counter()`."""
    from population.core import decisions

    patch.setattr(decisions, "time", clock)


# Leases, and slots that are lost.


def look(controller: PopulationController) -> None:
    """Have a process look at the run, and let time pass for it."""
    with lock(controller):
        _inside(controller).state()
        watch(controller)


def watch(controller: PopulationController) -> None:
    """Let time pass for a process, without a look at what others have recorded."""
    run = _inside(controller)
    run.leases.silence.look(run.clock())


def lease_holders(controller: PopulationController) -> list[str]:
    """The holders of slots, in words."""
    return list(leases.holders(_known(controller)))


def lease_changes(controller: PopulationController) -> int:
    """The number of the newest change of any lease."""
    return int(_known(controller).change)


def owner(controller: PopulationController, worker_id: int) -> str | None:
    """The owner of a slot as text: "" for a raw loop, None if nobody has claimed it."""
    found: str | None
    found = _inside(controller).leases.owner(_known(controller), worker_id)
    return found


def saw_die(controller: PopulationController, worker_id: int, owner: Any) -> None:
    """Record that the process of a slot's owner was seen to die, as its parent does."""
    polls.fail(_inside(controller), worker_id, "killed by signal 9", owner)


def is_claimable(controller: PopulationController, worker_id: int) -> bool:
    """Whether a worker of this process that asks for any slot may have this one."""
    rules = _inside(controller).leases
    return bool(rules.is_claimable(_known(controller), worker_id))


def is_free(controller: PopulationController, worker_id: int) -> bool:
    """Whether a slot has no owner, or one that is dead or was silent too long."""
    return bool(_inside(controller).leases.is_free(_known(controller), worker_id))


def free_slot(controller: PopulationController) -> int | None:
    """The free slot that does not wait and has the fewest steps, or None."""
    run = _inside(controller)
    with lock(controller):
        found: int | None
        found = run.leases.free(run.state(), run.waits, run.clock())
        return found


def waits(controller: PopulationController, worker_id: int) -> bool:
    """Whether a slot waits for a decision, or for the end of the run."""
    with lock(controller):
        return bool(_inside(controller).waits(worker_id))


def give_up(controller: PopulationController, slots: Collection[int]) -> None:
    """Record that exactly these slots are lost: no decision waits for them."""
    polls.give_up(_inside(controller), slots, exactly=True, ask=False)


def pretend_lost(controller: PopulationController, slots: Collection[int]) -> None:
    """Have exactly these slots count as lost, without recording it."""
    state, lost = _known(controller), frozenset(slots)
    gone = lost | state.members.retired
    state.members.lost = lost
    state.members.live = tuple(w for w in range(len(state.slots)) if w not in gone)


def whole_claim(controller: PopulationController) -> Any:
    """The holder of all slots after `claim_all` in this process, or None."""
    return _inside(controller).all_holder


def abandon_claim(controller: PopulationController) -> None:
    """Have what `claim_all` has claimed count as a dead process's."""
    holder = whole_claim(controller)
    assert holder is not None
    holder.closed = True


def taken_slots(controller: PopulationController) -> list[int]:
    """The slots that `claim_all` has claimed and another process has taken since."""
    text = None if whole_claim(controller) is None else whole_claim(controller).text
    state = _known(controller)
    slots = range(len(state.slots))
    return [w for w in slots if not leases.holds(state, str(text), w)]


def release_all(controller: PopulationController) -> None:
    """Give back what `claim_all` has claimed."""
    holder = whole_claim(controller)
    if holder is not None:
        lease = PopulationLease.__new__(PopulationLease)  # Of the claim, made again.
        HeldSlots.__init__(lease, _inside(controller), holder)
        lease.release()


def holder_text(worker: Worker) -> str:
    """A worker as its leases name it."""
    return str(worker._lease.text)


def disown(worker: Worker) -> None:
    """Have a worker forget its slot, so that it does not give it back."""
    worker._lease.slot = None


def interrupt_after_claim(patch: pytest.MonkeyPatch) -> None:
    """Have a Ctrl-C come right after the claim of a slot is recorded."""
    claim = SlotLease._claim

    def interrupted(lease: SlotLease, worker_id: int, **how: bool) -> bool:
        claim(lease, worker_id, **how)
        raise KeyboardInterrupt

    patch.setattr(SlotLease, "_claim", interrupted)


def pretend_host(
    patch: pytest.MonkeyPatch,
    host: str = "elsewhere",
    place: str = "another boot/pid:[1]",
) -> None:
    """Have this process count as one of another host."""
    from population.run import liveness

    patch.setattr(liveness, "_host", lambda: host)
    patch.setattr(liveness, "_place", lambda: place)


# Weights and their store.


def needed_in_memory(controller: PopulationController) -> frozenset[InMemory]:
    """The held weights that their slot has left and something may still need."""
    run = _inside(controller)
    with lock(controller):
        found: frozenset[InMemory] = reachability.needed_in_memory(
            run.state(), run.graph, run.decider, run.holder.owner.token
        )
    return found


def store(controller: PopulationController) -> Any:
    """The params store of a run."""
    return _inside(controller).params._need_store()


def saves(controller: PopulationController) -> list[Save]:
    """The params in the store, by the journal."""
    return list(_inside(controller).journal.all(Save))


def before_next_load(
    controller: PopulationController, act: Callable[[], object]
) -> None:
    """Do something once, before params are next loaded."""
    manager = _inside(controller).params
    load = manager.load

    def late(*arguments: Any) -> Any:
        manager.load = load
        act()
        return load(*arguments)

    manager.load = late


def fail_to_save(
    controller: PopulationController,
    patch: pytest.MonkeyPatch,
    act: Callable[..., object],
) -> None:
    """Do something in place of each save."""
    patch.setattr(_inside(controller).params, "save", act)


def settle() -> None:
    """Wait until all files that are to be removed are."""
    from population.run import remover

    for thread in threading.enumerate():
        given = getattr(thread, "_args", None)  # None once it has ended.
        if thread.name == remover.THREAD and given:
            done = threading.Event()
            given[-1].put(done.set)
            assert done.wait(60)


def removal_reasons(controller: PopulationController) -> list[str]:
    """Why params were removed, in order."""
    return [record.reason for record in journal(controller).all(Removal)]


# Waiting, and what ends a run.


def when_waiting(controller: PopulationController, act: Callable[[], object]) -> None:
    """Do something in place of each wait of a worker for news."""
    _inside(controller).lock.changed.wait = lambda seconds=None: act()


class WaitsError(Exception):
    """A worker would wait for news now."""


@contextlib.contextmanager
def refusing_to_wait(controller: PopulationController) -> Iterator[None]:
    """Raise `WaitsError` in place of each wait of a worker, within a `with` block."""

    def act(seconds: float | None = None) -> None:
        raise WaitsError

    changed = _inside(controller).lock.changed
    changed.wait = act
    try:
        yield
    finally:
        del changed.wait


def explain_waits_at_once(patch: pytest.MonkeyPatch) -> None:
    """Have a worker that waits say why without delay."""
    patch.setattr("population.run.leases._SAY_AFTER_S", -1.0)


def end_nothing(controller: PopulationController) -> None:
    """Let a run go on that makes no progress."""
    _inside(controller).guards.end_nothing()


def unmet(controller: PopulationController) -> str:
    """The remembered reports beyond a barrier, as text."""
    return repr(_inside(controller).guards.unmet._alone)


# The journal.


def journal(controller: PopulationController) -> Any:
    """The journal of the run."""
    return _inside(controller).journal


def connection(controller: PopulationController) -> sqlite3.Connection:
    """SQLite's connection of a run, for statements of one's own."""
    return connection_of(journal(controller))


def connection_of(journal: SqliteJournal) -> sqlite3.Connection:
    """SQLite's connection of a journal."""
    return journal.raw


def facts(controller: PopulationController) -> Mapping[str, str]:
    """The facts of the run, encoded."""
    return facts_of(journal(controller))


def facts_of(journal: SqliteJournal) -> Mapping[str, str]:
    """The facts in a journal, encoded."""
    return texts_of(journal)


def tail(controller: PopulationController) -> Tail:
    """The end of the run's journal."""
    return tail_of(journal(controller))


def tail_of(journal: SqliteJournal) -> Tail:
    """The end of a journal."""
    return journal.tail()


def openings(controller: PopulationController) -> list[tuple[int, str]]:
    """The row and the owner of each session of the run, oldest first."""
    found = journal(controller).all(Opening)
    return [(opening.row, opening.owner) for opening in found]


def wait_for_lock_by(patch: pytest.MonkeyPatch, clock: Any) -> None:
    """Wait for SQLite's write lock by `clock.monotonic()` and `clock.sleep()`."""
    from population.journal import sqlite_waiting

    patch.setattr(sqlite_waiting, "time", clock)


def merge_by(patch: pytest.MonkeyPatch, clock: Any) -> None:
    """Merge the log of a journal at intervals, by `clock.monotonic()`."""
    from population.journal import sqlite_merging

    patch.setattr(sqlite_merging, "time", clock)


def merges(
    patch: pytest.MonkeyPatch, act: Callable[[], object] = lambda: None
) -> list[str]:
    """Return a list to which each later attempt to merge a log is added.

    Args:
        patch: Undoes this.
        act: Called in the thread that merges a log.
    """
    from population.journal.sqlite_merging import Merger

    found: list[str] = []
    connect = Merger._connection

    def noting(merger: Merger) -> Any:
        act()
        link = connect(merger)
        link.set_trace_callback(
            lambda sql: found.append(sql) if "wal_checkpoint" in sql else None
        )
        return link

    patch.setattr(Merger, "_connection", noting)
    return found


def wait_for_merge(controller: PopulationController) -> None:
    """Wait until the log of a journal is not being merged any more."""
    merger = journal(controller)._held.merger
    assert merger is not None
    merger.wait()
