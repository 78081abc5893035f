"""The records of a journal: one tuple type per table, fields in column order.

Each change of a run is first such a record. The codec encodes the texts.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

UNREACHABLE = "unreachable"  # The reason of most removals.
STOPPED = "stopped"  # The kind of a `Status` that concerns all slots.


class Fact(NamedTuple):
    """A fixed property of the run; of several with one key the first counts.

    Attributes:
        key: The name of the property.
        value: The value, encoded.
    """

    key: str
    value: str


class Opening(NamedTuple):
    """Records that a controller has opened the run.

    Attributes:
        row: The last row before it.
        time: Seconds since the epoch.
        owner: The process, as text; None in journals of the first format.
    """

    row: int
    time: float
    owner: str | None


class Generation(NamedTuple):
    """Records that a slot has begun a generation.

    Attributes:
        row: Its row number in the journal, and its key.
        generation_id: `{run}-{worker_id}-{number}`.
        worker_id: The slot that trains it.
        number: The number of generations that the slot had before.
        step: Step of its first checkpoint.
        meta_params: The hyperparameters, encoded.
        digest: A text that is equal for equal hyperparameters.
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
    """A checkpoint as it was first recorded; a `Late` adds a later value or params.

    Attributes:
        row: Its row number in the journal.
        generation: Row of its generation.
        step: Training steps.
        parent: Row of its parent; None for a root.
        params: The params, encoded, or None.
        has_value: Whether it has a value.
        value: The value; None with a true `has_value` means NaN.
        metrics: The metrics, encoded, or None.
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
    """A later value or params of a checkpoint.

    Attributes:
        row: Its row number in the journal.
        checkpoint: Row of the checkpoint.
        params: The params, encoded, or None.
        has_value: Whether it adds a value.
        value: The value; None with a true `has_value` means NaN.
        metrics: The metrics, encoded, or None.
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
    """Records that a checkpoint has become the best one.

    Attributes:
        row: The last row at that time.
        checkpoint: Row of the checkpoint.
        reports: Reports with a value so far.
    """

    row: int
    checkpoint: int
    reports: int


class Removal(NamedTuple):
    """Records that all earlier checkpoints with these params have lost them.

    Attributes:
        row: The last row before it; checkpoints with later rows keep their params.
        params: The params, encoded.
        reason: Why they were removed.
    """

    row: int
    params: str
    reason: str


class Loss(NamedTuple):
    """Lists the slots for which decisions do not wait until they report a later step.

    It is also recorded, with an unchanged list, when slots were retired and the mutator
    is shown a known value.

    Attributes:
        row: The last row before it.
        lost: Their worker ids, encoded; this replaces earlier lists.
        told: The worker whose newest value the mutator was shown again, or None.
        time: Seconds since the epoch.
        statuses: The number of statuses before it; None in files of older formats.
        batch: The first row of its transaction; None in files of older formats.
    """

    row: int
    lost: str
    told: int | None
    time: float
    statuses: int | None
    batch: int | None


class Status(NamedTuple):
    """A change of whether a slot fails, or is retired. It replaces the slot's last one.

    Attributes:
        number: Its place among all statuses, from 1, and its key.
        row: The last row before it.
        worker_id: The slot.
        kind: "failed": a trial has ended with an error or a kill; "diverged": the slot
            is set back from a value that is not finite; "recovered": a finite value
            was reported since; "retired": by a decision; "revived". "stopped": somebody
            has asked the open sessions to end; this concerns all slots, and is not the
            status of the slot, which is 0.
        reason: Why, for people.
        failures: The number of failures in a row.
        retired: Whether the slot is retired.
        step: With "failed", the step of the slot's newest finite value; else 0.
        time: Seconds since the epoch.
        batch: The first row of its transaction.
    """

    number: int
    row: int
    worker_id: int
    kind: str
    reason: str
    failures: int
    retired: int
    step: int
    time: float
    batch: int


class Lease(NamedTuple):
    """The lease of a slot. It replaces the slot's lease before.

    Attributes:
        worker_id: The slot.
        owner: The holder, as text; "": a loop that polls without a claim; None: it was
            released.
        renewed: When its owner last polled or reported, in seconds since the epoch.
        grace: Seconds beyond the usual timeout that the owner may be silent.
        handed: Row of the checkpoint that the owner got as work and has not reported
            on, or None.
        change: A number that rises with each change of any lease.
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
        params: The params, encoded.
        row: The last row before it: older saves have smaller ones.
        generation: The generation for which they were saved.
        step: The step of the report.
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
        id: Always 0: the table has one row.
        state: The state, encoded.
        decisions: How many updates have branched or changed the state.
        checksum: The `checks.checksum` of both.
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
    | Status
    | Lease
    | Save
    | MutatorRecord
)
R = TypeVar("R", bound=tuple[Any, ...])
NUMBERED = (Generation, CheckpointRecord, Late)  # Their rows are consecutive.
BESIDE = (Best, Removal, Loss, Status)  # Their `row` is the last one before them.


class CheckpointRow(NamedTuple):
    """A checkpoint with all later changes and the data of its generation.

    Attributes:
        row: Its row number in the journal.
        generation: Row of its generation.
        step: Training steps.
        params: The params, encoded; None if it never had any, or they were removed.
        has_value: Whether it has a value.
        value: The value; None with a true `has_value` means NaN.
        metrics: The metrics, encoded, or None.
        time: Seconds since the epoch.
        parent_generation_id: The parent's generation_id; None for a root.
        parent_step: The parent's step; None for a root.
        generation_id: The id of its generation.
        worker_id: The slot of its generation.
        meta_params: The hyperparameters of its generation, encoded.
        reason: The reason of its generation.
        had_params: The params, encoded, even if they were removed since; None: it
            never had any.
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
    """The last row and the newest figures of a journal.

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
