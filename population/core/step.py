"""What a rule is given, and what it wants: records to write, and nothing changed."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from population.core.known import Subject
from population.journal.records import Record


class Moment(NamedTuple):
    """When a transaction takes place.

    Attributes:
        now: Time of its reports, never before the last one's; seconds since the epoch.
        batch: Its first row.
        clock: What the clock shows, which may go back.
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
        bytes: Size of what the params store has saved for this very report; None if it
            has saved nothing.
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
    """Something to be logged, once for each generation, after the commit.

    Attributes:
        generation_id: The generation.
        what: What it is or does.
        detail: Of the first time.
        level: Of the log record.
    """

    generation_id: str
    what: str
    detail: str = ""
    level: int = logging.DEBUG


class Restart(NamedTuple):
    """A slot that begins a generation.

    Attributes:
        worker_id: The slot.
        loses_all: Whether it is set back to fresh weights though no command did
            that: none were saved.
        diverged: Whether what it had reported last is not finite.
    """

    worker_id: int
    loses_all: bool
    diverged: bool


class Step(NamedTuple):
    """What a rule wants.

    Attributes:
        records: To be written and applied, in this order.
        about: What the report is about; None: of no interest to the mutator.
        notes: To be logged.
        restart: The slot that begins a generation, or None.
    """

    records: tuple[Record, ...] = ()
    about: Subject | None = None
    notes: tuple[Note, ...] = ()
    restart: Restart | None = None
