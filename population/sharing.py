"""Keeps two copies of a run from removing each other's params in one store."""

from __future__ import annotations

import json
import logging
import pathlib
from typing import Any

from population.errors import JournalError
from population.facts import store_key
from population.journals import sqlite_file
from population.journals.sqlite_open import identity
from population.owners import Owner, is_foreign, owner_of

logger = logging.getLogger("population")


def check(store: Any, run: str, file: pathlib.Path, holder: Owner) -> None:
    """Refuse a store that serves another copy of a run; else have it serve this one.

    Args:
        store: Has `claim` and `claimed`, as `FileParams`: it keeps which journal it
            serves.
        run: The name by which a store knows the run.
        file: The run's journal.
        holder: This process.

    Raises:
        JournalError: If the journal that it serves is still where it was.
    """
    real = str(file.resolve())
    other, before = _claimed(store, run)
    if other is not None and other != real and identity(other) != identity(real):
        if _run_at(other) == run:
            raise JournalError(
                f"{real} is a copy of {other}, and both keep their params in the same "
                "store: each would remove what the other needs. Give this one a store "
                "of its own, or make it by population.fork. If the other is needed no "
                "more, remove it."
            )
        if before is not None and is_foreign(before):
            logger.warning(
                "the params store of %s served %s on %s before. If that run is still "
                "used, stop: each removes what the other needs.",
                real,
                other,
                before.host,
            )
    if other != real:
        try:
            store.claim(run, json.dumps([real, holder.text]))
        except OSError as error:  # A save will say so, if there is ever one.
            logger.warning("the params store of %s cannot be written: %s", real, error)


def _claimed(store: Any, run: str) -> tuple[str | None, Owner | None]:
    """The journal that a store serves, and who has said so."""
    text = store.claimed(run)
    if text is None:
        return None, None
    try:
        other, owner = json.loads(text)
        return str(other), owner_of(owner)
    except (ValueError, TypeError, JournalError):  # It is none of ours.
        return None, None


def _run_at(file: str) -> str | None:
    """The name by which a store knows the run in a journal's file."""
    try:
        return store_key(sqlite_file.facts_at(pathlib.Path(file)))
    except JournalError:
        return None
