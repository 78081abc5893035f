"""The arguments and results of rules, which return records and change nothing."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from population.core.known import Subject
from population.journal.records import Record


class Moment(NamedTuple):
    """The time of a transaction, and its first row.

    Attributes:
        now: Time of its reports, never before the last one's; seconds since the epoch.
        batch: Its first row in the journal.
        clock: The present time of the clock, which may be set back.
    """

    now: float
    batch: int
    clock: float


class EncodedReport(NamedTuple):
    """A report whose parts were checked and encoded, before any lock is taken.

    Attributes:
        worker_id: The slot that it names.
        generation_id: The generation that it names.
        step: Training steps.
        params: A storable value, `Saved`, or None.
        params_text: `params` encoded, or None.
        value: The value, or None.
        metrics: Further figures, or None.
        metrics_text: `metrics` encoded, or None.
        bytes: Size of the arrays that the params store has saved for this report; None
            if it has saved nothing.
    """

    worker_id: int
    generation_id: str
    step: int
    params: Any
    params_text: str | None
    value: float | None
    metrics: Any
    metrics_text: str | None
    bytes: int | None = None


class Note(NamedTuple):
    """A message to log once for each generation, after the commit.

    Attributes:
        generation_id: The generation.
        what: The message without the generation id, such as "diverged".
        detail: Text to add to the message.
        level: The level of the log record.
    """

    generation_id: str
    what: str
    detail: str = ""
    level: int = logging.DEBUG


class Restart(NamedTuple):
    """A slot that begins a generation.

    Attributes:
        worker_id: The slot.
        loses_all: Whether it goes back to fresh weights only because none were saved.
        diverged: Whether the last value that it had reported is not finite.
    """

    worker_id: int
    loses_all: bool
    diverged: bool


class Step(NamedTuple):
    """The result of a rule.

    Attributes:
        records: The records to write and apply, in this order.
        about: The checkpoint that the report concerns; None: nothing for the mutator.
        notes: The messages to log.
        restart: The slot that begins a generation, or None.
    """

    records: tuple[Record, ...] = ()
    about: Subject | None = None
    notes: tuple[Note, ...] = ()
    restart: Restart | None = None
