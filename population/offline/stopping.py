"""Asks the open sessions of a run to end, from any process."""

from __future__ import annotations

import contextlib
import os
import pathlib
import time
from collections.abc import Callable

from population.base import codec
from population.base.errors import JournalError
from population.base.run_paths import run_folder
from population.core.owners import owner_of
from population.journal.records import STOPPED, Opening, Status
from population.offline import transactions
from population.reader.run_status import is_live


def stop(
    log_dir: str | os.PathLike[str],
    reason: str,
    *,
    clock: Callable[[], float] = time.time,
) -> bool:
    """Ask all sessions that have a run open to end at their next poll or report.

    For them the run is then finished, as if a limit of `Stop` were reached: loops of
    `Worker` and engines end and save as at any end. A later opening goes on. If no
    process that may be alive has the run open, nothing is recorded.

    Args:
        log_dir: The run folder.
        reason: Who stops it, and why, for people; the journal keeps it.
        clock: Returns seconds since the epoch.

    Returns:
        Whether it was open.

    Raises:
        TypeError: `reason` is not a text.
        JournalError: The folder holds no run, or cannot be written to.
    """
    if type(reason) is not str:
        raise TypeError(f"reason must be a text, got {type(reason).__name__}.")
    folder: pathlib.Path = run_folder(log_dir)
    with contextlib.closing(transactions.open_journal(folder)) as journal:
        if journal.read_only:
            raise JournalError(
                f"{folder} can only be read by this user, and a stop is recorded in "
                "it. Ask its owner to stop the run."
            )
        with journal.transaction():
            row, newest = journal.tail().row, journal.tail().time
            openings = [o for o in journal.all(Opening) if o.owner is not None]
            if not any(
                is_live(owner_of(str(o.owner)), o.time, newest) for o in openings
            ):
                return False
            number = max((s.number for s in journal.all(Status)), default=0) + 1
            asked = Status(
                number=number,
                row=row,
                worker_id=0,
                kind=STOPPED,
                reason=codec.readable(reason),
                failures=0,
                retired=False,
                step=0,
                time=clock(),
                batch=row + 1,
            )
            journal.write([asked])
    return True
