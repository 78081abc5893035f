"""Removes saves once those that replace them are on the disk."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from population.journal.base import Journal
from population.run import remover


class Replacer:
    """Syncs what replaces saves, and the journal that says so; then removes them.

    For one thread, beside others that use the journal and the store.

    Args:
        journal: The journal of the run.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._synced: Collection[str] = ()
        self._left: list[str] = []

    def remove(
        self, store: Any, removed: Collection[str], needed: Collection[str]
    ) -> None:
        """Remove saves that the journal does not name any more.

        Args:
            store: The params store; one without a method `sync` cannot be synced.
            removed: The paths of the saves.
            needed: The paths of the saves that may still be needed.

        Raises:
            OSError, JournalError: A sync has failed: nothing was removed. The next call,
                or a later session, tries again.
        """
        self._left += removed
        if hasattr(store, "sync"):
            store.sync(sorted(path for path in needed if path not in self._synced))
        self._journal.sync()
        self._synced = needed
        remover.remove(store, self._left)
        self._left.clear()
