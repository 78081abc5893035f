"""Warns, once, of a loop that never counts its step, or never reports."""

from __future__ import annotations

import logging
from collections.abc import Callable

from population.core.slot import Slot

logger = logging.getLogger("population")
_AT_ONE_STEP = 1_000
_WITHOUT_REPORT = 10_000


class Idle:
    """The polls of a session's loops that bring no news. Counting costs nanoseconds.

    Args:
        wait_at: The step at which a slot waits: there a loop of the two calls polls on
            purpose.
    """

    def __init__(self, wait_at: Callable[[int], int | None]) -> None:
        self._wait_at = wait_at
        self._said: set[str] = set()

    def note(self, slot: Slot, step: int) -> None:
        """A loop has polled a slot's present generation at this step."""
        slot.polls += 1
        if step != slot.polled_at:
            slot.polled_at, slot.repeats = step, 1
        else:
            slot.repeats += 1
            if slot.repeats == _AT_ONE_STEP:
                self._stands_still(slot)
        if slot.polls == _WITHOUT_REPORT:
            self._is_silent(slot)

    def _stands_still(self, slot: Slot) -> None:
        worker_id = slot.generation.worker_id
        limit = self._wait_at(worker_id)
        if limit is not None and slot.polled_at >= limit:
            slot.repeats = 0
            return
        self._say(
            "A loop has asked for news %d times at step %d of worker %d: its step is "
            "not counted on. Write worker.step += 1 after each training step; with the "
            "two calls, pass the number of steps trained so far.",
            _AT_ONE_STEP,
            slot.polled_at,
            worker_id,
        )

    def _is_silent(self, slot: Slot) -> None:
        if slot.newest.step > slot.generation.step or slot.newest.value is not None:
            return
        self._say(
            "A loop has asked for news %d times, and has reported nothing for worker "
            "%d yet: until it does, nothing is decided or saved. Call "
            "worker.report(value, state) every so many steps; with the two calls, "
            "set_eval.",
            _WITHOUT_REPORT,
            slot.generation.worker_id,
        )

    def _say(self, text: str, *figures: int) -> None:
        if text not in self._said:
            self._said.add(text)
            logger.warning(text, *figures)
