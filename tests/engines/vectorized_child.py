"""A stacked population that is killed in the middle of a round.

`python -c "from tests.engines import vectorized_child; vectorized_child.main(...)"`
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from population.mutators import PopulationBasedTraining
from population.run.population_lease import PopulationLease
from tests.engines import regression


def policy() -> PopulationBasedTraining:
    """The policy of the run."""
    return PopulationBasedTraining(regression.mutate, 10, synchronous=True)


def main(log_dir: str, rounds: int, place: str, save_every: int) -> None:
    """Train, and end the process when this many rounds are done.

    Args:
        log_dir: The run folder.
        rounds: The round in which it dies.
        place: "saved", before the reports are recorded, or "recorded", after it.
        save_every: Rounds from one save to the next.
    """
    report: Callable[..., Any] = PopulationLease.report
    left = [rounds]

    def deadly(self: Any, *arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if not left[0] and place == "saved":
            os.kill(os.getpid(), signal.SIGKILL)
        found = report(self, *arguments, **options)
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    PopulationLease.report = deadly  # type: ignore[method-assign]
    found = regression.controller(policy(), log_dir=log_dir)
    regression.stacked(found, save_every=save_every)
