"""Measurements in fresh processes: opening a long run, and the import."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable

from benchmarks.record import HERE, Figure, Spread, spread
from benchmarks.speed.subjects import Ticks

_IMPORT = """
import json, sys, time
start = time.perf_counter()
import numpy
middle = time.perf_counter()
import population
end = time.perf_counter()
print(json.dumps([middle - start, end - middle, "jax" in sys.modules]))
"""


def resume(ticks: Ticks, workers: int, size: int, processes: int) -> Iterable[Figure]:
    """Open a copy of a run, as a kill would have left it, in fresh processes.

    Args:
        ticks: The run, on disk; it is grown to `size` first.
        workers: The number of workers.
        size: How many checkpoints it must have.
        processes: How many times it is opened.
    """
    ticks.grow(size)
    copied = ticks.log_dir().with_name("copy")
    found: list[list[float]] = []
    for _ in range(processes):
        # The merged log and its index belong to connections; a kill leaves the log.
        ignore = shutil.ignore_patterns("*-shm")
        shutil.copytree(ticks.log_dir(), copied, ignore=ignore)
        found.append(_child("-m", "benchmarks.speed.resume", str(copied), str(workers)))
        shutil.rmtree(copied)
    seconds, megabytes, steps = zip(*found, strict=True)
    if min(steps) < size:  # Each checkpoint is one step of its slot.
        raise RuntimeError(f"{size} steps were recorded, {min(steps)} found.")
    section = f"Resuming a run of {size:,} checkpoints in a fresh process"
    what = f"{workers:,} workers"
    return [
        Figure(section, f"{what}, time", "s", spread(seconds), at_most=2.0),
        Figure(section, f"{what}, peak memory", "MB", spread(megabytes), at_most=300.0),
    ]


def imports(processes: int) -> Iterable[Figure]:
    """What `import population` costs after `import numpy`, in fresh processes."""
    _child("-c", _IMPORT)  # Files are in the cache, bytecode is written.
    found = [_child("-c", _IMPORT) for _ in range(processes)]
    numpy_s, ours_s, jax = zip(*found, strict=True)
    section = "Importing in a fresh process"
    loaded: Spread = spread([float(loaded) for loaded in jax])
    return [
        Figure(section, "`import numpy`", "s", spread(numpy_s)),
        Figure(section, "`import population` after it", "s", spread(ours_s), None, 0.1),
        Figure(section, "JAX is loaded then (0: no, 1: yes)", "", loaded, None, 0.0),
    ]


def _child(*arguments: str) -> list[float]:
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=HERE.parent,
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    found: list[float] = json.loads(done.stdout)
    return found
