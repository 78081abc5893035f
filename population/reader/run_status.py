"""How far a run is, in a record."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from population.base.types import Stop
from population.core.owners import Owner, owner_of
from population.core.state import RunState
from population.core.stopping import why_ended
from population.journal.base import Journal
from population.journal.records import Late, Opening, Status
from population.run import liveness, session
from population.run.liveness import is_foreign
from population.run.member_statuses import Progress

_FOREIGN_S = 600.0  # Without a sign of life, a session on another host counts as ended.


class RunStatus(NamedTuple):
    """How far a run is.

    Attributes:
        run: The token that its generation ids begin with.
        size: The number of members.
        mode: "min" or "max".
        seed: Its seed.
        mutator: The class of its mutator.
        settings: The mutator's arguments, as recorded.
        stop: The limits that its newest session has; None: they were not recorded.
        environment: Versions and the machine of the newest session, as text by name.
        finished: Whether these limits have ended it.
        reason: Which of them, or who has stopped it; "" while it goes on.
        checkpoints, generations, reports: Their numbers; reports are those with a
            value.
        step: The furthest step of a member.
        best: The best finite value, or None.
        began, newest: The time of its beginning and of its newest report, in seconds
            since the epoch.
        open_s: Seconds that it was open.
        openings: The number of its sessions.
        is_open: Whether a process has it open that is alive as far as can be told.
        warnings: What a person should know, a sentence each.
    """

    run: str
    size: int
    mode: str
    seed: int
    mutator: str
    settings: Mapping[str, Any]
    stop: Stop | None
    environment: Mapping[str, str]
    finished: bool
    reason: str
    checkpoints: int
    generations: int
    reports: int
    step: int
    best: float | None
    began: float
    newest: float
    open_s: float
    openings: int
    is_open: bool
    warnings: tuple[str, ...]


def status(journal: Journal, recorded: Mapping[str, Any], state: RunState) -> RunStatus:
    """Return how far a run is.

    Args:
        journal: The journal, within a snapshot.
        recorded: The facts of the run.
        state: Its state then.
    """
    stop, environment = session.newest(recorded)
    openings = journal.all(Opening)
    live = _live(openings, state)
    generations = journal.generations()
    late = sum(map(len, journal.fields(Late, ("row", "checkpoint"), state.row)))
    count = state.row - len(generations) - late
    steps = [slot.newest.step for slot in state.slots]
    open_s = _open_s(journal, openings)
    # Hosts' clocks may differ: time decides only where no row was between.
    begun = max(((o.row, o.time) for o in openings if _is_own(o)), default=(0, 0.0))
    asked = [s for s in journal.all(Status) if (s.row, s.time) < begun]
    reason = why_ended(stop or Stop(), state, open_s, len(asked))
    best = state.sign * state.best.score
    return RunStatus(
        run=recorded["run"],
        size=recorded["size"],
        mode=recorded["mode"],
        seed=recorded["seed"],
        mutator=recorded.get("mutator", ""),
        settings=recorded.get("settings", {}),
        stop=stop,
        environment=environment,
        finished=bool(reason),
        reason=reason,
        checkpoints=count,
        generations=len(generations),
        reports=state.reports,
        step=max(steps),
        best=best if state.best.row is not None else None,
        began=openings[0].time if openings else generations[0].time,
        newest=state.time,
        open_s=open_s,
        openings=sum(map(_is_own, openings)),
        is_open=bool(live),
        warnings=tuple(_warnings(state, bool(live), bool(reason))),
    )


def holders(state: RunState) -> frozenset[int]:
    """Return the slots that a live process holds, as far as can be told."""
    held = (lease for lease in state.leases.values() if lease.owner)
    return frozenset(
        lease.worker_id
        for lease in held
        if is_live(owner_of(str(lease.owner)), lease.renewed, state.time)
    )


def progress(found: RunStatus, state: RunState) -> Progress:
    """Return how far the run is, for the statuses of its members."""
    held = holders(state)
    end = None if found.stop is None else found.stop.steps

    def doing(worker_id: int) -> str:
        return "training" if worker_id in held else "idle"

    return Progress(end, found.finished, doing)


def _is_own(opening: Opening) -> bool:
    """Whether an opening begins a session, and is not by a child process in one."""
    return opening.owner is None or not liveness.is_child(owner_of(opening.owner))


def _live(openings: Sequence[Opening], state: RunState) -> list[Owner]:
    """Return the sessions that are open, as far as can be told."""
    known = [(owner_of(o.owner), o.time) for o in openings if o.owner is not None]
    return [o for o, began in known if is_live(o, began, state.time)]


def is_live(owner: Owner, seen: float, newest: float) -> bool:
    """Whether a process lives; of another host's, whether it was seen just now."""
    if is_foreign(owner):
        return time.time() - max(seen, newest) < _FOREIGN_S
    return not liveness.is_gone(owner)


def _open_s(journal: Journal, openings: Sequence[Opening]) -> float:
    """Return the seconds that a run was open, until its newest checkpoints."""
    counted = session.Session(lambda: 0.0)
    counted.begin(journal, openings, 0)
    return counted.seconds


def _warnings(state: RunState, is_open: bool, finished: bool) -> Iterator[str]:
    """Yield what a person should know."""
    members = state.members
    failing = [w for w, s in sorted(members.statuses.items()) if s.failures]
    for worker_id in failing:
        found = members.statuses[worker_id]
        gone = ", and is retired" if worker_id in members.retired else ""
        times = "once" if found.failures == 1 else f"{found.failures} times in a row"
        yield f"worker {worker_id} has failed {times}{gone}: {found.reason}"
    for worker_id, slot in enumerate(state.slots):
        if slot.newest.diverged and worker_id not in failing:
            yield f"the newest value of worker {worker_id} is not finite"
    if members.lost:
        names = ", ".join(map(str, sorted(members.lost)))
        yield f"decisions do not wait for worker {names} until it reports again"
    if state.best.row is None and state.reports:
        yield "no value was finite so far"
    if not is_open and not finished:
        yield "no process that is known to be alive has the run open"
