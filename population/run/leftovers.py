"""What sessions that are gone have left in a params store."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import NamedTuple

from population.base import codec
from population.core.facts import texts_of
from population.core.owners import owner_of
from population.core.retention import path_of
from population.journal.base import Journal
from population.journal.records import UNREACHABLE, Opening, Removal, Save
from population.run import liveness

_SESSIONS = 5  # So far back a removal may have been cut off.
_NUMBER = re.compile(r"(.*-)(\d+)")


class Left(NamedTuple):
    """What may be left of sessions that are gone.

    Attributes:
        tokens: The sessions.
        removed: Paths that were recorded as removed.
        known: The params, encoded, that must stay.
        folders: The generations that slots were at.
    """

    tokens: set[str]
    removed: list[str]
    known: set[str]
    folders: list[str]


def look(journal: Journal, lock: AbstractContextManager[object]) -> Left | None:
    """What dead sessions may have left; None if there are none.

    Args:
        journal: Where the run is recorded.
        lock: Taken while the journal is read.
    """
    with lock:
        # In this order: a dead session has recorded all that it ever will, so what is
        # read after that names every save of its own that counts.
        openings = [o for o in journal.all(Opening) if o.owner is not None]
        found = [(o.row, owner_of(str(o.owner))) for o in openings]
        dead = [(row, owner) for row, owner in found if liveness.is_gone(owner)]
        if not dead:
            return None
        since = dead[-_SESSIONS:][0][0]
        with journal.reading():
            known = {save.params for save in journal.all(Save)}
            removals = journal.all(Removal)
            folders = _trained_since(journal, since)
    known.update(r.params for r in removals if r.reason != UNREACHABLE)
    removed = [
        path_of(r.params)
        for r in removals
        if r.reason == UNREACHABLE and r.row >= since
        if not r.params.startswith(codec.HELD)
    ]
    return Left({owner.token for _, owner in dead}, removed, known, folders)


def _trained_since(journal: Journal, row: int) -> list[str]:
    """The generations that slots were at after a row, present ones included."""
    later = journal.generations(after=row)
    first: dict[int, int] = {}
    for generation in later:
        first.setdefault(generation.worker_id, generation.number)
    size = int(codec.decode(texts_of(journal)["size"]))
    found = [generation.generation_id for generation in later]
    for worker_id in range(size):
        (present,) = journal.generations(worker_id=worker_id)
        number = first.get(worker_id, present.number + 1) - 1
        name = _NUMBER.fullmatch(present.generation_id)
        if name is not None and number >= 0:
            found.append(f"{name[1]}{number}")
    return found
