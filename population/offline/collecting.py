"""Removes what dead sessions have left in the params store of a run."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any

from population.base.errors import JournalError
from population.base.interfaces import ParamsStore
from population.base.run_paths import run_folder
from population.core.facts import read_all
from population.offline import transactions
from population.run import leftovers
from population.run.params_manager import PARAMS_FOLDER


def leftover_saves(
    log_dir: str | os.PathLike[str],
    *,
    params: ParamsStore | None = None,
    remove: bool = False,
) -> list[str]:
    """Return saves that nothing names, or that were to be removed when a process died.

    Those of live processes are left out: they may be about to be reported. Saves that a
    decision might need are never among them.

    Args:
        log_dir: The run folder.
        params: The params store of the run, if its controller was given one.
        remove: Whether to remove them.

    Returns:
        Their paths in the store, sorted.

    Raises:
        JournalError: The folder holds no run, or its store is another one.
        OSError: A save cannot be removed.
    """
    folder = run_folder(log_dir)
    # A look may be at a copy, in which saves that were recorded just now are missing.
    journal = transactions.open_journal(folder, look=not remove)
    with contextlib.closing(journal):
        store: Any = params
        if store is None and read_all(journal).get("given"):
            raise JournalError(
                f"The run in {folder} keeps its params in a store of its own: pass it "
                "as params=."
            )
        if store is None:
            from population.params import FileParams

            store = FileParams(folder / PARAMS_FOLDER)
        lock = threading.RLock()
        found = sorted({*leftovers.look(journal, lock, store, since=0).paths})
        found = [path for path in found if _is_there(store, path)]
        for path in found if remove else ():
            store.remove(path)
    return found


def _is_there(store: Any, path: str) -> bool:
    """Whether a save was not removed before, as far as the store can tell."""
    return not hasattr(store, "names") or path in store.names(path.rpartition("/")[0])
