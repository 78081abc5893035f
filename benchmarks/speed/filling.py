"""How well a stack of CNNs fills the device, and where its time and memory go.

One model with N times the batch does as many floating-point operations as N members
with kernels of their own, and nothing else: that is the limit.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.record import Figure, Spread, paired, spread
from benchmarks.speed import problems, ways
from benchmarks.speed.ways import SEED, Task
from population import hyperparams
from population.engines import vectorized

UNIT = "images/s"
AIM = 0.7  # On a GPU, of the big batch's images a second.
EVERY = 10
CONVOLUTIONS = ("cnn lax.conv", "cnn")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        members: Sizes of the population.
        rounds: Of `EVERY` steps and an evaluation.
        repetitions: Of each.
        width: Channels of each convolution.
        batch: Images of a member's step.
        convolutions: Which models.
    """

    members: Sequence[int]
    rounds: int = 3
    repetitions: int = 3
    width: int = 16
    batch: int = 64
    convolutions: Sequence[str] = CONVOLUTIONS


# XLA's convolution under vmap takes minutes on a CPU: `auto` gives it up, and so does
# the table of steps; patches are what stacks there.
CPU = Sizes((1, 4, 16), convolutions=("cnn",))
GPU = Sizes((1, 4, 16, 64, 256, 1024), rounds=10, width=64)
QUICK = Sizes((1, 2), 1, 1, 4, 4, ("cnn",))


def figures(sizes: Sizes, folder: pathlib.Path) -> Iterator[Figure]:
    """The curve over N of each model, then memory and time at the largest N."""
    for name in sizes.convolutions:
        patches = name == "cnn"
        told = "matrix products" if patches else "lax.conv"
        section = f"A stack of CNNs ({sizes.width} channels, {told})"
        problem = problems.cnn(sizes.width, sizes.batch, patches=patches)
        for size in sizes.members:
            yield from _beside_big_batch(section, problem, size, sizes)
        yield from _memory(section, problem, max(sizes.members), sizes)
        yield from _time(section, problem, max(sizes.members), sizes, folder)


def _beside_big_batch(
    section: str, problem: problems.Problem, size: int, sizes: Sizes
) -> Iterator[Figure]:
    big = problems.cnn(
        sizes.width, size * sizes.batch, patches=section.endswith("products)")
    )
    # Without the evaluations: a stack makes N of them, and the big batch one.
    stack, one = (_Bare(p, n, evaluates=False) for p, n in ((problem, size), (big, 1)))
    images = size * sizes.batch * EVERY
    stacked, whole = [], []
    for _ in range(sizes.repetitions):
        stacked.append(images / stack.seconds(sizes.rounds))
        whole.append(images / one.seconds(sizes.rounds))
    what = f"N = {size}"
    yield Figure(section, f"{what}, stacked", UNIT, spread(stacked))
    yield Figure(
        section, f"{what}, one model with the whole batch", UNIT, spread(whole)
    )
    on_gpu = jax.devices()[0].platform != "cpu"
    goal = AIM if on_gpu and size == max(sizes.members) else None
    ratio = paired(stacked, whole)
    yield Figure(section, f"{what}, fraction of that", ratio=ratio, at_least=goal)


def _memory(
    section: str, problem: problems.Problem, size: int, sizes: Sizes
) -> Iterator[Figure]:
    """Bytes of a member as the compiler reckons them, and how many fit."""
    del sizes
    bare = _Bare(problem, size)
    state = sum(x.nbytes for x in jax.tree.leaves(bare.state)) / size
    needed: Any = bare.compiled.memory_analysis()
    scratch = needed.temp_size_in_bytes / size
    yield Figure(section, "state of a member", "kB", _exactly(state / 1e3))
    yield Figure(
        section, "what a step needs beside it, a member", "kB", _exactly(scratch / 1e3)
    )
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit is None:
        note = "not known: this device does not say how much memory it has"
        yield Figure(section, "members that fit", note=note)
        return
    fit = limit / (state + scratch)
    note = "reckoned from the two above"
    yield Figure(section, "members that fit", "", _exactly(fit), note=note)


def _time(
    section: str,
    problem: problems.Problem,
    size: int,
    sizes: Sizes,
    folder: pathlib.Path,
) -> Iterator[Figure]:
    """Where the time of a round goes: steps, evaluation, the controller, saving."""
    whole = [_Bare(problem, size).seconds(sizes.rounds) for _ in range(2)][1:]
    steps = [_Bare(problem, size, evaluates=False).seconds(sizes.rounds)]
    rounds = max(4, sizes.rounds)
    task = Task("cnn", size, EVERY, rounds)
    shares: dict[str, float] = {
        "training steps": steps[0],
        "evaluation of 300 images": max(0.0, whole[0] - steps[0]),
    }
    for label, save_every in (("", 10**9), ("saving all states", 1)):
        place = pathlib.Path(tempfile.mkdtemp(dir=folder)) / "run"
        seconds, overhead = _run(task, problem, place, save_every)
        if not label:
            shares["reports, decisions and copies"] = overhead
            plain = seconds
        else:
            shares[label] = max(0.0, seconds - plain)
    total = sum(shares.values())
    for what, share in shares.items():
        told = f"of a round that saves: {what}"
        yield Figure(section, told, "%", _exactly(100 * share / total))


def _run(
    task: Task, problem: problems.Problem, place: pathlib.Path, save_every: int
) -> tuple[float, float]:
    """Seconds of a round of the engine, and those of its controller."""
    controller = ways.controller(task, place)
    summary = vectorized.run(
        controller, *problem[:3], task.every, data=problem.data,
        evaluation=problem.evaluation, save_every=save_every, batching="vmap",
        progress=False,
    )  # fmt: skip
    timing = ways.measured(task, controller, time.time())
    return timing.seconds / (task.rounds - 1), summary.overhead_s / summary.rounds


class _Bare:
    """N members in one program, without a controller.

    Args:
        problem: What they train.
        size: N.
        evaluates: Whether a round ends with an evaluation.
    """

    def __init__(
        self, problem: problems.Problem, size: int, *, evaluates: bool = True
    ) -> None:
        rates = np.geomspace(1e-4, 1e-2, size).astype(np.float32)
        self._meta = {"learning_rate": jnp.array(rates)}
        self._keys = jax.random.split(jax.random.key(SEED), size)
        self._data, held_out = jax.device_put((problem.data, problem.evaluation))

        def fresh(key: Any, meta: Any) -> Any:
            return hyperparams.put_traced(problem.init(key, meta), meta, True)

        self.state = jax.jit(jax.vmap(fresh))(self._keys, self._meta)

        def member(state: Any, meta: Any, key: Any, data: Any, to: Any) -> Any:
            def advance(carry: Any, at: Any) -> Any:
                own = jax.random.fold_in(key, at)
                return problem.step(carry, meta, data, own), None

            state, _ = jax.lax.scan(advance, state, jnp.arange(EVERY))
            value = problem.evaluate(state, meta, to) if evaluates else jnp.float32(0)
            return state, value

        every = jax.vmap(member, (0, 0, 0, None, None))
        run = functools.partial(jax.jit, donate_argnums=0)(every)
        given = self.state, self._meta, self._keys, self._data, held_out
        self.compiled = run.lower(*given).compile()
        self._call: Callable[[], Any] = lambda: self.compiled(
            self.state, self._meta, self._keys, self._data, held_out
        )

    def seconds(self, rounds: int) -> float:
        """Seconds of a round, the median of some."""
        spent = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            self.state, values = self._call()
            np.asarray(values)
            spent.append(time.perf_counter() - start)
        return statistics.median(spent[1:])


def _exactly(value: float) -> Spread:
    return Spread(value, value, value)
