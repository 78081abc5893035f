"""What reading a recorded run costs: a million checkpoints, and a run that trains.

The command line and the columns beside `SELECT count(*)`, and reports with and without
a process that watches the run.

    python -m benchmarks.speed.reading && python -m benchmarks.render
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import pathlib
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.record import (
    RESULTS,
    Figure,
    circumstances,
    paired,
    shown,
    spread,
    write,
)
from population import PopulationController
from population.journal.records import Best, CheckpointRecord
from population.journal.sqlite import SqliteJournal
from population.journal.sqlite_file import JOURNAL_NAME, log_of
from population.mutators import FixedSchedule

SEED = 0
MEMBERS = 64
WITHIN_S, WITHIN_MB = 2.0, 500.0
SLOWER = 1.05
EVERY_S = 1.0
ABOUT = [
    "Each figure of the long run is that of a fresh process: the program `population`",
    "from its start to its end; and within one, the columns with all numbers, and the",
    "peak of its memory. `SELECT count(*)` is that of a bare connection, without the",
    "start of a process. Reports beside a reader: one process reports a value of each",
    "of 64 members in turn as fast as it can, while another one looks at the run each",
    "second, as `population watch` does; the parts take turns.",
]
_COLUMNS = """
import json, sys, time
import population
from benchmarks.speed.resume import peak_mb
start = time.perf_counter()
rows = population.read(sys.argv[1]).checkpoints().rows
print(json.dumps([time.perf_counter() - start, peak_mb(), rows]))
"""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        checkpoints: Of the long run.
        reports: Of the run that trains.
        repetitions: Of everything.
    """

    checkpoints: int = 10**6
    reports: int = 10**5
    repetitions: int = 5


QUICK = Sizes(checkpoints=500, reports=300, repetitions=1)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write `results/reading.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few, to try it")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "reading.json")
    options = parser.parse_args(argv)
    if options.quick and options.out.parent == RESULTS:
        parser.error("--quick figures are no results: pass --out with another folder.")
    sizes = QUICK if options.quick else Sizes()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        result = {
            "title": "Reading",
            "about": ABOUT,
            "command": "python -m benchmarks.speed.reading"
            + " --quick" * options.quick,
            **circumstances(folder, ["numpy"]),
            "seed": SEED,
            "repetitions": sizes.repetitions,
            "sizes": dataclasses.asdict(sizes),
        }
        figures: list[dict[str, Any]] = []
        for figure in measure(sizes, folder):
            print(shown(figure), flush=True)
            figures.append(figure.as_json())
        write(options.out, {**result, "figures": figures})


def measure(sizes: Sizes, folder: pathlib.Path) -> Iterator[Figure]:
    """All figures."""
    yield from _of_a_long_run(sizes, folder / "long")
    yield from _beside_a_reader(sizes, folder)


def fill(log_dir: pathlib.Path, count: int) -> None:
    """Make a run that has so many checkpoints, with values and metrics."""
    opened(log_dir).close()
    journal = SqliteJournal(log_dir / JOURNAL_NAME)
    with contextlib.closing(journal), journal.transaction():
        newest = [(g.row, g.row + 1) for g in journal.generations()]
        row, left = journal.tail().row, count - MEMBERS
        records = []
        for number in range(left):
            slot, row = number % MEMBERS, row + 1
            generation, parent = newest[slot]
            newest[slot] = generation, row
            value = 1.0 / (number + 1)
            records.append(
                CheckpointRecord(
                    row=row,
                    generation=generation,
                    step=number // MEMBERS + 1,
                    parent=parent,
                    params=None,
                    has_value=1,
                    value=value,
                    metrics=f'{{"loss":{value!r}}}',
                    time=1e9 + number,
                    reports=number + 1,
                    batch=row,
                )
            )
        journal.write(records)
        journal.write([Best(row, row, left)])


def opened(log_dir: pathlib.Path) -> PopulationController:
    """A run without decisions."""
    start = [{"lr": 0.1, "momentum": 0.9}] * MEMBERS
    return PopulationController(start, FixedSchedule({10**9: start[0]}), log_dir)


def _of_a_long_run(sizes: Sizes, log_dir: pathlib.Path) -> Iterator[Figure]:
    """The command line and the columns."""
    fill(log_dir, sizes.checkpoints)
    counts, columns, peaks, commands = [], [], [], []
    for _ in range(sizes.repetitions):
        counts.append(_count(log_dir, sizes.checkpoints))
        told = _run(["-c", _COLUMNS, str(log_dir)])
        seconds, megabytes, rows = json.loads(told)
        if rows != sizes.checkpoints:
            raise RuntimeError(f"{rows} rows were read of {sizes.checkpoints}")
        columns.append(seconds)
        peaks.append(megabytes)
        start = time.perf_counter()
        _run(["-m", "population", "show", str(log_dir)])
        commands.append(time.perf_counter() - start)
    section = f"A run of {sizes.checkpoints:,} checkpoints"
    yield Figure(section, "`SELECT count(*)`", "s", spread(counts))
    yield Figure(
        section, "`checkpoints()`", "s", spread(columns), None, at_most=WITHIN_S
    )
    yield Figure(
        section, "its memory, all of the process", "MB", spread(peaks), None, WITHIN_MB
    )
    yield Figure(section, "`population show`", "s", spread(commands), at_most=WITHIN_S)
    ratio = paired(commands, counts)
    yield Figure(section, "`population show`, over `SELECT count(*)`", "", ratio)


def _count(log_dir: pathlib.Path, expected: int) -> float:
    """Seconds of the simplest query that looks at all checkpoints."""
    with contextlib.closing(sqlite3.connect(log_dir / JOURNAL_NAME)) as link:
        start = time.perf_counter()
        ((found,),) = link.execute("SELECT count(*) FROM checkpoints").fetchall()
        seconds = time.perf_counter() - start
    if found != expected:
        raise RuntimeError(f"{found} checkpoints are there of {expected}")
    return seconds


def _run(arguments: Sequence[str]) -> str:
    """The output of a Python process."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _beside_a_reader(sizes: Sizes, folder: pathlib.Path) -> Iterator[Figure]:
    """Reports with and without a reader, and the length of the log."""
    alone, watched, logs = [], [], []
    for number in range(sizes.repetitions):
        seconds, _ = _reported(folder / f"alone {number}", sizes.reports, reader=False)
        alone.append(seconds)
        seconds, log = _reported(folder / f"read {number}", sizes.reports, reader=True)
        watched.append(seconds)
        logs.append(log / 1e6)
    section = f"A run of {sizes.reports:,} reports, while another process reads it"
    micro = [1e6 * s for s in alone], [1e6 * s for s in watched]
    yield Figure(section, "no reader", "us a report", spread(micro[0]))
    yield Figure(
        section,
        "a reader that looks each second",
        "us a report",
        spread(micro[1]),
        paired(watched, alone),
        at_most=SLOWER,
    )
    yield Figure(section, "the longest log with a reader", "MB", spread(logs))


def _reported(
    log_dir: pathlib.Path, reports: int, *, reader: bool
) -> tuple[float, int]:
    """Return the seconds of a report, and the greatest size of the log in bytes."""
    run = opened(log_dir)
    log = log_of(log_dir / JOURNAL_NAME)
    with contextlib.ExitStack() as stack:
        stack.callback(run.close)
        if reader:
            command = ["-m", "population", "watch", str(log_dir), "--every"]
            watching = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *command, str(EVERY_S)], stdout=subprocess.PIPE
                )
            )
            stack.callback(watching.kill)
            assert watching.stdout is not None
            watching.stdout.readline()  # It has looked once.
        names = [worker.generation_id for worker in run.workers]
        longest = 0
        start = time.perf_counter()
        for number in range(reports):
            slot = number % MEMBERS
            run.set_eval(slot, names[slot], number // MEMBERS + 1, None, 1.0)
            if number % 1000 == 0:
                longest = max(longest, log.stat().st_size)
        seconds = (time.perf_counter() - start) / reports
    return seconds, longest


if __name__ == "__main__":
    main()
