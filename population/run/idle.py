"""Warns once of a loop that never counts its step, and of one that never reports."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable

from population.core.known import Slot
from population.core.state import RunState

logger = logging.getLogger("population")
_AT_ONE_STEP = 1_000
_WITHOUT_REPORT = 10_000
_STANDS_STILL = (
    "A loop has asked for other work %d times at step %d of worker %d: its step is not "
    "counted on. Write worker.step += 1 after each training step; with the two calls, "
    "pass the number of steps trained so far."
)
_SILENT = (
    "A loop has asked for other work %d times, and has reported nothing for worker %d "
    "yet: until it does, nothing is decided or saved. Call worker.report(value, state) "
    "every so many steps; with the two calls, set_eval."
)


@dataclasses.dataclass(slots=True)
class _Polls:
    """The polls of a slot's present generation that returned no work.

    Attributes:
        row: The row of the generation.
        count: The number of polls.
        step: The step of the last poll.
        repeats: The number of consecutive polls at that step.
    """

    row: int
    count: int = 0
    step: int = -1
    repeats: int = 0


class Idle:
    """Counts the polls that return no work, in nanoseconds, and warns of too many.

    Args:
        wait_at: Returns the step at which a slot waits: a raw loop may poll there
            without limit.
    """

    def __init__(self, wait_at: Callable[[RunState, int], int | None]) -> None:
        self._wait_at = wait_at
        self._polls: dict[int, _Polls] = {}
        self._said: set[str] = set()

    def note(self, state: RunState, slot: Slot, step: int) -> None:
        """Count a poll of a slot's present generation at this step."""
        generation, newest = slot.generation, slot.newest
        row, worker_id = generation.row, generation.worker_id
        polls = self._polls.get(worker_id)
        if polls is None or polls.row != row:
            polls = self._polls[worker_id] = _Polls(row)
        polls.count += 1
        if step != polls.step:
            polls.step, polls.repeats = step, 0
        polls.repeats += 1
        if polls.repeats == _AT_ONE_STEP:
            limit = self._wait_at(state, worker_id)
            if limit is not None and step >= limit:
                polls.repeats = 0
            else:
                self._say(_STANDS_STILL, _AT_ONE_STEP, step, worker_id)
        if polls.count == _WITHOUT_REPORT:
            if newest.step <= generation.step and newest.value is None:
                self._say(_SILENT, _WITHOUT_REPORT, worker_id)

    def _say(self, text: str, *figures: int) -> None:
        if text not in self._said:
            self._said.add(text)
            logger.warning(text, *figures)
