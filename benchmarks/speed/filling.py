"""How well a stack of CNNs fills the device, and where its time and memory go.

One model with N times the batch does as many floating-point operations as N members
that have their own kernels, and nothing else: this is the limit.
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
from population.engines import vectorized

UNIT = "images/s"
AIM = 0.7  # On a GPU, as a part of the big batch's images a second.
EVERY = 10
CONVOLUTIONS = ("cnn lax.conv", "cnn")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        members: Sizes of the population.
        rounds: Rounds of `EVERY` steps and an evaluation.
        repetitions: Repetitions of each measurement.
        width: Channels of each convolution.
        batch: Images in one step of a member.
        convolutions: The kinds of convolution.
    """

    members: Sequence[int]
    rounds: int = 3
    repetitions: int = 3
    width: int = 16
    batch: int = 64
    convolutions: Sequence[str] = CONVOLUTIONS


# XLA's convolution under vmap takes minutes on a CPU: `auto` does not use it there, and
# the table of steps leaves it out; patches stack well there.
CPU = Sizes((1, 4, 16), convolutions=("cnn",))
GPU = Sizes((1, 4, 16, 64, 256, 1024), rounds=10, width=64)
QUICK = Sizes((1, 2), 1, 1, 4, 4, ("cnn",))


def figures(sizes: Sizes, folder: pathlib.Path) -> Iterator[Figure]:
    """The curve over N of each model, then memory and time at the largest N."""
    most = max(sizes.members)
    for name in sizes.convolutions:
        told = "matrix products" if name == "cnn" else "lax.conv"
        section = f"A stack of CNNs ({sizes.width} channels, {told})"
        model = functools.partial(problems.cnn, sizes.width, patches=name == "cnn")
        problem = model(sizes.batch)
        for size in sizes.members:
            big = model(size * sizes.batch)
            yield from _beside_big_batch(section, problem, big, size, sizes)
        whole = _Bare(problem, most)
        yield from _memory(section, whole)
        yield from _time(section, problem, whole, sizes, folder)


def _beside_big_batch(
    section: str,
    problem: problems.Problem,
    big: problems.Problem,
    size: int,
    sizes: Sizes,
) -> Iterator[Figure]:
    # Without the evaluations: a stack makes N of them, and the big batch one.
    ways = [_Bare(problem, size, evaluates=False), _Bare(big, None, evaluates=False)]
    rates: list[list[float]] = [[], []]
    for repetition in range(sizes.repetitions):
        for which in (0, 1) if repetition % 2 else (1, 0):
            images = size * sizes.batch * EVERY
            rates[which].append(images / ways[which].seconds(sizes.rounds))
    stacked, whole = rates
    what = f"N = {size}"
    yield Figure(section, f"{what}, stacked", UNIT, spread(stacked))
    yield Figure(
        section, f"{what}, one model with the whole batch", UNIT, spread(whole)
    )
    on_gpu = jax.devices()[0].platform != "cpu"
    goal = AIM if on_gpu and size == max(sizes.members) else None
    ratio = paired(stacked, whole)
    yield Figure(section, f"{what}, fraction of that", ratio=ratio, at_least=goal)


def _memory(section: str, bare: _Bare) -> Iterator[Figure]:
    """Bytes of a member as the compiler estimates them, and how many members fit."""
    state = sum(x.nbytes for x in jax.tree.leaves(bare.state)) / bare.size
    needed: Any = bare.compiled.memory_analysis()
    scratch = needed.temp_size_in_bytes / bare.size
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
    whole: _Bare,
    sizes: Sizes,
    folder: pathlib.Path,
) -> Iterator[Figure]:
    """The parts of a round that saves, as fractions of its time."""
    steps = _Bare(problem, whole.size, evaluates=False).seconds(sizes.rounds)
    bare = whole.seconds(sizes.rounds)
    task = Task("cnn", whole.size, EVERY, max(8, sizes.rounds), 4 * EVERY)
    plain, overhead = _run(task, problem, folder, 10**9)
    saving, _ = _run(task, problem, folder, 1)
    parts = {
        "training steps": steps,
        "evaluation of 300 images": bare - steps,
        "reports, decisions and copies": overhead,
        "saving all states": saving - plain,
    }
    parts["all else"] = saving - sum(parts.values())
    for what, seconds in parts.items():
        told = f"of a round of {EVERY} steps that saves: {what}"
        yield Figure(section, told, "%", _exactly(100 * seconds / saving))


def _run(
    task: Task, problem: problems.Problem, folder: pathlib.Path, save_every: int
) -> tuple[float, float]:
    """Seconds of a round of the engine, and the part of its controller."""
    place = pathlib.Path(tempfile.mkdtemp(dir=folder)) / "run"
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
        members: N; None: one model, which is not stacked.
        evaluates: Whether a round ends with an evaluation.

    Attributes:
        size: N.
        state: Their states.
        compiled: The program.
    """

    def __init__(
        self,
        problem: problems.Problem,
        members: int | None,
        *,
        evaluates: bool = True,
    ) -> None:
        self.size = size = members or 1
        rates = np.geomspace(1e-4, 1e-2, size).astype(np.float32)
        self._meta = {"learning_rate": jnp.array(rates)}
        self._keys = jax.random.split(jax.random.key(SEED), size)
        self._data, held_out = jax.device_put((problem.data, problem.evaluation))
        self.state = jax.jit(jax.vmap(problem.init))(self._keys, self._meta)

        def member(state: Any, meta: Any, key: Any, data: Any, to: Any) -> Any:
            def advance(carry: Any, at: Any) -> Any:
                own = jax.random.fold_in(key, at)
                return problem.step(carry, meta, data, own), None

            state, _ = jax.lax.scan(advance, state, jnp.arange(EVERY))
            value = problem.evaluate(state, meta, to) if evaluates else jnp.float32(0)
            return state, value

        def alone(state: Any, meta: Any, keys: Any, data: Any, to: Any) -> Any:
            first, rates, key = jax.tree.map(lambda x: x[0], (state, meta, keys))
            state, value = member(first, rates, key, data, to)
            return jax.tree.map(lambda x: x[None], state), value

        every = jax.vmap(member, (0, 0, 0, None, None)) if members else alone
        run = jax.jit(every, donate_argnums=0)
        given = self.state, self._meta, self._keys, self._data, held_out
        self.compiled = run.lower(*given).compile()
        self._call: Callable[[], Any] = lambda: self.compiled(
            self.state, self._meta, self._keys, self._data, held_out
        )

    def seconds(self, rounds: int) -> float:
        """Seconds of a round, the median of several."""
        spent = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            self.state, values = self._call()
            np.asarray(values)
            spent.append(time.perf_counter() - start)
        return statistics.median(spent[1:])


def _exactly(value: float) -> Spread:
    return Spread(value, value, value)
