"""Runs to record: a small one, and random ones."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Sequence
from typing import Any, NoReturn

from population.base import codec
from population.journal.base import Find, Journal
from population.journal.checks import checksum
from population.journal.records import (
    Best,
    CheckpointRecord,
    Fact,
    Generation,
    Late,
    Lease,
    Loss,
    MutatorRecord,
    Opening,
    Record,
    Removal,
    Save,
    Status,
)

KINDS: tuple[Any, ...] = (
    *(Fact, Opening, Removal, Loss, Status, Lease, Save, MutatorRecord),
)
VALUES = (1.0, -2.5, 0.0, 1e308, -1e-300, math.nan, math.inf, -math.inf)
PARAMS = ('"a"', '"b"', '"it\'s; DROP TABLE checkpoints --"', '{"!held":["t",1]}')


def generation(
    row: int, worker_id: int = 0, number: int = 0, meta_params: float = 1.0
) -> Generation:
    """A generation that begins at step 0."""
    return Generation(
        row,
        f"run-{worker_id}-{number}",
        worker_id,
        number,
        0,
        codec.encode(meta_params),
        codec.digest(meta_params),
        "start",
        float(row),
    )


def checkpoint(
    row: int,
    generation: int = 1,
    step: int | None = None,
    *,
    parent: int | None = None,
    params: str | None = None,
    value: float | None = None,
    metrics: str | None = None,
    reports: int = 0,
) -> CheckpointRecord:
    """A checkpoint; its step is its row if none is given."""
    return CheckpointRecord(
        row,
        generation,
        row if step is None else step,
        parent,
        params,
        int(value is not None),
        value,
        metrics,
        float(row),
        reports,
        row,
    )


def late(
    row: int,
    checkpoint: int,
    *,
    params: str | None = None,
    value: float | None = None,
    metrics: str | None = None,
    reports: int = 0,
) -> Late:
    """Params or a value that came late for a checkpoint."""
    has_value = int(value is not None)
    about = (params, has_value, value, metrics, float(row), reports, row)
    return Late(row, checkpoint, *about)


def status(
    number: int, row: int, kind: str = "failed", *, batch: int | None = None
) -> Status:
    """A status of slot 0, of a transaction that has begun after its row."""
    failures, retired = int(kind in ("failed", "diverged")), int(kind == "retired")
    what = kind, "it broke", failures, retired, 0
    first = row + 1 if batch is None else batch
    return Status(number, row, 0, *what, float(number), first)


def mutator_record(state: str, decisions: int) -> MutatorRecord:
    """The mutator's state."""
    return MutatorRecord(0, state, decisions, checksum(state, decisions))


def record(journal: Journal, *records: Record) -> None:
    """Write records in a transaction of their own."""
    with journal.transaction():
        journal.write(records)


def break_off(
    journal: Journal, error: type[BaseException], *records: Record
) -> NoReturn:
    """Write records in a transaction that an error rolls back."""
    with journal.transaction():
        journal.write(records)
        raise error


class Draft:
    """Makes the next records of a run; any numbers give valid records.

    Attributes:
        row: The last row.
    """

    def __init__(self) -> None:
        self.row = 0
        self._generations: list[Generation] = []
        self._checkpoints: list[CheckpointRecord] = []
        self._brought: dict[int, tuple[bool, bool, bool]] = {}
        self._changes = self._statuses = 0
        self._best_row = -1
        self._ended = 0

    def copy(self) -> Draft:
        """A copy, for going back when a transaction is rolled back."""
        return copy.deepcopy(self)

    def next(self, what: int, rng: random.Random) -> Record:
        """A record of the kind that a number selects, if there can be one now."""
        if not self._generations or what == 0:
            return self._generation(rng)
        if what <= 4 or not self._checkpoints:
            return self._checkpoint(rng)
        if what <= 6:
            return self._late(rng)
        if what == 7 and self._best_row < self.row:
            self._best_row = self.row
            return Best(self.row, rng.choice(self._checkpoints).row, self.row)
        return self._beside(what, rng)

    def _generation(self, rng: random.Random) -> Generation:
        worker_id = rng.randrange(3)
        number = sum(g.worker_id == worker_id for g in self._generations)
        self.row += 1
        found = generation(self.row, worker_id, number, rng.choice((1.0, 2.0)))
        self._generations.append(found)
        return found

    def _checkpoint(self, rng: random.Random) -> CheckpointRecord:
        own = rng.choice(self._generations)
        taken = {c.step for c in self._checkpoints if c.generation == own.row}
        step = rng.choice([step for step in range(99) if step not in taken][:5])
        older = [None, *(c.row for c in self._checkpoints if c.step <= step)]
        self.row += 1
        found = checkpoint(
            self.row,
            own.row,
            step,
            parent=rng.choice(older),
            params=rng.choice((None, *PARAMS)),
            value=rng.choice((None, *VALUES)),
            metrics=rng.choice((None, '{"a":1}')),
            reports=self.row,
        )
        self._checkpoints.append(found)
        has_metrics = found.metrics is not None
        self._brought[found.row] = (False, found.has_value == 1, has_metrics)
        return found

    def _late(self, rng: random.Random) -> Record:
        first = rng.choice(self._checkpoints)
        known = self._brought[first.row]
        if all(known):
            return self._checkpoint(rng)
        bring = [not has and rng.random() < 0.6 for has in known]
        self.row += 1
        found = late(
            self.row,
            first.row,
            params=rng.choice(PARAMS) if bring[0] else None,
            value=rng.choice(VALUES) if bring[1] else None,
            metrics='{"b":2}' if bring[2] else None,
            reports=self.row,
        )
        params, value, metrics = (a or b for a, b in zip(known, bring, strict=True))
        self._brought[first.row] = (params, value, metrics)
        return found

    def _beside(self, what: int, rng: random.Random) -> Record:
        self._changes += 1
        if what == 8:
            return self._status(rng)
        worker_id, time = rng.randrange(3), float(self._changes)
        owner = rng.choice((None, "", '["host"]'))
        choices: Sequence[Record] = (
            Removal(rng.randrange(self.row + 1), rng.choice(PARAMS), "unreachable"),
            Loss(self.row, "[1]", None, time, self._statuses, self._batch(rng)),
            Lease(worker_id, owner, time, 0.5, None, self._changes),
            Save(rng.choice(PARAMS), self.row, "run-0-0", 1, 10),
            Fact(rng.choice("ab"), str(self._changes)),
            mutator_record(str(self._changes), self._changes),
            Opening(self.row, time, owner),
        )
        return choices[what % len(choices)]

    def _status(self, rng: random.Random) -> Status:
        kinds = "failed", "diverged", "recovered", "retired", "revived"
        self._statuses += 1
        batch = self._batch(rng)
        return status(self._statuses, self.row, rng.choice(kinds), batch=batch)

    def _batch(self, rng: random.Random) -> int:
        if rng.random() < 0.5:
            self._ended = self.row  # What follows is of later transactions.
        return self.row if self._ended < self.row else self.row + 1


def random_find(rng: random.Random) -> Find:
    """A random query for the checkpoints of a run."""
    low, high = sorted((rng.randrange(20), rng.randrange(20)))
    after, upto = sorted((rng.randrange(40), rng.randrange(60)))
    choices: dict[str, Any] = {
        "generation_id": rng.choice(("run-0-0", "run-1-0", "run-0-1", "none-0-0")),
        "after": after,
        "upto": upto,
        "low": low,
        "high": high,
        "limit": rng.randrange(5),
    }
    for name in ("value", "params", "finite", "decides", "diverged", "newest_first"):
        choices[name] = True
    chosen = rng.sample(sorted(choices), rng.randrange(5))
    return Find(**{name: choices[name] for name in chosen})


def answers(journal: Journal, seed: int = 0) -> dict[str, str]:
    """All answers of a journal, with their types."""
    rng = random.Random(seed)
    found: dict[str, Any] = {"tail": journal.tail(), "log": list(journal.log())}
    for kind in KINDS:
        found[kind.__name__] = journal.all(kind)
    for after in (1, 5):
        found[f"leases {after}"] = journal.all(Lease, after)
        found[f"removals {after}"] = journal.all(Removal, after)
        if after <= journal.tail().row:
            found[f"log {after}"] = list(journal.log(after))
    for _ in range(8):
        wanted: dict[str, Any] = {
            "id": rng.choice((None, "run-0-0", "run-1-1")),
            "worker_id": rng.choice((None, 0, 1)),
            "digest": rng.choice((None, codec.digest(1.0))),
            "after": rng.choice((0, 3)),
        }
        found[f"generations {wanted}"] = journal.generations(**wanted)
    for find in (Find(), *(random_find(rng) for _ in range(25))):
        found[str(find)] = journal.checkpoints(find)
    return {question: repr(answer) for question, answer in found.items()}
