"""Rounds that end when every live slot has arrived; O(1) for each report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from population.base.types import Branch


class Latecomer:
    """Finds out whether a live slot is still missing, in O(1) for most reports.

    It remembers one missing slot, and looks at the others only once that has arrived.
    This is a cache: it follows from the state and the view, and so is not kept in the
    state. After a restart each slot is looked at once.
    """

    def __init__(self) -> None:
        self._late: tuple[object, int] = (None, 0)

    def is_late(
        self, state: object, live: Sequence[int], has_arrived: Callable[[int], bool]
    ) -> bool:
        """Whether a live slot has not arrived yet, or no slot is live.

        Args:
            state: The mutator's state; with another object the cache begins anew.
            live: The worker ids of the live slots.
            has_arrived: Whether a worker id has arrived; once true, it stays true as
                long as the state is the same.
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
    """The step at which a slot begins after a branch."""
    return 0 if branch.parent is None else branch.parent.step


def check_steps(steps: object, name: str = "steps_per_exploit") -> int:
    """The number of steps itself, once it is checked.

    Raises:
        ValueError: `steps` is not a positive int.
    """
    if type(steps) is not int or steps < 1:
        raise ValueError(f"{name} must be a positive int, got {steps!r}.")
    return steps
