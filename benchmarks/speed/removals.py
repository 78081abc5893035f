"""What the removal of saves costs, and how much a run holds on the disk.

A population reports states of 100 kB. The same run with `Keep(everything=True)`
removes nothing: the difference is what removal costs.
"""

from __future__ import annotations

import collections
import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmarks.record import Figure, Spread, spread
from benchmarks.speed.weighing import Stopwatch, Weighed
from population import Keep, PopulationController
from population.mutators import PopulationBasedTraining
from population.space import LogUniform, Perturb

MEMBERS = 16
STEPS_PER_EXPLOIT = 10
SPACE = {"learning_rate": LogUniform(1e-4, 1e-1)}
SHARE = 2.0  # The goal, in per cent of the time between two reports.
PEAK = 1.2  # The goal, over what is reachable and what a second has written.
_SYNC = "sync"


class Found(NamedTuple):
    """The figures of one run.

    Attributes:
        cpu_s: Processor time of all threads, until the run is closed.
        calls_s: Seconds within polls and reports.
        removing_s: Seconds within `remove` of the store, in any thread.
        syncing_s: Seconds within `sync` of the store.
        removed: How many saves were removed.
        peak: The most bytes in the store, over those that are reachable and those that
            the last second has written; 0 if it was not looked for.
        most: The most bytes in the store.
    """

    cpu_s: float
    calls_s: float
    removing_s: float
    syncing_s: float
    removed: int
    peak: float
    most: int


class Watched(Weighed):
    """A store that also knows what it has written lately, and times its removals."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self.removing, self.syncing = Stopwatch(), Stopwatch()
        self._recent: collections.deque[tuple[float, int]] = collections.deque()
        self._written = 0
        self.most = 0
        sync = getattr(self, _SYNC, None)
        if sync is not None:
            setattr(self, _SYNC, self.syncing.timing(sync))

    def save(self, name: str, tree: Any) -> str:
        """Save, and note when."""
        path = super().save(name, tree)
        self._recent.append((time.perf_counter(), self.one))
        self._written += self.one
        self.most = max(self.most, self.total)
        return path

    def remove(self, path: str) -> None:
        """Remove, timed."""
        self.removing.timing(super().remove)(path)

    def written(self) -> int:
        """The bytes that the last second has written."""
        since = time.perf_counter() - 1
        while self._recent and self._recent[0][0] < since:
            self._written -= self._recent.popleft()[1]
        return self._written


def figures(
    count: int, floats: int, pace_s: float, repetitions: int, folder: pathlib.Path
) -> Iterator[Figure]:
    """The share of removal in the time of a save and report, and the peak.

    Args:
        count: Saves of a run.
        floats: Of a save.
        pace_s: Seconds from one save and report to the next.
        repetitions: Runs of each kind, with other seeds.
        folder: For the runs.
    """
    removing: list[Found] = []
    keeping: list[Found] = []
    fast: list[Found] = []
    for seed in range(repetitions):
        paced = [(removing, False), (keeping, True)]
        for found, keeps in paced if seed % 2 else reversed(paced):
            found.append(run(folder, count, floats, seed, pace_s, keeps=keeps))
        fast.append(run(folder, count, floats, seed, looks=True))
    yield from _costs(removing, keeping, count, floats, pace_s)
    yield from _peaks(fast, count, floats)


def run(
    folder: pathlib.Path,
    count: int,
    floats: int,
    seed: int,
    pace_s: float = 0.0,
    *,
    keeps: bool = False,
    looks: bool = False,
) -> Found:
    """One run.

    Args:
        folder: For its files, which are removed at the end.
        count: Saves.
        floats: Of a save.
        seed: The seed of the run, its values and its arrays.
        pace_s: Seconds from one save and report to the next.
        keeps: Whether the run keeps everything, and removes nothing.
        looks: Whether to compare the bytes in the store after each report.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = pathlib.Path(name)
        store = Watched(root / "params")
        mutator = PopulationBasedTraining(Perturb(SPACE), STEPS_PER_EXPLOIT)
        keep = Keep(everything=keeps)
        controller = PopulationController.from_space(
            SPACE, MEMBERS, mutator, root, params=store, seed=seed, keep=keep
        )
        return _run(controller, store, count, floats, seed, pace_s, looks)


def _run(
    controller: PopulationController,
    store: Watched,
    count: int,
    floats: int,
    seed: int,
    pace_s: float,
    looks: bool,
) -> Found:
    calls, peak = Stopwatch(), 0.0
    poll = calls.timing(controller.maybe_get_worker_data)
    report = calls.timing(controller.set_eval)
    rng = np.random.default_rng(seed)
    tree = {"weights": rng.normal(size=floats).astype(np.float32)}
    work, steps = controller.workers, [0] * MEMBERS
    began, cpu_s = time.perf_counter(), time.process_time()
    for number in range(count):
        slot = number % MEMBERS
        news = poll(slot, work[slot].generation_id, steps[slot], None, None)
        if news is not None:
            work[slot], steps[slot] = news, news.step
        steps[slot] += 1
        value = float(rng.random())
        report(slot, work[slot].generation_id, steps[slot], tree, value)
        if looks:
            allowed = len(controller.reachable()) * store.one + store.written()
            peak = max(peak, store.total / allowed)
        if pace_s:
            rest = began + (number + 1) * pace_s - time.perf_counter()
            time.sleep(max(0.0, rest))
    controller.close()
    cpu_s = time.process_time() - cpu_s
    if store.on_disk() != store.total:
        raise SystemExit(
            f"{store.on_disk()} bytes are in params/, but {store.total} were counted: "
            "the figures would be wrong. Mend the counting in Weighed."
        )
    seconds = calls.seconds, store.removing.seconds, store.syncing.seconds
    return Found(cpu_s, *seconds, store.removed, peak, store.most)


def _costs(
    removing: list[Found],
    keeping: list[Found],
    count: int,
    floats: int,
    pace_s: float,
) -> Iterator[Figure]:
    size = f"{floats * 4 / 1e3:g} kB"
    section = f"Removal, where each {1e3 * pace_s:g} ms {size} are saved and reported"
    # In per cent of the time of all saves and reports.
    share = 100 / (count * pace_s)

    def more(name: str) -> Spread:
        pairs = zip(removing, keeping, strict=True)
        return spread([share * (getattr(a, name) - getattr(b, name)) for a, b in pairs])

    def own(name: str) -> Spread:
        return spread([share * getattr(one, name) for one in removing])

    def each(found: list[Found]) -> Spread:
        return spread([1e3 * one.calls_s / count for one in found])

    yield Figure(section, "processor time", "%", more("cpu_s"), at_most=SHARE)
    yield Figure(section, "longer polls and reports", "%", more("calls_s"))
    yield Figure(section, "within `remove` of the store", "%", own("removing_s"))
    yield Figure(section, "within `sync` of the store", "%", own("syncing_s"))
    what = "a poll, a save and a report"
    yield Figure(section, what, "ms", each(removing))
    yield Figure(section, f"{what}, nothing removed", "ms", each(keeping))
    removed = spread([one.removed for one in removing])
    yield Figure(section, "saves that were removed", "", removed)


def _peaks(fast: list[Found], count: int, floats: int) -> Iterator[Figure]:
    section = f"{count:,} saves of {floats * 4 / 1e3:g} kB as fast as they come"
    what = "the peak of the bytes, over what is reachable and a second has written"
    yield Figure(section, what, "", spread([f.peak for f in fast]), at_most=PEAK)
    most = spread([one.most / 1e6 for one in fast])
    yield Figure(section, "the most bytes", "MB", most)
    each = spread([1e3 * one.calls_s / count for one in fast])
    yield Figure(section, "a poll, a save and a report", "ms", each)
    removed = spread([one.removed for one in fast])
    yield Figure(section, "saves that were removed", "", removed)
