"""Open a run in this process and print how long it took and how much memory.

`ticks.py` starts this in a new process: `python -m benchmarks.speed.resume
LOG_DIR WORKERS` prints, as JSON, the seconds, the megabytes and the steps of all slots
together.
"""

from __future__ import annotations

import copy
import json
import pathlib
import resource
import sys
import time

import population
from population.mutators import WinnerTakeAllGenetic


def main() -> None:
    """Open the run that the command line names."""
    log_dir, workers = sys.argv[1], int(sys.argv[2])
    mutator = WinnerTakeAllGenetic(copy.deepcopy, steps_per_exploit=10**9)
    start = time.perf_counter()
    controller = population.PopulationController([None] * workers, mutator, log_dir)
    seconds = time.perf_counter() - start
    megabytes = peak_mb()
    steps = sum(worker.step for worker in controller.workers)
    controller.close()
    print(json.dumps([seconds, megabytes, steps]))


def peak_mb() -> float:
    """The peak memory of this process, in megabytes."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        # On Linux ru_maxrss also counts the parent's memory at the fork.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    main()
