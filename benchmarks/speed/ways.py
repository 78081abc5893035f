"""Ways to train one population: each returns when its reports came."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed import problems
from population import PopulationController, Stop, Worker, hyperparams
from population.engines import processes, threads, vectorized
from population.engines.stacked import cache
from population.mutators import PopulationBasedTraining
from population.space import Perturb, sample

EXPLOIT_STEPS = 100
SEED = 0


@dataclasses.dataclass(frozen=True)
class Task:
    """The population that is trained.

    Attributes:
        problem: The name of the problem.
        size: Members.
        every: Training steps a report.
        rounds: Reports of each member.
        exploit_steps: Training steps between two decisions.
    """

    problem: str
    size: int
    every: int
    rounds: int
    exploit_steps: int = EXPLOIT_STEPS

    @property
    def steps(self) -> int:
        """Training steps of each member."""
        return self.every * self.rounds


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long a population took.

    Attributes:
        startup_s: Seconds from the call to the end of the first round.
        seconds: From there to the last report.
        member_steps: Training steps of all members in that time.
        batching: How members were batched, in a stack.
    """

    startup_s: float
    seconds: float
    member_steps: int
    batching: str = ""

    @property
    def rate(self) -> float:
        """Training steps a second, of all members."""
        return self.member_steps / self.seconds


def controller(task: Task, folder: pathlib.Path) -> PopulationController:
    """The run that all ways except the bare one train."""
    space = problems.named(task.problem).space
    every = task.exploit_steps
    mutator = PopulationBasedTraining(Perturb(space), every, synchronous=True)
    return PopulationController.from_space(
        space, task.size, mutator, folder, seed=SEED, stop=Stop(steps=task.steps)
    )


def measured(task: Task, found: PopulationController, began: float) -> Timing:
    """The timing from a run's journal, beginning when each member has reported.

    Raises:
        RuntimeError: No member has copied another.
    """
    copies = sum("copied" in found.graph.root(name).reason for name in found.graph)
    reports = [(c.time, c.worker_id) for c in found.history() if c.value is not None]
    found.close()
    if task.size > 1 and not copies:
        raise RuntimeError(f"No member has copied another one: {task} is no PBT.")
    begin = max({w: at for at, w in reversed(sorted(reports))}.values())
    done = task.every * sum(at > begin for at, _ in reports)
    return Timing(begin - began, max(reports)[0] - begin, done)


def one_by_one(task: Task, folder: pathlib.Path) -> Timing:
    """A Python loop over the members, with a compiled step and evaluation."""
    began = time.time()
    problem, found = problems.named(task.problem), controller(task, folder)
    step = jax.jit(_counted(problem), donate_argnums=(0, 4))
    evaluate = jax.jit(problem.evaluate)
    copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
    data, held_out = jax.device_put((problem.data, problem.evaluation))
    work = {w: active for w, active in enumerate(found.workers)}
    keys = [_key(w) for w in work]
    metas = {w: _traced(work[w].meta_params) for w in work}
    counts = [jnp.int32(0) for _ in work]
    make = jax.jit(problem.init)
    states = [make(keys[w], metas[w]) for w in work]
    for at in range(task.every, task.steps + 1, task.every):
        for w in work:
            for _ in range(task.every):
                states[w], counts[w] = step(
                    states[w], metas[w], data, keys[w], counts[w]
                )
        values = [evaluate(states[w], metas[w], held_out) for w in work]
        news = found.set_evals(
            (w, work[w].generation_id, at, str(w), value)
            for w, value in enumerate(jax.device_get(values))
        )
        donors = {w: copy(states[int(active.params)]) for w, active in news.items()}
        for w, active in news.items():
            work[w], metas[w] = active, _traced(active.meta_params)
            states[w] = hyperparams.put(donors[w], active.meta_params, strict=False)
    return measured(task, found, began)


def by_threads(task: Task, folder: pathlib.Path) -> Timing:
    """A thread for each member."""
    compiled.cache_clear()  # The start-up is that of a first run.
    began, found = time.time(), controller(task, folder)
    threads.run(functools.partial(train, task), found, progress=False)
    return measured(task, found, began)


def by_processes(task: Task, folder: pathlib.Path) -> Timing:
    """A process for each core; they take turns with the members."""
    began, found = time.time(), controller(task, folder)
    count = os.cpu_count()
    processes.run(functools.partial(train, task), found, count, progress=False)
    return measured(task, found, began)


def stacked(task: Task, folder: pathlib.Path, *, save_every: int = 10**9) -> Timing:
    """All members as one program."""
    cache.clear()  # The start-up is that of a first run.
    began, found = time.time(), controller(task, folder)
    problem = problems.named(task.problem)
    summary = vectorized.run(
        found,
        problem.init,
        problem.step,
        problem.evaluate,
        task.every,
        data=problem.data,
        evaluation=problem.evaluation,
        save_every=save_every,
        progress=False,
    )
    timing = measured(task, found, began)
    return dataclasses.replace(timing, batching=summary.batching)


def bare(task: Task, folder: pathlib.Path, *, batching: str = "vmap") -> Timing:
    """The steps of all in one program without a controller; values reach the host."""
    del folder
    began = time.time()
    problem = problems.named(task.problem)
    rng = np.random.default_rng(SEED)
    metas = [_traced(sample(problem.space, rng)) for _ in range(task.size)]
    meta = jax.tree.map(lambda *leaves: jnp.stack(leaves), *metas)
    keys = jnp.stack([_key(w) for w in range(task.size)])
    run = jax.jit(_bare_round(problem, task.every, batching), donate_argnums=(0, 4))
    data, held_out = jax.device_put((problem.data, problem.evaluation))
    state = jax.jit(jax.vmap(problem.init))(keys, meta)
    counts, first = jnp.zeros(task.size, jnp.int32), 0.0
    for number in range(task.rounds):
        state, counts, values = run(state, meta, data, keys, counts, held_out)
        np.asarray(values)
        first = first or time.time()
        del number
    done = task.size * task.every * (task.rounds - 1)
    return Timing(first - began, time.time() - first, done, batching)


def train(task: Task, worker: Worker) -> None:
    """The loop of a thread or a process."""
    problem = problems.named(task.problem)
    step, evaluate = compiled(task.problem)
    key = _key(0)
    data, held_out = jax.device_put((problem.data, problem.evaluation))
    while worker.running:
        if worker.poll():
            state = worker.restore(functools.partial(problem.init, key))
            key, count = _key(worker.worker_id), jnp.int32(worker.step)
            meta = _traced(worker.meta_params)
        state, count = step(state, meta, data, key, count)
        worker.step += 1
        if worker.step % task.every == 0:
            worker.report(evaluate(state, meta, held_out), state)


@functools.cache
def compiled(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The step, which counts on, and the evaluation of one member."""
    problem = problems.named(name)
    step = jax.jit(_counted(problem), donate_argnums=(0, 4))
    return step, jax.jit(problem.evaluate)


def _counted(problem: problems.Problem) -> Callable[..., Any]:
    """A step that counts on, with the key of its count."""

    def step(state: Any, meta: Any, data: Any, key: Any, count: Any) -> Any:
        own = jax.random.fold_in(key, count)
        return problem.step(state, meta, data, own), count + 1

    return step


def _bare_round(
    problem: problems.Problem, every: int, batching: str
) -> Callable[..., Any]:
    step = _counted(problem)

    def member(state: Any, meta: Any, data: Any, key: Any, count: Any, to: Any) -> Any:
        def advance(carry: Any, _: None) -> Any:
            return step(carry[0], meta, data, key, carry[1]), None

        (state, count), _ = jax.lax.scan(advance, (state, count), None, every)
        return state, count, problem.evaluate(state, meta, to)

    if batching == "vmap":
        return jax.vmap(member, (0, 0, None, 0, 0, None))

    def mapped(state: Any, meta: Any, data: Any, key: Any, count: Any, to: Any) -> Any:
        rows = state, meta, key, count
        return jax.lax.map(lambda r: member(r[0], r[1], data, r[2], r[3], to), rows)

    return mapped


def _key(worker_id: int) -> Any:
    return jax.random.fold_in(jax.random.key(SEED), worker_id)


def _traced(meta_params: Any) -> Any:
    return jax.tree.map(lambda number: jnp.float32(number), meta_params)
