"""How fast each engine trains one population.

The same PBT, on a durable journal, by a Python loop, threads, processes, as one stacked
program, by that program without a controller, and by Ray Tune.

    python -m benchmarks.speed.population && python -m benchmarks.render
    make bench-peers    # the same, with Ray Tune in the table

On another device the results go into a file of their own. How well a stack fills the
device, with a CNN, is measured by `filling.py`, which this runs too.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import pathlib
import random
import re
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from benchmarks.record import (
    RESULTS,
    Figure,
    circumstances,
    paired,
    shown,
    spread,
    write,
)
from benchmarks.speed import filling, tune, ways
from benchmarks.speed.ways import EXPLOIT_STEPS, SEED, Task, Timing

Way = Callable[[Task, pathlib.Path], Timing]
UNIT = "member-steps/s"
LOOP, THREADS, PROCESSES = "(a) Python loop", "(b) threads", "(c) processes"
STACKED, SAVING = "(d) stacked", "(d) stacked, saving every 10th"
TUNE, TUNE_FUNCTION = "(f) Ray Tune, a class", "(f) Ray Tune, a function"
LIMITS = ("(e) bare vmap", "(e) bare map")
WAYS: Mapping[str, Way] = {
    LOOP: ways.one_by_one,
    THREADS: ways.by_threads,
    PROCESSES: ways.by_processes,
    STACKED: ways.stacked,
    LIMITS[0]: functools.partial(ways.bare, batching="vmap"),
    LIMITS[1]: functools.partial(ways.bare, batching="map"),
    SAVING: functools.partial(ways.stacked, save_every=10),
    TUNE: tune.by_class,
    TUNE_FUNCTION: tune.by_function,
}
PEERS = (TUNE, TUNE_FUNCTION)
SLOW = (THREADS, PROCESSES)
WITHIN = {1: 1.4, 100: 1.05}  # Goals: (d) beside the faster (e), by steps a report.
TIMES = {1: 100.0, 10: 40.0, 100: 8.0}  # (d) beside (f).
SLOWER = 1.05
ON_GPU = 50.0  # (d) beside (a), with 1,024 members.
ABOUT = [
    "PBT (truncation, every 100 steps or, where few are trained, twice in all;",
    "synchronous but under Ray Tune) of an MLP 64-64 on digits, batches of 128, Adam;",
    "the journal is on disk. Training steps of all members a second, from when each",
    "member has reported once to the last report; what is before, compiling above",
    "all, is the start-up. Ratios are seconds beside the faster of the bare programs,",
    "which train and evaluate all members in one scan with no controller, in the same",
    "repetition. (b) and (c) save each report; (d) only at its end, but where it is",
    "said; (f) at each perturbation. Ray Tune is measured once for each row, as each",
    "start takes a minute, and at its best: the quarter of its results that came the",
    "fastest; its start-up is that to the first result. A stack of CNNs is compared",
    "without its evaluations; where its time goes is told of a round of 10 steps that",
    "saves.",
]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        repetitions: Of everything.
        ways: Those of the main table.
        tuned: Reports of each trial under Ray Tune, by steps a report.
        members: Of the main table.
        rounds: Reports of each member, by steps a report.
        population: Sizes of the second table.
        others: Problems of the third table.
        seconds: That a row of the second table should take, about.
    """

    repetitions: int = 3
    ways: Sequence[str] = tuple(name for name in WAYS if name not in PEERS)
    peers: Sequence[str] = ()
    tuned: Mapping[int, int] = dataclasses.field(
        default_factory=lambda: {1: 800, 10: 200, 100: 40}
    )
    members: int = 16
    rounds: Mapping[int, int] = dataclasses.field(
        default_factory=lambda: {1: 300, 10: 60, 100: 20}
    )
    population: Sequence[int] = (1, 4, 16, 64, 256, 1024)
    others: Sequence[str] = ("mlp", "cnn", "cnn lax.conv", "toy")
    seconds: float = 1.0


_TINY = {1: 4, 2: 3}
QUICK = Sizes(1, tuned={}, members=2, rounds=_TINY, population=(1, 2), others=("toy",))
Found = dict[str, list[Timing]]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few, to try it")
    parser.add_argument("--peers", action="store_true", help="with Ray Tune")
    parser.add_argument("--out", type=pathlib.Path, help="a JSON file to write")
    options = parser.parse_args(argv)
    if options.quick and options.out is None:
        parser.error("--quick needs --out: its figures are no results")
    if options.peers and not tune.is_installed():
        parser.error(tune.MISSING)
    sizes = QUICK if options.quick else Sizes()
    sizes = dataclasses.replace(sizes, peers=PEERS if options.peers else ())
    device = jax.devices()[0]
    is_cpu = device.platform == "cpu"
    kind = "cpu" if is_cpu else _name(device.device_kind)
    out = options.out or RESULTS / f"population-{kind}.json"
    if not options.peers and out.exists() and "--peers" in out.read_text():
        parser.error(f"{out.name} has Ray Tune's figures: make bench-peers, or --out")
    flag = " --peers" if options.peers else ""
    head = {
        "title": f"A whole population, on {'a CPU' if is_cpu else device.device_kind}",
        "about": ABOUT,
        "command": f"python -m benchmarks.speed.population{flag}",
        "seed": SEED,
        "repetitions": sizes.repetitions,
    }
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        packages = ["jax", "jaxlib", "numpy", "optax"]
        packages += ["ray"] if options.peers else []
        given = circumstances(place, packages)
        figures: list[dict[str, Any]] = []
        for figure in _figures(sizes, place, quick=options.quick):
            print(shown(figure), flush=True)
            figures.append(figure.as_json())
            # Each time: whatever happens to the rest, this is measured.
            write(out, {**head, "figures": figures, **given})


def _figures(sizes: Sizes, folder: pathlib.Path, *, quick: bool) -> Iterator[Figure]:
    yield from _each_way(sizes, folder)
    yield from _by_size(sizes, folder)
    yield from _never_slower(sizes, folder)
    is_cpu = jax.devices()[0].platform == "cpu"
    few, most = (filling.QUICK, filling.CPU) if is_cpu else (filling.QUICK, filling.GPU)
    yield from filling.figures(few if quick else most, folder)
    if is_cpu:
        yield Figure(
            "On a GPU",
            "all of this",
            note="not measured: none was there; the same command measures it",
        )


def _each_way(sizes: Sizes, folder: pathlib.Path) -> Iterator[Figure]:
    """All ways at several numbers of steps a report."""
    for every, rounds in sizes.rounds.items():
        task = Task("mlp", sizes.members, every, rounds, _apart(every, rounds))
        found = _measured(task, sizes.ways, sizes.repetitions, folder)
        tuned = dataclasses.replace(task, rounds=sizes.tuned.get(every, rounds))
        # A function is no faster: it is shown where each report counts most.
        for name in sizes.peers if every == 1 else sizes.peers[:1]:
            # Once: starting it takes a minute each time, and its rate hardly varies.
            timings = _measured(tuned, [name], 1, folder)
            found |= timings if timings[name][0].member_steps else {}
        section = f"{sizes.members} members, {_steps(every)} a report"
        yield from _beside_limit(section, found, WITHIN.get(every))
        yield from _beside_tune(section, found, TIMES.get(every))


def _beside_tune(section: str, found: Found, goal: float | None) -> Iterator[Figure]:
    """How many times as fast as Ray Tune the stack is."""
    for name in PEERS:
        if name not in found:
            if name == TUNE:
                yield Figure(section, "(f) Ray Tune", note=tune.MISSING)
            continue
        (once,) = _rates(found[name])
        rates = _rates(found[STACKED])
        ratio = paired(rates, [once] * len(rates))
        yield Figure(
            section, f"(d) is so many times {name}", ratio=ratio, at_least=goal
        )


def _by_size(sizes: Sizes, folder: pathlib.Path) -> Iterator[Figure]:
    """The stacked program and the loop with few and with many members."""
    for size in sizes.population:
        rounds = min(max(8, int(sizes.seconds * 1500 / size)), 150)
        rounds = rounds if sizes.repetitions > 1 else 4
        task = Task("mlp", size, 10, rounds, _apart(10, rounds))
        found = _measured(task, [LOOP, STACKED, *LIMITS], sizes.repetitions, folder)
        section = "By the number of members, 10 steps a report"
        limit = _limit(found)
        for name in (LOOP, STACKED):
            told = f"N = {size}, {name}"
            yield _figure(section, told, found[name], limit)
        on_gpu = jax.devices()[0].platform != "cpu" and size == 1024
        yield Figure(
            section,
            f"N = {size}, (d) is so many times (a)",
            ratio=paired(_rates(found[STACKED]), _rates(found[LOOP])),
            at_least=ON_GPU if on_gpu else None,
        )


def _never_slower(sizes: Sizes, folder: pathlib.Path) -> Iterator[Figure]:
    """Seconds of the stacked program beside those of the loop, where it is hard."""
    section = "Seconds of (d) beside (a), 1 step a report"
    for problem in sizes.others:
        for size in (1, sizes.members):
            rounds = 40 if problem.startswith("cnn") else 300
            rounds = rounds if sizes.repetitions > 1 else 4
            task = Task(problem, size, 1, rounds, _apart(1, rounds))
            found = _measured(task, [LOOP, STACKED], sizes.repetitions, folder)
            ratio = paired(_rates(found[LOOP]), _rates(found[STACKED]))
            yield Figure(
                section,
                f"{problem}, N = {size}",
                UNIT,
                spread(_rates(found[STACKED])),
                ratio,
                SLOWER,
                note=_batching(found[STACKED]),
            )


def _apart(every: int, rounds: int) -> int:
    """Steps between two decisions: there are two at least in a run."""
    return min(EXPLOIT_STEPS, max(1, rounds // 2 - 1) * every)


def _measured(
    task: Task, names: Sequence[str], repetitions: int, folder: pathlib.Path
) -> Found:
    """Timings of some ways, in another order each time."""
    found: Found = {name: [] for name in names}
    order, rng = list(names), random.Random(SEED)
    for _ in range(repetitions):
        rng.shuffle(order)
        for name in order:
            # A rate needs no more of the slow ones, which take minutes.
            least = task.exploit_steps // task.every + 2
            rounds = max(least, task.rounds // 5) if name in SLOW else task.rounds
            given = dataclasses.replace(task, rounds=rounds)
            found[name].append(WAYS[name](given, _new(folder)))
    return found


def _beside_limit(section: str, found: Found, within: float | None) -> Iterator[Figure]:
    limit = _limit(found)
    for name, timings in found.items():
        goal = within if name == STACKED else None
        beside = limit if len(timings) == len(limit) else [statistics.median(limit)]
        yield _figure(section, name, timings, beside, goal)


def _figure(
    section: str,
    what: str,
    timings: Sequence[Timing],
    limit: Sequence[float],
    goal: float | None = None,
) -> Figure:
    startup = spread([timing.startup_s for timing in timings]).median
    told = f"start-up {startup:.1f} s {_batching(timings)}".strip()
    rates = _rates(timings)
    ratio = paired(limit, rates)
    return Figure(section, what, UNIT, spread(rates), ratio, goal, note=told)


def _limit(found: Found) -> list[float]:
    """The rate of the faster bare program in each repetition."""
    pairs = zip(*(_rates(found[name]) for name in LIMITS), strict=True)
    return [max(pair) for pair in pairs]


def _rates(timings: Sequence[Timing]) -> list[float]:
    return [timing.rate for timing in timings]


def _batching(timings: Sequence[Timing]) -> str:
    chosen = sorted({timing.batching for timing in timings} - {""})
    return f"({' or '.join(chosen)})" if chosen else ""


def _steps(every: int) -> str:
    return "1 step" if every == 1 else f"{every} steps"


def _name(kind: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")


def _new(folder: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(tempfile.mkdtemp(dir=folder)) / "run"


if __name__ == "__main__":
    main()
