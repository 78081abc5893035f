"""Prevents two copies of a run from removing each other's params in one store."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
from collections.abc import Collection
from typing import Any, NamedTuple

from population.base.errors import JournalError, ParamsError
from population.core.facts import store_key, texts_of
from population.core.owners import Owner, owner_of
from population.journal.sqlite import SqliteJournal
from population.journal.sqlite_open import identity
from population.run.liveness import is_foreign

logger = logging.getLogger("population")


def check(
    store: Any,
    run: str,
    file: pathlib.Path,
    holder: Owner,
    newest: Collection[str],
    *,
    is_own: bool,
) -> None:
    """Refuse a store that another copy of a run uses; else claim it for this one.

    Args:
        store: A params store with `claim` and `claimed`, as `FileParams` has them:
            it saves the path of the journal that uses it.
        run: The name of the run in the store.
        file: The run's journal.
        holder: This process.
        newest: The paths of the run's newest saves; empty if it has none. A store that
            neither knows the run nor has all of these is not claimed.
        is_own: Whether the store is in the run folder, and is copied with it.

    Raises:
        JournalError: The other journal that uses the store still exists.
    """
    real = str(file.resolve())
    other, before, clean_upto = _claimed(store, run)
    if other is not None and other != real and identity(other) != identity(real):
        _check_is_gone(other, run, real)
        if before is not None and is_foreign(before):
            logger.warning(
                "the params store of %s served %s on %s before. If that run is still "
                "used, stop: each removes what the other needs.",
                real,
                other,
                before.host,
            )
    if other is None and newest and not (is_own and _has_all(store, newest)):
        logger.warning(
            "the params store of %s does not know this run, of which params were saved "
            "before. If they are in another one, stop, and pass that as params=.",
            real,
        )
        if not _has_all(store, newest):
            return
    if other != real:
        try:
            store.claim(run, json.dumps([real, holder.text, *clean_upto]))
        except (OSError, ParamsError) as error:  # The first save will raise.
            logger.warning("the params store of %s cannot be written: %s", real, error)


class Marker(NamedTuple):
    """Notes in a params store from which row of the journal leftovers are to be found.

    Attributes:
        run: The name of the run in the store.
        file: The path of its journal.
        holder: The process, as text.
    """

    run: str
    file: str
    holder: str

    def clean_upto(self, store: Any) -> int | None:
        """Return that row, 0 at first; None if the store keeps no notes."""
        if not hasattr(store, "claimed"):
            return None
        file, _, clean_upto = _claimed(store, self.run)
        return clean_upto[0] if clean_upto and file == self.file else 0

    def note(self, store: Any, row: int) -> None:
        """Note that no session that was opened before this row has left anything."""
        if not hasattr(store, "claimed"):
            return
        if _claimed(store, self.run)[0] == self.file:
            store.claim(self.run, json.dumps([self.file, self.holder, row]))


def _has_all(store: Any, paths: Collection[str]) -> bool:
    """Whether a store has all of these saves, as far as it can tell.

    A folder in place of one that was moved away has only those saved since.
    """
    if not hasattr(store, "names"):
        return True
    folders = {path.rpartition("/")[0] for path in paths}
    try:
        found = [path for folder in folders for path in store.names(folder)]
    except (OSError, ParamsError):
        return False
    return set(paths).issubset(found)


def _claimed(store: Any, run: str) -> tuple[str | None, Owner | None, list[int]]:
    """Return the journal that uses a store, and the process that recorded it.

    The list has the row up to which it is clean_upto, if that is known.

    Raises:
        JournalError: The store cannot be read.
    """
    try:
        text = store.claimed(run)
    except (OSError, ParamsError) as error:
        raise JournalError(
            f"The run's params store cannot be read: {error}. Give this user access to "
            "it."
        ) from error
    if text is None:
        return None, None, []
    try:
        other, owner, *rest = json.loads(text)
        clean_upto = [row for row in rest[:1] if type(row) is int and row >= 0]
        return str(other), owner_of(owner), clean_upto
    except (ValueError, TypeError, JournalError):  # Not written by this library.
        return None, None, []


def _check_is_gone(other: str, run: str, real: str) -> None:
    """Refuse the store if another copy of the run may still exist.

    Raises:
        JournalError: The other copy exists, or this process cannot check it.
    """
    advice = (
        "Give this one a store of its own, or make it by population.fork. If the other "
        "is no longer needed, remove it."
    )
    try:
        os.stat(other)
        with contextlib.closing(SqliteJournal(other, look=True)) as journal:
            found = store_key(texts_of(journal))
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, JournalError) as error:
        raise JournalError(
            f"{real} may be a copy of {other}, whose params are in the same store; "
            f"that cannot be checked: {error} {advice}"
        ) from error
    if found == run:
        raise JournalError(
            f"{real} is a copy of {other}, and both keep their params in the same "
            f"store: each would remove what the other needs. {advice}"
        )
