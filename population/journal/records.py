"""The rows that a journal keeps and gives back, as plain text and numbers."""

from __future__ import annotations

from typing import NamedTuple

UNREACHABLE = "unreachable"  # Why most params are removed.


class GenerationRow(NamedTuple):
    """A generation as the journal keeps it; texts are encoded by the codec.

    Attributes:
        row: Its place in the journal, and its key.
        generation_id: `{run}-{worker_id}-{number}`.
        worker_id: The slot that trains it.
        number: How many generations the slot had before.
        step: Step of its first checkpoint.
        meta_params: The hyperparameters.
        digest: Equal for equal hyperparameters.
        reason: Why it was opened.
        time: Seconds since the epoch.
    """

    row: int
    generation_id: str
    worker_id: int
    number: int
    step: int
    meta_params: str
    digest: str
    reason: str
    time: float


class CheckpointRow(NamedTuple):
    """A checkpoint with its generation's facts, as the journal gives it back.

    Attributes:
        row: Its place in the journal.
        generation: Row of its generation.
        step: Training steps.
        params: Encoded, or None.
        has_value: Whether there is a value.
        value: The value; None beside a true `has_value` is NaN.
        metrics: Encoded, or None.
        time: Seconds since the epoch.
        parent_generation_id: Of the parent; None for a root.
        parent_step: Of the parent; None for a root.
        generation_id: Of its generation.
        worker_id: Of its generation.
        meta_params: Of its generation, encoded.
        reason: Of its generation.
    """

    row: int
    generation: int
    step: int
    params: str | None
    has_value: int
    value: float | None
    metrics: str | None
    time: float
    parent_generation_id: str | None
    parent_step: int | None
    generation_id: str
    worker_id: int
    meta_params: str
    reason: str


class CheckpointRecord(NamedTuple):
    """A checkpoint as it was first recorded; what came later is a `LateRecord`.

    Attributes:
        row: Its place in the journal.
        generation: Row of its generation.
        step: Training steps.
        parent: Row of its parent; None for a root.
        params: Encoded, or None.
        has_value: Whether there is a value.
        value: The value; None beside a true `has_value` is NaN.
        metrics: Encoded, or None.
        time: Seconds since the epoch.
        reports: Reports with a value so far.
        batch: The first row of its transaction.
    """

    row: int
    generation: int
    step: int
    parent: int | None
    params: str | None
    has_value: int
    value: float | None
    metrics: str | None
    time: float
    reports: int
    batch: int


class LateRecord(NamedTuple):
    """What came later for a checkpoint.

    Attributes:
        row: Its place in the journal.
        checkpoint: Row of the checkpoint.
        params: Encoded, or None.
        has_value: Whether it brings a value.
        value: The value; None beside a true `has_value` is NaN.
        metrics: Encoded, or None.
        time: Seconds since the epoch.
        reports: Reports with a value so far.
        batch: The first row of its transaction.
    """

    row: int
    checkpoint: int
    params: str | None
    has_value: int
    value: float | None
    metrics: str | None
    time: float
    reports: int
    batch: int


class RemovalRecord(NamedTuple):
    """That checkpoints which name these params have none any more.

    Attributes:
        row: The last row before it; what is recorded later is not meant.
        params: Encoded.
        reason: Why.
    """

    row: int
    params: str
    reason: str


class LossRecord(NamedTuple):
    """That other slots are lost than before.

    Attributes:
        row: The last row before it.
        lost: The worker ids, encoded.
        told: The worker whose newest report the mutator was shown again, if any.
        time: Seconds since the epoch.
    """

    row: int
    lost: str
    told: int | None
    time: float


class Pulse(NamedTuple):
    """What has changed beside new checkpoints, to be asked for in one look.

    Attributes:
        rejected: Whether a worker has rejected any params since.
        saved: Whether any params were ever recorded.
        losses: Grows whenever other slots are lost.
        decisions: How many decisions were made.
        change: Number of the newest change of a lease; None before the first.
    """

    rejected: int
    saved: int
    losses: int
    decisions: int
    change: int | None


class BestRecord(NamedTuple):
    """That a checkpoint has become the best one.

    Attributes:
        row: The last row then.
        checkpoint: Row of the checkpoint.
        reports: Reports with a value so far.
    """

    row: int
    checkpoint: int
    reports: int


Record = (
    GenerationRow
    | CheckpointRecord
    | LateRecord
    | BestRecord
    | RemovalRecord
    | LossRecord
)


NUMBERED = (GenerationRow, CheckpointRecord, LateRecord)  # One after the other.


class LeaseRow(NamedTuple):
    """Who trains a slot. The one of a slot is replaced by the next.

    Attributes:
        worker_id: The slot.
        owner: Who holds it, as text; "" is a loop that polls without a claim, None
            nobody.
        renewed: When it last gave a sign of life, in seconds since the epoch.
        grace: Seconds beyond the usual time-out that it may be silent.
        handed: Row of the checkpoint that the owner was given and has not taken up.
        change: Rises with each change of any lease.
    """

    worker_id: int
    owner: str | None
    renewed: float
    grace: float
    handed: int | None
    change: int


class SaveRow(NamedTuple):
    """Params that the store keeps.

    Attributes:
        params: Encoded.
        row: The last row when they were noted: what is older has a smaller one.
        generation: The generation that they were saved for.
        step: Its step.
        bytes: Their size.
    """

    params: str
    row: int
    generation: str
    step: int
    bytes: int


class Tail(NamedTuple):
    """Where the journal ends.

    Attributes:
        row: The last row of any table.
        time: Time of the newest checkpoint; 0.0 without one.
        reports: Reports with a value so far.
        best: Row of the best checkpoint; None without a finite value.
        best_reports: `reports` when it became the best.
    """

    row: int
    time: float
    reports: int
    best: int | None
    best_reports: int
