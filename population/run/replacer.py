"""Removes saves once those that replace them are on the disk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from population.journal.base import Journal
from population.journal.records import Save
from population.run import remover

Record = Callable[[Sequence[Save], Collection[str]], Sequence[str]]


class Replacer:
    """Syncs what replaces saves, and the journal; then records and makes removals.

    In this order: a power cut may leave any of the rows that were not synced. If one
    said that a save is removed, and what replaces it were not on the disk, both would
    be lost.

    For one thread, beside others that use the journal and the store.

    Args:
        journal: The journal of the run.
        token: The token of this session, which is in the paths of its saves.
    """

    def __init__(self, journal: Journal, token: str) -> None:
        self._journal = journal
        self._token = token
        self._synced: Collection[str] = ()
        self._lost: set[str] = set()
        self._is_first = True

    def replace(
        self, store: Any, saves: Sequence[Save], needed: Collection[str], record: Record
    ) -> None:
        """Record and remove saves that nothing needs any more.

        Args:
            store: The params store; one without a method `sync` cannot be synced.
            saves: The saves.
            needed: The paths of the saves that replace them.
            record: Called with the saves and the paths of needed ones that are lost;
                records those as removed that nothing needs even then, and returns
                their paths.

        Raises:
            OSError, JournalError, ParamsError: A save cannot be synced or read: nothing
                was removed.
        """
        self._sync(store, needed)
        remover.remove(store, record(saves, frozenset(self._lost)))

    def remove(
        self, store: Any, removed: Sequence[str], needed: Collection[str]
    ) -> bool:
        """Remove saves that no record names, and that were recorded as removed.

        Returns:
            Whether the store has raised nothing.
        """
        self._sync(store, needed)
        return remover.remove(store, removed)

    def _sync(self, store: Any, needed: Collection[str]) -> None:
        """Sync saves and the journal; note which saves of earlier sessions are lost."""
        new = sorted(path for path in needed if path not in self._synced)
        if hasattr(store, "sync"):
            store.sync(new)
        if self._is_first and hasattr(store, "is_intact"):
            # A power cut before this session may have cost some of them.
            others = (path for path in new if f"-{self._token}-" not in path)
            self._lost.update(path for path in others if not store.is_intact(path))
        self._is_first = False
        self._journal.sync()
        self._synced = needed
