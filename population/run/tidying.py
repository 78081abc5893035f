"""Records removals of saves in a transaction of their own, beside the reports."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Sequence
from typing import Any

from population.base.errors import JournalError
from population.base.types import Checkpoint
from population.core import reachability
from population.core.state import RunState
from population.journal.records import Save
from population.run.transaction import Transaction


def drop(
    run: weakref.ref[Any], saves: Sequence[Save], lost: Collection[str]
) -> list[str]:
    """Record those of some saves as removed that nothing needs now.

    Args:
        run: The open run; it may have ended meanwhile.
        saves: The saves.
        lost: The paths of saves that are needed, and lost on the disk.

    Returns:
        The paths to remove; none if the run has ended: a later session looks again.
    """
    found = run()
    if found is None or found.closed:
        return []

    def needed(state: RunState) -> dict[int, Checkpoint]:
        reachable: dict[int, Checkpoint] = found.reachable(state)
        return reachable | reachability.behind(found.graph, reachable.values(), lost)

    def work(tx: Transaction) -> list[str]:
        paths: list[str] = found.params.drop(tx, saves, lambda: needed(tx.state))
        return paths

    try:
        # Effects of other threads are left to them: they may wait for this one.
        removed: list[str] = found.transact(work, drains=False)
    except JournalError:
        if not found.closed:
            raise
        return []
    return removed
