"""The cost of a process that trains one small population and ends.

Whole processes run in turn. Each trains 16 MLPs on digits until the best of them has
97 % of the validation images right, with a script that a user would write by hand, or
with the stacked engine. Then it trains a second time, with other seeds.

    python -m benchmarks.speed.cold && python -m benchmarks.render
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pathlib
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.record import (
    HERE,
    RESULTS,
    Figure,
    circumstances,
    paired,
    shown,
    spread,
    write,
)

SEED = 0
MEMBERS, EVERY, BATCH_SIZE, SIZES = 16, 25, 128, (64, 64, 64, 10)
FRESH = 2**32 - 1  # Replaces the step in the key that makes a fresh state.
ENOUGH, MOST_STEPS = 0.97, 2000
BY_HAND, AUTO, IN_MEMORY = "by hand", "auto", "auto in memory"
COLD_WAYS = (BY_HAND, AUTO, "vmap", "map", "loop")
LATER_WAYS = (BY_HAND, IN_MEMORY, AUTO)
COLD, AGAIN = 1.3, 1.1  # Goals, as ratios to the script by hand.
ABOUT = [
    "16 MLPs 64-64 on digits, batches of 128, Adam with learning rates from 1e-3 to",
    "3e-2; they are evaluated every 25 steps, until the best has 97 % of the",
    "validation images right. By hand: one compiled function with `vmap` and `scan`,",
    "and a Python loop around it, without decisions, a journal or saves. The others",
    "are the stacked engine with PBT; on a `log_dir` each report is in the journal,",
    "and all states are saved at the end. Processes take turns; their seconds are",
    "those of the whole process, imports and data included. A later run in the same",
    "process has another seed; each ratio is to the script by hand with the same",
    "seeds. Processor time is that of all cores, and says more where other programs",
    "run. Steps are those of each member.",
]


class Run(NamedTuple):
    """The figures of one trained population.

    Attributes:
        seconds: How long training took.
        cpu_s: Seconds of processor time that it took.
        steps: Training steps of each member.
        batching: How members were batched.
    """

    seconds: float
    cpu_s: float
    steps: int
    batching: str


class Process(NamedTuple):
    """The figures of one process.

    Attributes:
        seconds: From its start to its end.
        cpu_s: Seconds of processor time that it took.
        runs: The populations that it has trained, one after the other.
    """

    seconds: float
    cpu_s: float
    runs: list[Run]


# A seed and a folder, or None, to the training steps and how members were batched.
Train = Callable[[int, str | None], tuple[int, str]]


class Functions(NamedTuple):
    """One member's functions, and its data."""

    init: Callable[..., Any]
    step: Callable[..., Any]
    evaluate: Callable[..., Any]
    train: Any
    validation: Any


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few, to try it")
    parser.add_argument("--out", type=pathlib.Path, help="a JSON file to write")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--seeds", type=int, nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        print(json.dumps(trained(options.child, options.seeds)))
        return
    if options.quick and options.out is None:
        parser.error("--quick needs --out: its figures are no results")
    repetitions, later = (1, 1) if options.quick else (5, 5)
    head = {
        "title": "A cold process, and a second run",
        "about": ABOUT,
        "command": "python -m benchmarks.speed.cold",
        "seed": f"{SEED} to {SEED + later}",
        "repetitions": repetitions,
    }
    given = circumstances(HERE, ["jax", "jaxlib", "numpy", "optax", "scikit-learn"])
    figures = []
    for figure in _figures(repetitions, later):
        print(shown(figure), flush=True)
        figures.append(figure.as_json())
    write(options.out or RESULTS / "cold.json", {**head, "figures": figures, **given})


def trained(way: str, seeds: Sequence[int]) -> list[Run]:
    """Train a population for each seed in this process."""
    found = functions()
    batching = way.removesuffix(" in memory")
    run = by_hand(found) if way == BY_HAND else stacked(found, batching)
    runs = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            start, cpu = time.perf_counter(), time.process_time()
            steps, batching = run(seed, None if way == IN_MEMORY else folder)
            took = time.perf_counter() - start, time.process_time() - cpu
            runs.append(Run(*took, steps, batching))
    return runs


def functions() -> Functions:
    """The functions of one member; JAX is imported here, in the process that trains."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from examples import datasets

    data = datasets.digits()

    def init(key: Any, meta_params: Any) -> Any:
        shapes = list(itertools.pairwise(SIZES))
        keys = jax.random.split(key, len(shapes))
        weights = [
            (jax.random.normal(k, shape) / np.sqrt(shape[0]), jnp.zeros(shape[1]))
            for k, shape in zip(keys, shapes, strict=True)
        ]
        return weights, optax.adam(0.0).init(weights)

    def logits(weights: Any, images: Any) -> Any:
        x = images.reshape(len(images), -1)
        for matrix, bias in weights[:-1]:
            x = jax.nn.relu(x @ matrix + bias)
        return x @ weights[-1][0] + weights[-1][1]

    def loss(weights: Any, images: Any, labels: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(
            logits(weights, images), labels
        ).mean()

    def step(state: Any, meta_params: Any, train: Any, key: Any) -> Any:
        weights, opt_state = state
        chosen = jax.random.randint(key, (BATCH_SIZE,), 0, len(train.labels))
        gradient = jax.grad(loss)(weights, train.images[chosen], train.labels[chosen])
        optimizer = optax.adam(meta_params["learning_rate"])
        updates, opt_state = optimizer.update(gradient, opt_state, weights)
        return optax.apply_updates(weights, updates), opt_state

    def evaluate(state: Any, meta_params: Any, held_out: Any) -> Any:
        del meta_params
        right = logits(state[0], held_out.images).argmax(-1) == held_out.labels
        return right.mean()

    return Functions(init, step, evaluate, data.train, data.validation)


def rates() -> list[float]:
    """The members' learning rates."""
    return [1e-3 * 30 ** (i / (MEMBERS - 1)) for i in range(MEMBERS)]


def by_hand(found: Functions) -> Train:
    """A script that a user would write by hand for this task."""
    import jax
    import jax.numpy as jnp

    def member(state: Any, meta: Any, key: Any, at: Any, train: Any, to: Any) -> Any:
        def advance(state: Any, step: Any) -> Any:
            own = jax.random.fold_in(key, step)
            return found.step(state, meta, train, own), None

        state, _ = jax.lax.scan(advance, state, at + jnp.arange(EVERY))
        return state, found.evaluate(state, meta, to)

    axes = (0, 0, 0, None, None, None)
    train = jax.jit(jax.vmap(member, axes), donate_argnums=0)
    init = jax.jit(jax.vmap(found.init))
    fold = jax.jit(jax.vmap(jax.random.fold_in, (None, 0)))
    meta = {"learning_rate": jnp.array(rates())}

    def run(seed: int, folder: str | None) -> tuple[int, str]:
        del folder
        # The keys of the engine: so both need as many steps, if nobody copies anybody.
        keys = fold(jax.random.key(seed), jnp.arange(MEMBERS, dtype=jnp.uint32))
        data, held_out = jax.device_put((found.train, found.validation))
        state = init(
            jax.vmap(jax.random.fold_in, (0, None))(keys, jnp.uint32(FRESH)), meta
        )
        for at in range(0, MOST_STEPS, EVERY):
            state, values = train(state, meta, keys, at, data, held_out)
            if values.max() >= ENOUGH:
                break
        return at + EVERY, "vmap"

    return run


def stacked(found: Functions, batching: str) -> Train:
    """The same by the library."""
    from population import PopulationController, Stop
    from population.engines import vectorized
    from population.mutators import PopulationBasedTraining
    from population.space import LogUniform, Perturb

    space = {"learning_rate": LogUniform(1e-3, 3e-2)}
    starts = [{"learning_rate": rate} for rate in rates()]
    stop = Stop(steps=MOST_STEPS, value=ENOUGH)

    def run(seed: int, folder: str | None) -> tuple[int, str]:
        mutator = PopulationBasedTraining(Perturb(space), 8 * EVERY, synchronous=True)
        controller = PopulationController(
            starts, mutator, folder, mode="max", seed=seed, stop=stop
        )
        summary = vectorized.run(
            controller,
            found.init,
            found.step,
            found.evaluate,
            EVERY,
            data=found.train,
            evaluation=found.validation,
            batching=batching,
            progress=False,
        )
        controller.close()
        return summary.rounds * EVERY, summary.batching

    return run


def _figures(repetitions: int, later: int) -> Iterator[Figure]:
    """A cold process each, and processes that train several populations."""
    first, more = [SEED], [SEED + i for i in range(later + 1)]
    cold = _in_turns(COLD_WAYS, first, repetitions)
    told = {w: _note([run for one in cold[w] for run in one.runs]) for w in cold}
    section = "A process that trains one population"
    seconds = {w: [one.seconds for one in found] for w, found in cold.items()}
    yield from _beside(section, seconds, told, AUTO, COLD)
    cpu = {w: [one.cpu_s for one in found] for w, found in cold.items()}
    yield from _beside(f"{section}, in processor time", cpu)
    again = _in_turns(LATER_WAYS, more, repetitions)
    runs = {w: [one.runs[1:] for one in found] for w, found in again.items()}
    told = {w: _note([run for one in runs[w] for run in one]) for w in runs}
    section = "A later run in the same process"
    seconds = {w: [_mean(r.seconds for r in one) for one in runs[w]] for w in runs}
    yield from _beside(section, seconds, told, IN_MEMORY, AGAIN)
    cpu = {w: [_mean(r.cpu_s for r in one) for one in runs[w]] for w in runs}
    yield from _beside(f"{section}, in processor time", cpu)


def _mean(samples: Iterable[float]) -> float:
    return statistics.fmean(samples)


def _beside(
    section: str,
    seconds: Mapping[str, list[float]],
    notes: Mapping[str, str] | None = None,
    judged: str = "",
    goal: float | None = None,
) -> Iterator[Figure]:
    """Seconds of each way, and beside those of the script by hand."""
    for way, samples in seconds.items():
        yield Figure(
            section,
            _named(way),
            "s",
            spread(samples),
            paired(samples, seconds[BY_HAND]) if way != BY_HAND else None,
            at_most=goal if way == judged else None,
            note=(notes or {}).get(way, ""),
        )


def _named(way: str) -> str:
    if way == BY_HAND:
        return "a script by hand"
    batching = way.removesuffix(" in memory")
    return f'`batching="{batching}"`, {"in memory" if batching != way else "`log_dir`"}'


def _note(runs: Sequence[Run]) -> str:
    steps = sorted({run.steps for run in runs})
    told = f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
    batching = " or ".join(sorted({run.batching for run in runs}))
    return f"{told} steps ({batching})"


def _in_turns(
    ways: Sequence[str], seeds: Sequence[int], repetitions: int
) -> dict[str, list[Process]]:
    """Processes of each way, in another order each time."""
    found: dict[str, list[Process]] = {way: [] for way in ways}
    order, rng = list(ways), random.Random(SEED)
    for way in ways[:2]:
        _process(way, seeds[:1])  # Files are in the cache, bytecode is written.
    for _ in range(repetitions):
        rng.shuffle(order)
        for way in order:
            found[way].append(_process(way, seeds))
    return found


def _process(way: str, seeds: Sequence[int]) -> Process:
    arguments = ["--child", way, "--seeds", *map(str, seeds)]
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    start, cpu = time.perf_counter(), _children_s()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.cold", *arguments],
        cwd=HERE.parent,
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    took = time.perf_counter() - start, _children_s() - cpu
    return Process(*took, [Run(*run) for run in json.loads(done.stdout)])


def _children_s() -> float:
    """Processor time of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
