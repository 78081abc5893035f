"""Finds the params that dead sessions have left in a params store."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from population.base import codec
from population.core.facts import read_all
from population.core.owners import owner_of
from population.core.retention import path_of, saved_text
from population.journal.base import Journal
from population.journal.records import UNREACHABLE, Opening, Removal, Save
from population.run import liveness

_SESSIONS = 5  # How many dead sessions back it looks if no mark says from where.
# The token of a child process of an engine is twice as long.
_SAVED_BY = re.compile(r"\.?\d+-([0-9a-f]{8}(?:[0-9a-f]{8})?)-")


class Left(NamedTuple):
    """What dead sessions have left.

    Attributes:
        paths: The saves to remove.
        clean_upto: All sessions that were opened before this row are dead, and have
            left nothing else: once these are removed, later looks begin here.
    """

    paths: list[str]
    clean_upto: int


def look(
    journal: Journal,
    lock: AbstractContextManager[object],
    store: Any,
    since: int | None = None,
) -> Left:
    """Find saves that dead sessions were to remove, or have never recorded.

    Args:
        journal: The journal of the run.
        lock: Held while this reads the journal.
        store: The params store; only one with `names` can list unrecorded saves.
        since: The row before which no session has left anything; None: that is not
            known, and only the last few dead sessions are looked at.
    """
    with lock:
        # In this order: a dead session records nothing more, so that the records read
        # afterwards name every save of that session that counts.
        openings = [o for o in journal.all(Opening) if o.owner is not None]
        found = [(o.row, owner_of(str(o.owner))) for o in openings]
        alive = [row for row, owner in found if not liveness.is_gone(owner)]
        clean_upto = min(alive, default=journal.tail().row)
        dead = [(row, owner) for row, owner in found if liveness.is_gone(owner)]
        dead = [(row, owner) for row, owner in dead if row >= (since or 0)]
        if since is None:
            dead = dead[-_SESSIONS:]
        if not dead:
            return Left([], since or 0)
        first = dead[0][0]
        with journal.reading():
            known = {save.params for save in journal.all(Save)}
            removals = journal.all(Removal)
            folders = _trained_since(journal, first)
    known.update(r.params for r in removals if r.reason != UNREACHABLE)
    left = [
        path_of(r.params)
        for r in removals
        if r.reason == UNREACHABLE and r.row >= first
        if not r.params.startswith(codec.HELD)
    ]
    tokens = {owner.token for _, owner in dead}
    for folder in folders if hasattr(store, "names") else ():
        for path in store.names(folder):
            saved_by = _SAVED_BY.match(path.rpartition("/")[2])
            if saved_by is not None and saved_by[1] in tokens:
                left.append(path)
    return Left([path for path in left if saved_text(path) not in known], clean_upto)


def _trained_since(journal: Journal, row: int) -> list[str]:
    """Return the generations that slots trained after a row, with the present ones."""
    facts = read_all(journal)
    later = journal.generations(after=row)
    first = {g.worker_id: g.number for g in reversed(later)}
    found = [generation.generation_id for generation in later]
    for worker_id in range(facts["size"]):
        (present,) = journal.generations(worker_id=worker_id)
        number = first.get(worker_id, present.number + 1) - 1
        if number >= 0:
            found.append(f"{facts['run']}-{worker_id}-{number}")
    return found
