"""Removes, after a report with params, what nothing can reach any more.

A row of the journal says so first, in the transaction of the report; the store is told
when that is committed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from population.base import codec
from population.base.errors import PopulationError
from population.base.types import Checkpoint, Saved
from population.core.incoming import Incoming
from population.core.reachability import in_use
from population.core.retention import Keep
from population.journal.records import UNREACHABLE, SaveRow
from population.run import liveness
from population.run.params_manager import Keeper, path_of, saved_text

if TYPE_CHECKING:
    from population.run.open_run import Session

logger = logging.getLogger("population")
_FEW = 30
_SESSIONS = 5  # So far back a removal may have been cut off.
_SAVED_BY = re.compile(r"\.?\d+-([0-9a-f]{8})\b")


class Sweeper:
    """Knows what the store keeps, and decides what goes.

    Args:
        keeper: Keeps the params.
        keep: What is kept although nothing can reach it any more.
    """

    def __init__(self, keeper: Keeper, keep: Keep) -> None:
        self._keeper = keeper
        self._keep = keep
        self._saves: dict[str, SaveRow] | None = None
        self._bytes = 0
        self._most = 0
        self._most_bytes = keep.bytes or 0
        self._tidied = False
        self._few = True

    def forget(self) -> None:
        """What is known of the saves is old: others wrote, or nothing was written."""
        self._saves = None

    def sweep(self, session: Session) -> list[str]:
        """Note the batch's saves; record the removal of those that are not needed.

        They are looked through when there are a sixth more than last time, so that a
        report costs the same however many slots there are; few of them each time.

        Returns:
            The paths, to be removed from the store once this is committed.
        """
        self.note(session, session.slots.taken)
        if self._keep.everything:
            return []
        if self._saves is None:
            count, size = session.journal.count_saves()
            if not self._is_full(count, size):
                return []  # Without reading them all after each word from others.
        saves = self._known(session)
        if not self._is_full(len(saves), self._bytes):
            return []
        alive = {
            saved_text(checkpoint.params.path)
            for checkpoint in in_use(session).values()
            if type(checkpoint.params) is Saved
        }
        removed = self._keep.unneeded(list(saves.values()), alive)
        row = session.slots.row
        session.journal.remove([(row, s.params, UNREACHABLE) for s in removed])
        for save in removed:
            del saves[save.params]
            self._bytes -= save.bytes
        kept = len(saves)
        self._few = kept < _FEW
        self._most = 0 if self._few else kept + kept // 6 - 1
        self._note_budget()
        return [path_of(save.params) for save in removed]

    def drop(self, session: Session, paths: Collection[str]) -> None:
        """Have the store remove what is committed; where few are kept, at once."""
        if not self._few:
            self._keeper.drop(paths)
        elif paths:
            session.news.later(lambda: self._keeper.drop_now(paths))

    def note(self, session: Session, taken: Collection[Incoming]) -> None:
        """Note saves that are recorded in this transaction."""
        for new in taken:
            if new.params_text is None or new.bytes is None:
                continue
            place = new.generation_id, new.step
            save = SaveRow(new.params_text, session.slots.row, *place, new.bytes)
            session.journal.add_save(save)
            if self._saves is not None:
                self._saves[save.params] = save
                self._bytes += save.bytes

    def reject(self, session: Session, checkpoint: Checkpoint, reason: str) -> None:
        """Record that params are damaged; the store keeps them to be looked at."""
        text = session.graph.params_text(checkpoint)
        session.journal.remove([(session.slots.row, text, f"rejected: {reason}")])
        self.forget()

    def tidy(self, session: Session) -> None:
        """Remove, once a session, what a kill has left: saves that nothing names.

        Only those of sessions that are gone: others may be about to report theirs.
        """
        if self._tidied:
            return
        self._tidied = True
        try:
            self._keeper.drop(self._left(session))
        except (OSError, PopulationError) as error:
            logger.warning("what earlier sessions have left was not removed: %s", error)

    def _left(self, session: Session) -> list[str]:
        """The paths that sessions which are gone have not removed, or never named."""
        journal = session.journal
        with session.news.lock:
            # In this order: who is dead has recorded all that it ever will, so what is
            # read after that names every save of theirs that counts.
            found = [(row, liveness.owner_of(text)) for row, text in journal.owners()]
            dead = [(row, owner) for row, owner in found if liveness.is_gone(owner)]
            if not dead:
                return []
            since = dead[-_SESSIONS:][0][0]
            with journal.reading():
                known = {save.params for save in journal.saves()}
                known.update(journal.rejected())
                texts = journal.removed_since(since)
                folders = journal.trained_since(since)
        removed = [path_of(text) for text in texts if not text.startswith(codec.HELD)]
        left = [path for path in removed if saved_text(path) not in known]
        gone = {owner.token for _, owner in dead}
        for path in self._keeper.names(folders):
            saved_by = _SAVED_BY.match(path.rpartition("/")[2])
            theirs = saved_by is not None and saved_by[1] in gone
            if theirs and saved_text(path) not in known:
                left.append(path)
        return left

    def _is_full(self, count: int, size: int) -> bool:
        if self._keep.bytes is None:
            return count > self._most
        return size > self._most_bytes

    def _known(self, session: Session) -> dict[str, SaveRow]:
        """All saves."""
        if self._saves is None:
            saves = session.journal.saves()
            self._saves = {
                s.params: s for s in saves if not s.params.startswith(codec.HELD)
            }
            self._bytes = sum(save.bytes for save in self._saves.values())
        return self._saves

    def _note_budget(self) -> None:
        budget = self._keep.bytes
        if budget is None:
            return
        if self._bytes > budget and self._most_bytes <= budget:
            logger.warning(
                "Keep(bytes=%d) is less than what may still be needed: %d bytes. "
                "Nothing reachable is removed; give it more room.",
                budget,
                self._bytes,
            )
        within = self._bytes <= budget
        self._most_bytes = budget if within else self._bytes + self._bytes // 5
