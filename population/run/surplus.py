"""Finds the saves that nothing needs any more, as often as that is worth its time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from population.base.types import Checkpoint, Saved
from population.core.retention import Keep, Saves, saved_text
from population.journal.records import Save
from population.run import remover

logger = logging.getLogger("population")
_FEW = 30
Reachable = Callable[[], Mapping[int, Checkpoint]]


class Found(NamedTuple):
    """The result of a look at all saves.

    Attributes:
        removed: The saves to remove.
        needed: The paths of the saves that replace them: all that may be needed.
    """

    removed: Sequence[Save]
    needed: frozenset[str]


class Surplus:
    """Decides when to look for saves to remove, and which they are.

    A look takes time for each slot. So it looks only if the saves have grown by a sixth
    since the last time, and at most once in `remover.EVERY_S`.

    Args:
        is_paced: Whether looks keep that distance in time.

    Attributes:
        keep: The rules for saves to keep although nothing can reach them any more.
        is_due: Whether it would have looked, but for the distance in time.
    """

    def __init__(self, *, is_paced: bool) -> None:
        self.keep = Keep()
        self.is_due = False
        self._is_paced = is_paced
        self._look_after = 0.0
        self._most = self._most_bytes = 0

    def look(
        self, saves: Saves, reachable: Reachable, *, now: bool = False
    ) -> Found | None:
        """Look for saves to remove; None: not yet.

        Args:
            saves: All saves of the run.
            reachable: Returns the checkpoints whose params may still be needed.
            now: Whether to look in any case.
        """
        if self.keep.everything or not (now or self._is_full(saves)):
            return None
        start = time.monotonic()
        if self._is_paced and not now and start < self._look_after:
            self.is_due = True
            return None
        self.is_due, self._look_after = False, start + remover.EVERY_S
        paths = [c.params.path for c in reachable().values() if type(c.params) is Saved]
        known = saves.read()
        removed = self.keep.unneeded(known, set(map(saved_text, paths)))
        kept = len(known) - len(removed)
        self._most = 0 if kept < _FEW else kept + kept // 6 - 1
        if self.keep.bytes is not None:
            gone = sum(save.bytes for save in removed)
            self._note_budget(self.keep.bytes, saves.bytes() - gone)
        return Found(removed, frozenset(paths))

    def unneeded(
        self, among: Sequence[Save], saves: Saves, reachable: Reachable
    ) -> list[Save]:
        """Return those of some saves that nothing needs now.

        Args:
            among: The saves.
            saves: All saves of the run.
            reachable: Returns the checkpoints whose params may still be needed.
        """
        found = (c.params for c in reachable().values())
        texts = {saved_text(params.path) for params in found if type(params) is Saved}
        wanted = {save.params for save in among}
        removed = self.keep.unneeded(saves.read(), texts)
        return [save for save in removed if save.params in wanted]

    def _is_full(self, saves: Saves) -> bool:
        if self.keep.bytes is None:
            return saves.count() > self._most
        return saves.bytes() > max(self.keep.bytes, self._most_bytes)

    def _note_budget(self, budget: int, size: int) -> None:
        """Set the size for the next look; warn once if the budget is too small."""
        if size > budget and not self._most_bytes:
            logger.warning(
                "Keep(bytes=%d) is less than what may still be needed: %d bytes. "
                "Nothing reachable is removed; give it more room.",
                budget,
                size,
            )
        self._most_bytes = 0 if size <= budget else size + size // 5
