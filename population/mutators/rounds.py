"""Rounds that end when every live slot has arrived, at O(1) a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from population.base.types import Branch


class Latecomer:
    """Looks on only when the slot that was late last time has arrived.

    Which one it was can be told from the state and the view, so it is kept here and
    not in the state: a restart looks at each slot once.
    """

    def __init__(self) -> None:
        self._late: tuple[object, int] = (None, 0)

    def is_late(
        self, state: object, live: Sequence[int], has_arrived: Callable[[int], bool]
    ) -> bool:
        """Whether any live slot has not arrived, or none is live.

        Args:
            state: The mutator's state; what is remembered belongs to this very object.
            live: The slots that count.
            has_arrived: Says so of a worker id; once true it stays true for a state.
        """
        known, position = self._late
        if known is not state or position >= len(live):
            position = 0
        for offset in range(len(live)):
            index = (position + offset) % len(live)
            if not has_arrived(live[index]):
                self._late = (state, index)
                return True
        return not live


def step_after(branch: Branch) -> int:
    """The step at which a slot stands after a branch."""
    return 0 if branch.parent is None else branch.parent.step


def check_steps(steps: object, name: str = "steps_per_exploit") -> int:
    """A number of steps, which must be positive.

    Raises:
        ValueError: If it is no positive int.
    """
    if type(steps) is not int or steps < 1:
        raise ValueError(f"{name} must be a positive int, got {steps!r}.")
    return steps
