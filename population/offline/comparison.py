"""The decisions of a recorded run beside those of a mutator that saw it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from population.base import codec
from population.base.types import Branch, Ref, Retire
from population.core.checked import Decisions


@dataclasses.dataclass(frozen=True)
class Decision:
    """The recorded and the derived decisions after a report or a failure.

    Attributes:
        row: The last row of the journal that the mutator could see.
        checkpoint: The checkpoint of the report, or the newest one at a failure.
        worker_id: The slot that reported or failed.
        recorded: The decisions of the run, by worker id.
        derived: The decisions of the mutator passed to `replay`.
    """

    row: int
    checkpoint: Ref
    worker_id: int
    recorded: Decisions
    derived: Decisions

    @property
    def same(self) -> bool:
        """Whether both retire the same slots and branch the others alike.

        A branch is alike if it continues from the same checkpoint with the same
        meta_params; reasons may differ.
        """
        return _plain(self.recorded) == _plain(self.derived)

    def __str__(self) -> str:
        place = f"worker {self.worker_id} at step {self.checkpoint.step}"
        if self.same:
            return f"row {self.row}, {place}: {_told(self.recorded)}"
        return (
            f"row {self.row}, {place}: recorded {_told(self.recorded)}; "
            f"derived {_told(self.derived)}"
        )


@dataclasses.dataclass(frozen=True)
class Replay:
    """The decisions of a run, compared with those of a mutator.

    Attributes:
        decisions: All reports and failures after which either of them decided.
        updates: The number of reports and failures that the mutator saw.
    """

    decisions: Sequence[Decision]
    updates: int

    @property
    def first_difference(self) -> Decision | None:
        """The first decision that differs; None if all are the same."""
        return next((d for d in self.decisions if not d.same), None)

    def __str__(self) -> str:
        differing = sum(not decision.same for decision in self.decisions)
        lines = [
            f"{len(self.decisions)} decisions after {self.updates} reports and "
            f"failures, {differing} of them other than recorded."
        ]
        if self.first_difference is not None:
            lines.append(f"The first: {self.first_difference}.")
        return "\n".join(lines)


def _plain(decisions: Decisions) -> dict[int, tuple[Ref | None, str] | None]:
    return {
        worker_id: None if isinstance(decision, Retire) else _named(decision)
        for worker_id, decision in decisions.items()
    }


def _named(branch: Branch) -> tuple[Ref | None, str]:
    parent = None if branch.parent is None else branch.parent.ref
    return parent, codec.digest(branch.meta_params)


def _told(decisions: Decisions) -> str:
    if not decisions:
        return "nothing"
    return ", ".join(
        f"worker {worker_id} {_place(decision)}"
        for worker_id, decision in sorted(decisions.items())
    )


def _place(decision: Branch | Retire) -> str:
    if isinstance(decision, Retire):
        return "retires"
    place = "fresh params"
    if decision.parent is not None:
        place = f"step {decision.parent.step} of {decision.parent.generation_id}"
    return f"from {place} with {decision.meta_params!r}"
