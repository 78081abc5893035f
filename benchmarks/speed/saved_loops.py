"""What saves cost in threads and processes: runs with a save in each report, and none.

All workers begin together, after they have compiled. No member ever branches, so that
runs with and without saves train the same.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.record import Figure, paired, spread
from benchmarks.speed import problems, ways
from benchmarks.speed.small_saves import never
from benchmarks.speed.ways import SEED, Task
from population import PopulationController, Stop, Worker
from population.engines import processes, threads
from population.mutators import FixedSchedule

WITHIN = 2.0  # The goal, beside no saves.
TURN, NEVER = 10, 10**9  # Reports after which a worker changes its slot.
THREADS, PROCESSES = "threads", "processes"
Seconds = Mapping[str, Callable[[], float]]


def figures(
    problem: str,
    members: int,
    rounds: Mapping[str, int],
    repetitions: int,
    folder: pathlib.Path,
) -> Iterator[Figure]:
    """Threads and processes with a save in each report, and with none.

    Args:
        problem: The name of the problem.
        members: The size of the population.
        rounds: Reports of each member, by engine.
        repetitions: How many times each run is made.
        folder: For the runs.
    """
    section = f"{members} members, 1 step a report, in threads or processes"
    for engine, count in rounds.items():
        task = Task(problem, members, 1, count)
        plain, saved, turns = (
            f"{engine}, {how}"
            for how in ("no saves", "all saved", f"all saved, turns of {TURN} reports")
        )
        runs = {
            plain: functools.partial(
                seconds_of_a_report, engine, task, folder, saved=False
            ),
            saved: functools.partial(
                seconds_of_a_report, engine, task, folder, saved=True
            ),
        }
        # Threads are as many as members: they take no turns.
        if engine == PROCESSES and count > TURN:
            runs[turns] = functools.partial(runs[saved], turn=TURN)
        found = in_turns(runs, repetitions)
        for name, seconds in found.items():
            micro = spread([1e6 * s for s in seconds])
            ratio = None if name == plain else paired(seconds, found[plain])
            goal = WITHIN if name == saved else None
            yield Figure(section, name, "us a report", micro, ratio, goal)


def seconds_of_a_report(
    engine: str, task: Task, folder: pathlib.Path, *, saved: bool, turn: int = NEVER
) -> float:
    """Seconds from one report of any member to the next.

    Args:
        engine: THREADS or PROCESSES.
        task: The population.
        folder: For the run.
        saved: Whether each report has a state.
        turn: After this many saved reports a worker changes to another slot.
    """
    own = pathlib.Path(tempfile.mkdtemp(dir=folder))
    ready = own / "ready"
    ready.mkdir()
    found = PopulationController.from_space(
        problems.named(task.problem).space,
        task.size,
        FixedSchedule(never),
        own / "run",
        seed=SEED,
        stop=Stop(steps=task.steps),
    )
    cores = min(os.cpu_count() or 1, task.size)
    workers = task.size if engine == THREADS else cores
    loop = functools.partial(train, task, Begin(ready, workers), saved, turn)
    run = threads.run if engine == THREADS else processes.run
    run(loop, found, workers, progress=False)
    times = [(c.time, c.worker_id) for c in found.history() if c.value is not None]
    found.close()
    firsts = {slot: at for at, slot in sorted(times, reverse=True)}
    began = sorted(firsts.values())[workers - 1]
    later = [at for at, _ in times if at > began]
    return (max(later) - began) / len(later)


@dataclasses.dataclass(frozen=True)
class Begin:
    """Where workers of any process wait for each other.

    Attributes:
        folder: An empty folder, in which each worker makes a file.
        workers: Their number.
    """

    folder: pathlib.Path
    workers: int

    def wait(self, patience_s: float = 600.0) -> None:
        """Return once all workers have called this.

        Args:
            patience_s: How long to wait for them.

        Raises:
            TimeoutError: Some have not come.
        """
        (self.folder / f"{os.getpid()}-{threading.get_ident()}").touch()
        until = time.monotonic() + patience_s
        while len(os.listdir(self.folder)) < self.workers:
            if time.monotonic() > until:
                raise TimeoutError(
                    f"{self.workers} workers must begin together, but only "
                    f"{len(os.listdir(self.folder))} came in {patience_s:g} s. Run "
                    "this while the machine has nothing else to do."
                )
            time.sleep(0.01)


def train(task: Task, begin: Begin, saved: bool, turn: int, worker: Worker) -> None:
    """The loop of a thread or a process."""
    problem = problems.named(task.problem)
    step, evaluate = ways.compiled(task.problem)
    init = _compiled_init(task.problem)
    data, held_out = jax.device_put((problem.data, problem.evaluation))

    def advanced(state: Any, meta: Any, key: Any, count: Any) -> Any:
        state, count = step(state, meta, data, key, count)
        return state, count, evaluate(state, meta, held_out)

    key, meta = jax.random.key(SEED), _traced(worker.meta_params)
    jax.block_until_ready(advanced(init(key, meta), meta, key, jnp.int32(0)))
    begin.wait()
    worker.turn = turn
    while worker.running:
        if worker.poll():
            key = jax.random.fold_in(jax.random.key(SEED), worker.worker_id)
            meta, count = _traced(worker.meta_params), jnp.int32(worker.step)
            state = worker.restore(functools.partial(init, key))
        if worker.running:  # Else the run has ended while this worker waited.
            state, count, value = advanced(state, meta, key, count)
            worker.step += 1
            worker.report(value, state if saved else None)


def in_turns(runs: Seconds, repetitions: int) -> dict[str, list[float]]:
    """The seconds of runs, in another order each time."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    order: Sequence[str] = list(runs)
    rng = random.Random(SEED)
    for _ in range(repetitions):
        for name in rng.sample(order, len(order)):
            found[name].append(runs[name]())
    return found


def _traced(meta_params: Any) -> Any:
    return jax.tree.map(jnp.float32, meta_params)


@functools.cache
def _compiled_init(problem: str) -> Callable[..., Any]:
    return jax.jit(problems.named(problem).init)
