"""Checks what a mutator returns: whom it decides about, and where slots wait."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from population.base.types import Branch, Checkpoint, Retire
from population.core import wrong_types
from population.core.known import check_id


class CheckedBranch(NamedTuple):
    """A branch that can be applied.

    Attributes:
        worker_id: The slot.
        parent: The resume point of the branch's parent; None: fresh params.
        meta_text: The hyperparameters, encoded.
        reason: The reason to record.
    """

    worker_id: int
    parent: Checkpoint | None
    meta_text: str
    reason: str


class CheckedRetirement(NamedTuple):
    """A retirement that can be applied.

    Attributes:
        worker_id: The slot.
        reason: The reason to record.
    """

    worker_id: int
    reason: str


Decisions = Mapping[int, Branch | Retire]


def by_worker(
    mutator: str, size: int, decisions: Decisions
) -> list[tuple[int, Branch | Retire]]:
    """Return decisions by worker id, ascending.

    Args:
        mutator: The name of the mutator's class.
        size: The number of slots.
        decisions: What it returned.

    Raises:
        TypeError: A key is not an int, or a decision is neither a Branch nor a Retire;
            the message says what to write instead.
        ValueError: There is no such slot.
    """
    found = []
    for key, decision in decisions.items():
        try:
            worker_id = check_id(size, key)
        except TypeError:
            raise TypeError(wrong_types.wrong_worker(mutator, key)) from None
        if not isinstance(decision, Branch | Retire):
            raise TypeError(wrong_types.wrong_decision(mutator, worker_id, decision))
        found.append((worker_id, decision))
    return sorted(found, key=operator.itemgetter(0))


def checked_wait(mutator: str, worker_id: int, found: Any) -> int:
    """Return the step of a `wait_at` as an int.

    Raises:
        TypeError: It is not an integer.
    """
    if not isinstance(found, np.integer):
        raise TypeError(wrong_types.wrong_wait(mutator, worker_id, found))
    return int(found)
