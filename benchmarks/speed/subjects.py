"""The subjects that `ticks.py` times in turns: a run, and bare SQLite."""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

SEED = 0
META = {"learning_rate": 0.1}
_BATCH = 1000
_ROW = (
    "row INTEGER PRIMARY KEY, generation INTEGER, step INTEGER, parent INTEGER, "
    "params TEXT, has_value INTEGER, value REAL, metrics TEXT, time REAL, "
    "reports INTEGER, batch INTEGER"
)
_INSERT_ROW = "INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Subject(Protocol):
    """Something that is timed."""

    def __call__(self, count: int) -> tuple[float, int]:
        """Do it about `count` times; the seconds that took, and how often it was."""


class Inserts:
    """The reference: one row an insert, each its own transaction.

    Args:
        folder: Where the database is made.
        floor: Do also what no journal of this kind can leave out.
    """

    def __init__(self, folder: pathlib.Path, *, floor: bool = False) -> None:
        self._connection = sqlite3.connect(folder / "reference", isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(f"CREATE TABLE checkpoints ({_ROW})")
        if floor:
            self._connection.execute(
                "CREATE UNIQUE INDEX by_step ON checkpoints (generation, step)"
            )
        self._floor = floor
        self._next = 0

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def __call__(self, count: int) -> tuple[float, int]:
        """Insert `count` rows."""
        first, self._next = self._next, self._next + count
        rows = [
            (i, i % 4, i // 4, i - 4, '"4/1"', True, 1.5, None, 1.7e9, i, i)
            for i in range(first, self._next)
        ]
        return self._timed(rows), count

    def _timed(self, rows: list[tuple[Any, ...]]) -> float:
        execute = self._connection.execute
        start = time.perf_counter()
        if not self._floor:
            for row in rows:
                execute(_INSERT_ROW, row)
            return time.perf_counter() - start
        for row in rows:
            execute("PRAGMA data_version").fetchone()
            execute("PRAGMA data_version").fetchone()
            execute("BEGIN IMMEDIATE")
            execute(_INSERT_ROW, row)
            execute("COMMIT")
        return time.perf_counter() - start


class Appends:
    """The other reference: a line at the end of a file, safe from a power cut."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._file = os.open(folder / "lines", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __call__(self, count: int) -> tuple[float, int]:
        """Append fewer lines: each takes as long as several inserts."""
        count = max(1, count // 20)
        sync = getattr(os, "fdatasync", os.fsync)
        line = b"x" * 99 + b"\n"
        start = time.perf_counter()
        for _ in range(count):
            os.write(self._file, line)
            sync(self._file)
        return time.perf_counter() - start, count


class Ticks:
    """A run with so many checkpoints that ticks. When it has doubled it is made anew.

    Args:
        make: Makes a controller with these initial meta_params on a `log_dir` or None;
            ours, or the peer's, whose two calls are the same.
        folder: Where runs are made; None: in memory.
        workers: Their number.
        size: Checkpoints recorded before the first tick.
        improving: Whether each value is the best so far, or few are.
        thin: Tick fewer times in a slice.

    Attributes:
        controller: Of the present run.
    """

    def __init__(
        self,
        make: Callable[[list[Any], str | None], Any],
        folder: pathlib.Path | None,
        workers: int,
        size: int,
        *,
        improving: bool = False,
        thin: int = 1,
    ) -> None:
        self._make = make
        self._folder = folder
        self._workers = workers
        self._size = size
        self._improving = improving
        self._thin = thin
        self._runs = 0
        self.controller: Any = None
        self._begin()

    def __call__(self, count: int) -> tuple[float, int]:
        """Tick `count` times, or fewer if the run would more than double."""
        count = self._room(count)
        return self._tick(count), count

    def late(self, count: int) -> tuple[float, int]:
        """Report a checkpoint, and then its value, as a separate evaluation does."""
        count = self._room(count)
        report = self.controller.set_eval
        calls = self._reports(count)
        start = time.perf_counter()
        for worker, generation, step, path, value in calls:
            report(worker, generation, step, path, None)
            report(worker, generation, step, None, value)
        return time.perf_counter() - start, count

    def polls(self, count: int) -> tuple[float, int]:
        """Only the poll of a tick."""
        poll = self.controller.maybe_get_worker_data
        calls = [
            (worker, generation, 10**8, "4/1", META)
            for worker, generation in enumerate(self._generations)
        ] * (1 + count // self._workers)
        start = time.perf_counter()
        for call in calls:
            poll(*call)
        return time.perf_counter() - start, len(calls)

    def grow(self, size: int) -> None:
        """Report, in batches if the controller takes them, up to `size` checkpoints.

        The last reports come one by one, as they do in a run, so that what SQLite has
        put off (merging its write-ahead log) is as it would be.
        """
        if hasattr(self.controller, "set_evals"):
            while self._recorded + 3 * _BATCH <= size:
                self.controller.set_evals(self._reports(_BATCH))
        self._tick(max(0, size - self._recorded))

    def log_dir(self) -> pathlib.Path:
        """The folder of the present run."""
        if self._folder is None:
            raise ValueError("This run is in memory; give Ticks a folder.")
        return self._folder / str(self._runs)

    def close(self) -> None:
        """Forget the present run."""
        if hasattr(self.controller, "close"):
            self.controller.close()
        self.controller = None
        if self._folder is not None:
            shutil.rmtree(self.log_dir(), ignore_errors=True)

    def _room(self, count: int) -> int:
        """How many of `count` ticks fit into the run; makes a new one if none does."""
        count = max(1, min(count // self._thin, self._size))
        if self._recorded + count > 2 * self._size:
            self._begin()
        return count

    def _begin(self) -> None:
        self.close()
        self._runs += 1
        self._random = random.Random(SEED)
        self._recorded = 0
        log_dir = None
        if self._folder is not None:
            self.log_dir().mkdir(parents=True)
            log_dir = str(self.log_dir())
        self.controller = self._make([META] * self._workers, log_dir)
        self._generations = [
            self.controller.maybe_get_worker_data(w, None, 0, None, None).generation_id
            for w in range(self._workers)
        ]
        self.grow(self._size)

    def _reports(self, count: int) -> list[tuple[int, str, int, str, float]]:
        first, self._recorded = self._recorded, self._recorded + count
        reports = []
        for i in range(first, self._recorded):
            worker, step = i % self._workers, i // self._workers + 1
            value = 1 / (i + 1) if self._improving else 1 + self._random.random()
            path = f"{worker}/{step}"
            reports.append((worker, self._generations[worker], step, path, value))
        return reports

    def _tick(self, count: int) -> float:
        poll = self.controller.maybe_get_worker_data
        report = self.controller.set_eval
        calls = self._reports(count)
        start = time.perf_counter()
        for worker, generation, step, path, value in calls:
            poll(worker, generation, step, path, META)
            report(worker, generation, step, path, value)
        return time.perf_counter() - start


def taking_turns(
    subjects: Mapping[str, Subject], repetitions: int, slices: int, count: int
) -> dict[str, list[float]]:
    """Time subjects in turns, so that a busy machine slows all of them equally.

    Args:
        subjects: The subjects by name.
        repetitions: How many samples of each are wanted.
        slices: Turns of each subject in a repetition.
        count: Operations of each subject in a turn.

    Returns:
        The microseconds of each subject in each repetition.
    """
    order = list(subjects)
    shuffle = random.Random(SEED).shuffle
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(repetitions):
        seconds, done = dict.fromkeys(order, 0.0), dict.fromkeys(order, 0)
        for _ in range(slices):
            shuffle(order)
            for name in order:
                took, times = subjects[name](count)
                seconds[name] += took
                done[name] += times
        for name in subjects:
            samples[name].append(1e6 * seconds[name] / done[name])
    return samples
