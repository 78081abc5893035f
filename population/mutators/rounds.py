"""Rounds that end when every live slot has arrived; O(1) for each report.

The parts of a policy whose workers wait for each other. Its `wait_at` returns the end
of the round, and `Latecomer.reached` where each live slot stands once all have come
there. `ranked` orders those with a finite score. The next round ends `end_after` the
furthest of them, or, with an end for each slot, `steps` after `starts_after`. The page
on writing a mutator shows a whole policy.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence

from population.base.interfaces import PopulationView
from population.base.types import Branch, Checkpoint, Retire


class Latecomer:
    """Checks whether a live slot has not arrived yet, in O(1) for most reports.

    Make one in the constructor of a mutator, and call `reached` or `is_late`. It
    remembers one missing slot, and checks the others only once that has arrived. This
    is a cache, which follows from the state and the view, and so is not part of the
    state. After a restart it checks each slot once.
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

    def reached(
        self, state: object, view: PopulationView, end: int | Callable[[int], int]
    ) -> dict[int, Checkpoint]:
        """Return where each live slot stands at the end of its round, by worker id.

        Args:
            state: The mutator's state; another object resets the cache.
            view: The view.
            end: The step at which the round ends, or a function that returns that of a
                worker id; the same one as long as the state is the same.

        Returns:
            The first checkpoints from there on that can close a barrier, in the order
            of worker ids, those that diverged among them; empty as long as a slot has
            not arrived, or if none is live.
        """

        def barrier(worker_id: int) -> Checkpoint | None:
            return view.barrier(worker_id, end(worker_id) if callable(end) else end)

        if self.is_late(state, view.live, lambda w: barrier(w) is not None):
            return {}
        return {w: c for w in view.live if (c := barrier(w)) is not None}


def ranked(reached: Mapping[int, Checkpoint], view: PopulationView) -> list[int]:
    """Return the worker ids of slots with a finite score there, the best first.

    A slot that diverged is left out: it is no donor, and has to go back. Of equal ones
    the one with the lower id is first.

    Args:
        reached: Where the slots stand, as `Latecomer.reached` returns it.
        view: The view.
    """
    scores = {worker_id: view.score(found) for worker_id, found in reached.items()}
    fit = [
        worker_id for worker_id in sorted(scores) if math.isfinite(scores[worker_id])
    ]
    return sorted(fit, key=scores.__getitem__)


def end_after(reached: Mapping[int, Checkpoint], steps: int) -> int:
    """Return the step at which the next round of all slots ends.

    It is `steps` beyond the furthest of them. Loops may report beyond the end of a
    round: after an earlier end, a slot that copies the furthest one would be there
    before it is trained.

    Args:
        reached: Where the slots stand, as `Latecomer.reached` returns it; not empty.
        steps: Training steps of a round.

    Raises:
        ValueError: `reached` is empty, or `steps` is not a positive int.
    """
    check_steps(steps, "steps")
    if not reached:
        raise ValueError(
            "end_after needs slots that have reached the end of a round, got none: "
            "return state, {} as long as Latecomer.reached is empty."
        )
    return max(checkpoint.step for checkpoint in reached.values()) + steps


def starts(view: PopulationView) -> list[int]:
    """Return the step at which each slot's first round begins, by worker id.

    For `init`: that of its newest checkpoint, which in a fork has been trained.
    """
    return [view.newest(worker_id).step for worker_id in range(len(view.steps))]


def starts_after(
    since: Sequence[int],
    reached: Mapping[int, Checkpoint],
    branches: Mapping[int, Branch | Retire],
    view: PopulationView,
) -> list[int]:
    """Return the step at which each slot's next round begins, by worker id.

    Args:
        since: Where the last one began.
        reached: Where the slots that are compared stand.
        branches: What was decided about them.
        view: The view.
    """
    found = list(since)
    for worker_id, checkpoint in reached.items():
        decision = branches.get(worker_id)
        found[worker_id] = checkpoint.step
        if isinstance(decision, Branch):
            found[worker_id] = step_after(decision, view)
    return found


def is_live(view: PopulationView, worker_id: int) -> bool:
    """Whether a slot is neither retired nor given up, in O(log N)."""
    live = view.live
    place = bisect.bisect_left(live, worker_id)
    return place < len(live) and live[place] == worker_id


def step_after(branch: Branch, view: PopulationView) -> int:
    """Return the step at which a slot begins after a branch.

    That of the parent's resume point: earlier than the parent, if that has no params.
    """
    parent = branch.parent
    return 0 if parent is None else view.graph.resume_point(parent).step


def check_steps(steps: object, name: str = "steps_per_exploit") -> int:
    """Return the number of steps itself, after a check.

    Raises:
        ValueError: `steps` is not a positive int.
    """
    if type(steps) is not int or steps < 1:
        raise ValueError(f"{name} must be a positive int, got {steps!r}.")
    return steps
