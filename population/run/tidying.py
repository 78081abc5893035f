"""Records removals of saves in a transaction of their own, beside the reports."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from population.base.errors import JournalError
from population.journal.records import Save
from population.run.transaction import Transaction


def drop(run: weakref.ref[Any], saves: Sequence[Save]) -> list[str]:
    """Record those of some saves as removed that nothing needs now.

    Args:
        run: The open run; it may have ended meanwhile.
        saves: The saves.

    Returns:
        The paths to remove; none if the run has ended: a later session looks again.
    """
    found = run()
    if found is None or found.closed:
        return []

    def work(tx: Transaction) -> list[str]:
        paths: list[str] = found.params.drop(
            tx, saves, lambda: found.reachable(tx.state)
        )
        return paths

    try:
        # Effects of other threads are left to them: they may wait for this one.
        removed: list[str] = found.transact(work, drains=False)
    except JournalError:
        if not found.closed:
            raise
        return []
    return removed
