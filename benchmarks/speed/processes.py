"""The throughput of four processes on one run, compared with four that only insert.

Each process has its own connection to a bare database and a controller on the run
that all share. At a signal all insert, or all tick, for a short time; the order is
drawn each time. A tick is one poll without news and one report with a path.

    python -m benchmarks.speed.processes && python -m benchmarks.render
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import multiprocessing
import pathlib
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from benchmarks.record import (
    RESULTS,
    Figure,
    circumstances,
    paired,
    shown,
    spread,
    write,
)
from benchmarks.speed.subjects import META, SEED
from benchmarks.speed.ticks import ours

PROCESSES = 4
BARE, TICKS = "BEGIN IMMEDIATE; insert; COMMIT", "ticks"
ABOUT = [
    "Four processes tick on one run for a moment. For another moment each does nothing",
    "but `BEGIN IMMEDIATE`, an insert of a row of a checkpoint's columns, `COMMIT` on",
    "a bare database (WAL, synchronous=NORMAL, the busy handling of Python's",
    "sqlite3). The ratio is that of the totals within a repetition.",
]
_COLUMNS = (
    "row INTEGER PRIMARY KEY, generation INTEGER, step INTEGER, parent INTEGER, "
    "params TEXT, has_value INTEGER, value REAL, metrics TEXT, time REAL, "
    "reports INTEGER, batch INTEGER"
)
_INSERT = "INSERT INTO checkpoints VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
Counts = dict[str, list[list[int]]]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        repetitions: Repetitions of all measurements.
        slices: Time slices of each kind in a repetition.
        seconds: The length of a slice.
    """

    repetitions: int = 21
    slices: int = 4
    seconds: float = 0.5


QUICK = Sizes(repetitions=2, slices=1, seconds=0.05)


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write `results/processes.json`."""
    parser = argparse.ArgumentParser(description="What four processes get done.")
    parser.add_argument("--quick", action="store_true", help="moments, for a test")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "processes.json")
    options = parser.parse_args(arguments)
    if options.quick and options.out.parent == RESULTS:
        parser.error("--quick figures are no results: pass --out with another folder.")
    sizes = QUICK if options.quick else Sizes()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        result = {
            "title": "Several processes on one run",
            "about": ABOUT,
            "command": "python -m benchmarks.speed.processes"
            + " --quick" * options.quick,
            **circumstances(folder, ["numpy"]),
            "seed": SEED,
            "repetitions": sizes.repetitions,
            "sizes": dataclasses.asdict(sizes),
        }
        counts = measure(folder, sizes)
    found = figures(counts, sizes.slices * sizes.seconds)
    result["figures"] = [figure.as_json() for figure in found]
    result["counts"] = counts
    write(options.out, result)
    for figure in found:
        print(shown(figure), flush=True)


def measure(folder: pathlib.Path, sizes: Sizes) -> Counts:
    """How often each process did each operation in each repetition."""
    kinds = [BARE, TICKS]
    shuffle = random.Random(SEED).shuffle
    counts: Counts = {kind: [] for kind in kinds}
    with _crew(folder) as pipes:
        for _ in range(sizes.repetitions):
            done = {kind: [0] * PROCESSES for kind in kinds}
            for _ in range(sizes.slices):
                shuffle(kinds)
                for kind in kinds:
                    for pipe in pipes:
                        pipe.send((kind, sizes.seconds))
                    for number, pipe in enumerate(pipes):
                        done[kind][number] += pipe.recv()
            for kind in kinds:
                counts[kind].append(done[kind])
    return counts


def figures(counts: Counts, seconds: float) -> list[Figure]:
    """The totals, and how evenly the processes share them.

    Args:
        counts: How often each process did each operation in each repetition.
        seconds: The length of a repetition, for each operation.
    """
    rates = {
        kind: [sum(done) / seconds for done in found] for kind, found in counts.items()
    }
    shares = {
        kind: spread([_slowest(done) for done in found])
        for kind, found in counts.items()
    }
    total, fair = (
        f"{PROCESSES} processes, all together",
        "The slowest process beside the mean",
    )
    ratio = paired(rates[TICKS], rates[BARE])
    return [
        Figure(total, BARE, "/s", spread(rates[BARE])),
        Figure(total, TICKS, "/s", spread(rates[TICKS]), ratio, at_least=1 / 3),
        Figure(fair, BARE, value=shares[BARE]),
        Figure(fair, TICKS, value=shares[TICKS], at_least=0.5),
    ]


def _slowest(done: Sequence[int]) -> float:
    return min(done) / max(sum(done) / len(done), 1e-9)


@contextlib.contextmanager
def _crew(folder: pathlib.Path) -> Iterator[list[Connection]]:
    """Start the processes and wait until they are ready; yields a pipe to each."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PROCESSES)
    pipes, crew = [], []
    for number in range(PROCESSES):
        here, there = context.Pipe()
        process = context.Process(
            target=_serve, args=(folder, number, there, barrier), daemon=True
        )
        process.start()
        there.close()
        pipes.append(here)
        crew.append(process)
    try:
        for pipe in pipes:
            pipe.recv()
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()
        for process in crew:
            process.join()


def _serve(
    folder: pathlib.Path, number: int, pipe: Connection, barrier: Barrier
) -> None:
    """Run the commands from the pipe until it is closed."""
    work: Mapping[str, Callable[[float], int]] = {
        BARE: _inserting(folder),
        TICKS: _ticking(folder, number),
    }
    pipe.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            kind, seconds = pipe.recv()
            barrier.wait(60)
            pipe.send(work[kind](time.perf_counter() + seconds))


def _inserting(folder: pathlib.Path) -> Callable[[float], int]:
    """A function that inserts until a point in time, and returns how often."""
    connection = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    execute = connection.execute
    execute("PRAGMA journal_mode=WAL")
    execute("PRAGMA synchronous=NORMAL")
    execute(f"CREATE TABLE IF NOT EXISTS checkpoints ({_COLUMNS})")

    def insert(until: float) -> int:
        count = 0
        while time.perf_counter() < until:
            row = (count % 4, count, count - 1, '"4/1"', True, 1.5, None, 1.7e9, 1, 1)
            execute("BEGIN IMMEDIATE")
            execute(_INSERT, row)
            execute("COMMIT")
            count += 1
        return count

    return insert


def _ticking(folder: pathlib.Path, slot: int) -> Callable[[float], int]:
    """A function that ticks on a slot until a point in time, and returns how often."""
    controller = ours([META] * PROCESSES, str(folder / "run"))
    found = controller.workers[slot]
    generation, steps = found.generation_id, [found.step]
    poll, report = controller.maybe_get_worker_data, controller.set_eval

    def tick(until: float) -> int:
        before = step = steps[0]
        while time.perf_counter() < until:
            poll(slot, generation, step, None, META)
            step += 1
            report(slot, generation, step, f"{slot}/{step}", 1 + 1 / step)
        steps[0] = step
        return step - before

    return tick


if __name__ == "__main__":
    main()
