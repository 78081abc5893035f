"""What saves cost the stacked engine, beside the bare scan of the same steps."""

from __future__ import annotations

import functools
import pathlib
import tempfile
from collections.abc import Iterator, Mapping

from benchmarks.record import Figure, paired, spread
from benchmarks.speed import ways
from benchmarks.speed.saved_loops import in_turns
from benchmarks.speed.ways import EXPLOIT_STEPS, Task

WITHIN = {1: 1.8, 100: 1.02}  # The goals, by steps a report.
BARE, AT_THE_END, SAVING = "the bare scan (vmap)", "stacked", "stacked, `save_every=10`"
_NEVER = 10**9


def figures(
    problem: str,
    members: int,
    rounds: Mapping[int, int],
    repetitions: int,
    folder: pathlib.Path,
) -> Iterator[Figure]:
    """The stacked engine with and without saves, beside the bare scan of its steps.

    Args:
        problem: The name of the problem.
        members: The size of the population.
        rounds: Reports of each member, by steps a report.
        repetitions: How many times each run is made.
        folder: For the runs.
    """
    for every, count in rounds.items():
        apart = min(EXPLOIT_STEPS, max(1, count // 2 - 1) * every)
        task = Task(problem, members, every, count, apart)
        runs = {
            BARE: functools.partial(_bare, task),
            AT_THE_END: functools.partial(_stacked, task, folder, _NEVER),
            SAVING: functools.partial(_stacked, task, folder, 10),
        }
        found = in_turns(runs, repetitions)
        steps = "1 step" if every == 1 else f"{every} steps"
        for name, seconds in found.items():
            micro = spread([1e6 * s for s in seconds])
            ratio = None if name == BARE else paired(seconds, found[BARE])
            goal = WITHIN.get(every) if name == SAVING else None
            section = f"{members} members, {steps} a report, stacked"
            yield Figure(section, name, "us a member-step", micro, ratio, goal)


def _bare(task: Task) -> float:
    return 1 / ways.bare(task, pathlib.Path(), batching="vmap").rate


def _stacked(task: Task, folder: pathlib.Path, save_every: int) -> float:
    place = pathlib.Path(tempfile.mkdtemp(dir=folder)) / "run"
    return 1 / ways.stacked(task, place, save_every=save_every).rate
