"""Microseconds of a save and a load of a small state, and their share of a report."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.record import Figure, paired, spread
from benchmarks.speed import problems
from benchmarks.speed.subjects import SEED, Subject, taking_turns
from population import PopulationController
from population.mutators import FixedSchedule
from population.params import FileParams
from population.space import sample

RAW_WRITE, SAVE = "a raw write", "`FileParams.save`"
RAW_READ, LOAD = "a raw read into new memory", "`FileParams.load`, into a tree `like`"
REPORT, SAVED = "`worker.report(value)`", "`worker.report(value, state)`"
MEMBERS = 16


def never(step: int) -> None:
    """A schedule that changes nothing."""
    del step


def figures(
    problem: str, repetitions: int, slices: int, count: int, folder: pathlib.Path
) -> Iterator[Figure]:
    """Saves and loads beside raw ones, and the share of a save in a report.

    Args:
        problem: The name of the problem whose state is saved.
        repetitions: How many samples of each are wanted.
        slices: Turns of each in a repetition.
        count: Operations of each in a turn.
        folder: For the files.
    """
    meta, tree = _state(problem)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    content = b"".join(leaf.tobytes() for leaf in leaves)
    files = _Files(folder, tree, content)
    runs = {
        REPORT: _Reports(folder / "without", meta, None),
        SAVED: _Reports(folder / "with", meta, tree),
    }
    subjects: dict[str, Subject] = {
        RAW_WRITE: files.raw_writes,
        SAVE: files.saves,
        RAW_READ: files.raw_reads,
        LOAD: files.loads,
        **runs,
    }
    found = taking_turns(subjects, repetitions, slices, count)
    for run in runs.values():
        run.close()
    kilobytes = len(content) / 1e3
    section = f"A small state: {len(leaves)} arrays of {kilobytes:.3g} kB in all"
    for name, beside in ((SAVE, RAW_WRITE), (LOAD, RAW_READ), (SAVED, REPORT)):
        yield Figure(section, beside, "us", spread(found[beside]))
        ratio = paired(found[name], found[beside])
        yield Figure(section, name, "us", spread(found[name]), ratio)
    share = paired([100 * s for s in found[SAVE]], found[SAVED])
    yield Figure(section, "the save's share of that report", "%", share)


class _Files:
    """Writes and reads of one state, timed."""

    def __init__(self, folder: pathlib.Path, tree: Any, content: bytes) -> None:
        self._store = FileParams(folder / "saves")
        self._tree = tree
        self._content = content
        self._raw = folder / "raw"
        self._raw.mkdir()
        self._name = self._store.save("0/0", tree)
        (self._raw / "read").write_bytes(content)
        self.loads(1)  # The first one compiles.

    def saves(self, count: int) -> tuple[float, int]:
        """Save under so many names; they are removed outside of the time."""
        start = time.perf_counter()
        paths = [self._store.save(f"0/{i}", self._tree) for i in range(count)]
        seconds = time.perf_counter() - start
        for path in paths:
            self._store.remove(path)
        return seconds, count

    def loads(self, count: int) -> tuple[float, int]:
        """Load one save again and again."""
        return _timed(lambda: self._store.load(self._name, self._tree), count)

    def raw_writes(self, count: int) -> tuple[float, int]:
        """Write the same bytes to so many files."""
        paths = [self._raw / str(i) for i in range(count)]
        start = time.perf_counter()
        for path in paths:
            with path.open("xb", buffering=0) as stream:
                stream.write(self._content)
        seconds = time.perf_counter() - start
        for path in paths:
            path.unlink()
        return seconds, count

    def raw_reads(self, count: int) -> tuple[float, int]:
        """Read them into a new buffer."""
        path, size = self._raw / "read", len(self._content)

        def read() -> None:
            with path.open("rb", buffering=0) as stream:
                stream.readinto(np.empty(size, np.uint8).data)

        return _timed(read, count)


class _Reports:
    """Reports of a population that nothing branches, with a state or without one."""

    def __init__(self, folder: pathlib.Path, meta: Any, tree: Any) -> None:
        self._tree = tree
        self._controller = PopulationController(
            [meta] * MEMBERS, FixedSchedule(never), folder, seed=SEED
        )
        self._workers = [self._controller.worker(i) for i in range(MEMBERS)]
        for worker in self._workers:
            worker.poll()
        self(MEMBERS)  # The first reports begin the files of a run.

    def __call__(self, count: int) -> tuple[float, int]:
        """Report so many times; the members take turns."""
        start = time.perf_counter()
        for number in range(count):
            worker = self._workers[number % MEMBERS]
            worker.step += 1
            worker.report(1.0, self._tree)
        return time.perf_counter() - start, count

    def close(self) -> None:
        """End the run."""
        for worker in self._workers:
            worker.release()
        self._controller.close()


def _state(problem: str) -> tuple[Any, Any]:
    """Drawn meta_params and a fresh state with them."""
    made = problems.named(problem)
    meta = sample(made.space, np.random.default_rng(SEED))
    key = jax.random.key(SEED)
    return meta, jax.jit(made.init)(key, jax.tree.map(jnp.float32, meta))


def _timed(call: Callable[[], object], count: int) -> tuple[float, int]:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - start, count
