"""Decodes the texts and rows of a journal; damage in them raises a `JournalError`."""

from __future__ import annotations

import math
import re
from typing import Any

from population.base import codec, run_paths
from population.base.errors import damaged
from population.base.types import Checkpoint, InMemory, Ref, Saved
from population.journal.base import MAX, Journal
from population.journal.records import CheckpointRow


def decode(text: str, like: object = None) -> Any:
    """Decode a text of the journal.

    Raises:
        JournalError: The text is invalid.
    """
    try:
        return codec.decode(text, like)
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        raise damaged(f"{error} in {text[:60]!r}") from error


def decode_params(text: str) -> Any:
    """Decode params from a text of the journal.

    Raises:
        JournalError: The text is invalid, or is malformed `Saved` or `InMemory` params.
    """
    found = decode(text)
    kinds = {Saved: [str], InMemory: [str, int]}.get(type(found))
    fits = kinds is None or [*map(type, found)] == kinds
    if not fits or (type(found) is InMemory and codec.encode_params(found) != text):
        raise damaged(f"{text[:60]!r} names no params")
    return found


_NAME = re.compile(r"(.+)-(\d{1,18})-(\d{1,18})", re.ASCII | re.DOTALL)


def checkpoint_of(row: CheckpointRow, own: str | None = None) -> Checkpoint:
    """Return the checkpoint of a journal's row, with paths in this run folder."""
    parent = None
    if row.parent_generation_id is not None and row.parent_step is not None:
        parent = Ref(row.parent_generation_id, row.parent_step)
    params = None if row.params is None else decode_params(row.params)
    if params is not None and type(params) is not Saved:
        params = run_paths.absolute(params, own)
    value = row.value
    if row.has_value and value is None:
        value = math.nan  # SQLite keeps NaN as NULL.
    return Checkpoint(
        params=params,
        meta_params=decode(row.meta_params),
        generation_id=row.generation_id,
        value=value,
        parent=parent,
        step=row.step,
        time=row.time,
        worker_id=row.worker_id,
        metrics=None if row.metrics is None else decode(row.metrics),
        reason=row.reason,
        row=row.row,
    )


def unknown(journal: Journal, generation_id: object) -> KeyError:
    """Return the error for a generation that a journal does not find.

    Raises:
        JournalError: The journal is damaged, as the slot has later generations.
    """
    if not isinstance(generation_id, str):
        kind = type(generation_id).__name__
        return KeyError(f"a generation has an id, a str, got {kind}")
    found = _NAME.fullmatch(generation_id)
    if found is not None:
        run, worker_id, number = found[1], int(found[2]), int(found[3])
        for newest in journal.generations(worker_id=min(worker_id, MAX)):
            same = newest.generation_id.startswith(f"{run}-{worker_id}-")
            if same and newest.number >= number:
                raise damaged(f"it does not find {generation_id}, which it must have")
    return KeyError(generation_id)
