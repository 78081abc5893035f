"""The polls of raw loops: new work, lease renewal, and giving slots up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from population.base import codec
from population.base.errors import LostParamsError, ParamsError
from population.base.types import ActiveWorker, InMemory, Ref
from population.core import reports, statuses
from population.core.known import check_id
from population.core.owners import UNCLAIMED, Owner, owner_of
from population.core.state import RunState
from population.journal.base import MAX
from population.run import rejecting
from population.run.liveness import LeaseHolder
from population.run.open_run import OpenRun
from population.run.transaction import Transaction


def poll(
    run: OpenRun, worker_id: Any, generation_id: Any, step: Any
) -> ActiveWorker | None:
    """Return the slot's work if it is not this generation; None to continue."""
    if run.closed or run.journal.read_only:
        run.check_open(to_train=True)
    if type(worker_id) is not int or not 0 <= worker_id < run.size:
        worker_id = check_id(run.size, worker_id)
    if type(step) is not int or not 0 <= step <= MAX:
        step = codec.integer(step, "step")
    with run.lock.lock:
        state = run.state()
        slot = state.slots[worker_id]
        current = generation_id == slot.generation.generation_id
        if current:
            if step < slot.generation.step:
                reports.check_step(slot.generation, step)
            run.guards.idle.note(state, slot, step)
            if run.leases.timeout is None:
                return None
        elif generation_id is not None and generation_id != "":
            _check_superseded(run, worker_id, generation_id, step)
        if run.leases.timeout is not None:
            renew(run, run.all_holder, (worker_id,))
        if current:
            return None
    found = resume(run, worker_id)
    run.check_progress()
    return found


def resume(run: OpenRun, worker_id: int) -> ActiveWorker:
    """Return the slot at its resume point, in a new generation if that is earlier."""

    def work(tx: Transaction) -> ActiveWorker:
        tx.resume(worker_id, reader=reader)
        if tx.live is not tx.state.members.live:
            run.deciding.decide_pending(tx)  # It may give this slot other work.
        return run.active(worker_id)

    with run.lock.lock:
        newest, reader = run.state().slots[worker_id].newest, run.reader
        there = reader is not None or type(newest.params) is not InMemory
        if there and run.graph.resume_point(newest) is newest:
            found = run.active(worker_id)
        else:
            found = run.transact(work)
    run.lock.drain()
    return found


def renew(
    run: OpenRun,
    holder: LeaseHolder | None,
    worker_ids: Iterable[int],
    grace: float = 0.0,
) -> None:
    """Renew this holder's leases of the given slots, where that is due.

    Args:
        run: The run.
        holder: The holder; None: a loop that polls without a claim.
        worker_ids: The slots.
        grace: Seconds beyond the timeout that the holder may be silent.
    """
    rules, text = run.leases, UNCLAIMED if holder is None else holder.text
    if rules.timeout is None:
        return

    def is_own(state: RunState, worker_id: int) -> bool:
        return (rules.owner(state, worker_id) or UNCLAIMED) == text

    def work(tx: Transaction) -> None:
        for worker_id in due:
            if is_own(tx.state, worker_id):  # No other process has claimed it.
                tx.do(rules.renew(tx.state, text, worker_id, tx.at, grace))

    with run.lock.lock:
        state, now = run.state(), run.clock()
        own = (w for w in worker_ids if is_own(state, w))
        due = [w for w in own if grace or rules.due(state, w, now)]
        if due:
            run.transact(work)
    run.lock.drain()


def _check_superseded(
    run: OpenRun, worker_id: int, generation_id: Any, step: int
) -> None:
    """Check a poll that names another generation than the slot's present one."""
    name = reports.check_generation_id(generation_id)
    generation = run.graph.generation(name)
    if generation is None:
        run.notices.say_of_generation(name, "is unknown; the slot was handed out")
    elif generation.worker_id == worker_id:
        reports.check_step(generation, step)


def give_up(
    run: OpenRun, worker_ids: Iterable[Any], *, exactly: bool = False, ask: bool = True
) -> None:
    """Stop waiting for slots, until a worker trains them further.

    Args:
        run: The run.
        worker_ids: The slots.
        exactly: Whether decisions wait for all other slots again.
        ask: Whether to show the mutator a known value again, so that it can decide
            although no further report may come.
    """
    slots = frozenset(check_id(run.size, worker_id) for worker_id in worker_ids)

    def work(tx: Transaction) -> None:
        lost = slots if exactly else slots | tx.state.members.lost
        run.deciding.give_up(tx, lost, ask=ask)

    run.transact(work)


def fail(run: OpenRun, worker_id: Any, reason: str, owner: str | None = None) -> bool:
    """Record that a trial of a slot has failed.

    Args:
        run: The run.
        worker_id: The slot.
        reason: What has happened, for people.
        owner: Only if this holder has the slot's lease; None: in any case.

    Returns:
        Whether it was recorded.

    Raises:
        TypeError: `reason` is not a str.
        NoProgressError: All slots are retired, because they failed too often.
    """
    slot = check_id(run.size, worker_id)
    if not isinstance(reason, str):
        raise TypeError(f"reason must be a str, got {type(reason).__name__}.")
    run.check_open(to_train=True)

    def work(tx: Transaction) -> bool:
        if owner is not None and run.leases.owner(tx.state, slot) != owner:
            return False  # Another worker has the slot, and has not failed.
        if owner is not None:
            tx.do(run.leases.end(tx.state, slot, tx.at))
        run.deciding.fail(tx, slot, reason)
        return True

    failed = run.transact(work)
    run.check_progress()
    return failed


def fail_process(run: OpenRun, process: Owner, reason: str) -> list[int]:
    """Record that the trials of a process have failed, because it has died.

    Args:
        run: The run.
        process: An owner in the process, whatever its token.
        reason: What has happened, for people.

    Returns:
        The slots whose leases the process held; another worker may train them now.

    Raises:
        NoProgressError: All slots are retired, because they failed too often.
    """

    def work(tx: Transaction) -> list[int]:
        leases = sorted(tx.state.leases.items())
        owners = [(w, owner_of(lease.owner)) for w, lease in leases if lease.owner]
        slots = [w for w, owner in owners if owner.process == process.process]
        for worker_id in slots:
            tx.do(run.leases.end(tx.state, worker_id, tx.at))
            run.deciding.fail(tx, worker_id, reason)
        return slots

    slots = run.transact(work)
    run.check_progress()
    return slots


def revive(run: OpenRun, worker_id: Any) -> None:
    """Train a retired slot again, from its resume point; others are left alone."""
    slot = check_id(run.size, worker_id)
    run.check_open(to_train=True)

    def work(tx: Transaction) -> None:
        if slot in tx.state.members.retired:
            tx.do(statuses.revived(tx.state, slot, tx.at))
            tx.resume(slot, reader=tx.reader)

    run.transact(work)


def with_arrays(run: OpenRun, worker_id: int, found: ActiveWorker) -> ActiveWorker:
    """Load the arrays of work; if they were removed meanwhile, those of newer work.

    If they are lost on the disk, the slot continues from its next resume point.

    Raises:
        ParamsError: The arrays cannot be read.
    """
    while type(found.params) is not InMemory:
        try:
            return found._replace(params=run.params.load(found.params))
        except ParamsError as error:
            newer = resume(run, worker_id)
            if newer.params == found.params:
                if not isinstance(error, LostParamsError):
                    raise
                lost = run.graph.checkpoint(Ref(newer.generation_id, newer.step))
                rejecting.replace(run, worker_id, lost, error)
                newer = resume(run, worker_id)
            found = newer
    return found
