"""A stacked population that is killed in the middle of a round.

`python -c "from tests.engines import vectorized_child; vectorized_child.main(...)"`
"""

from __future__ import annotations

import os
import signal

import pytest

from population.mutators import PopulationBasedTraining
from tests.crash_points import crash_in_round
from tests.engines import regression


def policy() -> PopulationBasedTraining:
    """The policy of the run."""
    return PopulationBasedTraining(regression.mutate, 10, synchronous=True)


def main(log_dir: str, rounds: int, place: str, save_every: int) -> None:
    """Train, and die when so many rounds are done.

    Args:
        log_dir: The run folder.
        rounds: The round in which it dies.
        place: "saved", before the reports are recorded, or "committed", after it.
        save_every: Rounds from one save to the next.
    """

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    crash_in_round(pytest.MonkeyPatch(), place, rounds, die)
    found = regression.controller(policy(), log_dir=log_dir)
    regression.stacked(found, save_every=save_every)
