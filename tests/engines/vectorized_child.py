"""Stacked populations that are killed in the middle of a round.

`python -c "from tests.engines import vectorized_child; vectorized_child.main(...)"`
"""

from __future__ import annotations

import json
import os
import signal
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from population.mutators import PopulationBasedTraining
from population.run.population_lease import PopulationLease
from tests.engines import regression


def policy() -> PopulationBasedTraining:
    """The policy of the run."""
    return PopulationBasedTraining(regression.mutate, 10, synchronous=True)


def main(jobs: list[tuple[str, int, str, int]]) -> None:
    """Train side by side, and print which signals have ended them.

    Each is a fork of this process, which has imported JAX and has not used it.

    Args:
        jobs: The arguments of `die` for each.
    """
    warnings.filterwarnings("ignore", message=".*fork", category=RuntimeWarning)
    children = [_forked(*job) for job in jobs]
    statuses = [os.waitpid(child, 0)[1] for child in children]
    print(json.dumps([os.waitstatus_to_exitcode(status) for status in statuses]))


def _forked(*job: Any) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            die(*job)
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def die(log_dir: str, rounds: int, place: str, save_every: int) -> None:
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
