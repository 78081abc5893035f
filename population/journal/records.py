"""What a run records: one tuple a table, its fields in the order of the columns.

Whatever changes a run is first such a record. Texts are encoded by the codec.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

UNREACHABLE = "unreachable"  # Why most params are removed.


class Fact(NamedTuple):
    """Something that is fixed about the run from now on; the first one of a key stays.

    Attributes:
        key: Its name.
        value: Encoded.
    """

    key: str
    value: str


class Opening(NamedTuple):
    """That a controller has opened the run.

    Attributes:
        row: The last row before it.
        time: Seconds since the epoch.
        owner: The process, as text; None in journals of the first format.
    """

    row: int
    time: float
    owner: str | None


class Generation(NamedTuple):
    """A generation.

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


class CheckpointRecord(NamedTuple):
    """A checkpoint as it was first recorded; what came later is a `Late`.

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


class Late(NamedTuple):
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


class Best(NamedTuple):
    """That a checkpoint has become the best one.

    Attributes:
        row: The last row then.
        checkpoint: Row of the checkpoint.
        reports: Reports with a value so far.
    """

    row: int
    checkpoint: int
    reports: int


class Removal(NamedTuple):
    """That checkpoints which name these params have lost them.

    Attributes:
        row: The last row before it; what is recorded later is not meant.
        params: Encoded.
        reason: Why.
    """

    row: int
    params: str
    reason: str


class Loss(NamedTuple):
    """Which slots are not waited for from now on, until they report a later step.

    Attributes:
        row: The last row before it.
        lost: Their worker ids, encoded; it replaces what was recorded before.
        told: The worker whose newest value the mutator was shown again, or None.
        time: Seconds since the epoch.
    """

    row: int
    lost: str
    told: int | None
    time: float


class Lease(NamedTuple):
    """Who trains a slot. It replaces the slot's lease before.

    Attributes:
        worker_id: The slot.
        owner: Who holds it, as text; "" is a loop that polls without a claim, None
            says that it was released.
        renewed: When its owner last polled or reported, in seconds since the epoch.
        grace: Seconds beyond the usual timeout that the owner may be silent.
        handed: Row of the checkpoint that the owner was given and has not taken up.
        change: Rises with each change of any lease.
    """

    worker_id: int
    owner: str | None
    renewed: float
    grace: float
    handed: int | None
    change: int


class Save(NamedTuple):
    """Params that the store keeps, until they are removed.

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


class MutatorRecord(NamedTuple):
    """The mutator's state. It replaces the one before.

    Attributes:
        id: Always 0: there is one.
        state: Encoded.
        decisions: How many updates have branched or changed the state.
        checksum: Of both; `checks.checksum`.
    """

    id: int
    state: str
    decisions: int
    checksum: int


Record = (
    Fact
    | Opening
    | Generation
    | CheckpointRecord
    | Late
    | Best
    | Removal
    | Loss
    | Lease
    | Save
    | MutatorRecord
)
R = TypeVar("R", bound=tuple[Any, ...])
NUMBERED = (Generation, CheckpointRecord, Late)  # Rows that follow one another.
BESIDE = (Best, Removal, Loss)  # They name the last row before them.


class CheckpointRow(NamedTuple):
    """A checkpoint as it is now, with its generation's facts, as a journal finds it.

    Attributes:
        row: Its place in the journal.
        generation: Row of its generation.
        step: Training steps.
        params: Encoded; None if there are none, or they were removed.
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
        had_params: Encoded, whether or not they were removed since; None: it never had
            any.
        parent: Row of its parent; None for a root.
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
    had_params: str | None
    parent: int | None


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
