"""Weights that the process which trains them keeps itself: how long they count.

An engine that trains a whole population in its memory reports `Held()` instead of
saving: that counts as params until the slot has come further, and after that only as
long as a decision or a restart may need it (then it is pinned, and the engine keeps a
snapshot). What counts no more is recorded as removed, so that every process, a restart
and a replay see the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from population.base import codec
from population.base.errors import damaged
from population.base.types import Checkpoint, Held
from population.core import reachability
from population.core.decoding import decode_params
from population.core.incoming import Incoming
from population.core.slots import Slots
from population.journal.records import UNREACHABLE, SaveRow
from population.run import liveness

if TYPE_CHECKING:
    from population.run.open_run import Session

Mark = tuple[set[Held], set[Held]]
_NEW = Held()
_LOST = "held in a memory that is gone"  # Others must look at their slots again.


class Holdings:
    """The held params of a session, and which of them still count.

    Args:
        session: The run.
        token: Names this process's session.

    Attributes:
        change: Counts what has lapsed.
    """

    def __init__(self, session: Session, token: str) -> None:
        self._session = session
        self._token = token
        self._numbers = itertools.count(1)
        self.change = 0
        self._live: set[Held] = set()
        self._noted: set[Held] = set()  # Pinned, and so among the saves.
        self._pinned: frozenset[Held] | None = frozenset()

    @property
    def pinned(self) -> frozenset[Held]:
        """Those that a decision or a restart may need though their slot goes on.

        Whoever holds the weights must keep them before training overwrites them.
        """
        if self._pinned is None:
            named = reachability.named(self._session).values()
            self._pinned = frozenset(self._own(named)) if self._live else frozenset()
        return self._pinned

    def made(self, params: Held) -> Held:
        """Held params of a report, told apart from those of all others.

        Raises:
            ValueError: If they are of another report.
        """
        if params != _NEW:
            raise ValueError(
                f"A report of held params needs Held(), got {params!r}, which is of "
                "another report. The controller numbers them."
            )
        return Held(self._token, next(self._numbers))

    def forget(self) -> None:
        """What is known may be old: others wrote, or nothing was written."""
        self._pinned = None

    def begin(self, incoming: Sequence[Incoming]) -> None:
        """Let lapse what the slots that report go on from, unless it is pinned.

        Called within the transaction, before anything is recorded.
        """
        if not self._live:
            return
        slots, lapsed, bare = self._session.slots, set(), set()
        for new in incoming:
            newest = _extended(slots, new)
            if newest is not None and type(newest.params) is Held:
                lapsed.add(newest.params)
                if new.params is None or new.value is None:
                    bare.add(new.worker_id)
        reporting = {new.worker_id for new in incoming}
        if len(reporting) < len(slots):  # The others still go on from theirs.
            others = (s.newest for w, s in enumerate(slots) if w not in reporting)
            lapsed -= self._own(others)
        self._lapse(self._live & lapsed - self.pinned)
        for worker_id in bare:
            slots.reload(worker_id)  # No barrier rests on what has lapsed.

    def settle(self, incoming: Sequence[Incoming] = ()) -> None:
        """Let lapse what nothing needs, and note what is pinned.

        Called at the end of a transaction.
        """
        fresh = [new.params for new in incoming if type(new.params) is Held]
        if not (fresh or self._live):
            return
        self._live.update(fresh)
        self._pinned = None
        present = self._own(slot.newest for slot in self._session.slots)
        self._lapse(self._live - present - self.pinned)
        self._note(self.pinned - self._noted)

    def lapse_all(self) -> None:
        """None of this process's counts any more. Called within a transaction."""
        if self._live:
            self._lapse(set(self._live), _LOST)
            self._reload()
        self._pinned = None

    def lapse_at(self, worker_id: int, *, own: bool) -> None:
        """No slot goes on from what is in the memory of somebody else.

        Called within a transaction, before a slot is handed out.

        Args:
            worker_id: The slot.
            own: Whether it is handed out to whoever keeps this process's held params.
        """
        slots, graph = self._session.slots, self._session.graph
        before = self.change
        while True:
            params = graph.resume_point(slots[worker_id].newest).params
            if type(params) is not Held or (own and params in self._live):
                break
            self._lapse([params], _LOST)
            slots.reload(worker_id)
            if graph.resume_point(slots[worker_id].newest).params == params:
                raise damaged(f"the removal of {params} has no effect")
        if self.change != before:
            self._reload()  # Those of other slots may have been the same.

    def lapse_everybodys(self) -> None:
        """Who claims all slots needs all weights: what anybody holds is none.

        Called within a transaction.
        """
        found = self._live | self._found()
        if found:
            self._lapse(found, _LOST)
            self._reload()
        self._pinned = None

    def lapse_dead(self) -> None:
        """What sessions held that are gone counts no more.

        Called within the transaction that opens the run. What a session of another
        host held is gone too, as that was found silent for long enough.
        """
        found = self._found()
        if not found:
            return
        known = [liveness.owner_of(text) for _, text in self._session.journal.owners()]
        here = [owner for owner in known if not liveness.is_foreign(owner)]
        alive = {owner.token for owner in here if not liveness.is_gone(owner)}
        dead = [held for held in found if held.session not in alive]
        if dead:
            self._lapse(dead, _LOST)
            self._reload()

    def mark(self) -> Mark:
        """What counts now, for `restore`."""
        return set(self._live), set(self._noted)

    def restore(self, mark: Mark) -> None:
        """A transaction was rolled back."""
        self._live, self._noted = mark
        self._pinned = None

    def _found(self) -> set[Held]:
        """What counts of anybody's, between two transactions."""
        texts = (save.params for save in self._session.journal.saves())
        found = {decode_params(text) for text in texts if text.startswith(codec.HELD)}
        newest = (slot.newest.params for slot in self._session.slots)
        return found | {params for params in newest if type(params) is Held}

    def _own(self, checkpoints: Iterable[Checkpoint]) -> set[Held]:
        """What these checkpoints go on from, as far as it counts and is here."""
        held = {c.params for c in checkpoints if type(c.params) is Held}
        return held & self._live

    def _lapse(self, lapsed: Collection[Held], reason: str = UNREACHABLE) -> None:
        if not lapsed:
            return
        self.change += 1
        self._session.slots.best.forget(lapsed)
        row = self._session.slots.row
        removals = [(row, codec.encode_params(held), reason) for held in sorted(lapsed)]
        noted = reason != UNREACHABLE or not self._noted.isdisjoint(lapsed)
        self._session.journal.remove(removals, saved=noted)
        self._live.difference_update(lapsed)
        self._noted.difference_update(lapsed)

    def _note(self, pinned: Collection[Held]) -> None:
        """Have a later session find them without looking through the history."""
        row = self._session.slots.row
        for held in sorted(pinned):
            self._session.journal.add_save(
                SaveRow(codec.encode_params(held), row, "", 0, 0)
            )
        self._noted.update(pinned)

    def _reload(self) -> None:
        for worker_id in range(len(self._session.slots)):
            self._session.slots.reload(worker_id)


def _extended(slots: Slots, new: Incoming) -> Checkpoint | None:
    """The newest checkpoint of the slot that a report brings further."""
    slot = slots[new.worker_id]
    newest: Checkpoint = slot.newest
    further = new.generation_id == newest.generation_id and new.step > newest.step
    return newest if further else None
