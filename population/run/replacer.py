"""Removes saves once those that replace them are on the disk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from population.journal.base import Journal
from population.journal.records import Save
from population.run import remover

Record = Callable[[Sequence[Save]], Sequence[str]]


class Replacer:
    """Syncs what replaces saves, and the journal; then records and makes removals.

    In this order: a power cut may leave any of the rows that were not synced. If one
    said that a save is removed, and what replaces it were not on the disk, both would
    be lost.

    For one thread, beside others that use the journal and the store.

    Args:
        journal: The journal of the run.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._synced: Collection[str] = ()

    def replace(
        self, store: Any, saves: Sequence[Save], needed: Collection[str], record: Record
    ) -> None:
        """Record and remove saves that nothing needs any more.

        Args:
            store: The params store; one without a method `sync` cannot be synced.
            saves: The saves.
            needed: The paths of the saves that replace them.
            record: Records those of the saves as removed that nothing needs even now,
                and returns their paths.

        Raises:
            OSError, JournalError: A sync has failed: nothing was removed.
        """
        self._sync(store, needed)
        remover.remove(store, record(saves))

    def remove(
        self, store: Any, removed: Sequence[str], needed: Collection[str]
    ) -> None:
        """Remove saves that the journal does not name any more; raises as `replace`."""
        self._sync(store, needed)
        remover.remove(store, removed)

    def _sync(self, store: Any, needed: Collection[str]) -> None:
        if hasattr(store, "sync"):
            store.sync(sorted(path for path in needed if path not in self._synced))
        self._journal.sync()
        self._synced = needed
