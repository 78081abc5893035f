"""Who trains which slot: claims, turns, takeovers.

Within one process; a claim is held by a `Worker` until it gives the slot back, takes
another, or is replaced by a worker that asks for the slot by its id.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from population.base import Checkpoint
from population.slots import Slots

_LOOK_AGAIN_S = 0.5  # Another process may have written; nobody tells us.


class Leases:
    """The claims of a controller's workers.

    Args:
        news: Notified when slots change; its lock is the controller's.
        slots: What is known of each slot.
        waits: Whether a slot waits for a decision.
    """

    def __init__(
        self,
        news: threading.Condition,
        slots: Slots,
        waits: Callable[[int], bool],
    ) -> None:
        self._news = news
        self._slots = slots
        self._waits = waits
        self._holders: dict[int, object] = {}
        self._handed_out: dict[object, Checkpoint] = {}

    def holds(self, holder: object, worker_id: int) -> bool:
        """Whether the slot is this holder's."""
        return self._holders.get(worker_id) is holder

    def hand_out(self, holder: object, checkpoint: Checkpoint | None) -> None:
        """Note what a holder was given and has not taken up; None when it has."""
        if checkpoint is None:
            self._handed_out.pop(holder, None)
        else:
            self._handed_out[holder] = checkpoint

    def handed_out(self) -> list[Checkpoint]:
        """What was handed out and not taken up yet."""
        return list(self._handed_out.values())

    def take(self, holder: object, worker_id: int) -> bool:
        """Claim this slot, whoever has it.

        Returns:
            Whether it was taken over from somebody else.
        """
        before = self._holders.get(worker_id)
        self._holders[worker_id] = holder
        return before is not None and before is not holder

    def give_back(self, holder: object, worker_id: int) -> None:
        """End a claim; nothing if it was lost."""
        if self.holds(holder, worker_id):
            del self._holders[worker_id]
            self._news.notify_all()

    def wait_for_free(self, own: int | None, ended: Callable[[], bool]) -> int | None:
        """Block until a slot is free and does not wait, or until the run has ended.

        Args:
            own: The slot to prefer among those with equally few steps.
            ended: Asked whenever something has changed.

        Returns:
            The slot, or None if the run has ended.
        """
        while not ended():
            found = self.free(own)
            if found is not None:
                return found
            self._news.wait(_LOOK_AGAIN_S)
        return None

    def free(self, own: int | None = None, below: int | None = None) -> int | None:
        """The free slot that does not wait and has the fewest steps, or None.

        Args:
            own: The slot to prefer among those with equally few steps; else the lowest.
            below: Only slots with fewer steps than this.
        """
        steps = np.array([slot.newest.step for slot in self._slots])
        order = np.argsort(steps, kind="stable").tolist()
        if own is not None:
            order.sort(key=lambda worker_id: (steps[worker_id], worker_id != own))
        for worker_id in order:
            if below is not None and steps[worker_id] >= below:
                return None
            if worker_id not in self._holders and not self._waits(worker_id):
                return int(worker_id)
        return None
