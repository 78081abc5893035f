"""Rounds that end when every live slot has arrived; O(1) for each report."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence

from population.base.interfaces import PopulationView
from population.base.types import Branch


class Latecomer:
    """Checks whether a live slot has not arrived yet, in O(1) for most reports.

    It remembers one missing slot, and checks the others only once that has arrived.
    This is a cache, which follows from the state and the view, and so is not part of
    the state. After a restart it checks each slot once.
    """

    def __init__(self) -> None:
        self._late: tuple[object, int] = (None, 0)

    def is_late(
        self, state: object, live: Sequence[int], has_arrived: Callable[[int], bool]
    ) -> bool:
        """Whether a live slot has not arrived yet, or no slot is live.

        Args:
            state: The mutator's state; another object resets the cache.
            live: The worker ids of the live slots.
            has_arrived: Returns whether a worker id has arrived; once true, it stays
                true as long as the state is the same.
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


def is_live(view: PopulationView, worker_id: int) -> bool:
    """Whether a slot is neither retired nor given up, in O(log N)."""
    live = view.live
    place = bisect.bisect_left(live, worker_id)
    return place < len(live) and live[place] == worker_id


def step_after(branch: Branch) -> int:
    """Return the step at which a slot begins after a branch."""
    return 0 if branch.parent is None else branch.parent.step


def check_steps(steps: object, name: str = "steps_per_exploit") -> int:
    """Return the number of steps itself, after a check.

    Raises:
        ValueError: `steps` is not a positive int.
    """
    if type(steps) is not int or steps < 1:
        raise ValueError(f"{name} must be a positive int, got {steps!r}.")
    return steps
